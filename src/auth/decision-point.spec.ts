import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { readConfigFile } from '../shared/config-files.ts';
import { attributesOf, DecisionPoint, type CallAction, type CallEnvironment, type CallFacts, type CallSubject, type Verdict } from './decision-point.ts';
import { PoliciesFile, type Rule } from './policy.ts';
import type { Principal } from './principal.ts';

const PRINCIPAL: Principal = {
  tenantId: 'acme', tier: 'standard', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, subject: 'dev@acme.example', roles: ['developer'], attributes: { department: 'bi', clearance: 3, region: ['eu', 'us'] }, clientId: 'app-1', issuer: 'https://idp.example', tokenId: 'j-1', expiresAtMs: 1e15, mtls: false,
};
const CALL: CallFacts = {
  modelNames: ['grok-beta', 'grok-beta', 'grok-4.3'], model: 'grok-beta', stream: true, dataClass: 'internal', maxTokens: 4_000, estimatedCostUsd: 0.01, capabilities: ['text'], deployment: { region: 'global', accelerator: 'shared' },
};
const ENVIRONMENT: CallEnvironment = { ip: '10.0.0.7', timeMs: Date.parse('2026-11-24T12:00:00Z') }; // a Tuesday

const subjectOf = (who: Principal, what: CallFacts, where: CallEnvironment): CallSubject => ({ modelNames: what.modelNames, attributes: attributesOf(who, what, where) });
const decide = (rules: readonly Rule[], principal = PRINCIPAL, call = CALL, environment = ENVIRONMENT): Verdict => new DecisionPoint('r1', [{ name: 'p', rules }]).decide('invoke', subjectOf(principal, call, environment));
const rule = (id: string, effect: Rule['effect'], more: Partial<Rule> = {}): Rule => ({ id, effect, actions: ['invoke'], ...more });

const condition: fc.Arbitrary<NonNullable<Rule['when']>[number]> = fc.oneof(
  fc.record({ attr: fc.constantFrom('principal.attrs.department', 'principal.tenant', 'principal.sub', 'principal.client_id', 'request.data_class', 'env.weekday', 'deployment.region'), op: fc.constantFrom('eq' as const, 'ne' as const), value: fc.constantFrom('bi', 'acme', 'restricted', 'internal', 'tuesday', 'global', 'app-1') }),
  fc.record({ attr: fc.constantFrom('principal.attrs.region', 'principal.roles', 'request.capabilities', 'principal.attrs.department'), op: fc.constantFrom('in' as const, 'not_in' as const), value: fc.constantFrom<string[]>(['eu'], ['bi', 'hr'], ['developer'], ['image_input']) }),
  fc.record({ attr: fc.constantFrom('principal.attrs.clearance', 'request.max_tokens', 'request.estimated_cost_usd'), op: fc.constantFrom('lt' as const, 'lte' as const, 'gt' as const, 'gte' as const), value: fc.constantFrom(0.01, 3, 4_000) }),
  fc.record({ attr: fc.constantFrom('principal.attrs.clearance', 'principal.client_id'), op: fc.constant('exists' as const), value: fc.constant(true) }),
  fc.constantFrom<NonNullable<Rule['when']>[number]>(
    { attr: 'env.ip', op: 'cidr', value: '10.0.0.0/8' }, { attr: 'env.time', op: 'time_between', value: ['08:00', '18:00', 'UTC'] }, { attr: 'principal.attrs.department', op: 'prefix', value: 'b' }, { attr: 'principal.mtls', op: 'eq', value: true },
  ),
);
const rules = (effect: fc.Arbitrary<Rule['effect']>): fc.Arbitrary<Rule[]> => fc.uniqueArray(fc.record({
  id: fc.uuid(), effect, actions: fc.constant<['invoke']>(['invoke']), models: fc.constantFrom(['*'], ['grok-beta'], ['grok-4*'], ['grok-pro']), when: fc.array(condition, { minLength: 1, maxLength: 3 }),
}), { selector: ({ id }) => id, maxLength: 6 });
const anyRules = rules(fc.constantFrom('allow', 'deny'));
const principal: fc.Arbitrary<Principal> = fc.record({
  attributes: fc.record({ department: fc.constantFrom('bi', 'hr'), clearance: fc.constantFrom(1, 3, 5), region: fc.constantFrom(['eu'], ['us']) }, { requiredKeys: [] }), clientId: fc.constantFrom(undefined, 'app-1'), mtls: fc.boolean(),
  roles: fc.constantFrom(['developer'], ['auditor'], ['developer', 'billing']),
}).map((some) => ({ ...PRINCIPAL, ...some, attributes: some.attributes as Principal['attributes'] }));
const call: fc.Arbitrary<CallFacts> = fc.record({ dataClass: fc.constantFrom('internal' as const, 'restricted' as const), maxTokens: fc.constantFrom(10, 4_000), capabilities: fc.constantFrom(['text'], ['text', 'image_input']) }).map((some) => ({ ...CALL, ...some }));
/** `exists` alone is never unknown: that an attribute is missing is what it asks. */
const withoutExists = (some: Rule[]): Rule[] => some.filter(({ when }) => !when?.some(({ op }) => op === 'exists'));
const grantsMore = (changed: Verdict, before: Verdict): boolean => changed.allowed && !before.allowed;
const PROPERTY = { numRuns: 1_000 };

