import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { crc32 } from 'node:zlib';
import OpenAI from 'openai';
import { Client } from 'pg';
import { pino } from 'pino';
import { startGateway } from '../../../src/gateway.ts';
import { allow, deny, expectCut, listAll, LONG_STREAM, makeKey, publish, removeAll, running, wallClock, wholeDatabase, type KeyView, type NewKey } from '../../support/access.ts';
import { adminOf, completeAt, madeBy, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Keys of programs: what they open, what they do not, and for how long.

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const KEY = /^nvx_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})$/;
const DAY_MS = 86_400_000;

const clock = wallClock();
let harness: Harness;
let root: AdminCall;
let admin: AdminCall;
beforeAll(async () => {
  harness = await startHarness({ clock, env: { XAI_RETRY_MAX: '0', AUTH_FAILURES_PER_MINUTE: '1000000' } });
  root = adminOf(harness, await harness.adminToken());
  admin = adminOf(harness, await harness.token({ subject: 'admin@acme.example', roles: ['tenant-admin'] }));
});
afterEach(async () => {
  await removeAll(root, '/policies');
  harness.emulator.reset();
});
afterAll(async () => {
  await harness.close();
});

const statusOf = async (answer: Promise<Response>): Promise<number> => {
  const response = await answer;
  await response.text();
  return response.status;
};
const use = (key: string, body: Record<string, unknown> = {}, headers: Record<string, string> = {}): Promise<Response> => completeAt(harness.url, key, body, headers);
const works = async (key: string): Promise<boolean> => {
  const status = await statusOf(use(key));
  if (status !== 200 && status !== 401) throw new Error(`${status} is neither`);
  return status === 200;
};
const checksumOf = (random: Buffer): string => {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(random));
  return sum.toString('base64url');
};
/** What a key of ours looks like, though nobody has made it. */
const unknownKey = (): string => {
  const random = randomBytes(32);
  return `nvx_${random.toString('base64url')}${checksumOf(random)}`;
};
const shown = (made: NewKey): KeyView => {
  const { key: _, ...view } = made;
  return view;
};

/** In which spellings a text holds a key, or what could stand in for it. */
function spellings(text: string, key: string): string[] {
  const random = Buffer.from(KEY.exec(key)![1]!, 'base64url');
  return Object.entries({
    plain: key, 'without its prefix': key.slice(4), 'its first half': key.slice(4, 26), 'its second half': key.slice(26), 'its bytes as hex': random.toString('hex'), 'its bytes as base64': random.toString('base64').slice(0, 40),
    'hex of its text': Buffer.from(key).toString('hex'), 'an unkeyed hash': createHash('sha256').update(key).digest('hex'), 'an unkeyed hash of its bytes': createHash('sha256').update(random).digest('hex'),
  }).filter(([, spelled]) => text.includes(spelled)).map(([name]) => name);
}

