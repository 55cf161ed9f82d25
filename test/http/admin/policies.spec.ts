import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createHash, randomUUID } from 'node:crypto';
import { startXaiEmulator, type XaiEmulator } from '../../../src/sandbox/xai-emulator.ts';
import { allow, deny, expectCut, listAll, LONG_STREAM, makeKey, publish, removeAll, running, tuesdayNoonMs, wallClock, type PolicyView, type RuleView } from '../../support/access.ts';
import { adminOf, completeAt, deploy, madeBy, quantile, removeStored, servedBy, type AdminCall, type DeploymentView } from '../../support/deployments.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Rules that admins write, judged by what calls they stop.

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const OTHER_KEY = 'xai-policies-other';
const NOON = '2026-11-24T12:00:00Z';
/** Of a Tuesday to come. */
const NOON_MS = tuesdayNoonMs();

const clock = wallClock();
let harness: Harness;
let other: XaiEmulator;
let root: AdminCall;
let admin: AdminCall;
beforeAll(async () => {
  other = await startXaiEmulator({ apiKeys: [OTHER_KEY] });
  harness = await startHarness({ clock, env: { XAI_RETRY_MAX: '0', EGRESS_ALLOW: new URL(other.url).origin } });
  root = adminOf(harness, await harness.adminToken());
  admin = adminOf(harness, await harness.token({ subject: 'admin@acme.example', roles: ['tenant-admin'] }));
});
afterEach(async () => {
  await removeAll(root, '/policies');
  await removeStored(root);
  harness.emulator.reset();
  other.reset();
});
afterAll(async () => {
  await harness.close();
  await other.close();
});

const sha256Of = (rules: readonly RuleView[]): string => createHash('sha256').update(JSON.stringify(rules)).digest('hex');
const statusOf = async (answer: Promise<Response>): Promise<number> => {
  const response = await answer;
  await response.text();
  return response.status;
};
const policiesOf = (call: AdminCall): Promise<PolicyView[]> => listAll(call, '/policies');

