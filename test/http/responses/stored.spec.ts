import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { rm } from 'node:fs/promises';
import type { EmulatorFault } from '../../../src/sandbox/xai-emulator.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { configFolder, eventsIn, respond, textOf, type ResponseObject } from '../../support/responses.ts';
import { expectError, startRecorder, type Recorder } from '../../support/wire.ts';

// What the provider keeps: with a policy that lets developers of acme and globex have answers kept, but none of grok-pro's.

const POLICIES = `
policies:
  - name: roles
    rules:
      - { id: developers-invoke, effect: allow, actions: [invoke], models: ["*"], when: [{ attr: principal.roles, op: in, value: [developer] }] }
      - { id: kept-answers, effect: allow, actions: [store], models: ["*"], when: [{ attr: principal.tenant, op: in, value: [acme, globex] }, { attr: principal.roles, op: in, value: [developer] }] }
      - { id: pro-keeps-nothing, effect: deny, actions: [store], models: [grok-pro], reason: Answers of grok-pro are not kept. }
`;
const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const BYTES_PER_TOKEN = 2.5;

let harness: Harness;
let recorder: Recorder;
let folder: string;
beforeAll(async () => {
  folder = await configFolder({ 'policies.yaml': POLICIES });
  recorder = await startRecorder();
  harness = await startHarness({ emulator: { random: () => 0.5 }, env: { XAI_API_ENDPOINT: recorder.url, NOVIX_CONFIG_DIR: folder, XAI_RETRY_BACKOFF_MS: '20', XAI_BREAKER_FAILURES: '100000' } });
  recorder.forwardTo(harness.emulator.url);
});
afterAll(async () => {
  await harness.close();
  await recorder.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
  recorder.bodies.length = 0;
});

interface ItemList {
  object: string;
  data: { id: string; role: string; content: unknown }[];
  first_id: string;
  last_id: string;
  has_more: boolean;
}

async function kept(body: Record<string, unknown> = {}, token?: string): Promise<ResponseObject> {
  const response = await respond(harness, { model: NO_REASONING, store: true, ...body }, token === undefined ? {} : { token });
  expect(response.status).toBe(200);
  return (await response.json()) as ResponseObject;
}

async function rowsOf(id: string): Promise<Record<string, unknown>[]> {
  const { rows } = await harness.db.query<Record<string, unknown>>('SELECT tenant_id, model, deployment, context_tokens::int, expires_at - created_at > interval \'29 days\' AS kept FROM stored_responses WHERE id = $1', [id]);
  return rows;
}

/** Every way to get at a stored response. */
function ways(id: string): [string, (token?: string) => Promise<Response>][] {
  const with_ = (token?: string): { token?: string } => (token === undefined ? {} : { token });
  return [
    ['reading', (token) => harness.request('GET', `/v1/responses/${id}`, with_(token))],
    ['listing its input', (token) => harness.request('GET', `/v1/responses/${id}/input_items`, with_(token))],
    ['continuing', (token) => respond(harness, { model: NO_REASONING, previous_response_id: id }, with_(token))],
    ['continuing in a stream', (token) => respond(harness, { model: NO_REASONING, previous_response_id: id, stream: true }, with_(token))],
    ['continuing, and keeping', (token) => respond(harness, { model: NO_REASONING, previous_response_id: id, store: true }, with_(token))],
    ['deleting', (token) => harness.request('DELETE', `/v1/responses/${id}`, with_(token))],
  ];
}

/** Not one of the ways in leads anywhere, nothing goes upstream, and nobody learns whether it exists. */
async function expectNowhere(id: string, token?: string): Promise<void> {
  recorder.bodies.length = 0;
  const missing = await expectError(await harness.request('GET', '/v1/responses/0d6b6a38-90d3-4f7e-a2f5-7f6c5b1a2e10', token === undefined ? {} : { token }), 404, 'not_found');
  for (const [way, go] of ways(id)) {
    const response = await go(token);
    const error = await expectError(response, 404, 'not_found');
    expect({ way, message: error.message }).toEqual({ way, message: missing.message });
    await eventOf(harness, response.headers.get('x-request-id'), 'refusal');
    expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
  }
  expect(recorder.bodies).toHaveLength(0);
}

