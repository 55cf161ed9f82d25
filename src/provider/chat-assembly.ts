import { parseChunk } from './chat-stream.ts';
import { frameData, frameEnd } from './sse-frames.ts';

interface AssembledChoice {
  index: number;
  message: Record<string, unknown>;
  finish_reason?: string;
  logprobs?: unknown;
}

/** Puts the chunks of a streamed chat completion together into the answer that a caller gets who did not ask for a stream. */
export class ChatAssembly {
  readonly #envelope: Record<string, unknown> = {};
  readonly #choices = new Map<number, AssembledChoice>();

  /** Takes whole frames, such as `ChatStreamReader` forwards. */
  push(frames: Buffer): void {
    for (let start = 0; start < frames.length; ) {
      const end = frameEnd(frames, start);
      const data = frameData(frames.subarray(start, end));
      if (data !== '' && data !== '[DONE]') this.#add(parseChunk(data) as Record<string, unknown>);
      start = end;
    }
  }

  /** @param usage the provider's usage object, as received */
  finish(usage: unknown): Record<string, unknown> {
    const { id, object: _object, created, model, ...rest } = this.#envelope;
    const choices = [...this.#choices.values()].sort((left, right) => left.index - right.index);
    for (const { message } of choices) {
      message['content'] ??= '';
      message['refusal'] ??= null;
    }
    return { id, object: 'chat.completion', created, model, choices, ...(usage === undefined ? {} : { usage }), ...rest };
  }

  #add(chunk: Record<string, unknown>): void {
    const { choices, usage: _usage, ...envelope } = chunk;
    Object.assign(this.#envelope, envelope);
    if (!Array.isArray(choices)) return;
    for (const part of choices as { index?: number; delta?: Record<string, unknown>; finish_reason?: string | null; logprobs?: unknown }[]) {
      const index = part.index ?? 0;
      let choice = this.#choices.get(index);
      if (!choice) this.#choices.set(index, (choice = { index, message: { role: 'assistant' } }));
      for (const [key, value] of Object.entries(part.delta ?? {})) addDelta(choice.message, key, value);
      if (typeof part.finish_reason === 'string') choice.finish_reason = part.finish_reason;
      if (part.logprobs !== undefined && part.logprobs !== null) choice.logprobs = mergeLogprobs(choice.logprobs, part.logprobs);
    }
  }
}

function addDelta(message: Record<string, unknown>, key: string, value: unknown): void {
  if (value === null || value === undefined || key === '__proto__') return;
  if (key === 'tool_calls' && Array.isArray(value)) {
    const calls = (message['tool_calls'] ??= []) as Record<string, unknown>[];
    for (const { index, ...part } of value as { index?: unknown }[]) mergeToolCall((calls[toolCallIndex(index, calls.length)] ??= {}), part);
  } else if (typeof value === 'string' && key !== 'role') {
    message[key] = `${typeof message[key] === 'string' ? message[key] : ''}${value}`;
  } else {
    message[key] = value;
  }
}

/** What comes from outside is no index before it has been looked at. */
function toolCallIndex(index: unknown, next: number): number {
  return typeof index === 'number' && Number.isInteger(index) && index >= 0 && index <= next ? index : next;
}

/** xAI sends a tool call whole; servers that speak OpenAI's dialect send its arguments in pieces. */
function mergeToolCall(call: Record<string, unknown>, part: Record<string, unknown>): void {
  for (const [key, value] of Object.entries(part)) {
    if (key === '__proto__' || value === null || value === undefined || (value === '' && call[key] !== undefined)) continue; // later parts repeat names as nothing
    if (key === 'function' && typeof value === 'object' && value !== null) {
      const known = (call['function'] ??= {}) as Record<string, unknown>;
      for (const [name, text] of Object.entries(value)) {
        if (name === '__proto__' || typeof text !== 'string' || (text === '' && known[name] !== undefined)) continue;
        known[name] = name === 'arguments' && typeof known[name] === 'string' ? known[name] + text : text;
      }
    } else {
      call[key] = value;
    }
  }
}

function mergeLogprobs(known: unknown, part: unknown): unknown {
  const before = (known as { content?: unknown[] } | undefined)?.content;
  const after = (part as { content?: unknown[] }).content;
  return Array.isArray(before) && Array.isArray(after) ? { ...(part as object), content: [...before, ...after] } : part;
}
