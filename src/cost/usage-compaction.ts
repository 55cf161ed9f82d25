import type { Pool } from 'pg';
import type { Logger } from 'pino';

/** Any number that only we use: whoever has it in PostgreSQL does the work. */
const COMPACTION_LOCK = 7_204_115_004;
const PAUSE_MS = 600_000;
const ROWS_PER_TURN = 20_000;
/** Longer than the usage API goes back by minutes. */
const MINUTES_KEPT = '8 days';

/**
 * Makes hours of old minutes, so that usage grows by the hour, not by the minute. What an hour sums to stays the same at every instant.
 */
export class UsageCompaction {
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> = Promise.resolve();
  #closing = false;

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly logger: Logger,
  ) {}

  start(): void {
    this.#next(PAUSE_MS);
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#timer);
    await this.#turn;
  }

  /** @returns how many rows became part of an hour's */
  async compact(): Promise<number> {
    const { rows } = await this.pool.query<{ compacted: string }>(
      `WITH mine AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS locked),
         old AS (
           SELECT m.ctid AS row FROM usage_minutes m, mine
           WHERE mine.locked AND m.start < date_trunc('hour', now()) - interval '${MINUTES_KEPT}' AND m.start <> date_trunc('hour', m.start) LIMIT ${ROWS_PER_TURN} FOR UPDATE OF m),
         gone AS (DELETE FROM usage_minutes m USING old WHERE m.ctid = old.row RETURNING m.*),
         hours AS (
           INSERT INTO usage_minutes AS h (start, tenant_id, team, model, deployment, calls, input_tokens, cached_tokens, output_tokens, cost_ticks)
             SELECT date_trunc('hour', start), tenant_id, team, model, deployment, sum(calls), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(cost_ticks)
             FROM gone GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
             ON CONFLICT (start, tenant_id, team, model, deployment) DO UPDATE SET calls = h.calls + excluded.calls, input_tokens = h.input_tokens + excluded.input_tokens,
               cached_tokens = h.cached_tokens + excluded.cached_tokens, output_tokens = h.output_tokens + excluded.output_tokens, cost_ticks = h.cost_ticks + excluded.cost_ticks)
       SELECT count(*) AS compacted FROM gone`, [COMPACTION_LOCK]);
    return Number(rows[0]!.compacted);
  }

  #next(pauseMs: number): void {
    if (this.#closing) return;
    this.#timer = setTimeout(() => {
      this.#turn = this.compact().then((compacted) => this.#next(compacted === ROWS_PER_TURN ? 0 : PAUSE_MS), (error: unknown) => {
        this.logger.warn({ err: error }, 'usage: old minutes could not be made hours; it will be tried again');
        this.#next(PAUSE_MS);
      });
    }, pauseMs);
  }
}