describe('keeping an answer', () => {
  it('is asked of the provider, belongs to the tenant, and is on record', async () => {
    const response = await respond(harness, { store: true, x_emulator: { reasoning_tokens: 11 } });
    const body = (await response.json()) as ResponseObject;
    expect(body.store).toBe(true);
    expect(harness.emulator.calls[0]!.body).toMatchObject({ store: true });
    expect(await rowsOf(body.id)).toEqual([{ tenant_id: 'acme', model: 'grok-beta', deployment: 'xai', context_tokens: body.usage.total_tokens, kept: true }]);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix).toMatchObject({ store: true });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'outcome')).unmapped.novix).toMatchObject({ stored_response: { change: 'keep', id: body.id } });
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.calls[0]!.billedUsdTicks);
  });

  it.each([['streamed', { stream: true }], ['cut by the output limit', { stream: true, max_output_tokens: 3, x_emulator: { output_tokens: 30 } }]])('works for a response that is %s', async (_, fields) => {
    const text = await (await respond(harness, { model: NO_REASONING, store: true, ...fields })).text();
    const { response } = eventsIn(text).at(-1)!;
    expect(await rowsOf(response!.id)).toHaveLength(1);
    expect(((await (await harness.request('GET', `/v1/responses/${response!.id}`)).json()) as ResponseObject).status).toBe(response!.status);
  });

  it.each([['absent', {}, true], ['null', { store: null }, true], ['true', { store: true }, true], ['false', { store: false }, false]])('where a policy allows it, store %s means what it means at the provider', async (_, fields, expected) => {
    const body = (await (await respond(harness, { model: NO_REASONING, ...fields })).json()) as ResponseObject;
    expect(harness.emulator.calls[0]!.body).toMatchObject({ store: expected });
    expect(body.store).toBe(expected);
    expect(await rowsOf(body.id)).toHaveLength(expected ? 1 : 0);
    if (!expected) await expectNowhere(body.id);
  });

  it('is refused where a rule denies it, and left out where the caller did not ask', async () => {
    const refused = await expectError(await respond(harness, { model: 'grok-pro', store: true }), 403, 'policy_denied');
    expect(refused.message).toContain('Answers of grok-pro are not kept.');
    expect(recorder.bodies).toHaveLength(0);
    const body = (await (await respond(harness, { model: 'grok-pro' })).json()) as ResponseObject;
    expect(harness.emulator.calls[0]!.body).toMatchObject({ model: 'grok-4.7', store: false });
    expect(await rowsOf(body.id)).toEqual([]);
  });

  it('is refused to a tenant that no rule lets keep anything', async () => {
    const token = await harness.token({ tenant: 'initech' });
    await expectError(await respond(harness, { model: NO_REASONING, store: true }, { token }), 403, 'policy_denied');
    expect(recorder.bodies).toHaveLength(0);
  });

  it('does not happen where the answer failed', async () => {
    const response = await respond(harness, { model: NO_REASONING, store: true, stream: true, x_emulator: { output_tokens: 9, error_frame_after: 3 } });
    await response.text();
    expect((await settled(harness, response.headers.get('x-request-id'))).outcome).toBe('failed');
    expect(await rowsOf(harness.emulator.calls[0]!.id)).toEqual([]);
    await expectNowhere(harness.emulator.calls[0]!.id);
  });

  it('is in the provider’s answer before the caller has its end: it can be read at once', async () => {
    for (let round = 0; round < 10; round++) {
      const { id } = await kept();
      expect((await harness.request('GET', `/v1/responses/${id}`)).status).toBe(200);
    }
  });
});

