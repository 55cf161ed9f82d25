import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Gateway } from '../../../src/gateway.ts';
import { LocalSeal, openLocalSeal } from '../../../src/secrets/local-seal.ts';
import { startXaiEmulator, type XaiEmulator } from '../../../src/sandbox/xai-emulator.ts';
import { createAuthority } from '../../sandbox/certificates.ts';
import { runningCalls } from '../../support/calls.ts';
import { adminOf, completeAt, deploy, madeBy, removeStored, servedBy, sha256, startReplica, type AdminCall, type DeploymentView } from '../../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError, framesOf } from '../../support/wire.ts';

// Where calls go, changed while they go there: judged by what the two providers receive, and by what the database holds.

const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const SEALED = /^enc:v1:local:[A-Za-z0-9_-]{40,}$/;
const OTHER_KEY = 'xai-canary-other-4e1d';
const THIRD_KEY = 'xai-canary-third-88ab';
/** Of a change on another replica. */
const EFFECTIVE_MS = 2_000;

let harness: Harness;
let admin: string;
let call: AdminCall;
let other: XaiEmulator;
let secure: XaiEmulator;
const authority = createAuthority('Deployment CA');
const clients = createAuthority('Deployment client CA');
const client = clients.issue('novix');
beforeAll(async () => {
  const server = authority.issue('127.0.0.1');
  other = await startXaiEmulator({ apiKeys: [OTHER_KEY, THIRD_KEY] });
  secure = await startXaiEmulator({ apiKeys: [OTHER_KEY], tls: { cert: server.cert, key: server.key, clientCa: clients.cert, clientCn: 'novix', withoutCertificate: '403' } });
  const origins = [other, secure].map(({ url }) => new URL(url).origin);
  harness = await startHarness({ env: { EGRESS_ALLOW: origins.join(','), XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '1000' } });
  admin = await harness.adminToken();
  call = adminOf(harness, admin);
});
afterEach(async () => {
  await removeStored(call);
  for (const emulator of [harness.emulator, other, secure]) emulator.reset();
});
afterAll(async () => {
  await harness.close();
  await Promise.all([other.close(), secure.close()]);
});

const fields = (change: Record<string, unknown> = {}): Record<string, unknown> => ({ id: 'shard-1', model: 'grok-beta', base_url: other.url, ...change });
const get = async (id: string): Promise<DeploymentView> => madeBy(await call('GET', `/deployments/${id}`));
const patch = async (id: string, change: Record<string, unknown>): Promise<DeploymentView> => madeBy(await call('PATCH', `/deployments/${id}`, change));
/** Takes the built-in one out of service, so that what is under test has to serve. */
const rest = (): Promise<DeploymentView> => patch('xai', { weight: 0 });
const authorizationOf = (emulator: XaiEmulator): string | undefined => emulator.calls.at(-1)?.headers['authorization'];
const seal = (): LocalSeal => openLocalSeal(harness.settings);

