import { GrokApiError } from './grok-errors.ts';

const NOTHING = Buffer.alloc(0);
const LINE_FEED = 0x0a;
const DATA = 'data:';
/** What a frame begins with that names its event. */
const E = 0x65;
/** Keeps the provider's own connection alive. Passed on, it makes OpenAI's client throw. */
const PING = /^event: ?ping\r?$/m;

/** Cuts a byte stream after its last whole server-sent event, wherever the network cut it. */
export class WholeFrames {
  /** What came after the last whole frame, in pieces: a long frame is put together once, not with each of them. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  /** @param frameBytesMax a longer frame is no frame of an answer */
  constructor(private readonly frameBytesMax: number) {}

  /**
   * @returns whole frames, as they came
   * @throws {GrokApiError} for a frame without an end
   */
  push(bytes: Buffer): Buffer {
    if (this.#pendingBytes + bytes.length > this.frameBytesMax && lastFrameEnd(bytes) === 0) throw badStream('a frame is too long');
    if (!bytes.includes(LINE_FEED)) {
      this.#keep(bytes);
      return NOTHING;
    }
    const buffer = this.#pendingBytes === 0 ? bytes : Buffer.concat([...this.#pending, bytes]);
    const end = lastFrameEnd(buffer);
    this.#pending = [];
    this.#pendingBytes = 0;
    if (end < buffer.length) this.#keep(buffer.subarray(end));
    if (this.#pendingBytes > this.frameBytesMax) throw badStream('a frame is too long');
    return buffer.subarray(0, end);
  }

  #keep(bytes: Buffer): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  /** What came after the last whole frame: a last frame may lack its blank line. */
  get rest(): Buffer {
    return Buffer.concat(this.#pending);
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

/** Finds the frames of a buffer that have one of some marks: natively, not frame by frame, and each mark once, however many frames there are. */
export class MarkedFrames {
  readonly #next: number[];

  constructor(
    private readonly buffer: Buffer,
    private readonly marks: readonly Buffer[],
  ) {
    this.#next = marks.map(() => -1);
  }

  /** Where the first of them begins, from `start` on, which only grows; the buffer's end where there is none. */
  from(start: number): number {
    let first = this.buffer.length;
    for (const [index, mark] of this.marks.entries()) {
      let at = this.#next[index]!;
      if (at < start) {
        at = this.buffer.indexOf(mark, start);
        if (at === -1) at = this.buffer.length;
        this.#next[index] = at;
      }
      if (at < first) first = at;
    }
    return first === this.buffer.length ? first : Math.max(start, lastFrameEnd(this.buffer.subarray(0, first)));
  }
}

/** The data of a frame: its `data:` lines joined; empty for a comment. */
export function frameData(frame: Buffer): string {
  const text = frame.toString();
  if (text.startsWith('data: ') && text.indexOf('\n') >= text.length - 2) return text.slice(6).trimEnd(); // the only form that chat completions have
  return text
    .split(/\r?\n/)
    .filter((line) => line.startsWith(DATA))
    .map((line) => line.slice(DATA.length).replace(/^ /, ''))
    .join('\n');
}

export function isPing(frame: Buffer): boolean {
  return frame[0] === E && PING.test(frame.toString());
}

/** @throws {GrokApiError} when a frame's data is no JSON object */
export function parseFrameData(data: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch (error) {
    throw badStream('a frame is no JSON', error);
  }
  if (!isRecord(value)) throw badStream('a frame is no object');
  return value;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function badStream(what: string, cause?: unknown): GrokApiError {
  return new GrokApiError({
    code: 'provider_bad_response', publicMessage: 'The provider broke off its answer, or sent one that makes no sense.', detail: what,
    phase: 'mid-stream', retryable: false, mayHaveBeenBilled: true, cause,
  });
}

/** Index after the last blank line, or 0. */
function lastFrameEnd(buffer: Buffer): number {
  for (let at = buffer.lastIndexOf(0x0a); at > 0; at = buffer.lastIndexOf(0x0a, at - 1)) {
    if (buffer[at - 1] === 0x0a || (buffer[at - 1] === 0x0d && buffer[at - 2] === 0x0a)) return at + 1;
  }
  return 0;
}