describe('DecisionPoint, whatever the rules', () => {
  it('never grants more for a further deny', () => {
    fc.assert(fc.property(anyRules, rules(fc.constant('deny')), principal, call, (some, denies, who, what) => {
      expect(grantsMore(decide([...some, ...denies], who, what), decide(some, who, what))).toBe(false);
    }), PROPERTY);
  });

  it('decides alike in whatever order the rules and policies stand', () => {
    fc.assert(fc.property(anyRules.chain((some) => fc.tuple(fc.constant(some), fc.shuffledSubarray(some, { minLength: some.length }), fc.nat(some.length))), principal, call, ([some, shuffled, cut], who, what) => {
      const apart = new DecisionPoint('r1', [{ name: 'a', rules: shuffled.slice(0, cut) }, { name: 'b', rules: shuffled.slice(cut) }]);
      expect(apart.decide('invoke', subjectOf(who, what, ENVIRONMENT)).allowed).toBe(decide(some, who, what).allowed);
    }), PROPERTY);
  });

  it('never grants more where an attribute is missing or mistyped', () => {
    fc.assert(fc.property(anyRules, principal, call, fc.constantFrom('department', 'clearance', 'region'), fc.constantFrom('missing', 'mistyped'), (some, who, what, name, how) => {
      const { [name]: _, ...attributes } = who.attributes;
      const unknown = { ...who, attributes: how === 'missing' ? attributes : { ...attributes, [name]: { not: 'a value' } as unknown as string } };
      const rest = withoutExists(some);
      expect(grantsMore(decide(rest, unknown, what), decide(rest, who, what))).toBe(false);
    }), PROPERTY);
  });

  it('never grants more without a client id', () => {
    fc.assert(fc.property(anyRules.map(withoutExists), principal, call, (some, who, what) => {
      expect(grantsMore(decide(some, { ...who, clientId: undefined }, what), decide(some, { ...who, clientId: 'app-1' }, what))).toBe(false);
    }), PROPERTY);
  });

  it('allows only by an allow that applies, and names it', () => {
    fc.assert(fc.property(anyRules, principal, call, (some, who, what) => {
      const verdict = decide(some, who, what);
      const decisive = some.find(({ id }) => id === verdict.rule);
      expect(decisive?.effect).toBe(verdict.allowed ? 'allow' : decisive && 'deny');
      expect(decide(decisive ? [decisive] : [], who, what)).toEqual(verdict);
    }), PROPERTY);
  });
});

