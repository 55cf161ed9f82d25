import { isDeepStrictEqual } from 'node:util';
import { Type, type Static } from 'typebox';
import type { Model, ModelPrice, TokenRates } from '../catalogue/catalogue.ts';
import { formatUsd, parseUsd, parseUsdPerMillion } from '../shared/usd-ticks.ts';

const TICKS_MAX = 1_000_000_000;
const PRIORITY_MULTIPLIER = 2n;
const MILLION = 1_000_000n;
const NO_RATES: TokenRates = { input: 0n, cachedInput: 0n, output: 0n };

const Usd = Type.String({ pattern: '^\\d{1,9}(\\.\\d{1,10})?$', description: 'Decimal string of USD' });
const RATE_NAMES = ['input_usd_per_million', 'cached_input_usd_per_million', 'output_usd_per_million'] as const;
const RATES = { input_usd_per_million: Usd, cached_input_usd_per_million: Usd, output_usd_per_million: Usd };
/** A price as the admin API takes it: of all that the model sells, as `findPriceFault` says. */
export const PriceFields = {
  input_usd_per_million: Type.Optional(Usd), cached_input_usd_per_million: Type.Optional(Usd), output_usd_per_million: Type.Optional(Usd), image_usd: Type.Optional(Usd),
  long_context: Type.Optional(Type.Object({ from_prompt_tokens: Type.Integer({ minimum: 1 }), ...RATES }, { additionalProperties: false })),
};
const PriceBody = Type.Object(PriceFields, { additionalProperties: false });
export type PriceDefinition = Static<typeof PriceBody>;
type RateFields = Record<(typeof RATE_NAMES)[number], string>;

/** What a model bills. A price must price all of it: where it left something out, calls would hold nothing, and pass any budget. */
export function soldBy({ endpoints }: Model): { text: boolean; embeddings: boolean; images: boolean } {
  const [embeddings, images] = [endpoints.includes('embeddings'), endpoints.includes('images')];
  return { text: endpoints.includes('chat_completions') || endpoints.includes('responses') || (!embeddings && !images), embeddings, images };
}

/** @returns the first field for which this is no price of what the model sells, and why; undefined where it is one */
export function findPriceFault(definition: PriceDefinition, model: Model): { field: string; fault: string } | undefined {
  const { long_context: long, image_usd: image, ...base } = definition;
  const sold = soldBy(model);
  const needed: [boolean, keyof typeof base | 'image_usd'][] = [
    // Rates beside a missing input price would count for nothing.
    [sold.text || sold.embeddings || long !== undefined || Object.values(base).some((rate) => rate !== undefined), 'input_usd_per_million'],
    [sold.text, 'output_usd_per_million'], [sold.images, 'image_usd'],
  ];
  for (const [isNeeded, field] of needed) if (isNeeded && definition[field] === undefined) return { field, fault: `is needed: ${model.id} sells it, and would be free` };
  const rates: Record<string, string | undefined> = { ...base };
  for (const name of RATE_NAMES) if (long !== undefined) rates[`long_context.${name}`] = long[name];
  for (const [field, usd] of Object.entries(rates)) {
    const ticks = usd === undefined ? undefined : parseUsdPerMillion(usd);
    if (usd !== undefined && (ticks === undefined || ticks === 0n)) return { field, fault: 'must be above zero, in whole ticks per token (0.0001 USD per million)' };
  }
  const perImage = image === undefined ? undefined : parseUsd(image);
  return image !== undefined && (perImage === undefined || perImage === 0n) ? { field: 'image_usd', fault: 'must be above zero, in whole ticks (0.0000000001 USD)' } : undefined;
}

