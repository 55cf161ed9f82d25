import type { Pool } from 'pg';
import type { DataSource, EntityManager } from 'typeorm';
import { uuid } from '../shared/uuid.ts';
import type { Clock } from '../shared/clock.ts';
import { RootGone } from './epoch-roots.ts';
import { decodePrivate, decodePublic, encodePrivate, encodePublic, newEpochKeys, unwrapDataKey, wrapDataKey, type EpochPrivate, type EpochPublic } from './key-wrap.ts';
import type { Keeper, RootKeepers } from './root-keepers.ts';
import { recordVaultChange } from './vault-records.ts';

interface EpochRow {
  id: string;
  tenant_id: string;
  x25519_public: Buffer;
  ml_kem_public: Buffer;
  root_keeper: Keeper;
  sealed_private: Buffer | null;
}

interface NewEpoch {
  id: string;
  tenantId: string;
  publicKeys: EpochPublic;
  keeper: Keeper;
  sealedPrivate: Buffer;
}

export interface Rotation {
  /** Undefined where another process was quicker. */
  epochId: string | undefined;
  retiredEpochId: string;
  /** Data keys that were wrapped anew. */
  rewrapped: number;
}

const COLUMNS = 'id, tenant_id, x25519_public, ml_kem_public, root_keeper, sealed_private';

