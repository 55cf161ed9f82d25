import type { FastifyReply } from 'fastify';
import type { Model } from '../../catalogue/catalogue.ts';
import { NO_COST, type Candidate, type CostFacts, type Plan } from '../../cost/plan.ts';
import type { AnswerReader } from '../../provider/answer-reader.ts';
import { ChatAssembly } from '../../provider/chat-assembly.ts';
import { ChatStreamReader } from '../../provider/chat-stream.ts';
import type { UpstreamRequest } from '../../provider/grok-client.ts';
import { PlainAnswer, StreamedAnswer, type Assembly, type CompletionAnswer, type Flow } from '../completion-answer.ts';
import type { Opening } from '../conversation.ts';
import type { RequestedCall } from '../requested-call.ts';
import type { CompletionRequest, ParsedCompletion } from './chat-request.ts';
import { withMembers } from '../../shared/json-members.ts';
import { assertEffort, assertModelTakes, assertOwnTools, defaultMembers, imageBytes, isImagePart, isPriority, unsupported, type Defaults } from './model-fit.ts';

/** `POST /v1/chat/completions`. */
export class ChatCall implements RequestedCall {
  readonly storage = 'none';
  readonly deployment = undefined;

  constructor(
    protected readonly parsed: ParsedCompletion,
    private readonly defaults: Defaults,
  ) {}

  get body(): Buffer {
    return this.parsed.body;
  }

  get identity(): Buffer {
    return withMembers(this.parsed.body, this.parsed.members, new Map([['stream', undefined], ['stream_options', undefined]]));
  }

  get model(): string | undefined {
    return this.parsed.request.model ?? undefined;
  }

  get stream(): boolean {
    return this.parsed.request.stream === true;
  }

  get capabilities(): string[] {
    const { messages, tools, response_format: format } = this.parsed.request;
    const capabilities = ['text'];
    if (messages.some(({ content }) => Array.isArray(content) && content.some(isImagePart))) capabilities.push('image_input');
    if ((tools?.length ?? 0) > 0) capabilities.push('function_calling');
    if (format?.type === 'json_schema' || format?.type === 'json_object') capabilities.push('structured_output');
    return capabilities;
  }

  /** The last words of the user's: what came before is context. */
  get question(): string {
    const { messages } = this.parsed.request;
    const last = messages.findLast(({ role }) => role === 'user') ?? messages.at(-1)!;
    return textOf(last.content);
  }

  get opening(): Opening {
    const { messages } = this.parsed.request;
    return {
      key: promptCacheKey(this.parsed.request),
      parts: () => {
        const at = messages.findIndex(({ role }) => role !== 'system' && role !== 'developer');
        return { instructions: (at === -1 ? messages : messages.slice(0, at)).map(({ content }) => content), first: at === -1 ? '' : messages[at]!.content };
      },
    };
  }

  costFacts(model: Model): CostFacts {
    const { body, request } = this.parsed;
    assertModelTakes(model, 'chat_completions', request);
    assertEffort(model, request.reasoning_effort ?? undefined, 'reasoning_effort');
    assertOwnTools(request.tools);
    if (request.deferred === true) throw unsupported('deferred', 'Deferred completions are not offered here. Leave it out.');
    const images = imageFacts(request);
    return {
      ...NO_COST,
      // Every byte of the body, keys and quotes included, but for images, which are not read as text.
      textBytes: body.length - images.bytes,
      images: images.count,
      maxOutputTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
      choices: request.n ?? 1,
      reasoningEffort: request.reasoning_effort ?? undefined,
      priority: isPriority(request.service_tier),
    };
  }

