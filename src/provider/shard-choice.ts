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

/**
 * The less loaded of two taken at random: spreads nearly as well as looking at all of them, and does not send everyone to the same one. The two are drawn by
 * weight, the first drawn wins a tie: so where nothing is under way, shares are as the weights are.
 */
export function lessLoadedOfTwo<T extends ShardLoad>(shards: readonly T[], random: () => number): T | undefined {
  if (shards.length <= 1) return shards[0];
  const first = drawByWeight(shards, random());
  const second = drawByWeight(shards.filter((shard) => shard !== first), random());
  return costOf(first) <= costOf(second) ? first : second;
}

/** Without those that are usually much slower than the fastest: conversations leave them, and come back when they recover. Of an unknown one nothing is said. */
export function withoutStragglers<T extends ShardLoad>(shards: readonly T[]): readonly T[] {
  const known = shards.filter(({ usualMs }) => usualMs > 0);
  if (known.length === 0) return shards;
  const limitMs = STRAGGLER_FACTOR * Math.max(LATENCY_FLOOR_MS, Math.min(...known.map(({ usualMs }) => usualMs)));
  return shards.filter(({ usualMs }) => usualMs <= limitMs);
}

function drawByWeight<T extends ShardLoad>(shards: readonly T[], random: number): T {
  let left = random * shards.reduce((sum, { weight }) => sum + weight, 0);
  for (const shard of shards) {
    left -= shard.weight;
    if (left < 0) return shard;
  }
  return shards.at(-1)!;
}

/** How long one call more is likely to wait: those before it, each at the shard's pace, for what the shard can take. */
function costOf({ inFlight, quotaLeft, peakMs }: ShardLoad): number {
  return ((inFlight + 1) * Math.max(peakMs, LATENCY_FLOOR_MS)) / Math.max(quotaLeft, QUOTA_FLOOR);
}

/** The peak wears off so fast while nothing is observed, so that a shard that was slow is tried again. */
const FADE_MS = 10_000;
const USUAL_SHARE = 0.1;
/** Before so many calls, and so long after the last, nothing is usual. */
const USUAL_FROM_CALLS = 5;
const USUAL_KEPT_MS = 300_000;
/** A lone call that thinks long says nothing of the shard: it counts as at most so many times the usual. */
const OUTLIER_FACTOR = 4;

/** A shard's time to first byte, in two readings: the worst of late, and the usual. */
export class ShardLatency {
  #peakMs = 0;
  #usualMs = 0;
  #calls = 0;
  #atMs: number;

  /** @param nowMs monotonic, as everywhere here */
  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  observe(latencyMs: number, nowMs: number): void {
    if (nowMs - this.#atMs > USUAL_KEPT_MS) this.#calls = 0;
    const kept = this.#kept(nowMs);
    this.#peakMs = Math.max(latencyMs, this.#peakMs * kept + latencyMs * (1 - kept)); // a slow call counts in full at once, quick ones wear it off
    const counted = this.#calls < USUAL_FROM_CALLS ? latencyMs : Math.min(latencyMs, OUTLIER_FACTOR * this.#usualMs);
    const share = Math.max(USUAL_SHARE, 1 / (this.#calls + 1));
    this.#usualMs = this.#usualMs * (1 - share) + counted * share;
    this.#calls += 1;
    this.#atMs = nowMs;
  }

  peakMs(nowMs: number): number {
    return this.#peakMs * this.#kept(nowMs);
  }

  /** Zero where it is not known. */
  usualMs(nowMs: number): number {
    return this.#calls < USUAL_FROM_CALLS || nowMs - this.#atMs > USUAL_KEPT_MS ? 0 : this.#usualMs;
  }

  #kept(nowMs: number): number {
    return Math.exp(-(nowMs - this.#atMs) / FADE_MS);
  }
}
