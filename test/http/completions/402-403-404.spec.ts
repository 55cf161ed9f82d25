import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError, rawRequest } from '../../support/wire.ts';

let harness: Harness;
let admin: string;
beforeAll(async () => {
  harness = await startHarness();
  admin = await harness.adminToken();
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => harness.emulator.reset());

const BODY = { model: 'grok-beta', messages: HELLO };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

async function make(path: string, body: unknown): Promise<Record<string, string>> {
  const response = await harness.request('POST', `/admin/v1/${path}`, { token: admin, body });
  expect(response.status).toBe(201);
  return (await response.json()) as Record<string, string>;
}

/** A new tenant, with a budget where a limit is given, and a developer's token of it. */
async function tenant(id: string, limitUsd?: string): Promise<{ token: string; budgetId: string }> {
  await make('tenants', { id, name: id, tier: 'standard' });
  const budgetId = limitUsd === undefined ? '' : (await make('budgets', { tenant: id, scope: { type: 'tenant' }, window: 'total', limit_usd: limitUsd }))['id']!;
  return { token: await harness.token({ tenant: id }), budgetId };
}

function complete(token: string, headers: Record<string, string> = {}, body: Record<string, unknown> = {}): Promise<Response> {
  return harness.request('POST', '/v1/chat/completions', { token, headers, body: { ...BODY, ...body } });
}

async function expectRefused(response: Response, status: number, code: string): Promise<{ message: string; type: string; param: string | null; decision_id?: string }> {
  const error = await expectError(response, status, code);
  expect(response.headers.get('x-should-retry')).toBe('false');
  expect(response.headers.get('retry-after')).toBeNull();
  expect(harness.emulator.calls).toHaveLength(0);
  const requestId = response.headers.get('x-request-id');
  expect(await eventOf(harness, requestId, 'refusal')).toMatchObject({ status_code: code, api: { response: { code: status } } });
  expect(await eventsOf(harness, requestId)).toHaveLength(1); // no intent: nothing was held
  return error;
}

describe('402: a tenant without any budget', () => {
  it('may spend nothing, in plain answers and streams', async () => {
    const { token } = await tenant('penniless');
    for (const stream of [false, true]) {
      const error = await expectRefused(await complete(token, {}, { stream }), 402, 'budget_exceeded');
      expect(error.type).toBe('insufficient_quota');
    }
  });

  it('may spend once it has one, with the next request', async () => {
    const { token } = await tenant('late');
    await expectRefused(await complete(token), 402, 'budget_exceeded');
    await make('budgets', { tenant: 'late', scope: { type: 'tenant' }, window: 'month', limit_usd: '1.00' });
    expect((await complete(token)).status).toBe(200);
  });

  it('may still see the models', async () => {
    const token = await harness.token({ tenant: 'penniless' });
    expect((await harness.request('GET', '/v1/models', { token })).status).toBe(200);
  });
});

describe('402: a budget', () => {
  it('of zero lets nothing through', async () => {
    const { token } = await tenant('zero', '0.00');
    expect(await expectRefused(await complete(token), 402, 'budget_exceeded')).toMatchObject({ type: 'insufficient_quota', param: null });
  });

  it('lets a call through whose hold fits to the tick, and refuses it one tick below', async () => {
    const { token, budgetId } = await tenant('exact', '5.00');
    const first = await complete(token, {}, { x_emulator: { cost_usd_ticks: 0 } });
    const { heldTicks } = await settled(harness, first.headers.get('x-request-id'));
    expect(heldTicks).toBeGreaterThan(0n);
    const limit = async (ticks: bigint): Promise<void> => {
      const response = await harness.request('PATCH', `/admin/v1/budgets/${budgetId}`, { token: admin, body: { limit_usd: `0.${String(ticks).padStart(10, '0')}` } });
      expect(response.status).toBe(200);
    };
    harness.emulator.reset();
    await limit(heldTicks - 1n);
    await expectRefused(await complete(token, {}, { x_emulator: { cost_usd_ticks: 0 } }), 402, 'budget_exceeded');
    await limit(heldTicks);
    expect((await complete(token, {}, { x_emulator: { cost_usd_ticks: 0 } })).status).toBe(200);
  });

  it('that one person has used up stops that person alone', async () => {
    await tenant('shared', '5.00');
    await make('budgets', { tenant: 'shared', scope: { type: 'user', id: 'spender' }, window: 'day', limit_usd: '0.000001' });
    await expectRefused(await complete(await harness.token({ tenant: 'shared', subject: 'spender' })), 402, 'budget_exceeded');
    expect((await complete(await harness.token({ tenant: 'shared', subject: 'saver' }))).status).toBe(200);
  });

  it.each([
    ['team', { type: 'team', id: 'bi' }],
    ['model', { type: 'model', id: 'grok-beta' }],
  ])('of a %s that is too small stops what belongs to it, and nothing else', async (type, scope) => {
    await tenant(`by-${type}`, '5.00');
    await make('budgets', { tenant: `by-${type}`, scope, window: 'total', limit_usd: '0.000001' });
    const inside = await harness.token({ tenant: `by-${type}`, attributes: { team: 'bi' } });
    const outside = await harness.token({ tenant: `by-${type}`, attributes: { team: 'hr' } });
    await expectRefused(await complete(inside), 402, 'budget_exceeded');
    expect((await complete(outside, {}, { model: 'grok-pro' })).status).toBe(200);
  });

  it('is worn down by what was spent, until nothing more fits', async () => {
    const { token } = await tenant('wearing', '0.03');
    const spend = { x_emulator: { cost_usd_ticks: 120_000_000 } }; // 0.012 USD each, a little less than is held
    expect((await complete(token, {}, spend)).status).toBe(200);
    expect((await complete(token, {}, spend)).status).toBe(200);
    harness.emulator.reset();
    await expectRefused(await complete(token, {}, spend), 402, 'budget_exceeded');
  });
});

describe('402: the call’s own cap', () => {
  it.each(['0', '0.00', '0.0000000001', '0.001'])('of %s USD is too small for the shortest answer of a reasoning model', async (usd) => {
    const error = await expectRefused(await complete(await harness.token(), { 'x-novix-max-cost-usd': usd }), 402, 'request_cost_exceeded');
    expect(error.type).toBe('insufficient_quota');
  });

  it('too small for the prompt alone', async () => {
    const messages = [{ role: 'user', content: 'word '.repeat(20_000) }];
    const error = await expectRefused(await complete(await harness.token(), { 'x-novix-max-cost-usd': '0.01' }, { model: 'grok-4.20-0309-non-reasoning', messages }), 402, 'request_cost_exceeded');
    expect(error.message).toContain('x-novix-max-cost-usd');
  });

  it('that is large enough changes nothing', async () => {
    expect((await complete(await harness.token(), { 'x-novix-max-cost-usd': '1' })).status).toBe(200);
  });
});

describe('403: denied unless a rule allows it', () => {
  it.each([
    ['no role', []],
    ['billing', ['billing']],
    ['auditor', ['auditor']],
    ['an unknown role', ['wizard']],
    ['a role in other letters', ['Developer']],
    ['platform-admin, claimed by another tenant', ['platform-admin']],
  ])('%s', async (_, roles) => {
    const response = await complete(await harness.token({ roles }));
    const error = await expectRefused(response, 403, 'policy_denied');
    expect(error.type).toBe('permission_error');
    expect(error.decision_id).toMatch(UUID);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).unmapped.novix.decision).toMatchObject({ id: error.decision_id });
  });

  it.each([['developer', 'acme'], ['tenant-admin', 'acme'], ['platform-admin', 'platform']])('%s of %s may call', async (role, tenantId) => {
    if (tenantId === 'platform') await make('budgets', { tenant: 'platform', scope: { type: 'tenant' }, window: 'total', limit_usd: '1.00' });
    expect((await complete(await harness.token({ tenant: tenantId, roles: [role] }))).status).toBe(200);
  });

  it('restricted data does not go to grok-beta, and the record says by which rule', async () => {
    for (const stream of [false, true]) {
      const response = await complete(await harness.token(), { 'x-novix-data-class': 'restricted' }, { stream });
      const error = await expectRefused(response, 403, 'policy_denied');
      expect(error.decision_id).toMatch(UUID);
      expect(error.message).toContain('Restricted data may not go to grok-beta');
      expect((await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).unmapped.novix.decision).toMatchObject({ id: error.decision_id, rule: 'restricted-data-stays-off-grok-beta' });
    }
  });

  it.each([['grok-pro', 'restricted'], ['grok-enterprise', 'restricted'], ['grok-beta', 'confidential'], ['grok-beta', 'public']])('%s takes %s data', async (model, dataClass) => {
    expect((await complete(await harness.token(), { 'x-novix-data-class': dataClass }, { model })).status).toBe(200);
  });

  it('each refusal is a decision of its own', async () => {
    const token = await harness.token({ roles: [] });
    const ids = await Promise.all([1, 2, 3].map(async () => (await expectError(await complete(token), 403, 'policy_denied')).decision_id));
    expect(new Set(ids).size).toBe(3);
  });
});

