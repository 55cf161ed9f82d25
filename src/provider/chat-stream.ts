import type { ProviderUsage } from '../catalogue/token-price.ts';
import type { AnswerReader } from './answer-reader.ts';
import { errorFromAnswer, type GrokApiError } from './grok-errors.ts';
import { readChatUsage } from './grok-usage.ts';
import { badStream, frameData, frameEnd, isPing, isRecord, MarkedFrames, parseFrameData, WholeFrames } from './sse-frames.ts';

const NOTHING = Buffer.alloc(0);
const FRAME_BYTES_MAX = 4 * 1024 * 1024;
/** What a comment begins with. */
const COLON = 0x3a;
/** `"role":"assistant",` stands in the first frame alone. */
const ROLE_BYTES = 19;
/**
 * Raw JSON with one of these may be a frame that matters. Inside a JSON string the quote would be escaped, so text cannot fake them but at its very
 * end. Without their first quote, since a search for what begins with a frequent byte is slow.
 */
const MARKS = [Buffer.from('finish_reason"'), Buffer.from('usage"'), Buffer.from('DONE]'), Buffer.from('error"'), Buffer.from('vent:')];

/** A chunk of a streamed completion, as far as the gateway reads it. */
interface Chunk {
  choices?: { index?: number; delta?: Record<string, unknown>; finish_reason?: string | null }[] | null;
  usage?: unknown;
  error?: unknown;
  service_tier?: unknown;
  code?: unknown;
}

/**
 * Reads a stream of chat completion chunks while its bytes pass through unchanged.
 *
 * Bytes are forwarded up to the end of the last whole frame. Held back until the call is settled: the frame with the last `finish_reason`, the
 * usage frame and `[DONE]`, so that a caller never takes an answer for whole that the gateway could not record. Frames are searched for marks
 * natively and parsed only where one is found.
 */
export class ChatStreamReader implements AnswerReader {
  /** The provider's `usage` object as received; of several the last. */
  usage: unknown;
  serviceTier: string | undefined;
  done = false;
  /** An error that the provider reported inside the stream. What came before it has been forwarded. */
  failure: GrokApiError | undefined;
  /** Frames with content so far: about one token each. */
  contentFrames = 0;
  contentBytes = 0;
  readonly storedId = undefined;
  readonly #frames = new WholeFrames(FRAME_BYTES_MAX);
  /** Indexes of choices that have their finish reason. */
  readonly #finishedChoices = new Set<number>();
  #held: Buffer[] = [];
  #heldUsage: Buffer | undefined;
  #first = true;
  /** Bytes of a frame that are not content, measured on the first frame. */
  #frameOverheadBytes = 0;

  /**
   * @param choices how many answers were asked for (`n`)
   * @param withUsage whether the caller asked for the usage frame
   */
  constructor(
    private readonly choices: number,
    private readonly withUsage: boolean,
  ) {}

  get billed(): ProviderUsage | undefined {
    return this.usage === undefined ? undefined : readChatUsage(this.usage);
  }

  get begun(): boolean {
    return !this.#first;
  }

  get priority(): boolean {
    return this.serviceTier === 'priority';
  }

  /** Whether the answer has got all its finish reasons. */
  get finished(): boolean {
    return this.#finishedChoices.size >= this.choices;
  }

  /** Output tokens seen, by the larger of two measures: frames, and bytes of content at two bytes a token. */
  get outputTokensSeen(): number {
    return Math.max(this.contentFrames, Math.ceil(this.contentBytes / 2));
  }

  /** By frames, or by the usage of a provider that tells it as it goes. */
  get outputTokensRunning(): number {
    if (this.finished) return 0;
    const { billed } = this;
    return billed === undefined ? this.contentFrames : Math.max(this.contentFrames, billed.outputTokens + billed.reasoningTokens);
  }

  push(bytes: Buffer): Buffer {
    if (this.failure) return NOTHING;
    const frames = this.#frames.push(bytes);
    return frames.length === 0 ? NOTHING : this.#readFrames(frames);
  }

  /** The usage frame is only for those who asked for it. */
  tail(): Buffer {
    const frames = this.withUsage || this.#heldUsage === undefined ? this.#held : this.#held.filter((frame) => frame !== this.#heldUsage);
    return Buffer.concat(frames);
  }

