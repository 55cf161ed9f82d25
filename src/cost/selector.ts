import { expectedQuality } from '../catalogue/reach.ts';
import type { Quantiles } from './output-history.ts';

/** A model that could take the call, and what it would come to. */
export interface ModelOption {
  /** Alias or id. */
  name: string;
  /** Complexity up to which it is expected to do. */
  reach: number;
  /** What the call is likely to cost with it, in ticks. */
  costTicks: { p50: bigint; p90: bigint };
  outputTokens: Quantiles;
  /** Whether what would be held for the call is within its budget. */
  fits: boolean;
}

export interface Selection {
  option: ModelOption;
  expectedQuality: number;
  /** In words, for whoever asks why. */
  reasons: string[];
}

/**
 * The cheapest of the models whose expected quality passes the target, and whose likely cost is within the budget; where none passes, the best that is
 * affordable. Pure.
 *
 * @param budgetTicks most that the call may cost; undefined for no limit
 * @returns undefined where no option is affordable
 */
export function selectModel(options: readonly ModelOption[], complexity: number, targetQuality: number, budgetTicks: bigint | undefined): Selection | undefined {
  const affordable = options.filter(({ costTicks, fits }) => fits && (budgetTicks === undefined || costTicks.p50 <= budgetTicks));
  const reasons = [`The prompt's complexity is ${complexity.toFixed(2)} of 1.`];
  if (affordable.length < options.length) reasons.push(`Too dear for the budget: ${options.filter((option) => !affordable.includes(option)).map(({ name }) => name).join(', ')}.`);
  const judged = affordable.map((option) => ({ option, quality: expectedQuality(option.reach, complexity) }));
  const good = judged.filter(({ quality }) => quality >= targetQuality);
  const cheapest = good.reduce<(typeof good)[number] | undefined>((best, one) => (best === undefined || one.option.costTicks.p50 < best.option.costTicks.p50 ? one : best), undefined);
  if (cheapest !== undefined) {
    reasons.push(`${cheapest.option.name} is the cheapest that is expected to do: quality ${cheapest.quality.toFixed(2)}, and ${targetQuality.toFixed(2)} is asked for.`);
    return { option: cheapest.option, expectedQuality: cheapest.quality, reasons };
  }
  const best = judged.reduce<(typeof judged)[number] | undefined>((top, one) => (top === undefined || one.quality > top.quality ? one : top), undefined);
  if (best === undefined) return undefined;
  reasons.push(`None is expected to reach the quality ${targetQuality.toFixed(2)} that is asked for; ${best.option.name} comes nearest with ${best.quality.toFixed(2)}.`);
  return { option: best.option, expectedQuality: best.quality, reasons };
}

/** Hard questions want care, easy ones may vary: the seed's temperatures. */
export function temperatureFor(complexity: number): number {
  return complexity > 0.7 ? 0.4 : 0.8;
}
