import { createHmac, createSecretKey, randomBytes, type Hmac, type KeyObject } from 'node:crypto';
import type { Pool } from 'pg';
import { uuid } from '../shared/uuid.ts';
import type { Commitment } from './audit-event.ts';

const CACHED_KEYS_MAX = 20_000;

interface DayKey {
  id: string;
  /** As key objects: with plain bytes Node's HMAC takes six times as long. */
  key: KeyObject;
}

/**
 * Keyed commitments to prompts and answers. The log holds `HMAC-SHA256(K, label ‖ bytes)` with `K = HMAC-SHA256(day key, request id)`, so that
 * - nobody can test guesses at a prompt against the log without the key,
 * - one record can be opened by giving out its own K alone,
 * - destroying a day's key closes all of that tenant's day, while the log still verifies.
 */
export class Commitments {
  readonly #keys = new Map<string, DayKey>();
  readonly #loading = new Map<string, Promise<DayKey>>();

  constructor(private readonly pool: Pool) {}

  /** The committer of one request. Asks the database only for a tenant's first request of the day. */
  forRequest(tenantId: string, requestId: string, nowMs: number): RequestCommitter | Promise<RequestCommitter> {
    const day = new Date(nowMs).toISOString().slice(0, 10);
    const known = this.#keys.get(`${day} ${tenantId}`);
    return known ? new RequestCommitter(known, requestId) : this.#load(tenantId, day).then((key) => new RequestCommitter(key, requestId));
  }

  #load(tenantId: string, day: string): Promise<DayKey> {
    const name = `${day} ${tenantId}`;
    let loading = this.#loading.get(name);
    if (!loading) {
      loading = this.#loadOrCreate(tenantId, day).finally(() => this.#loading.delete(name));
      this.#loading.set(name, loading);
    }
    return loading;
  }

  async #loadOrCreate(tenantId: string, day: string): Promise<DayKey> {
    await this.pool.query('INSERT INTO commitment_keys (id, tenant_id, day, key) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, day) DO NOTHING', [
      uuid(), tenantId, day, randomBytes(32),
    ]);
    const answer = await this.pool.query<{ id: string; key: Buffer }>('SELECT id, key FROM commitment_keys WHERE tenant_id = $1 AND day = $2', [tenantId, day]);
    const { id, key } = answer.rows[0]!;
    const dayKey = { id, key: createSecretKey(key) };
    if (this.#keys.size >= CACHED_KEYS_MAX) this.#keys.delete(this.#keys.keys().next().value!);
    this.#keys.set(`${day} ${tenantId}`, dayKey);
    return dayKey;
  }
}

/** Commits to the texts of one request. */
export class RequestCommitter {
  readonly #keyId: string;
  readonly #recordKey: KeyObject;

  constructor(dayKey: DayKey, requestId: string) {
    this.#keyId = dayKey.id;
    this.#recordKey = createSecretKey(createHmac('sha256', dayKey.key).update(requestId).digest());
  }

  commit(label: 'prompt', bytes: Buffer): Commitment {
    return this.#finish(this.#begin(label).update(bytes));
  }

  /** Commits to an answer that comes in pieces: the provider's bytes, as received. */
  begin(label: 'answer'): { update(bytes: Buffer): void; finish(): Commitment } {
    const hmac = this.#begin(label);
    return { update: (bytes) => void hmac.update(bytes), finish: () => this.#finish(hmac) };
  }

  #begin(label: string): Hmac {
    return createHmac('sha256', this.#recordKey).update(`${label}\0`);
  }

  #finish(hmac: Hmac): Commitment {
    return { algorithm: 'HMAC-SHA256', key_id: this.#keyId, value: hmac.digest('hex') };
  }
}