/** The key pairs of tenants. Private halves are opened for one operation at a time, and kept by nobody. */
export class Epochs {
  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly dataSource: DataSource,
    private readonly roots: RootKeepers,
    private readonly clock: Clock,
  ) {}

  /** The public half that data keys are wrapped for now; the tenant's first is made here. Asked once for each data key, so it is never an old one. */
  async current(tenantId: string): Promise<{ id: string; publicKeys: EpochPublic }> {
    const known = await this.#current(tenantId);
    if (known !== undefined) return { id: known.id, publicKeys: decodePublic({ x25519: known.x25519_public, mlKem: known.ml_kem_public }) };
    const fresh = await this.#prepare(tenantId);
    const isFirst = await this.#orDestroy(fresh, () => this.dataSource.transaction((manager) => this.#insert(manager, fresh)));
    if (isFirst) return { id: fresh.id, publicKeys: fresh.publicKeys };
    await this.roots.of(fresh.keeper).destroy(fresh.id); // another process made one meanwhile
    return this.current(tenantId);
  }

  /**
   * Opens an epoch's private half, for one operation.
   *
   * @throws {RootGone} where it is destroyed
   * @throws {CannotOpen}
   */
  async open(epochId: string): Promise<EpochPrivate> {
    const { rows: [row] } = await this.pool.query<EpochRow>(`SELECT ${COLUMNS} FROM payload_epochs WHERE id = $1`, [epochId]);
    if (!row?.sealed_private) throw new RootGone(epochId);
    return this.#openRow(row);
  }

  /**
   * Makes a new epoch and wraps for it the data keys from `keepFromDay` on; the texts stay as they are. Those before are left behind: {@link destroyRetired}
   * closes them for good.
   *
   * @returns undefined where the tenant has none yet
   */
  async rotate(tenantId: string, keepFromDay: string): Promise<Rotation | undefined> {
    const old = await this.#current(tenantId);
    if (old === undefined) return undefined;
    const privateKeys = await this.#openUnlessGone(old);
    const fresh = await this.#prepare(tenantId);
    const rewrapped = await this.#orDestroy(fresh, () => this.dataSource.transaction((manager) => this.#replace(manager, old, privateKeys, fresh, keepFromDay)));
    if (rewrapped === undefined) await this.roots.of(fresh.keeper).destroy(fresh.id);
    return { epochId: rewrapped === undefined ? undefined : fresh.id, retiredEpochId: old.id, rewrapped: rewrapped ?? 0 };
  }

  /** Destroys what is retired: at the root first, so that no step after it can be the only one that was taken. Can be done again after a crash. */
  async destroyRetired(tenantId: string): Promise<string[]> {
    const { rows } = await this.pool.query<{ id: string; root_keeper: Keeper }>('SELECT id, root_keeper FROM payload_epochs WHERE tenant_id = $1 AND retired_at IS NOT NULL AND destroyed_at IS NULL ORDER BY retired_at', [tenantId]);
    for (const { id, root_keeper: keeper } of rows) {
      await this.roots.of(keeper).destroy(id);
      const nowMs = this.clock.nowMs();
      await this.dataSource.transaction(async (manager) => {
        const [, changed] = await manager.query<[unknown, number]>('UPDATE payload_epochs SET destroyed_at = $2, sealed_private = NULL WHERE id = $1 AND destroyed_at IS NULL', [id, new Date(nowMs)]);
        if (changed === 0) return; // another process did, and has it on record
        await recordVaultChange(manager, tenantId, nowMs, 'delete', { type: 'payload_epoch', id }, { state: 'retired' }, { state: 'destroyed' });
      });
    }
    return rows.map(({ id }) => id);
  }

  async #current(tenantId: string): Promise<EpochRow | undefined> {
    const { rows } = await this.pool.query<EpochRow>(`SELECT ${COLUMNS} FROM payload_epochs WHERE tenant_id = $1 AND retired_at IS NULL`, [tenantId]);
    return rows[0];
  }

  async #openRow({ id, tenant_id: tenantId, root_keeper: keeper, sealed_private: sealed }: EpochRow): Promise<EpochPrivate> {
    const bytes = await this.roots.of(keeper).open({ id, tenantId }, sealed!);
    try {
      return decodePrivate(bytes);
    } finally {
      bytes.fill(0);
    }
  }

  /** A backup that was put back has epochs whose roots are gone: nothing of theirs is left to be saved, but what comes must not be sealed for them. */
  async #openUnlessGone(row: EpochRow): Promise<EpochPrivate | undefined> {
    try {
      return await this.#openRow(row);
    } catch (error) {
      if (error instanceof RootGone) return undefined;
      throw error;
    }
  }

  /** Outside any transaction, since roots may be asked over the network. */
  async #prepare(tenantId: string): Promise<NewEpoch> {
    const { publicKeys, privateKeys } = newEpochKeys();
    const id = uuid();
    const keeper = this.roots.newest;
    const bytes = encodePrivate(privateKeys);
    try {
      return { id, tenantId, publicKeys, keeper, sealedPrivate: await this.roots.of(keeper).seal({ id, tenantId }, bytes) };
    } finally {
      bytes.fill(0);
    }
  }

  /** An epoch that came to nothing leaves no root behind. */
  async #orDestroy<T>({ id, keeper }: NewEpoch, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      // A commit whose answer was lost may have made it, and then its root must stay.
      const isThere = await this.pool.query('SELECT FROM payload_epochs WHERE id = $1', [id]).then(({ rowCount }) => rowCount !== 0, () => true);
      if (!isThere) await this.roots.of(keeper).destroy(id);
      throw error;
    }
  }

  /** @returns whether it is the tenant's current one now */
  async #insert(manager: EntityManager, { id, tenantId, publicKeys, keeper, sealedPrivate }: NewEpoch): Promise<boolean> {
    const { x25519, mlKem } = encodePublic(publicKeys);
    const nowMs = this.clock.nowMs();
    const inserted = await manager.query<unknown[]>(
      `INSERT INTO payload_epochs (id, tenant_id, x25519_public, ml_kem_public, root_keeper, sealed_private, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id) WHERE retired_at IS NULL DO NOTHING RETURNING id`, [id, tenantId, x25519, mlKem, keeper, sealedPrivate, new Date(nowMs)]);
    if (inserted.length === 0) return false;
    await recordVaultChange(manager, tenantId, nowMs, 'create', { type: 'payload_epoch', id }, null, { state: 'current' });
    return true;
  }

  /** @returns how many data keys were wrapped anew; undefined where `old` is no longer the current one */
  async #replace(manager: EntityManager, old: EpochRow, privateKeys: EpochPrivate | undefined, fresh: NewEpoch, keepFromDay: string): Promise<number | undefined> {
    const nowMs = this.clock.nowMs();
    // Whoever is adding a data key for the old epoch holds this row: it is waited for, and its key is among those below. Who comes after takes the new epoch.
    const [, retired] = await manager.query<[unknown, number]>('UPDATE payload_epochs SET retired_at = $2 WHERE id = $1 AND retired_at IS NULL', [old.id, new Date(nowMs)]);
    if (retired === 0) return undefined;
    if (!(await this.#insert(manager, fresh))) throw new Error('two current epochs of one tenant');
    const kept = privateKeys === undefined ? [] : await manager.query<{ id: string; day: string; wrapped: Buffer }[]>(
      "SELECT id, to_char(day, 'YYYY-MM-DD') AS day, wrapped FROM payload_data_keys WHERE epoch_id = $1 AND day >= $2", [old.id, keepFromDay]);
    const { tenantId } = fresh;
    const wrapped = kept.map(({ id, day, wrapped: bytes }) => {
      const dataKey = unwrapDataKey(privateKeys!, { id, tenantId, day, epochId: old.id }, bytes);
      try {
        return wrapDataKey(fresh.publicKeys, { id, tenantId, day, epochId: fresh.id }, dataKey);
      } finally {
        dataKey.fill(0);
      }
    });
    await manager.query('UPDATE payload_data_keys k SET epoch_id = $1, wrapped = n.wrapped FROM unnest($2::uuid[], $3::bytea[]) AS n(id, wrapped) WHERE k.id = n.id', [fresh.id, kept.map(({ id }) => id), wrapped]);
    await recordVaultChange(manager, tenantId, nowMs, 'update', { type: 'payload_epoch', id: old.id }, { state: 'current' }, { state: 'retired', replaced_by: fresh.id, data_keys_wrapped_anew: kept.length, ...(privateKeys === undefined ? { root: 'gone' } : {}) });
    return kept.length;
  }
}
