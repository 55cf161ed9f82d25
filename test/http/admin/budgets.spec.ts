import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, ticksOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

interface Budget {
  id: string;
  tenant: string;
  scope: { type: string; id?: string };
  window: string;
  limit_usd: string;
  warn_at: number[];
  spent_usd: string;
  held_usd: string;
  remaining_usd: string;
  resets_at: string | null;
  created_at: string;
  updated_at: string;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

let harness: Harness;
let admin: string;
let counter = 0;
beforeAll(async () => {
  harness = await startHarness();
  admin = await harness.adminToken();
});
afterAll(async () => {
  await harness.close();
});

function call(method: string, path: string, body?: unknown, token = admin): Promise<Response> {
  return harness.request(method, `/admin/v1/budgets${path}`, { token, body });
}

/** A tenant of this test's own. */
async function tenant(): Promise<string> {
  counter += 1;
  const response = await harness.request('POST', '/admin/v1/tenants', { token: admin, body: { id: `tenant-${counter}`, name: 'Test', tier: 'standard' } });
  expect(response.status).toBe(201);
  return `tenant-${counter}`;
}

async function create(fields: Record<string, unknown>, token = admin): Promise<{ response: Response; budget: Budget }> {
  const response = await call('POST', '', { scope: { type: 'tenant' }, window: 'month', limit_usd: '1.00', ...fields }, token);
  const text = await response.text();
  expect([response.status, response.status === 201 ? '' : text]).toEqual([201, '']);
  return { response, budget: JSON.parse(text) as Budget };
}

/** The first instant of the next day or month in UTC. */
function nextPeriod(window: string): string | null {
  const now = new Date();
  if (window === 'total') return null;
  return new Date(window === 'day' ? Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + 1) : Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1)).toISOString();
}

