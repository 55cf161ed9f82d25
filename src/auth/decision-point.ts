import { Ability, type RawRuleOf } from '@casl/ability';
import { compileConditions, matchesModels, type Attributes, type Rule } from './policy.ts';
import type { Principal } from './principal.ts';

export type DataClass = 'public' | 'internal' | 'confidential' | 'restricted';

/** What is to be called, as the plan resolved it. */
export interface CallFacts {
  /** Requested name, alias and upstream id: a rule on any of them applies. */
  modelNames: readonly string[];
  model: string;
  stream: boolean;
  dataClass: DataClass;
  maxTokens: number;
  estimatedCostUsd: number;
  capabilities: readonly string[];
  deployment: { region: string; accelerator: string; zdr?: boolean | undefined };
}

export interface CallEnvironment {
  ip: string;
  /** Epoch milliseconds. */
  timeMs: number;
}

/** Which rule decided, or none: then nothing allowed the call. */
export interface Verdict {
  allowed: boolean;
  policy: string | undefined;
  rule: string | undefined;
  reason: string | undefined;
}

interface CallSubject {
  modelNames: readonly string[];
  attributes: Attributes;
}

interface CompiledRule {
  policy: string;
  rule: Rule;
  applies: (call: CallSubject) => boolean;
}

/** What rules can be about: making a call, and letting the provider keep its answer. */
export type CallAction = 'invoke' | 'store';

type CallAbility = Ability<[CallAction, 'Call' | CallSubject], CompiledRule>;

const WEEKDAYS = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday'];

/** Decides calls by rules, through CASL: denied unless allowed, a deny overrides every allow, and what is unknown never helps the caller. */
export class DecisionPoint {
  readonly #ability: CallAbility;

  constructor(
    /** Names the state of the rules in every decision record. */
    readonly revision: string,
    policies: readonly { name: string; rules: readonly Rule[] }[],
  ) {
    const compiled = policies.flatMap(({ name, rules }) => rules.map((rule) => compileRule(name, rule)));
    // Of the rules that match, CASL lets the last one win.
    compiled.sort((left, right) => Number(left.rule.effect === 'deny') - Number(right.rule.effect === 'deny'));
    const rules = compiled.map(
      (conditions): RawRuleOf<CallAbility> => ({
        action: conditions.rule.actions, subject: 'Call', inverted: conditions.rule.effect === 'deny', conditions, ...(conditions.rule.reason === undefined ? {} : { reason: conditions.rule.reason }),
      }),
    );
    this.#ability = new Ability<[CallAction, 'Call' | CallSubject], CompiledRule>(rules, {
      conditionsMatcher: ({ applies }) => (call) => applies(call as unknown as CallSubject),
      detectSubjectType: () => 'Call',
    });
  }

  decide(action: CallAction, principal: Principal, call: CallFacts, environment: CallEnvironment): Verdict {
    const rule = this.#ability.relevantRuleFor(action, { modelNames: call.modelNames, attributes: toAttributes(principal, call, environment) });
    const compiled = rule?.conditions as CompiledRule | undefined;
    return { allowed: rule !== null && !rule.inverted, policy: compiled?.policy, rule: compiled?.rule.id, reason: rule?.reason };
  }
}

function compileRule(policy: string, rule: Rule): CompiledRule {
  const conditions = compileConditions(rule);
  const unknownApplies = rule.effect === 'deny';
  return {
    policy, rule,
    applies: ({ modelNames, attributes }) => matchesModels(rule, modelNames) && (conditions(attributes) ?? unknownApplies),
  };
}

function toAttributes(principal: Principal, call: CallFacts, environment: CallEnvironment): Attributes {
  const attributes: Record<string, unknown> = {
    'principal.tenant': principal.tenantId,
    'principal.sub': principal.subject,
    'principal.roles': principal.roles,
    'principal.client_id': principal.clientId,
    'principal.mtls': principal.mtls,
    'request.model': call.model,
    'request.stream': call.stream,
    'request.data_class': call.dataClass,
    'request.max_tokens': call.maxTokens,
    'request.estimated_cost_usd': call.estimatedCostUsd,
    'request.capabilities': call.capabilities,
    'env.ip': environment.ip,
    'env.time': environment.timeMs,
    'env.weekday': WEEKDAYS[new Date(environment.timeMs).getUTCDay()],
    'deployment.region': call.deployment.region,
    'deployment.accelerator': call.deployment.accelerator,
    'deployment.zdr': call.deployment.zdr,
  };
  for (const name of Object.keys(principal.attributes)) attributes[`principal.attrs.${name}`] = principal.attributes[name];
  return attributes;
}