describe('POST /admin/v1/api-keys', () => {
  it('makes a key, shows it this once, and records who made it and what for', async () => {
    const before = Date.now();
    const response = await admin('POST', '/api-keys', { tenant: 'acme', sub: 'svc-reports', roles: ['developer'], attrs: { team: 'bi', clearance: 3, regions: ['eu', 'us'] }, models: ['grok-beta'] });
    const made = await madeBy<NewKey>(response, 201);
    expect(made).toEqual({
      id: expect.stringMatching(UUID), key: expect.stringMatching(KEY), tenant: 'acme', sub: 'svc-reports', roles: ['developer'], attrs: { team: 'bi', clearance: 3, regions: ['eu', 'us'] }, models: ['grok-beta'], created_by: 'admin@acme.example',
      created_at: expect.stringMatching(RFC3339), expires_at: expect.stringMatching(RFC3339), revoked_at: null, last_used_on: null,
    });
    expect(Math.abs(Date.parse(made.expires_at!) - before - 90 * DAY_MS)).toBeLessThan(60_000);
    expect(await madeBy(await admin('GET', `/api-keys/${made.id}`))).toEqual(shown(made));
    expect((await listAll<KeyView>(admin, '/api-keys')).find(({ id }) => id === made.id)).toEqual(shown(made));
    const event = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(event).toMatchObject({
      metadata: { tenant_uid: 'acme' }, actor: { user: { uid: 'admin@acme.example' } }, api: { operation: 'POST /admin/v1/api-keys', response: { code: 201 } },
      unmapped: { novix: { object: { type: 'api_key', id: made.id }, before: null, after: shown(made) } },
    });
    expect(spellings(JSON.stringify(event), made.key)).toEqual([]);
  });

  it('gives what is not said its default: the maker’s tenant, a developer, all models', async () => {
    const made = await madeBy<NewKey>(await admin('POST', '/api-keys', { sub: 'svc' }), 201);
    expect(made).toMatchObject({ tenant: 'acme', roles: ['developer'], attrs: {}, models: null });
    expect(await works(made.key)).toBe(true);
  });

  it('makes keys of 256 random bits, each with a checksum', async () => {
    const keys = await Promise.all(Array.from({ length: 40 }, () => makeKey(admin)));
    const randoms = keys.map(({ key }) => Buffer.from(KEY.exec(key)![1]!, 'base64url'));
    expect(new Set(randoms.map((random) => random.toString('hex'))).size).toBe(40);
    for (const [at, random] of randoms.entries()) expect([random.length, `nvx_${random.toString('base64url')}${checksumOf(random)}`]).toEqual([32, keys[at]!.key]);
    for (let byte = 0; byte < 32; byte += 1) expect(new Set(randoms.map((random) => random[byte])).size).toBeGreaterThan(20); // no place stands still
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['an id', { id: randomUUID() }, 'id'], ['a key', { key: 'nvx_mine' }, 'key'], ['a hash', { hash: 'x' }, 'hash'], ['a maker', { created_by: 'root' }, 'created_by'], ['a time of making', { created_at: '2026-01-01T00:00:00Z' }, 'created_at'],
    ['a revocation', { revoked_at: null }, 'revoked_at'], ['a last use', { last_used_on: '2026-01-01' }, 'last_used_on'], ['a pepper', { pepper: 'file' }, 'pepper'], ['an unknown field', { colour: 'red' }, 'colour'],
    ['no subject', { sub: undefined }, 'sub'], ['an empty subject', { sub: '' }, 'sub'], ['a subject with a line break', { sub: 'a\nb' }, 'sub'], ['a subject of 513 letters', { sub: 'x'.repeat(513) }, 'sub'], ['no roles', { roles: [] }, 'roles'], ['an unknown role', { roles: ['root'] }, 'roles'],
    ['a role that is no list', { roles: 'developer' }, 'roles'], ['an attribute that is an object', { attrs: { team: {} } }, 'attrs'], ['an attribute that is a switch', { attrs: { admin: true } }, 'attrs'], ['no models', { models: [] }, 'models'],
    ['a model that nobody knows', { models: ['grok-beta', 'grok-99'] }, 'models'], ['all models by a star', { models: ['*'] }, 'models'], ['an expiry that is none', { expires_at: 'never' }, 'expires_at'], ['an expiry that is a number', { expires_at: 1 }, 'expires_at'], ['no expiry', { expires_at: null }, 'expires_at'],
    ['an expiry that is over', { expires_at: '2020-01-01T00:00:00Z' }, 'expires_at'], ['an expiry in years to come', { expires_at: new Date(Date.now() + 367 * DAY_MS).toISOString() }, 'expires_at'],
  ])('refuses %s with 400', async (_, change, field) => {
    const count = (await listAll(admin, '/api-keys')).length;
    const error = await expectError(await admin('POST', '/api-keys', { tenant: 'acme', sub: 'svc', ...change }), 400, 'invalid_request');
    expect(`${error.param} ${error.message}`).toContain(field);
    expect(await listAll(admin, '/api-keys')).toHaveLength(count);
  });

  it('of a tenant that is not there is 404', async () => {
    for (const call of [root, admin]) expect((await expectError(await call('POST', '/api-keys', { tenant: 'nobody', sub: 'x' }), 404, 'not_found')).param).toBe('tenant');
  });
});