describe('DecisionPoint, ten thousand times', () => {
  const TEN_THOUSAND = { numRuns: 10_000 };
  const status = fc.constantFrom('enforced' as const, 'shadow' as const);
  const policies = fc.array(fc.record({ name: fc.uuid(), rules: anyRules, status }), { maxLength: 3 });
  const pointOf = (some: ConstructorParameters<typeof DecisionPoint>[1]): DecisionPoint => new DecisionPoint('r1', some);

  it('never grants more for a deny in any policy at any place', () => {
    fc.assert(fc.property(policies, rules(fc.constant('deny')), fc.nat(3), principal, call, (some, denies, at, who, what) => {
      const subject = subjectOf(who, what, ENVIRONMENT);
      expect(grantsMore(pointOf(some.toSpliced(at, 0, { name: 'more', rules: denies, status: 'enforced' })).decide('invoke', subject), pointOf(some).decide('invoke', subject))).toBe(false);
    }), TEN_THOUSAND);
  });

  it('decides and explains alike in whatever order the policies and their rules stand', () => {
    const shuffled = policies.chain((some) => fc.tuple(fc.constant(some), fc.shuffledSubarray(some, { minLength: some.length }), fc.boolean()));
    fc.assert(fc.property(shuffled, principal, call, ([some, others, backwards], who, what) => {
      const subject = subjectOf(who, what, ENVIRONMENT);
      const one = pointOf(some).explain('invoke', subject);
      const other = pointOf(others.map((policy) => ({ ...policy, rules: backwards ? policy.rules.toReversed() : policy.rules }))).explain('invoke', subject);
      const named = ({ matched }: typeof one): string[] => matched.map(({ policy, rule: id }) => `${policy} ${id}`).toSorted();
      expect([other.allowed, other.missing, named(other), other.shadow?.allowed]).toEqual([one.allowed, one.missing, named(one), one.shadow?.allowed]);
    }), TEN_THOUSAND);
  });

  it('never grants more where any attribute at all is missing, or is of a kind that no rule knows', () => {
    const subject = fc.tuple(principal, call).map(([who, what]) => subjectOf({ ...who, clientId: 'app-1' }, what, ENVIRONMENT));
    const names = subject.chain((some) => fc.tuple(fc.constant(some), fc.subarray(Object.keys(some.attributes), { minLength: 1 }), fc.constantFrom<unknown>(undefined, null, { not: 'a value' }, [{}], Symbol('x'))));
    fc.assert(fc.property(anyRules.map(withoutExists), names, (some, [whole, gone, instead]) => {
      const attributes = { ...whole.attributes, ...Object.fromEntries(gone.map((name) => [name, instead])) };
      const point = pointOf([{ name: 'p', rules: some }]);
      expect(grantsMore(point.decide('invoke', { ...whole, attributes }), point.decide('invoke', whole))).toBe(false);
    }), TEN_THOUSAND);
  });

  it('enforces nothing of a shadowed policy, and tells what it would have done', () => {
    fc.assert(fc.property(anyRules, anyRules, principal, call, (some, quiet, who, what) => {
      const subject = subjectOf(who, what, ENVIRONMENT);
      const enforced = pointOf([{ name: 'p', rules: some }]).decide('invoke', subject);
      const loud = pointOf([{ name: 'p', rules: some }, { name: 'q', rules: quiet }]).decide('invoke', subject);
      const { shadow, ...verdict } = pointOf([{ name: 'p', rules: some, status: 'enforced' }, { name: 'q', rules: quiet, status: 'shadow' }]).decide('invoke', subject);
      expect(verdict).toEqual(enforced);
      expect(shadow?.allowed ?? enforced.allowed).toBe(loud.allowed);
    }), TEN_THOUSAND);
  });

  it('explains as it decides: denied where a deny matches or no allow does', () => {
    fc.assert(fc.property(anyRules, principal, call, (some, who, what) => {
      const subject = subjectOf(who, what, ENVIRONMENT);
      const point = pointOf([{ name: 'p', rules: some }]);
      const { matched, missing, ...verdict } = point.explain('invoke', subject);
      expect(verdict).toEqual(point.decide('invoke', subject));
      expect(verdict.allowed).toBe(matched.some(({ effect }) => effect === 'allow') && !matched.some(({ effect }) => effect === 'deny'));
      expect(missing.filter((name) => !some.some(({ when }) => when?.some(({ attr }) => attr === name)))).toEqual([]);
    }), TEN_THOUSAND);
  });
});

