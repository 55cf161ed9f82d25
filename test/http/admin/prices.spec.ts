import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { createServer, request as httpRequest, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { listAll } from '../../support/access.ts';
import { expectBooksClosed, runningCalls } from '../../support/calls.ts';
import { adminOf, madeBy, startReplica, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// What models cost, and who says so: an admin, else the provider's own list, else the reviewed file. Judged by what calls hold and are charged.

interface PriceView {
  model: string;
  revision: number;
  source: 'admin' | 'provider' | 'config';
  effective_at: string | null;
  input_usd_per_million?: string;
  cached_input_usd_per_million?: string;
  output_usd_per_million?: string;
  image_usd?: string;
  long_context?: Record<string, unknown>;
}

const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const REVIEWED = {
  model: 'grok-4.3', revision: 0, source: 'config', effective_at: '2026-10-01T00:00:00.000Z', input_usd_per_million: '1.25', cached_input_usd_per_million: '0.20', output_usd_per_million: '2.50',
  long_context: { from_prompt_tokens: 200_000, input_usd_per_million: '2.50', cached_input_usd_per_million: '0.40', output_usd_per_million: '5.00' },
};
const OVERRIDE = { model: 'grok-4.3', input_usd_per_million: '3.00', cached_input_usd_per_million: '1.00', output_usd_per_million: '9.00' };
/** An entry of the provider's list, in ticks per token. */
const LISTED = {
  id: 'grok-4.3', prompt_text_token_price: 15_000, cached_prompt_text_token_price: 3_000, completion_text_token_price: 35_000,
  long_context_threshold: 200_000, prompt_text_token_price_long_context: 30_000, cached_prompt_text_token_price_long_context: 6_000, completion_text_token_price_long_context: 70_000,
};
/** Counts without a price: then our own arithmetic is charged. */
const COUNTS = { prompt_tokens: 100, completion_tokens: 50, total_tokens: 150 };

/** Stands before the emulator, and says what it is told of prices. */
interface ListServer {
  url: string;
  asked: number;
  /** In place of the emulator's own list; undefined: that one. */
  answer: ((response: ServerResponse) => void) | undefined;
  target: string;
  server: Server;
}

async function startListServer(): Promise<ListServer> {
  const list: ListServer = { url: '', asked: 0, answer: undefined, target: '', server: createServer((request, response) => {
    if (request.method === 'GET' && request.url === '/v1/models') {
      list.asked += 1;
      if (list.answer !== undefined) return list.answer(response);
    }
    const onward = httpRequest(new URL(request.url!, list.target), { method: request.method!, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }) };
  await new Promise<void>((resolve) => {
    list.server.listen(0, '127.0.0.1', resolve);
  });
  list.url = `http://127.0.0.1:${(list.server.address() as AddressInfo).port}/v1`;
  return list;
}

const json = (body: unknown, status = 200) => (response: ServerResponse): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(typeof body === 'string' ? body : JSON.stringify(body));
};
const listing = (...entries: unknown[]) => json({ object: 'list', data: entries });

let harness: Harness;
let admin: AdminCall;
let list: ListServer;
beforeAll(async () => {
  list = await startListServer();
  harness = await startHarness({ env: { XAI_API_ENDPOINT: list.url }, emulator: { embeddingModels: [{ id: 'v1', inputPriceTicks: 1_000, dimensions: 8 }] } });
  list.target = harness.emulator.url;
  admin = adminOf(harness, await harness.adminToken());
  await eventually(() => list.asked > 0, 10_000); // by itself, soon after a start
});
beforeEach(() => harness.emulator.reset());
afterEach(async () => {
  await harness.db.query('DELETE FROM price_revisions');
  await refresh(listing());
});
afterAll(async () => {
  await expectBooksClosed(harness.db);
  await harness.close();
  list.server.close();
  list.server.closeAllConnections();
});

async function refresh(answer: ListServer['answer']): Promise<void> {
  list.answer = answer;
  await harness.gateway.parts.prices.refreshFromProvider();
}

const loggerOfPrices = (): Logger => (harness.gateway.parts.prices as unknown as { logger: Logger }).logger;

const get = async (model: string, call = admin): Promise<PriceView> => madeBy<PriceView>(await call('GET', `/prices/${model}`));
const put = async (fields: Record<string, unknown>): Promise<PriceView> => madeBy<PriceView>(await admin('POST', '/prices', fields), 201);
const remove = async (model: string): Promise<number> => (await admin('DELETE', `/prices/${model}`)).status;

/** A call of grok-beta, with what it held and was charged, and the price on its intent. */
async function called(body: Record<string, unknown> = {}): Promise<{ heldTicks: bigint; chargedTicks: bigint; basis: string; price: Record<string, unknown> }> {
  const response = await harness.complete({ max_tokens: 100, ...body });
  const text = await response.text();
  expect([response.status, response.status === 200 ? '' : text]).toEqual([200, '']);
  const id = response.headers.get('x-request-id');
  const { unmapped: { novix } } = await eventOf(harness, id, 'intent');
  return { ...(await settled(harness, id)), price: (novix as unknown as { price: Record<string, unknown> }).price };
}

describe('GET /admin/v1/prices', () => {
  it('gives every model once, page by page, at the prices of the reviewed file', async () => {
    const prices = await listAll<PriceView>(admin, '/prices', 3);
    expect(prices.map(({ model }) => model)).toEqual(harness.gateway.parts.catalogue.reviewedModels.map(({ id }) => id).toSorted());
    expect(prices.find(({ model }) => model === 'grok-4.3')).toEqual(REVIEWED);
    expect(prices.find(({ model }) => model === 'grok-imagine-image')).toMatchObject({ revision: 0, source: 'config', image_usd: '0.02' });
    expect(prices.find(({ model }) => model === 'v1')).toEqual({ model: 'v1', revision: 0, source: 'config', effective_at: null }); // which has none
    expect(await listAll<PriceView>(admin, '/prices')).toEqual(prices);
  });

  it('gives one by its id, and 404 for an alias and for what is not there', async () => {
    expect(await get('grok-4.3')).toEqual(REVIEWED);
    for (const model of ['grok-beta', 'grok-99', '__proto__', '..%2Fmodels']) await expectError(await admin('GET', `/prices/${model}`), 404, 'model_not_found');
  });

  it.each([['limit=0'], ['limit=201'], ['limit=x'], ['cursor='], ['cursor=%00']])('refuses %s with 400', async (query) => {
    expect((await expectError(await admin('GET', `/prices?${query}`), 400, 'invalid_request')).param).toBe(query.split('=')[0]);
  });
});

describe('POST /admin/v1/prices', () => {
  it('overrides a price for the next call, to the tick, and says under which revision it was admitted', async () => {
    const before = await called({ x_emulator: { usage: COUNTS } });
    expect(before).toMatchObject({ basis: 'computed', chargedTicks: 100n * 12_500n + 50n * 25_000n, price: { input: '12500', cached_input: '2000', output: '25000', revision: 0 } });
    const price = await put(OVERRIDE);
    expect(price).toEqual({ ...OVERRIDE, revision: expect.any(Number), source: 'admin', effective_at: expect.stringMatching(RFC3339) });
    expect(price.revision).toBeGreaterThan(0);
    expect(await get('grok-4.3')).toEqual(price);

    const after = await called({ x_emulator: { usage: COUNTS } });
    expect(after).toMatchObject({ basis: 'computed', chargedTicks: 100n * 30_000n + 50n * 90_000n, price: { input: '30000', cached_input: '10000', output: '90000', revision: price.revision, as_of: price.effective_at } });
    const inputTokens = (before.heldTicks - 1_100n * 25_000n) / 12_500n;
    expect(after.heldTicks).toBe(inputTokens * 30_000n + 1_100n * 90_000n);
  });

  it('changes nothing for a call that was admitted before: it is charged under its own revision', async () => {
    const response = await harness.complete({ stream: true, max_tokens: 100, x_emulator: { output_tokens: 60, token_interval_ms: 50, reasoning_tokens: 0, usage: COUNTS } });
    await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 1));
    const { revision } = await put(OVERRIDE);
    expect(runningCalls(harness.emulator)).toHaveLength(1); // still under way
    expect(await response.text()).toContain('[DONE]');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ basis: 'computed', chargedTicks: 100n * 12_500n + 50n * 25_000n });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix).toMatchObject({ price: { revision: 0 } });
    expect(await called({ x_emulator: { usage: COUNTS } })).toMatchObject({ chargedTicks: 100n * 30_000n + 50n * 90_000n, price: { revision } });
  });

  it('makes a new revision of each change, and the last one counts', async () => {
    const first = await put(OVERRIDE);
    const second = await put({ ...OVERRIDE, output_usd_per_million: '8.00' });
    expect(second.revision).toBeGreaterThan(first.revision);
    expect(await get('grok-4.3')).toEqual(second);
  });

  it('prices long prompts, where it says so', async () => {
    await put({ ...OVERRIDE, long_context: { from_prompt_tokens: 10, input_usd_per_million: '30.00', cached_input_usd_per_million: '10.00', output_usd_per_million: '90.00' } });
    const { heldTicks, chargedTicks } = await called({ x_emulator: { usage: COUNTS } });
    expect(chargedTicks).toBe(100n * 300_000n + 50n * 900_000n);
    expect(heldTicks).toBeGreaterThan(1_100n * 900_000n);
  });

  it('prices images', async () => {
    await put({ model: 'grok-imagine-image', image_usd: '0.07' });
    const response = await harness.request('POST', '/v1/images/generations', { body: { model: 'grok-imagine-image', prompt: 'A fox.', n: 2, x_emulator: { no_usage: true } } });
    await response.text();
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ basis: 'computed', chargedTicks: 1_400_000_000n, heldTicks: 1_400_000_000n });
  });

  it('opens a model that had no price, and closes it again', async () => {
    const embed = (): Promise<Response> => harness.request('POST', '/v1/embeddings', { body: { model: 'v1', input: 'A sentence.' } });
    await expectError(await embed(), 503, 'price_unavailable');
    await put({ model: 'v1', input_usd_per_million: '0.10' });
    const response = await embed();
    expect(response.status).toBe(200);
    await response.text();
    const { heldTicks, chargedTicks } = await settled(harness, response.headers.get('x-request-id'));
    expect(chargedTicks).toBe(harness.emulator.billedUsdTicks());
    expect(heldTicks).toBeGreaterThanOrEqual(chargedTicks);
    expect(await remove('v1')).toBe(204);
    await expectError(await embed(), 503, 'price_unavailable');
  });

  it('is heard by other replicas within two seconds', async () => {
    const replica = await startReplica(harness);
    try {
      const there = adminOf(harness, await harness.adminToken(), replica.url);
      expect((await get('grok-4.3', there)).source).toBe('config');
      const price = await put(OVERRIDE);
      await eventually(async () => (await get('grok-4.3', there)).revision === price.revision, 2_000);
      expect(await get('grok-4.3', there)).toEqual(price);
    } finally {
      await replica.close();
    }
  });

  it('is on record with what was before and after', async () => {
    const response = await admin('POST', '/prices', OVERRIDE);
    const { unmapped: { novix }, ...event } = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(event).toMatchObject({ actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'POST /admin/v1/prices', response: { code: 201 } } });
    const { model: _model, ...definition } = OVERRIDE;
    expect(novix).toMatchObject({ object: { type: 'price', id: 'grok-4.3' }, before: REVIEWED, after: definition });
  });

  it.each<[string, Record<string, unknown>]>([
    ['no model', { model: undefined }], ['a model that is none', { model: 5 }], ['an unknown field', { colour: 'red' }], ['the revision', { revision: 7 }], ['the source', { source: 'provider' }], ['no price at all', { input_usd_per_million: undefined }],
    ...(['0', '0.00', '-1', '-0.5', '1e2', '', ' 1', '1,25', 'NaN', 'Infinity', '0.00001', '0.12345', '0.00000000001', '1'.repeat(30), 1.25, null, true] as unknown[]).map((price): [string, Record<string, unknown>] => [`an input price of ${JSON.stringify(price)}`, { input_usd_per_million: price }]),
    ...(['-1', '1e308', '0.00001', 2.5, null] as unknown[]).map((price): [string, Record<string, unknown>] => [`an output price of ${JSON.stringify(price)}`, { output_usd_per_million: price }]),
    ...(['-1', '0.00001', 2.5] as unknown[]).map((price): [string, Record<string, unknown>] => [`a cached price of ${JSON.stringify(price)}`, { cached_input_usd_per_million: price }]),
    ...(['0', '0.0', '-0.01', 0.01, '0.00000000001'] as unknown[]).map((price): [string, Record<string, unknown>] => [`an image for ${JSON.stringify(price)}`, { image_usd: price }]),
    ...([{}, { from_prompt_tokens: 5 }, { from_prompt_tokens: 0, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '1' }, { from_prompt_tokens: 5, input_usd_per_million: '0', cached_input_usd_per_million: '1', output_usd_per_million: '1' },
      { from_prompt_tokens: 1.5, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '1' }, null, 'long'] as unknown[]).map((long): [string, Record<string, unknown>] => [`a long context of ${JSON.stringify(long)}`, { long_context: long }]),
  ])('refuses %s with 400, and changes nothing', async (_, change) => {
    await expectError(await admin('POST', '/prices', { ...OVERRIDE, ...change }), 400, 'invalid_request');
    expect(await get('grok-4.3')).toEqual(REVIEWED);
  });

  const LONG = { from_prompt_tokens: 5, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '1' };
  it.each<[string, Record<string, unknown>]>([
    ['input_usd_per_million', { model: 'grok-4.3', image_usd: '0.01' }], ['output_usd_per_million', { model: 'grok-4.3', input_usd_per_million: '1.25' }], ['output_usd_per_million', { ...OVERRIDE, output_usd_per_million: '0' }], ['cached_input_usd_per_million', { ...OVERRIDE, cached_input_usd_per_million: '0' }],
    ['image_usd', { model: 'grok-imagine-image', input_usd_per_million: '1.25' }], ['image_usd', { model: 'grok-imagine-image', image_usd: '0' }], ['input_usd_per_million', { model: 'v1', image_usd: '0.01' }],
    ...(['input_usd_per_million', 'cached_input_usd_per_million', 'output_usd_per_million'] as const).map((field): [string, Record<string, unknown>] => [`long_context.${field}`, { ...OVERRIDE, long_context: { ...LONG, [field]: '0' } }]),
  ])('makes no model free: names %s for %j', async (field, body) => {
    expect((await expectError(await admin('POST', '/prices', body), 400, 'invalid_request')).param).toBe(field);
    expect((await get(body['model'] as string)).source).toBe('config');
  });

  it('that was stored before it had to be whole does not count, and can be taken back', async () => {
    await harness.db.query(`INSERT INTO price_revisions (model, source, price) VALUES ('grok-4.3', 'admin', '{"image_usd": "0.01"}'), ('grok-4.3', 'provider', '{"input_usd_per_million": "1", "cached_input_usd_per_million": "1", "output_usd_per_million": "1"}')`);
    await refresh(listing());
    expect(await get('grok-4.3')).toEqual(REVIEWED);
    expect((await called({ x_emulator: { usage: COUNTS } })).chargedTicks).toBe(100n * 12_500n + 50n * 25_000n);
    expect(await remove('grok-4.3')).toBe(204);
  });

  it.each([['grok-beta'], ['grok-latest'], ['auto'], ['nobody'], ['*']])('of %s, which is no model’s id, is 404', async (model) => {
    expect((await expectError(await admin('POST', '/prices', { ...OVERRIDE, model }), 404, 'model_not_found')).param).toBe('model');
  });

  it.each(['developer', 'tenant-admin', 'billing', 'auditor'])('and DELETE are not for the role %s', async (role) => {
    const call = adminOf(harness, await harness.token({ roles: [role] }));
    expect([(await call('POST', '/prices', OVERRIDE)).status, (await call('DELETE', '/prices/grok-4.3')).status]).toEqual([403, 403]);
    const readable = role === 'tenant-admin' || role === 'billing' ? 200 : 403;
    expect([(await call('GET', '/prices')).status, (await call('GET', '/prices/grok-4.3')).status]).toEqual([readable, readable]);
    expect(await get('grok-4.3')).toEqual(REVIEWED);
  });
});

