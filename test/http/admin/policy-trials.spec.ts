import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { allow, deny, listAll, publish, removeAll, type PolicyView, type RuleView } from '../../support/access.ts';
import { adminOf, completeAt, deploy, madeBy, removeStored, type AdminCall } from '../../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, type AuditEvent } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Why a decision falls, and what a policy would change: judged against the calls that were really decided.

interface Explained {
  allowed: boolean;
  decision_id: string;
  revision: string;
  matched: { policy: string; rule: string; effect: string }[];
  missing: string[];
  reason: string | null;
  recorded?: { allowed: boolean; revision: string; policy: string | null; rule: string | null; at: string; request_id: string };
}
interface DryRun {
  evaluated: number;
  flips: { decision_id: string; from: string; to: string; rule: string | null }[];
}
type RecordedDecision = NonNullable<AuditEvent['unmapped']['novix']['decision']> & { policy?: string; revision: string; shadow?: unknown; attributes?: Record<string, unknown>; deployments?: Record<string, unknown>[] };

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const NOWHERE = { models: ['grok-none'] };
const BUILT_IN = { policy: 'roles', rule: 'developers-invoke', effect: 'allow' };

let harness: Harness;
let root: AdminCall;
let admin: AdminCall;
let auditor: AdminCall;
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '0' } });
  root = adminOf(harness, await harness.adminToken());
  admin = adminOf(harness, await harness.token({ subject: 'admin@acme.example', roles: ['tenant-admin'] }));
  auditor = adminOf(harness, await harness.token({ subject: 'auditor@acme.example', roles: ['auditor'] }));
});
afterEach(async () => {
  await removeAll(root, '/policies');
  await removeStored(root);
  harness.emulator.reset();
});
afterAll(async () => {
  await harness.close();
});

const explain = async (body: unknown, call = admin): Promise<Explained> => madeBy<Explained>(await call('POST', '/policies:explain', body));
const dryRun = async (policy: Record<string, unknown>, last?: number, call = admin): Promise<DryRun> => {
  // Which is the newest is certain once the log has put all in order.
  await eventually(async () => (await harness.db.query('SELECT FROM audit_pending')).rowCount === 0);
  return madeBy<DryRun>(await call('POST', '/policies:dry-run', { policy, ...(last !== undefined && { last }) }));
};
const decisionOf = async (response: Response, phase: 'intent' | 'refusal'): Promise<RecordedDecision> => (await eventOf(harness, response.headers.get('x-request-id'), phase)).unmapped.novix.decision as RecordedDecision;

/** One call, and its decision once that is on record. */
async function decided(status: number, { token, body = {}, headers = {} }: { token?: string; body?: Record<string, unknown>; headers?: Record<string, string> } = {}): Promise<RecordedDecision> {
  const response = await completeAt(harness.url, token ?? (await harness.token()), body, headers);
  await response.text();
  expect(response.status).toBe(status);
  return decisionOf(response, status === 200 ? 'intent' : 'refusal');
}