  assertWhole(): void {
    const { rest } = this.#frames;
    if (frameData(rest).trim() === '[DONE]') {
      this.done = true;
      this.#held.push(rest);
    } else if (rest.toString().trim() !== '') {
      throw badStream('the stream ended in the middle of a frame');
    }
    if (!this.done || !this.finished) throw badStream('the stream ended before it was complete');
  }

  /** Whole frames in, those that may pass out. Frames before the first mark are only counted. */
  #readFrames(buffer: Buffer): Buffer {
    const forward: Buffer[] = [];
    let runStart = 0;
    let plainUntil = 0;
    const marked = new MarkedFrames(buffer, MARKS);
    for (let start = 0; start < buffer.length && !this.failure; ) {
      if (!this.#first && !this.finished && plainUntil <= start) plainUntil = marked.from(start);
      if (start < plainUntil) {
        this.#countPlain(buffer.subarray(start, plainUntil));
        start = plainUntil;
        continue;
      }
      const end = frameEnd(buffer, start);
      if (!this.#passes(buffer.subarray(start, end))) {
        if (start > runStart) forward.push(buffer.subarray(runStart, start));
        runStart = end;
      }
      start = end;
    }
    if (runStart < buffer.length && !this.failure) forward.push(buffer.subarray(runStart));
    return forward.length === 1 ? forward[0]! : Buffer.concat(forward);
  }

  /** Reads one frame; false where it is held back. */
  #passes(frame: Buffer): boolean {
    if (isPing(frame)) return false;
    const data = frameData(frame);
    if (data === '') return !this.finished || this.#hold(frame); // a comment
    if (data === '[DONE]') {
      this.done = true;
      return this.#hold(frame);
    }
    const chunk = parseChunk(data);
    const choices = chunk.choices ?? [];
    if (chunk.error !== undefined && chunk.error !== null && choices.length === 0) {
      // Before any output it is as free as an error with a status of its own.
      this.failure = errorFromAnswer(200, data, {}, this.contentFrames === 0 ? 'answer' : 'mid-stream');
      return false;
    }
    if (typeof chunk.service_tier === 'string') this.serviceTier = chunk.service_tier;
    const hasUsage = chunk.usage !== undefined && chunk.usage !== null;
    if (hasUsage) this.usage = chunk.usage;
    this.#countParsed(frame, chunk);
    for (const { index, finish_reason: reason } of choices) if (typeof reason === 'string') this.#finishedChoices.add(index ?? 0);
    if (choices.length === 0 && hasUsage) {
      // Wherever it stands, and however often: it is for those who asked for it, once.
      if (this.#heldUsage !== undefined) this.#held = this.#held.filter((held) => held !== this.#heldUsage);
      this.#heldUsage = frame;
      return this.#hold(frame);
    }
    return !this.finished || this.#hold(frame);
  }

  #hold(frame: Buffer): false {
    this.#held.push(frame);
    return false;
  }

  #countParsed(frame: Buffer, chunk: Chunk): void {
    let contentBytes = 0;
    let roleBytes = 0;
    for (const { delta } of chunk.choices ?? []) {
      for (const [key, value] of Object.entries(delta ?? {})) {
        if (key === 'role') roleBytes += ROLE_BYTES;
        else if (value !== null) contentBytes += Buffer.byteLength(typeof value === 'string' ? value : JSON.stringify(value));
      }
    }
    if (this.#first) this.#frameOverheadBytes = frame.length - contentBytes - roleBytes;
    this.#first = false;
    if (contentBytes === 0) return;
    this.contentFrames += 1;
    this.contentBytes += contentBytes;
  }

  /** Frame by frame, so that it does not matter where the network cut the bytes. */
  #countPlain(buffer: Buffer): void {
    for (let start = 0; start < buffer.length; ) {
      const end = frameEnd(buffer, start);
      if (buffer[start] !== COLON) {
        this.contentFrames += 1;
        this.contentBytes += Math.max(1, end - start - this.#frameOverheadBytes);
      }
      start = end;
    }
  }
}

/** @throws {GrokApiError} when a frame's data is no chunk */
export function parseChunk(data: string): Chunk {
  const value = parseFrameData(data);
  const choices = value['choices'] ?? [];
  if (!Array.isArray(choices) || !choices.every(isRecord)) throw badStream('choices are no list of objects');
  return value;
}
