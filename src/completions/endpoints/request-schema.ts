import { isUtf8 } from 'node:buffer';
import type { Static, TSchema } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { GatewayError } from '../../shared/gateway-error.ts';
import { scanJsonObject, type JsonMember } from '../../shared/json-members.ts';

/** Deeper than any schema or tool that a model takes. */
const DEPTH_MAX = 128;

/** A request as bytes and as a value; the bytes are what goes upstream. */
export interface ParsedRequest<T> {
  body: Buffer;
  members: readonly JsonMember[];
  request: T;
}

/** A list that callers can make long. Where a fault is looked for, its first faulty entry stands for all: to list every fault of it would take seconds. */
export interface LongList {
  key: string;
  entry: TSchema;
  /** Most entries that the schema lets it have. */
  max?: number;
  /** Lists in each entry. */
  within?: readonly LongList[];
}

/** Reads request bodies of one endpoint. Fields that its schema does not name are allowed, and go upstream untouched. */
export class RequestSchema<T extends TSchema> {
  readonly #validator: Validator<Record<never, never>, T>;
  readonly #lists: readonly CompiledList[];

  constructor(
    readonly schema: T,
    lists: readonly LongList[],
  ) {
    this.#validator = Compile(schema) as Validator<Record<never, never>, T>;
    this.#lists = lists.map(compileList);
  }

  /**
   * Step 3 of a request's life.
   *
   * @throws {GatewayError} `invalid_request`, naming the field at fault
   */
  parse(body: Buffer): ParsedRequest<Static<T>> {
    const { members, depth, duplicate, disguised } = scanJsonObject(body, DEPTH_MAX);
    // Before anything recurses into it: a million brackets would hold the process up for half a second.
    if (depth > DEPTH_MAX) throw new GatewayError('invalid_request', { publicMessage: `The body is nested more than ${DEPTH_MAX} levels deep.` });
    const value = parseJsonObject(body);
    // Two readers of the same text must not see two requests: we would check the one, and the provider might answer the other.
    if (duplicate !== undefined) throw new GatewayError('invalid_request', { publicMessage: `The field ${shown(duplicate)} is given twice.`, param: shown(duplicate) });
    if (disguised !== undefined) throw new GatewayError('invalid_request', { publicMessage: `The field ${shown(disguised)} spells plain letters by escapes. Write them as they are.`, param: shown(disguised) });
    if (!this.#validator.Check(value)) throw this.#invalid(value as Record<string, unknown>);
    return { body, members, request: value as Static<T> };
  }

  /** One fault is told, so one is looked for. */
  #invalid(value: Record<string, unknown>): GatewayError {
    const { copy, indexes } = withOneOfEach(value, this.#lists, '');
    // Of a union's faults the deepest says most: it is the one about the branch that nearly fitted.
    const faults = [...this.#validator.Errors(copy)];
    const fault = faults.reduce<(typeof faults)[number] | undefined>((deepest, one) => (deepest === undefined || depth(one.instancePath) > depth(deepest.instancePath) ? one : deepest), undefined);
    if (fault === undefined) {
      const tooLong = this.#lists.find(({ key, max }) => Array.isArray(value[key]) && value[key].length > max)?.key ?? 'A list';
      return new GatewayError('invalid_request', { publicMessage: `${tooLong} has more entries than it may have.`, param: tooLong });
    }
    const missing = fault.keyword === 'required' ? (fault.params as { requiredProperties?: string[] }).requiredProperties?.[0] : undefined;
    const pointer = missing === undefined ? fault.instancePath : `${fault.instancePath}/${missing}`;
    const param = paramName(indexes.reduce((path, [prefix, index]) => path.replace(`${prefix}/0`, `${prefix}/${index}`), pointer));
    const what = missing === undefined ? fault.message : 'is required';
    return new GatewayError('invalid_request', { publicMessage: `${param === '' ? 'The body' : param} ${what}.`, ...(param === '' ? {} : { param }) });
  }
}

/** @throws {GatewayError} `invalid_request` when the bytes are no JSON object in UTF-8 */
export function parseJsonObject(body: Buffer): object {
  if (body.length === 0) throw new GatewayError('invalid_request', { publicMessage: 'The request has no body. Send a JSON object.' });
  if (!isUtf8(body)) throw new GatewayError('invalid_request', { publicMessage: 'The body is not valid UTF-8.' });
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch (cause) {
    throw new GatewayError('invalid_request', { publicMessage: 'The body is not valid JSON.', cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new GatewayError('invalid_request', { publicMessage: 'The body must be a JSON object.' });
  return value;
}

interface CompiledList {
  key: string;
  max: number;
  fits: (entry: unknown) => boolean;
  within: readonly CompiledList[];
}

function compileList({ key, entry, max = Number.POSITIVE_INFINITY, within = [] }: LongList): CompiledList {
  const validator = Compile(entry);
  return { key, max, fits: (one) => validator.Check(one), within: within.map(compileList) };
}

/** A copy in which each long list has only its first faulty entry, or its first; and where that stood. Innermost lists come first. */
function withOneOfEach(owner: Record<string, unknown>, lists: readonly CompiledList[], pointer: string): { copy: Record<string, unknown>; indexes: [string, number][] } {
  const copy = { ...owner };
  const indexes: [string, number][] = [];
  for (const { key, fits, within } of lists) {
    const list = copy[key];
    if (!Array.isArray(list) || list.length === 0) continue;
    const index = Math.max(0, list.findIndex((entry) => !fits(entry)));
    let kept: unknown = list[index];
    if (typeof kept === 'object' && kept !== null && !Array.isArray(kept)) {
      const inner = withOneOfEach(kept as Record<string, unknown>, within, `${pointer}/${key}/0`);
      kept = inner.copy;
      indexes.unshift(...inner.indexes);
    }
    copy[key] = [kept];
    indexes.push([`${pointer}/${key}`, index]);
  }
  return { copy, indexes };
}

function depth(path: string): number {
  return path.split('/').length;
}

/** `/messages/0/role` as callers write it: `messages[0].role`. */
function paramName(pointer: string): string {
  return shown(pointer.split('/').slice(1).reduce((path, part) => (/^\d+$/.test(part) ? `${path}[${part}]` : path === '' ? part : `${path}.${part}`), ''));
}

function shown(key: string): string {
  return key.replace(/\p{Cc}/gu, ' ').slice(0, 200).toWellFormed();
}
