import type { FastifyReply } from 'fastify';
import type { Model } from '../../catalogue/catalogue.ts';
import { NO_COST, type Candidate, type CostFacts, type Plan } from '../../cost/plan.ts';
import type { AnswerReader } from '../../provider/answer-reader.ts';
import type { UpstreamRequest } from '../../provider/grok-client.ts';
import { ResponseAssembly, ResponseStreamReader } from '../../provider/response-stream.ts';
import { PlainAnswer, StreamedAnswer, type Assembly, type CompletionAnswer, type Flow } from '../completion-answer.ts';
import type { Opening } from '../conversation.ts';
import type { RequestedCall } from '../requested-call.ts';
import type { StoredChange, StoredResponse } from '../stored-responses.ts';
import { withMembers } from '../../shared/json-members.ts';
import { assertEffort, assertModelTakes, assertOwnTools, defaultMembers, imageBytes, isImagePart, isPriority, unsupported, type Defaults } from './model-fit.ts';
import type { ParsedRequest } from './request-schema.ts';
import { responseEvents } from './response-events.ts';
import type { InputItem, InputPart, ResponseRequest } from './response-request.ts';

/** Items that are text all through, whose bytes say what they cost. Others stand for something that the provider would look up. */
const TEXT_ITEMS = ['message', 'function_call', 'function_call_output', 'reasoning'];
const TEXT_PARTS = ['input_text', 'output_text', 'text', 'refusal', 'summary_text', 'reasoning_text'];

/** `POST /v1/responses`. */
export class ResponseCall implements RequestedCall {
  constructor(
    private readonly parsed: ParsedRequest<ResponseRequest>,
    /** The stored response that it continues. */
    private readonly previous: StoredResponse | undefined,
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

  get storage(): RequestedCall['storage'] {
    const { store } = this.parsed.request;
    return store === true ? 'required' : store === false ? 'none' : 'if_allowed';
  }

  get deployment(): string | undefined {
    return this.previous?.deployment;
  }

  get capabilities(): string[] {
    const { input, tools, text } = this.parsed.request;
    const capabilities = ['text'];
    if (Array.isArray(input) && input.some((item) => partsOf(item).some(isImagePart))) capabilities.push('image_input');
    if ((tools?.length ?? 0) > 0) capabilities.push('function_calling');
    if (text?.format?.type === 'json_schema' || text?.format?.type === 'json_object') capabilities.push('structured_output');
    return capabilities;
  }

  /** The last words of the user's. */
  get question(): string {
    const { input } = this.parsed.request;
    if (typeof input === 'string') return input;
    const last = input.findLast(({ role }) => role === 'user') ?? input.at(-1)!;
    return typeof last.content === 'string' ? last.content : partsOf(last).map(({ text }) => (typeof text === 'string' ? text : '')).join('\n');
  }

  /** What continues a stored response has to go where that is, and is recognized there. */
  get opening(): Opening | undefined {
    const { prompt_cache_key: key, instructions, input } = this.parsed.request;
    if (this.previous !== undefined) return undefined;
    return {
      key,
      parts: () => {
        if (typeof input === 'string') return { instructions: [instructions], first: input };
        const at = input.findIndex(({ role }) => role !== 'system' && role !== 'developer');
        return { instructions: [instructions, ...(at === -1 ? input : input.slice(0, at)).map(({ content }) => content)], first: at === -1 ? '' : input[at]!.content };
      },
    };
  }

  costFacts(model: Model): CostFacts {
    const { body, request } = this.parsed;
    assertModelTakes(model, 'responses', request);
    assertEffort(model, this.#effort, request.reasoning?.effort === undefined ? 'reasoning_effort' : 'reasoning.effort');
    assertOwnTools(request.tools);
    const images = imageFacts(request.input);
    return {
      ...NO_COST,
      textBytes: body.length - images.bytes,
      storedTokens: this.previous?.contextTokens ?? 0,
      images: images.count,
      maxOutputTokens: model.refuses.includes('max_output_tokens') ? 'uncapped' : (request.max_output_tokens ?? undefined),
      reasoningEffort: this.#effort,
      priority: isPriority(request.service_tier),
    };
  }

  upstream(plan: Plan, { model, upstreamModel }: Pick<Candidate, 'model' | 'upstreamModel'>, conversation: string | undefined, store: boolean): Omit<UpstreamRequest, 'conversationId'> {
    const { body, members, request } = this.parsed;
    const { temperature, topP } = this.defaults;
    const replacements = new Map<string, string | undefined>([
      ['model', JSON.stringify(upstreamModel)],
      // Always streamed, as chat completions are, and for the same reasons.
      ['stream', 'true'],
      // The provider keeps answers unless told otherwise.
      ['store', String(store)],
      ['max_output_tokens', model.refuses.includes('max_output_tokens') ? undefined : String(plan.maxOutputTokens)],
      // The provider finds the conversation's server by this name; the caller's own would be shared with tenants that choose the same.
      ['prompt_cache_key', conversation === undefined ? undefined : JSON.stringify(conversation)],
      ...defaultMembers(request, model, { temperature: plan.temperature ?? temperature, top_p: topP }),
    ]);
    return { method: 'POST', path: '/responses', body: withMembers(body, members, replacements), accept: 'events' };
  }

  reader(): AnswerReader {
    return new ResponseStreamReader();
  }

  answer(reply: FastifyReply, flow: Flow, headers: () => Readonly<Record<string, string>>): CompletionAnswer {
    return this.stream ? new StreamedAnswer(reply, flow, headers) : new PlainAnswer(reply, () => this.assembly());
  }

  assembly(): Assembly {
    return new ResponseAssembly();
  }

  asStream(whole: Record<string, unknown>): Buffer {
    return responseEvents(whole);
  }

  stored({ storedId, billed, outputTokensSeen }: AnswerReader, { name, deployment }: Candidate): StoredChange | undefined {
    if (storedId === undefined) return undefined;
    // Reasoning is not read again, but whether it is kept nobody says.
    const contextTokens = billed === undefined ? (this.previous?.contextTokens ?? 0) + this.parsed.body.length + outputTokensSeen : billed.inputTokens + billed.outputTokens + billed.reasoningTokens;
    return { kind: 'keep', id: storedId, model: name, deployment: deployment.id, contextTokens };
  }

  get #effort(): string | undefined {
    const { reasoning, reasoning_effort: effort } = this.parsed.request;
    return (reasoning === undefined || reasoning === null ? effort : reasoning.effort) ?? undefined;
  }
}

function imageFacts(input: ResponseRequest['input']): { count: number; bytes: number } {
  const images = { count: 0, bytes: 0 };
  if (typeof input === 'string') return images;
  for (const [index, item] of input.entries()) {
    // Without a type it is a message, or, where it has no role either, the short form of a reference.
    const type = item.type ?? (item.role === undefined ? 'item_reference' : 'message');
    if (!TEXT_ITEMS.includes(type)) throw unsupported(`input[${index}].type`, `Input of type "${type.slice(0, 64)}" has no price ceiling, so it cannot be sent.`);
    for (const part of partsOf(item)) {
      if (TEXT_PARTS.includes(part.type)) continue;
      if (!isImagePart(part)) throw unsupported(`input[${index}].content`, `Content of type "${part.type.slice(0, 64)}" has no price ceiling, so it cannot be sent.`);
      images.count += 1;
      images.bytes += imageBytes(part, `input[${index}].content`);
    }
  }
  return images;
}

function partsOf({ content, output }: InputItem): InputPart[] {
  return [content, output].flatMap((list) => (Array.isArray(list) ? list : []));
}
