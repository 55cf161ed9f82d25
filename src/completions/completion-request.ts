import { isUtf8 } from 'node:buffer';
import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { GatewayError } from '../shared/gateway-error.ts';
import { scanJsonObject, type JsonMember } from './json-members.ts';
import { oneOf } from '../shared/one-of.ts';

const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));

const Anything = (description: string) => Type.Optional(Type.Unsafe<unknown>({ description }));
const TOOLS_MAX = 350;
/** The provider knows more fields than the gateway, and will know more still. */
const OPEN = { additionalProperties: true };

const ContentPart = Type.Object({
  type: Type.String({ minLength: 1, description: 'text or image_url' }), text: Anything('of a text part'), image_url: Anything('of an image: {url, detail}'),
}, OPEN);
const Message = Type.Object({
  role: oneOf(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: Nullable(Type.Union([Type.String(), Type.Array(ContentPart)])),
  name: Anything('of the speaker'), tool_calls: Anything('of an assistant message, as it was received'), tool_call_id: Anything('of a tool message'),
}, OPEN);
const Tool = Type.Object({ type: Type.String({ minLength: 1, description: 'function' }), function: Anything('{name, description, parameters}') }, OPEN);

/**
 * A chat completion request, as far as the gateway reads it. Fields it does not know are allowed everywhere, and go upstream untouched.
 *
 * @see https://platform.openai.com/docs/api-reference/chat
 */
export const CompletionRequestSchema = Type.Object({
  model: Nullable(Type.String({ minLength: 1, maxLength: 256, description: 'Model id or alias; the default model where absent' })),
  messages: Type.Array(Message, { minItems: 1 }),
  stream: Nullable(Type.Boolean()),
  stream_options: Nullable(Type.Object({ include_usage: Nullable(Type.Boolean()) }, OPEN)),
  max_completion_tokens: Nullable(Type.Integer({ minimum: 1 })),
  max_tokens: Nullable(Type.Integer({ minimum: 1, description: 'Older name of max_completion_tokens' })),
  temperature: Nullable(Type.Number({ minimum: 0, maximum: 2 })),
  top_p: Nullable(Type.Number({ minimum: 0, maximum: 1 })),
  n: Nullable(Type.Integer({ minimum: 1, maximum: 128 })),
  seed: Nullable(Type.Integer()),
  stop: Nullable(Type.Union([Type.String(), Type.Array(Type.String(), { maxItems: 8 })])),
  frequency_penalty: Nullable(Type.Number({ minimum: -2, maximum: 2 })),
  presence_penalty: Nullable(Type.Number({ minimum: -2, maximum: 2 })),
  reasoning_effort: Nullable(Type.String()),
  response_format: Nullable(Type.Object({ type: Type.String(), json_schema: Anything('{name, schema, strict} of type json_schema') }, OPEN)),
  tools: Nullable(Type.Array(Tool, { maxItems: TOOLS_MAX })),
  tool_choice: Anything('none, auto, required, or {type, function: {name}}'),
  parallel_tool_calls: Nullable(Type.Boolean()),
  service_tier: Nullable(Type.String()),
  deferred: Nullable(Type.Boolean()),
  user: Nullable(Type.String()),
}, OPEN);
export type CompletionRequest = Static<typeof CompletionRequestSchema>;

const validator = Compile(CompletionRequestSchema);
const messageValidator = Compile(Message);
const partValidator = Compile(ContentPart);
const toolValidator = Compile(Tool);
/** Deeper than any schema or tool that a model takes. */
const DEPTH_MAX = 128;

/** A request as bytes and as a value; the bytes are what goes upstream. */
export interface ParsedRequest {
  body: Buffer;
  members: readonly JsonMember[];
  request: CompletionRequest;
}

/**
 * Step 3 of a request's life.
 *
 * @throws {GatewayError} `invalid_request`, naming the field at fault
 */
export function parseCompletionRequest(body: Buffer): ParsedRequest {
  const { members, depth, duplicate, disguised } = scanJsonObject(body, DEPTH_MAX);
  // Before anything recurses into it: a million brackets would hold the process up for half a second.
  if (depth > DEPTH_MAX) throw new GatewayError('invalid_request', { publicMessage: `The body is nested more than ${DEPTH_MAX} levels deep.` });
  const value = parseJsonObject(body);
  // Two readers of the same text must not see two requests: we would check the one, and the provider might answer the other.
  if (duplicate !== undefined) throw new GatewayError('invalid_request', { publicMessage: `The field ${shown(duplicate)} is given twice.`, param: shown(duplicate) });
  if (disguised !== undefined) throw new GatewayError('invalid_request', { publicMessage: `The field ${shown(disguised)} spells plain letters by escapes. Write them as they are.`, param: shown(disguised) });
  if (!validator.Check(value)) throw invalid(value);
  return { body, members, request: value as CompletionRequest };
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

/** To list all faults of a long list would take seconds; one is told, so one is looked for. */
function invalid(value: object): GatewayError {
  const { copy, indexes } = withOneOfEach(value as Record<string, unknown>);
  // Of a union's faults the deepest says most: it is the one about the branch that nearly fitted.
  const faults = [...validator.Errors(copy)];
  const fault = faults.reduce<(typeof faults)[number] | undefined>((deepest, one) => (deepest === undefined || depth(one.instancePath) > depth(deepest.instancePath) ? one : deepest), undefined);
  if (fault === undefined) {
    const param = Array.isArray((value as { tools?: unknown }).tools) && ((value as { tools: unknown[] }).tools.length > TOOLS_MAX) ? 'tools' : 'stop';
    return new GatewayError('invalid_request', { publicMessage: `${param} has more entries than it may have.`, param });
  }
  const missing = fault.keyword === 'required' ? (fault.params as { requiredProperties?: string[] }).requiredProperties?.[0] : undefined;
  const pointer = missing === undefined ? fault.instancePath : `${fault.instancePath}/${missing}`;
  const param = paramName(indexes.reduce((path, [prefix, index]) => path.replace(`${prefix}/0`, `${prefix}/${index}`), pointer));
  const what = missing === undefined ? fault.message : 'is required';
  return new GatewayError('invalid_request', { publicMessage: `${param === '' ? 'The body' : param} ${what}.`, ...(param === '' ? {} : { param }) });
}

/** A copy in which each long list has only its first faulty entry, or its first; and where that stood. Innermost lists come first. */
function withOneOfEach(value: Record<string, unknown>): { copy: Record<string, unknown>; indexes: [string, number][] } {
  const copy = { ...value };
  const indexes: [string, number][] = [];
  const keepOne = (owner: Record<string, unknown>, key: string, pointer: string, fits: (entry: unknown) => boolean): void => {
    const list = owner[key];
    if (!Array.isArray(list) || list.length === 0) return;
    const index = Math.max(0, list.findIndex((entry) => !fits(entry)));
    owner[key] = [list[index]];
    indexes.unshift([pointer, index]);
  };
  keepOne(copy, 'stop', '/stop', (text) => typeof text === 'string');
  keepOne(copy, 'tools', '/tools', (tool) => toolValidator.Check(tool));
  keepOne(copy, 'messages', '/messages', (message) => messageValidator.Check(message));
  const [message] = Array.isArray(copy['messages']) ? (copy['messages'] as unknown[]) : [];
  if (typeof message === 'object' && message !== null) {
    const messageCopy = { ...message } as Record<string, unknown>;
    keepOne(messageCopy, 'content', '/messages/0/content', (part) => partValidator.Check(part));
    copy['messages'] = [messageCopy];
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
