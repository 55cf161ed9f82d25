import { randomBytes, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { MoreThan, type DataSource, type EntityManager } from 'typeorm';
import type { Clock } from '../shared/clock.ts';
import { GatewayError, invalidToken } from '../shared/gateway-error.ts';
import type { Page } from '../shared/paging.ts';
import { uuid } from '../shared/uuid.ts';
import { assertUuid, isUuid } from '../shared/uuid-text.ts';
import type { TenantDirectory } from '../tenants/tenant-directory.ts';
import { Tenant } from '../tenants/tenant.ts';
import { moveAccessRevision } from './access-revision.ts';
import type { AccessRules } from './access-rules.ts';
import { ApiKeyEntity } from './api-key-entity.ts';
import type { KeyPepper } from './key-pepper.ts';
import { costSettingsOf, type Principal, type PrincipalAttributes } from './principal.ts';

const PREFIX = 'nvx_';
const RANDOM_BYTES = 32;
/** 32 bytes and their checksum in base64url. */
const KEY = /^nvx_([\w-]{43})([\w-]{6})$/;
/** Of one tenant. */
const KEYS_MAX = 10_000;
/** A key that is known is looked up again after so long. */
const REMEMBERED_MS = 3_600_000;
const ISSUER = 'novix';

export interface NewApiKey {
  tenantId: string;
  subject: string;
  roles: string[];
  attributes: PrincipalAttributes;
  models: string[] | null;
  expiresAt: Date;
  createdBy: string;
}

type Alongside = (manager: EntityManager, before: ApiKeyEntity | null, after: ApiKeyEntity | null) => Promise<void>;

/** Makes, checks and ends API keys. A key is shown once; what is kept of it cannot be turned back into it. */
export class ApiKeys {
  constructor(
    private readonly dataSource: DataSource,
    private readonly pool: Pick<Pool, 'query'>,
    private readonly rules: Pick<AccessRules, 'changed'>,
    private readonly tenants: Pick<TenantDirectory, 'find'>,
    private readonly peppers: readonly [KeyPepper, ...KeyPepper[]],
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  /** Whether a bearer token is meant to be one of these. */
  static isKey(token: string): boolean {
    return token.startsWith(PREFIX);
  }

  /**
   * @throws {GatewayError} `invalid_token` whatever is wrong with it, `identity_unavailable` when the database cannot be asked
   */
  async verify(key: string): Promise<Principal> {
    if (!hasGoodChecksum(key)) throw invalidToken({ reason: 'no API key of ours' });
    const entity = await this.#find(key);
    const nowMs = this.clock.nowMs();
    const endsAtMs = Math.min(entity?.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY, entity?.revokedAt?.getTime() ?? Number.POSITIVE_INFINITY);
    if (entity === undefined || endsAtMs <= nowMs) throw invalidToken({ reason: entity === undefined ? 'unknown API key' : 'expired or revoked API key' });
    const tenant = await this.tenants.find(entity.tenantId);
    if (!tenant) throw invalidToken({ reason: 'unknown tenant', tenant: entity.tenantId });
    this.#noteUse(entity);
    return {
      tenantId: tenant.id, tier: tenant.tier, dataClass: tenant.dataClass, cost: costSettingsOf(tenant), payloadStorage: tenant.payloadStorage, subject: entity.subject, roles: entity.roles.filter((role) => role !== 'platform-admin' || tenant.id === 'platform'),
      attributes: entity.attributes, clientId: undefined, issuer: ISSUER, tokenId: entity.id, expiresAtMs: Math.min(endsAtMs, nowMs + REMEMBERED_MS), mtls: false, mustBeBound: tenant.boundTokens,
      keyId: entity.id, keyEndsAtMs: endsAtMs, models: entity.models ?? undefined,
    };
  }

  /**
   * @param alongside runs in the same transaction, for the audit record
   * @returns the key itself, which nothing can show again
   */
  async create(fields: NewApiKey, alongside: Alongside): Promise<{ entity: ApiKeyEntity; key: string }> {
    return this.dataSource.transaction(async (manager) => {
      if (!(await manager.existsBy(Tenant, { id: fields.tenantId }))) throw new GatewayError('not_found', { publicMessage: 'There is no such tenant.', param: 'tenant' });
      return this.#insert(manager, fields, alongside);
    });
  }

  async find(id: string, tenantId: string | undefined): Promise<ApiKeyEntity> {
    const entity = isUuid(id) ? await this.dataSource.getRepository(ApiKeyEntity).findOneBy({ id, ...(tenantId === undefined ? {} : { tenantId }) }) : null;
    if (!entity) throw notFound();
    return entity;
  }

  list(page: Page, tenantId: string | undefined): Promise<ApiKeyEntity[]> {
    return this.dataSource.getRepository(ApiKeyEntity).find({
      where: { ...(tenantId === undefined ? {} : { tenantId }), ...(page.after === undefined ? {} : { id: MoreThan(assertUuid(page.after)) }) }, order: { id: 'ASC' }, take: page.limit + 1,
    });
  }

  /** Makes another key with the same powers; the old one counts for a while longer, so that whoever uses it can change over. */
  async rotate(id: string, tenantId: string | undefined, overlapMs: number, expiresAt: Date, createdBy: string, alongside: Alongside): Promise<{ entity: ApiKeyEntity; key: string }> {
    const rotated = await this.dataSource.transaction(async (manager) => {
      const before = await this.#lockActive(manager, id, tenantId);
      const revokedAt = new Date(this.clock.nowMs() + overlapMs);
      await manager.update(ApiKeyEntity, { id }, { revokedAt: before.revokedAt !== null && before.revokedAt < revokedAt ? before.revokedAt : revokedAt });
      if (overlapMs === 0) await cutRunning(manager, before);
      await alongside(manager, before, await manager.findOneByOrFail(ApiKeyEntity, { id }));
      const { tenantId: of, subject, roles, attributes, models } = before;
      const made = await this.#insert(manager, { tenantId: of, subject, roles, attributes, models, expiresAt, createdBy }, alongside);
      await moveAccessRevision(manager);
      return made;
    });
    await this.rules.changed();
    return rotated;
  }

  async revoke(id: string, tenantId: string | undefined, alongside: Alongside): Promise<void> {
    await this.dataSource.transaction(async (manager) => {
      const before = await this.#lockActive(manager, id, tenantId);
      await manager.update(ApiKeyEntity, { id }, { revokedAt: new Date(this.clock.nowMs()) });
      await alongside(manager, before, await manager.findOneByOrFail(ApiKeyEntity, { id }));
      await cutRunning(manager, before);
      await moveAccessRevision(manager);
    });
    await this.rules.changed();
  }

  async #insert(manager: EntityManager, fields: NewApiKey, alongside: Alongside): Promise<{ entity: ApiKeyEntity; key: string }> {
    if ((await manager.countBy(ApiKeyEntity, { tenantId: fields.tenantId })) >= KEYS_MAX) throw new GatewayError('invalid_request', { publicMessage: `The tenant has ${KEYS_MAX} API keys already.` });
    const key = newKey();
    const [pepper] = this.peppers;
    const id = uuid();
    const { tenantId, subject, roles, attributes, models, expiresAt, createdBy } = fields;
    await manager.insert(ApiKeyEntity, { id, tenantId, subject, roles, attributes, models, expiresAt, createdBy, hash: pepper.hash(key), pepper: pepper.id, revokedAt: null, lastUsedOn: null });
    const entity = await manager.findOneByOrFail(ApiKeyEntity, { id });
    await alongside(manager, null, entity);
    return { entity, key };
  }

  async #lockActive(manager: EntityManager, id: string, tenantId: string | undefined): Promise<ApiKeyEntity> {
    const entity = isUuid(id) ? await manager.findOne(ApiKeyEntity, { where: { id, ...(tenantId === undefined ? {} : { tenantId }) }, lock: { mode: 'pessimistic_write' } }) : null;
    if (!entity || (entity.revokedAt !== null && entity.revokedAt.getTime() <= this.clock.nowMs())) throw notFound();
    return entity;
  }

  async #find(key: string): Promise<ApiKeyEntity | undefined> {
    const hashes = this.peppers.map((pepper) => ({ pepper: pepper.id, hash: pepper.hash(key) }));
    try {
      const found = await this.dataSource.getRepository(ApiKeyEntity).createQueryBuilder('k').where('k.hash = ANY(:hashes)', { hashes: hashes.map(({ hash }) => hash) }).getMany();
      return found.find((entity) => hashes.some(({ pepper, hash }) => pepper === entity.pepper && timingSafeEqual(hash, entity.hash)));
    } catch (cause) {
      throw new GatewayError('identity_unavailable', { publicMessage: 'The API key cannot be looked up at the moment. Try again shortly.', retryAfterSeconds: 2, cause });
    }
  }

  /** Once a day, and no call waits for it. */
  #noteUse({ id, lastUsedOn }: ApiKeyEntity): void {
    if (lastUsedOn === new Date(this.clock.nowMs()).toISOString().slice(0, 10)) return;
    this.pool.query('UPDATE api_keys SET last_used_on = current_date WHERE id = $1 AND last_used_on IS DISTINCT FROM current_date', [id])
      .catch((error: unknown) => this.logger.debug({ err: error }, 'api keys: use not noted'));
  }
}

