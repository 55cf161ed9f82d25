import { undeserializable } from './emulated-errors.ts';

// Checks of a body's shape, which fail as the provider's deserializer does: 422, naming the place.

/** Returns when the value has the shape, throws the refusal when it has not. */
export type Check = (value: unknown, path: string) => void;

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A value that may be missing, or null: both mean the same to the provider. */
export function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

export const text: Check = (value, path) => expectThat(typeof value === 'string', value, path, 'a string');
export const flag: Check = (value, path) => expectThat(typeof value === 'boolean', value, path, 'a boolean');
export const number: Check = (value, path) => expectThat(typeof value === 'number', value, path, 'a number');
export const integer: Check = (value, path) => expectThat(Number.isSafeInteger(value), value, path, 'an integer');
export const count: Check = (value, path) => expectThat(Number.isSafeInteger(value) && Number(value) >= 0, value, path, 'u32');
export const object: Check = (value, path) => expectThat(isObject(value), value, path, 'a map');
export const anything: Check = () => {};

export function oneOf(...words: readonly string[]): Check {
  return (value, path) => {
    text(value, path);
    if (!words.includes(value as string)) {
      throw undeserializable(`${path}: unknown variant \`${String(value)}\`, expected one of ${words.map((word) => `\`${word}\``).join(', ')}`);
    }
  };
}

export function listOf(check: Check): Check {
  return (value, path) => {
    expectThat(Array.isArray(value), value, path, 'a sequence');
    (value as unknown[]).forEach((item, index) => check(item, `${path}[${index}]`));
  };
}

/** Objects with these fields where given; other fields pass unseen, as the provider lets them. */
export function fields(required: Readonly<Record<string, Check>>, optional: Readonly<Record<string, Check>> = {}): Check {
  return (value, path) => {
    expectThat(isObject(value), value, path, 'a map');
    const map = value as Record<string, unknown>;
    const at = (name: string) => (path === '' ? name : `${path}.${name}`);
    for (const [name, check] of Object.entries(required)) {
      if (map[name] === undefined) throw undeserializable(`${path === '' ? '' : `${path}: `}missing field \`${name}\``);
      check(map[name], at(name));
    }
    for (const [name, check] of Object.entries(optional)) {
      if (isGiven(map[name])) check(map[name], at(name));
    }
  };
}

function expectThat(holds: boolean, value: unknown, path: string, expected: string): void {
  if (!holds) throw undeserializable(`${path === '' ? '' : `${path}: `}invalid type: ${describe(value)}, expected ${expected}`);
}

function describe(value: unknown): string {
  if (typeof value === 'string') return `string ${JSON.stringify(value)}`;
  if (typeof value === 'number') return `${Number.isInteger(value) ? 'integer' : 'floating point'} \`${value}\``;
  if (typeof value === 'boolean') return `boolean \`${value}\``;
  if (value === null) return 'null';
  return Array.isArray(value) ? 'sequence' : 'map';
}
