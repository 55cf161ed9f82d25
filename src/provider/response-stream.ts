import type { ProviderUsage } from '../catalogue/token-price.ts';
import type { AnswerReader } from './answer-reader.ts';
import { errorFromAnswer, type GrokApiError } from './grok-errors.ts';
import { readResponseUsage } from './grok-usage.ts';
import { stringEnd } from '../shared/json-string.ts';
import { badStream, frameData, frameEnd, isPing, isRecord, MarkedFrames, parseFrameData, WholeFrames } from './sse-frames.ts';

const NOTHING = Buffer.alloc(0);
const COLON = 0x3a;
/** Events that end a response; with the last one it has failed. */
const ENDINGS = ['response.completed', 'response.incomplete', 'response.failed'];
/** Frames that may matter; text may hold them too, so what they are is decided by parsing. Without their first quote, as in chat completions. */
const MARKS = [...ENDINGS.map((type) => Buffer.from(type)), Buffer.from('error"'), Buffer.from('DONE]'), Buffer.from(': ping'), Buffer.from(':ping'), Buffer.from('ping"')];
/** The event that ends it repeats all of the output, and the first may repeat all of the request. */
const FRAME_BYTES_MAX = 48 * 1024 * 1024;
/** What only events with output have. */
const DELTA = Buffer.from('"delta":');
const OUTPUT_ITEM = Buffer.from('output_item.');
/** An event says what it is within so many bytes; later ones may be anybody's text. */
const TYPE_BYTES = 96;
const QUOTE = 0x22;

/**
 * Reads the events of a streamed response while their bytes pass through unchanged. The event that ends it, and what follows, is held back until the
 * call is settled, so that a caller never takes an answer for whole that the gateway could not record.
 *
 * @see https://platform.openai.com/docs/api-reference/responses-streaming
 */
export class ResponseStreamReader implements AnswerReader {
  usage: unknown;
  serviceTier: string | undefined;
  failure: GrokApiError | undefined;
  storedId: string | undefined;
  readonly #frames = new WholeFrames(FRAME_BYTES_MAX);
  begun = false;
  #held: Buffer[] = [];
  #ended = false;
  #deltas = 0;
  #deltaBytes = 0;

  get billed(): ProviderUsage | undefined {
    return this.usage === undefined ? undefined : readResponseUsage(this.usage);
  }

  get priority(): boolean {
    return this.serviceTier === 'priority';
  }

