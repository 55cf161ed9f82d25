import { createHash } from 'node:crypto';
import { BlockList, isIP } from 'node:net';
import { Type, type Static } from 'typebox';
import { oneOf } from '../shared/one-of.ts';
import { plainText } from '../shared/plain-text.ts';

const OPERATORS = ['eq', 'ne', 'in', 'not_in', 'lt', 'lte', 'gt', 'gte', 'exists', 'prefix', 'cidr', 'time_between'] as const;
type Operator = (typeof OPERATORS)[number];
type Comparison = Extract<Operator, 'lt' | 'lte' | 'gt' | 'gte'>;

/** Attributes that rules may name. Names under `principal.attrs.` are the tenants' own. */
const ATTRIBUTE_PATTERN =
  '^(principal\\.(tenant|sub|roles|client_id|mtls|attrs\\.(?!__proto__$|constructor$|prototype$)[A-Za-z0-9_-]{1,64})|request\\.(model|stream|data_class|max_tokens|estimated_cost_usd|capabilities)|env\\.(ip|time|weekday)|deployment\\.(region|accelerator|zdr))$';

const Scalar = Type.Union([Type.String({ maxLength: 1024 }), Type.Number(), Type.Boolean()]);
const ConditionSchema = Type.Object({
  attr: Type.String({ pattern: ATTRIBUTE_PATTERN }),
  op: oneOf(OPERATORS),
  value: Type.Optional(Type.Union([Scalar, Type.Array(Scalar, { minItems: 1, maxItems: 256 })])),
}, { additionalProperties: false });
export const RuleSchema = Type.Object({
  id: plainText(128),
  effect: oneOf(['allow', 'deny']),
  actions: Type.Array(oneOf(['invoke', 'store']), { minItems: 1 }),
  models: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 128 }), { minItems: 1, maxItems: 64 })),
  when: Type.Optional(Type.Array(ConditionSchema, { minItems: 1, maxItems: 32 })),
  reason: Type.Optional(Type.String({ maxLength: 512 })),
}, { additionalProperties: false });
export const PoliciesFile = Type.Object({
  policies: Type.Array(Type.Object({ name: Type.String({ minLength: 1 }), rules: Type.Array(RuleSchema, { minItems: 1 }) }, { additionalProperties: false })),
}, { additionalProperties: false });

export type Rule = Static<typeof RuleSchema>;
type RuleCondition = NonNullable<Rule['when']>[number];

/** Attribute values by name; a missing one is unknown, never false. */
export type Attributes = Readonly<Record<string, unknown>>;

/** Three-valued: an unknown allow does not apply, an unknown deny does. */
export type Truth = boolean | undefined;

export function policyRevision(file: Static<typeof PoliciesFile>): string {
  return `config-${createHash('sha256').update(JSON.stringify(file)).digest('hex').slice(0, 12)}`;
}

/** The conditions of a rule: all must hold. */
export interface Conditions {
  truth(attributes: Attributes): Truth;
  /** Names of the attributes that leave it unknown. */
  unknown(attributes: Attributes): string[];
}

/** A value that does not fit its operator; `path` leads to the condition within the rule. */
export class ConditionError extends Error {
  override readonly name = 'ConditionError';
  constructor(
    message: string,
    readonly path: string,
  ) {
    super(message);
  }
}

/**
 * Compiles the conditions of a rule into one test.
 *
 * @throws {ConditionError} naming the condition whose value does not fit its operator
 */
export function compileConditions(rule: Rule): Conditions {
  const tests = (rule.when ?? []).map((condition, index) => ({ attr: condition.attr, test: compileCondition(rule.id, condition, `when[${index}].value`) }));
  return {
    truth: (attributes) => {
      let result: Truth = true;
      for (const { attr, test } of tests) {
        const truth = test(attributes[attr]);
        if (truth === false) return false;
        if (truth === undefined) result = undefined;
      }
      return result;
    },
    unknown: (attributes) => tests.filter(({ attr, test }) => test(attributes[attr]) === undefined).map(({ attr }) => attr),
  };
}

/** Whether a model's names (requested, alias, upstream id) include one that the rule is for. */
export function matchesModels(rule: Rule, names: readonly string[]): boolean {
  return (rule.models ?? ['*']).some((pattern) =>
    pattern.endsWith('*') ? names.some((name) => name.startsWith(pattern.slice(0, -1))) : names.includes(pattern));
}