describe('DELETE /admin/v1/prices', () => {
  it('takes an override back, on record', async () => {
    const price = await put(OVERRIDE);
    const response = await admin('DELETE', '/prices/grok-4.3');
    expect([response.status, await response.text()]).toEqual([204, '']);
    expect(await get('grok-4.3')).toEqual(REVIEWED);
    expect((await called({ x_emulator: { usage: COUNTS } })).chargedTicks).toBe(100n * 12_500n + 50n * 25_000n);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'change')).unmapped.novix).toMatchObject({ object: { type: 'price', id: 'grok-4.3' }, before: price, after: null });
  });

  it('of a model that has no override, or no longer has, is 404, and makes no revision', async () => {
    const count = async (): Promise<unknown> => (await harness.db.query('SELECT count(*) FROM price_revisions')).rows;
    await refresh(listing(LISTED));
    const before = await count();
    await expectError(await admin('DELETE', '/prices/grok-4.3'), 404, 'not_found');
    expect(await count()).toEqual(before);
    expect((await get('grok-4.3')).source).toBe('provider');
    await put(OVERRIDE);
    expect(await remove('grok-4.3')).toBe(204);
    const after = await count();
    const response = await admin('DELETE', '/prices/grok-4.3');
    await expectError(response, 404, 'not_found');
    expect(await count()).toEqual(after);
    const events = await eventually(async () => {
      const found = await eventsOf(harness, response.headers.get('x-request-id'));
      return found.length > 0 && found;
    });
    expect(events.map(({ unmapped }) => unmapped.novix.phase)).toEqual(['refusal']);
  });

  it('of an unknown model is 404, and no change on record', async () => {
    const response = await admin('DELETE', '/prices/nobody');
    await expectError(response, 404, 'model_not_found');
    const phases = await eventually(async () => {
      const events = await eventsOf(harness, response.headers.get('x-request-id'));
      return events.length > 0 && events.map(({ unmapped }) => unmapped.novix.phase);
    });
    expect(phases).toEqual(['refusal']);
  });
});