  /** By the larger of two measures: events with a piece of output, and their bytes at two bytes a token. */
  get outputTokensSeen(): number {
    return Math.max(this.#deltas, Math.ceil(this.#deltaBytes / 2));
  }

  get outputTokensRunning(): number {
    return this.#ended ? 0 : this.#deltas;
  }

  push(bytes: Buffer): Buffer {
    if (this.failure) return NOTHING;
    const frames = this.#frames.push(bytes);
    return frames.length === 0 ? NOTHING : this.#readFrames(frames);
  }

  assertWhole(): void {
    const { rest } = this.#frames;
    if (this.#ended) {
      if (rest.length > 0 && !isPing(rest)) this.#held.push(rest); // the end is here, whatever becomes of [DONE]
    } else if (rest.toString().trim() !== '') {
      // A last event may lack its blank line; one that was cut is no JSON.
      if (this.#passes(rest) && !this.#ended) throw badStream('the stream ended in the middle of an event');
      if (this.failure !== undefined) throw this.failure;
    }
    if (!this.#ended) throw badStream('the stream ended before it was complete');
  }

  tail(): Buffer {
    return Buffer.concat(this.#held);
  }

  #readFrames(buffer: Buffer): Buffer {
    const forward: Buffer[] = [];
    let runStart = 0;
    const marked = new MarkedFrames(buffer, MARKS);
    for (let start = 0; start < buffer.length && !this.failure; ) {
      const plainUntil = this.#ended ? start : marked.from(start);
      this.#count(buffer, start, plainUntil);
      if (plainUntil === buffer.length) break;
      const end = frameEnd(buffer, plainUntil);
      if (!this.#passes(buffer.subarray(plainUntil, end))) {
        if (plainUntil > runStart) forward.push(buffer.subarray(runStart, plainUntil));
        runStart = end;
      }
      start = end;
    }
    if (runStart < buffer.length && !this.failure) forward.push(buffer.subarray(runStart));
    return forward.length === 1 ? forward[0]! : Buffer.concat(forward);
  }

  /** Reads one frame; false where it is held back, or not for the caller. */
  #passes(frame: Buffer): boolean {
    if (isPing(frame)) return false;
    const data = frameData(frame);
    if (data === '') return !this.#ended || this.#hold(frame);
    if (data === '[DONE]') return this.#hold(frame);
    const event = parseFrameData(data);
    const { type, response } = event;
    if (type === 'ping') return false;
    const nested = event['error'] ?? undefined;
    if (type === 'error' || (type === undefined && nested !== undefined)) {
      this.#fail(nested === undefined ? { code: event['code'], error: event['message'] } : event);
      return false;
    }
    if (typeof type !== 'string' || !ENDINGS.includes(type)) {
      this.#count(frame, 0, frame.length);
      return !this.#ended || this.#hold(frame);
    }
    if (!isRecord(response)) throw badStream('the last event has no response');
    this.usage = response['usage'] ?? undefined;
    if (typeof response['service_tier'] === 'string') this.serviceTier = response['service_tier'];
    if (type === 'response.failed') {
      const error = isRecord(response['error']) ? response['error'] : {};
      this.#fail({ code: error['code'], error: error['message'] });
      return false;
    }
    this.#ended = true;
    if (response['store'] === true && typeof response['id'] === 'string') this.storedId = response['id'];
    return this.#hold(frame);
  }

  /** Before any output it is as free as an error with a status of its own. */
  #fail(body: unknown): void {
    this.failure = errorFromAnswer(200, JSON.stringify(body), {}, this.begun || this.#ended || this.usage !== undefined ? 'mid-stream' : 'answer');
  }

  #hold(frame: Buffer): false {
    this.#held.push(frame);
    return false;
  }

  /** Frame by frame, so that it does not matter where the network cut the bytes. */
  #count(buffer: Buffer, from: number, until: number): void {
    for (let start = from; start < until; ) {
      const end = Math.min(until, frameEnd(buffer, start));
      if (buffer[start] !== COLON) this.#countFrame(buffer.subarray(start, end));
      start = end;
    }
  }

  #countFrame(frame: Buffer): void {
    const delta = frame.indexOf(DELTA);
    if (delta === -1) {
      this.begun ||= frame.subarray(0, TYPE_BYTES).includes(OUTPUT_ITEM);
      return;
    }
    this.begun = true;
    this.#deltas += 1;
    const text = frame.indexOf(QUOTE, delta + DELTA.length);
    if (text !== -1) this.#deltaBytes += stringEnd(frame, text) - text - 2;
  }
}

/** Finds the response itself in the events of its stream: the last one has it whole. */
export class ResponseAssembly {
  #last: Record<string, unknown> | undefined;

  /** Takes whole frames, such as `ResponseStreamReader` forwards. */
  push(frames: Buffer): void {
    const marked = new MarkedFrames(frames, MARKS);
    for (let start = 0; start < frames.length; ) {
      const at = marked.from(start);
      if (at === frames.length) return;
      const end = frameEnd(frames, at);
      const data = frameData(frames.subarray(at, end));
      if (data !== '' && data !== '[DONE]') {
        const { type, response } = parseFrameData(data);
        if (typeof type === 'string' && ENDINGS.includes(type) && isRecord(response)) this.#last = response;
      }
      start = end;
    }
  }

  /** @throws {GrokApiError} where no event had it */
  finish(): Record<string, unknown> {
    if (this.#last === undefined) throw badStream('no event had the response');
    return this.#last;
  }
}
