import { Type } from 'typebox';
import { oneOf } from '../../shared/one-of.ts';

const Count = Type.Integer({ minimum: 0 });
export const UsageSchema = Type.Object({
  prompt_tokens: Count,
  completion_tokens: Count,
  total_tokens: Count,
  prompt_tokens_details: Type.Optional(Type.Object({ cached_tokens: Type.Optional(Count) })),
  completion_tokens_details: Type.Optional(Type.Object({ reasoning_tokens: Type.Optional(Count) })),
  cost_in_usd_ticks: Type.Optional(Type.Integer({ minimum: 0, description: 'Price of the call; 10,000,000,000 ticks are one USD' })),
});

const ToolCall = Type.Object({ id: Type.String(), type: Type.Literal('function'), function: Type.Object({ name: Type.String(), arguments: Type.String() }) });
const FinishReason = oneOf(['stop', 'length', 'tool_calls', 'content_filter', 'function_call']);

/** A whole answer, as documentation: the provider's fields pass through, known or not. */
export const CompletionSchema = Type.Object({
  id: Type.String(),
  object: Type.Literal('chat.completion'),
  created: Type.Integer(),
  model: Type.String(),
  choices: Type.Array(Type.Object({
    index: Count,
    message: Type.Object({
      role: Type.Literal('assistant'), content: Type.Union([Type.String(), Type.Null()]), refusal: Type.Optional(Type.Union([Type.String(), Type.Null()])),
      reasoning_content: Type.Optional(Type.String()), tool_calls: Type.Optional(Type.Array(ToolCall)),
    }),
    finish_reason: FinishReason,
  })),
  usage: Type.Optional(UsageSchema),
  system_fingerprint: Type.Optional(Type.String()),
  service_tier: Type.Optional(Type.String()),
});

/** One event of a stream. The last is `data: [DONE]`; an error comes as `data: {"error":…}` without it. */
export const CompletionChunkSchema = Type.Object({
  id: Type.String(),
  object: Type.Literal('chat.completion.chunk'),
  created: Type.Integer(),
  model: Type.String(),
  choices: Type.Array(Type.Object({
    index: Count,
    delta: Type.Object({ role: Type.Optional(Type.Literal('assistant')), content: Type.Optional(Type.String()), tool_calls: Type.Optional(Type.Array(ToolCall)) }),
    finish_reason: Type.Optional(Type.Union([FinishReason, Type.Null()])),
  })),
  usage: Type.Optional(UsageSchema),
});

/** An answer of the old completions endpoint, and likewise each of its chunks. */
export const TextCompletionSchema = Type.Object({
  id: Type.String(),
  object: Type.Literal('text_completion'),
  created: Type.Integer(),
  model: Type.String(),
  choices: Type.Array(Type.Object({ index: Count, text: Type.String(), logprobs: Type.Null(), finish_reason: Type.Union([FinishReason, Type.Null()]) })),
  usage: Type.Optional(UsageSchema),
});
