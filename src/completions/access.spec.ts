import { describe, expect, it } from '@jest/globals';
import { DecisionPoint } from '../auth/decision-point.ts';
import type { Rule } from '../auth/policy.ts';
import type { Principal } from '../auth/principal.ts';
import { loadCatalogue, type ResolvedModel } from '../catalogue/catalogue.ts';
import { loadTiers } from '../catalogue/tiers.ts';
import { candidatesFor, NO_COST, planCall } from '../cost/plan.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { authorize, type AccessDecision, type AccessFacts } from './access.ts';

const PRINCIPAL: Principal = { tenantId: 'acme', tier: 'standard', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, subject: 'dev@acme.example', roles: ['developer'], attributes: {}, clientId: undefined, issuer: 'https://idp.example', tokenId: 'j-1', expiresAtMs: 1e15, mtls: false };
const catalogue = loadCatalogue();
const resolved = catalogue.resolve('grok-beta')!;
const regions: ResolvedModel = { ...resolved, deployments: ['eu', 'us'].map((region) => ({ ...resolved.deployments[0]!, id: region, region })) };
const plan = planCall(regions, candidatesFor(catalogue, [regions]), NO_COST, { maxTokensCap: 100, maxCostTicks: undefined });
const tiers = loadTiers();

const rule = (id: string, effect: Rule['effect'], actions: Rule['actions'], region?: string): Rule => ({ id, effect, actions, ...(region === undefined ? {} : { when: [{ attr: 'deployment.region', op: 'eq', value: region }] }) });
const INVOKE = rule('invoke', 'allow', ['invoke']);

function decided(rules: Rule[], storage: AccessFacts['storage']): AccessDecision | GatewayError {
  try {
    return authorize(new DecisionPoint('r1', [{ name: 'p', rules }]), tiers, PRINCIPAL, plan, { stream: false, dataClass: 'internal', capabilities: ['text'], storage }, { ip: '10.0.0.7', timeMs: 0 });
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
}
const whereAndStore = (rules: Rule[], storage: AccessFacts['storage']): unknown => {
  const decision = decided(rules, storage);
  return decision instanceof GatewayError ? decision.code : [decision.candidates.map(({ deployment }) => deployment.id).join(), decision.store];
};

describe('authorize', () => {
  it.each<[string, Rule[], unknown, unknown, unknown]>([
    // the rules; what comes of them where nothing is to be kept, where it is left to the policy, where it is asked for
    ['no rule about storing', [INVOKE], ['eu,us', false], ['eu,us', false], 'policy_denied'],
    ['storing everywhere', [INVOKE, rule('s', 'allow', ['store'])], ['eu,us', false], ['eu,us', true], ['eu,us', true]],
    ['one rule for both', [rule('b', 'allow', ['invoke', 'store'])], ['eu,us', false], ['eu,us', true], ['eu,us', true]],
    ['storing in one region', [INVOKE, rule('s', 'allow', ['store'], 'eu')], ['eu,us', false], ['eu,us', false], ['eu', true]],
    ['storing denied in one region', [INVOKE, rule('s', 'allow', ['store']), rule('n', 'deny', ['store'], 'eu')], ['eu,us', false], ['eu,us', false], ['us', true]],
    ['storing denied', [INVOKE, rule('s', 'allow', ['store']), rule('n', 'deny', ['store'])], ['eu,us', false], ['eu,us', false], 'policy_denied'],
    ['storing where it may not be called', [rule('i', 'allow', ['invoke'], 'us'), rule('s', 'allow', ['store'], 'eu')], ['us', false], ['us', false], 'policy_denied'],
    ['storing wherever it may be called', [rule('i', 'allow', ['invoke'], 'us'), rule('s', 'allow', ['store'], 'us')], ['us', false], ['us', true], ['us', true]],
    ['storing alone', [rule('s', 'allow', ['store'])], 'policy_denied', 'policy_denied', 'policy_denied'],
  ])('with %s', (_, rules, none, ifAllowed, required) => {
    expect([whereAndStore(rules, 'none'), whereAndStore(rules, 'if_allowed'), whereAndStore(rules, 'required')]).toEqual([none, ifAllowed, required]);
  });

  it('says what to do where storing was asked for and no rule allows it', () => {
    expect(decided([INVOKE], 'required')).toMatchObject({ status: 403, message: expect.stringContaining('store: false') });
    expect(decided([INVOKE, { ...rule('n', 'deny', ['store']), reason: 'Nothing is kept.' }], 'required')).toMatchObject({ message: expect.stringContaining('Nothing is kept.'), decision: { rule: 'n' } });
    expect(decided([], 'required')).toMatchObject({ message: expect.stringContaining('No rule allows it.') });
  });

  it('names the rule that let the call in, not the one about storing', () => {
    for (const storage of ['none', 'if_allowed', 'required'] as const) expect(decided([INVOKE, rule('s', 'allow', ['store'])], storage)).toMatchObject({ record: { policy: 'p', rule: 'invoke', revision: 'r1' } });
  });
});
