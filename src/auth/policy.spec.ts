import { describe, expect, it } from '@jest/globals';
import { Compile } from 'typebox/compile';
import { compileConditions, matchesModels, policyRevision, PoliciesFile, RuleSchema, type Rule, type Truth } from './policy.ts';
import { readConfigFile } from '../shared/config-files.ts';

type When = NonNullable<Rule['when']>;
type Value = When[number]['value'];
const rule = (when: When | undefined, more: Partial<Rule> = {}): Rule => ({ id: 'r', effect: 'allow', actions: ['invoke'], ...(when && { when }), ...more });
const truth = (op: When[number]['op'], value: Value, actual: unknown, attr = 'principal.attrs.x'): Truth => compileConditions(rule([{ attr, op, value }])).truth({ [attr]: actual });

describe('operators', () => {
  it.each<[When[number]['op'], Value, unknown, Truth]>([
    ['eq', 'a', 'a', true], ['eq', 'a', 'b', false], ['eq', 'a', 'A', false], ['eq', 1, 1, true], ['eq', true, true, true], ['eq', true, false, false],
    ['ne', 'a', 'b', true], ['ne', 'a', 'a', false],
    ['in', ['a', 'b'], 'b', true], ['in', ['a', 'b'], 'c', false], ['in', [1, 2], 2, true],
    ['not_in', ['a', 'b'], 'c', true], ['not_in', ['a', 'b'], 'a', false],
    ['lt', 5, 4, true], ['lt', 5, 5, false], ['lte', 5, 5, true], ['lte', 5, 6, false], ['gt', 5, 6, true], ['gt', 5, 5, false], ['gte', 5, 5, true], ['gte', 5, 4, false],
    ['exists', true, 'x', true], ['exists', false, 'x', false], ['exists', true, undefined, false], ['exists', false, undefined, true], ['exists', true, 0, true],
    ['prefix', 'eu-', 'eu-west', true], ['prefix', 'eu-', 'us-east', false], ['prefix', 'eu-', 'EU-west', false],
    // lists of the principal: one member is enough
    ['eq', 'admin', ['dev', 'admin'], true], ['eq', 'admin', ['dev'], false], ['ne', 'admin', ['dev', 'admin'], false], ['in', ['a', 'b'], ['x', 'b'], true], ['not_in', ['a'], ['x'], true], ['not_in', ['a'], ['x', 'a'], false],
  ])('%s %j on %j is %p', (op, value, actual, expected) => {
    expect(truth(op, value, actual)).toBe(expected);
  });

  it.each<[When[number]['op'], Value]>([
    ['eq', 'a'], ['ne', 'a'], ['in', ['a']], ['not_in', ['a']], ['lt', 5], ['lte', 5], ['gt', 5], ['gte', 5], ['prefix', 'a'], ['cidr', '10.0.0.0/8'], ['time_between', ['08:00', '18:00', 'UTC']],
  ])('%s of a missing attribute is unknown', (op, value) => {
    expect(truth(op, value, undefined)).toBeUndefined();
  });

  it.each<[When[number]['op'], Value, unknown[]]>([
    ['eq', 'a', [1, true, {}, null]], ['ne', 'a', [1, true, {}, null]], ['eq', 1, ['1', true, ['1'], ['a', 'b']]], ['ne', 1, ['1', ['a']]], ['in', ['a'], [1, true, null]], ['not_in', [1], ['a', ['a'], null]],
    ['lt', 5, ['4', true, [4], null]], ['gte', 5, ['6']], ['prefix', 'a', [1, ['ab'], null]], ['cidr', '10.0.0.0/8', [167_772_161, '10.0.0', 'localhost', '', null]],
    ['time_between', ['08:00', '18:00', 'UTC'], ['12:00', null, 1e300]],
  ])('%s %j of a mistyped attribute is unknown, as if it were missing', (op, value, mistyped) => {
    for (const actual of mistyped) expect({ actual, truth: truth(op, value, actual) }).toEqual({ actual, truth: undefined });
  });

  it.each<[When[number]['op'], Value]>([
    ['eq', undefined], ['eq', ['a']], ['ne', ['a']], ['in', 'a'], ['in', undefined], ['in', [1, 'a']], ['not_in', ['a', true]], ['not_in', 'a'], ['lt', '5'], ['gte', undefined], ['gt', [5]], ['exists', 'yes'], ['exists', undefined], ['prefix', ''], ['prefix', 5], ['prefix', undefined],
    ['cidr', undefined], ['cidr', 'localhost'], ['cidr', '10.0.0.0/33'], ['cidr', '10.0.0.0/-1'], ['cidr', '10.0.0.0/'], ['cidr', '10.0.0.0/ 8'], ['cidr', '10.0.0.0/8/9'], ['cidr', '10.0.0.0/0x8'], ['cidr', '10.0.0.0/1e1'], ['cidr', '10.0.0/8'],
    ['cidr', '::/129'], ['cidr', ['10.0.0.0/8', 'x']], ['cidr', 7],
    ['time_between', ['08:00', '18:00']], ['time_between', ['8:00', '18:00', 'UTC']], ['time_between', ['08:00', '24:00', 'UTC']], ['time_between', ['08:00', '18:00', 'Mars/Olympus']], ['time_between', '08:00-18:00'],
    ['time_between', ['08:00', '18:00', 'UTC', 'UTC']], ['time_between', ['08:00', '18:00', '']],
  ])('%s refuses the value %j when the rule is compiled', (op, value) => {
    expect(() => compileConditions(rule([{ attr: 'principal.attrs.x', op, value }]))).toThrow(/rule r: principal\.attrs\.x/);
  });
});

