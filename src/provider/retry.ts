import type { GrokApiError } from './grok-errors.ts';

export interface RetryLimits {
  /** Further attempts after the first. */
  max: number;
  backoffMs: number;
}

/** HTTP statuses after which the same request may succeed: the provider's, those of the network before it, and an overload told as 200. */
const RETRYABLE_STATUSES: ReadonlySet<number> = new Set([200, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530]);

/**
 * Whether the same request may be sent once more: nothing of an answer came, and the failure is of a kind that passes. Pure.
 * What may have been billed may be tried again only where not even a status came, and at a further price.
 */
export function isRetryable(error: GrokApiError): boolean {
  if (error.mayHaveBeenBilled && error.phase !== 'before-answer') return false;
  return error.retryable && error.phase !== 'mid-stream' && (error.status === undefined || RETRYABLE_STATUSES.has(error.status));
}

/**
 * How long to wait before a further attempt: exponential, with full jitter, so that those who failed together do not come back together. Pure.
 *
 * @param attempts how many have failed so far, 1 or more
 * @param random from 0 up to 1
 */
export function backoffMs(attempts: number, limits: RetryLimits, random: number): number {
  return limits.backoffMs * 2 ** (attempts - 1) * random;
}

/** A call of ours earns this much of a retry. */
const EARNED_PER_CALL = 0.1;
/** Earned by time alone, so that rare calls may be retried too. */
const EARNED_PER_SECOND = 0.5;
const TOKENS_MAX = 20;

/**
 * The retries that one deployment can take: when everything fails, retries must not be what keeps it down. A token bucket that calls fill; a full
 * outage so costs the provider a tenth more calls than were asked for.
 */
export class RetryBudget {
  #tokens = TOKENS_MAX;
  #filledAtMs: number;

  /** @param nowMs monotonic, as everywhere here */
  constructor(nowMs: number) {
    this.#filledAtMs = nowMs;
  }

  earn(): void {
    this.#tokens = Math.min(TOKENS_MAX, this.#tokens + EARNED_PER_CALL);
  }

  /** @returns false where retries have used up what calls earned */
  spend(nowMs: number): boolean {
    this.#tokens = Math.min(TOKENS_MAX, this.#tokens + (EARNED_PER_SECOND * (nowMs - this.#filledAtMs)) / 1000);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