describe('reading a stored response', () => {
  it('gives what the provider keeps, costs nothing, and is one call on record', async () => {
    const body = await kept({ x_emulator: { content: 'Kept for later.' } });
    const response = await harness.request('GET', `/v1/responses/${body.id}`);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual(body);
    expect(response.headers.get('content-type')).toMatch(/^application\/json/);
    expect(response.headers.get('x-novix-cost-usd')).toBe('0.00');
    expect(await settled(harness, response.headers.get('x-request-id'))).toEqual({ outcome: 'completed', basis: 'provider', chargedTicks: 0n, heldTicks: 0n });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).api.operation).toBe('GET /v1/responses/:id');
    expect(recorder.bodies).toHaveLength(2);
  });

  it('is for everyone of the tenant who may call the model, and for nobody else', async () => {
    const body = await kept();
    expect((await harness.request('GET', `/v1/responses/${body.id}`, { token: await harness.token({ subject: 'colleague@acme.example' }) })).status).toBe(200);
    recorder.bodies.length = 0;
    await expectError(await harness.request('GET', `/v1/responses/${body.id}`, { token: await harness.token({ roles: ['billing'] }) }), 403, 'policy_denied');
    await expectError(await harness.request('DELETE', `/v1/responses/${body.id}`, { token: await harness.token({ roles: ['auditor'] }) }), 403, 'policy_denied');
    expect(recorder.bodies).toHaveLength(0);
  });

  it.each([[503, 503, 'provider_unavailable'], [500, 503, 'provider_unavailable'], [401, 502, 'provider_bad_response'], [504, 504, 'provider_timeout']])('where the provider fails with %d it is %d, and free', async (upstream, status, code) => {
    const { id } = await kept();
    harness.emulator.setFaults([{ path: '/v1/responses/*', status: upstream }]);
    const response = await harness.request('GET', `/v1/responses/${id}`);
    await expectError(response, status, code);
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
  });

  it('is tried again, as any call', async () => {
    const { id } = await kept();
    harness.emulator.setFaults([{ path: '/v1/responses/*', status: 503, calls: 2 }]);
    const response = await harness.request('GET', `/v1/responses/${id}`);
    expect(response.status).toBe(200);
    expect(response.headers.get('x-novix-attempts')).toBe('3');
  });

  it.each<[string, Omit<EmulatorFault, 'path'>]>([
    ['flat', { ok_with_error: true }],
    ['nested', { status: 200, body: { error: { message: 'did not respond', type: 'server_error' } } }],
    ['without a code', { status: 200, body: { error: 'did not respond' } }],
    ['as nothing', { status: 200, body: {} }],
  ])('an overload told as 200 is a bad answer: %s', async (_, fault) => {
    const { id } = await kept();
    harness.emulator.setFaults([{ path: '/v1/responses/*', ...fault }]);
    for (const method of ['GET', 'DELETE']) {
      const response = await harness.request(method, `/v1/responses/${id}`);
      expect((await expectError(response, 502, 'provider_bad_response')).message).not.toMatch(/did not respond/);
    }
    expect(await rowsOf(id)).toHaveLength(1);
  });
});

