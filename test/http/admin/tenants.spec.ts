import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

interface Tenant {
  id: string;
  name: string;
  tier: string;
  created_at: string;
  updated_at: string;
}

const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

let harness: Harness;
let admin: string;
beforeAll(async () => {
  harness = await startHarness();
  admin = await harness.adminToken();
});
afterAll(async () => {
  await harness.close();
});

function call(method: string, path: string, body?: unknown, token = admin): Promise<Response> {
  return harness.request(method, `/admin/v1/tenants${path}`, { token, body });
}

async function create(fields: Record<string, unknown>): Promise<{ response: Response; tenant: Tenant }> {
  const response = await call('POST', '', fields);
  expect(response.status).toBe(201);
  return { response, tenant: (await response.json()) as Tenant };
}

describe('POST /admin/v1/tenants', () => {
  it('makes a tenant, and records who made it and what came of it', async () => {
    const { response, tenant } = await create({ id: 'umbrella', name: 'Umbrella Œ', tier: 'enterprise' });
    expect(tenant).toEqual({ id: 'umbrella', name: 'Umbrella Œ', tier: 'enterprise', data_class: 'internal', bound_tokens: false, cost_mode: 'off', target_quality: 0.5, max_request_cost_usd: null, holds: 'bounded', payload_storage: 'off', created_at: expect.stringMatching(RFC3339), updated_at: expect.stringMatching(RFC3339) });
    const requestId = response.headers.get('x-request-id');
    expect(await eventOf(harness, requestId, 'change')).toMatchObject({
      metadata: { tenant_uid: 'platform' }, actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'POST /admin/v1/tenants', response: { code: 201 } },
      unmapped: { novix: { object: { type: 'tenant', id: 'umbrella' }, before: null, after: tenant } },
    });
    expect(await eventsOf(harness, requestId)).toHaveLength(1);
  });

  it('makes a tenant whose token works at once, with the rate limit of its tier', async () => {
    await create({ id: 'stark', name: 'Stark', tier: 'government' });
    const response = await harness.request('GET', '/v1/models', { token: await harness.token({ tenant: 'stark' }) });
    expect(response.status).toBe(200);
    expect(response.headers.get('x-ratelimit-limit-requests')).toBe('500000');
  });

  it('does not make the same one twice: 409, and the first stays as it was', async () => {
    await create({ id: 'once', name: 'First', tier: 'standard' });
    const response = await call('POST', '', { id: 'once', name: 'Second', tier: 'government' });
    const error = await expectError(response, 409, 'already_exists');
    expect(error.param).toBe('id');
    expect(await (await call('GET', '/once')).json()).toMatchObject({ name: 'First', tier: 'standard' });
    expect((await eventsOf(harness, response.headers.get('x-request-id'))).map((event) => event.unmapped.novix.phase)).not.toContain('change');
  });

  it('of many at once makes exactly one', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, (_, index) => call('POST', '', { id: 'race', name: `Racer ${index}`, tier: 'standard' })));
    expect(answers.map(({ status }) => String(status)).toSorted().join(' ')).toBe('201 409 409 409 409 409 409 409');
  });

  const good = { id: 'good', name: 'Good', tier: 'standard' };
  it.each<[string, unknown]>([
    ['an unknown field', { ...good, colour: 'red' }],
    ['a field that the gateway sets', { ...good, created_at: '2026-01-01T00:00:00Z' }],
    ['no id', { name: 'Good', tier: 'standard' }],
    ['no name', { id: 'good', tier: 'standard' }],
    ['no tier', { id: 'good', name: 'Good' }],
    ['an unknown tier', { ...good, tier: 'platinum' }],
    ['capitals in the id', { ...good, id: 'Good' }],
    ['an id with a space', { ...good, id: 'go od' }],
    ['an id with a slash', { ...good, id: 'a/b' }],
    ['an id with a newline behind', { ...good, id: 'good\n' }],
    ['an empty id', { ...good, id: '' }],
    ['an id of 64 letters', { ...good, id: 'a'.repeat(64) }],
    ['an id that begins with a dash', { ...good, id: '-good' }],
    ['an id of JavaScript', { ...good, id: '__proto__' }],
    ['an id that is a number', { ...good, id: 7 }],
    ['an empty name', { ...good, name: '' }],
    ['a name of 201 letters', { ...good, name: 'x'.repeat(201) }],
    ['a name that the database cannot hold', { ...good, name: 'Go\u0000od' }],
    ['a list', [good]],
    ['null', 'null'],
    ['no JSON', '{"id":'],
    ['nothing', ''],
  ])('refuses %s with 400', async (_, body) => {
    await expectError(await call('POST', '', body), 400, 'invalid_request');
    expect((await call('GET', '/good')).status).toBe(404);
  });

  it('names the unknown field', async () => {
    const error = await expectError(await call('POST', '', { ...good, colour: 'red' }), 400, 'invalid_request');
    expect(error.message).toContain('colour');
  });
});

