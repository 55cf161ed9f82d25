import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { Counter, type Registry } from 'prom-client';
import { uuid } from '../shared/uuid.ts';

export const ALERT_TYPES = ['budget_threshold', 'price_drift', 'price_changed', 'breaker_open', 'hold_overrun', 'provider_credentials'] as const;
export type AlertType = (typeof ALERT_TYPES)[number];

/** Something that people should know. */
export interface Alert {
  type: AlertType;
  /** Undefined: the platform's own. */
  tenantId: string | undefined;
  /** What it is about: a budget's id, a model, a deployment. */
  subject: string;
  /** Names the crossing and its period: for the same one there is one alert, whichever replica sees it. */
  occasion: string;
  value: string;
}

const SCAN_MS = 2_000;
const QUEUE_MAX = 1_000;

interface Crossing {
  id: string;
  tenant_id: string;
  scope: string;
  share: string;
  period_start: Date;
  used: string;
  limit_ticks: string;
}

/**
 * Alerts: each once per crossing and period, in the log, in a table that the admin API shows, and counted. Budgets are looked at every two seconds; all else
 * is told by whoever sees it.
 */
export class Alerts {
  readonly #fired: Counter;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #queued = 0;

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    this.#fired = new Counter({ name: 'novix_alerts_total', help: 'Alerts fired, by type', labelNames: ['type'], registers: [registry] });
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.scanBudgets().catch((error: unknown) => this.logger.debug({ err: error }, 'alerts: budgets not looked at'));
    }, SCAN_MS);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#writing;
  }

  /** Never rejects and never waits: nobody's call depends on an alert. */
  fire(alert: Alert): void {
    if (this.#queued >= QUEUE_MAX) return; // the same would be told again, or another replica tells it
    this.#queued += 1;
    this.#writing = this.#writing
      .then(() => this.#write(alert))
      .catch((error: unknown) => this.logger.warn({ err: error, alert: alert.type, subject: alert.subject }, 'alerts: one could not be kept'))
      .finally(() => {
        this.#queued -= 1;
      });
  }

  /** What was wrong is right again. */
  async resolve(occasionPrefix: string): Promise<void> {
    await this.pool.query("UPDATE alerts SET state = 'resolved', resolved_at = now() WHERE state = 'firing' AND starts_with(occasion, $1)", [occasionPrefix]);
  }

  /** Budgets that have crossed one of their thresholds in this period, and those that have not any more. */
  async scanBudgets(): Promise<void> {
    const { rows } = await this.pool.query<Crossing>(
      `SELECT b.id, b.tenant_id, b.scope, w.share, b.period_start, (b.spent_ticks + b.held_ticks)::text AS used, b.limit_ticks::text
       FROM budgets b, unnest(b.warn_at) AS w(share)
       WHERE (b.period_end IS NULL OR b.period_end > now()) AND b.spent_ticks >= b.limit_ticks * w.share::numeric
         AND NOT EXISTS (SELECT FROM alerts a WHERE a.occasion = 'budget ' || b.id || ' ' || w.share || ' ' || b.period_start)
       LIMIT 100`);
    for (const { id, tenant_id: tenantId, scope, share, period_start: start, used, limit_ticks: limit } of rows) {
      // As PostgreSQL writes it, so that the scan finds it again.
      const { rows: [period] } = await this.pool.query<{ occasion: string }>("SELECT 'budget ' || id || ' ' || $2::text || ' ' || period_start AS occasion FROM budgets WHERE id = $1 AND period_start = $3", [id, share, start]);
      if (period !== undefined) await this.#write({ type: 'budget_threshold', tenantId, subject: id, occasion: period.occasion, value: `${Math.floor(Number(share) * 100)} % of the budget ${scope} is used (${used} of ${limit} ticks)` });
    }
    await this.pool.query(
      `UPDATE alerts a SET state = 'resolved', resolved_at = now() FROM budgets b
       WHERE a.type = 'budget_threshold' AND a.state = 'firing' AND a.subject = b.id::text AND b.period_end IS NOT NULL AND b.period_end <= now()`);
  }

  async #write({ type, tenantId, subject, occasion, value }: Alert): Promise<void> {
    const { rowCount } = await this.pool.query(
      "INSERT INTO alerts (id, type, tenant_id, subject, occasion, state, value) VALUES ($1, $2, $3, $4, $5, 'firing', $6) ON CONFLICT (occasion) DO NOTHING", [uuid(), type, tenantId ?? null, subject, occasion, value]);
    if (rowCount === 0) return;
    this.#fired.inc({ type });
    this.logger.warn({ alert: type, tenant: tenantId, subject, value }, 'alert');
  }
}
