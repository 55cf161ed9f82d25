import type { ModelPrice, TokenRates } from './catalogue.ts';

/** Tokens of one call, as billed: cached tokens are part of `inputTokens`, reasoning tokens are not part of `outputTokens`. */
export interface TokenUsage {
  inputTokens: number;
  cachedInputTokens: number;
  outputTokens: number;
  reasoningTokens: number;
  /** Of an image model; none where absent. */
  generatedImages?: number;
}

/** What the provider says of a call. `costTicks` is its own price, undefined when it gave none. */
export interface ProviderUsage extends TokenUsage {
  costTicks: bigint | undefined;
}

/**
 * The price of a call by our own arithmetic, to be compared with the provider's.
 *
 * @param priority whether the answer said `service_tier: priority`
 * @returns ticks
 */
export function computeCostTicks(usage: TokenUsage, price: ModelPrice, priority: boolean): bigint {
  const rates = ratesFor(price, usage.inputTokens);
  const uncached = BigInt(usage.inputTokens - usage.cachedInputTokens) * rates.input;
  const cached = BigInt(usage.cachedInputTokens) * rates.cachedInput;
  const output = BigInt(usage.outputTokens + usage.reasoningTokens) * rates.output;
  const images = BigInt(usage.generatedImages ?? 0) * price.perImage;
  return (uncached + cached + output) * (priority ? price.priorityMultiplier : 1n) + images;
}

/** The price at a deployment that charges so many percent of the model's. Rounded up: a hold may be a tick too large, never too small. */
export function scaledPrice(price: ModelPrice, percent: bigint): ModelPrice {
  if (percent === 100n) return price;
  const scaled = (ticks: bigint): bigint => (ticks * percent + 99n) / 100n;
  const rates = ({ input, cachedInput, output }: TokenRates): TokenRates => ({ input: scaled(input), cachedInput: scaled(cachedInput), output: scaled(output) });
  return {
    ...price, base: rates(price.base), perImage: scaled(price.perImage),
    longContext: price.longContext && { fromPromptTokens: price.longContext.fromPromptTokens, rates: rates(price.longContext.rates) },
  };
}

/** The rates of a request with so many prompt tokens, cached ones included: from the threshold on, all of it costs the long-context price. */
export function ratesFor(price: ModelPrice, promptTokens: number): TokenRates {
  return price.longContext !== undefined && promptTokens >= price.longContext.fromPromptTokens ? price.longContext.rates : price.base;
}