describe('POST /admin/v1/policies', () => {
  const rules = [deny('no-pro', { models: ['grok-pro'], when: [{ attr: 'request.data_class', op: 'in', value: ['restricted'] }], reason: 'Not there.' }), allow('auditors', { when: [{ attr: 'principal.roles', op: 'in', value: ['auditor'] }] })];

  it('makes a policy, says at which revision it holds, and records it by the hash of its rules', async () => {
    const response = await admin('POST', '/policies', { tenant: 'acme', name: 'House rules', status: 'enforced', rules });
    const made = await madeBy<PolicyView>(response, 201);
    const { revision, ...policy } = made;
    expect(policy).toEqual({ id: expect.stringMatching(UUID), tenant: 'acme', name: 'House rules', status: 'enforced', rules, created_at: expect.stringMatching(RFC3339), updated_at: expect.stringMatching(RFC3339) });
    expect(revision).toMatch(/^\d+-config-[0-9a-f]{12}$/);
    expect(await madeBy(await admin('GET', `/policies/${policy.id}`))).toEqual(policy);
    expect(await policiesOf(admin)).toEqual([policy]);
    const event = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(event).toMatchObject({
      metadata: { tenant_uid: 'acme' }, actor: { user: { uid: 'admin@acme.example' } }, api: { operation: 'POST /admin/v1/policies', response: { code: 201 } },
      unmapped: { novix: { object: { type: 'policy', id: policy.id }, before: null, after: { id: policy.id, tenant: 'acme', name: 'House rules', status: 'enforced', rules: ['no-pro', 'auditors'], rules_sha256: sha256Of(rules) } } },
    });
    expect(JSON.stringify(event)).not.toContain('Not there.');
    expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
  });

  it('enforces what does not say otherwise', async () => {
    expect(await publish(admin, [deny('all')])).toMatchObject({ status: 'enforced' });
    expect(await statusOf(harness.complete())).toBe(403);
  });

  it('names the revision in the decisions that follow', async () => {
    const { revision } = await publish(admin, [deny('all', { reason: 'Closed for today.' })]);
    const response = await harness.complete();
    const error = await expectError(response, 403, 'policy_denied');
    expect(error.message).toBe('The policy does not allow this call. Closed for today.');
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).unmapped.novix.decision).toMatchObject({ id: error.decision_id, revision, policy: 'Of a test', rule: 'all' });
    expect(harness.emulator.calls).toEqual([]);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['an id', { id: randomUUID() }, 'id'], ['the time of its making', { created_at: NOON }, 'created_at'], ['the time of its change', { updated_at: NOON }, 'updated_at'], ['a revision', { revision: '9' }, 'revision'],
    ['the hash', { rules_sha256: 'x' }, 'rules_sha256'], ['the tenant under another name', { tenantId: 'globex' }, 'tenantId'], ['an unknown field', { colour: 'red' }, 'colour'],
    ['no tenant', { tenant: undefined }, 'tenant'], ['no rules', { rules: undefined }, 'rules'], ['a number as tenant', { tenant: 7 }, 'tenant'], ['an empty name', { name: '' }, 'name'], ['no name', { name: undefined }, 'name'], ['a name with a line break', { name: 'a\nb' }, 'name'],
    ['a name of 201 letters', { name: 'x'.repeat(201) }, 'name'], ['an unknown status', { status: 'off' }, 'status'], ['null as status', { status: null }, 'status'],
  ])('refuses %s with 400', async (_, change, field) => {
    const error = await expectError(await admin('POST', '/policies', { tenant: 'acme', name: 'p', rules, ...change }), 400, 'invalid_request');
    expect(`${error.param} ${error.message}`).toContain(field);
    expect(await policiesOf(root)).toEqual([]);
  });

  it.each<[string, string]>([['a prototype', '{"tenant":"acme","name":"p","rules":[],"__proto__":{"status":"shadow"}}'], ['a list', '[]'], ['null', 'null'], ['no JSON', '{"tenant":'], ['nothing', '']])('refuses %s as a body with 400', async (_, body) => {
    await expectError(await admin('POST', '/policies', body), 400, 'invalid_request');
    expect(await policiesOf(root)).toEqual([]);
  });

  const when = (attr: string, op: string, value?: unknown): unknown => [{ id: 'r', effect: 'deny', actions: ['invoke'], when: [{ attr, op, ...(value !== undefined && { value }) }] }];
  const raw = (text: string): unknown => JSON.parse(text);
  it.each<[string, unknown, string]>([
    ['rules that are none', 'deny all', 'rules'], ['an empty list', [], 'rules'], ['null as a rule', [null], 'rules[0]'],
    ['a rule without id', [{ effect: 'deny', actions: ['invoke'] }], 'rules[0].id'], ['an empty id', [deny('')], 'rules[0].id'], ['an id of 129 letters', [deny('x'.repeat(129))], 'rules[0].id'],
    ['an unknown effect', [{ ...deny('r'), effect: 'permit' }], 'rules[0].effect'], ['no effect', [{ id: 'r', actions: ['invoke'] }], 'rules[0].effect'],
    ['an unknown action', [deny('r', { actions: ['invoke', 'manage'] })], 'rules[0].actions[1]'], ['no actions', [{ id: 'r', effect: 'deny' }], 'rules[0].actions'], ['an empty list of actions', [deny('r', { actions: [] })], 'rules[0].actions'],
    ['an empty list of models', [deny('r', { models: [] })], 'rules[0].models'], ['a number as a model', [{ ...deny('r'), models: [7] }], 'rules[0].models[0]'],
    ['an unknown field in the second rule', [deny('a'), { ...deny('b'), priority: 1 }], 'rules[1].priority'], ['CASL’s own fields', [{ ...deny('r'), inverted: false }], 'rules[0].inverted'],
    ['conditions of CASL', [{ ...deny('r'), conditions: { 'principal.sub': { $regex: '.*' } } }], 'rules[0].conditions'],
    ['an empty when', [deny('r', { when: [] })], 'rules[0].when'], ['an empty condition', [{ ...deny('r'), when: [{}] }], 'rules[0].when[0].attr'],
    ['an unknown operator', when('principal.sub', 'like', 'x'), 'rules[0].when[0].op'], ['$regex', when('principal.sub', '$regex', '.*'), 'rules[0].when[0].op'], ['$in', when('principal.sub', '$in', ['x']), 'rules[0].when[0].op'],
    ['an unknown field in a condition', [{ ...deny('r'), when: [{ attr: 'principal.sub', op: 'eq', value: 'x', $regex: '.*' }] }], 'rules[0].when[0].$regex'],
    ['an unknown attribute', when('principal.password', 'eq', 'x'), 'rules[0].when[0].attr'], ['an attribute of everything', when('principal', 'eq', 'x'), 'rules[0].when[0].attr'], ['an attribute of nothing', when('', 'eq', 'x'), 'rules[0].when[0].attr'],
    ['__proto__', when('principal.attrs.__proto__', 'eq', 'x'), 'rules[0].when[0].attr'], ['constructor', when('principal.attrs.constructor', 'exists', true), 'rules[0].when[0].attr'], ['prototype', when('principal.attrs.prototype', 'eq', 'x'), 'rules[0].when[0].attr'],
    ['a path below an attribute', when('principal.attrs.team.__proto__', 'eq', 'x'), 'rules[0].when[0].attr'], ['__proto__ as a field of a rule', raw('[{"id":"r","effect":"deny","actions":["invoke"],"__proto__":{"models":["x"]}}]'), 'rules[0].__proto__'],
    ['__proto__ as a field of a condition', raw('[{"id":"r","effect":"deny","actions":["invoke"],"when":[{"attr":"principal.sub","op":"eq","value":"x","__proto__":{}}]}]'), 'rules[0].when[0].__proto__'],
    ['an object as a value', when('principal.sub', 'eq', { $ne: 'x' }), 'rules[0].when[0].value'], ['null as a value', when('principal.sub', 'eq', null), 'rules[0].when[0].value'], ['a list of lists', when('principal.sub', 'in', [['x']]), 'rules[0].when[0].value'],
    ['no value', when('principal.sub', 'eq'), 'rules[0].when[0].value'], ['a list for eq', when('principal.sub', 'eq', ['x']), 'rules[0].when[0].value'], ['one value for in', when('principal.sub', 'in', 'x'), 'rules[0].when[0].value'],
    ['a list of several types', when('principal.sub', 'in', ['x', 1]), 'rules[0].when[0].value'], ['a text for lt', when('request.max_tokens', 'lt', '100'), 'rules[0].when[0].value'], ['a text for exists', when('principal.sub', 'exists', 'yes'), 'rules[0].when[0].value'],
    ['an empty prefix', when('principal.sub', 'prefix', ''), 'rules[0].when[0].value'], ['a network that is none', when('env.ip', 'cidr', '10.0.0.0/33'), 'rules[0].when[0].value'], ['a host name as network', when('env.ip', 'cidr', ['10.0.0.0/8', 'localhost']), 'rules[0].when[0].value'],
    ['two times', when('env.time', 'time_between', ['08:00', '18:00']), 'rules[0].when[0].value'], ['an hour that is none', when('env.time', 'time_between', ['08:00', '24:00', 'UTC']), 'rules[0].when[0].value'],
    ['a zone that is none', when('env.time', 'time_between', ['08:00', '18:00', 'Mars/Olympus']), 'rules[0].when[0].value'],
    ['a misfit in the third condition of the second rule', [deny('a'), { ...deny('b'), when: [{ attr: 'principal.sub', op: 'eq', value: 'x' }, { attr: 'env.ip', op: 'cidr', value: '::/0' }, { attr: 'env.ip', op: 'cidr', value: 'x' }] }], 'rules[1].when[2].value'],
    ['the same id twice', [deny('a'), deny('b'), allow('a')], 'rules[2].id'], ['501 rules', Array.from({ length: 501 }, (__, at) => deny(`r${at}`)), 'rules'],
    ['33 conditions', [deny('r', { when: Array.from({ length: 33 }, () => ({ attr: 'principal.sub', op: 'eq', value: 'x' })) })], 'rules[0].when'], ['65 models', [deny('r', { models: Array.from({ length: 65 }, (__, at) => `m${at}`) })], 'rules[0].models'],
    ['257 values', when('principal.sub', 'in', Array.from({ length: 257 }, (__, at) => `s${at}`)), 'rules[0].when[0].value'], ['a reason of 513 letters', [deny('r', { reason: 'x'.repeat(513) })], 'rules[0].reason'],
  ])('refuses %s with 422, and says where', async (_, faulty, path) => {
    const response = await admin('POST', '/policies', { tenant: 'acme', name: 'p', rules: faulty });
    const error = await expectError(response, 422, 'invalid_policy');
    expect([error.param, error.message.startsWith(`${path}: `)]).toEqual([path, true]);
    expect(await policiesOf(root)).toEqual([]);
    expect((await eventsOf(harness, response.headers.get('x-request-id'))).filter(({ unmapped }) => unmapped.novix.phase === 'change')).toEqual([]);
  });

  it('takes as many rules as it says, and no more of one tenant in all', async () => {
    const many = Array.from({ length: 500 }, (_, at) => deny(`r${at}`, { models: ['grok-none'] }));
    for (let n = 0; n < 4; n += 1) await publish(admin, many, { name: `p${n}` });
    expect((await expectError(await admin('POST', '/policies', { tenant: 'acme', name: 'one more', rules: [deny('r')] }), 422, 'invalid_policy')).param).toBe('rules');
    const [first] = await policiesOf(admin);
    expect((await admin('PUT', `/policies/${first!.id}`, { name: 'again', rules: many })).status).toBe(200); // in its own place there is room
    await publish(root, [deny('r', { models: ['grok-none'] })], { tenant: 'globex' });
    await publish(root, [deny('r', { models: ['grok-none'] })], { tenant: null });
    expect(await statusOf(harness.complete())).toBe(200);
  });

  it('of a tenant that is not there is 404', async () => {
    expect((await expectError(await root('POST', '/policies', { tenant: 'nobody', name: 'p', rules: [deny('r')] }), 404, 'not_found')).param).toBe('tenant');
    await expectError(await admin('POST', '/policies', { tenant: 'nobody', name: 'p', rules: [deny('r')] }), 404, 'not_found');
  });
});