describe('cidr', () => {
  it.each<[Value, string, boolean]>([
    ['10.0.0.0/8', '10.255.255.255', true], ['10.0.0.0/8', '11.0.0.0', false], ['10.1.2.3/8', '10.9.9.9', true], ['192.168.1.1', '192.168.1.1', true], ['192.168.1.1', '192.168.1.2', false], ['0.0.0.0/0', '8.8.8.8', true],
    ['10.0.0.0/8', '::ffff:10.1.2.3', true], ['10.0.0.0/8', '::ffff:11.1.2.3', false], // IPv4 as a dual-stack socket shows it
    ['::ffff:10.0.0.0/104', '10.1.2.3', true],
    ['2001:db8::/32', '2001:db8:ffff::1', true], ['2001:db8::/32', '2001:db9::1', false], ['::1', '::1', true], ['::1', '::2', false], ['::/0', '2001:db8::1', true],
    ['fe80::/10', 'fe80::1%eth0', true], // with a zone, as Node shows link-local peers
    [['10.0.0.0/8', '2001:db8::/32'], '2001:db8::5', true], [['10.0.0.0/8', '2001:db8::/32'], '192.0.2.1', false],
    ['0.0.0.0/0', '2001:db8::1', false],
  ])('%j and %s: %p', (networks, ip, expected) => {
    expect(truth('cidr', networks, ip, 'env.ip')).toBe(expected);
  });
});

describe('time_between', () => {
  it.each<[[string, string, string], string, boolean]>([
    [['08:00', '18:00', 'UTC'], '2026-11-24T08:00:00Z', true], [['08:00', '18:00', 'UTC'], '2026-11-24T07:59:59.999Z', false], [['08:00', '18:00', 'UTC'], '2026-11-24T17:59:59.999Z', true], [['08:00', '18:00', 'UTC'], '2026-11-24T18:00:00Z', false],
    [['22:00', '06:00', 'UTC'], '2026-11-24T23:30:00Z', true], [['22:00', '06:00', 'UTC'], '2026-11-24T00:00:00Z', true], [['22:00', '06:00', 'UTC'], '2026-11-24T05:59:00Z', true],
    [['22:00', '06:00', 'UTC'], '2026-11-24T06:00:00Z', false], [['22:00', '06:00', 'UTC'], '2026-11-24T12:00:00Z', false],
    [['08:00', '18:00', 'Europe/Berlin'], '2026-11-24T07:00:00Z', true], [['08:00', '18:00', 'Europe/Berlin'], '2026-11-24T17:00:00Z', false], // winter, UTC+1
    [['08:00', '18:00', 'Europe/Berlin'], '2026-07-24T06:00:00Z', true], [['08:00', '18:00', 'Europe/Berlin'], '2026-07-24T16:00:00Z', false], // summer, UTC+2
    [['09:00', '10:00', 'Asia/Kolkata'], '2026-11-24T03:30:00Z', true], [['23:00', '01:00', 'America/New_York'], '2026-11-24T05:30:00Z', true],
    [['00:00', '23:59', 'UTC'], '2026-11-24T00:00:00Z', true],
  ])('%j at %s: %p', (window, now, expected) => {
    expect(truth('time_between', window, Date.parse(now), 'env.time')).toBe(expected);
  });
});

describe('conditions of a rule', () => {
  const both = compileConditions(rule([{ attr: 'principal.attrs.a', op: 'eq', value: 1 }, { attr: 'principal.attrs.b', op: 'eq', value: 1 }]));
  it.each<[unknown, unknown, Truth]>([[1, 1, true], [1, 2, false], [1, undefined, undefined], [undefined, 2, false], [2, undefined, false], [undefined, undefined, undefined]])(
    'must all hold, and are unknown where that depends on something unknown: %p and %p', (a, b, expected) => {
      expect(both.truth({ 'principal.attrs.a': a, 'principal.attrs.b': b })).toBe(expected);
    });

  it('hold where there are none', () => {
    expect(compileConditions(rule(undefined)).truth({})).toBe(true);
  });
});