describe('POST /admin/v1/policies:explain', () => {
  const developer = { principal: { roles: ['developer'] }, request: { model: 'grok-beta' } };

  it('says which rule lets a call in', async () => {
    const answer = await madeBy<Explained>(await admin('POST', '/policies:explain', developer));
    expect(answer).toEqual({ allowed: true, decision_id: expect.stringMatching(UUID), revision: expect.stringMatching(/^\d+-config-/), matched: [BUILT_IN], missing: [], reason: expect.stringContaining('may call models') });
  });

  it('says which rules match, allowing and denying, in which policy, and why', async () => {
    const { revision } = await publish(admin, [deny('no-big-ones', { when: [{ attr: 'request.max_tokens', op: 'gt', value: 100 }], reason: 'At most 100 tokens.' }), allow('also'), deny('other', NOWHERE)], { name: 'House rules' });
    const answer = await explain({ ...developer, request: { model: 'grok-beta', max_tokens: 101 } });
    expect(answer).toMatchObject({ allowed: false, revision, missing: [], reason: 'At most 100 tokens.' });
    expect(answer.matched.toSorted((left, right) => left.rule.localeCompare(right.rule))).toEqual([
      { policy: 'House rules', rule: 'also', effect: 'allow' }, BUILT_IN, { policy: 'House rules', rule: 'no-big-ones', effect: 'deny' },
    ]);
    expect(await explain({ ...developer, request: { model: 'grok-beta', max_tokens: 100 } })).toMatchObject({ allowed: true });
  });

  it('says that nothing allows it', async () => {
    expect(await explain({ principal: { roles: ['auditor'] }, request: { model: 'grok-beta' } })).toMatchObject({ allowed: false, matched: [], missing: [] });
  });

  it('names what rules ask about and nobody gave, sorted, each once', async () => {
    await publish(admin, [
      deny('a', { when: [{ attr: 'principal.attrs.clearance', op: 'lt', value: 3 }, { attr: 'request.max_tokens', op: 'gt', value: 1 }] }), allow('b', { when: [{ attr: 'principal.attrs.clearance', op: 'gte', value: 3 }] }),
      deny('c', { ...NOWHERE, when: [{ attr: 'principal.attrs.unasked', op: 'eq', value: 'x' }] }),
    ]);
    expect(await explain(developer)).toMatchObject({ allowed: false, missing: ['principal.attrs.clearance', 'request.max_tokens'] });
    expect(await explain({ principal: { roles: ['developer'], attrs: { clearance: 'three' } }, request: { model: 'grok-beta', max_tokens: 5 } })).toMatchObject({ allowed: false, missing: ['principal.attrs.clearance'] }); // mistyped
    expect(await explain({ principal: { roles: ['developer'], attrs: { clearance: 3 } }, request: { model: 'grok-beta' } })).toMatchObject({ allowed: true });
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['principal.sub', { principal: { sub: 'x' } }, { principal: { sub: 'y' } }], ['principal.client_id', { principal: { client_id: 'x' } }, { principal: { client_id: 'y' } }], ['principal.attrs.team', { principal: { attrs: { team: 'x' } } }, { principal: { attrs: { team: 'y' } } }],
    ['request.data_class', { request: { data_class: 'confidential' } }, { request: { data_class: 'public' } }], ['request.capabilities', { request: { capabilities: ['image_input'] } }, { request: { capabilities: ['text'] } }],
    ['env.weekday', { env: { weekday: 'sunday' } }, { env: { weekday: 'monday' } }], ['deployment.region', { deployment: { region: 'eu' } }, { deployment: { region: 'us' } }], ['deployment.accelerator', { deployment: { accelerator: 'dedicated' } }, { deployment: { accelerator: 'shared' } }],
  ])('takes %s as it is told', async (attr, matching, other) => {
    const value = { 'request.data_class': 'confidential', 'request.capabilities': 'image_input', 'env.weekday': 'sunday', 'deployment.region': 'eu', 'deployment.accelerator': 'dedicated' }[attr] ?? 'x';
    await publish(admin, [deny('d', { when: [{ attr, op: 'eq', value }] })]);
    const ask = (part: Record<string, unknown>): Promise<Explained> => explain({ ...part, principal: { roles: ['developer'], ...(part['principal'] as object) }, request: { model: 'grok-beta', ...(part['request'] as object) } });
    expect([(await ask(matching)).allowed, (await ask(other)).allowed]).toEqual([false, true]);
  });

  it('takes network, time, numbers and switches as it is told', async () => {
    const conditions: [RuleView['when'], Record<string, unknown>, Record<string, unknown>][] = [
      [[{ attr: 'env.ip', op: 'cidr', value: '10.0.0.0/8' }], { env: { ip: '10.1.2.3' } }, { env: { ip: '192.0.2.1' } }],
      [[{ attr: 'env.time', op: 'time_between', value: ['08:00', '18:00', 'Europe/Berlin'] }], { env: { time: '2026-07-01T06:00:00Z' } }, { env: { time: '2026-01-01T06:00:00Z' } }],
      [[{ attr: 'env.weekday', op: 'eq', value: 'wednesday' }], { env: { time: '2026-07-01T06:00:00Z' } }, { env: { time: '2026-07-02T06:00:00Z' } }],
      [[{ attr: 'request.estimated_cost_usd', op: 'gt', value: 0.5 }], { request: { estimated_cost_usd: 0.6 } }, { request: { estimated_cost_usd: 0.5 } }],
      [[{ attr: 'request.stream', op: 'eq', value: true }], { request: { stream: true } }, { request: { stream: false } }], [[{ attr: 'principal.mtls', op: 'eq', value: false }], { principal: { mtls: false } }, { principal: { mtls: true } }],
      [[{ attr: 'deployment.zdr', op: 'ne', value: true }], { deployment: { zdr: false } }, { deployment: { zdr: true } }],
    ];
    for (const [when, matching, other] of conditions) {
      const { id } = await publish(admin, [deny('d', { when: when! })]);
      const ask = async (part: Record<string, unknown>): Promise<boolean> => (await explain({ ...part, principal: { roles: ['developer'], ...(part['principal'] as object) }, request: { model: 'grok-beta', ...(part['request'] as object) } })).allowed;
      expect([when![0]!.attr, await ask(matching), await ask(other)]).toEqual([when![0]!.attr, false, true]);
      await admin('DELETE', `/policies/${id}`);
    }
  });

  it('knows a model by all its names, and each of its deployments', async () => {
    await publish(admin, [deny('d', { models: ['grok-4.3'], when: [{ attr: 'deployment.region', op: 'eq', value: 'global' }] })]);
    expect((await explain(developer)).allowed).toBe(false);
    await deploy(root, { id: 'eu', base_url: 'env', region: 'eu' });
    expect(await explain(developer)).toMatchObject({ allowed: true, matched: [BUILT_IN] }); // one of them may serve
    expect((await explain({ ...developer, deployment: { region: 'global' } })).allowed).toBe(false);
    await publish(admin, [deny('e', { models: ['grok-beta'], when: [{ attr: 'deployment.region', op: 'eq', value: 'eu' }] })]);
    expect((await explain(developer)).matched.map(({ rule }) => rule).toSorted()).toEqual(['d', 'developers-invoke', 'e']); // all that stand in the way
  });

  it('tells storing from calling', async () => {
    const store = { ...developer, request: { model: 'grok-beta', action: 'store' } };
    expect(await explain(store)).toMatchObject({ allowed: false, matched: [] });
    await publish(admin, [allow('keep', { actions: ['store'] })]);
    expect(await explain(store)).toMatchObject({ allowed: true, matched: [{ rule: 'keep' }] });
  });

  it('tells an app developer’s admin in one answer why the call was refused, by its decision id', async () => {
    const { revision } = await publish(admin, [deny('no-secrets', { when: [{ attr: 'request.data_class', op: 'in', value: ['confidential'] }], reason: 'Secrets stay here.' })], { name: 'House rules' });
    const response = await harness.complete({}, { 'x-novix-data-class': 'confidential' });
    const { decision_id: decisionId } = await expectError(response, 403, 'policy_denied');
    for (const call of [admin, auditor, root]) {
      const answer = await explain({ decision_id: decisionId }, call); // at once, though refusals are recorded a little later
      expect(answer).toEqual({
        allowed: false, decision_id: decisionId, revision, missing: [], reason: 'Secrets stay here.', matched: expect.arrayContaining([BUILT_IN, { policy: 'House rules', rule: 'no-secrets', effect: 'deny' }]),
        recorded: { allowed: false, revision, policy: 'House rules', rule: 'no-secrets', at: expect.stringMatching(/Z$/), request_id: response.headers.get('x-request-id') },
      });
    }
  });

  it('shows a call that was let in, by the id in its headers, and how it would fall now', async () => {
    const response = await harness.complete();
    const decisionId = response.headers.get('x-novix-decision-id')!;
    const recorded = { allowed: true, policy: 'roles', rule: 'developers-invoke', request_id: response.headers.get('x-request-id') };
    expect(await explain({ decision_id: decisionId })).toMatchObject({ allowed: true, matched: [BUILT_IN], recorded });
    const { revision } = await publish(admin, [deny('since-then')]);
    const now = await explain({ decision_id: decisionId });
    expect(now).toMatchObject({ allowed: false, revision, recorded });
    expect(now.recorded!.revision).not.toBe(revision);
    await publish(root, [deny('elsewhere')], { tenant: 'globex' });
    expect((await explain({ decision_id: decisionId }, root)).matched.map(({ rule }) => rule)).not.toContain('elsewhere'); // decided by its own tenant's rules
  });

  it('does not show another tenant’s decision: it looks like one that is not there', async () => {
    const globex = await harness.token({ tenant: 'globex' });
    const ids = [(await decided(200, { token: globex })).id, (await decided(403, { token: globex, headers: { 'x-novix-data-class': 'restricted' } })).id, randomUUID(), 'x', "' OR 1=1 --"];
    const texts = new Set<string>();
    for (const id of ids) {
      const error = await expectError(await admin('POST', '/policies:explain', { decision_id: id }), 404, 'not_found');
      texts.add(`${error.param} ${error.message}`);
    }
    expect(texts.size).toBe(1);
    expect((await explain({ decision_id: ids[0] }, root)).recorded).toMatchObject({ allowed: true });
    await expectError(await admin('POST', '/policies:explain', { principal: { tenant: 'globex' }, request: { model: 'grok-beta' } }), 404, 'not_found');
    expect((await explain({ principal: { tenant: 'globex', roles: ['developer'] }, request: { model: 'grok-beta' } }, root)).allowed).toBe(true);
  });

  it.each<[string, unknown]>([
    ['an unknown field', { colour: 'red' }], ['an unknown field of the principal', { principal: { tenantId: 'acme' } }], ['an unknown field of the request', { request: { modelNames: ['x'] } }], ['an unknown field of env', { env: { zone: 'UTC' } }],
    ['an unknown action', { request: { action: 'manage' } }], ['an unknown data class', { request: { data_class: 'secret' } }], ['a time that is none', { env: { time: 'noon' } }], ['roles that are no list', { principal: { roles: 'developer' } }],
    ['an attribute that is an object', { principal: { attrs: { team: { name: 'bi' } } } }], ['a number as decision', { decision_id: 7 }], ['a list', []],
  ])('refuses %s with 400', async (_, body) => {
    const error = await expectError(await admin('POST', '/policies:explain', body), 400, 'invalid_request');
    expect(error.decision_id).toBeUndefined();
  });

  it('sends nothing upstream and keeps no record of a decision', async () => {
    const { decision_id: decisionId } = await explain(developer);
    await expectError(await admin('POST', '/policies:explain', { decision_id: decisionId }), 404, 'not_found');
    expect(harness.emulator.calls).toEqual([]);
  });
});