describe('POST /admin/v1/budgets', () => {
  it.each(['day', 'month', 'total'])('makes a budget of a %s, and records who made it and what came of it', async (window) => {
    const id = await tenant();
    const { response, budget } = await create({ tenant: id, window, limit_usd: '100.00', warn_at: [0.5, 0.8] });
    expect(budget).toEqual({
      id: expect.stringMatching(UUID), tenant: id, scope: { type: 'tenant' }, window, limit_usd: '100.00', warn_at: [0.5, 0.8], spent_usd: '0.00', held_usd: '0.00', remaining_usd: '100.00',
      resets_at: nextPeriod(window), created_at: expect.stringMatching(RFC3339), updated_at: expect.stringMatching(RFC3339),
    });
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({
      metadata: { tenant_uid: 'platform' }, actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'POST /admin/v1/budgets', response: { code: 201 } },
      unmapped: { novix: { object: { type: 'budget', id: budget.id }, before: null, after: budget } },
    });
    expect(await (await call('GET', `/${budget.id}`)).json()).toEqual(budget);
  });

  it.each([['team', 'bi'], ['user', 'dev@acme.example'], ['model', 'grok-beta'], ['user', 'a:b:c'], ['user', 'ünïcode 🦊']])('makes one of scope %s %s', async (type, id) => {
    const { budget } = await create({ tenant: await tenant(), scope: { type, id } });
    expect(budget.scope).toEqual({ type, id });
  });

  it('of scope key takes the keys of its tenant alone: for no other would it ever match', async () => {
    const [own, other] = [await tenant(), await tenant()];
    const keys = await Promise.all([own, other].map(async (of) => (await (await harness.request('POST', '/admin/v1/api-keys', { token: admin, body: { tenant: of, sub: 'svc' } })).json()) as { id: string }));
    const { budget } = await create({ tenant: own, scope: { type: 'key', id: keys[0]!.id } });
    expect(budget.scope).toEqual({ type: 'key', id: keys[0]!.id });
    for (const id of [keys[1]!.id, 'key-1', '0192f3a4-0000-7000-8000-000000000000']) {
      const error = await expectError(await call('POST', '', { tenant: own, scope: { type: 'key', id }, window: 'total', limit_usd: '1.00' }), 400, 'invalid_request');
      expect(error.param).toBe('scope.id');
    }
  });

  it.each([
    ['1', '1.00'], ['0', '0.00'], ['0.5', '0.50'], ['12.50', '12.50'], ['12.345', '12.345'], ['0.0000000001', '0.0000000001'], ['100.1000000000', '100.10'], ['900000000', '900000000.00'], ['123456789.0123456789', '123456789.0123456789'], ['007.10', '7.10'],
  ])('keeps %s USD to the tick', async (given, shown) => {
    const { budget } = await create({ tenant: await tenant(), limit_usd: given });
    expect(budget).toMatchObject({ limit_usd: shown, remaining_usd: shown });
  });

  const good = { tenant: 'acme', scope: { type: 'user', id: 'nobody' }, window: 'day', limit_usd: '1.00' };
  it.each<[string, Record<string, unknown>]>([
    ['an unknown field', { colour: 'red' }],
    ['an unknown field in the scope', { scope: { type: 'user', id: 'x', colour: 'red' } }],
    ['what the ledger alone may say', { spent_usd: '0.00' }],
    ['no tenant', { tenant: undefined }],
    ['no scope', { scope: undefined }],
    ['no window', { window: undefined }],
    ['no limit', { limit_usd: undefined }],
    ['money as a number', { limit_usd: 1 }],
    ['negative money', { limit_usd: '-1.00' }],
    ['money with an exponent', { limit_usd: '1e3' }],
    ['money with a comma', { limit_usd: '1,00' }],
    ['money with a sign', { limit_usd: '$1' }],
    ['money with eleven decimals', { limit_usd: '0.00000000001' }],
    ['money with a space', { limit_usd: ' 1.00' }],
    ['money with a newline', { limit_usd: '1.00\n' }],
    ['more money than the ledger holds', { limit_usd: '922337204.00' }],
    ['no money', { limit_usd: '' }],
    ['an unknown window', { window: 'week' }],
    ['an unknown scope', { scope: { type: 'planet', id: 'earth' } }],
    ['a scope of the tenant with an id', { scope: { type: 'tenant', id: 'acme' } }],
    ['a scope of a user without an id', { scope: { type: 'user' } }],
    ['an empty id', { scope: { type: 'user', id: '' } }],
    ['an id with a control character', { scope: { type: 'user', id: 'a\u001fb' } }],
    ['an id that the database cannot hold', { scope: { type: 'user', id: 'a\u0000b' } }],
    ['a warning at zero', { warn_at: [0] }],
    ['a warning above the limit', { warn_at: [1.5] }],
    ['a warning as text', { warn_at: ['0.5'] }],
  ])('refuses %s with 400', async (_, change) => {
    await expectError(await call('POST', '', { ...good, ...change }), 400, 'invalid_request');
    const { data } = (await (await call('GET', '?limit=200', undefined, await harness.token({ roles: ['billing'] }))).json()) as { data: Budget[] };
    expect(data.map(({ scope }) => scope.type)).toEqual(['tenant']); // acme's own, and no other
  });

  it('of a tenant that is not there is 404', async () => {
    const error = await expectError(await call('POST', '', { ...good, tenant: 'nobody' }), 404, 'not_found');
    expect(error.param).toBe('tenant');
  });

  it('of the same scope and window a second time is 409, also of many at once', async () => {
    const id = await tenant();
    const fields = { tenant: id, scope: { type: 'tenant' }, window: 'month', limit_usd: '1.00' };
    const answers = await Promise.all(Array.from({ length: 6 }, () => call('POST', '', fields)));
    expect(answers.map(({ status }) => String(status)).toSorted().join(' ')).toBe('201 409 409 409 409 409');
    await expectError(answers.find(({ status }) => status === 409)!, 409, 'already_exists');
    await create({ tenant: id, window: 'day' }); // another window is another budget
  });
});

describe('GET /admin/v1/budgets', () => {
  it('gives every budget once, page by page', async () => {
    const id = await tenant();
    const made: string[] = [];
    for (const user of ['a', 'b', 'c', 'd', 'e']) made.push((await create({ tenant: id, scope: { type: 'user', id: user } })).budget.id);
    const token = await harness.token({ tenant: id, roles: ['tenant-admin'] });
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page = (await (await call('GET', `?limit=2${cursor === null ? '' : `&cursor=${cursor}`}`, undefined, token)).json()) as { data: Budget[]; next_cursor: string | null };
      seen.push(...page.data.map((budget) => budget.id));
      cursor = page.next_cursor;
    } while (cursor !== null);
    expect(seen.toSorted()).toEqual(made.toSorted());
  });

  it.each(['limit=0', 'limit=201', 'limit=x', 'cursor=', 'cursor=YWJj', 'cursor=YQ=='])('refuses ?%s', async (query) => {
    const error = await expectError(await call('GET', `?${query}`), 400, 'invalid_request');
    expect(error.param).toBe(query.split('=')[0]);
  });
});

