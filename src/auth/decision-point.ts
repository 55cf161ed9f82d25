import { Ability, type RawRuleOf } from '@casl/ability';
import { compileConditions, matchesModels, type Attributes, type Conditions, type Rule } from './policy.ts';
import type { Principal } from './principal.ts';

export const DATA_CLASSES = ['public', 'internal', 'confidential', 'restricted'] as const;
export type DataClass = (typeof DATA_CLASSES)[number];

/** What rules can be about: making a call, and letting the provider keep its answer. */
export type CallAction = 'invoke' | 'store';

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

/** A named set of rules. Those that are shadowed are evaluated beside the others, and never enforced. */
export interface Policy {
  name: string;
  rules: readonly Rule[];
  status?: 'enforced' | 'shadow';
}

/** Which rule decided, or none: then nothing allowed the call. */
export interface Verdict {
  allowed: boolean;
  policy: string | undefined;
  rule: string | undefined;
  reason: string | undefined;
  /** What it would have been with the shadowed rules, where that differs. */
  shadow?: { allowed: boolean; policy: string | undefined; rule: string | undefined };
}

/** All that a decision went by, and why it fell as it did. */
export interface Explanation extends Verdict {
  matched: { policy: string; rule: string; effect: 'allow' | 'deny' }[];
  /** Attributes that a rule asks for and nobody gave, or gave in another type. */
  missing: string[];
}

/** What a decision is about: the call's names for its model, and everything that rules may ask about. */
export interface CallSubject {
  modelNames: readonly string[];
  attributes: Attributes;
}

interface CompiledRule {
  policy: string;
  rule: Rule;
  conditions: Conditions;
  applies: (call: CallSubject) => boolean;
}

type CallAbility = Ability<[CallAction, 'Call' | CallSubject], CompiledRule>;

const WEEKDAYS = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday'];

/** Decides calls by rules, through CASL: denied unless allowed, a deny overrides every allow, and what is unknown never helps the caller. */
export class DecisionPoint {
  readonly #rules: readonly CompiledRule[];
  readonly #ability: CallAbility;
  /** With the shadowed rules, where there are any. */
  readonly #shadowAbility: CallAbility | undefined;

  constructor(
    /** Names the state of the rules in every decision record. */
    readonly revision: string,
    policies: readonly Policy[],
  ) {
    const compile = (some: readonly Policy[]): CompiledRule[] => some.flatMap(({ name, rules }) => rules.map((rule) => compileRule(name, rule)));
    const shadowed = policies.filter(({ status }) => status === 'shadow');
    this.#rules = compile(policies.filter(({ status }) => status !== 'shadow'));
    this.#ability = abilityOf(this.#rules);
    this.#shadowAbility = shadowed.length === 0 ? undefined : abilityOf([...this.#rules, ...compile(shadowed)]);
  }

  decide(action: CallAction, subject: CallSubject): Verdict {
    const verdict = verdictOf(this.#ability, action, subject);
    if (this.#shadowAbility === undefined) return verdict;
    const { allowed, policy, rule } = verdictOf(this.#shadowAbility, action, subject);
    return allowed === verdict.allowed ? verdict : { ...verdict, shadow: { allowed, policy, rule } };
  }

  explain(action: CallAction, subject: CallSubject): Explanation {
    const concerned = this.#rules.filter(({ rule }) => rule.actions.includes(action) && matchesModels(rule, subject.modelNames));
    return {
      ...this.decide(action, subject),
      matched: concerned.filter(({ applies }) => applies(subject)).map(({ policy, rule }) => ({ policy, rule: rule.id, effect: rule.effect })),
      missing: [...new Set(concerned.flatMap(({ conditions }) => conditions.unknown(subject.attributes)))].toSorted(),
    };
  }
}

function abilityOf(compiled: readonly CompiledRule[]): CallAbility {
  // Of the rules that match, CASL lets the last one win.
  const ordered = compiled.toSorted((left, right) => Number(left.rule.effect === 'deny') - Number(right.rule.effect === 'deny'));
  const rules = ordered.map(
    (conditions): RawRuleOf<CallAbility> => ({
      action: conditions.rule.actions, subject: 'Call', inverted: conditions.rule.effect === 'deny', conditions, ...(conditions.rule.reason === undefined ? {} : { reason: conditions.rule.reason }),
    }),
  );
  return new Ability<[CallAction, 'Call' | CallSubject], CompiledRule>(rules, {
    conditionsMatcher: ({ applies }) => (call) => applies(call as unknown as CallSubject),
    detectSubjectType: () => 'Call',
  });
}

function verdictOf(ability: CallAbility, action: CallAction, subject: CallSubject): Verdict {
  const rule = ability.relevantRuleFor(action, subject);
  const compiled = rule?.conditions as CompiledRule | undefined;
  return { allowed: rule !== null && !rule.inverted, policy: compiled?.policy, rule: compiled?.rule.id, reason: rule?.reason };
}

function compileRule(policy: string, rule: Rule): CompiledRule {
  const conditions = compileConditions(rule);
  const unknownApplies = rule.effect === 'deny';
  return {
    policy, rule, conditions,
    applies: ({ modelNames, attributes }) => matchesModels(rule, modelNames) && (conditions.truth(attributes) ?? unknownApplies),
  };
}

/** Everything that rules may ask about. */
export function attributesOf(principal: Principal, call: CallFacts, environment: CallEnvironment): Attributes {
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