describe('a key', () => {
  it('is nowhere in the database, nor in a log at its most talkative, through its whole life', async () => {
    const lines: string[] = [];
    const gateway = await startGateway({ ...harness.settings, spoolDir: `${harness.settings.spoolDir}-log` }, pino({ level: 'trace' }, { write: (line: string) => lines.push(line) }));
    const call = adminOf(harness, await harness.token({ subject: 'admin@acme.example', roles: ['tenant-admin'] }), gateway.url);
    const made = await makeKey(call, { sub: 'svc-canary' });
    expect(await statusOf(completeAt(gateway.url, made.key))).toBe(200);
    const mistyped = `${made.key.slice(0, -1)}${made.key.endsWith('A') ? 'B' : 'A'}`;
    expect(await statusOf(completeAt(gateway.url, mistyped))).toBe(401);
    const next = await madeBy<NewKey>(await call('POST', `/api-keys/${made.id}:rotate`, {}), 201);
    expect(await statusOf(completeAt(gateway.url, next.key))).toBe(200);
    expect((await call('DELETE', `/api-keys/${next.id}`)).status).toBe(204);
    expect(await statusOf(completeAt(gateway.url, next.key))).toBe(401);
    await gateway.close();
    const [database, log] = [await wholeDatabase(harness.db), lines.join('')];
    expect([database.includes('svc-canary'), log.includes('"msg":"call"')]).toEqual([true, true]); // the search sees what is there
    for (const { key } of [made, next]) expect([spellings(database, key), spellings(log, key)]).toEqual([[], []]);
    expect(log).not.toContain(mistyped);
  });

  it('works as the key of the unmodified OpenAI SDK', async () => {
    const { key } = await makeKey(admin);
    const openai = new OpenAI({ baseURL: `${harness.url}/v1`, apiKey: key, maxRetries: 0 });
    const completion = await openai.chat.completions.create({ model: 'grok-beta', messages: [{ role: 'user', content: 'Say hello.' }] });
    expect(completion.choices[0]!.finish_reason).toBe('stop');
    let text = '';
    for await (const chunk of await openai.chat.completions.create({ model: 'grok-beta', messages: [{ role: 'user', content: 'Say hello.' }], stream: true })) text += chunk.choices[0]?.delta.content ?? '';
    expect(text.length).toBeGreaterThan(5);
    expect((await openai.models.list()).data.length).toBeGreaterThan(2);
    expect(harness.emulator.calls.filter(({ headers }) => String(headers['authorization']).includes('nvx_'))).toEqual([]); // the provider never sees it
  });

  it('speaks for its subject: in the record of its calls, and under its own id', async () => {
    const { key, id } = await makeKey(admin, { sub: 'svc-nightly' });
    const response = await use(key);
    await response.text();
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'intent')).toMatchObject({ metadata: { tenant_uid: 'acme' }, actor: { user: { uid: 'svc-nightly' }, session: { uid: id, issuer: 'novix' } } });
  });

  it('has its attributes: for rules, and for the budget of its team', async () => {
    const [bi, hr] = [await makeKey(admin, { attrs: { team: 'bi', clearance: 3 } }), await makeKey(admin, { attrs: { team: 'hr', clearance: 1 } })];
    await publish(admin, [deny('cleared-only', { when: [{ attr: 'principal.attrs.clearance', op: 'lt', value: 3 }] })]);
    expect([await statusOf(use(bi.key)), await statusOf(use(hr.key))]).toEqual([200, 403]);
    await removeAll(root, '/policies');
    await madeBy(await root('POST', '/budgets', { tenant: 'acme', scope: { type: 'team', id: 'bi' }, window: 'total', limit_usd: '0.00' }), 201);
    await expectError(await use(bi.key), 402, 'budget_exceeded');
    expect(await works(hr.key)).toBe(true);
  });

  it('may have a budget of its own', async () => {
    const [poor, rich] = [await makeKey(admin), await makeKey(admin)];
    const { id } = await madeBy<{ id: string }>(await admin('POST', '/budgets', { tenant: 'acme', scope: { type: 'key', id: poor.id }, window: 'total', limit_usd: '1.00' }), 201);
    expect([await works(poor.key), await works(rich.key)]).toEqual([true, true]);
    const spent = async (): Promise<string> => (await madeBy<{ spent_usd: string }>(await admin('GET', `/budgets/${id}`))).spent_usd;
    await eventually(async () => Number(await spent()) > 0);
    const once = await spent();
    expect(await works(rich.key)).toBe(true);
    expect(await spent()).toBe(once); // another key’s calls are not its
    await madeBy(await admin('PATCH', `/budgets/${id}`, { limit_usd: '0.00' }));
    await expectError(await use(poor.key), 402, 'budget_exceeded');
    expect(await works(rich.key)).toBe(true);
  });

  it('has no client id: a rule that asks for one finds none', async () => {
    const { key } = await makeKey(admin);
    await publish(admin, [deny('apps-only', { when: [{ attr: 'principal.client_id', op: 'exists', value: false }] })]);
    expect([await statusOf(use(key)), await statusOf(harness.complete())]).toEqual([403, 200]);
  });

  it('shows on which day it was last used, and no more than that', async () => {
    const { key, id } = await makeKey(admin);
    const last = async (): Promise<string | null> => (await madeBy<KeyView>(await admin('GET', `/api-keys/${id}`))).last_used_on;
    expect(await last()).toBeNull();
    expect(await works(`${key.slice(0, -6)}AAAAAA`)).toBe(false);
    expect(await last()).toBeNull();
    expect(await works(key)).toBe(true);
    expect(await eventually(async () => (await last()) ?? undefined)).toBe(new Date().toISOString().slice(0, 10));
  });

  it('counts until it expires, and not from that millisecond on', async () => {
    const expiresMs = Date.now() + DAY_MS;
    const { key, expires_at: expires } = await makeKey(admin, { expires_at: new Date(expiresMs).toISOString() });
    expect(Date.parse(expires!)).toBe(expiresMs);
    expect(await works(key)).toBe(true); // remembered from here on
    expect(await clock.at(expiresMs - 60_000, () => works(key))).toBe(true);
    expect(await clock.at(expiresMs, () => works(key))).toBe(false);
    expect(await clock.at(expiresMs + DAY_MS, () => works(key))).toBe(false);
    await expectError(await clock.at(expiresMs, () => harness.request('GET', '/v1/models', { token: key })), 401, 'invalid_token');
  });
});

