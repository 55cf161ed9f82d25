import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Pool } from 'pg';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';

const HEADER = 'idempotency-key';
const KEY = /^[\x21-\x7e]{1,255}$/;
const KEPT_MS = 86_400_000;
/** A longer answer is not kept: a repeat is told so, and costs nothing either. */
const RESULT_BYTES_MAX = 4 * 1024 * 1024;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEYS_CACHED_MAX = 10_000;
const RUNNING_RETRY_SECONDS = 2;

/** What a repeat is answered with. */
export interface FirstResult {
  requestId: string;
  status: number;
  body: Buffer;
}

/** A key that a call is about to claim, or has claimed. */
export interface IdempotencyClaim {
  tenantId: string;
  keyHash: string;
  bodyHash: string;
}

interface Row {
  request_id: string;
  body_hash: Buffer;
  status: number | null;
  result: Buffer | null;
  under_way: boolean;
  expires_at: Date;
}

/**
 * `Idempotency-Key`: the same call, sent again within 24 hours, gets the first result and is not charged again. Keys are claimed in the commit that admits
 * the call. Results are sealed by a key of the tenant and the day, which is destroyed when they have expired.
 */
export class Idempotency {
  readonly #keys = new Map<string, Buffer>();

  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly clock: Clock,
  ) {}

  /**
   * @param operation method and route: the same key on another one is another call
   * @returns undefined without the header
   * @throws {GatewayError} `invalid_request`
   */
  claimOf(headers: IncomingHttpHeaders, tenantId: string, operation: string, body: Buffer): IdempotencyClaim | undefined {
    const key = headers[HEADER];
    if (key === undefined) return undefined;
    if (typeof key !== 'string' || !KEY.test(key)) throw new GatewayError('invalid_request', { publicMessage: 'The header idempotency-key takes 1 to 255 visible ASCII characters, once.', param: HEADER });
    return { tenantId, keyHash: sha256(key), bodyHash: createHash('sha256').update(`${operation}\0`).update(body).digest('hex') };
  }

  /**
   * What the key's first call came to.
   *
   * @returns undefined where there was none
   * @throws {GatewayError} `idempotency_conflict` for another body, while it is under way, and where its result is lost
   */
  async find({ tenantId, keyHash, bodyHash }: IdempotencyClaim): Promise<FirstResult | undefined> {
    const { rows: [row] } = await this.#query<Row>(
      `SELECT k.request_id, k.body_hash, k.status, k.result, k.expires_at, EXISTS (SELECT FROM holds h WHERE h.request_id = k.request_id) AS under_way
       FROM idempotency_keys k WHERE k.tenant_id = $1 AND k.key_hash = decode($2, 'hex') AND k.expires_at > now()`, [tenantId, keyHash]);
    if (row === undefined) return undefined;
    if (row.body_hash.toString('hex') !== bodyHash) throw conflict('The idempotency key was used for another request. Use a new one.');
    if (row.status === null && row.under_way) throw running();
    if (row.status === null || row.result === null) throw conflict('The first request with this idempotency key has ended, but its result was not kept. Use a new key to make the call again.');
    const key = await this.#key(tenantId, dayOf(row.expires_at.getTime() - KEPT_MS));
    return { requestId: row.request_id, status: row.status, body: open(key, associated({ tenantId, keyHash, bodyHash }, row.request_id, row.status), row.result) };
  }

  /** Entries of the commit that admits the call. */
  claimEntries(claim: IdempotencyClaim, requestId: string, startedAtMs: number): { idempotency_claim: string; idempotency_finish: string } {
    const { tenantId, keyHash, bodyHash } = claim;
    return {
      // By the day of its start a result is sealed, and opened again.
      idempotency_claim: JSON.stringify({ t: tenantId, h: keyHash, rq: requestId, b: bodyHash, x: new Date(startedAtMs + KEPT_MS).toISOString() }),
      idempotency_finish: JSON.stringify({ k: 'admit', t: tenantId, h: keyHash, rq: requestId }),
    };
  }

  /**
   * Puts a result where a repeat will find it once {@link finishEntry} is committed. By a statement of its own: the commit is everybody's, and a long result
   * would hold it up.
   *
   * @returns false where it is too long to be kept
   */
  async keep(claim: IdempotencyClaim, requestId: string, startedAtMs: number, { status, body }: { status: number; body: Buffer }): Promise<boolean> {
    if (body.length > RESULT_BYTES_MAX) return false;
    const { tenantId, keyHash } = claim;
    const sealed = seal(await this.#key(tenantId, dayOf(startedAtMs)), associated(claim, requestId, status), body);
    await this.#query("UPDATE idempotency_keys SET result = $4 WHERE tenant_id = $1 AND key_hash = decode($2, 'hex') AND request_id = $3", [tenantId, keyHash, requestId, sealed]);
    return true;
  }

  /**
   * Entry of the commit that settles the call.
   *
   * @param status what a repeat is answered with; undefined where the call was free and may be made again
   */
  finishEntry({ tenantId, keyHash }: IdempotencyClaim, requestId: string, status: number | undefined): string {
    return JSON.stringify({ k: status === undefined ? 'drop' : 'finish', t: tenantId, h: keyHash, rq: requestId, s: status });
  }

  /** Forgets what has expired, and the keys of days of which nothing is left. */
  async trim(): Promise<void> {
    await this.pool.query('DELETE FROM idempotency_keys WHERE (tenant_id, key_hash) IN (SELECT tenant_id, key_hash FROM idempotency_keys WHERE expires_at <= now() LIMIT 10000)');
    // The last result of a day expires at the end of the next.
    await this.pool.query("DELETE FROM replay_keys WHERE day < (now() AT TIME ZONE 'UTC')::date - 1");
    const oldest = dayOf(this.clock.nowMs() - KEPT_MS);
    for (const name of this.#keys.keys()) if (name < oldest) this.#keys.delete(name);
  }

  async #key(tenantId: string, day: string): Promise<Buffer> {
    const name = `${day} ${tenantId}`;
    const known = this.#keys.get(name);
    if (known !== undefined) return known;
    await this.#query('INSERT INTO replay_keys (tenant_id, day, key) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, day) DO NOTHING', [tenantId, day, randomBytes(32)]);
    const { rows } = await this.#query<{ key: Buffer }>('SELECT key FROM replay_keys WHERE tenant_id = $1 AND day = $2', [tenantId, day]);
    if (this.#keys.size >= KEYS_CACHED_MAX) this.#keys.delete(this.#keys.keys().next().value!);
    this.#keys.set(name, rows[0]!.key);
    return rows[0]!.key;
  }

  async #query<T extends object>(sql: string, values: unknown[]): Promise<{ rows: T[] }> {
    try {
      return await this.pool.query<T & Record<string, unknown>>(sql, values);
    } catch (cause) {
      throw new GatewayError('audit_unavailable', { publicMessage: 'Idempotency keys cannot be looked up at the moment. Try again shortly.', retryAfterSeconds: 2, cause });
    }
  }
}

/** Somebody else claimed it first. */
export function running(): GatewayError {
  return new GatewayError('idempotency_conflict', { publicMessage: 'The first request with this idempotency key is still under way. Try again after the time in retry-after.', retryAfterSeconds: RUNNING_RETRY_SECONDS });
}

function conflict(publicMessage: string): GatewayError {
  return new GatewayError('idempotency_conflict', { publicMessage });
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function dayOf(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10);
}

/** A result opens for its own call alone: under its key, for its body, with its status. */
function associated({ tenantId, keyHash, bodyHash }: IdempotencyClaim, requestId: string, status: number): Buffer {
  return Buffer.from(`idempotency\0${tenantId}\0${keyHash}\0${bodyHash}\0${requestId}\0${status}`);
}

function seal(key: Buffer, aad: Buffer, body: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(aad);
  return Buffer.concat([nonce, cipher.update(body), cipher.final(), cipher.getAuthTag()]);
}

function open(key: Buffer, aad: Buffer, sealed: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(aad).setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES, sealed.length - TAG_BYTES)), decipher.final()]);
}
