import { createSecretKey, randomBytes, type KeyObject } from 'node:crypto';
import type { Pool } from 'pg';
import { uuid } from '../shared/uuid.ts';
import type { Clock } from '../shared/clock.ts';
import type { Epochs } from './epochs.ts';
import { wrapDataKey } from './key-wrap.ts';
import { uuidBytes } from './record-cipher.ts';
import { dayOf } from './retention-plan.ts';

const KEYS_MAX = 20_000;
/** Nonces are random: half of what NIST SP 800-38D allows with one key. */
const SEALS_MAX = 2 ** 31;
/** How often an epoch may be retired under our hands. */
const ATTEMPTS_MAX = 5;
const DATA_KEY_BYTES = 32;
const FORGET_EVERY_MS = 60_000;

/** What a tenant's texts of a day are sealed with, by this process. */
export interface DataKey {
  id: string;
  idBytes: Buffer;
  day: string;
  key: KeyObject;
}

/**
 * The data keys of this process: one a tenant and day, in memory while the day lasts. In the database they are wrapped for the tenant's epoch, which this
 * process could not undo: it has the public half alone.
 */
export class DataKeys {
  readonly #keys = new Map<string, DataKey & { seals: number }>();
  readonly #making = new Map<string, Promise<DataKey>>();
  #day = '';
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly epochs: Pick<Epochs, 'current'>,
    private readonly clock: Clock,
  ) {}

  /** From now on, keys of a day that is over are forgotten soon, whether or not anybody calls. */
  start(): void {
    this.#timer = setInterval(() => this.#forgetBefore(dayOf(this.clock.nowMs())), FORGET_EVERY_MS);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#keys.clear();
  }

  /** Today's, to seal `seals` texts with. Asks the database for the first of the day alone. */
  async today(tenantId: string, seals: number): Promise<DataKey> {
    const day = dayOf(this.clock.nowMs());
    const name = `${day} ${tenantId}`;
    const known = this.#keys.get(name);
    if (known !== undefined && known.seals + seals <= SEALS_MAX) {
      known.seals += seals;
      return known;
    }
    let making = this.#making.get(name);
    if (making === undefined) {
      making = this.#make(tenantId, day).finally(() => this.#making.delete(name));
      this.#making.set(name, making);
    }
    return making;
  }

  async #make(tenantId: string, day: string): Promise<DataKey> {
    await this.pool.query('SELECT payloads_ensure_partition($1::date), payloads_ensure_partition($1::date + 1)', [day]);
    const id = uuid();
    const bytes = randomBytes(DATA_KEY_BYTES);
    await this.#store(tenantId, day, id, bytes);
    const made = { id, idBytes: uuidBytes(id), day, key: createSecretKey(bytes), seals: 0 };
    bytes.fill(0);
    this.#forgetBefore(day);
    if (this.#keys.size >= KEYS_MAX) this.#keys.delete(this.#keys.keys().next().value!);
    this.#keys.set(`${day} ${tenantId}`, made);
    return made;
  }

  #forgetBefore(day: string): void {
    if (day <= this.#day) return;
    this.#day = day;
    this.#keys.clear();
  }

  /** The epoch's row is held until the key is in: a rotation either finds the key and wraps it anew, or has retired the epoch before. */
  async #store(tenantId: string, day: string, id: string, bytes: Buffer): Promise<void> {
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
      const epoch = await this.epochs.current(tenantId);
      const wrapped = wrapDataKey(epoch.publicKeys, { id, tenantId, day, epochId: epoch.id }, bytes);
      const { rowCount } = await this.pool.query(
        `INSERT INTO payload_data_keys (id, tenant_id, day, epoch_id, wrapped, created_at)
           SELECT $1, $2, $3, e.id, $5, $6 FROM payload_epochs e WHERE e.id = $4 AND e.retired_at IS NULL FOR SHARE`, [id, tenantId, day, epoch.id, wrapped, new Date(this.clock.nowMs())]);
      if (rowCount === 1) return;
    }
    throw new Error('the tenant’s epoch was retired each time that a data key was made for it');
  }
}
