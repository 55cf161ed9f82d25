import type { Deployment } from '../catalogue/catalogue.ts';
import type { Clock } from '../shared/clock.ts';
import {
  admittance, afterFailure, afterNeither, afterProbeAnswered, afterProbeBegan, afterSuccess, CLOSED, type Admittance, type Breaker, type BreakerLimits,
} from './circuit-breaker.ts';
import type { GrokClient } from './grok-client.ts';
import { GrokApiError } from './grok-errors.ts';
import { RetryBudget } from './retry.ts';
import { ShardLatency, type ShardLoad } from './shard-choice.ts';

/** A 429 without `retry-after` keeps other calls away for so long, where there is somewhere else to go. */
const COOL_DOWN_MS = 1_000;
/** However long the provider wants: a mistake of its own must not keep a deployment away for hours. */
const COOL_DOWN_MAX_MS = 60_000;

/** What an attempt says of the deployment that took it. */
export type AttemptResult = 'success' | 'failure' | 'rate_limited' | 'answered' | 'neither';

/** A deployment at work: its connections, and what has been seen of it. */
export class Shard {
  inFlight = 0;
  breaker: Breaker = CLOSED;
  readonly retries: RetryBudget;
  quotaLeft = 1;
  readonly #latency: ShardLatency;
  #coolUntilMs = 0;
  #retired = false;
  /** Whether the provider itself named the time. */
  #coolsByOrder = false;

  constructor(
    public deployment: Deployment,
    readonly client: GrokClient,
    private readonly limits: BreakerLimits,
    private readonly clock: Clock,
    private readonly random: () => number,
    private readonly onBreaker: (shard: Shard, before: Breaker) => void,
    private readonly onOpened: (shard: Shard, openMs: number) => void,
  ) {
    this.retries = new RetryBudget(clock.monotonicMs());
    this.#latency = new ShardLatency(clock.monotonicMs());
  }

  get id(): string {
    return this.deployment.id;
  }

  get admittance(): Admittance {
    return admittance(this.breaker, this.clock.monotonicMs());
  }

  /** Closes its connections once the last call under way has ended. */
  async retire(): Promise<void> {
    this.#retired = true;
    if (this.inFlight === 0) await this.client.close();
  }

  /** Milliseconds for which the breaker stays open, without end where an admin opened it; undefined where it is closed. */
  get openMs(): number | undefined {
    return this.breaker.state === 'open' ? Math.max(0, this.breaker.untilMs - this.clock.monotonicMs()) : this.breaker.state === 'half_open' ? 0 : undefined;
  }

  /** Milliseconds for which the provider's rate limit keeps calls away, and whether the provider said so. */
  get cooling(): { ms: number; byOrder: boolean } {
    return { ms: Math.max(0, this.#coolUntilMs - this.clock.monotonicMs()), byOrder: this.#coolsByOrder };
  }

  get full(): boolean {
    return this.inFlight >= this.deployment.maxConcurrency;
  }

  load(): ShardLoad {
    const nowMs = this.clock.monotonicMs();
    return {
      id: this.id, weight: this.deployment.weight, inFlight: this.inFlight, peakMs: this.#latency.peakMs(nowMs), usualMs: this.#latency.usualMs(nowMs), quotaLeft: this.quotaLeft,
    };
  }

  /** Takes a place for one attempt; it must be ended. */
  begin(): Lease {
    const probe = this.admittance === 'probe';
    if (probe) this.setBreaker(afterProbeBegan(this.breaker));
    this.inFlight += 1;
    return new Lease(this, probe);
  }

  observeFirstByte(latencyMs: number, probe: boolean): void {
    this.#latency.observe(latencyMs, this.clock.monotonicMs());
    if (probe) this.setBreaker(afterProbeAnswered(this.breaker, this.limits));
  }

  observeEnd(result: AttemptResult, probe: boolean, retryAfterSeconds: number | undefined): void {
    this.inFlight -= 1;
    if (this.#retired && this.inFlight === 0) void this.client.close();
    const nowMs = this.clock.monotonicMs();
    if (result === 'success') {
      this.setBreaker(afterSuccess(this.breaker, probe));
    } else if (result === 'failure') {
      const before = this.breaker;
      this.setBreaker(afterFailure(before, probe, this.limits, nowMs, this.random()));
      if (before.state !== 'open' && this.breaker.state === 'open') this.onOpened(this, this.breaker.untilMs - nowMs);
    } else if (result === 'neither') {
      this.setBreaker(afterNeither(this.breaker, probe, nowMs));
    } else if (probe) {
      this.setBreaker(afterProbeAnswered(this.breaker, this.limits)); // it refuses this call, but it answers
    }
    if (result === 'rate_limited') {
      this.#coolsByOrder = retryAfterSeconds !== undefined;
      this.#coolUntilMs = Math.max(this.#coolUntilMs, nowMs + (retryAfterSeconds === undefined ? COOL_DOWN_MS : Math.min(COOL_DOWN_MAX_MS, retryAfterSeconds * 1000)));
    }
  }

  setBreaker(next: Breaker): void {
    const before = this.breaker;
    if (next === before) return;
    this.breaker = next;
    if (next.state !== before.state) this.onBreaker(this, before);
  }
}

/** One attempt's place at a shard. */
export class Lease {
  #ended = false;

  constructor(
    readonly shard: Shard,
    readonly probe: boolean,
  ) {}

  firstByte(latencyMs: number): void {
    if (!this.#ended) this.shard.observeFirstByte(latencyMs, this.probe);
  }

  end(result: AttemptResult, retryAfterSeconds?: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.shard.observeEnd(result, this.probe, retryAfterSeconds);
  }
}

/** What the end of an attempt says of its deployment. Pure. */
export function attemptResult(failure: unknown): AttemptResult {
  if (failure === undefined) return 'success';
  if (!(failure instanceof GrokApiError) || failure.code === 'deadline_exceeded') return 'neither'; // the caller's doing, or our own
  if (failure.status === 429) return 'rate_limited';
  if (failure.status !== undefined && failure.status >= 400 && failure.status < 500) return 'answered';
  return 'failure';
}