describe('DecisionPoint', () => {
  it('denies where no rule allows', () => {
    expect(decide([])).toEqual({ allowed: false, policy: undefined, rule: undefined, reason: undefined });
    expect(decide([rule('other', 'allow', { models: ['grok-pro'] })]).allowed).toBe(false);
  });

  it('says which rule of which policy decided, and why', () => {
    expect(decide([rule('yes', 'allow'), rule('no', 'deny', { reason: 'Not today.' })])).toEqual({ allowed: false, policy: 'p', rule: 'no', reason: 'Not today.' });
    expect(decide([rule('yes', 'allow', { reason: 'Fine.' })])).toEqual({ allowed: true, policy: 'p', rule: 'yes', reason: 'Fine.' });
  });

  it.each(['grok-beta', 'grok-4.3', 'grok-latest', 'grok-4*'])('applies a deny on %s to every name of the model: requested, alias, upstream', (name) => {
    const names = { ...CALL, modelNames: ['grok-latest', 'grok-beta', 'grok-4.3'] };
    expect(decide([rule('yes', 'allow'), rule('no', 'deny', { models: [name] })], PRINCIPAL, names).allowed).toBe(false);
  });

  it.each<[string, NonNullable<Rule['when']>[number]['op'], string | number | boolean | string[]]>([
    ['principal.tenant', 'eq', 'acme'], ['principal.sub', 'prefix', 'dev@'], ['principal.roles', 'in', ['developer']], ['principal.client_id', 'eq', 'app-1'], ['principal.mtls', 'eq', false], ['principal.attrs.department', 'eq', 'bi'],
    ['principal.attrs.clearance', 'gte', 3], ['principal.attrs.region', 'in', ['us']], ['request.model', 'eq', 'grok-beta'], ['request.stream', 'eq', true], ['request.data_class', 'in', ['internal']], ['request.max_tokens', 'lte', 4_000],
    ['request.estimated_cost_usd', 'lt', 0.02], ['request.capabilities', 'eq', 'text'], ['env.ip', 'cidr', '10.0.0.0/8'], ['env.time', 'time_between', ['11:00', '13:00', 'UTC']], ['env.weekday', 'eq', 'tuesday'],
    ['deployment.region', 'eq', 'global'], ['deployment.accelerator', 'ne', 'dedicated'],
  ])('knows %s', (attr, op, value) => {
    expect(decide([rule('yes', 'allow', { when: [{ attr, op, value }] })]).allowed).toBe(true);
  });

  it('treats what it does not know as missing: an allow does not apply, a deny does', () => {
    const zdr: Rule['when'] = [{ attr: 'deployment.zdr', op: 'eq', value: true }];
    expect(decide([rule('yes', 'allow', { when: zdr })]).allowed).toBe(false);
    expect(decide([rule('yes', 'allow'), rule('no', 'deny', { when: zdr })]).allowed).toBe(false);
  });

  it('is not fooled by attributes that every object has', () => {
    const when: Rule['when'] = [{ attr: 'principal.attrs.hasOwnProperty', op: 'exists', value: true }];
    expect(decide([rule('yes', 'allow', { when })]).allowed).toBe(false);
  });

  it('refuses a rule whose value does not fit when it is built', () => {
    expect(() => decide([rule('r', 'allow', { when: [{ attr: 'principal.sub', op: 'lt', value: 'x' }] })])).toThrow(/takes a number/);
  });
});