describe('POST /admin/v1/policies:dry-run', () => {
  const confidential = { headers: { 'x-novix-data-class': 'confidential' } };
  const noConfidential = [deny('no-confidential', { when: [{ attr: 'request.data_class', op: 'eq', value: 'confidential' }] })];

  it('lists the calls that a policy would have stopped, and enforces nothing', async () => {
    const [plain, secret] = [await decided(200), await decided(200, confidential)];
    expect(await dryRun({ rules: noConfidential }, 2)).toEqual({ evaluated: 2, flips: [{ decision_id: secret.id, from: 'allowed', to: 'denied', rule: 'no-confidential' }] });
    expect((await dryRun({ rules: [deny('all')] }, 2)).flips.map(({ decision_id: id }) => id)).toEqual([secret.id, plain.id]); // newest first
    await decided(200, confidential);
    expect(await listAll<PolicyView>(admin, '/policies')).toEqual([]);
  });

  it('lists the calls that a policy would have let in', async () => {
    const billing = await harness.token({ roles: ['billing'] });
    const refused = await decided(403, { token: billing });
    expect(await dryRun({ rules: [allow('billing-too', { when: [{ attr: 'principal.roles', op: 'in', value: ['billing'] }] })] }, 1)).toEqual({ evaluated: 1, flips: [{ decision_id: refused.id, from: 'denied', to: 'allowed', rule: 'billing-too' }] });
    expect((await dryRun({ rules: [allow('auditors', { when: [{ attr: 'principal.roles', op: 'in', value: ['auditor'] }] })] }, 1)).flips).toEqual([]);
  });

  it('looks at the last so many decisions, and at no more', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 5; n += 1) ids.unshift((await decided(200)).id);
    for (const last of [1, 3, 5]) expect((await dryRun({ rules: [deny('all')] }, last)).flips.map(({ decision_id: id }) => id)).toEqual(ids.slice(0, last));
    const { evaluated } = await dryRun({ rules: [deny('all')] });
    expect(evaluated).toBeGreaterThanOrEqual(5);
    for (const last of [0, -1, 1.5, 10_001, '5']) await expectError(await admin('POST', '/policies:dry-run', { policy: { rules: [deny('all')] }, last }), 400, 'invalid_request');
  });

  it('tries a policy in the place of the one it would replace', async () => {
    const { id } = await publish(admin, noConfidential);
    const refused = await decided(403, confidential);
    const lenient = [deny('no-restricted', { when: [{ attr: 'request.data_class', op: 'eq', value: 'restricted' }] })];
    expect((await dryRun({ rules: lenient }, 1)).flips).toEqual([]); // beside it, nothing changes
    expect((await dryRun({ id, rules: lenient }, 1)).flips).toEqual([{ decision_id: refused.id, from: 'denied', to: 'allowed', rule: 'developers-invoke' }]);
    await decided(403, confidential);
  });

  it('evaluates what it would enforce, whatever status the candidate has', async () => {
    const { id } = await decided(200);
    for (const status of ['shadow', 'enforced']) expect((await dryRun({ rules: [deny('all')], status }, 1)).flips).toEqual([{ decision_id: id, from: 'allowed', to: 'denied', rule: 'all' }]);
  });

  it('counts a tenant’s own decisions alone; all of them for a platform-admin who does not say whose', async () => {
    const globex = await harness.token({ tenant: 'globex' });
    const ours = await decided(200);
    const theirs = [await decided(200, { token: globex }), await decided(200, { token: globex })].map(({ id }) => id);
    const seen = async (policy: Record<string, unknown>, call: AdminCall): Promise<string[]> => (await dryRun({ rules: [deny('all')], ...policy }, 3, call)).flips.map(({ decision_id: id }) => id);
    expect((await seen({}, admin))[0]).toBe(ours.id);
    expect((await seen({}, admin)).filter((id) => theirs.includes(id))).toEqual([]);
    expect((await seen({ tenant: 'acme' }, root))[0]).toBe(ours.id);
    expect((await seen({ tenant: 'acme' }, root)).filter((id) => theirs.includes(id))).toEqual([]);
    expect((await seen({ tenant: 'globex' }, root)).slice(0, 2)).toEqual(theirs.toReversed());
    for (const policy of [{}, { tenant: null }]) expect((await seen(policy, root)).toSorted()).toEqual([ours.id, ...theirs].toSorted());
    await expectError(await admin('POST', '/policies:dry-run', { policy: { tenant: 'globex', rules: [deny('all')] } }), 404, 'not_found');
    await expectError(await admin('POST', '/policies:dry-run', { policy: { tenant: null, rules: [deny('all')] } }), 404, 'not_found');
  });

  it('leaves out what was not decided by rules', async () => {
    const token = await harness.token({ tenant: 'initech' });
    const initech = adminOf(harness, await harness.token({ tenant: 'initech', roles: ['tenant-admin'] }));
    await decided(200, { token });
    expect((await completeAt(harness.url, token, { model: 'grok-99' })).status).toBe(404);
    expect((await adminOf(harness, token)('GET', '/policies')).status).toBe(403); // by role
    const last = await decided(403, { token, headers: { 'x-novix-data-class': 'restricted' } });
    expect(await dryRun({ rules: [deny('r', NOWHERE)] }, 100, initech)).toEqual({ evaluated: 2, flips: [] });
    expect((await dryRun({ rules: [deny('all')] }, 100, initech)).flips.map(({ decision_id: id }) => id)).not.toContain(last.id);
  });

  it.each<[string, Record<string, unknown>, number, string | null]>([
    ['faulty rules', { policy: { rules: [deny('r', { when: [] })] } }, 422, 'rules[0].when'], ['an unknown operator', { policy: { rules: [deny('r', { when: [{ attr: 'principal.sub', op: '$regex', value: '.' }] })] } }, 422, 'rules[0].when[0].op'],
    ['rules twice', { policy: { rules: [deny('r'), deny('r')] } }, 422, 'rules[1].id'], ['no policy', {}, 400, null], ['an unknown field', { policy: { rules: [deny('r')] }, colour: 'red' }, 400, 'colour'], ['an unknown field of the policy', { policy: { rules: [deny('r')], revision: '1' } }, 400, 'policy'],
  ])('refuses %s', async (_, body, status, field) => {
    const error = await expectError(await admin('POST', '/policies:dry-run', body), status, status === 422 ? 'invalid_policy' : 'invalid_request');
    expect(`${error.param} ${error.message}`).toContain(field ?? 'policy');
  });
});

