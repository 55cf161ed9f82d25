import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { uuid } from './uuid.ts';

const HEARTBEAT_MS = 5_000;
/** A replica unseen for so long is dead; live ones are seen six times in it. */
export const REPLICA_DEAD_AFTER_SECONDS = 30;

/** This process among the others on the same database: an id, and a heartbeat by which they know that it lives. */
export class Replica {
  readonly id = uuid();
  #timer: NodeJS.Timeout | undefined;
  /** Monotonic time since when the heartbeat has been getting through without a gap; undefined while it does not. */
  #connectedSinceMs: number | undefined;

  constructor(
    private readonly pool: Pool,
    private readonly logger: Logger,
  ) {}

  async open(): Promise<void> {
    await this.pool.query('INSERT INTO replicas (id) VALUES ($1)', [this.id]);
    this.#connectedSinceMs = performance.now();
    this.#timer = setInterval(() => void this.#beat(), HEARTBEAT_MS);
  }

  /** Whether another replica is certain to be gone. One that may only have been cut off with us is given the benefit of the doubt. */
  async isDead(id: string): Promise<boolean> {
    const answer = await this.pool.query<{ stopped: boolean; unseen: boolean }>(
      'SELECT stopped_at IS NOT NULL AS stopped, last_seen_at < now() - make_interval(secs => $2) AS unseen FROM replicas WHERE id = $1', [id, REPLICA_DEAD_AFTER_SECONDS]);
    const [row] = answer.rows;
    if (row === undefined || row.stopped) return true;
    return row.unseen && this.othersHadTheirChance();
  }

  /** After an outage of the database every heartbeat is stale, also those of the living, until they have had time for the next. */
  othersHadTheirChance(): boolean {
    return this.#connectedSinceMs !== undefined && performance.now() - this.#connectedSinceMs > REPLICA_DEAD_AFTER_SECONDS * 1_000;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.pool.query('UPDATE replicas SET stopped_at = now() WHERE id = $1', [this.id]);
  }

  async #beat(): Promise<void> {
    try {
      await this.pool.query('UPDATE replicas SET last_seen_at = now() WHERE id = $1', [this.id]);
      this.#connectedSinceMs ??= performance.now();
    } catch (error) {
      this.#connectedSinceMs = undefined;
      this.logger.warn({ err: error }, 'replica: heartbeat not recorded');
    }
  }
}
