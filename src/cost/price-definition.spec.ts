import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { loadCatalogue, type Model, type ModelPrice, type TokenRates } from '../catalogue/catalogue.ts';
import { findPriceFault, isSamePrice, readListedPrice, toModelPrice, toPriceDefinition, type PriceDefinition } from './price-definition.ts';

const catalogue = loadCatalogue();
const MODEL = catalogue.resolve('grok-4.3')!.model;
const IMAGES = catalogue.resolve('grok-imagine-image')!.model;
/** Has no price in the reviewed file. */
const EMBEDDINGS = catalogue.resolve('v1')!.model;
const TIERLESS: Model = { ...MODEL, price: { ...MODEL.price!, longContext: undefined } };
const UNPRICED: Model = { ...MODEL, price: undefined };
const AT = new Date('2026-11-24T12:00:00Z');
const GOOD: PriceDefinition = { input_usd_per_million: '1.25', cached_input_usd_per_million: '0.20', output_usd_per_million: '2.50' };
const LISTED = { id: 'grok-4.3', prompt_text_token_price: 12_500, cached_prompt_text_token_price: 2_000, completion_text_token_price: 25_000 };
const LONG = { long_context_threshold: 200_000, prompt_text_token_price_long_context: 25_000, cached_prompt_text_token_price_long_context: 4_000, completion_text_token_price_long_context: 50_000 };

const priceOf = (definition: PriceDefinition, model = MODEL): ModelPrice | undefined => toModelPrice(definition, model, 7, 'admin', AT);

const tick = fc.bigInt({ min: 1n, max: 1_000_000_000n });
const rates: fc.Arbitrary<TokenRates> = fc.record({ input: tick, cachedInput: tick, output: tick });
const long = fc.option(fc.record({ fromPromptTokens: fc.integer({ min: 1, max: 2_000_000 }), rates }), { nil: undefined });

describe('toModelPrice', () => {
  it('takes decimals of USD for whole ticks per token', () => {
    expect(priceOf({ ...GOOD, long_context: { from_prompt_tokens: 5, input_usd_per_million: '2.50', cached_input_usd_per_million: '0.40', output_usd_per_million: '5' }, image_usd: '0.02' })).toEqual({
      base: { input: 12_500n, cachedInput: 2_000n, output: 25_000n }, perImage: 200_000_000n, longContext: { fromPromptTokens: 5, rates: { input: 25_000n, cachedInput: 4_000n, output: 50_000n } },
      priorityMultiplier: 2n, revision: 7, source: 'admin', asOf: '2026-11-24T12:00:00.000Z',
    });
    expect(priceOf({ ...GOOD, input_usd_per_million: '0.0001' })?.base.input).toBe(1n);
  });

  it('takes cached input for as dear as any, where nothing is said of it', () => {
    expect(priceOf({ input_usd_per_million: '1.25', output_usd_per_million: '2.50' })?.base).toEqual({ input: 12_500n, cachedInput: 12_500n, output: 25_000n });
  });

  it.each<[string, PriceDefinition]>([
    ['nothing', {}], ['output alone', { output_usd_per_million: '1.00' }], ['a long context alone', { long_context: { from_prompt_tokens: 5, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '1' } }],
    ['free input', { ...GOOD, input_usd_per_million: '0' }], ['a fraction of a tick', { ...GOOD, input_usd_per_million: '0.00005' }], ['a fraction of a tick of output', { ...GOOD, output_usd_per_million: '2.50005' }], ['a fraction of a tick of cached input', { ...GOOD, cached_input_usd_per_million: '0.00001' }],
    ['what is no number', { ...GOOD, input_usd_per_million: 'NaN' }], ['a negative number', { ...GOOD, output_usd_per_million: '-1' }], ['an exponent', { ...GOOD, input_usd_per_million: '1e3' }], ['thirty digits', { ...GOOD, input_usd_per_million: '9'.repeat(30) }],
    ['free images', { image_usd: '0' }], ['free images beside tokens', { ...GOOD, image_usd: '0.00' }], ['a fraction of a tick an image', { image_usd: '0.00000000001' }],
    ['a long context with free input', { ...GOOD, long_context: { from_prompt_tokens: 5, input_usd_per_million: '0', cached_input_usd_per_million: '1', output_usd_per_million: '1' } }], ['a long context with a fraction of a tick', { ...GOOD, long_context: { from_prompt_tokens: 5, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '0.00001' } }],
  ])('takes %s for no price', (_, definition) => {
    expect(priceOf(definition)).toBeUndefined();
  });

  it('is undone by toPriceDefinition, to the tick', () => {
    fc.assert(fc.property(rates, long, fc.option(tick, { nil: 0n }), (base, longContext, perImage) => {
      const price: ModelPrice = { base, perImage, longContext, priorityMultiplier: 2n, revision: 7, source: 'admin', asOf: AT.toISOString() };
      expect(priceOf(toPriceDefinition(price))).toEqual(price);
    }));
  });

  it('gives back what the reviewed file says, for every model that has a price', () => {
    for (const model of catalogue.reviewedModels) {
      const { price } = model;
      if (price === undefined) continue;
      const { base, perImage, longContext } = toModelPrice(toPriceDefinition(price), model, 0, 'config', AT)!;
      expect({ base, perImage, longContext }).toEqual({ base: price.base, perImage: price.perImage, longContext: price.longContext });
    }
    expect(catalogue.reviewedModels.some(({ price }) => price !== undefined)).toBe(true);
  });

  it('gives back the price of embeddings, which bill input alone', () => {
    const price = priceOf({ input_usd_per_million: '0.10' }, EMBEDDINGS)!;
    expect(price.base).toEqual({ input: 1_000n, cachedInput: 1_000n, output: 0n });
    expect(priceOf(toPriceDefinition(price), EMBEDDINGS)).toEqual(price);
  });
});

