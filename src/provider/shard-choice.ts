/** What the choice between shards needs to know of one. Plain data, so that the choice is a pure function. */
export interface ShardLoad {
  id: string;
  /** Share of the traffic it is meant to take, relative to the others; zero takes none. */
  weight: number;
  inFlight: number;
  /** Milliseconds to the first byte: the worst of late, and the usual. Zero where nothing is known. */
  peakMs: number;
  usualMs: number;
  /** Part of its rate limit that is left, 0 to 1; 1 where the provider does not say. */
  quotaLeft: number;
}

/** What an unknown latency counts as. */
const LATENCY_FLOOR_MS = 5;
/** Usually slower than this times the fastest, a shard is not worth its cached prefixes. */
const STRAGGLER_FACTOR = 4;
const QUOTA_FLOOR = 0.01;

/** The less loaded of two taken at random: spreads nearly as well as looking at all of them, and does not send everyone to the same one. */
export function lessLoadedOfTwo<T extends ShardLoad>(shards: readonly T[], random: () => number): T | undefined {
  if (shards.length <= 1) return shards[0];
  const first = Math.floor(random() * shards.length);
  const second = (first + 1 + Math.floor(random() * (shards.length - 1))) % shards.length;
  const [left, right] = [shards[first]!, shards[second]!];
  return costOf(left) <= costOf(right) ? left : right;
}

/** Without those that are usually much slower than the fastest: conversations leave them, and come back when they recover. */
export function withoutStragglers<T extends ShardLoad>(shards: readonly T[]): readonly T[] {
  const limitMs = STRAGGLER_FACTOR * Math.max(LATENCY_FLOOR_MS, Math.min(...shards.map(({ usualMs }) => usualMs)));
  return shards.filter(({ usualMs }) => usualMs <= limitMs);
}

/** How long one call more is likely to wait: those before it, each at the shard's pace, for what the shard can take. */
function costOf({ inFlight, weight, quotaLeft, peakMs }: ShardLoad): number {
  return ((inFlight + 1) * Math.max(peakMs, LATENCY_FLOOR_MS)) / (weight * Math.max(quotaLeft, QUOTA_FLOOR));
}

const FADE_MS = 10_000;
const USUAL_SHARE = 0.1;

/** A shard's time to first byte, in two readings. Both fade while nothing is observed, so that a shard that was slow is tried again. */
export class ShardLatency {
  #peakMs = 0;
  #usualMs = 0;
  #atMs: number;

  /** @param nowMs monotonic, as everywhere here */
  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  observe(latencyMs: number, nowMs: number): void {
    const kept = this.#kept(nowMs);
    this.#peakMs = Math.max(latencyMs, this.#peakMs * kept + latencyMs * (1 - kept)); // a slow call counts in full at once, quick ones wear it off
    this.#usualMs = this.#usualMs === 0 ? latencyMs : this.#usualMs * (1 - USUAL_SHARE) + latencyMs * USUAL_SHARE;
    this.#atMs = nowMs;
  }

  peakMs(nowMs: number): number {
    return this.#peakMs * this.#kept(nowMs);
  }

  usualMs(nowMs: number): number {
    return this.#usualMs * this.#kept(nowMs);
  }

  #kept(nowMs: number): number {
    return Math.exp(-(nowMs - this.#atMs) / FADE_MS);
  }
}