describe('listing what went in', () => {
  const input = ['One', 'Two', 'Three', 'Four'].map((content) => ({ role: 'user', content }));
  async function list(id: string, query = ''): Promise<ItemList> {
    const response = await harness.request('GET', `/v1/responses/${id}/input_items${query}`);
    expect(response.status).toBe(200);
    return (await response.json()) as ItemList;
  }
  const said = ({ data }: ItemList): unknown[] => data.map(({ content }) => content);

  it('gives the items in the order asked for, a page at a time', async () => {
    const { id } = await kept({ input });
    const all = await list(id);
    expect(all).toMatchObject({ object: 'list', has_more: false, first_id: all.data[0]!.id, last_id: all.data[3]!.id });
    expect(said(all)).toEqual(['One', 'Two', 'Three', 'Four']);
    expect(said(await list(id, '?order=desc'))).toEqual(['Four', 'Three', 'Two', 'One']);
    const page = await list(id, '?limit=3');
    expect(page.has_more).toBe(true);
    expect(said(await list(id, `?limit=3&after=${page.last_id}&order=asc`))).toEqual(['Four']);
    expect(said(await list(id, '?limit=100'))).toHaveLength(4);
  });

  it('costs nothing, and is one call on record', async () => {
    const { id } = await kept();
    const response = await harness.request('GET', `/v1/responses/${id}/input_items`);
    await response.text();
    expect(await settled(harness, response.headers.get('x-request-id'))).toEqual({ outcome: 'completed', basis: 'provider', chargedTicks: 0n, heldTicks: 0n });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).api.operation).toBe('GET /v1/responses/:id/input_items');
  });

  it.each([
    ['?limit=0', 'limit'], ['?limit=101', 'limit'], ['?limit=-1', 'limit'], ['?limit=1e1', 'limit'], ['?limit=', 'limit'], ['?limit=2&limit=3', 'limit'], ['?limit[]=2', 'limit[]'],
    ['?order=up', 'order'], ['?order=ASC', 'order'], ['?after=a%26limit%3D100', 'after'], ['?after=..%2F..%2Fmodels', 'after'], ['?after=', 'after'], ['?after=a%0d%0ax', 'after'],
    ['?include=reasoning.encrypted_content', 'include'], ['?before=x', 'before'], ['?x', 'x'], ['?__proto__=1', '__proto__'], ['?constructor=1', 'constructor'], ['?Limit=5', 'Limit'],
  ])('%s is refused, and goes nowhere', async (query, param) => {
    const { id } = await kept();
    recorder.bodies.length = 0;
    const response = await harness.request('GET', `/v1/responses/${id}/input_items${query}`);
    expect((await expectError(response, 400, 'invalid_request')).param).toBe(param);
    expect(recorder.bodies).toHaveLength(0);
  });
});

describe('deleting a stored response', () => {
  it('is done at the provider, free, on record, and final', async () => {
    const { id } = await kept();
    const response = await harness.request('DELETE', `/v1/responses/${id}`);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ id, object: 'response', deleted: true });
    expect(await settled(harness, response.headers.get('x-request-id'))).toEqual({ outcome: 'completed', basis: 'provider', chargedTicks: 0n, heldTicks: 0n });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'outcome')).unmapped.novix).toMatchObject({ stored_response: { change: 'forget', id } });
    expect(await rowsOf(id)).toEqual([]);
    await expectNowhere(id);
  });

  it('that fails changes nothing', async () => {
    const { id } = await kept();
    harness.emulator.setFaults([{ path: '/v1/responses/*', status: 503 }]);
    await expectError(await harness.request('DELETE', `/v1/responses/${id}`), 503, 'provider_unavailable');
    harness.emulator.setFaults([]);
    expect(await rowsOf(id)).toHaveLength(1);
    expect((await harness.request('GET', `/v1/responses/${id}`)).status).toBe(200);
  });

  it('of one leaves those that continue it', async () => {
    const first = await kept();
    const second = await kept({ previous_response_id: first.id });
    expect((await harness.request('DELETE', `/v1/responses/${first.id}`)).status).toBe(200);
    expect((await harness.request('GET', `/v1/responses/${second.id}`)).status).toBe(200);
  });
});

