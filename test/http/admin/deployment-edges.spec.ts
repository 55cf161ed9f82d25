import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { rm } from 'node:fs/promises';
import { startXaiEmulator, type XaiEmulator } from '../../../src/sandbox/xai-emulator.ts';
import { adminOf, completeAt, deploy, madeBy, modelsFolder, movableClock, removeStored, servedBy, startReplica, type AdminCall, type DeploymentView } from '../../support/deployments.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { expectError } from '../../support/wire.ts';

// What reviews of the admin API for deployments found, and of the choice between them.

const IDS = ['a', 'b', 'c', 'd'] as const;
let harness: Harness;
let call: AdminCall;
let shards: Record<string, XaiEmulator>;
const clock = movableClock();
beforeAll(async () => {
  const pace = { firstTokenMs: 50, tokenIntervalMs: 0, reasoningTokenMs: 0 };
  shards = Object.fromEntries(await Promise.all(IDS.map(async (id) => [id, await startXaiEmulator({ apiKeys: ['k'], pace })] as const)));
  harness = await startHarness({ clock, env: { EGRESS_ALLOW: Object.values(shards).map(({ url }) => new URL(url).origin).join(',') } });
  call = adminOf(harness, await harness.adminToken());
});
beforeEach(() => call('PATCH', '/deployments/xai', { weight: 0 }));
afterEach(async () => {
  await removeStored(call);
  for (const shard of Object.values(shards)) shard.reset();
});
afterAll(async () => {
  await harness.close();
  for (const shard of Object.values(shards)) await shard.close();
});
const make = (id: string, change: Record<string, unknown> = {}): Promise<DeploymentView> => deploy(call, { id, base_url: shards[id]!.url, api_key: 'k', ...change });
const converse = (id: string, body: Record<string, unknown> = {}, url = harness.url): Promise<string> => harness.token().then((token) => servedBy(completeAt(url, token, body, { 'x-grok-conv-id': id })));
const all = <T>(count: number, one: (n: number) => Promise<T>): Promise<T[]> => Promise.all(Array.from({ length: count }, (_, n) => one(n)));

it('an origin that is no longer in EGRESS_ALLOW is called no longer', async () => {
  await make('a');
  const replica = await startReplica(harness, { egress: { ...harness.settings.egress, allowedOrigins: [] } });
  const { status } = await completeAt(replica.url, await harness.token());
  await replica.close();
  expect([status, shards['a']!.calls.length]).toEqual([503, 0]);
});

it('orders for one breaker may come at once', async () => {
  await make('a');
  const answers = await all(8, (n) => call('POST', `/breakers/a:${n % 2 === 0 ? 'force-open' : 'reset'}`));
  await call('POST', '/breakers/a:reset');
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
});

it('a breaker that an admin has opened stays open when its deployment is changed', async () => {
  await make('a');
  await madeBy(await call('POST', '/breakers/a:force-open'));
  await madeBy(await call('PATCH', '/deployments/a', { api_key: 'k' }));
  const answers = await all(3, () => harness.complete());
  await call('POST', '/breakers/a:reset');
  expect(answers.map(({ status }) => status)).toEqual([503, 503, 503]);
});

it('a deployment of an alias of a model serves it, or is refused', async () => {
  const response = await call('POST', '/deployments', { id: 'a', model: 'grok-latest', base_url: shards['a']!.url, api_key: 'k' });
  expect(response.status === 400 ? 'refused' : await servedBy(harness.complete({ model: 'grok-latest' }))).toMatch(/^(refused|a)$/);
});

it('a deployment of the file that is changed in one field serves what it served, and may be where the file has it', async () => {
  const folder = await modelsFolder(`  - { id: one, base_url: env, models: [grok-beta, grok-pro], region: eu, accelerator: shared }
  - { id: two, base_url: "${shards['b']!.url}", models: [grok-enterprise], region: eu, accelerator: shared }`);
  const own = await startHarness({ env: { NOVIX_CONFIG_DIR: folder } });
  const change = adminOf(own, await own.adminToken());
  const statuses = [(await change('PATCH', '/deployments/one', { region: 'us' })).status, (await change('PATCH', '/deployments/two', { weight: 0 })).status];
  const elsewhere = await own.complete({ model: 'grok-4.7' }); // neither of the two is for it
  await own.close();
  await rm(folder, { recursive: true });
  expect({ statuses, status: elsewhere.status }).toEqual({ statuses: [200, 200], status: 503 });
});

