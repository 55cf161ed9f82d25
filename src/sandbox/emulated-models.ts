import { createHash } from 'node:crypto';
import type { ModelPrices, TokenPrices } from './emulated-price.ts';

// Facts as of October 2026, from the provider's documentation; prices in USD ticks per token (USD per million tokens × 10,000).

export interface EmulatedModel {
  readonly id: string;
  readonly aliases: readonly string[];
  readonly createdUnix: number;
  readonly contextTokens: number;
  readonly prices: ModelPrices;
  readonly reasoning: 'always' | 'unless-effort-none' | 'never';
  /** What `reasoning_effort` may say; empty: the field itself is refused. */
  readonly efforts: readonly string[];
  readonly defaultEffort?: string;
  /** Accepted, but neither listed nor any different from `high`. */
  readonly unlistedEfforts?: readonly string[];
  /** False: the model is served by /v1/responses alone. */
  readonly chat: boolean;
}

/** What a caller named, resolved: a retired name also brings the effort that its successor runs with. */
export interface ResolvedModel {
  readonly model: EmulatedModel;
  readonly impliedEffort?: string;
}

const LONG_CONTEXT_TOKENS = 200_000;

/** Every model of today doubles its prices at the same prompt length. */
function doublingPrices(input: number, cachedInput: number, output: number): ModelPrices {
  const longContext: TokenPrices = { input: input * 2, cachedInput: cachedInput * 2, output: output * 2 };
  return { input, cachedInput, output, longContext: { ...longContext, thresholdTokens: LONG_CONTEXT_TOKENS } };
}

function releasedOn(day: string): number {
  return Date.parse(`${day}T00:00:00Z`) / 1000;
}

const FLAGSHIP = {
  contextTokens: 500_000,
  reasoning: 'always',
  defaultEffort: 'high',
  chat: true,
} as const;

const GROK_4_20 = {
  createdUnix: 1_773_014_400,
  contextTokens: 1_000_000,
  prices: doublingPrices(12_500, 2_000, 25_000),
} as const;

export const EMULATED_MODELS: readonly EmulatedModel[] = [
  {
    ...FLAGSHIP,
    id: 'grok-4.7',
    aliases: [],
    createdUnix: releasedOn('2026-09-21'),
    prices: doublingPrices(20_000, 5_000, 60_000),
    efforts: ['low', 'medium', 'high', 'xhigh'],
  },
  {
    ...FLAGSHIP,
    id: 'grok-4.6',
    aliases: [],
    createdUnix: releasedOn('2026-08-12'),
    prices: doublingPrices(20_000, 5_000, 60_000),
    efforts: ['low', 'medium', 'high', 'xhigh'],
  },
  {
    ...FLAGSHIP,
    id: 'grok-4.5',
    aliases: ['grok-4.5-latest', 'grok-build-latest'],
    createdUnix: 1_782_691_200,
    prices: doublingPrices(20_000, 3_000, 60_000),
    efforts: ['low', 'medium', 'high'],
    unlistedEfforts: ['xhigh'],
  },
  {
    id: 'grok-4.3',
    aliases: ['grok-4.3-latest', 'grok-latest'],
    createdUnix: 1_776_384_000,
    contextTokens: 1_000_000,
    prices: doublingPrices(12_500, 2_000, 25_000),
    reasoning: 'unless-effort-none',
    efforts: ['none', 'low', 'medium', 'high'],
    defaultEffort: 'low',
    chat: true,
  },
  {
    ...GROK_4_20,
    id: 'grok-4.20-0309-reasoning',
    aliases: ['grok-4.20', 'grok-4.20-0309', 'grok-4.20-reasoning', 'grok-4.20-reasoning-latest'],
    reasoning: 'always',
    efforts: [],
    chat: true,
  },
  {
    ...GROK_4_20,
    id: 'grok-4.20-0309-non-reasoning',
    aliases: ['grok-4.20-non-reasoning', 'grok-4.20-non-reasoning-latest'],
    reasoning: 'never',
    efforts: [],
    chat: true,
  },
  {
    ...GROK_4_20,
    id: 'grok-4.20-multi-agent-0309',
    aliases: ['grok-4.20-multi-agent', 'grok-4.20-multi-agent-latest'],
    reasoning: 'always',
    efforts: ['low', 'medium', 'high', 'xhigh'],
    chat: false,
  },
  {
    id: 'grok-build-0.1',
    aliases: ['grok-code-fast-1', 'grok-code-fast', 'grok-code-fast-1-0825'],
    createdUnix: releasedOn('2026-04-16'),
    contextTokens: 256_000,
    prices: doublingPrices(10_000, 2_000, 20_000),
    reasoning: 'always',
    efforts: [],
    chat: true,
  },
];

/** Names retired on 2026-05-15: still answered, by grok-4.3 at the effort named here, and billed as that. */
const RETIRED: Readonly<Record<string, string>> = {
  'grok-4-0709': 'low',
  'grok-4-fast-reasoning': 'low',
  'grok-4-1-fast-reasoning': 'low',
  'grok-3': 'none',
  'grok-4-fast-non-reasoning': 'none',
  'grok-4-1-fast-non-reasoning': 'none',
};
const SUCCESSOR = 'grok-4.3';

const resolved = new Map<string, ResolvedModel>();
for (const model of EMULATED_MODELS) {
  for (const name of [model.id, ...model.aliases]) resolved.set(name, { model });
}
for (const [name, impliedEffort] of Object.entries(RETIRED)) {
  resolved.set(name, { model: resolved.get(SUCCESSOR)!.model, impliedEffort });
}

export function resolveModel(name: string): ResolvedModel | undefined {
  return resolved.get(name);
}

const fingerprints = new Map(EMULATED_MODELS.map(({ id }) => [id, `fp_${createHash('sha256').update(id).digest('hex').slice(0, 10)}`]));

export function systemFingerprint(model: EmulatedModel): string {
  return fingerprints.get(model.id)!;
}

/** An entry of `GET /v1/models`. */
export function modelEntry(model: EmulatedModel): Record<string, unknown> {
  return {
    id: model.id,
    object: 'model',
    created: model.createdUnix,
    owned_by: 'xai',
    aliases: model.aliases,
    context_length: model.contextTokens,
    ...priceFields(model.prices),
    ...(model.efforts.length > 0 && { capabilities: { reasoning_effort: model.efforts, default_reasoning_effort: model.defaultEffort } }),
  };
}

/** An entry of `GET /v1/language-models`. */
export function languageModelEntry(model: EmulatedModel): Record<string, unknown> {
  return {
    id: model.id,
    fingerprint: systemFingerprint(model),
    created: model.createdUnix,
    object: 'model',
    owned_by: 'xai',
    version: '1.0.0',
    input_modalities: ['text', 'image'],
    output_modalities: ['text'],
    ...priceFields(model.prices),
    search_price: 0, // of Live Search, which is switched off
    aliases: model.aliases,
  };
}

function priceFields({ input, cachedInput, output, longContext }: ModelPrices): Record<string, number> {
  return {
    prompt_text_token_price: input,
    cached_prompt_text_token_price: cachedInput,
    prompt_image_token_price: input,
    completion_text_token_price: output,
    prompt_text_token_price_long_context: longContext?.input ?? 0, // 0 means the base price
    cached_prompt_text_token_price_long_context: longContext?.cachedInput ?? 0,
    completion_text_token_price_long_context: longContext?.output ?? 0,
    long_context_threshold: longContext?.thresholdTokens ?? 0,
  };
}