describe('who may ask', () => {
  it.each<[string, string, string[], number]>([
    ['a developer', 'acme', ['developer'], 403], ['billing', 'acme', ['billing'], 403], ['nobody in particular', 'acme', [], 403], ['a platform-admin of a tenant', 'acme', ['platform-admin'], 403],
    ['an auditor', 'acme', ['auditor'], 200], ['a tenant-admin', 'acme', ['tenant-admin'], 200], ['a platform-admin', 'platform', ['platform-admin'], 200],
  ])('%s', async (_, tenant, roles, status) => {
    const call = adminOf(harness, await harness.token({ tenant, roles }));
    const answers = await Promise.all([call('POST', '/policies:explain', { request: { model: 'grok-beta' } }), call('POST', '/policies:dry-run', { policy: { rules: [deny('r')] } })]);
    expect(answers.map((answer) => answer.status)).toEqual([status, status]);
    expect((await call('POST', '/policies:frobnicate', {})).status).toBe(404);
  });
});

describe('a shadowed policy', () => {
  it('stops nothing, and is on record with what it would have done', async () => {
    await publish(admin, [deny('quiet')], { status: 'shadow', name: 'Trial' });
    expect(await decided(200)).toMatchObject({ policy: 'roles', rule: 'developers-invoke', shadow: { allowed: false, policy: 'Trial', rule: 'quiet' } });
  });

  it('lets nothing in either', async () => {
    await publish(admin, [allow('quiet', { when: [{ attr: 'principal.roles', op: 'in', value: ['billing'] }] })], { status: 'shadow', name: 'Trial' });
    const billing = await harness.token({ roles: ['billing'] });
    expect(await decided(403, { token: billing })).toMatchObject({ shadow: { allowed: true, policy: 'Trial', rule: 'quiet' } });
  });

  it('is not on record where it would have decided alike', async () => {
    await publish(admin, [allow('quiet'), deny('other', NOWHERE)], { status: 'shadow' });
    expect(await decided(200)).not.toHaveProperty('shadow');
    expect(await decided(403, { headers: { 'x-novix-data-class': 'restricted' } })).not.toHaveProperty('shadow'); // a deny is not lifted by it
  });

  it('does not overrule what is enforced, in either direction', async () => {
    await publish(admin, [allow('quiet')], { status: 'shadow' });
    await publish(admin, [deny('loud')]);
    expect(await decided(403)).toMatchObject({ rule: 'loud' });
  });

  it('of the platform is recorded for every tenant, and one of a tenant for that alone', async () => {
    const globex = await harness.token({ tenant: 'globex' });
    const { id } = await publish(root, [deny('quiet')], { tenant: null, status: 'shadow', name: 'Trial' });
    for (const token of [await harness.token(), globex]) expect(await decided(200, { token })).toMatchObject({ shadow: { policy: 'Trial' } });
    await root('DELETE', `/policies/${id}`);
    await publish(admin, [deny('quiet')], { status: 'shadow', name: 'Trial' });
    expect(await decided(200)).toHaveProperty('shadow');
    expect(await decided(200, { token: globex })).not.toHaveProperty('shadow');
  });

  it('is enforced from the next request on when it is published, and no longer when it is taken back', async () => {
    const { id } = await publish(admin, [deny('quiet')], { status: 'shadow' });
    await decided(200);
    await madeBy(await admin('PUT', `/policies/${id}`, { name: 'p', status: 'enforced', rules: [deny('quiet')] }));
    expect(await decided(403)).toMatchObject({ rule: 'quiet' });
    await madeBy(await admin('PUT', `/policies/${id}`, { name: 'p', status: 'shadow', rules: [deny('quiet')] }));
    await decided(200);
  });

  it('does not cut a running stream', async () => {
    const stream = harness.complete({ stream: true, x_emulator: { output_tokens: 60, reasoning_tokens: 0, token_interval_ms: 20 } });
    await eventually(() => harness.emulator.calls.some(({ completionTokens }) => completionTokens > 2));
    await publish(admin, [deny('quiet')], { status: 'shadow' });
    expect(await (await stream).text()).toContain('[DONE]');
  });
});

