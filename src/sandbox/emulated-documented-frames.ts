import type { EmulatedAnswer } from './emulated-answer.ts';
import type { GeneratedTokens } from './emulated-call.ts';
import type { ContentFrame, FrameSource } from './emulated-frames.ts';

const DATA = 'data: ';

/** The chunks of a chat as the documentation prints them, unlike any recording: each with the role, and with the usage so far. */
export class DocumentedFrames implements FrameSource {
  private readonly recorded: FrameSource;
  private readonly answer: EmulatedAnswer;
  private readonly usageAfter: (generated: GeneratedTokens) => unknown;

  constructor(recorded: FrameSource, answer: EmulatedAnswer, usageAfter: (generated: GeneratedTokens) => unknown) {
    this.recorded = recorded;
    this.answer = answer;
    this.usageAfter = usageAfter;
  }

  openingFrames(): readonly string[] {
    return this.recorded.openingFrames();
  }

  *contentFrames(): Generator<ContentFrame, void, void> {
    let completionTokens = 0;
    for (const frame of this.recorded.contentFrames()) {
      completionTokens += frame.tokens;
      yield { ...frame, text: this.documented(frame.text, { completionTokens, reasoningTokens: this.answer.reasoningTokens }) };
    }
  }

  closingFrames(): string[] {
    return this.recorded.closingFrames().map((frame) => this.documented(frame, this.answer));
  }

  errorFrame(framesSent: number): string {
    return this.recorded.errorFrame(framesSent);
  }

  private documented(frame: string, generated: GeneratedTokens): string {
    const json = frame.trimEnd();
    const { choices, usage, system_fingerprint, service_tier, ...head } = JSON.parse(json.slice(DATA.length)) as Record<string, unknown> & { choices: { delta: object }[] };
    const withRole = choices.map((choice) => ({ ...choice, delta: { ...choice.delta, role: 'assistant' } }));
    const chunk = { ...head, choices: withRole, usage: usage ?? this.usageAfter(generated), system_fingerprint, service_tier };
    return DATA + JSON.stringify(chunk) + frame.slice(json.length);
  }
}
