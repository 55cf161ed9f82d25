import { GrokApiError, errorFromAnswer } from './grok-errors.ts';

/** A frame longer than this is no frame of a completion. */
const FRAME_BYTES_MAX = 4 * 1024 * 1024;
const NOTHING = Buffer.alloc(0);
const DATA = 'data:';
/** What a comment begins with, and a frame that names its event. */
const COLON = 0x3a;
const E = 0x65;
/** `"role":"assistant",` stands in the first frame alone. */
const ROLE_BYTES = 19;
/**
 * Raw JSON with one of these may be a frame that matters. Inside a JSON string the quote would be escaped, so text cannot fake them but at its very
 * end. Without their first quote, since a search for what begins with a frequent byte is slow.
 */
const MARKS = [Buffer.from('finish_reason"'), Buffer.from('usage"'), Buffer.from('DONE]'), Buffer.from('error"'), Buffer.from('vent:')];
/** Keeps the provider's own connection alive. Passed on, it makes OpenAI's client throw. */
const PING = /^event: ?ping\r?$/m;

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
export class ChatStreamReader {
  /** The provider's `usage` object as received; of several the last. */
  usage: unknown;
  serviceTier: string | undefined;
  done = false;
  /** An error that the provider reported inside the stream. What came before it has been forwarded. */
  failure: GrokApiError | undefined;
  /** Frames with content so far: about one token each. */
  contentFrames = 0;
  contentBytes = 0;
  #pending: Buffer = NOTHING;
  /** Indexes of choices that have their finish reason. */
  readonly #finishedChoices = new Set<number>();
  #held: Buffer[] = [];
  #heldUsage: Buffer | undefined;
  #first = true;
  /** Bytes of a frame that are not content, measured on the first frame. */
  #frameOverheadBytes = 0;

  /** @param choices how many answers were asked for (`n`) */
  constructor(private readonly choices: number) {}

  /** Whether the answer has got all its finish reasons. */
  get finished(): boolean {
    return this.#finishedChoices.size >= this.choices;
  }

  /** Output tokens seen, by the larger of two measures: frames, and bytes of content at two bytes a token. */
  get outputTokensSeen(): number {
    return Math.max(this.contentFrames, Math.ceil(this.contentBytes / 2));
  }

  /**
   * @returns the bytes that may go to the caller now; look at `failure` afterwards
   * @throws {GrokApiError} when the stream makes no sense
   */
  push(bytes: Buffer): Buffer {
    if (this.failure) return NOTHING;
    let buffer = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    const end = lastFrameEnd(buffer);
    if (buffer.length - end > FRAME_BYTES_MAX) throw badStream('a frame is too long');
    this.#pending = end === buffer.length ? NOTHING : buffer.subarray(end);
    if (end === 0) return NOTHING;
    buffer = end === buffer.length ? buffer : buffer.subarray(0, end);
    return this.#readFrames(buffer);
  }

  /** The frames held back, in order; the usage frame only where the caller asked for it. */
  tail(withUsage: boolean): Buffer {
    const frames = withUsage || this.#heldUsage === undefined ? this.#held : this.#held.filter((frame) => frame !== this.#heldUsage);
    return Buffer.concat(frames);
  }

  /**
   * Call at the end of the bytes. A last frame may lack its blank line.
   *
   * @throws {GrokApiError} when the provider ended the stream before it was whole
   */
  assertWhole(): void {
    const rest = frameData(this.#pending).trim();
    if (rest === '[DONE]') {
      this.done = true;
      this.#held.push(this.#pending);
    } else if (this.#pending.toString().trim() !== '') {
      throw badStream('the stream ended in the middle of a frame');
    }
    if (!this.done || !this.finished) throw badStream('the stream ended before it was complete');
  }

  /** Whole frames in, those that may pass out. Frames before the first mark are only counted. */
  #readFrames(buffer: Buffer): Buffer {
    const forward: Buffer[] = [];
    let runStart = 0;
    let plainUntil = 0;
    for (let start = 0; start < buffer.length && !this.failure; ) {
      if (!this.#first && !this.finished && plainUntil <= start) plainUntil = firstMarkedFrame(buffer, start);
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
    if (frame[0] === E && PING.test(frame.toString())) return false;
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

/** Index after the blank line that ends the frame beginning at `start`; the buffer's end where none does. */
export function frameEnd(buffer: Buffer, start: number): number {
  for (let at = buffer.indexOf(0x0a, start); at !== -1; at = buffer.indexOf(0x0a, at + 1)) {
    const next = buffer[at + 1] === 0x0d ? at + 2 : at + 1;
    if (buffer[next] === 0x0a) return next + 1;
  }
  return buffer.length;
}

/** Where the first frame with a mark begins, from `start` on; the buffer's end where none has one. */
function firstMarkedFrame(buffer: Buffer, start: number): number {
  let first = buffer.length;
  for (const mark of MARKS) {
    const at = buffer.indexOf(mark, start);
    if (at !== -1 && at < first) first = at;
  }
  return first === buffer.length ? first : Math.max(start, lastFrameEnd(buffer.subarray(0, first)));
}

/** Index after the last blank line, or 0. */
function lastFrameEnd(buffer: Buffer): number {
  for (let at = buffer.lastIndexOf(0x0a); at > 0; at = buffer.lastIndexOf(0x0a, at - 1)) {
    if (buffer[at - 1] === 0x0a || (buffer[at - 1] === 0x0d && buffer[at - 2] === 0x0a)) return at + 1;
  }
  return 0;
}

/** The data of a frame: its `data:` lines joined; empty for a comment. */
export function frameData(frame: Buffer): string {
  const text = frame.toString();
  if (text.startsWith('data: ') && text.indexOf('\n') >= text.length - 2) return text.slice(6).trimEnd(); // the only form xAI sends
  return text
    .split(/\r?\n/)
    .filter((line) => line.startsWith(DATA))
    .map((line) => line.slice(DATA.length).replace(/^ /, ''))
    .join('\n');
}

export function parseChunk(data: string): Chunk {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch (error) {
    throw badStream('a frame is no JSON', error);
  }
  if (!isRecord(value)) throw badStream('a frame is no object');
  const choices = value['choices'] ?? [];
  if (!Array.isArray(choices) || !choices.every(isRecord)) throw badStream('choices are no list of objects');
  return value;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function badStream(what: string, cause?: unknown): GrokApiError {
  return new GrokApiError({
    code: 'provider_bad_response', publicMessage: 'The provider broke off its answer, or sent one that makes no sense.', detail: what,
    phase: 'mid-stream', retryable: false, mayHaveBeenBilled: true, cause,
  });
}