describe('continuing a stored response', () => {
  it('sends its id, holds for what is kept as well, and is charged what the provider billed', async () => {
    const first = await kept({ input: 'A word of the contract. '.repeat(400), x_emulator: { output_tokens: 100 } });
    expect(first.usage.total_tokens).toBeGreaterThan(2_000);
    const body = { model: NO_REASONING, input: 'And then?', previous_response_id: first.id, max_output_tokens: 16, store: false };
    const response = await harness.request('POST', '/v1/responses', { body });
    const second = (await response.json()) as ResponseObject;
    const upstream = harness.emulator.calls[1]!;
    expect(second.previous_response_id).toBe(first.id);
    expect(upstream.body).toMatchObject({ previous_response_id: first.id, input: 'And then?', store: false });
    expect(upstream.promptTokens).toBeGreaterThan(2_000);
    const intent = await eventOf(harness, response.headers.get('x-request-id'), 'intent');
    const inputTokens = Math.ceil(JSON.stringify(body).length / BYTES_PER_TOKEN) + first.usage.total_tokens;
    expect(intent.unmapped.novix.plan).toMatchObject({ input_tokens: inputTokens });
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ basis: 'provider', chargedTicks: upstream.billedUsdTicks, heldTicks: BigInt(inputTokens) * 12_500n + 16n * 25_000n });
    expect(record.chargedTicks).toBeLessThanOrEqual(record.heldTicks);
  });

  it('goes on from turn to turn, each held for all before it', async () => {
    let previous = await kept({ x_emulator: { output_tokens: 50 } });
    for (let turn = 0; turn < 4; turn++) {
      const response = await respond(harness, { model: NO_REASONING, store: true, previous_response_id: previous.id, max_output_tokens: 60, x_emulator: { output_tokens: 50 } });
      const body = (await response.json()) as ResponseObject;
      expect(body.usage.input_tokens).toBeGreaterThan(previous.usage.input_tokens);
      expect(await rowsOf(body.id)).toMatchObject([{ context_tokens: body.usage.total_tokens }]);
      const record = await settled(harness, response.headers.get('x-request-id'));
      expect(record.chargedTicks).toBe(harness.emulator.calls.at(-1)!.billedUsdTicks);
      expect(record.chargedTicks).toBeLessThanOrEqual(record.heldTicks);
      previous = body;
    }
  });

  it('has no name for the conversation but that of what it continues', async () => {
    const first = await kept({ prompt_cache_key: 'thread' });
    await kept({ previous_response_id: first.id, prompt_cache_key: 'thread', input: 'A clause. '.repeat(400) });
    const [one, two] = harness.emulator.calls;
    expect(one!.body).toHaveProperty('prompt_cache_key', one!.headers['x-grok-conv-id']);
    expect(two!.body).not.toHaveProperty('prompt_cache_key');
    expect(two!.headers).not.toHaveProperty('x-grok-conv-id');
  });

  it('of which nobody knows what it used is held for by what was seen, and all before it', async () => {
    const first = await kept({ input: 'A word of the contract. '.repeat(400), x_emulator: { output_tokens: 100 } });
    const second = await kept({ previous_response_id: first.id, input: 'Hi', x_emulator: { no_usage: true, output_tokens: 100 } });
    expect(second.usage).toBeUndefined();
    const response = await respond(harness, { model: NO_REASONING, previous_response_id: second.id, max_output_tokens: 16, store: false, x_emulator: { output_tokens: 16 } });
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record.chargedTicks).toBe(harness.emulator.calls.at(-1)!.billedUsdTicks);
    expect(record.heldTicks).toBeGreaterThanOrEqual(BigInt(harness.emulator.calls.at(-1)!.promptTokens) * 12_500n + 16n * 25_000n);
  });

  it('may be streamed, and by another model', async () => {
    const first = await kept();
    const response = await respond(harness, { model: 'grok-beta', stream: true, store: false, previous_response_id: first.id, x_emulator: { content: 'Going on.' } });
    const last = eventsIn(await response.text()).at(-1)!;
    expect(last).toMatchObject({ type: 'response.completed', response: { previous_response_id: first.id, model: 'grok-4.3' } });
    expect(textOf(last.response!)).toBe('Going on.');
  });

  it('with instructions is what the provider refuses, free', async () => {
    const first = await kept();
    const response = await respond(harness, { previous_response_id: first.id, instructions: 'Be brief.' });
    await expectError(response, 400, 'invalid_request');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', chargedTicks: 0n });
  });

  it('does not fit the call’s own cap where only what is kept is too long', async () => {
    const first = await kept({ input: 'A word of the contract. '.repeat(2_000) });
    const call = (previous: string | undefined): Promise<Response> => respond(harness, { model: NO_REASONING, max_output_tokens: 16, previous_response_id: previous, store: false }, { headers: { 'x-novix-max-cost-usd': '0.005' } });
    expect((await call(undefined)).status).toBe(200);
    await expectError(await call(first.id), 402, 'request_cost_exceeded');
  });
});