describe('what a decision has on record', () => {
  it('is all that rules could ask about, and each deployment that could have served', async () => {
    await deploy(root, { id: 'eu', base_url: 'env', region: 'eu', zdr: true });
    const token = await harness.token({ subject: 'ada@acme.example', attributes: { team: 'bi', clearance: 3 } });
    const { id, revision, attributes, deployments } = await decided(200, { token, body: { max_tokens: 50 }, headers: { 'x-novix-data-class': 'confidential' } });
    expect([id, revision]).toEqual([expect.stringMatching(UUID), expect.stringMatching(/^\d+-config-/)]);
    expect(attributes).toMatchObject({
      'principal.tenant': 'acme', 'principal.sub': 'ada@acme.example', 'principal.roles': ['developer'], 'principal.client_id': 'sandbox', 'principal.mtls': false, 'principal.attrs.team': 'bi', 'principal.attrs.clearance': 3,
      'request.model': 'grok-beta', 'request.stream': false, 'request.data_class': 'confidential', 'request.max_tokens': 50, 'request.capabilities': ['text'], 'env.ip': '127.0.0.1', 'env.time': expect.any(Number), 'env.weekday': expect.stringMatching(/day$/),
    });
    expect(attributes!['request.estimated_cost_usd']).toBeGreaterThan(0);
    expect(deployments!.toSorted((left, right) => String(left['deployment.region']).localeCompare(String(right['deployment.region'])))).toEqual([
      { models: ['grok-beta', 'grok-4.3'], 'deployment.region': 'eu', 'deployment.accelerator': 'shared', 'deployment.zdr': true }, { models: ['grok-beta', 'grok-4.3'], 'deployment.region': 'global', 'deployment.accelerator': 'shared' },
    ]);
  });
});