describe('GET /admin/v1/policies', () => {
  it('gives every policy once, page by page', async () => {
    const made: string[] = [];
    for (let n = 0; n < 5; n += 1) made.push((await publish(admin, [deny('r', { models: ['grok-none'] })], { name: `p${n}` })).id);
    const pages = await listAll<PolicyView>(admin, '/policies', 2);
    expect(pages.map(({ id }) => id).toSorted()).toEqual(made.toSorted());
    expect(pages.every((policy) => !('revision' in policy))).toBe(true);
    const { data, next_cursor: next } = await madeBy<{ data: PolicyView[]; next_cursor: string }>(await admin('GET', '/policies?limit=2'));
    expect([data.length, typeof next]).toEqual([2, 'string']);
  });

  it.each(['limit=0', 'limit=201', 'cursor=', 'cursor=%%%', 'cursor=YQ'])('refuses ?%s', async (query) => {
    expect((await expectError(await admin('GET', `/policies?${query}`), 400, 'invalid_request')).param).toBe(query.split('=')[0]);
  });

  it('shows a tenant its own, and a platform-admin all', async () => {
    const none = [deny('r', { models: ['grok-none'] })];
    const ids = [await publish(root, none), await publish(root, none, { tenant: 'globex' }), await publish(root, none, { tenant: null })].map(({ id }) => id);
    expect((await policiesOf(admin)).map(({ id }) => id)).toEqual([ids[0]]);
    expect((await policiesOf(root)).map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
  });
});

describe('PUT /admin/v1/policies/{id}', () => {
  it('replaces all of it, acts on the next request, and records before and after', async () => {
    const before = await publish(admin, [deny('all')], { status: 'shadow' });
    expect(await statusOf(harness.complete())).toBe(200);
    const rules = [deny('no-beta', { models: ['grok-beta'] })];
    const response = await admin('PUT', `/policies/${before.id}`, { name: 'Renamed', rules });
    const after = await madeBy<PolicyView>(response);
    expect(after).toEqual({ id: before.id, tenant: 'acme', name: 'Renamed', status: 'enforced', rules, created_at: before.created_at, updated_at: expect.stringMatching(RFC3339), revision: expect.any(String) });
    expect(after.revision).not.toBe(before.revision);
    expect(Date.parse(after.updated_at)).toBeGreaterThan(Date.parse(before.updated_at));
    expect(await statusOf(harness.complete())).toBe(403);
    expect(await statusOf(harness.complete({ model: 'grok-pro' }))).toBe(200);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'change'))).toMatchObject({
      api: { operation: 'PUT /admin/v1/policies/:id' },
      unmapped: { novix: { object: { type: 'policy', id: before.id }, before: { name: 'Of a test', status: 'shadow', rules_sha256: sha256Of(before.rules) }, after: { name: 'Renamed', status: 'enforced', rules_sha256: sha256Of(rules) } } },
    });
  });

  it.each<[string, Record<string, unknown>, number, string]>([
    ['another tenant', { tenant: 'globex' }, 400, 'tenant'], ['all tenants', { tenant: null }, 400, 'tenant'], ['an id', { id: randomUUID() }, 400, 'id'], ['a time', { created_at: NOON }, 400, 'created_at'], ['a revision', { revision: '1' }, 400, 'revision'],
    ['an unknown field', { colour: 'red' }, 400, 'colour'], ['faulty rules', { rules: [deny('r', { when: [] })] }, 422, 'rules[0].when'],
  ])('refuses %s, and leaves the policy as it was', async (_, change, status, field) => {
    const { revision: __, ...before } = await publish(admin, [deny('r', { models: ['grok-none'] })]);
    for (const call of [admin, root]) {
      const error = await expectError(await call('PUT', `/policies/${before.id}`, { name: 'q', rules: [deny('all')], ...change }), status, status === 422 ? 'invalid_policy' : 'invalid_request');
      expect(`${error.param} ${error.message}`).toContain(field);
    }
    expect(await policiesOf(admin)).toEqual([before]);
    expect(await statusOf(harness.complete())).toBe(200);
  });

  it('of many at once leaves one of them whole', async () => {
    const { id } = await publish(admin, [deny('r', { models: ['grok-none'] })]);
    const answers = await Promise.all(Array.from({ length: 8 }, (_, at) => admin('PUT', `/policies/${id}`, { name: `p${at}`, rules: [deny(`r${at}`, { models: ['grok-none'] })] })));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    const { name, rules } = await madeBy<PolicyView>(await admin('GET', `/policies/${id}`));
    expect(rules[0]!.id).toBe(name.replace('p', 'r'));
  });
});

