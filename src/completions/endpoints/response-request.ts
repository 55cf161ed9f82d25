import { Type, type Static } from 'typebox';
import { Anything, ModelName, Nullable, OPEN, TOOLS_MAX } from './open-schema.ts';
import { RequestSchema, type ParsedRequest } from './request-schema.ts';

const Part = Type.Object({ type: Type.String({ minLength: 1, description: 'input_text, output_text, or input_image' }), text: Anything('of a text part'), image_url: Anything('of an image') }, OPEN);
const Item = Type.Object({
  type: Type.Optional(Type.String({ minLength: 1, description: 'message where absent' })), role: Type.Optional(Type.String()),
  content: Nullable(Type.Union([Type.String(), Type.Array(Part)])), output: Nullable(Type.Union([Type.String(), Type.Array(Part)])),
}, OPEN);
const Tool = Type.Object({ type: Type.String({ minLength: 1, description: 'function' }) }, OPEN);

/**
 * A request for a response, as far as the gateway reads it. Fields it does not know are allowed everywhere, and go upstream untouched.
 *
 * @see https://platform.openai.com/docs/api-reference/responses
 */
export const ResponseRequestSchema = Type.Object({
  model: ModelName,
  input: Type.Union([Type.String(), Type.Array(Item, { minItems: 1 })]),
  instructions: Nullable(Type.String()),
  previous_response_id: Nullable(Type.String({ description: 'A stored response that this one continues' })),
  store: Nullable(Type.Boolean({ description: 'Whether the provider keeps the answer for 30 days; only where a policy allows it' })),
  stream: Nullable(Type.Boolean()),
  max_output_tokens: Nullable(Type.Integer({ minimum: 1 })),
  temperature: Nullable(Type.Number({ minimum: 0, maximum: 2 })),
  top_p: Nullable(Type.Number({ minimum: 0, maximum: 1 })),
  reasoning: Nullable(Type.Object({ effort: Nullable(Type.String()) }, OPEN)),
  reasoning_effort: Nullable(Type.String()),
  text: Nullable(Type.Object({ format: Nullable(Type.Object({ type: Type.String() }, OPEN)) }, OPEN)),
  tools: Nullable(Type.Array(Tool, { maxItems: TOOLS_MAX })),
  tool_choice: Anything('none, auto, required, or {type, name}'),
  parallel_tool_calls: Nullable(Type.Boolean()),
  service_tier: Nullable(Type.String()),
  prompt_cache_key: Nullable(Type.String()),
  user: Nullable(Type.String()),
}, OPEN);
export type ResponseRequest = Static<typeof ResponseRequestSchema>;
export type InputItem = Static<typeof Item>;
export type InputPart = Static<typeof Part>;

const PARTS = { entry: Part };
const schema = new RequestSchema(ResponseRequestSchema, [
  { key: 'tools', entry: Tool, max: TOOLS_MAX },
  { key: 'input', entry: Item, within: [{ key: 'content', ...PARTS }, { key: 'output', ...PARTS }] },
]);

/** @throws {GatewayError} `invalid_request`, naming the field at fault */
export function parseResponseRequest(body: Buffer): ParsedRequest<ResponseRequest> {
  return schema.parse(body);
}
