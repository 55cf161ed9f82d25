/** Where the gateway takes time from. Tests inject one that they move by hand. */
export interface Clock {
  /** Wall time, epoch milliseconds. */
  nowMs(): number;
  /** Monotonic time in milliseconds, for durations and deadlines. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/** Injection token of the {@link Clock}. */
export const CLOCK = Symbol('clock');