describe('DELETE /admin/v1/policies/{id}', () => {
  it('takes it away, acts on the next request, and records what it was', async () => {
    const before = await publish(admin, [deny('all')]);
    expect(await statusOf(harness.complete())).toBe(403);
    const response = await admin('DELETE', `/policies/${before.id}`);
    expect([response.status, await response.text()]).toEqual([204, '']);
    expect(await statusOf(harness.complete())).toBe(200);
    await expectError(await admin('GET', `/policies/${before.id}`), 404, 'not_found');
    await expectError(await admin('DELETE', `/policies/${before.id}`), 404, 'not_found');
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({
      api: { operation: 'DELETE /admin/v1/policies/:id' }, unmapped: { novix: { object: { type: 'policy', id: before.id }, before: { name: 'Of a test', rules: ['all'] }, after: null } },
    });
  });
});

describe('who may', () => {
  const none = [deny('r', { models: ['grok-none'] })];
  it.each<[string, string, string[], number[]]>([
    // list, read, make, replace, delete
    ['a developer', 'acme', ['developer'], [403, 403, 403, 403, 403]], ['billing', 'acme', ['billing'], [403, 403, 403, 403, 403]], ['an auditor', 'acme', ['auditor'], [200, 200, 403, 403, 403]], ['nobody in particular', 'acme', [], [403, 403, 403, 403, 403]],
    ['an unknown role', 'acme', ['root', 'admin', 'Tenant-Admin'], [403, 403, 403, 403, 403]], ['a platform-admin of a tenant', 'acme', ['platform-admin'], [403, 403, 403, 403, 403]],
    ['all lesser roles together', 'acme', ['developer', 'billing', 'auditor'], [200, 200, 403, 403, 403]], ['a tenant-admin', 'acme', ['tenant-admin'], [200, 200, 201, 200, 204]], ['a platform-admin', 'platform', ['platform-admin'], [200, 200, 201, 200, 204]],
    ['a tenant-admin of another tenant', 'globex', ['tenant-admin'], [200, 404, 404, 404, 404]], ['an auditor of the platform', 'platform', ['auditor'], [200, 404, 403, 403, 403]], ['a tenant-admin of the platform', 'platform', ['tenant-admin'], [200, 404, 404, 404, 404]],
  ])('%s', async (_, tenant, roles, expected) => {
    const { id } = await publish(root, none);
    const call = adminOf(harness, await harness.token({ tenant, roles }));
    const answers = [await call('GET', '/policies'), await call('GET', `/policies/${id}`), await call('POST', '/policies', { tenant: 'acme', name: 'p', rules: none }), await call('PUT', `/policies/${id}`, { name: 'q', rules: none }), await call('DELETE', `/policies/${id}`)];
    expect(answers.map(({ status }) => status)).toEqual(expected);
    for (const answer of answers.filter(({ status }) => status === 403)) {
      const error = await expectError(answer, 403, 'policy_denied');
      expect(error.decision_id).toMatch(UUID);
      expect((await eventOf(harness, answer.headers.get('x-request-id'), 'refusal')).unmapped.novix.decision).toMatchObject({ id: error.decision_id });
    }
    const { status, body } = await root('GET', `/policies/${id}`).then(async (left) => ({ status: left.status, body: await left.text() }));
    expect([status, body.includes('Of a test')]).toEqual(expected[4] === 204 ? [404, false] : [200, true]);
  });

  it('a policy for all tenants is a platform-admin’s alone to write, and nobody else’s to see', async () => {
    await expectError(await admin('POST', '/policies', { tenant: null, name: 'p', rules: none }), 403, 'policy_denied');
    const { id } = await publish(root, none, { tenant: null });
    for (const [method, body] of [['GET'], ['PUT', { name: 'q', rules: none }], ['PUT', { tenant: null, name: 'q', rules: none }], ['PUT', { tenant: 'acme', name: 'q', rules: none }], ['DELETE']] as const) {
      expect((await expectError(await admin(method, `/policies/${id}`, body), 404, 'not_found')).message).toBe('There is no such policy.');
    }
    expect(await madeBy(await root('GET', `/policies/${id}`))).toMatchObject({ tenant: null, name: 'Of a test' });
  });

  it.each(['nobody', '00000000-0000-4000-8000-000000000000', '__proto__', "'%20OR%20'1'='1", '%00', '%2e%2e%2ftenants'])('%s is not there: 404, to read, replace and delete', async (id) => {
    for (const [method, body] of [['GET'], ['PUT', { name: 'q', rules: none }], ['DELETE']] as const) await expectError(await admin(method, `/policies/${id}`, body), 404, 'not_found');
    expect(await policiesOf(root)).toEqual([]);
  });

  it('another tenant’s policy looks like one that is not there, in text and in time', async () => {
    const { id } = await publish(root, none, { tenant: 'globex' });
    const took: Record<string, number[]> = { foreign: [], absent: [] };
    const texts = new Set<string>();
    for (let round = 0; round < 60; round += 1) {
      for (const [whose, path] of [['foreign', id], ['absent', randomUUID()]] as const) {
        const startedMs = performance.now();
        const response = await admin('GET', `/policies/${path}`);
        texts.add(`${response.status} ${await response.text()}`);
        took[whose]!.push(performance.now() - startedMs);
      }
    }
    expect(texts.size).toBe(1);
    const [foreign, absent] = [quantile(took['foreign']!, 0.5), quantile(took['absent']!, 0.5)];
    expect(Math.abs(foreign - absent)).toBeLessThan(1 + absent / 2);
  });
});

