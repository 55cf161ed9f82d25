import { Type, type Static } from 'typebox';
import { oneOf } from '../../shared/one-of.ts';
import { Anything, ModelName, Nullable, OPEN, TOOLS_MAX } from './open-schema.ts';
import { RequestSchema, type ParsedRequest } from './request-schema.ts';

const STOPS_MAX = 8;

const ContentPart = Type.Object({
  type: Type.String({ minLength: 1, description: 'text or image_url' }), text: Anything('of a text part'), image_url: Anything('of an image: {url, detail}'),
}, OPEN);
const Message = Type.Object({
  role: oneOf(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: Nullable(Type.Union([Type.String(), Type.Array(ContentPart)])),
  name: Anything('of the speaker'), tool_calls: Anything('of an assistant message, as it was received'), tool_call_id: Anything('of a tool message'),
}, OPEN);
const Tool = Type.Object({ type: Type.String({ minLength: 1, description: 'function' }), function: Anything('{name, description, parameters}') }, OPEN);

export const MessagesSchema = Type.Array(Message, { minItems: 1 });

/**
 * A chat completion request, as far as the gateway reads it. Fields it does not know are allowed everywhere, and go upstream untouched.
 *
 * @see https://platform.openai.com/docs/api-reference/chat
 */
export const CompletionRequestSchema = Type.Object({
  model: ModelName,
  messages: MessagesSchema,
  stream: Nullable(Type.Boolean()),
  stream_options: Nullable(Type.Object({ include_usage: Nullable(Type.Boolean()) }, OPEN)),
  max_completion_tokens: Nullable(Type.Integer({ minimum: 1 })),
  max_tokens: Nullable(Type.Integer({ minimum: 1, description: 'Older name of max_completion_tokens' })),
  temperature: Nullable(Type.Number({ minimum: 0, maximum: 2 })),
  top_p: Nullable(Type.Number({ minimum: 0, maximum: 1 })),
  n: Nullable(Type.Integer({ minimum: 1, maximum: 128 })),
  seed: Nullable(Type.Integer()),
  stop: Nullable(Type.Union([Type.String(), Type.Array(Type.String(), { maxItems: STOPS_MAX })])),
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
export type ParsedCompletion = ParsedRequest<CompletionRequest>;

const schema = new RequestSchema(CompletionRequestSchema, [
  { key: 'stop', entry: Type.String(), max: STOPS_MAX },
  { key: 'tools', entry: Tool, max: TOOLS_MAX },
  { key: 'messages', entry: Message, within: [{ key: 'content', entry: ContentPart }] },
]);

/** @throws {GatewayError} `invalid_request`, naming the field at fault */
export function parseCompletionRequest(body: Buffer): ParsedCompletion {
  return schema.parse(body);
}
