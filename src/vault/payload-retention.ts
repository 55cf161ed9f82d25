import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { DataSource } from 'typeorm';
import { TIER_NAMES, type TierName, type Tiers } from '../catalogue/tiers.ts';
import type { Epochs } from './epochs.ts';
import type { RetentionStep } from './retention.ts';
import { dayOf, firstDayOfAll, firstKeptDays } from './retention-plan.ts';
import { recordVaultChange } from './vault-records.ts';

/** Of up to 32 MiB each: a batch is done well within a statement's time. */
const ROWS_PER_BATCH = 100;
const DAYS_AHEAD = 2;
/** Whoever stores waits for it, so it does not wait long itself; a dump of the database may hold it up. */
const DROP_LOCK_MS = 2_000;
const DESTROYED_EPOCHS_KEPT = '400 days';

// Property names as the summary has them.
interface Counts {
  rows: number;
  partitions: number;
  data_keys: number;
  epochs: number;
  failures: number;
}

/**
 * Ends stored texts whose time is over. The keys go first: data keys that are still needed move to a new epoch, and the old one is destroyed at its root, from
 * which moment no copy of the database opens the rest. Only then is the rest deleted, each step for itself, so that a run that died is finished by the next.
 */
export class PayloadRetention implements RetentionStep {
  readonly name = 'payloads';

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly dataSource: DataSource,
    private readonly epochs: Pick<Epochs, 'rotate' | 'destroyRetired'>,
    private readonly tiers: Tiers,
    private readonly logger: Logger,
  ) {}

  async run(nowMs: number): Promise<Counts & Record<string, number>> {
    const counts = { rows: 0, partitions: 0, data_keys: 0, epochs: 0, failures: 0 };
    await this.pool.query('SELECT payloads_ensure_partition($1::date + n) FROM generate_series(0, $2::int) AS n', [dayOf(nowMs), DAYS_AHEAD]);
    const tenants = await this.#tenantsWithWork(nowMs);
    for (const tenant of tenants) await this.#attempt(counts, `the keys of ${tenant.id}`, () => this.#closeEpochs(tenant.id, tenant.firstDay, counts));
    await this.#dropPartitions(nowMs, counts);
    for (const tenant of tenants) await this.#attempt(counts, `the texts of ${tenant.id}`, () => this.#deleteTexts(tenant.id, tenant.firstDay, nowMs, counts));
    await this.pool.query(
      `DELETE FROM payload_epochs e WHERE destroyed_at < $1::timestamptz - interval '${DESTROYED_EPOCHS_KEPT}' AND NOT EXISTS (SELECT FROM payload_data_keys k WHERE k.epoch_id = e.id)`, [new Date(nowMs)]);
    return counts;
  }

  /** A tenant that cannot be done now keeps no other from being done. */
  async #attempt(counts: Counts, what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      counts.failures += 1;
      this.logger.error({ err: error }, `retention: ${what} could not be done; it will be tried again`);
    }
  }

  async #tenantsWithWork(nowMs: number): Promise<{ id: string; firstDay: string }[]> {
    const firstDays = firstKeptDays(nowMs, this.tiers);
    const { rows } = await this.pool.query<{ id: string; tier: TierName }>(
      `SELECT t.id, t.tier FROM tenants t JOIN unnest($1::text[], $2::date[]) AS c(tier, first_day) ON c.tier = t.tier
       WHERE EXISTS (SELECT FROM payload_data_keys k WHERE k.tenant_id = t.id AND k.day < c.first_day)
         OR EXISTS (SELECT FROM payload_epochs e WHERE e.tenant_id = t.id AND e.retired_at IS NOT NULL AND e.destroyed_at IS NULL) ORDER BY t.id`,
      [[...TIER_NAMES], TIER_NAMES.map((tier) => firstDays[tier])]);
    return rows.map(({ id, tier }) => ({ id, firstDay: firstDays[tier] }));
  }

  async #closeEpochs(tenantId: string, firstDay: string, counts: Counts): Promise<void> {
    const { rows: [row] } = await this.pool.query<{ expired: boolean }>(
      'SELECT EXISTS (SELECT FROM payload_data_keys k JOIN payload_epochs e ON e.id = k.epoch_id WHERE k.tenant_id = $1 AND k.day < $2 AND e.retired_at IS NULL) AS expired', [tenantId, firstDay]);
    if (row!.expired) await this.epochs.rotate(tenantId, firstDay);
    counts.epochs += (await this.epochs.destroyRetired(tenantId)).length;
  }

  async #dropPartitions(nowMs: number, counts: Counts): Promise<void> {
    const { rows } = await this.pool.query<{ name: string; day: string; open: boolean }>(
      `WITH partitions AS (SELECT c.relname AS name, to_date(right(c.relname, 8), 'YYYYMMDD') AS day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'payloads'::regclass)
       SELECT p.name, to_char(p.day, 'YYYY-MM-DD') AS day,
         EXISTS (SELECT FROM payload_data_keys k JOIN payload_epochs e ON e.id = k.epoch_id WHERE k.day = p.day AND e.destroyed_at IS NULL) AS open
       FROM partitions p WHERE p.day < $1 ORDER BY p.day`, [firstDayOfAll(nowMs, this.tiers)]);
    // Where a key could not be destroyed, its texts wait: that they are gone must never be all that was done.
    for (const { name, day, open } of rows) if (!open) await this.#attempt(counts, `the partition ${name}`, () => this.#dropPartition(name, day, nowMs, counts));
  }

  async #dropPartition(name: string, day: string, nowMs: number, counts: Counts): Promise<void> {
    const { rows: [row] } = await this.pool.query<{ rows: string }>(`SELECT count(*) AS rows FROM ${name}`); // the name is the catalog's, and of digits
    await this.dataSource.transaction(async (manager) => {
      await manager.query(`SET LOCAL lock_timeout = ${DROP_LOCK_MS}`);
      await manager.query(`DROP TABLE ${name}`);
      await recordVaultChange(manager, 'platform', nowMs, 'delete', { type: 'payload_partition', id: name }, { day, rows: Number(row!.rows) }, null);
    });
    counts.partitions += 1;
    counts.rows += Number(row!.rows);
  }

  /** Key by key, the texts before their key: as long as the key's row is there, so is the proof that there is something to delete. */
  async #deleteTexts(tenantId: string, firstDay: string, nowMs: number, counts: Counts): Promise<void> {
    const { rows: keys } = await this.pool.query<{ id: string; day: string; epoch_id: string }>(
      `SELECT k.id, to_char(k.day, 'YYYY-MM-DD') AS day, k.epoch_id FROM payload_data_keys k JOIN payload_epochs e ON e.id = k.epoch_id
       WHERE k.tenant_id = $1 AND k.day < $2 AND e.destroyed_at IS NOT NULL ORDER BY k.day`, [tenantId, firstDay]);
    for (const { id, day, epoch_id: epochId } of keys) {
      const rows = await this.#deleteRows(id, day);
      await this.dataSource.transaction(async (manager) => {
        const [, deleted] = await manager.query<[unknown, number]>('DELETE FROM payload_data_keys WHERE id = $1', [id]);
        if (deleted === 0) return;
        await recordVaultChange(manager, tenantId, nowMs, 'delete', { type: 'payload_data_key', id }, { day, epoch: epochId, rows }, null);
        counts.data_keys += 1;
      });
      counts.rows += rows;
    }
  }

  async #deleteRows(dataKeyId: string, day: string): Promise<number> {
    for (let deleted = 0; ;) {
      const { rowCount } = await this.pool.query(
        `DELETE FROM payloads WHERE day = $2 AND (request_id, purpose) IN (SELECT request_id, purpose FROM payloads WHERE day = $2 AND data_key_id = $1 LIMIT ${ROWS_PER_BATCH})`, [dataKeyId, day]);
      deleted += rowCount ?? 0;
      if ((rowCount ?? 0) < ROWS_PER_BATCH) return deleted;
    }
  }
}
