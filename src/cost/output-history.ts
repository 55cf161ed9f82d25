/** Token counts are kept in buckets, each 2 % wide: a quantile is too high by so much at most, and never too low. */
const BUCKETS_PER_DOUBLING = 32;
const BUCKETS = 24 * BUCKETS_PER_DOUBLING;
/** Of what came before, so much is forgotten with each that comes: a history follows a change within some hundred calls. */
const FORGOTTEN = 1 / 500;
const ROUTES_MAX = 10_000;

export interface Quantiles {
  p50: number;
  p90: number;
}

interface History {
  weights: Float64Array;
  sum: number;
  calls: number;
}

/** How many tokens calls of a kind have used of late, as a histogram that fades. Bounded: the route least lately used is forgotten first. */
export class TokenHistory {
  readonly #routes = new Map<string, History>();

  get size(): number {
    return this.#routes.size;
  }

  observe(route: string, tokens: number): void {
    let history = this.#routes.get(route);
    if (history === undefined) {
      if (this.#routes.size >= ROUTES_MAX) this.#routes.delete(this.#routes.keys().next().value!);
      history = { weights: new Float64Array(BUCKETS), sum: 0, calls: 0 };
    } else {
      this.#routes.delete(route);
    }
    this.#routes.set(route, history);
    for (let bucket = 0; bucket < BUCKETS; bucket++) history.weights[bucket]! *= 1 - FORGOTTEN;
    history.weights[bucketOf(tokens)]! += 1;
    history.sum = history.sum * (1 - FORGOTTEN) + 1;
    history.calls += 1;
  }

  /** Calls observed on a route. */
  calls(route: string): number {
    return this.#routes.get(route)?.calls ?? 0;
  }

  /** @returns the most tokens of the bucket in which the quantile lies; undefined before so many calls */
  quantile(route: string, share: number, callsMin: number): number | undefined {
    const history = this.#routes.get(route);
    if (history === undefined || history.calls < callsMin) return undefined;
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += history.weights[bucket]!;
      if (seen >= share * history.sum) return upperEnd(bucket);
    }
    return upperEnd(BUCKETS - 1);
  }
}

function bucketOf(tokens: number): number {
  return tokens < 1 ? 0 : Math.min(BUCKETS - 1, 1 + Math.floor(Math.log2(tokens) * BUCKETS_PER_DOUBLING));
}

function upperEnd(bucket: number): number {
  return Math.ceil(2 ** (bucket / BUCKETS_PER_DOUBLING)) - 1;
}
