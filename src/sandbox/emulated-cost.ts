import type { GeneratedTokens } from './emulated-call.ts';
import { costInUsdTicks } from './emulated-price.ts';
import type { GenerationRequest } from './emulated-request.ts';
import { serverToolFeesTicks } from './emulated-server-tools.ts';
import type { CallContext } from './emulated-service.ts';

/** The cache belongs to a conversation, named by a header or by the body. Keys of different accounts never share it. */
export function cachedTokensOf({ service, headers, apiKey }: CallContext, request: GenerationRequest, named: string | undefined): number {
  const conversation = headers['x-grok-conv-id'] ?? named;
  return conversation === undefined ? 0 : service.cache.take(JSON.stringify([apiKey, request.model.id, conversation]), request.segments);
}

export function textCost({ model, promptTokens, priority, script }: GenerationRequest, cachedTokens: number): (generated: GeneratedTokens) => bigint {
  const fees = serverToolFeesTicks(script.server_tool_calls);
  return ({ completionTokens, reasoningTokens }) =>
    costInUsdTicks(model.prices, { promptTokens: promptTokens.total, cachedTokens, completionTokens, reasoningTokens }, priority) + fees;
}