describe('a stored response of another tenant', () => {
  it('is not there, in whichever way it is asked for, and stays as it is', async () => {
    const body = await kept();
    await expectNowhere(body.id, await harness.token({ tenant: 'globex' }));
    await expectNowhere(body.id, await harness.token({ tenant: 'initech' }));
    await expectNowhere(body.id, await harness.token({ tenant: 'globex', subject: 'dev@acme.example' }));
    expect(await (await harness.request('GET', `/v1/responses/${body.id}`)).json()).toEqual(body);
  });

  it('is not there for the platform’s own people either', async () => {
    const { id } = await kept();
    await expectNowhere(id, await harness.token({ tenant: 'platform', roles: ['platform-admin', 'developer'] }));
    expect(await rowsOf(id)).toHaveLength(1);
  });

  it('is theirs, and theirs to delete', async () => {
    const token = await harness.token({ tenant: 'globex' });
    const { id } = await kept({}, token);
    expect(await rowsOf(id)).toMatchObject([{ tenant_id: 'globex' }]);
    await expectNowhere(id);
    expect((await harness.request('DELETE', `/v1/responses/${id}`, { token })).status).toBe(200);
  });
});

describe('a stored response that the provider has lost', () => {
  it.each<[string, (id: string) => Promise<Response>]>([
    ['reading', (id) => harness.request('GET', `/v1/responses/${id}`)],
    ['listing its input', (id) => harness.request('GET', `/v1/responses/${id}/input_items`)],
    ['deleting', (id) => harness.request('DELETE', `/v1/responses/${id}`)],
    ['continuing', (id) => respond(harness, { model: NO_REASONING, previous_response_id: id })],
    ['continuing in a stream', (id) => respond(harness, { model: NO_REASONING, previous_response_id: id, stream: true })],
  ])('is not there: %s, which is free', async (way, go) => {
    const { id } = await kept();
    harness.emulator.reset();
    const response = await go(id);
    expect((await expectError(response, 404, 'not_found')).type).toBe('invalid_request_error');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
    expect({ way, rows: (await rowsOf(id)).length }).toEqual({ way, rows: way.startsWith('continuing') ? 1 : 0 });
  });
});

describe('a stored response that is over', () => {
  it('is not there after 30 days', async () => {
    const { id } = await kept();
    await harness.db.query("UPDATE stored_responses SET expires_at = now() - interval '1 second' WHERE id = $1", [id]);
    await expectNowhere(id);
    expect(await rowsOf(id)).toHaveLength(1); // it is only over
  });

  it.each(['resp_x', '%', "a' OR '1'='1", 'A'.repeat(128), 'x-_'])('and one that never was: %s', async (id) => {
    for (const way of ['', '/input_items']) await expectError(await harness.request('GET', `/v1/responses/${encodeURIComponent(id)}${way}`), 404, 'not_found');
    await expectError(await harness.request('DELETE', `/v1/responses/${encodeURIComponent(id)}`), 404, 'not_found');
    expect((await expectError(await respond(harness, { previous_response_id: id }), 404, 'not_found')).param).toBe('previous_response_id');
    expect(recorder.bodies).toHaveLength(0);
  });
});

describe('a caller who hangs up while a response is read', () => {
  it('is noticed upstream, and the call is settled', async () => {
    const { id } = await kept();
    harness.emulator.setFaults([{ path: '/v1/responses/*', stall_before_headers: true }]);
    const subject = `leaver-${crypto.randomUUID()}`;
    const aborter = new AbortController();
    const asked = harness.request('GET', `/v1/responses/${id}`, { token: await harness.token({ subject }), signal: aborter.signal });
    asked.catch(() => {}); // it is aborted
    await eventually(() => recorder.bodies.length === 2);
    aborter.abort();
    const outcome = await eventually(async () => {
      const { rows } = await harness.db.query<{ outcome: string; charged_ticks: string }>('SELECT outcome, charged_ticks FROM settlements WHERE subject = $1', [subject]);
      return rows[0];
    }, 1_000);
    expect(outcome).toEqual({ outcome: 'aborted', charged_ticks: '0' });
  });
});

describe('the books', () => {
  it('have one intent and one outcome of every call, the sum of all charges, and nothing held', async () => {
    await expectBooksClosed(harness.db, 'globex');
    const sums = await expectBooksClosed(harness.db);
    expect(sums.calls).toBeGreaterThan(50);
  });
});
