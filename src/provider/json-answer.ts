import type { ProviderUsage } from '../catalogue/token-price.ts';
import type { AnswerReader } from './answer-reader.ts';
import { errorFromAnswer, GrokApiError } from './grok-errors.ts';
import { isRecord } from './sse-frames.ts';

/** Ten images in base64 fit. */
const ANSWER_BYTES_MAX = 128 * 1024 * 1024;
const NOTHING = Buffer.alloc(0);

/** Takes an answer that is one JSON object, and passes its bytes on unchanged once the call is settled. */
export class JsonAnswerReader implements AnswerReader {
  usage: unknown;
  billed: ProviderUsage | undefined;
  readonly priority = false;
  failure: GrokApiError | undefined;
  readonly outputTokensSeen = 0;
  readonly outputTokensRunning = 0; // it comes whole
  readonly storedId = undefined;
  #parts: Buffer[] = [];
  #bytes = 0;

  /**
   * @param isWhole whether it has what an answer of this kind has
   * @param readUsage what the answer says of its cost; undefined where that cannot be believed
   */
  constructor(
    private readonly isWhole: (answer: Record<string, unknown>) => boolean,
    private readonly readUsage: (answer: Record<string, unknown>) => ProviderUsage | undefined,
  ) {}

  get begun(): boolean {
    return this.#bytes > 0;
  }

  push(bytes: Buffer): Buffer {
    this.#bytes += bytes.length;
    if (this.#bytes > ANSWER_BYTES_MAX) throw badAnswer('the answer is too long');
    this.#parts.push(bytes);
    return NOTHING;
  }

  assertWhole(): void {
    const body = this.tail();
    this.#parts = [body];
    let answer: unknown;
    try {
      answer = JSON.parse(body.toString());
    } catch (cause) {
      throw badAnswer('the answer is no JSON', cause);
    }
    if (!isRecord(answer)) throw badAnswer('the answer is no object');
    if (!this.isWhole(answer)) {
      // An overload told as a success, in whichever shape.
      if (answer['error'] !== undefined && answer['error'] !== null) throw errorFromAnswer(200, body.toString(), {}, 'answer');
      throw badAnswer('the answer lacks what it should have');
    }
    this.usage = answer['usage'];
    this.billed = this.readUsage(answer);
  }

  tail(): Buffer {
    return this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
  }
}

function badAnswer(what: string, cause?: unknown): GrokApiError {
  return new GrokApiError({
    code: 'provider_bad_response', publicMessage: 'The provider broke off its answer, or sent one that makes no sense.', detail: what, phase: 'mid-stream', retryable: false, mayHaveBeenBilled: true, cause,
  });
}
