import { planAnswer, type EmulatedAnswer } from './emulated-answer.ts';
import type { Generation, Work } from './emulated-call.ts';
import { cachedTokensOf, textCost } from './emulated-cost.ts';
import { unknownResponse } from './emulated-errors.ts';
import { ResponseFrames } from './emulated-response-frames.ts';
import type { InputItem } from './emulated-response-items.ts';
import { readResponseRequest, type ResponseRequest } from './emulated-response-request.ts';
import type { ResponseStore, StoredResponse } from './emulated-response-store.ts';
import { endOf, outputItems, responseObject } from './emulated-response-wire.ts';
import { serverToolCount, serverToolUsage } from './emulated-server-tools.ts';
import type { CallContext } from './emulated-service.ts';

/** POST /v1/responses */
export function respond(context: CallContext): Work {
  const request = readResponseRequest(context);
  const { model, script, promptTokens } = request;
  return { modelId: model.id, script, promptTokens: promptTokens.total, generate: () => generateResponse(context, request) };
}

function generateResponse(context: CallContext, request: ResponseRequest): Generation {
  const { service, stamp } = context;
  const rootId = request.previous?.rootId ?? stamp.id;
  const answer = planAnswer(request, service.random);
  const cachedTokens = cachedTokensOf(context, request, request.cacheKey ?? (request.store ? rootId : request.previous?.rootId));
  const costTicks = textCost(request, cachedTokens);
  const output = outputItems(stamp, request, answer);
  const ended = once(() => responseObject(stamp, request, {
    status: endOf(answer), output,
    completedUnix: Math.floor(service.nowMs() / 1000),
    usage: request.script.no_usage ? undefined : responseUsage(request, answer, cachedTokens, costTicks(answer)),
  }));
  return {
    answer, costTicks,
    plainBody: () => JSON.stringify(ended()),
    frames: request.stream ? new ResponseFrames(stamp, request, answer, output, ended) : undefined,
    completed: () => {
      if (!request.store) return;
      const { inputItems } = request;
      service.responses.keep({ id: stamp.id, createdAtMs: service.nowMs(), response: ended(), inputItems, context: [...request.context, ...output], rootId });
    },
  };
}

/** On this endpoint, output includes reasoning. */
function responseUsage({ promptTokens, script }: ResponseRequest, { completionTokens, reasoningTokens }: EmulatedAnswer, cachedTokens: number, costTicks: bigint): unknown {
  const outputTokens = completionTokens + reasoningTokens;
  return script.usage ?? {
    input_tokens: promptTokens.total,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: promptTokens.total + outputTokens,
    num_sources_used: 0,
    num_server_side_tools_used: serverToolCount(script.server_tool_calls),
    ...serverToolUsage(script.server_tool_calls),
    cost_in_usd_ticks: script.cost_usd_ticks ?? Number(costTicks),
  };
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

/** GET /v1/responses/{id} @throws EmulatedRefusal 404 */
export function storedResponse(store: ResponseStore, id: string): unknown {
  return found(store, id).response;
}

/** DELETE /v1/responses/{id} @throws EmulatedRefusal 404 */
export function deleteResponse(store: ResponseStore, id: string): unknown {
  if (!store.delete(id)) throw unknownResponse(id);
  return { id, object: 'response', deleted: true };
}

const LIST_DEFAULT = 20;
const LIST_MAX = 100;

/** GET /v1/responses/{id}/input_items @throws EmulatedRefusal 404 */
export function listInputItems(store: ResponseStore, id: string, query: URLSearchParams): unknown {
  const { inputItems } = found(store, id);
  const ordered: readonly InputItem[] = query.get('order') === 'desc' ? inputItems.toReversed() : inputItems;
  const start = query.has('after') ? ordered.findIndex((item) => item['id'] === query.get('after')) + 1 : 0;
  const limit = Math.min(LIST_MAX, Math.max(1, Number(query.get('limit') ?? LIST_DEFAULT) || LIST_DEFAULT));
  const data = ordered.slice(start, start + limit);
  return { object: 'list', data, first_id: data[0]?.['id'] ?? null, last_id: data.at(-1)?.['id'] ?? null, has_more: start + limit < ordered.length };
}

function found(store: ResponseStore, id: string): StoredResponse {
  const stored = store.find(id);
  if (stored === undefined) throw unknownResponse(id);
  return stored;
}