describe('PATCH /admin/v1/budgets/{id}', () => {
  it('changes the limit to the tick, keeps what was spent, and records before and after', async () => {
    const id = await tenant();
    const { budget: before } = await create({ tenant: id, limit_usd: '10.00', warn_at: [0.9] });
    const spent = await harness.request('POST', '/v1/chat/completions', { token: await harness.token({ tenant: id }), body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Hi' }], x_emulator: { cost_usd_ticks: 12_345_678 } } });
    expect(spent.status).toBe(200);
    const response = await call('PATCH', `/${before.id}`, { limit_usd: '20.5' });
    expect(response.status).toBe(200);
    const after = (await response.json()) as Budget;
    expect(after).toEqual({ ...before, limit_usd: '20.50', spent_usd: '0.0012345678', remaining_usd: '20.4987654322', updated_at: expect.stringMatching(RFC3339) });
    const change = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(change).toMatchObject({ api: { operation: 'PATCH /admin/v1/budgets/:id' }, unmapped: { novix: { object: { type: 'budget', id: before.id }, before: { limit_usd: '10.00', spent_usd: '0.0012345678' }, after } } });
    expect(await (await call('GET', `/${before.id}`)).json()).toEqual(after);
  });

  it('below what is spent is allowed, leaves nothing, and stops calls', async () => {
    const id = await tenant();
    const { budget } = await create({ tenant: id, limit_usd: '1.00' });
    const token = await harness.token({ tenant: id });
    const ask = (): Promise<Response> => harness.request('POST', '/v1/chat/completions', { token, body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Hi' }], x_emulator: { cost_usd_ticks: 50_000_000 } } });
    expect((await ask()).status).toBe(200);
    const response = await call('PATCH', `/${budget.id}`, { limit_usd: '0.001' });
    expect(await response.json()).toMatchObject({ spent_usd: '0.005', remaining_usd: '0.00' });
    await expectError(await ask(), 402, 'budget_exceeded');
  });

  it.each<[string, unknown]>([['nothing', {}], ['an unknown field', { colour: 'red' }], ['the tenant', { tenant: 'globex' }], ['the window', { window: 'day' }], ['the scope', { scope: { type: 'tenant' } }], ['money as a number', { limit_usd: 5 }], ['too much money', { limit_usd: '999999999' }], ['null', { limit_usd: null }]])('refuses %s with 400', async (_, body) => {
    const { budget } = await create({ tenant: await tenant() });
    await expectError(await call('PATCH', `/${budget.id}`, body), 400, 'invalid_request');
    expect(await (await call('GET', `/${budget.id}`)).json()).toEqual(budget);
  });

  it.each(['00000000-0000-0000-0000-000000000000', 'nobody', '1', '__proto__', '%27'])('of %s, which is not there, is 404', async (id) => {
    const [change, read] = [await expectError(await call('PATCH', `/${id}`, { limit_usd: '1.00' }), 404, 'not_found'), await expectError(await call('GET', `/${id}`), 404, 'not_found')];
    expect(change).toEqual(read);
  });

  it('while calls are under way loses neither the change nor the money', async () => {
    const id = await tenant();
    const { budget } = await create({ tenant: id, limit_usd: '10.00' });
    const token = await harness.token({ tenant: id });
    const ask = async (): Promise<number> => (await harness.request('POST', '/v1/chat/completions', { token, body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Hi' }], x_emulator: { cost_usd_ticks: 1_000_000 } } })).status;
    const [statuses] = await Promise.all([Promise.all(Array.from({ length: 20 }, ask)), ...Array.from({ length: 5 }, (_, index) => call('PATCH', `/${budget.id}`, { limit_usd: `${20 + index}.00` }))]);
    expect(new Set(statuses)).toEqual(new Set([200]));
    const after = (await (await call('GET', `/${budget.id}`)).json()) as Budget;
    expect(after).toMatchObject({ spent_usd: '0.002', held_usd: '0.00' });
    expect(ticksOf(after.limit_usd)).toBeGreaterThanOrEqual(200_000_000_000n);
  });
});

describe('who may do what with budgets', () => {
  const TENANT_BUDGET = { scope: { type: 'tenant' }, window: 'day', limit_usd: '1.00' };
  const USER_BUDGET = { scope: { type: 'user', id: 'someone' }, window: 'day', limit_usd: '1.00' };
  //            role            tenant      read  list  make whole  make part  change whole  change part
  const matrix: [string, string, number, number, number, number, number, number][] = [
    ['developer', 'own', 403, 403, 403, 403, 403, 403],
    ['auditor', 'own', 403, 403, 403, 403, 403, 403],
    ['billing', 'own', 200, 200, 403, 403, 403, 403],
    ['tenant-admin', 'own', 200, 200, 403, 201, 403, 200],
    ['platform-admin', 'own', 403, 403, 403, 403, 403, 403],
    ['billing', 'globex', 404, 200, 403, 403, 403, 403],
    ['tenant-admin', 'globex', 404, 200, 404, 404, 404, 404],
    ['platform-admin', 'globex', 403, 403, 403, 403, 403, 403],
    ['developer', 'platform', 403, 403, 403, 403, 403, 403],
    ['billing', 'platform', 404, 200, 403, 403, 403, 403],
    ['platform-admin', 'platform', 200, 200, 201, 201, 200, 200],
  ];
  it.each(matrix)('%s of %s', async (role, of, read, list, makeWhole, makePart, changeWhole, changePart) => {
    const own = await tenant();
    const { budget: whole } = await create({ tenant: own, window: 'total' });
    const { budget: part } = await create({ tenant: own, scope: { type: 'user', id: 'someone' }, window: 'total' });
    const token = await harness.token({ tenant: of === 'own' ? own : of, roles: [role], subject: 'tester' });
    const outcome = {
      read: (await call('GET', `/${whole.id}`, undefined, token)).status,
      list: (await call('GET', '', undefined, token)).status,
      makeWhole: (await call('POST', '', { tenant: own, ...TENANT_BUDGET }, token)).status,
      makePart: (await call('POST', '', { tenant: own, ...USER_BUDGET }, token)).status,
      changeWhole: (await call('PATCH', `/${whole.id}`, { limit_usd: '2.00' }, token)).status,
      changePart: (await call('PATCH', `/${part.id}`, { limit_usd: '2.00' }, token)).status,
    };
    expect(outcome).toEqual({ read, list, makeWhole, makePart, changeWhole, changePart });
  });

  it('another tenant’s budget looks like one that is not there', async () => {
    const { budget } = await create({ tenant: await tenant() });
    const token = await harness.token({ tenant: 'globex', roles: ['tenant-admin'] });
    const [hidden, missing] = await Promise.all([budget.id, '00000000-0000-0000-0000-000000000000'].map(async (id) => expectError(await call('GET', `/${id}`, undefined, token), 404, 'not_found')));
    expect(hidden).toEqual(missing);
    const [hiddenChange, missingChange] = await Promise.all([budget.id, '00000000-0000-0000-0000-000000000000'].map(async (id) => expectError(await call('PATCH', `/${id}`, { limit_usd: '1.00' }, token), 404, 'not_found')));
    expect(hiddenChange).toEqual(missingChange);
  });

  it('another tenant looks like one that is not there', async () => {
    const token = await harness.token({ tenant: 'globex', roles: ['tenant-admin'] });
    const [hidden, missing] = await Promise.all(['acme', 'nobody'].map(async (id) => expectError(await call('POST', '', { tenant: id, ...USER_BUDGET }, token), 404, 'not_found')));
    expect(hidden!.message.replace('acme', '…')).toBe(missing!.message.replace('nobody', '…'));
  });

  it('a list has the caller’s own tenant alone; the platform’s admin sees all', async () => {
    const own = (await (await call('GET', '?limit=200', undefined, await harness.token({ tenant: 'globex', roles: ['billing'] }))).json()) as { data: Budget[] };
    expect(new Set(own.data.map((budget) => budget.tenant))).toEqual(new Set(['globex']));
    const all = (await (await call('GET', '?limit=200')).json()) as { data: Budget[] };
    expect(all.data.map((budget) => budget.tenant)).toEqual(expect.arrayContaining(['acme', 'globex', 'initech']));
  });

  it('every 403 has a decision id', async () => {
    const error = await expectError(await call('GET', '', undefined, await harness.token()), 403, 'policy_denied');
    expect(error.decision_id).toMatch(UUID);
  });
});
