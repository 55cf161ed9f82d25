import { EMULATED_MODELS, resolveModel, type EmulatedModel, type ResolvedModel } from './emulated-models.ts';
import type { ModelPrices, TokenPrices } from './emulated-price.ts';

/** Where the emulated host stands: the US host serves few models, under no other names, and asks more for them. */
export type EmulatorRegion = 'global' | 'us';

const US_MODELS: ReadonlySet<string> = new Set(['grok-4.7', 'grok-4.6']);
const US_PRICE_FACTOR = 1.1;

/** The text models of one host. */
export interface Catalogue {
  readonly models: readonly EmulatedModel[];
  resolve(name: string): ResolvedModel | undefined;
}

export function catalogueOf(region: EmulatorRegion): Catalogue {
  if (region === 'global') return { models: EMULATED_MODELS, resolve: resolveModel };
  const models = EMULATED_MODELS.filter(({ id }) => US_MODELS.has(id)).map((model) => ({ ...model, aliases: [], prices: usPrices(model.prices) }));
  const byId = new Map(models.map((model) => [model.id, { model }]));
  return { models, resolve: (name) => byId.get(name) };
}

function usPrices({ longContext, ...base }: ModelPrices): ModelPrices {
  return { ...raised(base), ...(longContext !== undefined && { longContext: { ...longContext, ...raised(longContext) } }) };
}

/** Whole ticks for every price there is; the rounding only takes away what floating point adds. */
function raised({ input, cachedInput, output }: TokenPrices): TokenPrices {
  const [raisedInput, raisedCachedInput, raisedOutput] = [input, cachedInput, output].map((ticks) => Math.round(ticks * US_PRICE_FACTOR));
  return { input: raisedInput!, cachedInput: raisedCachedInput!, output: raisedOutput! };
}
