import { beforeEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { pino } from 'pino';
import type { Pool } from 'pg';
import type { DataSource } from 'typeorm';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Tenant } from '../tenants/tenant.ts';
import type { ApiKeyEntity } from './api-key-entity.ts';
import { ApiKeys } from './api-keys.ts';
import { KeyPepper } from './key-pepper.ts';

// What is decided of a key without, and with, the one look-up; the table is a list here. How keys live is in test/http/admin/api-keys.spec.ts.

const secrets = new Map<string, Buffer>();
const pool = {
  query: async (sql: string, [name, value]: [string, Buffer]): Promise<{ rows: unknown[] }> => {
    if (sql.startsWith('INSERT INTO gateway_secrets')) secrets.set(name, secrets.get(name) ?? value);
    else if (sql.startsWith('UPDATE api_keys')) used.push(name);
    return { rows: [{ value: secrets.get(name) }] };
  },
} as unknown as Pick<Pool, 'query'>;

let table: ApiKeyEntity[];
let lookUps: number;
let used: string[];
let failing: boolean;
let peppers: readonly [KeyPepper, ...KeyPepper[]];
beforeEach(async () => {
  table = [];
  lookUps = 0;
  used = [];
  failing = false;
  peppers = await KeyPepper.open(undefined, pool);
});

const dataSource = {
  getRepository: () => ({
    createQueryBuilder: () => ({
      where: (_sql: string, { hashes }: { hashes: Buffer[] }) => ({
        getMany: async () => {
          lookUps += 1;
          if (failing) throw new Error('the connection broke');
          return table.filter(({ hash }) => hashes.some((one) => one.equals(hash)));
        },
      }),
    }),
  }),
} as unknown as DataSource;
const tenants = { find: async (id: string) => (id === 'nobody' ? undefined : ({ id, tier: 'enterprise', dataClass: 'confidential', boundTokens: false } as unknown as Tenant)) } as ConstructorParameters<typeof ApiKeys>[3];
const keysWith = (some: readonly [KeyPepper, ...KeyPepper[]], nowMs = 1_000): ApiKeys => new ApiKeys(dataSource, pool, { changed: async () => {} }, tenants, some, { nowMs: () => nowMs, monotonicMs: () => 0 }, pino({ level: 'silent' }));

function keyOf(random: Buffer): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(random));
  return `nvx_${random.toString('base64url')}${sum.toString('base64url')}`;
}

/** Puts a key into the table. */
function issue(change: Partial<ApiKeyEntity> = {}, pepper: KeyPepper = peppers[0]): string {
  const key = keyOf(randomBytes(32));
  table.push({
    id: `id-${table.length}`, tenantId: 'acme', subject: 'svc', roles: ['developer'], attributes: { team: 'bi' }, models: null, hash: pepper.hash(key), pepper: pepper.id, createdBy: 'admin', createdAt: new Date(0), expiresAt: null, revokedAt: null, lastUsedOn: null, ...change,
  });
  return key;
}

async function outcome(key: string, keys = keysWith(peppers)): Promise<string> {
  try {
    return (await keys.verify(key)).subject;
  } catch (error) {
    if (error instanceof GatewayError) return error.code;
    throw error;
  }
}

