import type { EmulatedAnswer, EmulatedChoice, EmulatedToolCall } from './emulated-answer.ts';
import { systemFingerprint } from './emulated-models.ts';
import type { ChatRequest } from './emulated-request.ts';

// The provider's answers as they look on the wire. Keys that do not apply are left out; only `refusal` is null.

export interface AnswerStamp {
  readonly id: string;
  readonly createdUnix: number;
}

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

function serviceTier(request: ChatRequest): string {
  return request.priority ? 'priority' : 'default';
}

/** A frame that carries output. */
export interface ContentFrame {
  readonly text: string;
  readonly tokens: number;
  /** The step of the generation with which it is complete. */
  readonly step: number;
}

/** Writes the frames of one stream: what all its chunks share is put together once. */
export class FrameWriter {
  private readonly head: string;
  private readonly tail: string;
  private readonly frameEnd: string;
  private readonly contentCharacters: number;

  constructor(stamp: AnswerStamp, request: ChatRequest) {
    this.frameEnd = request.script.crlf ? '\r\n\r\n' : '\n\n';
    this.contentCharacters = request.script.frame_bytes ?? 0;
    const shared = JSON.stringify({ id: stamp.id, object: 'chat.completion.chunk', created: stamp.createdUnix, model: request.model.id });
    this.head = `data: ${shared.slice(0, -1)},"choices":[`;
    this.tail = `,"system_fingerprint":"${systemFingerprint(request.model)}","service_tier":"${serviceTier(request)}"}${this.frameEnd}`;
  }

  /** The output of all choices in the order of its generation. The first frame of each choice has the role together with its first token. */
  *contentFrames(answer: EmulatedAnswer): Generator<ContentFrame, void, void> {
    for (const [index, choice] of answer.choices.entries()) {
      if (choice.toolCall !== undefined) {
        yield { text: this.delta(index, this.toolCallDelta(choice.toolCall)), tokens: choice.completionTokens, step: Math.max(0, choice.completionTokens - 1) };
      } else if (choice.tokens.length === 0) {
        yield { text: this.delta(index, this.textDelta('', true)), tokens: 0, step: 0 };
      }
    }
    for (let step = 0; step < answer.stepCount; step++) {
      for (let index = 0; index < answer.choices.length; index++) {
        const token = answer.choices[index]!.tokens[step];
        if (token !== undefined) yield { text: this.delta(index, this.textDelta(token, step === 0)), tokens: 1, step };
      }
    }
  }

  /** Says why each choice has ended; a frame per choice, whose earlier frames have no `finish_reason` at all. */
  finishFrames(choices: readonly EmulatedChoice[]): string[] {
    return choices.map(({ finishReason }, index) => `${this.head}{"index":${index},"delta":{},"finish_reason":"${finishReason}"}]${this.tail}`);
  }

  usageFrame(usage: unknown): string {
    return `${this.head}],"usage":${JSON.stringify(usage)}${this.tail}`;
  }

  doneFrame(): string {
    return `data: [DONE]${this.frameEnd}`;
  }

  errorFrame(body: unknown): string {
    return `data: ${JSON.stringify(body)}${this.frameEnd}`;
  }

  private delta(index: number, delta: string): string {
    return `${this.head}{"index":${index},"delta":${delta}}]${this.tail}`;
  }

  private textDelta(token: string, first: boolean): string {
    const content = JSON.stringify(this.contentCharacters > 0 ? token.padEnd(this.contentCharacters) : token);
    return first ? `{"content":${content},"role":"assistant"}` : `{"content":${content}}`;
  }

  /** Never in pieces: the provider sends a tool call when it is complete. */
  private toolCallDelta(call: EmulatedToolCall): string {
    return JSON.stringify({ content: '', role: 'assistant', tool_calls: [{ index: 0, ...wireToolCall(call) }] });
  }
}