/** Running calls are cut by what they were made with. */
async function cutRunning(manager: EntityManager, { id, tenantId, expiresAt }: ApiKeyEntity): Promise<void> {
  await manager.query("INSERT INTO revocations (id, type, value, tenant_id, expires_at) VALUES ($1, 'key', $2, $3, $4) ON CONFLICT DO NOTHING", [uuid(), id, tenantId, expiresAt]);
}

/** The checksum lets a mistyped or truncated key, and whatever else is no key, be told without asking anyone. */
function newKey(): string {
  const random = randomBytes(RANDOM_BYTES);
  return `${PREFIX}${random.toString('base64url')}${checksumOf(random)}`;
}

function hasGoodChecksum(key: string): boolean {
  const [, text = '', checksum] = KEY.exec(key) ?? [];
  const random = Buffer.from(text, 'base64url');
  return random.toString('base64url') === text && text !== '' && checksumOf(random) === checksum;
}

function checksumOf(random: Buffer): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(crc32(random));
  return bytes.toString('base64url');
}

export function apiKeyView({ id, tenantId, subject, roles, attributes, models, createdBy, createdAt, expiresAt, revokedAt, lastUsedOn }: ApiKeyEntity): Record<string, unknown> {
  return {
    id, tenant: tenantId, sub: subject, roles, attrs: attributes, models, created_by: createdBy, created_at: createdAt.toISOString(), expires_at: expiresAt?.toISOString() ?? null,
    revoked_at: revokedAt?.toISOString() ?? null, last_used_on: lastUsedOn,
  };
}

function notFound(): GatewayError {
  return new GatewayError('not_found', { publicMessage: 'There is no such API key.' });
}
