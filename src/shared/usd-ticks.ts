/** Money is a `bigint` of USD ticks, the provider's own unit: 1 USD = 10^10 ticks. */
export const TICKS_PER_USD = 10_000_000_000n;
const DECIMALS = 10;
/** PostgreSQL's bigint is the bound: about 922 million USD. */
export const TICKS_MAX = 9_223_372_036_854_775_807n;

/**
 * Parses a decimal string of USD, such as `"12.50"`.
 *
 * @returns ticks, zero or more; `undefined` when the text is no plain decimal, has more than ten decimals, or does not fit a bigint
 */
export function parseUsd(text: string): bigint | undefined {
  const match = /^(\d{1,10})(?:\.(\d{1,10}))?$/.exec(text);
  if (!match) return undefined;
  const ticks = BigInt(match[1]!) * TICKS_PER_USD + BigInt((match[2] ?? '').padEnd(DECIMALS, '0'));
  return ticks <= TICKS_MAX ? ticks : undefined;
}

/** Writes ticks as a decimal string of USD with at least two decimals: `125000000000n` is `"12.50"`. */
export function formatUsd(ticks: bigint): string {
  const absolute = ticks < 0n ? -ticks : ticks;
  const fraction = (absolute % TICKS_PER_USD).toString().padStart(DECIMALS, '0').replace(/0{1,8}$/, '');
  return `${ticks < 0n ? '-' : ''}${absolute / TICKS_PER_USD}.${fraction}`;
}

/** A price of USD per 1,000,000 tokens, as ticks per token; `undefined` when it is not a whole number of ticks. */
export function parseUsdPerMillion(text: string): bigint | undefined {
  const ticks = parseUsd(text);
  return ticks === undefined || ticks % 1_000_000n !== 0n ? undefined : ticks / 1_000_000n;
}
