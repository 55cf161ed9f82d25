import {
  emptyMessage, foreignReasoning, instructionsInChain, liveSearchOff, noMessages, noStoreWithoutRetention, promptTooLong,
  invalid, unknownModel, unknownResponse, unsupportedParameter,
} from './emulated-errors.ts';
import type { EmulatedModel } from './emulated-models.ts';
import { countPrompt, promptSegments } from './emulated-prompt.ts';
import { checkParameters, doesReason, OUTPUT_TOKENS_DEFAULT, type GenerationRequest } from './emulated-request.ts';
import {
  asMessage, checkInput, checkReasoning, checkTextOptions, checkTool, checkToolChoice, chosenFunction, inputItems, modelOfEncryptedReasoning, type InputItem,
} from './emulated-response-items.ts';
import type { StoredResponse } from './emulated-response-store.ts';
import type { CallContext } from './emulated-service.ts';
import { count, fields, flag, integer, isGiven, listOf, number, object, oneOf, text } from './emulated-shape.ts';

export interface ResponseRequest extends GenerationRequest {
  /** As asked, for the parts that the answer repeats. */
  readonly body: ResponseBody;
  readonly inputItems: readonly InputItem[];
  /** The whole conversation so far. */
  readonly context: readonly InputItem[];
  readonly previous?: StoredResponse;
  readonly store: boolean;
  readonly encryptedReasoning: boolean;
}

/** The body's known fields, once `checkShape` has passed: null and absent mean the same in all of the optional ones. */
interface ResponseBody extends Record<string, unknown> {
  model: string;
  input: string | InputItem[];
  instructions?: string | null;
  previous_response_id?: string | null;
  store?: boolean | null;
  include?: string[] | null;
  max_output_tokens?: number | null;
  reasoning?: { effort?: string | null; summary?: string | null } | null;
  reasoning_effort?: string | null;
  text?: { format?: { type: string; schema?: unknown } | null } | null;
  tools?: Record<string, unknown>[] | null;
  service_tier?: string | null;
  prompt_cache_key?: string | null;
}

const checkShape = fields(
  { model: text, input: checkInput },
  {
    instructions: text, previous_response_id: text, store: flag, include: listOf(text), max_output_tokens: count, max_turns: count,
    reasoning: checkReasoning, reasoning_effort: text, temperature: number, top_p: number, top_k: integer, min_p: number,
    logprobs: flag, top_logprobs: integer, text: checkTextOptions, tools: listOf(checkTool), tool_choice: checkToolChoice, parallel_tool_calls: flag,
    stream: flag, service_tier: oneOf('auto', 'default', 'priority', 'fast'), prompt_cache_key: text, safety_identifier: text, user: text,
    background: flag, metadata: object, search_parameters: object, presence_penalty: number, frequency_penalty: number,
  },
);

/** Gives its reasoning to the caller, sealed, whether asked to or not. */
const ALWAYS_ENCRYPTED = 'grok-4.7';

/** @throws EmulatedRefusal the provider's first objection */
export function readResponseRequest({ json, stamp, service, admit }: CallContext): ResponseRequest {
  checkShape(json, '');
  const body = json as ResponseBody;
  if (isGiven(body['search_parameters']) || body.tools?.some(({ type }) => type === 'live_search')) throw liveSearchOff();
  const named = service.catalogue.resolve(body.model);
  if (named === undefined) throw unknownModel(body.model);
  const { model } = named;
  const reasons = doesReason(named, (isGiven(body.reasoning) ? body.reasoning?.effort : body.reasoning_effort) ?? undefined);
  checkParameters(body, reasons);
  checkAgents(body, model);
  const store = body.store ?? true;
  if (store && service.switches.zeroDataRetention) throw noStoreWithoutRetention();

  const previous = previousOf(body, service.responses.find(body.previous_response_id ?? ''));
  const ownItems = inputItems(body.input, stamp.id);
  const instructions = isGiven(body.instructions) ? [{ type: 'message', role: 'system', content: body.instructions }] : [];
  const context = [...(previous?.context ?? []), ...instructions, ...ownItems];
  checkItems(ownItems, model);
  const messages = context.map(asMessage);
  const segments = promptSegments(messages, body.tools);
  const promptTokens = countPrompt(segments, messages);
  if (promptTokens.total > model.contextTokens) throw promptTooLong(model.contextTokens, promptTokens.total);
  const { format } = body.text ?? {};
  return {
    body, model, reasons, segments, promptTokens, previous, store, context,
    inputItems: ownItems,
    stream: body['stream'] === true,
    choices: 1,
    outputTokensMax: body.max_output_tokens ?? OUTPUT_TOKENS_DEFAULT,
    priority: body.service_tier === 'priority' || body.service_tier === 'fast',
    tool: toolToCall(body),
    json: format?.type === 'json_object' || format?.type === 'json_schema' ? { schema: format.schema } : undefined,
    cacheKey: body.prompt_cache_key ?? undefined,
    encryptedReasoning: model.id === ALWAYS_ENCRYPTED || body.include?.includes('reasoning.encrypted_content') === true,
    script: admit(model.id, promptTokens.total),
  };
}

function previousOf({ previous_response_id: id, instructions }: ResponseBody, found: StoredResponse | undefined): StoredResponse | undefined {
  if (!isGiven(id)) return undefined;
  if (isGiven(instructions)) throw instructionsInChain();
  if (found === undefined) throw unknownResponse(id!);
  return found;
}

/** Several agents at work take no tools of the caller, and no limit to what they write. */
function checkAgents({ tools, max_output_tokens: outputTokensMax }: ResponseBody, model: EmulatedModel): void {
  if (model.chat) return;
  if (tools?.some(({ type }) => type === 'function')) throw invalid('Client-side tools are not supported for multi agent requests.');
  if (isGiven(outputTokensMax)) throw unsupportedParameter(model.id, 'maxOutputTokens');
}

function checkItems(items: readonly InputItem[], model: EmulatedModel): void {
  if (items.length === 0) throw noMessages();
  for (const { type, content, encrypted_content: encrypted } of items) {
    if (type === 'message' && Array.isArray(content) && content.length === 0) throw emptyMessage();
    if (typeof encrypted === 'string' && type === 'reasoning' && modelOfEncryptedReasoning(encrypted) !== model.id) throw foreignReasoning(model.id);
  }
}

function toolToCall({ tools, tool_choice: choice }: ResponseBody): GenerationRequest['tool'] {
  const called = chosenFunction(tools ?? [], choice);
  const none = called === undefined && isGiven(choice) && choice !== 'auto' && choice !== 'none';
  const elsewhere = tools?.some(({ type }) => type !== 'function'); // the provider may run one of its own
  if (none && !elsewhere) throw invalid('The tool named in tool_choice is not among the tools.');
  return called;
}