describe('models of a rule', () => {
  it.each<[string[] | undefined, string[], boolean]>([
    [undefined, ['anything'], true], [['*'], ['anything'], true], [['grok-beta'], ['grok-beta', 'grok-beta', 'grok-4.3'], true], [['grok-4.3'], ['grok-beta', 'grok-beta', 'grok-4.3'], true],
    [['grok-beta'], ['grok-4.3'], false], [['grok-4*'], ['grok-4.3'], true], [['grok-4*'], ['grok-4'], true], [['grok-4*'], ['grok-beta'], false], [['grok-b'], ['grok-beta'], false], [['*-beta'], ['grok-beta'], false],
    [['gr*k-beta'], ['grok-beta'], false], [['GROK-BETA'], ['grok-beta'], false], [['x', 'grok-*'], ['grok-4.3'], true], [['grok.*'], ['grok-4.3'], false],
  ])('%j match %j: %p', (models, names, expected) => {
    expect(matchesModels(rule(undefined, models && { models }), names)).toBe(expected);
  });
});

describe('RuleSchema', () => {
  const validator = Compile(RuleSchema);
  const good = { id: 'r', effect: 'deny', actions: ['invoke'], models: ['grok-*'], when: [{ attr: 'principal.attrs.department', op: 'eq', value: 'x' }], reason: 'because' };

  it.each(['principal.tenant', 'principal.sub', 'principal.roles', 'principal.client_id', 'principal.mtls', 'principal.attrs.a-b_9', 'request.model', 'request.stream', 'request.data_class', 'request.max_tokens',
    'request.estimated_cost_usd', 'request.capabilities', 'env.ip', 'env.time', 'env.weekday', 'deployment.region', 'deployment.accelerator', 'deployment.zdr', 'principal.attrs.__proto__x'])('knows the attribute %s', (attr) => {
    expect(validator.Check({ ...good, when: [{ attr, op: 'exists', value: true }] })).toBe(true);
  });

  it.each([[['invoke']], [['store']], [['invoke', 'store']]])('knows the actions %j', (actions) => {
    expect(validator.Check({ ...good, actions })).toBe(true);
  });

  it.each<[string, object]>([
    ['an unknown field', { extra: 1 }], ['an unknown effect', { effect: 'maybe' }], ['an unknown action', { actions: ['delete'] }], ['no action', { actions: [] }], ['an unknown action beside a known one', { actions: ['store', 'Invoke'] }], ['an action that is no list', { actions: 'store' }], ['empty conditions', { when: [] }], ['no model', { models: [] }], ['an empty model', { models: [''] }],
    ['an unknown operator', { when: [{ attr: 'principal.sub', op: '$regex', value: '.*' }] }], ['an unknown attribute', { when: [{ attr: 'principal.secret', op: 'exists', value: true }] }],
    ['an attribute of every object', { when: [{ attr: 'principal.attrs.__proto__', op: 'exists', value: true }] }], ['a constructor', { when: [{ attr: 'principal.attrs.constructor', op: 'exists', value: true }] }],
    ['a nested attribute', { when: [{ attr: 'principal.attrs.a.b', op: 'exists', value: true }] }], ['an attribute with a line break', { when: [{ attr: 'principal.sub\n', op: 'exists', value: true }] }],
    ['an object as a value', { when: [{ attr: 'principal.sub', op: 'eq', value: { $gt: '' } }] }], ['a null', { when: [{ attr: 'principal.sub', op: 'eq', value: null }] }], ['an empty list', { when: [{ attr: 'principal.sub', op: 'in', value: [] }] }],
    ['an unknown field in a condition', { when: [{ attr: 'principal.sub', op: 'eq', value: 'x', not: true }] }],
  ])('refuses %s', (_, change) => {
    expect(validator.Check(good)).toBe(true);
    expect(validator.Check({ ...good, ...change })).toBe(false);
  });
});

describe('policyRevision', () => {
  it('changes with any rule, and only then', () => {
    const file = readConfigFile('policies.yaml', PoliciesFile);
    expect(policyRevision(file)).toBe(policyRevision(structuredClone(file)));
    const changed = structuredClone(file);
    changed.policies[0]!.rules[0]!.effect = 'deny';
    expect(policyRevision(changed)).not.toBe(policyRevision(file));
  });
});
