import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { Counter, type Registry } from 'prom-client';
import { uuid } from '../shared/uuid.ts';

export const ALERT_TYPES = ['budget_threshold', 'price_drift', 'price_changed', 'breaker_open', 'hold_overrun', 'provider_credentials', 'audit_contradicted', 'siem_lag', 'siem_parked'] as const;
export type AlertType = (typeof ALERT_TYPES)[number];

/** Something that people should know. */
export interface Alert {
  type: AlertType;
  /** Undefined: the platform's own. */
  tenantId: string | undefined;
  /** What it is about: a budget's id, a model, a deployment. */
  subject: string;
  /** Names the crossing and its period: for the same one there is one alert, whichever replica sees it; another only after that one was resolved. */
  occasion: string;
  value: string;
}

const SCAN_MS = 2_000;
const QUEUE_MAX = 1_000;
/** Occasions of which this replica has told already are not written again with every call: so many of them are kept in mind. */
const TOLD_MAX = 1_000;
/** What goes on is told again each hour. */
const OVER_AFTER_AN_HOUR: readonly AlertType[] = ['price_drift', 'hold_overrun', 'provider_credentials', 'siem_parked'];
/** An event; and a breaker whose replica died, so that nobody saw it close. */
const OVER_AFTER_A_DAY: readonly AlertType[] = ['price_changed', 'breaker_open'];

interface Crossing {
  id: string;
  tenant_id: string;
  scope: string;
  share: string;
  occasion: string;
  spent_ticks: string;
  limit_ticks: string;
}

/** The thresholds that are crossed now. Seconds since 1970, since a time as text depends on the session's time zone. A limit of 0 stops a budget: there is nothing to warn of. */
const CROSSED = `
  SELECT b.id, b.tenant_id, b.scope, w.share, b.spent_ticks, b.limit_ticks, 'budget ' || b.id || ' ' || w.share || ' ' || extract(epoch FROM b.period_start)::bigint AS occasion
  FROM budgets b, unnest(b.warn_at) AS w(share)
  WHERE (b.period_end IS NULL OR b.period_end > now()) AND b.limit_ticks > 0 AND b.spent_ticks >= b.limit_ticks * w.share::numeric`;

/**
 * Alerts: each once per crossing and period, in the log, in a table that the admin API shows, and counted. Budgets are looked at every two seconds; all else
 * is told by whoever sees it.
 */
export class Alerts {
  readonly #fired: Counter;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #queued = 0;
  /** By occasion, the oldest first. */
  readonly #told = new Map<string, Alert>();

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    this.#fired = new Counter({ name: 'novix_alerts_total', help: 'Alerts fired, by type', labelNames: ['type'], registers: [registry] });
  }

  start(): void {
    this.#timer = setInterval(() => {
      Promise.all([this.scanBudgets(), this.resolvePast()]).catch((error: unknown) => this.logger.debug({ err: error }, 'alerts: what is over, or budgets, not looked at'));
    }, SCAN_MS);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#writing;
  }

  /** Never rejects and never waits: nobody's call depends on an alert. */
  fire(alert: Alert): void {
    if (this.#told.has(alert.occasion) || this.#queued >= QUEUE_MAX) return; // the same would be told again, or another replica tells it
    if (this.#told.size >= TOLD_MAX) this.#told.delete(this.#told.keys().next().value!);
    this.#told.set(alert.occasion, alert);
    this.#queued += 1;
    this.#writing = this.#writing
      .then(() => this.#write(alert))
      .catch((error: unknown) => {
        this.#told.delete(alert.occasion);
        this.logger.warn({ err: error, alert: alert.type, subject: alert.subject }, 'alerts: one could not be kept');
      })
      .finally(() => {
        this.#queued -= 1;
      });
  }

  /** What was wrong with the subject is right again. Never rejects and never waits, and comes after what was fired before. */
  resolve(type: AlertType, subject: string): void {
    for (const [occasion, told] of this.#told) if (told.type === type && told.subject === subject) this.#told.delete(occasion);
    this.#writing = this.#writing
      .then(async () => {
        const { rowCount } = await this.pool.query("UPDATE alerts SET state = 'resolved', resolved_at = now() WHERE state = 'firing' AND type = $1 AND subject = $2", [type, subject]);
        if (rowCount !== 0) this.logger.info({ alert: type, subject }, 'alert resolved');
      })
      .catch((error: unknown) => this.logger.warn({ err: error, alert: type, subject }, 'alerts: one could not be resolved'));
  }

  /** Budgets that have crossed one of their thresholds in this period, and those that have not any more: a new period, another limit, or no such budget. */
  async scanBudgets(): Promise<void> {
    await this.pool.query(
      `WITH crossed AS (${CROSSED})
       UPDATE alerts a SET state = 'resolved', resolved_at = now()
       WHERE a.type = 'budget_threshold' AND a.state = 'firing' AND NOT EXISTS (SELECT FROM crossed c WHERE c.id::text = a.subject AND starts_with(a.occasion, c.occasion || ' '))`);
    const { rows } = await this.pool.query<Crossing>(
      `WITH crossed AS (${CROSSED})
       SELECT id, tenant_id, scope, share, occasion, spent_ticks::text, limit_ticks::text FROM crossed c
       WHERE NOT EXISTS (SELECT FROM alerts a WHERE a.type = 'budget_threshold' AND a.state = 'firing' AND a.subject = c.id::text AND starts_with(a.occasion, c.occasion || ' '))
       LIMIT 100`);
    for (const { id, tenant_id: tenantId, scope, share, occasion, spent_ticks: spent, limit_ticks: limit } of rows) {
      await this.#write({ type: 'budget_threshold', tenantId, subject: id, occasion, value: `${Math.floor(Number(share) * 100)} % of the budget ${scope} is used (${spent} of ${limit} ticks)` });
    }
  }

  /** Those of which nobody sees the end. An hour from when it was fired, so that what goes on has its next alert before this one ends. */
  async resolvePast(): Promise<void> {
    await this.pool.query(
      `UPDATE alerts SET state = 'resolved', resolved_at = now()
       WHERE state = 'firing' AND ((type = ANY ($1) AND fired_at <= now() - interval '1 hour') OR (type = ANY ($2) AND fired_at <= now() - interval '1 day'))`, [OVER_AFTER_AN_HOUR, OVER_AFTER_A_DAY]);
  }

  async #write({ type, tenantId, subject, occasion, value }: Alert): Promise<void> {
    // Numbered by those that are over: a crossing after one that was resolved is another, and two replicas that see one give it the same number.
    const { rowCount } = await this.pool.query(
      `INSERT INTO alerts (id, type, tenant_id, subject, occasion, state, value)
       SELECT $1, $2, $3, $4, $5 || ' ' || count(*), 'firing', $6 FROM alerts WHERE type = $2 AND subject = $4 AND state = 'resolved' AND starts_with(occasion, $5 || ' ')
       ON CONFLICT (occasion) DO NOTHING`, [uuid(), type, tenantId ?? null, subject, occasion, value]);
    if (rowCount === 0) return;
    this.#fired.inc({ type });
    this.logger.warn({ alert: type, tenant: tenantId, subject, value }, 'alert');
  }
}
