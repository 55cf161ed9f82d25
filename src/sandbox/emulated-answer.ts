import type { FunctionTool, GenerationRequest } from './emulated-request.ts';
import { minimalValue } from './emulated-schema.ts';
import { fillerTokens, splitTokens } from './emulated-tokens.ts';

export interface EmulatedToolCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
}

export interface EmulatedChoice {
  /** The visible text, token by token; empty beside a tool call. */
  readonly tokens: readonly string[];
  readonly toolCall?: EmulatedToolCall;
  /** Visible tokens, those of a tool call included. */
  readonly completionTokens: number;
  readonly finishReason: 'stop' | 'length' | 'tool_calls';
}

/** Everything that is going to be said, decided before the first byte. */
export interface EmulatedAnswer {
  readonly choices: readonly EmulatedChoice[];
  /** Of all choices, like the next. */
  readonly reasoningTokens: number;
  readonly completionTokens: number;
  /** How many steps the generation takes: the choices grow side by side. */
  readonly stepCount: number;
}

/** For endpoints whose output is no text. */
export const NO_TEXT: EmulatedAnswer = { choices: [], reasoningTokens: 0, completionTokens: 0, stepCount: 0 };

const TEXT_TOKENS = { mean: 20, spread: 8 };
const REASONING_TOKENS = { mean: 40, spread: 16 };

/** @param random a number from 0 up to 1, like `Math.random`: lengths and tool-call ids hang on it, texts do not */
export function planAnswer(request: GenerationRequest, random: () => number): EmulatedAnswer {
  const choices = Array.from({ length: request.choices }, () => planChoice(request, random));
  const reasoningPerChoice = request.script.reasoning_tokens ?? (request.reasons ? around(REASONING_TOKENS, random) : 0);
  return {
    choices,
    reasoningTokens: reasoningPerChoice * choices.length,
    completionTokens: choices.reduce((sum, choice) => sum + choice.completionTokens, 0),
    stepCount: Math.max(...choices.map(({ completionTokens }) => completionTokens)),
  };
}

function planChoice(request: GenerationRequest, random: () => number): EmulatedChoice {
  if (request.tool !== undefined) return callTool(request.tool, request.outputTokensMax, random);
  const whole = textTokens(request, random);
  const cut = whole.length > request.outputTokensMax;
  const tokens = cut ? whole.slice(0, request.outputTokensMax) : whole;
  return { tokens, completionTokens: tokens.length, finishReason: cut ? 'length' : 'stop' };
}

function textTokens({ script, json, outputTokensMax }: GenerationRequest, random: () => number): readonly string[] {
  if (script.content !== undefined) return splitTokens(script.content);
  if (json !== undefined) return splitTokens(JSON.stringify(json.schema === undefined ? { answer: 'yes' } : minimalValue(json.schema)));
  const wanted = script.output_tokens ?? around(TEXT_TOKENS, random);
  return fillerTokens(Math.min(wanted, outputTokensMax + 1)); // one too many shows that it was cut
}

/** Arguments that hit the limit end in the middle, as the provider's do. */
function callTool({ name, parameters }: FunctionTool, tokensMax: number, random: () => number): EmulatedChoice {
  const whole = splitTokens(name + JSON.stringify(isSchema(parameters) ? minimalValue(parameters) : {}));
  const cut = whole.length > tokensMax;
  const spoken = whole.slice(0, tokensMax);
  return {
    tokens: [],
    toolCall: { id: `call_${String(Math.floor(random() * 1e8)).padStart(8, '0')}`, name, arguments: spoken.join('').slice(name.length) },
    completionTokens: spoken.length,
    finishReason: cut ? 'length' : 'tool_calls',
  };
}

function isSchema(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

function around({ mean, spread }: { mean: number; spread: number }, random: () => number): number {
  return mean - spread / 2 + Math.floor(random() * (spread + 1));
}
