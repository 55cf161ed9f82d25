import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { respond } from '../../support/responses.ts';
import { expectError, rawRequest, type ErrorAnswer } from '../../support/wire.ts';

const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const MULTI_AGENT = 'grok-4.20-multi-agent';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const ID = '0d6b6a38-90d3-4f7e-a2f5-7f6c5b1a2e10';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '0' } });
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => harness.emulator.reset());

/** Refused before anything was spent: nothing upstream, no hold, and the refusal on record. */
async function expectRefused(response: Response, status: number, code: string, operation = 'POST /v1/responses'): Promise<ErrorAnswer['error']> {
  const error = await expectError(response, status, code);
  expect(response.headers.get('x-should-retry')).toBe('false');
  expect(harness.emulator.calls).toHaveLength(0);
  const requestId = response.headers.get('x-request-id');
  expect(await eventOf(harness, requestId, 'refusal')).toMatchObject({ status_code: code, api: { operation, response: { code: status } } });
  expect(await eventsOf(harness, requestId)).toHaveLength(1);
  return error;
}

describe('400: a body that does not fit the schema names the field', () => {
  const input = (part: unknown): unknown => [{ role: 'user', content: [{ type: 'input_text', text: 'Hi' }, part] }];
  const bodies: [Record<string, unknown>, string][] = [
    [{ input: undefined }, 'input'],
    [{ input: null }, 'input'],
    [{ input: [] }, 'input'],
    [{ input: 5 }, 'input'],
    [{ input: {} }, 'input'],
    [{ input: ['Hello'] }, 'input[0]'],
    [{ input: [null] }, 'input[0]'],
    [{ input: [{ role: 'user', content: 'Hi' }, { role: 'user', content: 5 }] }, 'input[1].content'],
    [{ input: [{ role: 5, content: 'Hi' }] }, 'input[0].role'],
    [{ input: [{ type: 7, role: 'user', content: 'Hi' }] }, 'input[0].type'],
    [{ input: input('Hi') }, 'input[0].content[1]'],
    [{ input: input({ text: 'Hi' }) }, 'input[0].content[1].type'],
    [{ input: [{ type: 'function_call_output', call_id: 'c', output: 5 }] }, 'input[0].output'],
    [{ model: 5 }, 'model'],
    [{ model: '' }, 'model'],
    [{ instructions: ['Be brief.'] }, 'instructions'],
    [{ previous_response_id: 5 }, 'previous_response_id'],
    [{ store: 'true' }, 'store'],
    [{ store: 1 }, 'store'],
    [{ stream: 'true' }, 'stream'],
    [{ max_output_tokens: 0 }, 'max_output_tokens'],
    [{ max_output_tokens: -1 }, 'max_output_tokens'],
    [{ max_output_tokens: 1.5 }, 'max_output_tokens'],
    [{ max_output_tokens: '100' }, 'max_output_tokens'],
    [{ temperature: 2.1 }, 'temperature'],
    [{ top_p: -1 }, 'top_p'],
    [{ reasoning: 'high' }, 'reasoning'],
    [{ reasoning: { effort: 3 } }, 'reasoning.effort'],
    [{ reasoning_effort: 3 }, 'reasoning_effort'],
    [{ text: 'json' }, 'text'],
    [{ text: { format: 'json' } }, 'text.format'],
    [{ text: { format: {} } }, 'text.format.type'],
    [{ tools: {} }, 'tools'],
    [{ tools: [{}] }, 'tools[0].type'],
    [{ tools: Array.from({ length: 351 }, () => ({ type: 'function', name: 'f' })) }, 'tools'],
    [{ service_tier: 1 }, 'service_tier'],
    [{ prompt_cache_key: 7 }, 'prompt_cache_key'],
    [{ user: 7 }, 'user'],
  ];
  it.each(bodies.map(([fields, param]) => [JSON.stringify(fields).slice(0, 70), param, fields] as const))('%s: %s', async (_, param, fields) => {
    const error = await expectRefused(await respond(harness, fields), 400, 'invalid_request');
    expect(error.param).toBe(param);
    expect(error.message).toContain(param);
  });

  it.each([
    ['store', '{"input":"Hi","store":false,"store":true}', 'store'],
    ['store, once with an escape', '{"input":"Hi","store":false,"stor\\u0065":true}', 'store'],
    ['the type of a tool', '{"input":"Hi","tools":[{"type":"web_search","type":"function","name":"f"}]}', 'tools[0].type'],
    ['the type of an item', '{"input":[{"type":"item_reference","type":"message","role":"user","content":"Hi","id":"x"}]}', 'input[0].type'],
  ])('a field given twice is refused, since two readers would see two requests: %s', async (_, body, param) => {
    expect((await expectRefused(await harness.request('POST', '/v1/responses', { body }), 400, 'invalid_request')).param).toBe(param);
  });

  it.each([['nothing', ''], ['no JSON', '{"input":'], ['an array', '[]'], ['too many levels', `{"input":"Hi","x":${'['.repeat(1_000)}${']'.repeat(1_000)}}`]])('a body that is %s', async (_, body) => {
    const response = await harness.request('POST', '/v1/responses', { body, headers: { 'content-type': 'application/json' } });
    expect((await expectRefused(response, 400, 'invalid_request')).param).toBeNull();
  });
});

