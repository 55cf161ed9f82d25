import type { ThrottlerStorage } from '@nestjs/throttler';
import type { Clock } from '../shared/clock.ts';
import { Gcra } from '../shared/gcra.ts';

type ThrottlerRecord = Awaited<ReturnType<ThrottlerStorage['increment']>>;

/** Keys are tenants. */
const KEYS_MAX = 100_000;

/** Allowed at once: a tenth of what a minute allows. */
export function burstOf(perMinute: number): number {
  return Math.max(1, Math.floor(perMinute / 10));
}

/** The throttler's storage as GCRA in this process: no timers, no stored hits. Limits are per minute; the guard's `ttl` is ignored. */
export class GcraStorage implements ThrottlerStorage {
  readonly #gcra = new Gcra(KEYS_MAX);

  constructor(private readonly clock: Clock) {}

  async increment(key: string, _ttlMs: number, limitPerMinute: number): Promise<ThrottlerRecord> {
    const burst = burstOf(limitPerMinute);
    const answer = this.#gcra.hit(key, limitPerMinute, burst, this.clock.monotonicMs());
    return {
      totalHits: limitPerMinute - answer.remaining,
      timeToExpire: Math.ceil(answer.resetAfterMs / 1000),
      isBlocked: !answer.allowed,
      timeToBlockExpire: Math.ceil(answer.retryAfterMs / 1000),
    };
  }
}
