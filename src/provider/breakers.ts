import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { DataSource, EntityManager } from 'typeorm';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { notify, type Notifications } from '../shared/notifications.ts';
import { afterNews, CLOSED, forcedOpen } from './circuit-breaker.ts';
import type { Shard } from './shard.ts';
import type { Shards } from './shards.ts';

const OPENED = 'breaker-opened';
const ORDERED = 'breaker-ordered';
const POLL_MS = 1_000;
/** Longer than any recovery time is: news of more is a mistake. */
const NEWS_MS_MAX = 86_400_000;

/** A breaker as the admin API shows it. */
export interface BreakerView {
  deployment: string;
  model: string;
  state: 'closed' | 'open' | 'half_open';
  failures: number;
  /** RFC 3339; null where it is closed, and where it stays open until a reset. */
  open_until: string | null;
  forced: boolean;
}

/**
 * What replicas and admins say of breakers. A replica whose breaker opens tells the others, once and without waiting. An admin's word is stored, so that
 * it holds for every replica and outlives a restart; each acts on it within a second.
 */
export class Breakers {
  /** By deployment, the number of the last order carried out. */
  readonly #carriedOut = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly dataSource: DataSource,
    private readonly pool: Pool,
    private readonly shards: Pick<Shards, 'all' | 'find'>,
    private readonly replicaId: string,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  async open(notifications: Notifications): Promise<void> {
    await this.#carryOut();
    const look = (): void => {
      this.#carryOut().catch((error: unknown) => this.logger.debug({ err: error }, 'breakers: orders not read'));
    };
    notifications.on(OPENED, (payload) => this.#hear(payload));
    notifications.on(ORDERED, look);
    this.#timer = setInterval(look, POLL_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  list(): BreakerView[] {
    return this.shards.all.map((shard) => this.#view(shard));
  }

  /** Tells the other replicas that one has opened here. Best effort: they would find out for themselves. */
  announce(deploymentId: string, openMs: number): void {
    notify(this.pool, OPENED, `${this.replicaId} ${deploymentId} ${Math.round(openMs)}`).catch((error: unknown) => this.logger.debug({ err: error }, 'breakers: others not told'));
  }

  /**
   * Opens a breaker until it is reset, or closes it.
   *
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `not_found`
   */
  async order(deploymentId: string, order: 'force-open' | 'reset', alongside: (manager: EntityManager, before: BreakerView, after: BreakerView) => Promise<void>): Promise<BreakerView> {
    const shard = this.shards.find(deploymentId);
    if (shard === undefined) throw new GatewayError('not_found', { publicMessage: 'There is no such deployment.' });
    const before = this.#view(shard);
    const forced = order === 'force-open';
    await this.dataSource.transaction(async (manager) => {
      // A new number each time tells replicas that there is something to do.
      await manager.query(
        'INSERT INTO breaker_orders (deployment, forced_open) VALUES ($1, $2) ON CONFLICT (deployment) DO UPDATE SET forced_open = excluded.forced_open, number = DEFAULT, ordered_at = now()', [deploymentId, forced]);
      await alongside(manager, before, { ...before, state: forced ? 'open' : 'closed', failures: forced ? before.failures : 0, open_until: null, forced });
      await notify(manager, ORDERED);
    });
    await this.#carryOut();
    return this.#view(shard);
  }

  /** Forced ones are opened whenever they are not, so also those of a deployment that came later; a reset is done once. */
  async #carryOut(): Promise<void> {
    const { rows } = await this.pool.query<{ deployment: string; forced_open: boolean; number: string }>('SELECT deployment, forced_open, number FROM breaker_orders ORDER BY number');
    for (const { deployment, forced_open: forced, number } of rows) {
      const shard = this.shards.find(deployment);
      const isNew = this.#carriedOut.get(deployment) !== number;
      this.#carriedOut.set(deployment, number);
      if (shard === undefined) continue;
      if (forced && shard.openMs !== Number.POSITIVE_INFINITY) shard.setBreaker(forcedOpen(shard.breaker));
      else if (!forced && isNew) shard.setBreaker(CLOSED);
    }
  }

  #hear(payload: string): void {
    const [replicaId, deploymentId = '', openMs = ''] = payload.split(' ');
    const shard = this.shards.find(deploymentId);
    const ms = Number(openMs);
    if (replicaId === this.replicaId || shard === undefined || !(ms > 0 && ms <= NEWS_MS_MAX)) return;
    shard.setBreaker(afterNews(shard.breaker, ms, this.clock.monotonicMs()));
  }

  #view({ id, deployment, breaker, openMs }: Shard): BreakerView {
    const forced = openMs === Number.POSITIVE_INFINITY;
    return {
      deployment: id, model: deployment.models.length === 1 ? deployment.models[0]! : '*', state: breaker.state, failures: breaker.failures,
      open_until: breaker.state !== 'open' || openMs === undefined || forced ? null : new Date(this.clock.nowMs() + openMs).toISOString(), forced,
    };
  }
}