describe('rules together', () => {
  it('deny, whatever allows, in any order and over policies', async () => {
    const orders: RuleView[][][] = [[[allow('a'), deny('d')]], [[deny('d'), allow('a')]], [[deny('d')], [allow('a')]], [[allow('a')], [deny('d')]], [[allow('a'), deny('d', { models: ['grok-4*'] }), allow('b', { models: ['grok-beta'] })]]];
    for (const policies of orders) {
      for (const rules of policies) await publish(admin, rules);
      expect(await statusOf(harness.complete())).toBe(403);
      await removeAll(root, '/policies');
      expect(await statusOf(harness.complete())).toBe(200);
    }
  });

  it('of the tenant cannot lift what the platform denies, nor the platform what the tenant denies', async () => {
    const platform = await publish(root, [deny('d')], { tenant: null });
    const own = await publish(admin, [allow('a')]);
    expect(await statusOf(harness.complete())).toBe(403);
    await madeBy(await root('PUT', `/policies/${platform.id}`, { name: 'p', rules: [allow('a')] }));
    expect(await statusOf(harness.complete())).toBe(200);
    await madeBy(await admin('PUT', `/policies/${own.id}`, { name: 'p', rules: [deny('d')] }));
    expect(await statusOf(harness.complete())).toBe(403);
  });

  it('of a tenant do not touch another; the platform’s do', async () => {
    const globex = await harness.token({ tenant: 'globex' });
    await publish(admin, [deny('d')]);
    expect([await statusOf(harness.complete()), await statusOf(completeAt(harness.url, globex))]).toEqual([403, 200]);
    await removeAll(root, '/policies');
    await publish(admin, [allow('billing-too', { when: [{ attr: 'principal.roles', op: 'in', value: ['billing'] }] })]);
    const [ours, theirs] = [await harness.token({ roles: ['billing'] }), await harness.token({ tenant: 'globex', roles: ['billing'] })];
    expect([await statusOf(completeAt(harness.url, ours)), await statusOf(completeAt(harness.url, theirs))]).toEqual([200, 403]);
    await publish(root, [deny('d')], { tenant: null });
    expect([await statusOf(harness.complete()), await statusOf(completeAt(harness.url, globex)), await statusOf(completeAt(harness.url, ours))]).toEqual([403, 403, 403]);
  });

  it('allow what the built-in ones leave out, and never what they deny', async () => {
    await publish(admin, [allow('all')]);
    expect(await statusOf(completeAt(harness.url, await harness.token({ roles: [] })))).toBe(200);
    await expectError(await harness.complete({}, { 'x-novix-data-class': 'restricted' }), 403, 'policy_denied');
  });

  it.each(['grok-beta', 'grok-4.3', 'grok-4.3-latest', 'grok-b*', 'grok-4.3*', '*'])('on the model %s stop calls by its alias', async (pattern) => {
    await publish(admin, [deny('d', { models: [pattern] })]);
    expect(await statusOf(harness.complete({ model: pattern === 'grok-4.3-latest' ? pattern : 'grok-beta' }))).toBe(403);
    expect(await statusOf(harness.complete({ model: 'grok-pro' }))).toBe(pattern === '*' ? 403 : 200);
  });

  it('about keeping answers do not stop calls; one that allows it lets it be asked for', async () => {
    const respond = (): Promise<number> => statusOf(harness.request('POST', '/v1/responses', { body: { model: 'grok-beta', input: 'Say hello.', store: true } }));
    expect(await respond()).toBe(403);
    await publish(admin, [allow('keep', { actions: ['store'] })]);
    expect(await respond()).toBe(200);
    await publish(admin, [deny('never', { actions: ['store'] })]);
    expect([await respond(), await statusOf(harness.complete())]).toEqual([403, 200]);
  });

  it('take what cannot be used out of the list of models', async () => {
    await publish(admin, [deny('no-beta', { models: ['grok-beta'] })]);
    const { data } = await madeBy<{ data: { id: string }[] }>(await harness.request('GET', '/v1/models'));
    const ids = data.map(({ id }) => id);
    expect([ids.includes('grok-beta'), ids.includes('grok-pro')]).toEqual([false, true]);
    await expectError(await harness.request('GET', '/v1/models/grok-beta'), 404, 'model_not_found');
  });

  it('end streams that run, which are settled and on record', async () => {
    const [ours, theirs] = [await running(harness.complete({ stream: true, x_emulator: LONG_STREAM })), await running(completeAt(harness.url, await harness.token({ tenant: 'globex' }), { stream: true, x_emulator: LONG_STREAM }))];
    const startedMs = performance.now();
    await publish(admin, [deny('stop', { reason: 'Stop it.' })]);
    const { text, atMs } = await ours.ended;
    expect(atMs - startedMs).toBeLessThan(2_000);
    expect(expectCut(text, 'policy_denied').message).toContain('Stop it.');
    const { outcome, basis, chargedTicks } = await settled(harness, ours.requestId);
    expect([outcome, basis]).toEqual(['failed', 'observed']);
    expect(chargedTicks).toBeGreaterThan(0n);
    expect((await eventOf(harness, ours.requestId, 'outcome'))).toMatchObject({ status_code: 'policy_denied' });
    const foreign = harness.emulator.calls.filter(({ state }) => state === 'running');
    expect(foreign).toHaveLength(1); // the other tenant's goes on
    await publish(root, [deny('stop')], { tenant: null });
    expectCut((await theirs.ended).text, 'policy_denied');
  });
});

