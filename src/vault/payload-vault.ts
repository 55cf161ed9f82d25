import { createSecretKey } from 'node:crypto';
import type { Pool } from 'pg';
import type { Clock } from '../shared/clock.ts';
import type { DataKey, DataKeys } from './data-keys.ts';
import { RootGone } from './epoch-roots.ts';
import type { Epochs } from './epochs.ts';
import { unwrapDataKey } from './key-wrap.ts';
import { openRecord, RecordSealer, uuidBytes, type Purpose, type RecordName } from './record-cipher.ts';

export interface SealedText {
  name: RecordName;
  dataKey: DataKey;
  sealed: Buffer;
  contentType: string;
  textBytes: number;
}

export interface StoredText {
  purpose: Purpose;
  contentType: string;
  storedAt: Date;
  text: Buffer;
}

interface Row {
  tenant_id: string;
  purpose: Purpose;
  data_key_id: string;
  sealed: Buffer;
  content_type: string;
  created_at: Date;
  day: string;
  epoch_id: string | null;
  wrapped: Buffer | null;
}

/** A rotation may destroy the epoch that a data key was wrapped for when it was looked up; then it is looked up again. */
const READ_ATTEMPTS = 3;

/** Where prompts and answers are stored, sealed, for tenants that want them stored. */
export class PayloadVault {
  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly dataKeys: Pick<DataKeys, 'today'>,
    private readonly epochs: Pick<Epochs, 'open'>,
    private readonly clock: Clock,
  ) {}

  /** What one call's texts are sealed with: one key for both, whenever the answer comes. */
  dataKey(tenantId: string): Promise<DataKey> {
    return this.dataKeys.today(tenantId, 2);
  }

  sealer({ key, idBytes }: DataKey, name: RecordName): RecordSealer {
    return new RecordSealer(key, idBytes, name);
  }

  /** By a statement of its own: the journal's commit is everybody's, and a long text would hold it up. */
  async store({ name, dataKey, sealed, contentType, textBytes }: SealedText): Promise<void> {
    await this.pool.query('INSERT INTO payloads (tenant_id, request_id, purpose, day, data_key_id, sealed, content_type, bytes, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)', [
      name.tenantId, name.requestId, name.purpose, dataKey.day, dataKey.id, sealed, contentType, textBytes, new Date(this.clock.nowMs()),
    ]);
  }

  /**
   * @param tenantId whose it has to be; undefined for anybody's
   * @returns undefined where there is nothing that could be read: never stored, or its time is over
   * @throws {CannotOpen} where what is stored is not what was stored
   */
  async read(requestId: string, tenantId: string | undefined): Promise<{ tenantId: string; texts: StoredText[] } | undefined> {
    for (let attempt = 1; ; attempt += 1) {
      const { rows } = await this.pool.query<Row>(
        `SELECT p.tenant_id, p.purpose, p.data_key_id, p.sealed, p.content_type, p.created_at, to_char(p.day, 'YYYY-MM-DD') AS day, k.epoch_id, k.wrapped
         FROM payloads p LEFT JOIN payload_data_keys k ON k.id = p.data_key_id
         WHERE p.request_id = $1 AND ($2::text IS NULL OR p.tenant_id = $2) ORDER BY p.purpose DESC`, [requestId, tenantId ?? null]);
      const [first] = rows;
      if (first === undefined) return undefined;
      try {
        const texts: StoredText[] = [];
        for (const row of rows) texts.push({ purpose: row.purpose, contentType: row.content_type, storedAt: row.created_at, text: await this.#open(requestId, row) });
        return { tenantId: first.tenant_id, texts };
      } catch (error) {
        if (!(error instanceof RootGone)) throw error;
        if (attempt === READ_ATTEMPTS) return undefined;
      }
    }
  }

  async #open(requestId: string, row: Row): Promise<Buffer> {
    const { tenant_id: tenantId, data_key_id: id, day, epoch_id: epochId, wrapped, purpose, sealed } = row;
    if (epochId === null || wrapped === null) throw new RootGone('of a data key that is gone');
    const privateKeys = await this.epochs.open(epochId);
    const bytes = unwrapDataKey(privateKeys, { id, tenantId, day, epochId }, wrapped);
    try {
      return openRecord(createSecretKey(bytes), uuidBytes(id), { tenantId, requestId, purpose }, sealed);
    } finally {
      bytes.fill(0);
    }
  }
}