describe('the models of a key', () => {
  it.each<[string, string[], Record<string, number>]>([
    ['an alias', ['grok-beta'], { 'grok-beta': 200, 'grok-4.3': 403, 'grok-pro': 403, 'grok-4.7': 403 }], ['an upstream id', ['grok-4.3'], { 'grok-beta': 200, 'grok-4.3': 200, 'grok-pro': 403 }],
    ['two', ['grok-beta', 'grok-pro'], { 'grok-beta': 200, 'grok-pro': 200, 'grok-enterprise': 403 }],
  ])('named by %s limit its calls', async (_, models, expected) => {
    const { key } = await makeKey(admin, { models });
    const seen: Record<string, number> = {};
    for (const model of Object.keys(expected)) seen[model] = await statusOf(use(key, { model }));
    expect(seen).toEqual(expected);
    const { data } = await madeBy<{ data: { id: string }[] }>(await harness.request('GET', '/v1/models', { token: key }));
    const listed = data.map(({ id }) => id);
    expect(Object.fromEntries(Object.keys(expected).map((model) => [model, listed.includes(model) ? 200 : 403]))).toEqual(expected);
  });

  it('named by a further name of the model limit its calls to that name', async () => {
    const { key } = await makeKey(admin, { models: ['grok-4.3-latest'] });
    expect([await statusOf(use(key, { model: 'grok-4.3-latest' })), await statusOf(use(key, { model: 'grok-beta' }))]).toEqual([200, 403]);
    const { key: byId } = await makeKey(admin, { models: ['grok-4.3'] });
    expect(await statusOf(use(byId, { model: 'grok-4.3-latest' }))).toBe(200);
  });

  it('say so in the refusal, whatever a rule allows, and on every endpoint', async () => {
    const { key } = await makeKey(admin, { models: ['grok-pro'] });
    await publish(admin, [allow('everything')]);
    const response = await use(key);
    const error = await expectError(response, 403, 'policy_denied');
    expect(error.message).toBe('The policy does not allow this call. The API key is limited to grok-pro.');
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).unmapped.novix.decision).toMatchObject({ id: error.decision_id, policy: 'api key', rule: 'models' });
    const others = await Promise.all([
      harness.request('POST', '/v1/responses', { token: key, body: { model: 'grok-beta', input: 'Hello.' } }), harness.request('POST', '/v1/completions', { token: key, body: { model: 'grok-beta', prompt: 'Hello.' } }),
      harness.request('POST', '/v1/chat/completions', { token: key, body: { messages: HELLO } }), harness.request('POST', '/v1/tokenize-text', { token: key, body: { model: 'grok-beta', text: 'Hello.' } }),
    ]);
    expect(others.map(({ status }) => status)).toEqual([403, 403, 403, 403]);
    await expectError(await harness.request('GET', '/v1/models/grok-beta', { token: key }), 404, 'model_not_found');
    expect(harness.emulator.calls).toEqual([]);
  });
});

