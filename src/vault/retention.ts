import type { Pool, PoolClient } from 'pg';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { uuid } from '../shared/uuid.ts';
import { isDue } from './retention-plan.ts';

/** Any number that only we use: whoever has it in PostgreSQL does the work. */
const RETENTION_LOCK = 7_204_115_006;
const FIRST_LOOK_MS = 60_000;
const LOOK_EVERY_MS = 600_000;
const RUNS_KEPT = '400 days';

/** What a step did, by kind. `failures`: what it has to try again. */
export type RetentionCounts = Readonly<Record<string, number>> & { readonly failures?: number };

/** One kind of thing whose time can be over. A step that was cut off in the middle does the rest when it is run again. */
export interface RetentionStep {
  readonly name: string;
  run(nowMs: number): Promise<RetentionCounts>;
}

export interface RetentionRun {
  id: string;
  startedAt: Date;
  finishedAt: Date;
  /** Whether nothing was left undone. */
  complete: boolean;
  /** By step. */
  summary: Readonly<Record<string, RetentionCounts>>;
}

/** Ends what is stored when its time is over: once a day, by one replica, and whenever it is asked for. */
export class Retention {
  readonly #failures: Counter;
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> = Promise.resolve();
  #closing = false;
  #lastCompleteMs = 0;

  constructor(
    private readonly pool: Pick<Pool, 'query' | 'connect'>,
    private readonly steps: readonly RetentionStep[],
    private readonly clock: Clock,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    this.#failures = new Counter({ name: 'novix_retention_failures_total', help: 'What retention could not do and will try again, by step', labelNames: ['step'], registers: [registry] });
    const lastComplete = (): number => this.#lastCompleteMs / 1000;
    registry.registerMetric(new Gauge({
      name: 'novix_retention_last_complete_timestamp_seconds', help: 'When retention last left nothing undone, as far as this replica has seen', registers: [],
      collect() {
        this.set(lastComplete());
      },
    }));
  }

  start(firstLookMs = FIRST_LOOK_MS): void {
    this.#next(firstLookMs);
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#timer);
    await this.#turn;
  }

  /** @throws {GatewayError} `overloaded` while another run is under way, here or on another replica */
  async run(): Promise<RetentionRun> {
    const run = await this.#alone(() => this.#run());
    if (run === undefined) throw new GatewayError('overloaded', { publicMessage: 'Retention is running already. GET /admin/v1/retention tells when it is done.', retryAfterSeconds: 5 });
    return run;
  }

  /** @param complete only of those that left nothing undone */
  async lastRun(complete = false): Promise<RetentionRun | undefined> {
    const { rows: [row] } = await this.pool.query<{ id: string; started_at: Date; finished_at: Date; complete: boolean; summary: RetentionRun['summary'] }>(
      'SELECT id, started_at, finished_at, complete, summary FROM retention_runs WHERE complete OR NOT $1 ORDER BY started_at DESC LIMIT 1', [complete]);
    return row && { id: row.id, startedAt: row.started_at, finishedAt: row.finished_at, complete: row.complete, summary: row.summary };
  }

  async #runIfDue(): Promise<void> {
    const last = await this.lastRun(true);
    if (last !== undefined) this.#lastCompleteMs = last.startedAt.getTime();
    if (isDue(last?.startedAt.getTime(), this.clock.nowMs())) await this.#alone(() => this.#run());
  }

  async #run(): Promise<RetentionRun> {
    const startedMs = this.clock.nowMs();
    const summary: Record<string, RetentionCounts> = {};
    for (const step of this.steps) summary[step.name] = await this.#runStep(step, startedMs);
    const complete = Object.values(summary).every(({ failures = 0 }) => failures === 0);
    const run = { id: uuid(), startedAt: new Date(startedMs), finishedAt: new Date(this.clock.nowMs()), complete, summary };
    await this.pool.query('INSERT INTO retention_runs (id, started_at, finished_at, complete, summary) VALUES ($1, $2, $3, $4, $5)', [run.id, run.startedAt, run.finishedAt, complete, JSON.stringify(summary)]);
    await this.pool.query(`DELETE FROM retention_runs WHERE started_at < $1::timestamptz - interval '${RUNS_KEPT}'`, [run.startedAt]);
    if (complete) this.#lastCompleteMs = startedMs;
    return run;
  }

  /** What fails in one step keeps no other from being run. */
  async #runStep(step: RetentionStep, nowMs: number): Promise<RetentionCounts> {
    let counts: RetentionCounts;
    try {
      counts = await step.run(nowMs);
    } catch (error) {
      this.logger.error({ err: error, step: step.name }, 'retention: a step failed; it will be tried again');
      counts = { failures: 1 };
    }
    if ((counts.failures ?? 0) > 0) this.#failures.inc({ step: step.name }, counts.failures);
    return counts;
  }

  /** @returns undefined where somebody else is at it */
  async #alone<T>(work: () => Promise<T>): Promise<T | undefined> {
    const client = await this.pool.connect();
    let broken = true;
    try {
      const { rows } = await client.query<{ locked: boolean }>('SELECT pg_try_advisory_lock($1) AS locked', [RETENTION_LOCK]);
      if (!rows[0]!.locked) {
        broken = false;
        return undefined;
      }
      try {
        return await work();
      } finally {
        broken = !(await unlocked(client));
      }
    } finally {
      client.release(broken); // the lock goes with its connection
    }
  }

  #next(pauseMs: number): void {
    if (this.#closing) return;
    this.#timer = setTimeout(() => {
      this.#turn = this.#runIfDue().catch((error: unknown) => this.logger.warn({ err: error }, 'retention: could not be run; it will be tried again')).then(() => this.#next(LOOK_EVERY_MS));
    }, pauseMs);
  }
}

async function unlocked(client: PoolClient): Promise<boolean> {
  try {
    await client.query('SELECT pg_advisory_unlock($1)', [RETENTION_LOCK]);
    return true;
  } catch {
    return false;
  }
}