describe('400: what a model or the gateway does not offer', () => {
  const user = { role: 'user', content: 'Hi' };
  const part = (content: unknown): Record<string, unknown> => ({ input: [user, { role: 'user', content: [{ type: 'input_text', text: 'Hi' }, content] }] });
  const bodies: [string, Record<string, unknown>, string][] = [
    ...['web_search', 'x_search', 'code_interpreter', 'file_search', 'image_generation', 'mcp', 'shell', 'tool_search', 'live_search', 'Function', 'custom'].map((type): [string, Record<string, unknown>, string] =>
      [`a tool that the provider runs: ${type}`, { tools: [{ type: 'function', name: 'f' }, { type }] }, 'tools[1].type']),
    ['a file by its id', part({ type: 'input_file', file_id: 'file_1' }), 'input[1].content'],
    ['a file by its URL', part({ type: 'input_file', file_url: 'https://example.com/a.pdf' }), 'input[1].content'],
    ['an image by the id of a file', part({ type: 'input_image', file_id: 'file_1' }), 'input[1].content'],
    ['an image by the id of a file, beside its URL', part({ type: 'input_image', image_url: 'https://example.com/a.png', file_id: 'file_1' }), 'input[1].content'],
    ['the short form of a reference', { input: [user, { id: 'msg_1' }] }, 'input[1].type'],
    ['audio', part({ type: 'input_audio', data: '' }), 'input[1].content'],
    ['a file in a function’s result', { input: [user, { type: 'function_call_output', call_id: 'c', output: [{ type: 'input_file', file_id: 'file_1' }] }] }, 'input[1].content'],
    ['a reference to an item that the provider keeps', { input: [user, { type: 'item_reference', id: 'msg_1' }] }, 'input[1].type'],
    ['a compacted conversation', { input: [{ type: 'compaction', id: 'cmp_1', encrypted_content: 'x' }, user] }, 'input[0].type'],
    ['a call of a tool of the provider’s', { input: [user, { type: 'web_search_call', id: 'ws_1', status: 'completed' }] }, 'input[1].type'],
    ['a shell’s result', { input: [user, { type: 'shell_call_output', call_id: 'c', output: 'x' }] }, 'input[1].type'],
    ['presence_penalty on a reasoning model', { presence_penalty: 0 }, 'presence_penalty'],
    ['stop on a reasoning model', { stop: ['.'] }, 'stop'],
    ['an effort that the model does not know', { reasoning: { effort: 'xhigh' } }, 'reasoning.effort'],
    ['the same by its other name', { reasoning_effort: 'xhigh' }, 'reasoning_effort'],
    ['effort none on a model that always reasons', { model: 'grok-pro', reasoning: { effort: 'none' } }, 'reasoning.effort'],
    ['an effort on a model that does not reason', { model: NO_REASONING, reasoning: { effort: 'low' } }, 'reasoning.effort'],
    ['max_output_tokens on a model of many agents', { model: MULTI_AGENT, max_output_tokens: 100 }, 'max_output_tokens'],
    ['a model that makes images', { model: 'grok-imagine-image' }, 'model'],
  ];
  it.each(bodies)('%s', async (_, fields, param) => {
    for (const stream of [false, true]) {
      const error = await expectRefused(await respond(harness, { stream, ...fields }), 400, 'unsupported_parameter');
      expect(error.param).toBe(param);
      expect(error.type).toBe('invalid_request_error');
    }
  });

  it('null means absent, as for the provider', async () => {
    const response = await respond(harness, { model: MULTI_AGENT, max_output_tokens: null, reasoning: null, reasoning_effort: null, tools: null, text: null, previous_response_id: null, store: null, instructions: null, prompt_cache_key: null });
    expect(response.status).toBe(200);
    await response.text();
  });

  it.each([['an unknown header value', { 'x-novix-data-class': 'secret' }, 'x-novix-data-class'], ['a deadline of 0', { 'x-novix-deadline-ms': '0' }, 'x-novix-deadline-ms']])('%s', async (_, headers, param) => {
    expect((await expectRefused(await respond(harness, {}, { headers }), 400, 'invalid_request')).param).toBe(param);
  });

  it.each([[400, 'invalid_request'], [422, 'invalid_request'], [413, 'invalid_request']])('what the provider refuses with %d is the caller’s fault, and free', async (status, code) => {
    for (const stream of [false, true]) {
      const response = await respond(harness, { stream, x_emulator: { status } });
      await expectError(response, 400, code);
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
    }
  });

  it('content under the provider’s usage guidelines is content_refused, in our own words', async () => {
    const response = await respond(harness, { x_emulator: { status: 403, body: { code: 'permission-denied', error: 'Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO' } } });
    expect((await expectError(response, 400, 'content_refused')).message).not.toContain('SAFETY_CHECK');
  });
});