describe('a key that is none', () => {
  it('is refused with the one text of all failures, whatever is wrong with it', async () => {
    const { key } = await makeKey(admin);
    const at = (place: number): string => `${key.slice(0, place)}${key[place] === 'A' ? 'B' : 'A'}${key.slice(place + 1)}`;
    const revoked = await makeKey(admin);
    await admin('DELETE', `/api-keys/${revoked.id}`);
    const wrong = [
      'nvx_', 'nvx_x', `nvx_${'A'.repeat(49)}`, unknownKey(), at(4), at(20), at(46), at(47), at(52), key.slice(0, -1), key.slice(0, 47), `${key}A`, `${key}=`, key.toUpperCase(), key.replace('nvx_', 'NVX_'), key.replace('nvx_', 'nvx-'), key.slice(4),
      `nvx_${key}`, encodeURIComponent(`${key} `), revoked.key, 'no-key-at-all',
    ];
    const texts = new Set<string>();
    for (const one of wrong) {
      const response = await use(one);
      texts.add(`${response.status} ${response.headers.get('www-authenticate')} ${await response.text()}`);
    }
    texts.add(await harness.request('GET', '/v1/models', { token: null }).then(async (response) => `${response.status} ${response.headers.get('www-authenticate')} ${await response.text()}`));
    expect([...texts]).toEqual([expect.stringMatching(/^401 Bearer error="invalid_token" .*"code":"invalid_token"/)]);
    expect(await works(key)).toBe(true);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('costs no query where its checksum is wrong: 10,000 are answered while nobody can ask the table', async () => {
    const { key } = await makeKey(admin);
    const locker = new Client({ connectionString: harness.databaseUrl });
    await locker.connect();
    await locker.query('BEGIN');
    await locker.query('LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE');
    const statuses = new Map<number, number>();
    let asked = false;
    const good = statusOf(use(key)).then((status) => {
      asked = true;
      return status;
    });
    for (let batch = 0; batch < 100; batch += 1) {
      const answers = await Promise.all(Array.from({ length: 100 }, () => statusOf(harness.request('GET', '/v1/models', { token: `nvx_${randomBytes(32).toString('base64url')}AAAAAA` }))));
      for (const status of answers) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    expect(Object.fromEntries(statuses)).toEqual({ 401: 10_000 });
    const before = asked;
    await locker.query('ROLLBACK');
    await locker.end();
    await good;
    expect(before).toBe(false); // whoever has to ask waits
    expect(await works(key)).toBe(true);
  }, 60_000);
});

describe('POST /admin/v1/api-keys/{id}:rotate', () => {
  it('makes another key with the same powers; the old one counts for a day longer', async () => {
    const old = await makeKey(admin, { sub: 'svc', attrs: { team: 'ops' }, models: ['grok-beta'], roles: ['developer', 'billing'] });
    const response = await admin('POST', `/api-keys/${old.id}:rotate`, {});
    const next = await madeBy<NewKey>(response, 201);
    expect(next).toMatchObject({ tenant: 'acme', sub: 'svc', attrs: { team: 'ops' }, models: ['grok-beta'], roles: ['developer', 'billing'], revoked_at: null, created_by: 'admin@acme.example' });
    expect([next.id === old.id, next.key === old.key]).toEqual([false, false]);
    expect([await works(old.key), await works(next.key)]).toEqual([true, true]);
    const { revoked_at: ends } = await madeBy<KeyView>(await admin('GET', `/api-keys/${old.id}`));
    expect(Math.abs(Date.parse(ends!) - Date.now() - DAY_MS)).toBeLessThan(60_000);
    expect([await clock.at(Date.parse(ends!) - 60_000, () => works(old.key)), await clock.at(Date.parse(ends!), () => works(old.key)), await clock.at(Date.parse(ends!), () => works(next.key))]).toEqual([true, false, true]);
    const events = await eventsOf(harness, response.headers.get('x-request-id'));
    expect(events.map(({ unmapped: { novix } }) => `${novix.phase} ${novix.object!.id}`).toSorted()).toEqual([`change ${old.id}`, `change ${next.id}`].toSorted());
    const changed = events.find(({ unmapped: { novix } }) => novix.object!.id === old.id)!;
    expect(changed.unmapped.novix).toMatchObject({ before: { revoked_at: null }, after: { revoked_at: ends } });
    expect(events.flatMap((event) => [old.key, next.key].flatMap((key) => spellings(JSON.stringify(event), key)))).toEqual([]);
  });

  it('ends the old one at once where no overlap is wanted, though it has just been used', async () => {
    const old = await makeKey(admin);
    expect(await works(old.key)).toBe(true);
    const next = await madeBy<NewKey>(await admin('POST', `/api-keys/${old.id}:rotate`, { overlap_seconds: 0 }), 201);
    expect([await works(old.key), await works(next.key)]).toEqual([false, true]);
    await expectError(await admin('POST', `/api-keys/${old.id}:rotate`, {}), 404, 'not_found');
  });

  it('never lets the old one count for longer than it did before', async () => {
    const old = await makeKey(admin);
    await madeBy(await admin('POST', `/api-keys/${old.id}:rotate`, { overlap_seconds: 60 }), 201);
    const { revoked_at: ends } = await madeBy<KeyView>(await admin('GET', `/api-keys/${old.id}`));
    await madeBy(await admin('POST', `/api-keys/${old.id}:rotate`, { overlap_seconds: 3_600 }), 201);
    expect((await madeBy<KeyView>(await admin('GET', `/api-keys/${old.id}`))).revoked_at).toBe(ends);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['a negative overlap', { overlap_seconds: -1 }, 'overlap_seconds'], ['half a second', { overlap_seconds: 0.5 }, 'overlap_seconds'], ['an overlap of months', { overlap_seconds: 31 * 86_400 }, 'overlap_seconds'], ['other roles', { roles: ['auditor'] }, 'roles'],
    ['other models', { models: null }, 'models'], ['another subject', { sub: 'x' }, 'sub'], ['another tenant', { tenant: 'globex' }, 'tenant'], ['an expiry that is over', { expires_at: '2020-01-01T00:00:00Z' }, 'expires_at'],
  ])('refuses %s with 400', async (_, body, field) => {
    const { id, key } = await makeKey(admin);
    const error = await expectError(await admin('POST', `/api-keys/${id}:rotate`, body), 400, 'invalid_request');
    expect(`${error.param} ${error.message}`).toContain(field);
    expect(await works(key)).toBe(true);
  });
});

describe('DELETE /admin/v1/api-keys/{id}', () => {
  it('ends a key at once, though it has just been used; it stays in the list as what it was', async () => {
    const { id, key } = await makeKey(admin);
    expect(await works(key)).toBe(true);
    const response = await admin('DELETE', `/api-keys/${id}`);
    expect([response.status, await response.text()]).toEqual([204, '']);
    expect(await works(key)).toBe(false);
    expect(await madeBy<KeyView>(await admin('GET', `/api-keys/${id}`))).toMatchObject({ id, revoked_at: expect.stringMatching(RFC3339) });
    for (const [method, path] of [['DELETE', `/api-keys/${id}`], ['POST', `/api-keys/${id}:rotate`]] as const) await expectError(await admin(method, path, {}), 404, 'not_found');
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'change'))).toMatchObject({
      actor: { user: { uid: 'admin@acme.example' } }, api: { operation: 'DELETE /admin/v1/api-keys/:id' }, unmapped: { novix: { object: { type: 'api_key', id }, before: { revoked_at: null }, after: { revoked_at: expect.any(String) } } },
    });
  });

  it('cuts the streams that it runs within two seconds, and no other’s; they are settled and on record', async () => {
    const [one, two] = [await makeKey(admin), await makeKey(admin, { sub: 'svc-reports' })];
    const ours = await Promise.all([1, 2, 3].map(() => running(use(one.key, { stream: true, x_emulator: LONG_STREAM }))));
    const other = await running(use(two.key, { stream: true, x_emulator: LONG_STREAM }));
    const startedMs = performance.now();
    expect((await admin('DELETE', `/api-keys/${one.id}`)).status).toBe(204);
    for (const stream of ours) {
      const { text, atMs } = await stream.ended;
      expect(atMs - startedMs).toBeLessThan(2_000);
      expectCut(text, 'invalid_token');
      const { outcome, basis, chargedTicks } = await settled(harness, stream.requestId);
      expect([outcome, basis, chargedTicks > 0n]).toEqual(['failed', 'observed', true]);
    }
    expect(harness.emulator.calls.filter(({ state }) => state === 'running')).toHaveLength(1);
    expect((await admin('DELETE', `/api-keys/${two.id}`)).status).toBe(204);
    expectCut((await other.ended).text, 'invalid_token');
  });

  it('cuts a plain answer that is still to come, which is 401 then', async () => {
    const { id, key } = await makeKey(admin);
    const answer = use(key, { x_emulator: { output_tokens: 2_000, reasoning_tokens: 0, token_interval_ms: 20 } });
    await eventually(() => harness.emulator.calls.some(({ state, completionTokens }) => state === 'running' && completionTokens > 2));
    const startedMs = performance.now();
    await admin('DELETE', `/api-keys/${id}`);
    await expectError(await answer, 401, 'invalid_token');
    expect(performance.now() - startedMs).toBeLessThan(2_000);
  });
});