function compileCondition(ruleId: string, { attr, op, value }: RuleCondition, path: string): (actual: unknown) => Truth {
  const misfit = (expected: string): Error => new ConditionError(`rule ${ruleId}: ${attr} ${op} takes ${expected}`, path);
  const list = Array.isArray(value) ? value : undefined;
  switch (op) {
    case 'exists': {
      if (typeof value !== 'boolean') throw misfit('true or false');
      return (actual) => (actual !== undefined) === value;
    }
    case 'eq':
    case 'ne': {
      if (value === undefined || list) throw misfit('one value');
      return known(value, (actual) => holds(actual, [value]) === (op === 'eq'));
    }
    case 'in':
    case 'not_in': {
      if (!list || list.some((member) => typeof member !== typeof list[0])) throw misfit('a list of one type');
      return known(list[0], (actual) => holds(actual, list) === (op === 'in'));
    }
    case 'lt': case 'lte': case 'gt': case 'gte': {
      if (typeof value !== 'number') throw misfit('a number');
      return (actual) => (typeof actual === 'number' ? compare(op, actual, value) : undefined);
    }
    case 'prefix': {
      if (typeof value !== 'string' || value === '') throw misfit('a text');
      return (actual) => (typeof actual === 'string' ? actual.startsWith(value) : undefined);
    }
    case 'cidr': {
      const networks = compileNetworks(list ?? [value], () => misfit('networks such as 10.0.0.0/8'));
      return (actual) => (typeof actual === 'string' && isIP(actual) !== 0 ? networks.check(actual, isIP(actual) === 4 ? 'ipv4' : 'ipv6') : undefined);
    }
    case 'time_between': {
      const [from, to, zone] = list ?? [];
      if (list?.length !== 3 || !isClock(from) || !isClock(to) || typeof zone !== 'string' || !isZone(zone)) throw misfit('["08:00", "18:00", "Europe/Berlin"]');
      return compileTimeWindow(from, to, zone);
    }
  }
}

/** A mistyped attribute counts as missing. A list of the principal's (roles, say) holds a value when one of its members does. */
function known(sample: unknown, test: (actual: unknown) => boolean): (actual: unknown) => Truth {
  return (actual) => {
    if (Array.isArray(actual)) return actual.every((member) => typeof member === typeof sample) ? test(actual) : undefined;
    return typeof actual === typeof sample ? test(actual) : undefined;
  };
}

function holds(actual: unknown, values: readonly unknown[]): boolean {
  return Array.isArray(actual) ? actual.some((member) => values.includes(member)) : values.includes(actual);
}

function compare(op: Comparison, actual: number, limit: number): boolean {
  if (op === 'lt') return actual < limit;
  if (op === 'lte') return actual <= limit;
  if (op === 'gt') return actual > limit;
  return actual >= limit;
}

function compileNetworks(values: readonly unknown[], misfit: () => Error): BlockList {
  const networks = new BlockList();
  for (const value of values) {
    const [, address = '', bits] = (typeof value === 'string' && /^([^/]+)(?:\/(\d{1,3}))?$/.exec(value)) || [];
    const family = isIP(address);
    const prefix = bits === undefined ? (family === 4 ? 32 : 128) : Number(bits);
    if (family === 0 || prefix > (family === 4 ? 32 : 128)) throw misfit();
    networks.addSubnet(address, prefix, family === 4 ? 'ipv4' : 'ipv6');
  }
  return networks;
}

/** What a JavaScript date can hold. */
const DATE_MS_MAX = 8.64e15;

/** `env.time` is epoch milliseconds; a window may run past midnight. */
function compileTimeWindow(from: string, to: string, zone: string): (actual: unknown) => Truth {
  const format = new Intl.DateTimeFormat('en-GB', { timeZone: zone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  return (actual) => {
    if (typeof actual !== 'number' || Math.abs(actual) > DATE_MS_MAX) return undefined;
    const time = format.format(actual);
    return from <= to ? time >= from && time < to : time >= from || time < to;
  };
}

function isClock(value: unknown): value is string {
  return typeof value === 'string' && /^([01]\d|2[0-3]):[0-5]\d$/.test(value);
}

function isZone(zone: string): boolean {
  try {
    return Boolean(new Intl.DateTimeFormat('en', { timeZone: zone }));
  } catch {
    return false; // RangeError: the only thing it throws for a string
  }
}
