/** How sharply a model's quality falls around its reach. */
const SLOPE = 0.1;

/** How likely a model is to do: a half at its reach, more below it, less above. Pure. */
export function expectedQuality(reach: number, complexity: number): number {
  return 1 / (1 + Math.exp((complexity - reach) / SLOPE));
}

/**
 * The target quality by which so large a share of calls, where they are as hard as the questions of the calibration, takes more than the model of the least
 * reach. Pure: complexity is a quantile of those questions, so that the share names the complexity at which that model is given up.
 *
 * @param share of calls, 0 to 1
 */
export function targetQualityForShare(leastReach: number, share: number): number {
  return expectedQuality(leastReach, 1 - share);
}
