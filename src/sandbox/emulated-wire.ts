import type { EmulatedAnswer, EmulatedToolCall } from './emulated-answer.ts';
import { overloaded } from './emulated-errors.ts';
import type { ContentFrame, FrameSource } from './emulated-frames.ts';
import { systemFingerprint } from './emulated-models.ts';
import type { ChatRequest, GenerationRequest } from './emulated-request.ts';
import { frameEndOf } from './emulated-script.ts';
import type { AnswerStamp } from './emulated-service.ts';

// The provider's answers as they look on the wire. Keys that do not apply are left out; only `refusal` is null.

/** The whole answer to a call without `stream`. */
export function plainBody(stamp: AnswerStamp, request: ChatRequest, answer: EmulatedAnswer, usage: unknown): string {
  return JSON.stringify({
    id: stamp.id,
    object: 'chat.completion',
    created: stamp.createdUnix,
    model: request.model.id,
    choices: answer.choices.map((choice, index) => ({
      index,
      message: {
        role: 'assistant',
        content: choice.tokens.join(''),
        ...(choice.toolCall !== undefined && { tool_calls: [wireToolCall(choice.toolCall)] }),
        refusal: null,
      },
      finish_reason: choice.finishReason,
    })),
    ...(usage !== undefined && { usage }),
    system_fingerprint: systemFingerprint(request.model),
    service_tier: serviceTier(request),
  });
}

function wireToolCall({ id, name, arguments: args }: EmulatedToolCall) {
  return { id, function: { name, arguments: args }, type: 'function' };
}

export function serviceTier(request: Pick<GenerationRequest, 'priority'>): string {
  return request.priority ? 'priority' : 'default';
}

/** Writes the frames of one stream: what all its chunks share is put together once. */
export class FrameWriter<Request extends ChatRequest = ChatRequest> implements FrameSource {
  protected readonly request: Request;
  private readonly answer: EmulatedAnswer;
  private readonly usage: (() => unknown) | undefined;
  private readonly head: string;
  private readonly tail: string;
  private readonly frameEnd: string;
  private readonly contentCharacters: number;

  /** @param usage for a chunk of its own, where there is one */
  constructor(stamp: AnswerStamp, request: Request, answer: EmulatedAnswer, usage?: () => unknown, object = 'chat.completion.chunk') {
    this.answer = answer;
    this.request = request;
    this.usage = usage;
    this.frameEnd = frameEndOf(request.script);
    this.contentCharacters = request.script.frame_bytes ?? 0;
    const shared = JSON.stringify({ id: stamp.id, object, created: stamp.createdUnix, model: request.model.id });
    this.head = `data: ${shared.slice(0, -1)},"choices":[`;
    this.tail = `,"system_fingerprint":"${systemFingerprint(request.model)}","service_tier":"${serviceTier(request)}"}${this.frameEnd}`;
  }

  openingFrames(): readonly string[] {
    return [];
  }

  /** The output of all choices in the order of its generation. The first frame of each choice has the role together with its first token. */
  *contentFrames(): Generator<ContentFrame, void, void> {
    const { choices, stepCount } = this.answer;
    for (const [index, choice] of choices.entries()) {
      if (choice.toolCall !== undefined) {
        const text = this.frame(index, this.toolCallDelta(choice.toolCall));
        yield { text, frames: 1, tokens: choice.completionTokens, step: Math.max(0, choice.completionTokens - 1) };
      } else if (choice.tokens.length === 0) {
        yield { text: this.frame(index, this.textDelta(index, '', true)), frames: 1, tokens: 0, step: 0 };
      }
    }
    for (let step = 0; step < stepCount; step++) {
      for (let index = 0; index < choices.length; index++) {
        const token = choices[index]!.tokens[step];
        if (token !== undefined) yield { text: this.frame(index, this.textDelta(index, token, step === 0)), frames: 1, tokens: 1, step };
      }
    }
  }

  /** Says why each choice has ended, in a frame per choice, whose earlier frames have no `finish_reason` at all; then what it costs. */
  closingFrames(): string[] {
    const finish = this.answer.choices.map(({ finishReason }, index) => this.frame(index, `${this.noDelta()},"finish_reason":"${finishReason}"`));
    return this.usage === undefined ? finish : [...finish, `${this.head}],"usage":${JSON.stringify(this.usage())}${this.tail}`];
  }

  errorFrame(): string {
    const { message } = overloaded(503);
    const nested = { error: { message, type: 'server_error', code: 'service_unavailable' } };
    return `data: ${JSON.stringify(this.request.script.error_shape === 'nested' ? nested : overloaded(503).body('sentence'))}${this.frameEnd}`;
  }

  /** What a choice says in one frame, as a member of its JSON. */
  protected textDelta(_index: number, token: string, first: boolean): string {
    const content = this.paddedJson(token);
    return first ? `"delta":{"content":${content},"role":"assistant"}` : `"delta":{"content":${content}}`;
  }

  protected noDelta(): string {
    return '"delta":{}';
  }

  protected paddedJson(token: string): string {
    return JSON.stringify(this.contentCharacters > 0 ? token.padEnd(this.contentCharacters) : token);
  }

  /** Never in pieces: the provider sends a tool call when it is complete. */
  private toolCallDelta(call: EmulatedToolCall): string {
    return `"delta":${JSON.stringify({ content: '', role: 'assistant', tool_calls: [{ index: 0, ...wireToolCall(call) }] })}`;
  }

  private frame(index: number, said: string): string {
    return `${this.head}{"index":${index},${said}}]${this.tail}`;
  }
}