describe('never wider than its maker', () => {
  const make = (call: AdminCall, fields: Record<string, unknown>): Promise<number> => statusOf(call('POST', '/api-keys', { sub: 'svc', ...fields }));

  it.each<[string, string[], number]>([
    ['developer', ['developer'], 201], ['tenant-admin', ['tenant-admin'], 201], ['billing', ['billing'], 201], ['auditor', ['auditor'], 403], ['platform-admin', ['platform-admin'], 403], ['developer and auditor', ['developer', 'auditor'], 403],
  ])('a tenant-admin gives the role %s', async (_, roles, status) => {
    const response = await admin('POST', '/api-keys', { sub: 'svc', roles });
    expect(response.status).toBe(status);
  });

  it('who has a role may pass it on', async () => {
    const both = adminOf(harness, await harness.token({ roles: ['tenant-admin', 'auditor'] }));
    expect(await make(both, { roles: ['auditor'] })).toBe(201);
  });

  it('platform-admin is a role of the platform’s own tenant, and a platform-admin’s to give', async () => {
    const ofPlatform = adminOf(harness, await harness.token({ tenant: 'platform', roles: ['tenant-admin'] }));
    const staff = adminOf(harness, await harness.token({ tenant: 'acme', roles: ['tenant-admin', 'platform-admin'] }));
    expect([await make(root, { tenant: 'acme', roles: ['platform-admin'] }), await make(ofPlatform, { roles: ['platform-admin'] }), await make(staff, { roles: ['platform-admin'] }), await make(staff, { tenant: 'platform', roles: ['developer'] })]).toEqual([403, 403, 403, 404]);
    const key = await makeKey(root, { tenant: 'platform', roles: ['platform-admin'] });
    const call = adminOf(harness, key.key);
    expect((await call('GET', '/tenants')).status).toBe(200);
    await expectError(await ofPlatform('POST', `/api-keys/${key.id}:rotate`, {}), 403, 'policy_denied');
    await root('DELETE', `/api-keys/${key.id}`);
    expect((await call('GET', '/tenants')).status).toBe(401);
  });

  it('a key that is limited makes keys that are limited alike, and live no longer', async () => {
    const expires = new Date(Date.now() + 3_600_000).toISOString();
    const maker = await makeKey(admin, { sub: 'svc-maker', roles: ['tenant-admin'], models: ['grok-beta', 'grok-pro'], expires_at: expires });
    const call = adminOf(harness, maker.key);
    expect([await make(call, {}), await make(call, { models: null }), await make(call, { models: ['grok-enterprise'] }), await make(call, { models: ['grok-beta', 'grok-enterprise'] })]).toEqual([403, 403, 403, 403]);
    const made = await makeKey(call, { models: ['grok-beta'], expires_at: new Date(Date.now() + 30 * DAY_MS).toISOString() });
    expect(made).toMatchObject({ models: ['grok-beta'], created_by: 'svc-maker', expires_at: expires });
    const wide = await makeKey(admin);
    await expectError(await call('POST', `/api-keys/${wide.id}:rotate`, {}), 403, 'policy_denied'); // what it could not make, it cannot renew
    expect((await madeBy<NewKey>(await call('POST', `/api-keys/${made.id}:rotate`, {}), 201)).expires_at).toBe(expires);
    expect((await madeBy<NewKey>(await call('POST', `/api-keys/${maker.id}:rotate`, {}), 201)).expires_at).toBe(expires); // itself, too
  });

  it('a key has no role but its own', async () => {
    const { key } = await makeKey(admin, { roles: ['developer'] });
    const call = adminOf(harness, key);
    const statuses = await Promise.all(['/api-keys', '/policies', '/revocations', '/budgets', '/tenants', '/deployments'].map(async (path) => (await call('GET', path)).status));
    expect(statuses).toEqual([403, 403, 403, 403, 403, 403]);
    const billing = await makeKey(admin, { roles: ['billing'] });
    expect([(await adminOf(harness, billing.key)('GET', '/budgets')).status, await statusOf(use(billing.key))]).toEqual([200, 403]);
  });
});