describe('GET /admin/v1/tenants', () => {
  it('gives every tenant once, page by page, in a stable order', async () => {
    for (const letter of ['a', 'b', 'c', 'd', 'e']) await create({ id: `page-${letter}`, name: letter, tier: 'standard' });
    const seen: string[] = [];
    let cursor: string | null = null;
    let pages = 0;
    do {
      const response = await call('GET', `?limit=3${cursor === null ? '' : `&cursor=${cursor}`}`);
      expect(response.status).toBe(200);
      const page = (await response.json()) as { data: Tenant[]; next_cursor: string | null };
      expect(Object.keys(page).toSorted()).toEqual(['data', 'next_cursor']);
      expect(page.data.length).toBeLessThanOrEqual(3);
      expect(page.data.length === 3 || page.next_cursor === null).toBe(true);
      seen.push(...page.data.map(({ id }) => id));
      cursor = page.next_cursor;
      pages += 1;
    } while (cursor !== null);
    expect(pages).toBeGreaterThan(3);
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toEqual(seen.toSorted());
    expect(seen).toEqual(expect.arrayContaining(['acme', 'globex', 'initech', 'platform', 'page-a', 'page-e']));
    const whole = (await (await call('GET', '?limit=200')).json()) as { data: Tenant[]; next_cursor: string | null };
    expect(whole.data.map(({ id }) => id)).toEqual(seen);
    expect(whole.next_cursor).toBeNull();
  });

  it('ends without a cursor where the last page is full', async () => {
    const whole = (await (await call('GET', '?limit=200')).json()) as { data: Tenant[] };
    const page = (await (await call('GET', `?limit=${whole.data.length}`)).json()) as { next_cursor: string | null };
    expect(page.next_cursor).toBeNull();
  });

  it.each(['limit=0', 'limit=201', 'limit=-1', 'limit=1.5', 'limit=x', 'limit=', 'limit=1&limit=2', 'cursor=', 'cursor=%%%', 'cursor=a=b', 'cursor=YQ==', 'cursor=a&cursor=b'])('refuses ?%s', async (query) => {
    const error = await expectError(await call('GET', `?${query}`), 400, 'invalid_request');
    expect(error.param).toBe(query.split('=')[0]);
  });
});

describe('GET /admin/v1/tenants/{id}', () => {
  it('gives one', async () => {
    expect(await (await call('GET', '/acme')).json()).toMatchObject({ id: 'acme', name: 'Acme', tier: 'standard' });
  });

  it.each(['nobody', 'ACME', '__proto__', 'acme%20', '%27%20OR%20%271%27=%271', 'acme%00'])('%s is not there: 404', async (id) => {
    const error = await expectError(await call('GET', `/${id}`), 404, 'not_found');
    expect(error.message).toBe('There is no such tenant.');
  });
});

