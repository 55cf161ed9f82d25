import { Type, type Static } from 'typebox';

/** Of a text, its head and its tail are looked at, so that a long one costs no more than this. */
const LOOKED_AT_CHARS = 4_096;

const NEGATION = /\b(?:not|no|never|none|neither|nor|except|without|cannot|least|unless|incorrect|false|nicht|kein\w*|nie|sauf|jamais|sin|nunca)\b|n['’]t\b/gi;
const CONDITION = /\b(?:would|could|should|may|might|must|if|when|whether|unless|assuming|suppose|wenn|falls|si|quand|cuando)\b/gi;
const COMPARISON = /\b(?:than|more|less|most|best|greater|higher|lower|better|worse|mehr|weniger|besser|plus|moins|mieux|más|menos|mejor)\b/gi;
const REASONING = /\b(?:because|since|therefore|thus|hence|so|but|although|however|despite|due|weil|daher|aber|obwohl|car|donc|mais|porque|pero|aunque)\b/gi;
const STEP = /\b(?:first|then|next|after|before|until|finally|following|steps?|each|per|zuerst|dann|danach|schließlich|puis|ensuite|enfin|luego|después)\b/gi;

/**
 * What is measured of a text, each with the name that its weight has in `config/complexity.yaml`. All are cheap, and none knows what the text is about.
 * Of some seventy that were tried these were kept for what they mean as much as for what they told on subjects that they had not seen.
 */
export const FEATURES = [
  'log_words', 'distinct_words', 'chars_per_word', 'numbers', 'symbols', 'amounts', 'conditions', 'comparisons', 'negations', 'reasoning', 'steps', 'quotes', 'capitals',
] as const;
export type Feature = (typeof FEATURES)[number];

const FeatureWeight = Type.Object({ mean: Type.Number(), deviation: Type.Number({ exclusiveMinimum: 0 }), weight: Type.Number() }, { additionalProperties: false });
export const ComplexityFile = Type.Object({
  made: Type.Object({ by: Type.String(), from: Type.String(), as_of: Type.String() }, { additionalProperties: false }),
  calibration: Type.Object({ intercept: Type.Number(), slope: Type.Number() }, { additionalProperties: false }),
  features: Type.Object(Object.fromEntries(FEATURES.map((name) => [name, FeatureWeight])) as Record<Feature, typeof FeatureWeight>, { additionalProperties: false }),
}, { additionalProperties: false });

/** How much each feature says, and how the sum becomes a probability. Made by `npm run bench:router -- --train`. */
export type ComplexityWeights = Static<typeof ComplexityFile>;

/**
 * How hard a prompt is. Pure.
 *
 * @returns 0 to 1, on the scale of exam questions: 0.5 is the median of those that the weights were made from, 0.9 harder than nine tenths of them. What the
 *   economical model gets right below and above 0.5 is in the head of `config/complexity.yaml`
 */
export function complexityOf(text: string, weights: ComplexityWeights): number {
  const values = featuresOf(text);
  const score = FEATURES.reduce((sum, name, index) => {
    const { mean, deviation, weight } = weights.features[name];
    // Further out than anything that was learned from, a feature says no more.
    return sum + weight * Math.max(-4, Math.min(4, (values[index]! - mean) / deviation));
  }, 0);
  return 1 / (1 + Math.exp(-(weights.calibration.intercept + weights.calibration.slope * score)));
}

/** In the order of {@link FEATURES}. */
export function featuresOf(text: string): number[] {
  const seen = text.length <= 2 * LOOKED_AT_CHARS ? text : `${text.slice(0, LOOKED_AT_CHARS)}\n${text.slice(-LOOKED_AT_CHARS)}`;
  const words = seen.match(/[\p{L}\p{N}'’-]+/gu) ?? [];
  const count = Math.max(1, words.length);
  const per100Words = (pattern: RegExp): number => Math.log1p((100 * countOf(seen, pattern)) / count);
  return [
    Math.log(words.length + 1), words.length === 0 ? 1 : new Set(words.map((word) => word.toLowerCase())).size / count, words.reduce((sum, { length }) => sum + length, 0) / count, per100Words(/\d+(?:[.,]\d+)*/g),
    per100Words(/[\p{Sm}\p{Sk}\\{}_*/]/gu), Math.log1p(countOf(seen, /[\p{Sc}%]/gu)), Math.log1p(countOf(seen, CONDITION)), Math.log1p(countOf(seen, COMPARISON)), per100Words(NEGATION),
    Math.log1p(countOf(seen, REASONING)), Math.log1p(countOf(seen, STEP)), per100Words(/["“”«»]/g), per100Words(/\b\p{Lu}\p{Ll}+/gu),
  ];
}

function countOf(text: string, pattern: RegExp): number {
  return text.match(pattern)?.length ?? 0; // every pattern is global
}
