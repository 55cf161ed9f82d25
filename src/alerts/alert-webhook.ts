import { createHmac } from 'node:crypto';
import type { Pool, PoolClient } from 'pg';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { Agent, request } from 'undici';
import { createConnector } from '../egress/connector.ts';
import type { Env } from '../env.ts';
import type { Clock } from '../shared/clock.ts';

/** Any number that only we use: whoever has it in PostgreSQL tells the next alert. */
const TELLER_LOCK = 7_204_115_003;
const PAUSE_MS = 1_000;
const BACKOFF_MAX_MS = 300_000;
const TIMEOUT_MS = 5_000;
/** A webhook set up today is not told of last year; but of the end of what it was told of, whenever that began. */
const TOLD_FOR = '7 days';

interface UntoldAlert {
  id: string;
  type: string;
  tenant_id: string | null;
  subject: string;
  value: string;
  fired_at: Date;
  resolved_at: Date | null;
  told_state: 'firing' | null;
  untold: string;
}

/**
 * Tells alerts to a webhook of the operators': signed, in order, each state at least once, whichever replica does it. One that is not taken is tried again,
 * for as long as it takes, and those after it wait.
 *
 * @see https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
export class AlertWebhook {
  readonly #agent: Agent;
  readonly #key: Buffer;
  readonly #refused: Counter;
  readonly #waiting: Gauge;
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> = Promise.resolve();
  #failures = 0;
  #closing = false;

  constructor(
    private readonly settings: NonNullable<Env['alertWebhook']>,
    egress: Env['egress'],
    private readonly pool: Pool,
    private readonly clock: Clock,
    private readonly random: () => number,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    const connect = createConnector({ connectTimeoutMs: TIMEOUT_MS, anyAddress: true, tls: { cert: undefined, key: undefined, ca: undefined }, proxy: { url: egress.proxyUrl, noProxy: egress.noProxy } });
    this.#agent = new Agent({ connect, connections: 1, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
    this.#key = Buffer.from(settings.secret, 'base64');
    this.#refused = new Counter({ name: 'novix_alert_webhook_failures_total', help: 'Times the alert webhook did not take an alert', registers: [registry] });
    this.#waiting = new Gauge({ name: 'novix_alert_webhook_waiting', help: 'Alerts that the webhook has not taken yet, as seen by the replica that tells them', registers: [registry] });
  }

  start(): void {
    this.#next(PAUSE_MS);
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#timer);
    await this.#turn;
    await this.#agent.close();
  }

  #next(pauseMs: number): void {
    if (this.#closing) return;
    this.#timer = setTimeout(() => {
      this.#turn = this.#tell().then((pause) => this.#next(pause));
    }, pauseMs);
  }

  /** @returns how long to wait until the next */
  async #tell(): Promise<number> {
    try {
      const told = await this.#tellOne();
      this.#failures = 0;
      return told ? 0 : PAUSE_MS;
    } catch (error) {
      this.#failures += 1;
      this.#refused.inc();
      const ceilingMs = Math.min(BACKOFF_MAX_MS, PAUSE_MS * 2 ** Math.min(this.#failures, 16));
      const waitMs = Math.max(error instanceof NotTaken ? error.retryAfterMs : 0, PAUSE_MS + ceilingMs * this.random());
      this.logger.warn({ err: error, failures: this.#failures, waitMs: Math.round(waitMs) }, 'alerts: the webhook did not take one; it will be told again');
      return waitMs;
    }
  }

  /** What was told is noted in the transaction that had the lock: after a death in between, it is told again, under the same id. */
  async #tellOne(): Promise<boolean> {
    const client = await this.pool.connect();
    let broken: Error | undefined;
    try {
      await client.query('BEGIN');
      const alert = await this.#nextUntold(client);
      if (alert !== undefined) {
        const state = alert.told_state === null ? 'firing' : 'resolved';
        await this.#post(alert, state);
        await client.query('UPDATE alerts SET told_state = $2 WHERE id = $1', [alert.id, state]);
      }
      await client.query('COMMIT');
      return alert !== undefined;
    } catch (error) {
      await client.query('ROLLBACK').catch((reason: unknown) => {
        broken = reason instanceof Error ? reason : new Error(String(reason));
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async #nextUntold(client: PoolClient): Promise<UntoldAlert | undefined> {
    const { rows: [lock] } = await client.query<{ mine: boolean }>('SELECT pg_try_advisory_xact_lock($1) AS mine', [TELLER_LOCK]);
    if (!lock!.mine) return undefined;
    const { rows } = await client.query<UntoldAlert>(
      `SELECT id, type, tenant_id, subject, value, fired_at, resolved_at, told_state, count(*) OVER () AS untold FROM alerts
       WHERE told_state IS DISTINCT FROM state AND (CASE WHEN told_state IS NULL THEN fired_at ELSE coalesce(resolved_at, fired_at) END) > now() - interval '${TOLD_FOR}' ORDER BY id LIMIT 1`);
    this.#waiting.set(Number(rows[0]?.untold ?? 0));
    return rows[0];
  }

  async #post(alert: UntoldAlert, state: 'firing' | 'resolved'): Promise<void> {
    const { id, type, tenant_id: tenant, subject, value } = alert;
    const at = state === 'firing' ? alert.fired_at : alert.resolved_at ?? alert.fired_at;
    const body = JSON.stringify({ type: `alert.${state}`, timestamp: at.toISOString(), data: { id, type, tenant, subject, state, at: at.toISOString(), value } });
    const messageId = `${id}.${state}`;
    const sentAtSeconds = Math.floor(this.clock.nowMs() / 1000);
    const signature = createHmac('sha256', this.#key).update(`${messageId}.${sentAtSeconds}.${body}`).digest('base64');
    // Never a redirect: the operators named one place.
    const response = await request(this.settings.url, {
      method: 'POST', dispatcher: this.#agent, body, signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { 'content-type': 'application/json', 'webhook-id': messageId, 'webhook-timestamp': String(sentAtSeconds), 'webhook-signature': `v1,${signature}` },
    });
    await response.body.dump({ limit: 64 * 1024 });
    if (response.statusCode < 200 || response.statusCode > 299) throw new NotTaken(response.statusCode, response.headers['retry-after']);
  }
}

class NotTaken extends Error {
  override readonly name = 'NotTaken';
  readonly retryAfterMs: number;

  constructor(status: number, retryAfter: string | string[] | undefined) {
    super(`the webhook answered ${status}`);
    const seconds = typeof retryAfter === 'string' && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) : 0;
    this.retryAfterMs = Math.min(seconds * 1000, BACKOFF_MAX_MS);
  }
}
