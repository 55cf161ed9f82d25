import type { FastifyReply } from 'fastify';
import { Type, type Static } from 'typebox';
import { ChatAssembly } from '../../provider/chat-assembly.ts';
import { parseChunk } from '../../provider/chat-stream.ts';
import { frameData, frameEnd } from '../../provider/sse-frames.ts';
import { PlainAnswer, StreamedAnswer, type Assembly, type CompletionAnswer, type Flow } from '../completion-answer.ts';
import { ChatCall } from './chat-call.ts';
import { parseCompletionRequest, type ParsedCompletion } from './chat-request.ts';
import { withMembers } from '../../shared/json-members.ts';
import { unsupported, type Defaults } from './model-fit.ts';
import { Anything, ModelName, Nullable, OPEN } from './open-schema.ts';
import { RequestSchema } from './request-schema.ts';

/**
 * A request of the old completions endpoint, which takes a prompt instead of messages.
 *
 * @see https://platform.openai.com/docs/api-reference/completions
 */
export const TextCompletionRequestSchema = Type.Object({
  model: ModelName,
  prompt: Type.Union([Type.String(), Type.Array(Type.String(), { minItems: 1, maxItems: 1 })], { description: 'A text; a list may have one' }),
  stream: Nullable(Type.Boolean()),
  stream_options: Nullable(Type.Object({ include_usage: Nullable(Type.Boolean()) }, OPEN)),
  max_tokens: Nullable(Type.Integer({ minimum: 1 })),
  temperature: Nullable(Type.Number({ minimum: 0, maximum: 2 })),
  top_p: Nullable(Type.Number({ minimum: 0, maximum: 1 })),
  n: Nullable(Type.Integer({ minimum: 1, maximum: 128 })),
  seed: Nullable(Type.Integer()),
  stop: Nullable(Type.Union([Type.String(), Type.Array(Type.String(), { maxItems: 8 })])),
  frequency_penalty: Nullable(Type.Number({ minimum: -2, maximum: 2 })),
  presence_penalty: Nullable(Type.Number({ minimum: -2, maximum: 2 })),
  echo: Nullable(Type.Boolean()), suffix: Anything('not offered'), best_of: Anything('not offered'), logprobs: Anything('not offered'), logit_bias: Anything('not offered'),
  user: Nullable(Type.String()),
}, OPEN);
type TextCompletionRequest = Static<typeof TextCompletionRequestSchema>;

const schema = new RequestSchema(TextCompletionRequestSchema, [{ key: 'prompt', entry: Type.String(), max: 1 }, { key: 'stop', entry: Type.String(), max: 8 }]);

/** What a chat cannot do; each with the value that asks for nothing. */
const NOT_OFFERED: readonly [keyof TextCompletionRequest, unknown][] = [['echo', false], ['suffix', ''], ['best_of', 1], ['logprobs', 0], ['logit_bias', undefined]];

/** `POST /v1/completions`: the prompt goes upstream as one user message, and the answer comes back in the old form. */
export class TextCompletionCall extends ChatCall {
  readonly #prompt: Buffer;

  /** @throws {GatewayError} `invalid_request`, `unsupported_parameter` */
  constructor(body: Buffer, defaults: Defaults) {
    super(asChat(body), defaults);
    this.#prompt = body;
  }

  override get body(): Buffer {
    return this.#prompt;
  }

  override answer(reply: FastifyReply, flow: Flow, headers: () => Readonly<Record<string, string>>): CompletionAnswer {
    return this.stream ? new StreamedAnswer(reply, flow, headers, asTextFrames) : new PlainAnswer(reply, () => this.assembly());
  }

  override assembly(): Assembly {
    return new TextAssembly();
  }

  override asStream(whole: Record<string, unknown>): Buffer {
    const { usage, ...chunk } = whole;
    const frames = [chunk, ...(this.parsed.request.stream_options?.include_usage === true && usage !== undefined ? [{ ...chunk, choices: [], usage }] : [])];
    return Buffer.from(`${frames.map((frame) => `data: ${JSON.stringify(frame)}\n\n`).join('')}data: [DONE]\n\n`);
  }
}

function asChat(body: Buffer): ParsedCompletion {
  const { members, request } = schema.parse(body);
  for (const [name, nothing] of NOT_OFFERED) {
    const value = request[name] ?? undefined;
    if (value !== undefined && value !== nothing) throw unsupported(name, `${name} is not offered: the prompt is sent as a chat, which has none. Leave it out.`);
  }
  const prompt = Array.isArray(request.prompt) ? request.prompt[0]! : request.prompt;
  return parseCompletionRequest(withMembers(body, members, new Map<string, string | undefined>([
    ['prompt', undefined], ...NOT_OFFERED.map(([name]) => [name, undefined] as const), ['messages', JSON.stringify([{ role: 'user', content: prompt }])],
  ])));
}

/** Chunks of a chat as those of a text completion. */
function asTextFrames(frames: Buffer): Buffer {
  const out: (Buffer | string)[] = [];
  for (let start = 0; start < frames.length; ) {
    const end = frameEnd(frames, start);
    const frame = frames.subarray(start, end);
    const data = frameData(frame);
    out.push(data === '' || data === '[DONE]' ? frame : `data: ${JSON.stringify(asTextChunk(parseChunk(data) as Record<string, unknown>))}\n\n`);
    start = end;
  }
  return Buffer.concat(out.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
}

function asTextChunk(chunk: Record<string, unknown>): Record<string, unknown> {
  const choices = (chunk['choices'] ?? []) as { index?: number; delta?: { content?: unknown }; finish_reason?: string | null }[];
  return {
    ...chunk, object: 'text_completion',
    choices: choices.map(({ index = 0, delta, finish_reason: reason }) => ({ index, text: typeof delta?.content === 'string' ? delta.content : '', logprobs: null, finish_reason: reason ?? null })),
  };
}

class TextAssembly extends ChatAssembly {
  override finish(usage: unknown): Record<string, unknown> {
    const { choices, ...rest } = super.finish(usage);
    return {
      ...rest, object: 'text_completion',
      choices: (choices as { index: number; message: { content: unknown }; finish_reason?: string }[]).map(({ index, message, finish_reason: reason }) => ({ index, text: message.content, logprobs: null, finish_reason: reason })),
    };
  }
}