describe('findPriceFault', () => {
  const LONG_RATES = { from_prompt_tokens: 5, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '1' };
  const BOTH: Model = { ...MODEL, endpoints: [...MODEL.endpoints, 'images'] };

  it.each<[string, Model, PriceDefinition]>([
    ['text', MODEL, GOOD], ['text, and of images beside', MODEL, { ...GOOD, image_usd: '0.02' }], ['text without cached input', MODEL, { input_usd_per_million: '1', output_usd_per_million: '1' }], ['long text', MODEL, { ...GOOD, long_context: LONG_RATES }],
    ['images', IMAGES, { image_usd: '0.02' }], ['embeddings', EMBEDDINGS, { input_usd_per_million: '0.10' }], ['text and images', BOTH, { ...GOOD, image_usd: '0.02' }],
  ])('finds none in a whole price of %s', (_, model, definition) => {
    expect(findPriceFault(definition, model)).toBeUndefined();
  });

  it.each<[string, string, Model, PriceDefinition]>([
    ['input_usd_per_million', 'an image price of a model that writes text', MODEL, { image_usd: '0.01' }], ['output_usd_per_million', 'input alone, of a model that writes text', MODEL, { input_usd_per_million: '1.25' }], ['input_usd_per_million', 'output alone', MODEL, { output_usd_per_million: '1.25' }],
    ['output_usd_per_million', 'free output', MODEL, { ...GOOD, output_usd_per_million: '0' }], ['cached_input_usd_per_million', 'free cached input', MODEL, { ...GOOD, cached_input_usd_per_million: '0.00' }],
    ['image_usd', 'token prices of a model that makes images', IMAGES, { input_usd_per_million: '1.25' }], ['image_usd', 'token prices of a model that makes both', BOTH, GOOD], ['image_usd', 'free images', IMAGES, { image_usd: '0.0' }], ['input_usd_per_million', 'output beside images', IMAGES, { image_usd: '0.1', output_usd_per_million: '1' }],
    ['input_usd_per_million', 'nothing for embeddings', EMBEDDINGS, {}], ['input_usd_per_million', 'an image price of embeddings', EMBEDDINGS, { image_usd: '1' }], ['output_usd_per_million', 'free output of embeddings', EMBEDDINGS, { input_usd_per_million: '1', output_usd_per_million: '0' }],
    ...(['input_usd_per_million', 'cached_input_usd_per_million', 'output_usd_per_million'] as const).map((field): [string, string, Model, PriceDefinition] => [`long_context.${field}`, `long prompts with ${field} free`, MODEL, { ...GOOD, long_context: { ...LONG_RATES, [field]: '0' } }]),
  ])('names %s for %s', (field, _, model, definition) => {
    expect(findPriceFault(definition, model)?.field).toBe(field);
    expect(priceOf(definition, model)).toBeUndefined();
  });
});

describe('isSamePrice', () => {
  it('goes by value, and not by how it is written', () => {
    expect(isSamePrice(GOOD, { output_usd_per_million: '2.5', cached_input_usd_per_million: '0.2', input_usd_per_million: '1.250' }, MODEL)).toBe(true);
    expect(isSamePrice({ input_usd_per_million: '1', output_usd_per_million: '2' }, { input_usd_per_million: '1', cached_input_usd_per_million: '1.00', output_usd_per_million: '2' }, MODEL)).toBe(true);
  });

  it.each<[PriceDefinition]>([[{ ...GOOD, output_usd_per_million: '2.51' }], [{ ...GOOD, image_usd: '1' }], [{ ...GOOD, long_context: { from_prompt_tokens: 5, input_usd_per_million: '1', cached_input_usd_per_million: '1', output_usd_per_million: '1' } }], [{}]])('tells %j from another', (other) => {
    expect(isSamePrice(GOOD, other, MODEL)).toBe(false);
  });

  it('takes what is no price for the same as nothing', () => {
    expect(isSamePrice({}, {}, MODEL)).toBe(false);
  });
});