describe('404: a model that is not there', () => {
  it.each(['grok-99', 'gpt-4o', 'GROK-BETA', ' grok-beta', 'grok-beta ', '__proto__', 'constructor', 'toString', 'grok-beta\u0000', '*'])('%j', async (model) => {
    const error = await expectRefused(await complete(await harness.token(), {}, { model }), 404, 'model_not_found');
    expect(error.param).toBe('model');
  });

  it('comes before the policy tells who may use what', async () => {
    const error = await expectRefused(await complete(await harness.token({ roles: [] }), {}, { model: 'grok-99' }), 404, 'model_not_found');
    expect(error).not.toHaveProperty('decision_id');
  });

  it('that the provider no longer offers is the same to the caller, and free', async () => {
    const response = await harness.complete({ x_emulator: { status: 404 } });
    const error = await expectError(response, 404, 'model_not_found');
    expect(error.message).not.toContain('6f0a3d52');
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
  });
});

describe('404: a path that is not there', () => {
  const headers = async (withToken: boolean): Promise<Record<string, string>> => ({ 'content-type': 'application/json', ...(withToken && { authorization: `Bearer ${await harness.token()}` }) });
  const tricks = [
    '/v1//chat/completions', '//v1/chat/completions', '/V1/Chat/Completions', '/v1/chat/Completions', '/v1/chat/completions/', '/v1/chat%2Fcompletions', '/v1/chat%2fcompletions', '/v1%2Fchat%2Fcompletions',
    '/v1/chat/completions;x', '/v1;a=b/chat/completions', '/v1/./chat/completions', '/v1/x/../chat/completions', '/v1/chat/completions/..', '/v1/chat/completions%00', '/v1/chat/completions%20', '/v1/chat\\completions',
    '/v1/chat/completions%3Fx', '/v1/%2e/chat/completions', '/v1/x/%2e%2e/chat/completions', '/v1/chat/completions.json', '/v2/chat/completions', '/chat/completions', '/admin/../v1/chat/completions', '/',
  ];
  it.each(tricks)('%s is no way in, with a token or without', async (path) => {
    for (const withToken of [false, true]) {
      const answer = await rawRequest(harness.url, path, { method: 'POST', headers: await headers(withToken), body: JSON.stringify(BODY) });
      expect(answer.status).toBe(404);
      expect(JSON.parse(answer.body)).toEqual({ error: { message: expect.any(String), type: 'invalid_request_error', code: 'not_found', param: null } });
      expect(answer.headers['x-request-id']).toMatch(UUID);
    }
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each(['/v1/%63hat/completions', '/v1/chat/completion%73', '/v1/chat/completions?x=1', '/v1/chat/completions?', '/v1/chat/completions#x'])('%s is another spelling of the route, and as closed', async (path) => {
    const answer = await rawRequest(harness.url, path, { method: 'POST', headers: await headers(false), body: JSON.stringify(BODY) });
    expect([401, 404]).toContain(answer.status);
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each(['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD', 'TRACE', 'PROPFIND'])('the method %s on the route is not there', async (method) => {
    const answer = await rawRequest(harness.url, '/v1/chat/completions', { method, headers: await headers(true) });
    expect([400, 404]).toContain(answer.status); // 400: a method that is no method here
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each(['/%', '/v1/%ZZ', '/v1/models/%C3%28'])('%s is not well formed, which is the caller’s fault', async (path) => {
    const answer = await rawRequest(harness.url, path, { headers: await headers(true) });
    expect([400, 404]).toContain(answer.status);
    expect(JSON.parse(answer.body)).toEqual({ error: { message: expect.any(String), type: 'invalid_request_error', code: expect.stringMatching(/^(invalid_request|not_found|model_not_found)$/), param: answer.body.includes('model_not_found') ? 'model' : null } });
  });

  it('is recorded without repeating the path, which may hold anything', async () => {
    const answer = await rawRequest(harness.url, '/v1/my-secret-path?q=secret-query', { headers: await headers(true) });
    expect(answer.status).toBe(404);
    const refusal = await eventOf(harness, String(answer.headers['x-request-id']), 'refusal');
    expect(JSON.stringify(refusal)).not.toMatch(/secret/);
  });
});
