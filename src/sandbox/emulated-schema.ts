import { isObject } from './emulated-shape.ts';

/** Deep enough for any schema that makes sense; what lies deeper, a circular reference above all, becomes null. */
const DEPTH_MAX = 32;

/** The smallest value that a JSON schema allows: required properties, least numbers, shortest lists. `pattern` is not understood. */
export function minimalValue(schema: unknown): unknown {
  return valueOf(schema, schema, 0);
}

function valueOf(schema: unknown, root: unknown, depth: number): unknown {
  if (!isObject(schema) || depth > DEPTH_MAX) return null;
  const deeper = (inner: unknown) => valueOf(inner, root, depth + 1);
  if (typeof schema['$ref'] === 'string') return deeper(lookUp(schema['$ref'], root));
  if ('const' in schema) return schema['const'];
  for (const options of [schema['enum'], schema['examples']]) {
    if (Array.isArray(options) && options.length > 0) return options[0];
  }
  if (Array.isArray(schema['allOf'])) return deeper(merged(schema, schema['allOf'], root));
  for (const options of [schema['anyOf'], schema['oneOf']]) {
    if (Array.isArray(options) && options.length > 0) return deeper(options[0]);
  }
  switch (typeOf(schema)) {
    case 'object':
      return objectOf(schema, deeper);
    case 'array':
      return Array.from({ length: numberOr(schema['minItems'], 0) }, () => deeper(schema['items']));
    case 'string':
      return stringOf(schema);
    case 'integer':
    case 'number':
      return numberOf(schema);
    case 'boolean':
      return true;
    default:
      return null;
  }
}

function typeOf(schema: Record<string, unknown>): unknown {
  const type = schema['type'];
  if (Array.isArray(type)) return type[0];
  return type ?? ('properties' in schema ? 'object' : 'items' in schema ? 'array' : undefined);
}

function objectOf(schema: Record<string, unknown>, deeper: (inner: unknown) => unknown): Record<string, unknown> {
  const properties = isObject(schema['properties']) ? schema['properties'] : {};
  const required = Array.isArray(schema['required']) ? schema['required'].map(String) : [];
  return Object.fromEntries(required.map((name) => [name, deeper(properties[name])]));
}

/** An object that has the keywords of all parts; required names and properties add up. */
function merged(schema: Record<string, unknown>, parts: readonly unknown[], root: unknown): Record<string, unknown> {
  const { allOf: _, ...rest } = schema;
  const schemas = [rest, ...parts].map((part) => (isObject(part) && typeof part['$ref'] === 'string' ? lookUp(part['$ref'], root) : part)).filter(isObject);
  return {
    ...Object.assign({}, ...schemas),
    properties: Object.assign({}, ...schemas.map((part) => part['properties'])),
    required: schemas.flatMap((part) => (Array.isArray(part['required']) ? part['required'] : [])),
  };
}

function lookUp(reference: string, root: unknown): unknown {
  let found = root;
  for (const step of reference.replace(/^#\/?/, '').split('/')) {
    if (step !== '') found = isObject(found) ? found[step.replaceAll('~1', '/').replaceAll('~0', '~')] : undefined;
  }
  return found;
}

function stringOf(schema: Record<string, unknown>): string {
  const formats: Readonly<Record<string, string>> = {
    'date-time': '2026-01-01T00:00:00Z', date: '2026-01-01', time: '00:00:00Z',
    email: 'a@example.com', uri: 'https://example.com', uuid: '00000000-0000-4000-8000-000000000000',
  };
  const format = formats[String(schema['format'])];
  return format ?? 'text'.padEnd(numberOr(schema['minLength'], 0), '.').slice(0, numberOr(schema['maxLength'], Infinity));
}

function numberOf(schema: Record<string, unknown>): number {
  const least = numberOr(schema['minimum'], Math.floor(numberOr(schema['exclusiveMinimum'], 0)) + 1);
  const most = numberOr(schema['maximum'], Math.ceil(numberOr(schema['exclusiveMaximum'], Infinity)) - 1);
  return Math.min(least, most);
}

function numberOr(value: unknown, otherwise: number): number {
  return typeof value === 'number' ? value : otherwise;
}