describe('a condition on', () => {
  const image = [{ role: 'user', content: [{ type: 'text', text: 'What is it?' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } }] }];
  const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: {} } } }];
  type Way = { token?: Parameters<Harness['token']>[0]; body?: Record<string, unknown>; headers?: Record<string, string> };
  const go = async ({ token = {}, body = {}, headers = {} }: Way): Promise<number> => statusOf(completeAt(harness.url, await harness.token(token), body, headers));

  it.each<[string, string, unknown, Way, Way]>([
    // the condition; a call that it is about, and one that it is not about
    ['principal.tenant', 'eq', 'acme', {}, { token: { tenant: 'globex' } }], ['principal.sub', 'eq', 'mallory', { token: { subject: 'mallory' } }, {}], ['principal.sub', 'prefix', 'svc-', { token: { subject: 'svc-a' } }, { token: { subject: 'a-svc-' } }],
    ['principal.roles', 'in', ['billing'], { token: { roles: ['developer', 'billing'] } }, {}], ['principal.attrs.team', 'eq', 'bi', { token: { attributes: { team: 'bi' } } }, { token: { attributes: { team: 'hr' } } }],
    ['principal.attrs.clearance', 'lt', 3, { token: { attributes: { clearance: 2 } } }, { token: { attributes: { clearance: 3 } } }], ['principal.attrs.region', 'not_in', ['eu'], { token: { attributes: { region: ['us', 'ap'] } } }, { token: { attributes: { region: ['us', 'eu'] } } }],
    ['principal.attrs.team', 'exists', false, {}, { token: { attributes: { team: 'bi' } } }], ['request.model', 'eq', 'grok-pro', { body: { model: 'grok-pro' } }, {}], ['request.stream', 'eq', true, { body: { stream: true } }, { body: { stream: false } }],
    ['request.data_class', 'in', ['confidential', 'restricted'], { headers: { 'x-novix-data-class': 'confidential' } }, {}], ['request.data_class', 'eq', 'internal', { headers: { 'x-novix-data-class': 'public' } }, { headers: { 'x-novix-data-class': 'confidential' } }],
    ['request.max_tokens', 'gt', 100, { body: { max_tokens: 101 } }, { body: { max_tokens: 100 } }], ['request.max_tokens', 'gte', 4_000, {}, { body: { max_completion_tokens: 3_999 } }],
    ['request.estimated_cost_usd', 'gt', 0.02, { body: { max_tokens: 30_000 } }, { body: { max_tokens: 10 } }], ['request.capabilities', 'in', ['image_input'], { body: { messages: image } }, {}], ['request.capabilities', 'eq', 'function_calling', { body: { tools } }, {}],
    ['request.capabilities', 'in', ['structured_output'], { body: { response_format: { type: 'json_object' } } }, {}],
  ])('%s %s %j decides', async (attr, op, value, concerned, unconcerned) => {
    await publish(root, [deny('d', { when: [{ attr, op, value }] })], { tenant: null });
    expect([await go(concerned), await go(unconcerned)]).toEqual([403, 200]);
  });

  it.each<[string, string, unknown, unknown]>([
    // values that hold for every call of ours, and values that do not
    ['principal.client_id', 'eq', 'sandbox', 'another'], ['principal.mtls', 'eq', false, true], ['env.ip', 'cidr', '127.0.0.0/8', '10.0.0.0/8'], ['env.ip', 'cidr', ['::1', '127.0.0.1'], ['::1', '127.0.0.2']],
    ['deployment.region', 'eq', 'global', 'eu'], ['deployment.accelerator', 'eq', 'shared', 'dedicated'],
  ])('%s %s %j decides', async (attr, op, holds, fails) => {
    const policy = await publish(admin, [deny('d', { when: [{ attr, op, value: holds }] })]);
    expect(await go({})).toBe(403);
    await madeBy(await admin('PUT', `/policies/${policy.id}`, { name: 'p', rules: [deny('d', { when: [{ attr, op, value: fails }] })] }));
    expect(await go({})).toBe(200);
  });

  it.each<[string, string, unknown, unknown]>([
    // values that hold at noon of a Tuesday, and values that do not
    ['env.weekday', 'eq', 'tuesday', 'wednesday'], ['env.weekday', 'in', ['monday', 'tuesday'], ['saturday', 'sunday']], ['env.time', 'time_between', ['11:30', '12:30', 'UTC'], ['12:30', '11:30', 'UTC']],
    ['env.time', 'time_between', ['17:15', '17:45', 'Asia/Kolkata'], ['11:30', '12:30', 'Asia/Kolkata']], ['env.time', 'time_between', ['22:00', '12:01', 'UTC'], ['22:00', '11:59', 'UTC']],
  ])('%s %s %j decides, by the clock', async (attr, op, holds, fails) => {
    const { key } = await makeKey(admin); // a token would have expired by then
    const statuses: number[] = [];
    for (const value of [holds, fails]) {
      await publish(admin, [deny('d', { when: [{ attr, op, value }] })]);
      statuses.push(await clock.at(NOON_MS, () => statusOf(completeAt(harness.url, key))));
      await removeAll(root, '/policies');
    }
    expect(statuses).toEqual([403, 200]);
  });

  it('the time opens and shuts as the clock goes on, without a change of the rules', async () => {
    const { key } = await makeKey(admin);
    await publish(admin, [deny('after-hours', { when: [{ attr: 'env.time', op: 'time_between', value: ['18:00', '08:00', 'UTC'] }] }), deny('weekend', { when: [{ attr: 'env.weekday', op: 'in', value: ['saturday', 'sunday'] }] })]);
    const [minute, day] = [60_000, 86_400_000];
    const seen: number[] = [];
    for (const after of [-241 * minute, -240 * minute, 359 * minute, 360 * minute, 3 * day, 4 * day, 5 * day, 6 * day]) seen.push(await clock.at(NOON_MS + after, () => statusOf(completeAt(harness.url, key))));
    expect(seen).toEqual([403, 200, 200, 403, 200, 403, 403, 200]);
  });

  it('an attribute that the token lacks, or has in another type, denies by a deny and allows nothing', async () => {
    await publish(admin, [deny('d', { when: [{ attr: 'principal.attrs.clearance', op: 'lt', value: 3 }] })]);
    expect([await go({}), await go({ token: { attributes: { clearance: '9' } } }), await go({ token: { attributes: { clearance: 9 } } })]).toEqual([403, 403, 200]);
    await removeAll(root, '/policies');
    await publish(admin, [allow('a', { when: [{ attr: 'principal.attrs.clearance', op: 'gte', value: 3 }] })]);
    const as = (attributes: Record<string, string | number>): Promise<number> => go({ token: { roles: [], attributes } });
    expect([await as({}), await as({ clearance: '9' }), await as({ clearance: 9 })]).toEqual([403, 403, 200]);
  });

  it('the deployment takes those away that it denies, and leaves the others', async () => {
    const shard = (id: string, more: Record<string, unknown>): Promise<DeploymentView> => deploy(root, { id, base_url: other.url, api_key: OTHER_KEY, ...more });
    await shard('eu', { region: 'eu', zdr: true });
    await shard('us', { region: 'us', zdr: false, accelerator: 'dedicated' });
    const globex = await harness.token({ tenant: 'globex' }); // an enterprise: it may use dedicated accelerators
    const served = async (condition: { attr: string; op: string; value: unknown }): Promise<string[]> => {
      await publish(root, [deny('d', { when: [condition] })], { tenant: null });
      // At once, so that the load is spread over all that may serve.
      const ids = await Promise.all(Array.from({ length: 24 }, () => servedBy(completeAt(harness.url, globex, { x_emulator: { first_token_ms: 50 } }))));
      await removeAll(root, '/policies');
      return [...new Set(ids)].toSorted();
    };
    expect(await served({ attr: 'deployment.region', op: 'ne', value: 'eu' })).toEqual(['eu']);
    expect(await served({ attr: 'deployment.region', op: 'in', value: ['eu'] })).toEqual(['us', 'xai']);
    expect(await served({ attr: 'deployment.accelerator', op: 'ne', value: 'dedicated' })).toEqual(['us']);
    expect(await served({ attr: 'deployment.zdr', op: 'ne', value: true })).toEqual(['eu']); // the built-in one does not say
    await publish(root, [deny('d', { when: [{ attr: 'deployment.region', op: 'in', value: ['eu', 'us', 'global'] }] })], { tenant: null });
    await expectError(await completeAt(harness.url, globex), 403, 'policy_denied');
  });
});
