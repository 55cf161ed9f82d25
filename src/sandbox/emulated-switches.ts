import type { RateLimit } from './emulated-limits.ts';
import { count, fields, flag, isObject, listOf, object, text, type Check } from './emulated-shape.ts';
import { undeserializable } from './emulated-errors.ts';

/** How the emulated service and its team are set up, where that may change while it runs. */
export interface EmulatorSwitches {
  /** Streams of chats end with a usage chunk even without `stream_options.include_usage`. */
  usageWithoutAsking: boolean;
  /** Chunks of chats are as the documentation prints them: each with the role and the usage so far. */
  documentationStyle: boolean;
  /** The team keeps nothing with the provider: responses cannot be stored, and headers say so. */
  zeroDataRetention: boolean;
  /** The team has no money left, which the provider has answered in both ways. */
  creditsExhausted: false | 403 | 429;
  rateLimit: RateLimit | undefined;
  /** Known keys that may do nothing any more: 403. */
  blockedKeys: readonly string[];
  /** The team may use the mutual-TLS host alone: on a plain one, 403. */
  mtlsRequired: boolean;
}

export const SWITCHED_OFF: EmulatorSwitches = {
  usageWithoutAsking: false, documentationStyle: false, zeroDataRetention: false, creditsExhausted: false, rateLimit: undefined, blockedKeys: [], mtlsRequired: false,
};

const oneOfThese = (...values: readonly unknown[]): Check => (value, path) => {
  if (!values.includes(value)) throw undeserializable(`${path}: expected one of ${values.join(', ')}`);
};

const CHECKS: Readonly<Record<keyof EmulatorSwitches, Check>> = {
  usageWithoutAsking: flag, documentationStyle: flag, zeroDataRetention: flag, mtlsRequired: flag, blockedKeys: listOf(text),
  creditsExhausted: oneOfThese(false, 403, 429),
  rateLimit: fields({}, { requestsPerMinute: count, tokensPerMinute: count, headers: flag, retryAfter: flag }),
};

/** The switches named in a body, whose names are in snake case; null for a rate limit takes it away. @throws EmulatedRefusal 422 */
export function readSwitches(json: unknown): Partial<EmulatorSwitches> {
  object(json, '');
  const switches = camelCased(json) as Partial<EmulatorSwitches>;
  const unknown = Object.keys(switches).find((name) => !Object.hasOwn(CHECKS, name));
  if (unknown !== undefined) throw undeserializable(`unknown switch \`${unknown}\``);
  fields({}, CHECKS)(switches, '');
  return { ...switches, ...('rateLimit' in switches && { rateLimit: switches.rateLimit ?? undefined }) };
}

function camelCased(value: unknown): unknown {
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), camelCased(inner)]));
}