/** @returns undefined for what is no price of what the model sells, as `findPriceFault` says */
export function toModelPrice(definition: PriceDefinition, model: Model, revision: number, source: string, effectiveAt: Date): ModelPrice | undefined {
  if (findPriceFault(definition, model) !== undefined) return undefined;
  const { input_usd_per_million: input, cached_input_usd_per_million: cachedInput, output_usd_per_million: output, image_usd: image, long_context: long } = definition;
  return {
    base: input === undefined ? NO_RATES : toRates(input, cachedInput ?? input, output ?? '0'), perImage: image === undefined ? 0n : parseUsd(image)!,
    longContext: long && { fromPromptTokens: long.from_prompt_tokens, rates: toRates(long.input_usd_per_million, long.cached_input_usd_per_million, long.output_usd_per_million) },
    priorityMultiplier: PRIORITY_MULTIPLIER, revision, source, asOf: effectiveAt.toISOString(),
  };
}

/** Whether calls cost the same under both, however they are written: a database gives fields back in an order of its own, and a rate that is left out may equal one that is said. */
export function isSamePrice(left: PriceDefinition, right: PriceDefinition, model: Model): boolean {
  const [one, other] = [left, right].map((definition) => toModelPrice(definition, model, 0, '', new Date(0)));
  return one !== undefined && isDeepStrictEqual(one, other);
}

/** Whether the reviewed file has long prompts cost more, of which this says nothing: then they would be held for at a part of what is billed. */
export function lacksReviewedTier(definition: PriceDefinition, reviewed: Model): boolean {
  return reviewed.price?.longContext !== undefined && definition.long_context === undefined;
}

/** The inverse, for showing. */
export function toPriceDefinition({ base, perImage, longContext }: ModelPrice): PriceDefinition {
  const { output_usd_per_million: output, ...input } = fromRates(base);
  return {
    // Embeddings have no output to bill.
    ...(base.input > 0n ? input : {}), ...(base.output > 0n ? { output_usd_per_million: output } : {}), ...(perImage > 0n ? { image_usd: formatUsd(perImage) } : {}),
    ...(longContext === undefined ? {} : { long_context: { from_prompt_tokens: longContext.fromPromptTokens, ...fromRates(longContext.rates) } }),
  };
}

/**
 * Reads an entry of the provider's list of models, whose price fields are ticks per token.
 *
 * @param model of the reviewed file
 * @returns undefined where it says no price that can be believed as a whole: an absent one is unknown, never free
 */
export function readListedPrice(entry: unknown, model: Model): PriceDefinition | undefined {
  const sold = soldBy(model);
  // The list says nothing of images.
  if (typeof entry !== 'object' || entry === null || sold.images) return undefined;
  const fields = entry as Record<string, unknown>;
  const rates = (suffix: string): RateFields | undefined => {
    const [input, cachedInput, output] = ['prompt_text_token_price', 'cached_prompt_text_token_price', 'completion_text_token_price'].map((name) => ticksOf(fields[`${name}${suffix}`]));
    return input === undefined || cachedInput === undefined || output === undefined ? undefined : fromRates({ input, cachedInput, output });
  };
  if (!sold.text) {
    // Embeddings bill input alone.
    const input = ticksOf(fields['prompt_text_token_price']);
    return input === undefined ? undefined : { input_usd_per_million: formatUsd(input * MILLION) };
  }
  const base = rates('');
  const threshold = fields['long_context_threshold'] ?? 0;
  if (base === undefined) return undefined;
  if (threshold === 0) return lacksReviewedTier(base, model) ? undefined : base;
  const long = rates('_long_context');
  // Without its tier, the rest would be half of what long prompts are billed.
  if (typeof threshold !== 'number' || !Number.isSafeInteger(threshold) || threshold < 0 || long === undefined) return undefined;
  return { ...base, long_context: { from_prompt_tokens: threshold, ...long } };
}

function ticksOf(value: unknown): bigint | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value <= TICKS_MAX ? BigInt(value) : undefined;
}

/** Of rates in which `findPriceFault` has found none. */
function toRates(input: string, cachedInput: string, output: string): TokenRates {
  return { input: parseUsdPerMillion(input)!, cachedInput: parseUsdPerMillion(cachedInput)!, output: parseUsdPerMillion(output)! };
}

function fromRates({ input, cachedInput, output }: TokenRates): RateFields {
  return { input_usd_per_million: formatUsd(input * MILLION), cached_input_usd_per_million: formatUsd(cachedInput * MILLION), output_usd_per_million: formatUsd(output * MILLION) };
}