it('a key for the endpoint of the environment is used, or refused', async () => {
  const response = await call('POST', '/deployments', { id: 'a', model: 'grok-beta', base_url: 'env', api_key: 'own-key' });
  if (response.status === 201) await harness.complete();
  const sent = harness.emulator.calls.at(-1)?.headers['authorization'];
  harness.emulator.reset();
  expect([response.status, sent]).not.toEqual([201, 'Bearer xai-test-key']);
});

it('a blob: URL of an allowed origin is refused', async () => {
  expect((await call('POST', '/deployments', { id: 'a', model: 'grok-beta', base_url: `blob:${shards['a']!.url}`, api_key: 'k' })).status).toBe(400);
});

it('an id with NUL is not there', async () => {
  for (const [method, body] of [['GET', undefined], ['PATCH', { weight: 1 }], ['DELETE', undefined]] as const) {
    const error = await expectError(await call(method, '/deployments/xai%00', body), 404, 'not_found');
    expect(error.message).toBe('There is no such deployment.');
  }
});

it('a CA that is none is refused', async () => {
  const tls = { ca: '-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n' };
  expect((await call('POST', '/deployments', { id: 'a', model: 'grok-beta', base_url: shards['a']!.url, api_key: 'k', tls })).status).toBe(400);
});

it('a conversation keeps to its deployment from the first turn on, also where the others are unknown or idle', async () => {
  for (const id of IDS) await make(id);
  const turns: string[] = [];
  for (let turn = 0; turn < 6; turn++) turns.push(await converse('early'));
  for (const shard of Object.values(shards)) shard.setFaults([{ first_token_ms: 300 }]);
  await all(40, () => harness.complete());
  const later: string[] = [];
  for (let turn = 0; turn < 8; turn++) {
    clock.advance(20_000);
    later.push(await converse('late'));
  }
  for (const shard of Object.values(shards)) shard.setFaults([]);
  expect([new Set(turns).size, new Set(later).size]).toEqual([1, 1]);
});

it('conversations stay when one call among many takes long', async () => {
  for (const id of IDS) await make(id);
  await all(20, () => harness.complete());
  const homes = await all(24, (n) => converse(`long-${n}`));
  expect(await all(24, (n) => converse(`long-${n}`))).toEqual(homes);
  await converse('long-0', { x_emulator: { first_token_ms: 3_000 } });
  expect(await all(24, (n) => converse(`long-${n}`))).toEqual(homes);
});

it('a new deployment gets its part of the conversations, and not all', async () => {
  await make('a');
  const replica = await startReplica(harness);
  for (let turn = 0; turn < 4; turn++) await all(100, (n) => converse(`old-${n}`, {}, replica.url));
  await make('b');
  const there = adminOf(harness, await harness.adminToken(), replica.url);
  while ((await there('GET', '/deployments/b')).status !== 200) await new Promise((resolve) => setImmediate(resolve));
  await all(4, () => harness.token().then((token) => completeAt(replica.url, token))); // neither is unknown
  const homes = await all(100, (n) => converse(`old-${n}`, {}, replica.url));
  await replica.close();
  expect(homes.filter((home) => home === 'b').length).toBeLessThan(70);
});

it('weight is the share of calls in turn, too', async () => {
  await make('a', { weight: 2 });
  await make('b', { weight: 1 });
  let at = 0;
  // Long enough for the latency to be the provider's, and not that of a busy machine.
  for (let n = 0; n < 60; n++) if ((await servedBy(harness.complete({ x_emulator: { first_token_ms: 60, output_tokens: 3 } }))) === 'b') at += 1;
  expect(at).toBeGreaterThan(8);
}, 30_000);
