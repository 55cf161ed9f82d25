import type { ProviderUsage } from '../catalogue/token-price.ts';
import type { GrokApiError } from './grok-errors.ts';

/** Reads an answer of the provider while its bytes pass, and holds back what tells the caller that it is whole, until the call is settled. */
export interface AnswerReader {
  /** Whether any output has come: what a provider says before that, it says at once, however long it then thinks. */
  readonly begun: boolean;
  /** The provider's `usage` object as received; undefined until it has come. */
  readonly usage: unknown;
  /** The same, read and checked; undefined where it cannot be believed. */
  readonly billed: ProviderUsage | undefined;
  /** Whether the answer was served, and so is priced, as a priority one. */
  readonly priority: boolean;
  /** An error that the provider reported inside its answer. What came before it has been forwarded. */
  readonly failure: GrokApiError | undefined;
  /** A careful measure of what came, for answers whose usage never does. */
  readonly outputTokensSeen: number;
  /** Output tokens that have been made for sure: each piece of output is one at least. 0 once the end is here, when nothing can be saved any more. */
  readonly outputTokensRunning: number;
  /** The id under which the provider keeps the answer; undefined where answers are not kept. */
  readonly storedId: string | undefined;
  /**
   * @returns the bytes that may go to the caller now; look at `failure` afterwards
   * @throws {GrokApiError} when the answer makes no sense
   */
  push(bytes: Buffer): Buffer;
  /**
   * Call at the end of the bytes.
   *
   * @throws {GrokApiError} when the provider ended the answer before it was whole
   */
  assertWhole(): void;
  /** What was held back, in order. */
  tail(): Buffer;
}