describe('ApiKeys.verify', () => {
  it('makes a principal of a key: its tenant’s tier and data class, its own roles, attributes and models', async () => {
    const key = issue({ models: ['grok-beta'] });
    expect(await keysWith(peppers).verify(key)).toMatchObject({
      tenantId: 'acme', tier: 'enterprise', dataClass: 'confidential', subject: 'svc', roles: ['developer'], attributes: { team: 'bi' }, clientId: undefined, issuer: 'novix', tokenId: 'id-0', keyId: 'id-0', models: ['grok-beta'], mtls: false,
    });
    expect(lookUps).toBe(1);
  });

  it('lets platform-admin count in the tenant of the platform alone', async () => {
    const [outside, inside] = [issue({ roles: ['developer', 'platform-admin'] }), issue({ tenantId: 'platform', roles: ['platform-admin'] })];
    expect([(await keysWith(peppers).verify(outside)).roles, (await keysWith(peppers).verify(inside)).roles]).toEqual([['developer'], ['platform-admin']]);
  });

  it('lets a key be remembered for an hour, and for no longer than it counts', async () => {
    const ends = async (change: Partial<ApiKeyEntity>): Promise<number> => (await keysWith(peppers).verify(issue(change))).expiresAtMs;
    expect([await ends({}), await ends({ expiresAt: new Date(5_000) }), await ends({ revokedAt: new Date(4_000) }), await ends({ expiresAt: new Date(3_000), revokedAt: new Date(4_000) }), await ends({ expiresAt: new Date(1e12) })]).toEqual([3_601_000, 5_000, 4_000, 3_000, 3_601_000]);
  });

  it.each<[string, Partial<ApiKeyEntity>]>([
    ['has expired', { expiresAt: new Date(999) }], ['expires now', { expiresAt: new Date(1_000) }], ['is revoked', { revokedAt: new Date(999) }], ['is revoked now', { revokedAt: new Date(1_000) }], ['is revoked, though it would live on', { revokedAt: new Date(1), expiresAt: new Date(1e12) }],
    ['belongs to a tenant that is gone', { tenantId: 'nobody' }], ['was hashed with another pepper than it says', { pepper: 'file' }],
  ])('refuses a key that %s', async (_, change) => {
    expect(await outcome(issue(change))).toBe('invalid_token');
  });

  it('says that it cannot ask, where it cannot: that is no bad key', async () => {
    const key = issue();
    failing = true;
    expect([await outcome(key), await outcome(keyOf(randomBytes(32))), await outcome(`${key}x`)]).toEqual(['identity_unavailable', 'identity_unavailable', 'invalid_token']);
  });

  it('notes that a key is in use once a day', async () => {
    const [fresh, today] = [issue(), issue({ lastUsedOn: '1970-01-01' })];
    for (const key of [fresh, today]) await keysWith(peppers).verify(key);
    expect(used).toEqual(['id-0']);
    expect(await outcome(keyOf(randomBytes(32)))).toBe('invalid_token');
    expect(used).toEqual(['id-0']);
  });

  it('asks nobody about 10,000 keys whose checksum is wrong', async () => {
    const keys = keysWith(peppers);
    const codes = new Set<string>();
    for (let n = 0; n < 10_000; n += 1) codes.add(await outcome(`nvx_${randomBytes(37).toString('base64url').slice(0, 49)}`, keys));
    expect([[...codes], lookUps]).toEqual([['invalid_token'], 0]);
  });

  it('asks nobody about a key with any one letter changed, left out or put in', async () => {
    const keys = keysWith(peppers);
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ .';
    await fc.assert(fc.asyncProperty(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.nat(52), fc.constantFrom(...Array.from(alphabet)), fc.constantFrom('changed', 'left out', 'put in'), async (random, at, letter, how) => {
      const key = keyOf(Buffer.from(random));
      const other = key.slice(0, at) + (how === 'left out' ? '' : letter) + key.slice(how === 'put in' ? at : at + 1);
      fc.pre(other !== key);
      expect(await outcome(other, keys)).toBe('invalid_token');
    }), { numRuns: 10_000 });
    expect(lookUps).toBe(0);
  });

  it('knows a key by all of its bits: another with a good checksum is unknown', async () => {
    issue();
    expect(await outcome(keyOf(randomBytes(32)))).toBe('invalid_token');
    expect(lookUps).toBe(1);
  });

  it('is asked about what begins as a key does, and about nothing else', () => {
    expect(['nvx_', 'nvx_x', keyOf(randomBytes(32))].map((token) => ApiKeys.isKey(token))).toEqual([true, true, true]);
    expect(['', 'NVX_x', 'eyJ.a.b', ' nvx_x', 'xnvx_'].map((token) => ApiKeys.isKey(token))).toEqual([false, false, false, false, false]);
  });
});

describe('KeyPepper', () => {
  it('is the same for every replica, and makes hashes that say nothing without it', async () => {
    const [again] = await KeyPepper.open(undefined, pool);
    expect(again.hash('nvx_x').equals(peppers[0].hash('nvx_x'))).toBe(true);
    secrets.clear();
    const [other] = await KeyPepper.open(undefined, pool);
    expect(other.hash('nvx_x').equals(peppers[0].hash('nvx_x'))).toBe(false);
    expect(other.hash('nvx_x')).toHaveLength(32);
  });

  it('comes from the key file where there is one, and older keys still count', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'novix-pepper-'));
    writeFileSync(join(folder, 'key'), 'a secret of the installation');
    writeFileSync(join(folder, 'other'), 'another secret');
    const [withFile, withOther] = [await KeyPepper.open(join(folder, 'key'), pool), await KeyPepper.open(join(folder, 'other'), pool)];
    rmSync(folder, { recursive: true });
    expect(withFile.map(({ id }) => id)).toEqual(['file', 'database']);
    const [older, newer] = [issue(), issue({}, withFile[0])];
    expect([await outcome(older, keysWith(withFile)), await outcome(newer, keysWith(withFile))]).toEqual(['svc', 'svc']);
    expect([await outcome(newer, keysWith(peppers)), await outcome(newer, keysWith(withOther)), await outcome(older, keysWith(withOther))]).toEqual(['invalid_token', 'invalid_token', 'svc']);
  });
});
