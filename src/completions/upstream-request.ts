import type { Model } from '../catalogue/catalogue.ts';
import type { Candidate, CostFacts, Plan } from '../cost/plan.ts';
import type { Env } from '../env.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { CompletionRequest, ParsedRequest } from './completion-request.ts';
import { withMembers } from './json-members.ts';

type Defaults = Env['defaults'];

/** Names under which xAI knows its dearer, faster service. */
const PRIORITY_TIERS = ['priority', 'fast'];

/**
 * What of a request decides its cost.
 *
 * @throws {GatewayError} `unsupported_parameter` for what the model refuses, and for input that has no price ceiling
 */
export function costFacts({ body, request }: ParsedRequest, model: Model): CostFacts {
  assertSupported(request, model);
  const images = imageFacts(request);
  return {
    // Every byte of the body, keys and quotes included, but for images, which are not read as text.
    textBytes: body.length - images.bytes,
    images: images.count,
    maxOutputTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
    choices: request.n ?? 1,
    reasoningEffort: request.reasoning_effort ?? undefined,
    priority: PRIORITY_TIERS.includes(request.service_tier ?? ''),
  };
}

/** What a request needs of a model, for policies. */
export function requestedCapabilities(request: CompletionRequest): string[] {
  const capabilities = ['text'];
  if (request.messages.some(({ content }) => Array.isArray(content) && content.some(isImage))) capabilities.push('image_input');
  if ((request.tools?.length ?? 0) > 0) capabilities.push('function_calling');
  if (request.response_format?.type === 'json_schema' || request.response_format?.type === 'json_object') capabilities.push('structured_output');
  return capabilities;
}

/** The caller's bytes with the few members that the gateway decides: model, stream, output cap, and defaults for what the caller left out. */
export function upstreamBody({ body, members, request }: ParsedRequest, plan: Plan, { model, upstreamModel }: Pick<Candidate, 'model' | 'upstreamModel'>, defaults: Defaults, conversation: string | undefined): Buffer {
  const replacements = new Map<string, string | undefined>([
    ['model', JSON.stringify(upstreamModel)],
    // Always streamed, whatever the caller wants: only so is a hang-up noticed, and the price known as soon as it exists.
    ['stream', 'true'],
    ['stream_options', JSON.stringify({ ...request.stream_options, include_usage: true })],
    ['max_tokens', undefined],
    ['max_completion_tokens', String(plan.maxOutputTokens)],
  ]);
  // The caller's own key would be shared with other tenants that happen to choose the same.
  if ((request as { prompt_cache_key?: unknown }).prompt_cache_key !== undefined) replacements.set('prompt_cache_key', conversation === undefined ? undefined : JSON.stringify(conversation));
  const addDefault = (name: 'temperature' | 'top_p' | 'frequency_penalty' | 'presence_penalty', value: number | undefined): void => {
    if (value !== undefined && (request[name] ?? undefined) === undefined && !model.refuses.includes(name)) replacements.set(name, String(value));
  };
  addDefault('temperature', defaults.temperature);
  addDefault('top_p', defaults.topP);
  addDefault('frequency_penalty', defaults.frequencyPenalty);
  addDefault('presence_penalty', defaults.presencePenalty);
  return withMembers(body, members, replacements);
}

/** Whether a model takes a request as it is. */
export function supports({ request }: ParsedRequest, model: Model): boolean {
  try {
    assertSupported(request, model);
    return true;
  } catch (error) {
    if (error instanceof GatewayError) return false;
    throw error;
  }
}

function assertSupported(request: CompletionRequest, model: Model): void {
  const given = (name: string): boolean => ((request as Record<string, unknown>)[name] ?? undefined) !== undefined;
  const refused = model.refuses.find(given);
  if (refused !== undefined) throw unsupported(refused, `The model ${model.id} does not take ${refused}. Leave it out.`);
  if (!model.endpoints.includes('chat_completions')) throw unsupported('model', `The model ${model.id} is not served on chat completions.`);
  const effort = request.reasoning_effort ?? undefined;
  if (effort !== undefined && !(model.reasoning?.efforts.includes(effort) ?? false)) {
    const efforts = model.reasoning?.efforts ?? [];
    throw unsupported('reasoning_effort', `The model ${model.id} takes ${efforts.length === 0 ? 'no reasoning_effort' : `reasoning_effort ${efforts.join(', ')}`}.`);
  }
  if (request.deferred === true) throw unsupported('deferred', 'Deferred completions are not offered here. Leave it out.');
  const serverSide = request.tools?.findIndex((tool) => tool.type !== 'function') ?? -1;
  if (serverSide !== -1) throw unsupported(`tools[${serverSide}].type`, 'Only tools of type "function" are offered: the provider’s own tools have no price ceiling.');
}

function imageFacts(request: CompletionRequest): { count: number; bytes: number } {
  const images = { count: 0, bytes: 0 };
  request.messages.forEach((message, index) => {
    if (!Array.isArray(message.content)) return;
    for (const part of message.content as { type: string; image_url?: unknown }[]) {
      if (part.type === 'text' || part.type === 'input_text' || part.type === 'refusal') continue;
      if (!isImage(part)) throw unsupported(`messages[${index}].content`, `Content of type "${part.type.slice(0, 64)}" has no price ceiling, so it cannot be sent.`);
      images.count += 1;
      const url = typeof part.image_url === 'string' ? part.image_url : (part.image_url as { url?: unknown } | undefined)?.url;
      if (typeof url === 'string') images.bytes += url.length;
    }
  });
  return images;
}

function isImage(part: { type: string }): boolean {
  return part.type === 'image_url' || part.type === 'input_image';
}

function unsupported(param: string, publicMessage: string): GatewayError {
  return new GatewayError('unsupported_parameter', { publicMessage, param });
}
