import { Type, type Static } from 'typebox';
import type { Model, ModelPrice, TokenRates } from '../catalogue/catalogue.ts';
import { formatUsd, parseUsd, parseUsdPerMillion } from '../shared/usd-ticks.ts';

const TICKS_MAX = 1_000_000_000;
const PRIORITY_MULTIPLIER = 2n;
const MILLION = 1_000_000n;

const Usd = Type.String({ pattern: '^\\d{1,9}(\\.\\d{1,10})?$', description: 'Decimal string of USD' });
const RATES = { input_usd_per_million: Usd, cached_input_usd_per_million: Usd, output_usd_per_million: Usd };
/** A price as the admin API takes it. Token prices, or a price of images, or both. */
export const PriceFields = {
  input_usd_per_million: Type.Optional(Usd), cached_input_usd_per_million: Type.Optional(Usd), output_usd_per_million: Type.Optional(Usd), image_usd: Type.Optional(Usd),
  long_context: Type.Optional(Type.Object({ from_prompt_tokens: Type.Integer({ minimum: 1 }), ...RATES }, { additionalProperties: false })),
};
const PriceBody = Type.Object(PriceFields, { additionalProperties: false });
export type PriceDefinition = Static<typeof PriceBody>;

/** @returns undefined for what is no price: a fraction of a tick, zero where something is sold, or nothing at all */
export function toModelPrice(definition: PriceDefinition, revision: number, source: string, effectiveAt: Date): ModelPrice | undefined {
  const { input_usd_per_million: input, cached_input_usd_per_million: cachedInput, output_usd_per_million: output, image_usd: image, long_context: long } = definition;
  const base = input === undefined ? undefined : toRates(input, cachedInput ?? input, output ?? '0');
  const perImage = image === undefined ? 0n : parseUsd(image);
  const longRates = long === undefined ? undefined : toRates(long.input_usd_per_million, long.cached_input_usd_per_million, long.output_usd_per_million);
  if ((input === undefined && image === undefined) || (input !== undefined && base === undefined) || perImage === undefined || (image !== undefined && perImage === 0n) || (long !== undefined && longRates === undefined)) return undefined;
  return {
    base: base ?? { input: 0n, cachedInput: 0n, output: 0n }, perImage, longContext: long && { fromPromptTokens: long.from_prompt_tokens, rates: longRates! },
    priorityMultiplier: PRIORITY_MULTIPLIER, revision, source, asOf: effectiveAt.toISOString(),
  };
}

/** The inverse, for showing. */
export function toPriceDefinition({ base, perImage, longContext }: ModelPrice): PriceDefinition {
  return {
    ...(base.input > 0n ? fromRates(base) : {}), ...(perImage > 0n ? { image_usd: formatUsd(perImage) } : {}),
    ...(longContext === undefined ? {} : { long_context: { from_prompt_tokens: longContext.fromPromptTokens, ...fromRates(longContext.rates) } }),
  };
}

/**
 * Reads an entry of the provider's list of models, whose price fields are ticks per token.
 *
 * @returns undefined where it says no price that can be believed: an absent one is unknown, never free
 */
export function readListedPrice(entry: unknown, model: Model): PriceDefinition | undefined {
  if (typeof entry !== 'object' || entry === null || model.price === undefined || model.price.base.input === 0n) return undefined;
  const fields = entry as Record<string, unknown>;
  const rates = (suffix: string): TokenRates | undefined => {
    const [input, cachedInput, output] = ['prompt_text_token_price', 'cached_prompt_text_token_price', 'completion_text_token_price'].map((name) => ticksOf(fields[`${name}${suffix}`]));
    return input === undefined || cachedInput === undefined || output === undefined ? undefined : { input, cachedInput, output };
  };
  const base = rates('');
  if (base === undefined) return undefined;
  const threshold = fields['long_context_threshold'];
  const long = typeof threshold === 'number' && Number.isSafeInteger(threshold) && threshold > 0 ? rates('_long_context') : undefined;
  return { ...fromRates(base), ...(long === undefined ? {} : { long_context: { from_prompt_tokens: threshold as number, ...fromRates(long) } }) };
}

function ticksOf(value: unknown): bigint | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value <= TICKS_MAX ? BigInt(value) : undefined;
}

function toRates(input: string, cachedInput: string, output: string): TokenRates | undefined {
  const [inputTicks, cachedTicks, outputTicks] = [input, cachedInput, output].map(parseUsdPerMillion);
  if (inputTicks === undefined || cachedTicks === undefined || outputTicks === undefined || inputTicks === 0n) return undefined;
  return { input: inputTicks, cachedInput: cachedTicks, output: outputTicks };
}

function fromRates({ input, cachedInput, output }: TokenRates): Static<ReturnType<typeof ratesSchema>> {
  return { input_usd_per_million: formatUsd(input * MILLION), cached_input_usd_per_million: formatUsd(cachedInput * MILLION), output_usd_per_million: formatUsd(output * MILLION) };
}

function ratesSchema() {
  return Type.Object(RATES);
}