describe('who may', () => {
  it.each<[string, string, string[], number[]]>([
    // list, read, make, rotate, delete
    ['a developer', 'acme', ['developer'], [403, 403, 403, 403, 403]], ['billing', 'acme', ['billing'], [403, 403, 403, 403, 403]], ['an auditor', 'acme', ['auditor'], [403, 403, 403, 403, 403]], ['nobody in particular', 'acme', [], [403, 403, 403, 403, 403]],
    ['a platform-admin of a tenant', 'acme', ['platform-admin'], [403, 403, 403, 403, 403]], ['a tenant-admin', 'acme', ['tenant-admin'], [200, 200, 201, 201, 204]], ['a platform-admin', 'platform', ['platform-admin'], [200, 200, 201, 201, 204]],
    ['a tenant-admin of another tenant', 'globex', ['tenant-admin'], [200, 404, 404, 404, 404]], ['a tenant-admin of the platform', 'platform', ['tenant-admin'], [200, 404, 404, 404, 404]],
  ])('%s', async (_, tenant, roles, expected) => {
    const { id, key } = await makeKey(root);
    const call = adminOf(harness, await harness.token({ tenant, roles }));
    const answers = [await call('GET', '/api-keys?limit=200'), await call('GET', `/api-keys/${id}`), await call('POST', '/api-keys', { tenant: 'acme', sub: 'x' }), await call('POST', `/api-keys/${id}:rotate`, { overlap_seconds: 60 }), await call('DELETE', `/api-keys/${id}`)];
    expect(answers.map(({ status }) => status)).toEqual(expected);
    expect(await works(key)).toBe(expected[4] !== 204);
  });

  it('a tenant sees its own keys alone, page by page, and another’s looks like one that is not there', async () => {
    const globex = adminOf(harness, await harness.token({ tenant: 'globex', roles: ['tenant-admin'] }));
    const theirs: string[] = [];
    for (let n = 0; n < 5; n += 1) theirs.push((await makeKey(globex, { tenant: 'globex' })).id);
    const listed = await listAll<KeyView>(globex, '/api-keys', 2);
    expect(listed.map(({ id }) => id).toSorted()).toEqual(theirs.toSorted());
    expect((await listAll<KeyView>(admin, '/api-keys')).filter(({ tenant }) => tenant !== 'acme')).toEqual([]);
    await makeKey(root, { tenant: 'platform' });
    expect(new Set((await listAll<KeyView>(root, '/api-keys')).map(({ tenant }) => tenant))).toEqual(new Set(['acme', 'globex', 'platform']));
    const texts = new Set<string>();
    for (const id of [theirs[0], randomUUID(), 'nobody', '__proto__']) {
      for (const [method, path] of [['GET', `/api-keys/${id}`], ['DELETE', `/api-keys/${id}`], ['POST', `/api-keys/${id}:rotate`]] as const) texts.add(`${(await expectError(await admin(method, path, method === 'POST' ? {} : undefined), 404, 'not_found')).message}`);
    }
    expect([...texts]).toEqual(['There is no such API key.']);
    expect((await madeBy<KeyView>(await globex('GET', `/api-keys/${theirs[0]}`))).revoked_at).toBeNull();
  });

  it.each(['limit=0', 'limit=201', 'cursor=', 'cursor=%%%', 'cursor=YQ'])('a list with ?%s is refused', async (query) => {
    expect((await expectError(await admin('GET', `/api-keys?${query}`), 400, 'invalid_request')).param).toBe(query.split('=')[0]);
  });
});