  /** The caller's bytes with the few members that the gateway decides: model, stream, output cap, and defaults for what the caller left out. */
  upstream(plan: Plan, { model, upstreamModel }: Pick<Candidate, 'model' | 'upstreamModel'>, conversation: string | undefined): Omit<UpstreamRequest, 'conversationId'> {
    const { body, members, request } = this.parsed;
    const { temperature, topP, frequencyPenalty, presencePenalty } = this.defaults;
    const replacements = new Map<string, string | undefined>([
      ['model', JSON.stringify(upstreamModel)],
      // Always streamed, whatever the caller wants: only so is a hang-up noticed, and the price known as soon as it exists.
      ['stream', 'true'],
      ['stream_options', JSON.stringify({ ...request.stream_options, include_usage: true })],
      ['max_tokens', undefined],
      ['max_completion_tokens', String(plan.maxOutputTokens)],
      ...defaultMembers(request, model, { temperature: plan.temperature ?? temperature, top_p: topP, frequency_penalty: frequencyPenalty, presence_penalty: presencePenalty }),
    ]);
    // The caller's own key would be shared with other tenants that happen to choose the same.
    if (promptCacheKey(request) !== undefined) replacements.set('prompt_cache_key', conversation === undefined ? undefined : JSON.stringify(conversation));
    return { method: 'POST', path: '/chat/completions', body: withMembers(body, members, replacements), accept: 'events' };
  }

  reader({ choices }: Pick<Plan, 'choices'>): AnswerReader {
    return new ChatStreamReader(choices, !this.stream || this.parsed.request.stream_options?.include_usage === true);
  }

  answer(reply: FastifyReply, flow: Flow, headers: () => Readonly<Record<string, string>>): CompletionAnswer {
    return this.stream ? new StreamedAnswer(reply, flow, headers) : new PlainAnswer(reply, () => this.assembly());
  }

  assembly(): Assembly {
    return new ChatAssembly();
  }

  /** One chunk with all of each choice, one with its end, then the usage where it is asked for. */
  asStream(whole: Record<string, unknown>): Buffer {
    const { choices, usage, ...envelope } = whole as { choices: { index: number; message: Record<string, unknown>; logprobs?: unknown; finish_reason?: string }[]; usage?: unknown };
    const chunk = (more: object): string => `data: ${JSON.stringify({ ...envelope, object: 'chat.completion.chunk', ...more })}\n\n`;
    const withUsage = this.parsed.request.stream_options?.include_usage === true && usage !== undefined;
    return Buffer.from([
      ...choices.map(({ index, message, logprobs }) => chunk({ choices: [{ index, delta: deltaOf(message), ...(logprobs === undefined ? {} : { logprobs }) }] })),
      ...choices.map(({ index, finish_reason: reason }) => chunk({ choices: [{ index, delta: {}, finish_reason: reason }] })),
      ...(withUsage ? [chunk({ choices: [], usage })] : []), 'data: [DONE]\n\n',
    ].join(''));
  }

  stored(): undefined {
    return undefined;
  }
}

/** A whole message as one delta, in which tool calls are told apart by their index. */
function deltaOf({ refusal, tool_calls: calls, ...message }: Record<string, unknown>): Record<string, unknown> {
  return {
    ...message, ...(refusal === null || refusal === undefined ? {} : { refusal }),
    ...(Array.isArray(calls) ? { tool_calls: calls.map((call: object, index) => ({ index, ...call })) } : {}),
  };
}

function imageFacts(request: CompletionRequest): { count: number; bytes: number } {
  const images = { count: 0, bytes: 0 };
  request.messages.forEach((message, index) => {
    if (!Array.isArray(message.content)) return;
    for (const part of message.content as { type: string; image_url?: unknown }[]) {
      if (part.type === 'text' || part.type === 'input_text' || part.type === 'refusal') continue;
      if (!isImagePart(part)) throw unsupported(`messages[${index}].content`, `Content of type "${part.type.slice(0, 64)}" has no price ceiling, so it cannot be sent.`);
      images.count += 1;
      images.bytes += imageBytes(part, `messages[${index}].content`);
    }
  });
  return images;
}

function textOf(content: CompletionRequest['messages'][number]['content']): string {
  if (!Array.isArray(content)) return content ?? '';
  return content.map(({ text }) => (typeof text === 'string' ? text : '')).join('\n');
}

function promptCacheKey(request: object): unknown {
  return (request as { prompt_cache_key?: unknown }).prompt_cache_key;
}
