/** Prices in USD ticks per token, which are the very numbers of the `*_token_price` fields in the provider's model lists. */
export interface TokenPrices {
  readonly input: number;
  readonly cachedInput: number;
  readonly output: number;
}

export interface ModelPrices extends TokenPrices {
  /** For all tokens of a request whose prompt has reached the threshold; absent: no such tier. */
  readonly longContext?: TokenPrices & { readonly thresholdTokens: number };
}

export interface BilledTokens {
  /** The cached ones included. */
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** Visible output alone: the chat endpoint counts reasoning apart. */
  readonly completionTokens: number;
  readonly reasoningTokens: number;
}

const PRIORITY_FACTOR = 2n;

/**
 * The exact price of a chat completion in USD ticks.
 *
 * Cached tokens count towards the long-context threshold, and priority doubles what is left after the cache discount.
 */
export function costInUsdTicks(prices: ModelPrices, tokens: BilledTokens, priority = false): bigint {
  const { longContext } = prices;
  const rates = longContext !== undefined && tokens.promptTokens >= longContext.thresholdTokens ? longContext : prices;
  const ticks =
    BigInt(tokens.promptTokens - tokens.cachedTokens) * BigInt(rates.input) +
    BigInt(tokens.cachedTokens) * BigInt(rates.cachedInput) +
    BigInt(tokens.completionTokens + tokens.reasoningTokens) * BigInt(rates.output);
  return priority ? ticks * PRIORITY_FACTOR : ticks;
}