/** Every row of every table, as text. */
async function wholeDatabase(): Promise<string> {
  const { rows: tables } = await harness.db.query<{ name: string }>("SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'");
  const texts = await Promise.all(tables.map(async ({ name }) => (await harness.db.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t`)).rows.map(({ row }) => row).join('\n')));
  return texts.join('\n');
}

/** In which of the usual spellings a text holds a secret. */
function spellings(text: string, secret: string): string[] {
  const bytes = Buffer.from(secret);
  return Object.entries({ plain: secret, base64: bytes.toString('base64').slice(0, -4), base64url: bytes.toString('base64url').slice(0, -4), hex: bytes.toString('hex') })
    .filter(([, spelled]) => text.includes(spelled)).map(([name]) => name);
}

describe('POST /admin/v1/deployments', () => {
  it('makes a deployment that serves the next request, and records who made it', async () => {
    await rest();
    const response = await call('POST', '/deployments', fields({ api_key: OTHER_KEY, region: 'eu', zdr: true, max_concurrency: 7, price_percent: 110 }));
    const made = await madeBy(response, 201);
    expect(made).toEqual({
      id: 'shard-1', model: 'grok-beta', base_url: other.url, region: 'eu', accelerator: 'shared', zdr: true, weight: 1, max_concurrency: 7, price_percent: 110, source: 'admin',
      api_key: expect.stringMatching(SEALED), created_at: expect.stringMatching(RFC3339), updated_at: expect.stringMatching(RFC3339),
    });
    expect(await servedBy(harness.complete())).toBe('shard-1');
    expect(authorizationOf(other)).toBe(`Bearer ${OTHER_KEY}`);
    expect(await get('shard-1')).toEqual(made);
    const event = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(event).toMatchObject({
      metadata: { tenant_uid: 'platform' }, actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'POST /admin/v1/deployments', response: { code: 201 } },
      unmapped: { novix: { object: { type: 'deployment', id: 'shard-1' }, before: null, after: { model: 'grok-beta', base_url: other.url, region: 'eu', zdr: true, max_concurrency: 7, price_percent: 110, api_key: made.api_key } } },
    });
    expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
    expect(spellings(JSON.stringify(event), OTHER_KEY)).toEqual([]);
  });

  it('says what is not given by its default', async () => {
    expect(await deploy(call, fields())).toMatchObject({ region: 'global', accelerator: 'shared', weight: 1, max_concurrency: 2_000, price_percent: 100, source: 'admin' });
  });

  it('serves a model under the name that it has there, at the price of the deployment', async () => {
    await rest();
    await deploy(call, fields({ api_key: OTHER_KEY, upstream_model: 'grok-4.3', price_percent: 200 }));
    const response = await harness.complete({ x_emulator: { no_usage: true, output_tokens: 10, reasoning_tokens: 0 } });
    expect(response.status).toBe(200);
    const { heldTicks } = await settled(harness, response.headers.get('x-request-id'));
    expect((other.calls[0]!.body as { model: string }).model).toBe('grok-4.3');
    await patch('shard-1', { price_percent: 100 });
    const cheaper = await settled(harness, (await harness.complete({ x_emulator: { no_usage: true, output_tokens: 10, reasoning_tokens: 0 } })).headers.get('x-request-id'));
    expect(heldTicks).toBe(2n * cheaper.heldTicks);
  });

  it('may go to the endpoint of the environment, with its key', async () => {
    await rest();
    await deploy(call, fields({ base_url: 'env' }));
    expect(await servedBy(harness.complete())).toBe('shard-1');
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('does not make the same one twice: 409, and the first stays as it was', async () => {
    await deploy(call, fields({ region: 'eu' }));
    const response = await call('POST', '/deployments', fields({ region: 'us' }));
    expect((await expectError(response, 409, 'already_exists')).param).toBe('id');
    expect(await get('shard-1')).toMatchObject({ region: 'eu' });
    expect((await eventsOf(harness, response.headers.get('x-request-id'))).map((event) => event.unmapped.novix.phase)).not.toContain('change');
  });

  it('of many at once makes exactly one', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, (_, index) => call('POST', '/deployments', fields({ region: `r${index}` }))));
    expect(answers.map(({ status }) => String(status)).toSorted().join(' ')).toBe('201 409 409 409 409 409 409 409');
  });

  it.each<[string, unknown, string | null]>([
    ['an unknown field', { colour: 'red' }, 'colour'], ['a field that the gateway sets', { source: 'config' }, 'source'], ['the time of its making', { created_at: '2026-01-01T00:00:00Z' }, 'created_at'],
    ['no id', { id: undefined }, null], ['capitals in the id', { id: 'Shard' }, 'id'], ['a colon in the id', { id: 'a:force-open' }, 'id'], ['a slash in the id', { id: 'a/b' }, 'id'], ['a newline behind the id', { id: 'a\n' }, 'id'],
    ['an id of 64 letters', { id: 'a'.repeat(64) }, 'id'], ['an id of JavaScript', { id: '__proto__' }, 'id'], ['a number as id', { id: 7 }, 'id'],
    ['no model', { model: undefined }, null], ['a model that nobody knows', { model: 'grok-99' }, 'model'], ['an empty model', { model: '' }, 'model'],
    ['no base_url', { base_url: undefined }, null], ['a base_url that is none', { base_url: 'api.x.ai/v1' }, 'base_url'], ['null as base_url', { base_url: null }, 'base_url'],
    ['a negative weight', { weight: -1 }, 'weight'], ['a weight that is text', { weight: '1' }, 'weight'], ['a weight of 1001', { weight: 1_001 }, 'weight'],
    ['no place at all', { max_concurrency: 0 }, 'max_concurrency'], ['half a place', { max_concurrency: 1.5 }, 'max_concurrency'], ['a price of nothing', { price_percent: 0 }, 'price_percent'],
    ['an unknown accelerator', { accelerator: 'gpu' }, 'accelerator'], ['an empty region', { region: '' }, 'region'], ['a region with a line break', { region: 'eu\nus' }, 'region'], ['zdr as text', { zdr: 'yes' }, 'zdr'],
    ['a key with a space', { api_key: 'two words' }, 'api_key'], ['a key with a line break', { api_key: 'xai-key\r\nx-evil: 1' }, 'api_key'], ['an empty key', { api_key: '' }, 'api_key'],
    ['an unknown field of tls', { tls: { pfx: 'x' } }, 'tls.pfx'],
  ])('refuses %s with 400', async (_, change, param) => {
    const error = await expectError(await call('POST', '/deployments', fields(change as Record<string, unknown>)), 400, 'invalid_request');
    expect(error.param).toBe(param);
    expect((await call('GET', '/deployments/shard-1')).status).toBe(404);
  });

  it.each<[string, unknown]>([['a list', [{ id: 'shard-1' }]], ['null', 'null'], ['no JSON', '{"id":'], ['nothing', '']])('refuses %s with 400', async (_, body) => {
    await expectError(await call('POST', '/deployments', body), 400, 'invalid_request');
    const { data } = await madeBy<{ data: DeploymentView[] }>(await call('GET', '/deployments'));
    expect(data.map(({ id }) => id)).toEqual(['xai']);
  });

  it('names the unknown field', async () => {
    const error = await expectError(await call('POST', '/deployments', fields({ colour: 'red' })), 400, 'invalid_request');
    expect(error.message).toContain('colour');
  });
});

describe('the key of a deployment', () => {
  it('is nowhere in the database as it was given, through creation, change and use', async () => {
    await rest();
    await deploy(call, fields({ api_key: OTHER_KEY }));
    expect(await servedBy(harness.complete())).toBe('shard-1');
    await patch('shard-1', { api_key: THIRD_KEY });
    expect(await servedBy(harness.complete())).toBe('shard-1');
    expect(authorizationOf(other)).toBe(`Bearer ${THIRD_KEY}`);
    const before = await wholeDatabase();
    expect(before).toContain(other.url); // the search sees what is there
    for (const secret of [OTHER_KEY, THIRD_KEY]) expect([secret, spellings(before, secret)]).toEqual([secret, []]);
    expect((await call('DELETE', '/deployments/shard-1')).status).toBe(204);
    for (const secret of [OTHER_KEY, THIRD_KEY]) expect([secret, spellings(await wholeDatabase(), secret)]).toEqual([secret, []]);
  });

  it('is in no answer and in no refusal either', async () => {
    const made = await call('POST', '/deployments', fields({ api_key: OTHER_KEY }));
    const refused = await call('POST', '/deployments', fields({ id: 'two', api_key: OTHER_KEY, base_url: 'http://10.0.0.1/v1' }));
    const odd = await call('POST', '/deployments', fields({ id: 'three', api_key: `${OTHER_KEY} ` }));
    expect([made.status, refused.status, odd.status]).toEqual([201, 400, 400]);
    const texts = await Promise.all([made, refused, odd, await call('GET', '/deployments'), await call('GET', '/deployments/shard-1')].map((response) => response.text()));
    expect(texts.flatMap((text) => spellings(text, OTHER_KEY))).toEqual([]);
  });

  it('may come sealed for its name, and is kept as it came', async () => {
    await rest();
    const sealed = seal().seal('deployment/shard-1/api_key', OTHER_KEY);
    expect((await deploy(call, fields({ api_key: sealed }))).api_key).toBe(sealed);
    expect(await servedBy(harness.complete())).toBe('shard-1');
    expect(authorizationOf(other)).toBe(`Bearer ${OTHER_KEY}`);
  });

  it.each<[string, () => string | Promise<string>]>([
    ['for another deployment', () => seal().seal('deployment/shard-2/api_key', OTHER_KEY)],
    ['for something else', () => seal().seal('XAI_API_KEY', OTHER_KEY)],
    ['for the TLS key of the same deployment', () => seal().seal('deployment/shard-1/tls_key', OTHER_KEY)],
    ['with another key file', async () => {
      const folder = await mkdtemp(join(tmpdir(), 'novix-test-'));
      const foreign = LocalSeal.open(join(folder, 'key'), true).seal('deployment/shard-1/api_key', OTHER_KEY);
      await rm(folder, { recursive: true });
      return foreign;
    }],
    ['and damaged since', () => seal().seal('deployment/shard-1/api_key', OTHER_KEY).replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')).replace(/(.{20})$/, (tail) => tail.toLowerCase())],
    ['by a provider that there is not', () => 'enc:v1:vault:abcdefgh'],
    ['with nothing behind', () => 'enc:'],
  ])('is refused where it was sealed %s, in creation and in change', async (_, make) => {
    const sealed = await make();
    const error = await expectError(await call('POST', '/deployments', fields({ api_key: sealed })), 400, 'invalid_request');
    expect(error.param).toBe('api_key');
    expect(error.message).toContain('deployment/shard-1/api_key');
    expect(error.message).not.toContain(OTHER_KEY);
    expect((await call('GET', '/deployments/shard-1')).status).toBe(404);
    const { api_key: kept } = await deploy(call, fields({ api_key: THIRD_KEY }));
    expect((await call('PATCH', '/deployments/shard-1', { api_key: sealed })).status).toBe(400);
    expect((await get('shard-1')).api_key).toBe(kept);
  });
});

describe('TLS of a deployment', () => {
  const tls = { cert: client.cert, key: client.key, ca: authority.cert };
  const secured = (change: Record<string, unknown> = {}): Record<string, unknown> => fields({ base_url: secure.url, api_key: OTHER_KEY, tls, ...change });

  it('authenticates the gateway by a certificate whose key is sealed, and is on record by its hashes', async () => {
    await rest();
    const response = await call('POST', '/deployments', secured());
    const made = await madeBy(response, 201);
    expect(made.tls).toEqual({ cert: client.cert, key: expect.stringMatching(SEALED), ca: authority.cert });
    expect(await servedBy(harness.complete())).toBe('shard-1');
    expect(secure.calls).toHaveLength(1);
    const { unmapped: { novix: { after } } } = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect((after as DeploymentView).tls).toEqual({ cert: `sha256:${sha256(client.cert)}`, ca: `sha256:${sha256(authority.cert)}`, key: `sha256:${sha256(made.tls!.key!)}` });
    const database = await wholeDatabase();
    const keyLine = client.key.split('\n')[1]!;
    expect(database).not.toContain(keyLine);
    expect(spellings(database, client.key)).toEqual([]);
  });

  it('may come as files, or with its key sealed', async () => {
    await rest();
    const folder = await mkdtemp(join(tmpdir(), 'novix-test-tls-'));
    for (const [name, text] of Object.entries(tls)) await writeFile(join(folder, name), text);
    await deploy(call, secured({ tls: { cert: join(folder, 'cert'), key: join(folder, 'key'), ca: join(folder, 'ca') } }));
    expect(await servedBy(harness.complete())).toBe('shard-1');
    await patch('shard-1', { tls: { ...tls, key: seal().seal('deployment/shard-1/tls_key', client.key) } });
    expect(await servedBy(harness.complete())).toBe('shard-1');
    await rm(folder, { recursive: true });
  });

  it('that the provider does not know ends in a failure, and not in a call', async () => {
    await rest();
    await deploy(call, secured({ tls: { ...tls, ...clients.issue('someone-else') } }));
    expect((await harness.complete()).status).toBe(502);
    await patch('shard-1', { tls: { cert: client.cert, key: client.key } }); // nobody vouches for the server
    await expectError(await harness.complete(), 503, 'provider_unavailable');
    expect(secure.calls.filter(({ state }) => state === 'completed')).toEqual([]);
  });

  const stranger = clients.issue('stranger');
  it.each<[string, () => Record<string, string>, string]>([
    ['a certificate without its key', () => ({ cert: client.cert, ca: authority.cert }), 'tls'],
    ['a key without its certificate', () => ({ key: client.key }), 'tls'],
    ['a key that belongs to another certificate', () => ({ ...tls, key: stranger.key }), 'tls'],
    ['a certificate in the place of a key', () => ({ ...tls, key: client.cert }), 'tls'],
    ['a certificate that is none', () => ({ ...tls, cert: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' }), 'tls'],
    ['a file that is not there', () => ({ ca: '/nowhere/ca.pem' }), 'tls'],
    ['a key sealed for another deployment', () => ({ ...tls, key: seal().seal('deployment/shard-2/tls_key', client.key) }), 'tls.key'],
  ])('is refused with %s', async (_, make, param) => {
    const refused = await expectError(await call('POST', '/deployments', secured({ tls: make() })), 400, 'invalid_request');
    expect(refused.param).toBe(param);
    for (const key of [client.key, stranger.key]) expect(refused.message).not.toContain(key.split('\n')[1]!);
    expect((await call('GET', '/deployments/shard-1')).status).toBe(404);
  });
});

describe('GET /admin/v1/deployments', () => {
  it('gives every deployment once, page by page, in a stable order, the built-in one among them', async () => {
    for (const id of ['a', 'b.1', 'c_2', 'd-3', 'z']) await deploy(call, fields({ id }));
    const seen: DeploymentView[] = [];
    let cursor: string | null = null;
    let pages = 0;
    do {
      const page: { data: DeploymentView[]; next_cursor: string | null } = await madeBy(await call('GET', `/deployments?limit=2${cursor === null ? '' : `&cursor=${cursor}`}`));
      expect(Object.keys(page).toSorted()).toEqual(['data', 'next_cursor']);
      expect(page.data.length === 2 || page.next_cursor === null).toBe(true);
      seen.push(...page.data);
      cursor = page.next_cursor;
      pages += 1;
    } while (cursor !== null);
    expect(pages).toBe(3);
    expect(seen.map(({ id, source }) => `${id} ${source}`)).toEqual(['a admin', 'b.1 admin', 'c_2 admin', 'd-3 admin', 'xai config', 'z admin']);
    expect(await madeBy(await call('GET', '/deployments'))).toEqual({ data: seen, next_cursor: null });
  });

  it.each(['limit=0', 'limit=201', 'limit=x', 'cursor=', 'cursor=%%%', 'cursor=YQ=='])('refuses ?%s', async (query) => {
    const error = await expectError(await call('GET', `/deployments?${query}`), 400, 'invalid_request');
    expect(error.param).toBe(query.split('=')[0]);
  });

  it('shows the built-in one as the file has it', async () => {
    expect(await get('xai')).toEqual({ id: 'xai', model: '*', base_url: 'env', region: 'global', accelerator: 'shared', weight: 1, max_concurrency: 2_000, price_percent: 100, source: 'config' });
  });

  it.each(['nobody', 'XAI', '__proto__', 'xai%20', '%27%20OR%20%271%27=%271'])('%s is not there: 404, to read, change and delete', async (id) => {
    for (const [method, body] of [['GET', undefined], ['PATCH', { weight: 2 }], ['DELETE', undefined]] as const) {
      expect((await expectError(await call(method, `/deployments/${id}`, body), 404, 'not_found')).message).toBe('There is no such deployment.');
    }
  });
});

describe('PATCH /admin/v1/deployments/{id}', () => {
  it('changes what is given and nothing else, and records before and after without a secret', async () => {
    const before = await deploy(call, fields({ api_key: OTHER_KEY, region: 'eu', upstream_model: 'grok-4.3', zdr: true, tls: { ca: authority.cert } }));
    const response = await call('PATCH', '/deployments/shard-1', { weight: 3, region: 'us', api_key: THIRD_KEY });
    const after = await madeBy(response);
    expect(after).toEqual({ ...before, weight: 3, region: 'us', api_key: expect.stringMatching(SEALED), updated_at: expect.stringMatching(RFC3339) });
    expect(after.api_key).not.toBe(before.api_key);
    expect(Date.parse(after.updated_at!)).toBeGreaterThan(Date.parse(before.updated_at!));
    expect(await get('shard-1')).toEqual(after);
    const event = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(event).toMatchObject({
      actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'PATCH /admin/v1/deployments/:id', response: { code: 200 } },
      unmapped: { novix: { object: { type: 'deployment', id: 'shard-1' }, before: { region: 'eu', api_key: before.api_key, tls: { ca: `sha256:${sha256(authority.cert)}` } }, after: { region: 'us', weight: 3, api_key: after.api_key } } },
    });
    for (const secret of [OTHER_KEY, THIRD_KEY]) expect(spellings(JSON.stringify(event), secret)).toEqual([]);
  });

  it('takes away what is null', async () => {
    await deploy(call, fields({ api_key: OTHER_KEY, upstream_model: 'grok-4.3', zdr: false, tls: { ca: authority.cert } }));
    const after = await patch('shard-1', { api_key: null, upstream_model: null, zdr: null, tls: null });
    expect(Object.keys(after).toSorted()).toEqual(['accelerator', 'base_url', 'created_at', 'id', 'max_concurrency', 'model', 'price_percent', 'region', 'source', 'updated_at', 'weight']);
  });

  it('of the key acts on the next request', async () => {
    await rest();
    await deploy(call, fields({ api_key: OTHER_KEY }));
    for (const key of [THIRD_KEY, OTHER_KEY, THIRD_KEY]) {
      await patch('shard-1', { api_key: key });
      expect(await servedBy(harness.complete())).toBe('shard-1');
      expect(authorizationOf(other)).toBe(`Bearer ${key}`);
    }
  });

  it('of the weight to nothing takes it out of service with the next request, and back', async () => {
    await rest();
    await deploy(call, fields({ api_key: OTHER_KEY }));
    for (let round = 0; round < 3; round++) {
      await patch('shard-1', { weight: 0 });
      const error = await expectError(await harness.complete(), 503, 'breaker_open');
      expect(error.message).toContain('No deployment of this model is in service');
      await patch('shard-1', { weight: 1 });
      expect(await servedBy(harness.complete())).toBe('shard-1');
    }
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each<[string, unknown, string | null]>([
    ['nothing', {}, null], ['an unknown field', { colour: 'red' }, 'colour'], ['the id', { id: 'other' }, 'id'], ['null as model', { model: null }, 'model'], ['a model that nobody knows', { model: 'grok-99' }, 'model'],
    ['an origin that may not be called', { base_url: 'https://10.0.0.1/v1' }, 'base_url'], ['a null weight', { weight: null }, 'weight'], ['a certificate without key', { tls: { cert: client.cert } }, 'tls'],
  ])('refuses %s with 400, and changes nothing', async (_, change, param) => {
    const before = await deploy(call, fields({ api_key: OTHER_KEY }));
    const response = await call('PATCH', '/deployments/shard-1', change);
    expect((await expectError(response, 400, 'invalid_request')).param).toBe(param);
    expect(await get('shard-1')).toEqual(before);
    expect((await eventsOf(harness, response.headers.get('x-request-id'))).map((event) => event.unmapped.novix.phase)).not.toContain('change');
  });

  it('of many at once loses none: different fields all arrive', async () => {
    await deploy(call, fields());
    const changes = [{ region: 'us' }, { weight: 9 }, { max_concurrency: 5 }, { price_percent: 120 }, { zdr: true }, { upstream_model: 'grok-4.3' }];
    const answers = await Promise.all(changes.map((change) => call('PATCH', '/deployments/shard-1', change)));
    expect(answers.map(({ status }) => status)).toEqual(changes.map(() => 200));
    expect(await get('shard-1')).toMatchObject(Object.assign({}, ...changes) as object);
  });
});

describe('DELETE /admin/v1/deployments/{id}', () => {
  it('takes it away, and records what it was', async () => {
    const before = await deploy(call, fields({ api_key: OTHER_KEY, region: 'eu' }));
    const response = await call('DELETE', '/deployments/shard-1');
    expect([response.status, await response.text()]).toEqual([204, '']);
    await expectError(await call('GET', '/deployments/shard-1'), 404, 'not_found');
    await expectError(await call('DELETE', '/deployments/shard-1'), 404, 'not_found');
    expect(await servedBy(harness.complete())).toBe('xai');
    const event = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(event).toMatchObject({
      api: { operation: 'DELETE /admin/v1/deployments/:id' }, unmapped: { novix: { object: { type: 'deployment', id: 'shard-1' }, before: { base_url: other.url, region: 'eu', api_key: before.api_key }, after: null } },
    });
    expect(spellings(JSON.stringify(event), OTHER_KEY)).toEqual([]);
  });

  it('does not take away what the reviewed file has', async () => {
    await expectError(await call('DELETE', '/deployments/xai'), 400, 'invalid_request');
    expect(await servedBy(harness.complete())).toBe('xai');
  });
});

describe('a deployment of the reviewed file', () => {
  it('is overridden by one of the same id, and serves again when that is deleted', async () => {
    const builtIn = await get('xai');
    expect(await deploy(call, fields({ id: 'xai', model: '*', api_key: OTHER_KEY }))).toMatchObject({ id: 'xai', base_url: other.url, source: 'admin' });
    expect(await servedBy(harness.complete())).toBe('xai');
    expect([harness.emulator.calls.length, other.calls.length]).toEqual([0, 1]);
    const response = await call('DELETE', '/deployments/xai');
    expect(response.status).toBe(204);
    expect(await get('xai')).toEqual(builtIn);
    expect(await servedBy(harness.complete())).toBe('xai');
    expect([harness.emulator.calls.length, other.calls.length]).toEqual([1, 1]);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'change')).unmapped.novix).toMatchObject({ before: { base_url: other.url }, after: { base_url: 'env', model: '*' } });
  });

  it('is changed in one field, the others staying as the file has them', async () => {
    const response = await call('PATCH', '/deployments/xai', { region: 'eu' });
    expect(await madeBy(response)).toMatchObject({ id: 'xai', model: '*', base_url: 'env', region: 'eu', source: 'admin' });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'change')).unmapped.novix).toMatchObject({ before: { region: 'global', base_url: 'env' }, after: { region: 'eu', base_url: 'env' } });
    expect(await servedBy(harness.complete())).toBe('xai');
    expect(harness.emulator.calls).toHaveLength(1);
  });
});

describe('another replica', () => {
  let replica: Gateway;
  let developer: string;
  beforeAll(async () => {
    replica = await startReplica(harness);
    developer = await harness.token();
  });
  afterAll(async () => {
    await replica.close();
  });
  const there = (): Promise<string> => servedBy(completeAt(replica.url, developer));

  it('acts within two seconds on what is made, changed and deleted here, without failing a call', async () => {
    await deploy(call, fields({ api_key: OTHER_KEY }));
    await rest();
    await eventually(async () => (await there()) === 'shard-1', EFFECTIVE_MS);
    await patch('shard-1', { api_key: THIRD_KEY });
    await eventually(async () => (await there()) === 'shard-1' && authorizationOf(other) === `Bearer ${THIRD_KEY}`, EFFECTIVE_MS);
    await patch('xai', { weight: 1 });
    expect((await call('DELETE', '/deployments/shard-1')).status).toBe(204);
    await eventually(async () => (await adminOf(harness, admin, replica.url)('GET', '/deployments/shard-1')).status === 404, EFFECTIVE_MS);
    for (let n = 0; n < 10; n++) expect(await there()).toBe('xai');
  });

  it('acts on what it was not told of either, since it looks for itself', async () => {
    const definition = { model: 'grok-beta', base_url: other.url, api_key: seal().seal('deployment/quiet/api_key', OTHER_KEY) };
    await rest();
    await harness.db.query("INSERT INTO deployments (id, definition) VALUES ('quiet', $1)", [definition]);
    await eventually(async () => (await completeAt(replica.url, developer)).headers.get('x-novix-deployment') === 'quiet', EFFECTIVE_MS);
    await eventually(async () => (await harness.complete()).headers.get('x-novix-deployment') === 'quiet', EFFECTIVE_MS);
    expect((await get('quiet')).source).toBe('admin');
  });

  it('leaves out of service a deployment whose key it cannot open, and serves by the others', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'novix-test-'));
    LocalSeal.open(join(folder, 'key'), true);
    await deploy(call, fields({ api_key: OTHER_KEY, weight: 1000 }));
    const blind = await startReplica(harness, { keyFile: join(folder, 'key') });
    for (let n = 0; n < 10; n++) expect(await servedBy(completeAt(blind.url, developer))).toBe('xai');
    await blind.close();
    await rm(folder, { recursive: true });
  });
});

describe('requests under way when their deployment', () => {
  const changes: [string, () => Promise<unknown>][] = [
    ['gets another key', () => patch('shard-1', { api_key: THIRD_KEY })],
    ['moves elsewhere', () => patch('shard-1', { base_url: 'env', api_key: null })],
    ['is deleted', async () => {
      await patch('xai', { weight: 1 });
      return call('DELETE', '/deployments/shard-1');
    }],
  ];
  it.each(changes)('%s end well, streamed and plain', async (_, change) => {
    await rest();
    await deploy(call, fields({ api_key: OTHER_KEY }));
    const script = { x_emulator: { output_tokens: 40, reasoning_tokens: 0, token_interval_ms: 20 } };
    const [stream, plain] = [harness.complete({ stream: true, ...script }), harness.complete(script)];
    await eventually(() => runningCalls(other).length === 2 && other.calls.every(({ completionTokens }) => completionTokens > 2));
    await change();
    expect(runningCalls(other)).toHaveLength(2);
    const [streamed, whole] = await Promise.all([stream, plain]);
    expect(framesOf(await streamed.text()).at(-1)).toBe('data: [DONE]');
    expect(await whole.json()).toMatchObject({ choices: [{ finish_reason: 'stop' }] });
    expect(other.calls.map(({ state }) => state)).toEqual(['completed', 'completed']);
    for (const response of [streamed, whole]) {
      expect(response.headers.get('x-novix-deployment')).toBe('shard-1');
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'completed', basis: 'provider' });
    }
    expect((await harness.complete()).status).toBe(200);
  });

  it('changes again and again: no call fails', async () => {
    await deploy(call, fields({ api_key: OTHER_KEY }));
    let over = false;
    const failures: string[] = [];
    let served = 0;
    const callers = Array.from({ length: 4 }, async () => {
      while (!over) {
        const response = await harness.complete();
        const text = await response.text();
        if (response.status === 200) served += 1;
        else failures.push(`${response.status} ${text}`);
      }
    });
    for (let round = 0; round < 15; round++) {
      await patch('shard-1', { api_key: round % 2 === 0 ? THIRD_KEY : OTHER_KEY });
      if (round % 5 === 4) {
        await call('DELETE', '/deployments/shard-1');
        await deploy(call, fields({ api_key: OTHER_KEY }));
      }
    }
    over = true;
    await Promise.all(callers);
    expect(failures).toEqual([]);
    expect(served).toBeGreaterThan(30);
    expect(other.calls.length).toBeGreaterThan(5);
  });
});

describe('only a platform-admin of the platform may', () => {
  it.each<[string, string, string[]]>([
    ['a developer', 'acme', ['developer']], ['a tenant-admin', 'acme', ['tenant-admin']], ['billing', 'acme', ['billing']], ['an auditor', 'acme', ['auditor']], ['nobody in particular', 'acme', []],
    ['a platform-admin of another tenant', 'acme', ['platform-admin']], ['a tenant-admin of the platform', 'platform', ['tenant-admin']], ['an auditor of the platform', 'platform', ['auditor']],
  ])('not %s', async (_, tenant, roles) => {
    await deploy(call, fields({ region: 'eu' }));
    const mine = adminOf(harness, await harness.token({ tenant, roles }));
    for (const [method, path, body] of [['POST', '', fields({ id: 'sneaked' })], ['GET', '', undefined], ['GET', '/shard-1', undefined], ['PATCH', '/shard-1', { region: 'us' }], ['DELETE', '/shard-1', undefined], ['DELETE', '/nobody', undefined]] as const) {
      const error = await expectError(await mine(method, `/deployments${path}`, body), 403, 'policy_denied');
      expect(error.decision_id).toMatch(/^[0-9a-f-]{36}$/);
    }
    expect(await get('shard-1')).toMatchObject({ region: 'eu' });
    expect((await call('GET', '/deployments/sneaked')).status).toBe(404);
  });

  it('and nobody without a token', async () => {
    await expectError(await harness.request('GET', '/admin/v1/deployments', { token: null }), 401, 'invalid_token');
    await expectError(await harness.request('POST', '/admin/v1/deployments', { token: null, body: fields() }), 401, 'invalid_token');
    expect((await call('GET', '/deployments/shard-1')).status).toBe(404);
  });
});
