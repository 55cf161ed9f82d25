export interface GcraAnswer {
  allowed: boolean;
  /** Requests that would be allowed right now, after this one. */
  remaining: number;
  /** Until one more would be allowed; 0 where it is now. */
  retryAfterMs: number;
  /** Until the whole burst is there again. */
  resetAfterMs: number;
}

/**
 * The generic cell rate algorithm: a steady rate with a burst, in one number per key (the theoretical arrival time). Bounded: where too many keys
 * are known, the one unused for longest is forgotten, which can only let that key have its burst again.
 */
export class Gcra {
  readonly #arrivalMs = new Map<string, number>();

  constructor(private readonly keysMax: number) {}

  get size(): number {
    return this.#arrivalMs.size;
  }

  /**
   * @param nowMs monotonic
   */
  hit(key: string, perMinute: number, burst: number, nowMs: number): GcraAnswer {
    const intervalMs = 60_000 / perMinute;
    const toleranceMs = intervalMs * burst;
    const arrivalMs = Math.max(this.#arrivalMs.get(key) ?? nowMs, nowMs);
    const aheadMs = arrivalMs + intervalMs - nowMs;
    // Half an interval forgives what adding fractions costs, and lets nobody in early: times differ by whole intervals.
    if (aheadMs > toleranceMs + intervalMs / 2) return { allowed: false, remaining: 0, retryAfterMs: aheadMs - toleranceMs, resetAfterMs: arrivalMs - nowMs };
    this.#arrivalMs.delete(key); // so that the map's order is that of last use
    if (this.#arrivalMs.size >= this.keysMax) this.#arrivalMs.delete(this.#arrivalMs.keys().next().value!);
    this.#arrivalMs.set(key, arrivalMs + intervalMs);
    return { allowed: true, remaining: Math.max(0, Math.floor((toleranceMs - aheadMs) / intervalMs + 0.5)), retryAfterMs: 0, resetAfterMs: aheadMs };
  }
}
