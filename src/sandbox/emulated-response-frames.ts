import type { EmulatedAnswer } from './emulated-answer.ts';
import { overloaded } from './emulated-errors.ts';
import type { ContentFrame, FrameSource } from './emulated-frames.ts';
import type { ResponseRequest } from './emulated-response-request.ts';
import { endOf, responseObject, summaryPart, textPart, type OutputItem } from './emulated-response-wire.ts';
import { frameEndOf } from './emulated-script.ts';
import type { AnswerStamp } from './emulated-service.ts';
import { splitTokens } from './emulated-tokens.ts';

/** The events of one streamed response, in the recorded order. Their numbers are their places among all frames. */
export class ResponseFrames implements FrameSource {
  private readonly stamp: AnswerStamp;
  private readonly request: ResponseRequest;
  private readonly answer: EmulatedAnswer;
  private readonly items: readonly OutputItem[];
  /** The last of the items. */
  private readonly said: OutputItem;
  private readonly place: { readonly item_id: string; readonly output_index: number };
  private readonly whole: () => Record<string, unknown>;
  private readonly frameEnd: string;
  private readonly lineEnd: string;
  private sequence = 0;

  /** @param whole the response at its end */
  constructor(stamp: AnswerStamp, request: ResponseRequest, answer: EmulatedAnswer, items: readonly OutputItem[], whole: () => Record<string, unknown>) {
    this.stamp = stamp;
    this.request = request;
    this.answer = answer;
    this.items = items;
    this.said = items.at(-1)!;
    this.place = { item_id: this.said.id, output_index: items.length - 1 };
    this.whole = whole;
    this.frameEnd = frameEndOf(request.script);
    this.lineEnd = this.frameEnd.slice(this.frameEnd.length / 2);
  }

  openingFrames(): readonly string[] {
    const response = responseObject(this.stamp, this.request, { status: 'in_progress' });
    return [this.event('response.created', { response }), this.event('response.in_progress', { response })];
  }

  /** The first frame of the output brings along the events of what came before it: nothing is told of reasoning while it lasts. */
  contentFrames(): Iterable<ContentFrame> {
    const before = this.items.slice(0, -1).flatMap((item, index) => (item.type === 'reasoning' ? this.reasoningEvents(item, index) : this.searchEvents(item, index)));
    return this.said.type === 'message' ? this.textFrames(before) : this.argumentFrames(before);
  }

  closingFrames(): string[] {
    const { said, place } = this;
    const frames: string[] = [];
    if (said.type === 'message') {
      const [part] = said['content'] as [{ text: string }];
      frames.push(this.event('response.output_text.done', { ...place, content_index: 0, text: part.text, logprobs: [] }));
      frames.push(this.event('response.content_part.done', { ...place, content_index: 0, part }));
    } else {
      frames.push(this.event('response.function_call_arguments.done', { ...place, name: said['name'], arguments: said['arguments'] }));
    }
    frames.push(this.event('response.output_item.done', { output_index: place.output_index, item: said }));
    frames.push(this.event(`response.${endOf(this.answer)}`, { response: this.whole() }));
    return frames;
  }

  errorFrame(framesSent: number): string {
    this.sequence = framesSent; // what was prepared after that is not sent
    const { message } = overloaded(503);
    const code = 'The service is currently unavailable';
    switch (this.request.script.error_shape) {
      case 'nested':
        return `data: ${JSON.stringify({ error: { message, type: 'server_error', code: 'service_unavailable' } })}${this.frameEnd}`;
      case 'failed':
        return this.event('response.failed', { response: responseObject(this.stamp, this.request, { status: 'failed', error: { code, message } }) });
      default:
        return this.event('error', { code, message, param: null });
    }
  }
  private *textFrames(before: readonly string[]): Generator<ContentFrame, void, void> {
    const { place, lineEnd, frameEnd } = this;
    const opening = [
      ...before,
      this.event('response.output_item.added', { output_index: place.output_index, item: { ...this.said, status: 'in_progress', content: [] } }),
      this.event('response.content_part.added', { ...place, content_index: 0, part: textPart('') }),
    ];
    const { tokens } = this.answer.choices[0]!;
    if (tokens.length === 0) yield { text: opening.join(''), frames: opening.length, tokens: 0, step: 0 };
    const padding = this.request.script.frame_bytes ?? 0;
    const head = `event: response.output_text.delta${lineEnd}data: {"type":"response.output_text.delta","sequence_number":`;
    const tail = `,"logprobs":[]}${frameEnd}`;
    const { output_index: outputIndex, item_id: itemId } = place;
    for (const [step, token] of tokens.entries()) {
      const delta = JSON.stringify(padding > 0 ? token.padEnd(padding) : token);
      const text = `${head}${this.sequence++},"item_id":"${itemId}","output_index":${outputIndex},"content_index":0,"delta":${delta}${tail}`;
      yield step === 0 ? { text: opening.join('') + text, frames: opening.length + 1, tokens: 1, step } : { text, frames: 1, tokens: 1, step };
    }
  }

  /** Token by token. The name has been generated by the time the first of them comes. */
  private *argumentFrames(before: readonly string[]): Generator<ContentFrame, void, void> {
    const { completionTokens } = this.answer.choices[0]!;
    const opening = [...before, this.event('response.output_item.added', { output_index: this.place.output_index, item: { ...this.said, status: 'in_progress', arguments: '' } })];
    const pieces = splitTokens(String(this.said['arguments']));
    const ahead = Math.max(1, completionTokens - pieces.length + 1);
    if (pieces.length === 0) yield { text: opening.join(''), frames: opening.length, tokens: completionTokens, step: Math.max(0, completionTokens - 1) };
    for (const [index, delta] of pieces.entries()) {
      const text = this.event('response.function_call_arguments.delta', { ...this.place, delta });
      const step = ahead - 1 + index;
      yield index === 0 ? { text: opening.join('') + text, frames: opening.length + 1, tokens: ahead, step } : { text, frames: 1, tokens: 1, step };
    }
  }

  private reasoningEvents(item: OutputItem, outputIndex: number): string[] {
    const place = { item_id: item.id, output_index: outputIndex, summary_index: 0 };
    const [part] = item['summary'] as [ReturnType<typeof summaryPart>];
    return [
      this.event('response.output_item.added', { output_index: outputIndex, item: { ...item, status: 'in_progress', summary: [] } }),
      this.event('response.reasoning_summary_part.added', { ...place, part: summaryPart('') }),
      ...splitTokens(part.text).map((delta) => this.event('response.reasoning_summary_text.delta', { ...place, delta })),
      this.event('response.reasoning_summary_text.done', { ...place, text: part.text }),
      this.event('response.reasoning_summary_part.done', { ...place, part }),
      this.event('response.output_item.done', { output_index: outputIndex, item }),
    ];
  }

  private searchEvents(item: OutputItem, outputIndex: number): string[] {
    const place = { item_id: item.id, output_index: outputIndex };
    return [
      this.event('response.output_item.added', { output_index: outputIndex, item: { ...item, status: 'in_progress' } }),
      ...['in_progress', 'searching', 'completed'].map((step) => this.event(`response.web_search_call.${step}`, place)),
      this.event('response.output_item.done', { output_index: outputIndex, item }),
    ];
  }

  private event(type: string, members: Record<string, unknown>): string {
    return `event: ${type}${this.lineEnd}data: ${JSON.stringify({ type, sequence_number: this.sequence++, ...members })}${this.frameEnd}`;
  }
}