describe('readListedPrice', () => {
  it('reads ticks per token', () => {
    expect(readListedPrice(LISTED, TIERLESS)).toEqual(GOOD);
    expect(readListedPrice({ ...LISTED, ...LONG }, MODEL)).toEqual({ ...GOOD, long_context: { from_prompt_tokens: 200_000, input_usd_per_million: '2.50', cached_input_usd_per_million: '0.40', output_usd_per_million: '5.00' } });
  });

  it.each([[0], [undefined], [null]])('has no long context where the threshold is %p; where the reviewed file has one, it is not believed', (threshold) => {
    const listed = { ...LISTED, ...LONG, long_context_threshold: threshold };
    for (const model of [TIERLESS, UNPRICED]) expect(readListedPrice(listed, model)).toEqual(GOOD);
    expect(readListedPrice(listed, MODEL)).toBeUndefined();
  });

  it.each([
    ...[-1, 1.5, '200000', true, {}, Number.NaN, 1e300].map((threshold) => ({ long_context_threshold: threshold })),
    ...['prompt_text_token_price_long_context', 'cached_prompt_text_token_price_long_context', 'completion_text_token_price_long_context'].flatMap((field) => [-1, 0, 0.5, undefined, null, '4000'].map((value) => ({ [field]: value }))),
  ])('is disbelieved as a whole where its long context has %j', (broken) => {
    for (const model of [MODEL, TIERLESS, UNPRICED]) expect(readListedPrice({ ...LISTED, ...LONG, ...broken }, model)).toBeUndefined();
  });

  it('reads the price of a model that the reviewed file has none for, where it is whole', () => {
    expect(readListedPrice({ ...LISTED, ...LONG }, UNPRICED)).toMatchObject(GOOD);
    expect(readListedPrice({ ...LISTED, completion_text_token_price: undefined }, UNPRICED)).toBeUndefined();
    expect(readListedPrice({ id: 'v1', prompt_text_token_price: 1_000 }, EMBEDDINGS)).toEqual({ input_usd_per_million: '0.10' });
    for (const price of [0, -1, undefined, '1000']) expect(readListedPrice({ ...LISTED, prompt_text_token_price: price }, EMBEDDINGS)).toBeUndefined();
    expect(readListedPrice(LISTED, { ...IMAGES, price: undefined })).toBeUndefined();
  });

  it.each([[undefined], [null], [5], ['grok-4.3'], [true], [[]], [{}], [{ id: 'grok-4.3' }]])('reads nothing in %p', (entry) => {
    expect(readListedPrice(entry, MODEL)).toBeUndefined();
  });

  it('reads nothing for a model that sells no tokens', () => {
    expect(readListedPrice(LISTED, IMAGES)).toBeUndefined();
  });

  it('never makes a model free, whatever the list says', () => {
    const anything = fc.oneof(fc.anything(), fc.double(), fc.integer(), fc.integer({ min: 1, max: 100_000 }), fc.bigInt());
    const entry = fc.record({
      id: fc.constant('grok-4.3'), prompt_text_token_price: anything, cached_prompt_text_token_price: anything, completion_text_token_price: anything, long_context_threshold: anything,
      prompt_text_token_price_long_context: anything, cached_prompt_text_token_price_long_context: anything, completion_text_token_price_long_context: anything,
    }, { requiredKeys: [] });
    fc.assert(fc.property(entry, fc.constantFrom(MODEL, TIERLESS, UNPRICED), (listed, model) => {
      const definition = readListedPrice(listed, model);
      if (definition === undefined) return;
      const price = priceOf(definition);
      expect(price).toBeDefined();
      for (const { input, cachedInput, output } of [price!.base, ...(price!.longContext === undefined ? [] : [price!.longContext.rates])]) for (const ticks of [input, cachedInput, output]) expect(ticks).toBeGreaterThan(0n);
    }), { numRuns: 1_000 });
  });

  it('reads back every price that it may be given', () => {
    fc.assert(fc.property(rates, ({ input, cachedInput, output }) => {
      const definition = readListedPrice({ prompt_text_token_price: Number(input), cached_prompt_text_token_price: Number(cachedInput), completion_text_token_price: Number(output) }, TIERLESS)!;
      expect(priceOf(definition)!.base).toEqual({ input, cachedInput, output });
    }));
  });
});
