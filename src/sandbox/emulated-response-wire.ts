import type { EmulatedAnswer, EmulatedChoice } from './emulated-answer.ts';
import { encryptReasoning } from './emulated-response-items.ts';
import type { ResponseRequest } from './emulated-response-request.ts';
import type { AnswerStamp } from './emulated-service.ts';
import { serviceTier } from './emulated-wire.ts';

// The object that /v1/responses answers with, and its output items; keys and their order as recorded.

export type OutputItem = { readonly id: string; readonly type: string } & Record<string, unknown>;

const SUMMARY = 'Thought about what was asked.';

/** What the answer consists of, each item complete, in the order in which they come. */
export function outputItems({ id }: AnswerStamp, request: ResponseRequest, answer: EmulatedAnswer): OutputItem[] {
  const { model, encryptedReasoning, script } = request;
  const searches = Array.from({ length: script.server_tool_calls?.web_search_calls ?? 0 }, (_, index) => searchItem(id, index));
  const [choice] = answer.choices;
  const said = choice!.toolCall === undefined ? messageItem(id, choice!) : functionItem(id, choice!);
  if (answer.reasoningTokens === 0) return [...searches, said];
  const sealed = encryptedReasoning ? { encrypted_content: encryptReasoning(model.id, id) } : {};
  return [{ id: `rs_${id}`, type: 'reasoning', status: 'completed', summary: [summaryPart()], ...sealed }, ...searches, said];
}

export function summaryPart(text = SUMMARY) {
  return { type: 'summary_text', text };
}

export function textPart(text: string) {
  return { type: 'output_text', text, logprobs: [], annotations: [] };
}

function messageItem(id: string, { tokens, finishReason }: EmulatedChoice): OutputItem {
  return { id: `msg_${id}`, type: 'message', role: 'assistant', status: statusOf(finishReason), content: [textPart(tokens.join(''))] };
}

function functionItem(id: string, { toolCall, finishReason }: EmulatedChoice): OutputItem {
  return { type: 'function_call', id: `fc_${id}_0`, call_id: toolCall!.id, name: toolCall!.name, arguments: toolCall!.arguments, status: statusOf(finishReason) };
}

function searchItem(id: string, index: number): OutputItem {
  const call = `call_${String(index).padStart(8, '0')}`;
  return { id: `ws_${id}_${call}`, type: 'web_search_call', status: 'completed', action: { type: 'search', query: 'filler', sources: [] } };
}

function statusOf(finishReason: EmulatedChoice['finishReason']): 'completed' | 'incomplete' {
  return finishReason === 'length' ? 'incomplete' : 'completed';
}

/** How far a response has come. */
export type ResponseState =
  | { readonly status: 'in_progress' }
  | { readonly status: 'completed' | 'incomplete'; readonly output: readonly OutputItem[]; readonly completedUnix: number; readonly usage: unknown }
  | { readonly status: 'failed'; readonly error: { readonly code: string; readonly message: string } };

export function endOf(answer: EmulatedAnswer): 'completed' | 'incomplete' {
  return statusOf(answer.choices[0]!.finishReason);
}

export function responseObject(stamp: AnswerStamp, request: ResponseRequest, state: ResponseState): Record<string, unknown> {
  const { body, model } = request;
  const ended = 'output' in state;
  return {
    created_at: stamp.createdUnix,
    completed_at: ended ? state.completedUnix : null,
    id: stamp.id,
    max_output_tokens: body.max_output_tokens ?? null,
    model: model.id,
    object: 'response',
    output: ended ? state.output : [],
    parallel_tool_calls: body['parallel_tool_calls'] ?? true,
    previous_response_id: body.previous_response_id ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: body.reasoning?.summary ?? null },
    temperature: body['temperature'] ?? 1,
    top_p: body['top_p'] ?? 1,
    text: { format: body.text?.format ?? { type: 'text' } },
    tool_choice: body['tool_choice'] ?? 'auto',
    tools: body.tools ?? [],
    ...(ended && state.usage !== undefined && { usage: state.usage }),
    user: body['user'] ?? null,
    incomplete_details: state.status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    status: state.status,
    store: request.store,
    metadata: {},
    background: false,
    service_tier: serviceTier(request),
    truncation: 'disabled',
    top_logprobs: 0,
    presence_penalty: 0,
    frequency_penalty: 0,
    prompt_cache_key: body.prompt_cache_key ?? null,
    max_tool_calls: null,
    safety_identifier: body['safety_identifier'] ?? null,
    error: state.status === 'failed' ? state.error : null,
    instructions: body.instructions ?? null,
  };
}