describe('the provider’s list', () => {
  const revisions = async (): Promise<number> => Number((await harness.db.query<{ count: string }>('SELECT count(*) FROM price_revisions')).rows[0]!.count);

  it('that says what the reviewed file says changes nothing', async () => {
    await refresh(undefined); // the emulator's own, which is the vendor's of today
    expect(await revisions()).toBe(0);
    expect(await get('grok-4.3')).toEqual(REVIEWED);
  });

  it('is asked for by the gateway’s own key, and is no call', async () => {
    const asked = list.asked;
    await refresh(undefined);
    expect(list.asked).toBe(asked + 1);
    expect(harness.emulator.calls).toEqual([]);
  });

  it('changes the price of the next call, under a revision of its own', async () => {
    await refresh(listing(LISTED, { id: 'unknown-model', prompt_text_token_price: 1 }));
    const price = await get('grok-4.3');
    expect(price).toEqual({ model: 'grok-4.3', revision: expect.any(Number), source: 'provider', effective_at: expect.stringMatching(RFC3339), input_usd_per_million: '1.50', cached_input_usd_per_million: '0.30', output_usd_per_million: '3.50',
      long_context: { from_prompt_tokens: 200_000, input_usd_per_million: '3.00', cached_input_usd_per_million: '0.60', output_usd_per_million: '7.00' } });
    expect(await called({ x_emulator: { usage: COUNTS } })).toMatchObject({ chargedTicks: 100n * 15_000n + 50n * 35_000n, price: { input: '15000', output: '35000', revision: price.revision } });
    expect((await get('grok-4.7')).source).toBe('config');
  });

  it('yields to an admin, and holds again when the admin’s price is taken back; and the reviewed file without either', async () => {
    await refresh(listing(LISTED));
    const listed = await get('grok-4.3');
    expect((await put(OVERRIDE)).source).toBe('admin');
    await refresh(listing({ ...LISTED, completion_text_token_price: 36_000 }));
    expect(await get('grok-4.3')).toMatchObject({ source: 'admin', output_usd_per_million: '9.00' });
    expect(await remove('grok-4.3')).toBe(204);
    const held = await get('grok-4.3');
    expect(held).toMatchObject({ source: 'provider', output_usd_per_million: '3.60' });
    expect(held.revision).toBeGreaterThan(listed.revision);
  });

  it('is one revision, however often it is asked for', async () => {
    for (let time = 0; time < 3; time += 1) await refresh(listing(LISTED));
    expect(await revisions()).toBe(1);
    await refresh(listing({ ...LISTED, completion_text_token_price: 36_000 }));
    await refresh(listing({ ...LISTED, completion_text_token_price: 36_000 }));
    expect(await revisions()).toBe(2);
  });

  it('opens a model that the reviewed file has no price for; an admin’s price comes first', async () => {
    const embed = (): Promise<Response> => harness.request('POST', '/v1/embeddings', { body: { model: 'v1', input: 'A sentence.' } });
    await refresh(listing({ id: 'v1', prompt_text_token_price: 0 }));
    await expectError(await embed(), 503, 'price_unavailable');
    for (let time = 0; time < 2; time += 1) await refresh(listing({ id: 'v1', prompt_text_token_price: 1_000 }));
    expect(await revisions()).toBe(1);
    expect(await get('v1')).toMatchObject({ source: 'provider', input_usd_per_million: '0.10' });
    const response = await embed();
    expect([response.status, (await response.text()).length > 0]).toEqual([200, true]);
    const { heldTicks, chargedTicks } = await settled(harness, response.headers.get('x-request-id'));
    expect(chargedTicks).toBe(harness.emulator.billedUsdTicks());
    expect(heldTicks).toBeGreaterThanOrEqual(chargedTicks);
    await put({ model: 'v1', input_usd_per_million: '0.30' });
    expect(await get('v1')).toMatchObject({ source: 'admin', input_usd_per_million: '0.30' });
  });

  it.each<[string, Record<string, unknown>]>([
    ['a broken long-context price', { prompt_text_token_price_long_context: -1 }], ['no long-context price', { completion_text_token_price_long_context: 0 }], ['a broken threshold', { long_context_threshold: '200000' }], ['no threshold, where the reviewed file has one', { long_context_threshold: 0 }],
  ])('is disbelieved as a whole for %s, and the log says so once', async (_, broken) => {
    await refresh(listing(LISTED));
    await refresh(listing({ ...LISTED, completion_text_token_price: 36_000, ...broken }));
    expect(await get('grok-4.3')).toMatchObject({ source: 'provider', output_usd_per_million: '3.50' }); // what it did before
    await harness.db.query('DELETE FROM price_revisions');
    const warn = jest.spyOn(loggerOfPrices(), 'warn');
    try {
      await refresh(listing(LISTED)); // whole again: told anew the next time
      await harness.db.query('DELETE FROM price_revisions');
      for (let time = 0; time < 3; time += 1) await refresh(listing({ ...LISTED, ...broken }));
      expect(await get('grok-4.3')).toEqual(REVIEWED);
      expect(warn.mock.calls.filter(([, text]) => String(text).includes('not believed')).map(([fields]) => (fields as unknown as { model: string }).model)).toEqual(['grok-4.3']);
    } finally {
      warn.mockRestore();
    }
  });

  it('keeps its last word when it no longer has the model', async () => {
    await refresh(listing(LISTED));
    await refresh(listing());
    expect(await get('grok-4.3')).toMatchObject({ source: 'provider', output_usd_per_million: '3.50' });
  });

  it('has long-context prices too', async () => {
    await refresh(listing({ ...LISTED, long_context_threshold: 100, prompt_text_token_price_long_context: 25_000, cached_prompt_text_token_price_long_context: 5_000, completion_text_token_price_long_context: 70_000 }));
    expect((await get('grok-4.3')).long_context).toEqual({ from_prompt_tokens: 100, input_usd_per_million: '2.50', cached_input_usd_per_million: '0.50', output_usd_per_million: '7.00' });
    expect((await called({ x_emulator: { usage: COUNTS } })).chargedTicks).toBe(100n * 25_000n + 50n * 70_000n);
  });

  const FIELDS = ['prompt_text_token_price', 'cached_prompt_text_token_price', 'completion_text_token_price'] as const;
  const ODD: unknown[] = [undefined, null, 0, -0, -1, 0.5, 15_000.5, 1e9 + 1, 1e15, 1e308, Number.MAX_SAFE_INTEGER, '15000', '', true, [], [15_000], {}];
  it.each(FIELDS.flatMap((field) => ODD.map((value) => [field, JSON.stringify(value) ?? 'missing', value] as const)))('is not believed where %s is %s: the model costs what it did, and is never free', async (field, _, value) => {
    await refresh(listing({ ...LISTED, [field]: value }));
    expect(await get('grok-4.3')).toEqual(REVIEWED);
    expect(await revisions()).toBe(0);
  });

  it.each<[string, ListServer['answer']]>([
    ['is empty', listing()], ['has no entries', listing(null, 5, 'grok-4.3', [], {}, { id: 5 }, { id: null })], ['has no list', json({ data: 'none' })], ['has nothing', json({})], ['is a list', json([LISTED])], ['is null', json('null')], ['is no JSON', json('<html>')],
    ['is an error', json({ error: 'down' }, 500)], ['is refused', json({ error: 'no' }, 403)], ['ends too early', (response) => void response.writeHead(200, { 'content-type': 'application/json', 'content-length': '5000' }).write('{"data":[', () => response.destroy())], ['never comes', (response) => void response.destroy()],
  ])('changes nothing where it %s', async (_, answer) => {
    await refresh(answer);
    expect(await get('grok-4.3')).toEqual(REVIEWED);
    expect((await called({ x_emulator: { usage: COUNTS } })).chargedTicks).toBe(100n * 12_500n + 50n * 25_000n);
  });

  it('that changes a price is told by an alert, and by none where it changes nothing', async () => {
    await refresh(undefined);
    await refresh(listing({ ...LISTED, completion_text_token_price: 37_700 }));
    const told = async (): Promise<string[]> => (await listAll<{ type: string; subject: string; value: string }>(admin, '/alerts')).filter(({ type, subject, value }) => type === 'price_changed' && subject === 'grok-4.3' && value.includes('"3.77"')).map(({ value }) => value);
    const [value] = await eventually(async () => (await told()).length > 0 && told());
    expect(value).toContain('"output_usd_per_million":"2.50"'); // what it was
    expect(await told()).toHaveLength(1);
  });

  it('goes on with the others where one entry is odd', async () => {
    await refresh(listing(null, { ...LISTED, prompt_text_token_price: 0 }, { ...LISTED, id: 'grok-4.6' }));
    expect(await get('grok-4.3')).toEqual(REVIEWED);
    expect(await get('grok-4.6')).toMatchObject({ source: 'provider', output_usd_per_million: '3.50' });
  });

  it('says nothing of images, nor takes their price away', async () => {
    await refresh(listing({ ...LISTED, id: 'grok-imagine-image' }));
    expect(await get('grok-imagine-image')).toMatchObject({ source: 'config', image_usd: '0.02' });
  });

  it('of a call under way changes nothing either', async () => {
    const response = await harness.request('POST', '/v1/chat/completions', { body: { model: 'grok-beta', messages: HELLO, stream: true, x_emulator: { output_tokens: 60, token_interval_ms: 50, reasoning_tokens: 0, usage: COUNTS } } });
    await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 1));
    await refresh(listing(LISTED));
    expect(runningCalls(harness.emulator)).toHaveLength(1);
    await response.text();
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(100n * 12_500n + 50n * 25_000n);
  });
});
