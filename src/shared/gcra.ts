export interface GcraAnswer {
  allowed: boolean;
  /** Requests that would be allowed right now, after this one. */
  remaining: number;
  /** Until one more would be allowed; 0 where it is now. */
  retryAfterMs: number;
  /** Until the whole burst is there again. */
  resetAfterMs: number;
}

interface Arrival {
  /** The theoretical arrival time, in intervals of the rate: whole steps, so that a large burst loses nothing to rounding. */
  at: number;
  perMinute: number;
}

/** What is left of rounding when times in milliseconds are counted in intervals. */
const ROUNDING = 1e-6;

/**
 * The generic cell rate algorithm: a steady rate with a burst, in one number per key (the theoretical arrival time). Bounded: where too many keys
 * are known, the one unused for longest is forgotten, which can only let that key have its burst again.
 */
export class Gcra {
  readonly #arrivals = new Map<string, Arrival>();

  constructor(private readonly keysMax: number) {}

  get size(): number {
    return this.#arrivals.size;
  }

  /**
   * @param nowMs monotonic
   */
  hit(key: string, perMinute: number, burst: number, nowMs: number): GcraAnswer {
    const intervalMs = 60_000 / perMinute;
    const now = nowMs / intervalMs;
    const known = this.#arrivals.get(key);
    const at = Math.max(known?.perMinute === perMinute ? known.at : now, now);
    const ahead = at + 1 - now;
    if (ahead > burst + ROUNDING) return { allowed: false, remaining: 0, retryAfterMs: (ahead - burst) * intervalMs, resetAfterMs: (at - now) * intervalMs };
    this.#arrivals.delete(key); // so that the map's order is that of last use
    if (this.#arrivals.size >= this.keysMax) this.#arrivals.delete(this.#arrivals.keys().next().value!);
    this.#arrivals.set(key, { at: at + 1, perMinute });
    return { allowed: true, remaining: Math.max(0, Math.floor(burst - ahead + ROUNDING)), retryAfterMs: 0, resetAfterMs: ahead * intervalMs };
  }
}
