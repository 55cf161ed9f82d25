import {
  emptyMessage, invalid, liveSearchOff, noMessages, notOnChat, promptTooLong, streamAndDeferred,
  unknownModel, unsupportedArgument, unsupportedParameter,
} from './emulated-errors.ts';
import type { EmulatedModel, ResolvedModel } from './emulated-models.ts';
import { countPrompt, promptSegments, type PromptSegment, type PromptTokens } from './emulated-prompt.ts';
import type { EmulatorScript } from './emulated-script.ts';
import type { CallContext } from './emulated-service.ts';
import { anything, count, fields, flag, integer, isGiven, isObject, listOf, number, object, oneOf, text, type Check } from './emulated-shape.ts';

export interface FunctionTool {
  readonly name: string;
  readonly parameters: unknown;
}

/** A request for text that the provider would serve, at whatever endpoint. */
export interface GenerationRequest {
  readonly model: EmulatedModel;
  readonly reasons: boolean;
  readonly segments: readonly PromptSegment[];
  readonly promptTokens: PromptTokens;
  readonly stream: boolean;
  readonly choices: number;
  /** Of each choice, visible tokens alone. */
  readonly outputTokensMax: number;
  readonly priority: boolean;
  /** The function that the answer must call. */
  readonly tool?: FunctionTool;
  /** The answer must be JSON, of this schema if there is one. */
  readonly json?: { readonly schema?: unknown };
  readonly cacheKey?: string;
  readonly script: EmulatorScript;
}

export interface ChatRequest extends GenerationRequest {
  readonly includeUsage: boolean;
  /** The answer is fetched later. */
  readonly deferred?: boolean;
}

export const OUTPUT_TOKENS_DEFAULT = 128_000;
const TOOLS_MAX = 350;
const STOPS_MAX = 4;

const checkPart: Check = (value, path) => {
  fields({ type: oneOf('text', 'image_url', 'file', 'text_file', 'input_text', 'input_image') })(value, path);
  const type = (value as Record<string, unknown>)['type'];
  if (type === 'text' || type === 'input_text') fields({ text })(value, path);
  if (type === 'image_url') fields({ image_url: fields({ url: text }) })(value, path);
};

const checkContent: Check = (value, path) => (Array.isArray(value) ? listOf(checkPart)(value, path) : text(value, path));

const checkToolChoice: Check = (value, path) =>
  isObject(value) ? fields({ type: text, function: fields({ name: text }) })(value, path) : oneOf('none', 'auto', 'required')(value, path);

const checkTool: Check = (value, path) => {
  fields({ type: text }, { function: fields({ name: text }, { description: text, parameters: object }) })(value, path);
  if ((value as Record<string, unknown>)['type'] === 'function') fields({ function: object })(value, path);
};

const checkShape = fields(
  {
    model: text,
    messages: listOf(fields(
      { role: oneOf('system', 'user', 'assistant', 'tool', 'function', 'developer') },
      {
        content: checkContent, reasoning_content: text, tool_call_id: text, name: text,
        tool_calls: listOf(fields({ id: text, function: fields({ name: text, arguments: text }) })),
      },
    )),
  },
  {
    stream: flag, stream_options: fields({}, { include_usage: flag }), deferred: flag,
    max_completion_tokens: count, max_tokens: count, n: integer, seed: integer,
    temperature: number, top_p: number, frequency_penalty: number, presence_penalty: number, logprobs: flag, top_logprobs: integer,
    stop: (value, path) => (Array.isArray(value) ? listOf(text)(value, path) : text(value, path)),
    reasoning_effort: text, service_tier: oneOf('auto', 'default', 'priority', 'fast'), prompt_cache_key: text, user: text, safety_identifier: text,
    response_format: fields({ type: oneOf('text', 'json_object', 'json_schema') }, { json_schema: fields({}, { name: text, schema: anything, strict: flag }) }),
    tools: listOf(checkTool), tool_choice: checkToolChoice, parallel_tool_calls: flag, search_parameters: object,
  },
);

/** The body's known fields, once `checkShape` has passed: null and absent mean the same in all of the optional ones. */
interface ChatBody extends Record<string, unknown> {
  model: string;
  messages: Record<string, unknown>[];
  stream_options?: { include_usage?: boolean | null } | null;
  n?: number | null;
  max_completion_tokens?: number | null;
  max_tokens?: number | null;
  stop?: string | string[] | null;
  reasoning_effort?: string | null;
  service_tier?: string | null;
  prompt_cache_key?: string | null;
  response_format?: { type: string; json_schema?: { schema?: unknown } | null } | null;
  tools?: { type: string; function?: { name: string; parameters?: unknown } }[] | null;
  tool_choice?: string | { function: { name: string } } | null;
}