describe('DecisionPoint about storing', () => {
  const decideOn = (action: CallAction, some: readonly Rule[], who = PRINCIPAL, what = CALL): Verdict => new DecisionPoint('r1', [{ name: 'p', rules: some }]).decide(action, subjectOf(who, what, ENVIRONMENT));
  const onBoth = (...some: Rule[]): [boolean, boolean] => [decideOn('invoke', some).allowed, decideOn('store', some).allowed];

  it.each<[string, Rule[], boolean, boolean]>([
    ['nothing', [], false, false], ['an allow of calls', [rule('i', 'allow')], true, false], ['an allow of storing', [rule('s', 'allow', { actions: ['store'] })], false, true], ['an allow of both', [rule('b', 'allow', { actions: ['invoke', 'store'] })], true, true],
    ['a deny of storing', [rule('b', 'allow', { actions: ['invoke', 'store'] }), rule('n', 'deny', { actions: ['store'] })], true, false],
    ['a deny of calls', [rule('b', 'allow', { actions: ['store', 'invoke'] }), rule('n', 'deny')], false, true],
    ['a deny of both', [rule('b', 'allow', { actions: ['invoke', 'store'] }), rule('n', 'deny', { actions: ['invoke', 'store'] })], false, false],
    ['a deny of storing that stands first', [rule('n', 'deny', { actions: ['store'] }), rule('b', 'allow', { actions: ['invoke', 'store'] })], true, false],
    ['an allow for another model', [rule('i', 'allow'), rule('s', 'allow', { actions: ['store'], models: ['grok-pro'] })], true, false],
    ['an allow that knows too little', [rule('i', 'allow'), rule('s', 'allow', { actions: ['store'], when: [{ attr: 'deployment.zdr', op: 'eq', value: false }] })], true, false],
    ['a deny that knows too little', [rule('b', 'allow', { actions: ['invoke', 'store'] }), rule('n', 'deny', { actions: ['store'], when: [{ attr: 'deployment.zdr', op: 'eq', value: true }] })], true, false],
  ])('with %s: calls %p and %p', (_, some, invoke, store) => {
    expect(onBoth(...some)).toEqual([invoke, store]);
  });

  it('says why', () => {
    expect(decideOn('store', [rule('i', 'allow')])).toEqual({ allowed: false, policy: undefined, rule: undefined, reason: undefined });
    expect(decideOn('store', [rule('i', 'allow', { actions: ['invoke', 'store'] }), rule('n', 'deny', { actions: ['store'], reason: 'Nothing is kept.' })])).toEqual({ allowed: false, policy: 'p', rule: 'n', reason: 'Nothing is kept.' });
  });

  it('never lets rules about the one action touch the other', () => {
    fc.assert(fc.property(anyRules, anyRules, principal, call, (some, more, who, what) => {
      const storing = more.map((one): Rule => ({ ...one, actions: ['store'] }));
      expect(decideOn('invoke', [...some, ...storing], who, what)).toEqual(decideOn('invoke', some, who, what));
      expect(decideOn('store', [...some, ...storing], who, what)).toEqual(decideOn('store', storing, who, what));
      expect(decideOn('store', some, who, what).allowed).toBe(false);
    }), PROPERTY);
  });

  it('decides storing by the same rules as calls, where rules are about both', () => {
    fc.assert(fc.property(anyRules, principal, call, (some, who, what) => {
      const both = some.map((one): Rule => ({ ...one, actions: ['invoke', 'store'] }));
      expect(decideOn('store', both, who, what)).toEqual(decideOn('invoke', some, who, what));
    }), PROPERTY);
  });
});

describe('config/policies.yaml', () => {
  const { policies } = readConfigFile('policies.yaml', PoliciesFile);
  const shipped = (roles: string[], dataClass: CallFacts['dataClass'] = 'internal', names = CALL.modelNames): boolean => new DecisionPoint('r1', policies).decide('invoke', subjectOf({ ...PRINCIPAL, roles }, { ...CALL, dataClass, modelNames: names }, ENVIRONMENT)).allowed;

  it.each([['developer', true], ['tenant-admin', true], ['platform-admin', true], ['billing', false], ['auditor', false], ['root', false]])('lets %s call models: %p', (role, allowed) => {
    expect(shipped([role])).toBe(allowed);
    expect(shipped([])).toBe(false);
  });

  it('keeps restricted data off grok-beta, and only that', () => {
    expect(shipped(['developer'], 'restricted')).toBe(false);
    expect(shipped(['developer'], 'confidential')).toBe(true);
    expect(shipped(['developer'], 'restricted', ['grok-pro', 'grok-pro', 'grok-4.7'])).toBe(true);
  });

  it('lets nobody have answers kept', () => {
    for (const roles of [['developer'], ['tenant-admin'], ['platform-admin'], ['developer', 'tenant-admin', 'platform-admin', 'billing', 'auditor']]) {
      expect(new DecisionPoint('r1', policies).decide('store', subjectOf({ ...PRINCIPAL, roles }, { ...CALL, dataClass: 'public' }, ENVIRONMENT)).allowed).toBe(false);
    }
  });
});
