import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';

const MINUTE_MS = 60_000;
const TENANTS_MAX = 100_000;

/** What a tier allows at once and in a minute. */
export interface CallLimitSettings {
  tokensPerMinute: number;
  concurrentCalls: number;
}

interface Bucket {
  /** Tokens that may still be used; below zero where calls used more than was expected. */
  tokens: number;
  filledAtMs: number;
  calls: number;
}

/** What is left of a tenant's tokens, for the headers that say so. */
export interface TokensLeft {
  limit: number;
  remaining: number;
  resetSeconds: number;
}

/** A call's place among its tenant's. Must be ended once. */
export interface CallPlace {
  left: TokensLeft;
  /** @param usedTokens what the call used after all; undefined where nobody knows, so that the estimate stands */
  end(usedTokens: number | undefined): void;
}

/**
 * Tokens per minute and calls at once, of each tenant. Tokens are taken by estimate when a call begins, and corrected by fact when it has ended, so the
 * limit holds for what was used. In this process alone, as requests per minute are.
 */
export class CallLimits {
  readonly #buckets = new Map<string, Bucket>();

  constructor(private readonly clock: Clock) {}

  get size(): number {
    return this.#buckets.size;
  }

  /**
   * @param estimatedTokens that the call may use
   * @throws {GatewayError} `rate_limit_exceeded`
   */
  begin(tenantId: string, { tokensPerMinute, concurrentCalls }: CallLimitSettings, estimatedTokens: number): CallPlace {
    const bucket = this.#bucket(tenantId, tokensPerMinute);
    if (bucket.calls >= concurrentCalls) {
      throw new GatewayError('rate_limit_exceeded', { publicMessage: `The tenant's limit of ${concurrentCalls} calls at once is reached. Try again when some of them have ended.`, retryAfterSeconds: 1 });
    }
    // A call larger than a whole minute's tokens goes when nothing else has used any.
    const wanted = Math.min(estimatedTokens, tokensPerMinute);
    if (bucket.tokens < wanted) {
      throw new GatewayError('rate_limit_exceeded', {
        publicMessage: `The tenant's limit of ${tokensPerMinute} tokens per minute is reached. Try again after the time in retry-after.`, retryAfterSeconds: ((wanted - bucket.tokens) / tokensPerMinute) * (MINUTE_MS / 1_000),
      });
    }
    bucket.tokens -= estimatedTokens;
    bucket.calls += 1;
    let ended = false;
    return {
      left: { limit: tokensPerMinute, remaining: Math.max(0, Math.floor(bucket.tokens)), resetSeconds: Math.ceil(((tokensPerMinute - bucket.tokens) / tokensPerMinute) * (MINUTE_MS / 1_000)) },
      end: (usedTokens) => {
        if (ended) return;
        ended = true;
        bucket.calls -= 1;
        if (usedTokens !== undefined) bucket.tokens = Math.min(tokensPerMinute, bucket.tokens + estimatedTokens - usedTokens);
      },
    };
  }

  #bucket(tenantId: string, tokensPerMinute: number): Bucket {
    const nowMs = this.clock.monotonicMs();
    let bucket = this.#buckets.get(tenantId);
    if (bucket === undefined) {
      if (this.#buckets.size >= TENANTS_MAX) this.#forgetIdle();
      bucket = { tokens: tokensPerMinute, filledAtMs: nowMs, calls: 0 };
      this.#buckets.set(tenantId, bucket);
    }
    bucket.tokens = Math.min(tokensPerMinute, bucket.tokens + ((nowMs - bucket.filledAtMs) * tokensPerMinute) / MINUTE_MS);
    bucket.filledAtMs = nowMs;
    return bucket;
  }

  /** Those without calls under way have, after a minute, nothing to be remembered for. */
  #forgetIdle(): void {
    for (const [tenantId, { calls }] of this.#buckets) if (calls === 0) this.#buckets.delete(tenantId);
  }
}