/** Inclusive bounds, in the provider's documentation. */
const RANGES: Readonly<Record<string, readonly [number, number]>> = {
  temperature: [0, 2],
  top_p: [Number.MIN_VALUE, 1],
  top_k: [1, Number.MAX_SAFE_INTEGER],
  min_p: [0, 1],
  n: [1, 128],
  frequency_penalty: [-2, 2],
  presence_penalty: [-2, 2],
  top_logprobs: [0, 8],
  max_completion_tokens: [1, Number.MAX_SAFE_INTEGER],
  max_tokens: [1, Number.MAX_SAFE_INTEGER],
  max_output_tokens: [1, Number.MAX_SAFE_INTEGER],
};

/** Refused by a model that reasons, also with their default values; the names as its answer spells them. */
const REFUSED_WHILE_REASONING = { presence_penalty: 'presencePenalty', frequency_penalty: 'frequencyPenalty', stop: 'stop' } as const;

/** @throws EmulatedRefusal the provider's first objection */
export function readChatRequest({ json, service: { catalogue }, admit }: CallContext): ChatRequest {
  checkShape(json, '');
  const body = json as ChatBody;
  const stream = body['stream'] === true;
  if (stream && body['deferred'] === true) throw streamAndDeferred();
  if (isGiven(body['search_parameters']) || body.tools?.some(({ type }) => type === 'live_search')) throw liveSearchOff();

  const named = catalogue.resolve(body.model);
  if (named === undefined) throw unknownModel(body.model);
  if (!named.model.chat) throw notOnChat();
  const reasons = doesReason(named, body.reasoning_effort ?? undefined);
  checkMessages(body.messages);
  checkParameters(body, reasons);

  const segments = promptSegments(body.messages, body.tools);
  const promptTokens = countPrompt(segments, body.messages);
  if (promptTokens.total > named.model.contextTokens) throw promptTooLong(named.model.contextTokens, promptTokens.total);
  const format = body.response_format?.type;
  return {
    model: named.model,
    reasons,
    segments,
    promptTokens,
    stream,
    includeUsage: stream && body.stream_options?.include_usage === true,
    deferred: body['deferred'] === true,
    choices: body.n ?? 1,
    outputTokensMax: body.max_completion_tokens ?? body.max_tokens ?? OUTPUT_TOKENS_DEFAULT,
    priority: body.service_tier === 'priority' || body.service_tier === 'fast',
    tool: toolToCall(body),
    json: format === 'json_object' || format === 'json_schema' ? { schema: body.response_format?.json_schema?.schema } : undefined,
    cacheKey: body.prompt_cache_key ?? undefined,
    script: admit(named.model.id, promptTokens.total),
  };
}

/** Checks the effort as well. */
export function doesReason({ model, impliedEffort }: ResolvedModel, askedEffort: string | undefined): boolean {
  if (askedEffort !== undefined && model.efforts.length === 0) throw unsupportedParameter(model.id, 'reasoningEffort');
  const effort = askedEffort ?? impliedEffort ?? model.defaultEffort;
  if (askedEffort !== undefined && !model.efforts.includes(askedEffort) && !model.unlistedEfforts?.includes(askedEffort)) {
    throw invalid(`Model ${model.id} does not support reasoning effort ${askedEffort}. Supported values: ${model.efforts.join(', ')}.`);
  }
  return model.reasoning === 'always' || (model.reasoning === 'unless-effort-none' && effort !== 'none');
}

function checkMessages(messages: readonly Record<string, unknown>[]): void {
  if (messages.length === 0) throw noMessages();
  for (const { content, tool_calls: calls } of messages) {
    const empty = !isGiven(content) || (Array.isArray(content) && content.length === 0);
    if (empty && !(Array.isArray(calls) && calls.length > 0)) throw emptyMessage();
  }
}

/** What the endpoints for text have in common. */
export function checkParameters(body: Record<string, unknown>, reasons: boolean): void {
  if (reasons) {
    for (const [name, camelCaseName] of Object.entries(REFUSED_WHILE_REASONING)) {
      if (isGiven(body[name])) throw unsupportedArgument(camelCaseName);
    }
  }
  for (const [name, [lowest, highest]] of Object.entries(RANGES)) {
    const value = body[name];
    if (typeof value === 'number' && (value < lowest || value > highest)) throw invalid(`Invalid value for ${name}: ${value} is out of range.`);
  }
  const { stop, tools } = body;
  if (Array.isArray(stop) && stop.length > STOPS_MAX) throw invalid(`At most ${STOPS_MAX} stop sequences are allowed.`);
  if (Array.isArray(tools) && tools.length > TOOLS_MAX) throw invalid(`At most ${TOOLS_MAX} tools are allowed.`);
}

function toolToCall({ tools, tool_choice: choice }: ChatBody): FunctionTool | undefined {
  if (!isGiven(tools) || !isGiven(choice) || choice === 'auto' || choice === 'none') return undefined;
  const functions = tools!.flatMap((tool) => (tool.function === undefined ? [] : [tool.function]));
  const called = typeof choice === 'object' ? functions.find(({ name }) => name === choice!.function.name) : functions[0];
  if (called === undefined) throw invalid('The tool named in tool_choice is not among the tools.');
  return { name: called.name, parameters: called.parameters };
}