describe('PATCH /admin/v1/tenants/{id}', () => {
  it('changes what is given and nothing else, and records before and after', async () => {
    const { tenant: before } = await create({ id: 'patched', name: 'Old', tier: 'standard' });
    const response = await call('PATCH', '/patched', { name: 'New' });
    expect(response.status).toBe(200);
    const after = (await response.json()) as Tenant;
    expect(after).toEqual({ ...before, name: 'New', updated_at: expect.stringMatching(RFC3339) });
    expect(Date.parse(after.updated_at)).toBeGreaterThanOrEqual(Date.parse(before.updated_at));
    expect(await (await call('GET', '/patched')).json()).toEqual(after);
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({
      actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'PATCH /admin/v1/tenants/:id', response: { code: 200 } }, unmapped: { novix: { object: { type: 'tenant', id: 'patched' }, before, after } },
    });
  });

  it('changes the tier for the next request of a token that was used before', async () => {
    await create({ id: 'climber', name: 'Climber', tier: 'standard' });
    const token = await harness.token({ tenant: 'climber' });
    expect((await harness.request('GET', '/v1/models', { token })).headers.get('x-ratelimit-limit-requests')).toBe('10000');
    expect((await call('PATCH', '/climber', { tier: 'enterprise' })).status).toBe(200);
    expect((await harness.request('GET', '/v1/models', { token })).headers.get('x-ratelimit-limit-requests')).toBe('100000');
  });

  it.each<[string, unknown]>([['nothing', {}], ['an unknown field', { colour: 'red' }], ['the id', { id: 'other' }], ['an unknown tier', { tier: 'gold' }], ['null', { name: null }], ['an empty name', { name: '' }]])('refuses %s with 400', async (_, body) => {
    await expectError(await call('PATCH', '/acme', body), 400, 'invalid_request');
    expect(await (await call('GET', '/acme')).json()).toMatchObject({ name: 'Acme', tier: 'standard' });
  });

  it('of one that is not there is 404', async () => {
    const error = await expectError(await call('PATCH', '/nobody', { name: 'New' }), 404, 'not_found');
    expect(error.message).toBe('There is no such tenant.');
  });
});

describe('only a platform-admin of the platform may', () => {
  const callers: [string, string, string[]][] = [
    ['a developer', 'acme', ['developer']], ['a tenant-admin', 'acme', ['tenant-admin']], ['billing', 'acme', ['billing']], ['an auditor', 'acme', ['auditor']], ['nobody in particular', 'acme', []],
    ['a platform-admin of another tenant', 'acme', ['platform-admin']], ['every role of another tenant', 'acme', ['developer', 'tenant-admin', 'billing', 'auditor', 'platform-admin']],
    ['a developer of the platform', 'platform', ['developer']], ['an auditor of the platform', 'platform', ['auditor']], ['a tenant-admin of the platform', 'platform', ['tenant-admin']],
  ];
  it.each(callers)('not %s', async (_, tenant, roles) => {
    const token = await harness.token({ tenant, roles });
    for (const [method, path, body] of [['POST', '', { id: 'sneaked', name: 'Sneaked', tier: 'government' }], ['GET', '', undefined], ['GET', '/acme', undefined], ['PATCH', '/acme', { tier: 'government' }]] as const) {
      const error = await expectError(await call(method, path, body, token), 403, 'policy_denied');
      expect(error.type).toBe('permission_error');
      expect(error.decision_id).toMatch(/^[0-9a-f-]{36}$/);
    }
    expect((await call('GET', '/sneaked')).status).toBe(404);
    expect(await (await call('GET', '/acme')).json()).toMatchObject({ tier: 'standard' });
  });

  it('and a refusal is on record', async () => {
    const response = await call('POST', '', { id: 'sneaked', name: 'Sneaked', tier: 'government' }, await harness.token());
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).toMatchObject({ status_code: 'policy_denied', metadata: { tenant_uid: 'acme' }, api: { operation: 'POST /admin/v1/tenants', response: { code: 403 } } });
  });
});