describe('401', () => {
  it.each([['POST', '/v1/responses'], ['GET', `/v1/responses/${ID}`], ['DELETE', `/v1/responses/${ID}`], ['GET', `/v1/responses/${ID}/input_items`]])('%s %s needs a token', async (method, path) => {
    for (const token of [null, 'not-a-token']) {
      const response = await harness.request(method, path, { token, ...(method === 'POST' && { body: { model: 'grok-beta', input: 'Hi' } }) });
      expect(response.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"');
      await expectError(response, 401, 'invalid_token');
    }
    expect(harness.emulator.calls).toHaveLength(0);
  });
});

describe('402', () => {
  it('a tenant without a budget may spend nothing, streamed or plain', async () => {
    await harness.request('POST', '/admin/v1/tenants', { token: await harness.adminToken(), body: { id: 'penniless', name: 'Penniless', tier: 'standard' } });
    const token = await harness.token({ tenant: 'penniless' });
    for (const stream of [false, true]) {
      expect((await expectRefused(await respond(harness, { stream }, { token }), 402, 'budget_exceeded')).type).toBe('insufficient_quota');
    }
  });

  it('the call’s own cap is too small for the shortest answer', async () => {
    const error = await expectRefused(await respond(harness, {}, { headers: { 'x-novix-max-cost-usd': '0.0001' } }), 402, 'request_cost_exceeded');
    expect(error.message).toContain('x-novix-max-cost-usd');
  });
});

describe('403: denied unless a rule allows it', () => {
  it.each([['no role', []], ['billing', ['billing']], ['auditor', ['auditor']]])('%s may not call', async (_, roles) => {
    const response = await respond(harness, {}, { token: await harness.token({ roles }) });
    const error = await expectRefused(response, 403, 'policy_denied');
    expect(error.type).toBe('permission_error');
    expect(error.decision_id).toMatch(UUID);
  });

  it('restricted data does not go to grok-beta', async () => {
    const error = await expectRefused(await respond(harness, {}, { headers: { 'x-novix-data-class': 'restricted' } }), 403, 'policy_denied');
    expect(error.message).toContain('Restricted data may not go to grok-beta');
  });

  it('store: true, where no rule allows the provider to keep answers, goes nowhere, streamed or plain', async () => {
    for (const stream of [false, true]) {
      const response = await respond(harness, { store: true, stream });
      const error = await expectRefused(response, 403, 'policy_denied');
      expect(error.message).toContain('store: false');
      expect(error.decision_id).toMatch(UUID);
      expect((await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).unmapped.novix.decision).toMatchObject({ id: error.decision_id });
    }
    expect((await harness.db.query('SELECT id FROM stored_responses')).rows).toEqual([]);
  });
});

describe('404', () => {
  it.each(['grok-99', 'GROK-BETA', '__proto__', 'grok-beta '])('there is no model %j', async (model) => {
    expect((await expectRefused(await respond(harness, { model }), 404, 'model_not_found')).param).toBe('model');
  });

  it.each([ID, '', 'x', '../responses', "' OR 1=1 --", `${ID}/input_items`, 'x'.repeat(200), `${ID}\u0000`, '🦊'])('there is no previous response %j', async (id) => {
    for (const fields of [{}, { stream: true }, { store: false }]) {
      const error = await expectRefused(await respond(harness, { previous_response_id: id, ...fields }), 404, 'not_found');
      expect(error.param).toBe('previous_response_id');
      expect(error.message).toBe('There is no such stored response. Responses are kept only where a policy allows it, for 30 days.');
    }
  });

  it.each([ID, 'x', '%2e%2e', '..', 'a%2Fb', 'a%00b', '%F0%9F%A6%8A', '%27%20OR%201%3D1', 'x'.repeat(100), '%25', '__proto__', ''])('there is no stored response %s', async (id) => {
    const headers = { authorization: `Bearer ${await harness.token()}` };
    for (const [method, below] of [['GET', ''], ['GET', '/input_items'], ['DELETE', '']] as const) {
      const answer = await rawRequest(harness.url, `/v1/responses/${id}${below}`, { method, headers });
      expect({ method, below, status: answer.status }).toEqual({ method, below, status: 404 });
      expect(JSON.parse(answer.body)).toEqual({ error: { message: expect.any(String), type: 'invalid_request_error', code: 'not_found', param: null } });
      // No intent, so nothing went upstream.
      await eventOf(harness, String(answer.headers['x-request-id']), 'refusal');
      expect(await eventsOf(harness, String(answer.headers['x-request-id']))).toHaveLength(1);
    }
  });

  it.each(['PUT', 'PATCH', 'OPTIONS'])('the method %s on a stored response is not there', async (method) => {
    const answer = await rawRequest(harness.url, `/v1/responses/${ID}`, { method, headers: { authorization: `Bearer ${await harness.token()}` } });
    expect(answer.status).toBe(404);
  });

  it('there is no list of responses', async () => {
    expect((await expectError(await harness.request('GET', '/v1/responses'), 404, 'not_found')).type).toBe('invalid_request_error');
  });
});
