import { planAnswer, type EmulatedAnswer } from './emulated-answer.ts';
import type { GeneratedTokens, Generation, Work } from './emulated-call.ts';
import { cachedTokensOf, textCost } from './emulated-cost.ts';
import { DocumentedFrames } from './emulated-documented-frames.ts';
import type { FrameSource } from './emulated-frames.ts';
import { readChatRequest, type ChatRequest, type GenerationRequest } from './emulated-request.ts';
import { serverToolUsage } from './emulated-server-tools.ts';
import type { CallContext } from './emulated-service.ts';
import { FrameWriter, plainBody } from './emulated-wire.ts';

/** POST /v1/chat/completions */
export function chat(context: CallContext): Work {
  const request = readChatRequest(context);
  const { model, script, promptTokens } = request;
  return { modelId: model.id, script, promptTokens: promptTokens.total, deferred: request.deferred, generate: () => generateChat(context, request) };
}

function generateChat(context: CallContext, request: ChatRequest): Generation {
  const { service, stamp } = context;
  const answer = planAnswer(request, service.random);
  const cachedTokens = cachedTokensOf(context, request, request.cacheKey);
  const costTicks = textCost(request, cachedTokens);
  const usageAfter = (generated: GeneratedTokens) => chatUsage(request, generated, cachedTokens, costTicks(generated));
  const usage = request.script.no_usage ? undefined : () => usageAfter(answer);
  return {
    answer, costTicks,
    plainBody: () => plainBody(stamp, request, answer, usage?.()),
    frames: request.stream ? chatFrames(context, request, answer, usage && usageAfter) : undefined,
  };
}

function chatFrames({ service: { switches }, stamp }: CallContext, request: ChatRequest, answer: EmulatedAnswer, usageAfter: ((generated: GeneratedTokens) => unknown) | undefined): FrameSource {
  const inChunkOfItsOwn = usageAfter !== undefined && (request.includeUsage || switches.usageWithoutAsking);
  const frames = new FrameWriter(stamp, request, answer, inChunkOfItsOwn ? () => usageAfter(answer) : undefined);
  return switches.documentationStyle ? new DocumentedFrames(frames, answer, usageAfter ?? (() => undefined)) : frames;
}

export function chatUsage({ promptTokens, script }: GenerationRequest, generated: GeneratedTokens, cachedTokens: number, costTicks: bigint): unknown {
  const { completionTokens, reasoningTokens } = generated;
  return script.usage ?? {
    prompt_tokens: promptTokens.total,
    completion_tokens: completionTokens,
    total_tokens: promptTokens.total + completionTokens + reasoningTokens, // on this endpoint, completion excludes reasoning
    prompt_tokens_details: { text_tokens: promptTokens.total - promptTokens.image, audio_tokens: 0, image_tokens: promptTokens.image, cached_tokens: cachedTokens },
    completion_tokens_details: { reasoning_tokens: reasoningTokens, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
    num_sources_used: 0,
    ...serverToolUsage(script.server_tool_calls),
    cost_in_usd_ticks: script.cost_usd_ticks ?? Number(costTicks),
  };
}
