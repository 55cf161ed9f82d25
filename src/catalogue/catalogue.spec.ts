import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from '@jest/globals';
import { BUILT_IN_CONFIG } from '../shared/config-files.ts';
import { Catalogue, loadCatalogue, type ModelPrice, type TokenRates } from './catalogue.ts';
import { computeCostTicks, ratesFor, scaledPrice } from './token-price.ts';
import { parseUsdPerMillion } from '../shared/usd-ticks.ts';

const catalogue = loadCatalogue();
const rates = (input: string, cachedInput: string, output: string): TokenRates => ({ input: parseUsdPerMillion(input)!, cachedInput: parseUsdPerMillion(cachedInput)!, output: parseUsdPerMillion(output)! });
const listedWith = (endpoint: string): string[] => catalogue.listedNames.filter((name) => catalogue.resolve(name)!.model.endpoints.includes(endpoint));
const price = (base: TokenRates): ModelPrice => ({ base, revision: 0, perImage: 0n, longContext: undefined, priorityMultiplier: 2n, source: 'test', asOf: '2026-10' });

describe('computeCostTicks', () => {
  // The four recorded answers of reference/xai-api.md section 3.4.
  it.each([
    ['grok-3-mini', rates('0.30', '0.075', '0.50'), 12, 2, 1, 228, 1_176_500n],
    ['grok-3-mini, mostly cached', rates('0.30', '0.075', '0.50'), 291, 244, 26, 189, 1_399_000n],
    ['grok-4.20 non-reasoning', rates('1.25', '0.20', '2.50'), 719, 64, 72, 0, 10_115_500n],
    ['grok-4.3', rates('1.25', '0.20', '2.50'), 597, 576, 3, 0, 1_489_500n],
  ])('is the price that was recorded for %s', (_, base, inputTokens, cachedInputTokens, outputTokens, reasoningTokens, ticks) => {
    expect(computeCostTicks({ inputTokens, cachedInputTokens, outputTokens, reasoningTokens }, price(base), false)).toBe(ticks);
  });

  it('doubles all of it with priority', () => {
    const usage = { inputTokens: 600, cachedInputTokens: 512, outputTokens: 3, reasoningTokens: 50 };
    const { price: own } = catalogue.resolve('grok-4.3')!.model;
    expect(computeCostTicks(usage, own!, false)).toBe(3_449_000n);
    expect(computeCostTicks(usage, own!, true)).toBe(6_898_000n);
  });

  it.each(listedWith('chat_completions'))('charges %s the long-context price for every token from exactly 200,000 prompt tokens on, cached ones included', (name) => {
    const own = catalogue.resolve(name)!.model.price!;
    const usage = { inputTokens: 199_999, cachedInputTokens: 150_000, outputTokens: 10, reasoningTokens: 5 };
    const { input, cachedInput, output } = own.base;
    expect(computeCostTicks(usage, own, false)).toBe(49_999n * input + 150_000n * cachedInput + 15n * output);
    expect(computeCostTicks({ ...usage, inputTokens: 200_000 }, own, false)).toBe(2n * (50_000n * input + 150_000n * cachedInput + 15n * output));
    expect(ratesFor(own, 199_999)).toBe(own.base);
    expect(ratesFor(own, 200_000)).toBe(own.longContext!.rates);
  });

  it('stays exact where a number would not', () => {
    const usage = { inputTokens: Number.MAX_SAFE_INTEGER, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0 };
    expect(computeCostTicks(usage, price(rates('12.3457', '1.00', '1.00')), false)).toBe(9_007_199_254_740_991n * 123_457n);
  });
});

describe('the price of images', () => {
  const own: ModelPrice = { ...price(rates('1.25', '0.20', '2.50')), perImage: 200_000_000n };
  const none = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0 };

  it('stands beside that of tokens, and priority does not change it', () => {
    expect(computeCostTicks({ ...none, generatedImages: 3 }, own, false)).toBe(600_000_000n);
    expect(computeCostTicks({ ...none, generatedImages: 3 }, own, true)).toBe(600_000_000n);
    expect(computeCostTicks({ ...none, inputTokens: 10, outputTokens: 2, generatedImages: 1 }, own, true)).toBe(2n * (10n * 12_500n + 2n * 25_000n) + 200_000_000n);
    expect(computeCostTicks(none, own, false)).toBe(0n);
  });

  it('scales with that of its deployment, never below it', () => {
    expect(scaledPrice(own, 110n)).toMatchObject({ perImage: 220_000_000n, base: { input: 13_750n } });
    expect(scaledPrice({ ...own, perImage: 1n }, 110n).perImage).toBe(2n);
    expect(scaledPrice({ ...own, perImage: 0n }, 110n).perImage).toBe(0n);
  });
});

describe('config/models.yaml', () => {
  // reference/xai-api.md section 7: context, base, long context, efforts.
  it.each<[string, number, [string, string, string], [string, string, string], string[]]>([
    ['grok-4.7', 500_000, ['2.00', '0.50', '6.00'], ['4.00', '1.00', '12.00'], ['low', 'medium', 'high', 'xhigh']],
    ['grok-4.6', 500_000, ['2.00', '0.50', '6.00'], ['4.00', '1.00', '12.00'], ['low', 'medium', 'high', 'xhigh']],
    ['grok-4.5', 500_000, ['2.00', '0.30', '6.00'], ['4.00', '0.60', '12.00'], ['low', 'medium', 'high']],
    ['grok-4.3', 1_000_000, ['1.25', '0.20', '2.50'], ['2.50', '0.40', '5.00'], ['none', 'low', 'medium', 'high']],
    ['grok-4.20-0309-reasoning', 1_000_000, ['1.25', '0.20', '2.50'], ['2.50', '0.40', '5.00'], []],
    ['grok-4.20-0309-non-reasoning', 1_000_000, ['1.25', '0.20', '2.50'], ['2.50', '0.40', '5.00'], []],
    ['grok-4.20-multi-agent-0309', 1_000_000, ['1.25', '0.20', '2.50'], ['2.50', '0.40', '5.00'], ['low', 'medium', 'high', 'xhigh']],
    ['grok-build-0.1', 256_000, ['1.00', '0.20', '2.00'], ['2.00', '0.40', '4.00'], []],
  ])('says of %s what the vendor says', (id, contextTokens, base, long, efforts) => {
    const { model } = catalogue.resolve(id)!;
    expect(model).toMatchObject({ id, contextTokens });
    expect(model.price).toMatchObject({ base: rates(...base), longContext: { fromPromptTokens: 200_000, rates: rates(...long) }, priorityMultiplier: 2n });
    expect(model.reasoning?.efforts ?? []).toEqual(efforts);
  });

  it.each([
    ['grok-4.5-latest', 'grok-4.5'], ['grok-build-latest', 'grok-4.5'], ['grok-latest', 'grok-4.3'], ['grok-4.20', 'grok-4.20-0309-reasoning'],
    ['grok-4.20-non-reasoning-latest', 'grok-4.20-0309-non-reasoning'], ['grok-code-fast-1', 'grok-build-0.1'],
  ])('knows %s as %s', (alias, id) => {
    expect(catalogue.resolve(alias)).toMatchObject({ name: id, requested: alias, model: { id } });
  });

  it.each(['grok-beta', 'grok-pro', 'grok-enterprise'])('serves the seed’s name %s on some deployment', (name) => {
    const resolved = catalogue.resolve(name)!;
    expect(resolved).toMatchObject({ name, requested: name });
    expect(resolved.deployments.length).toBeGreaterThan(0);
  });

  // reference/xai-api.md section 7.
  it.each<[string, bigint]>([['grok-imagine-image-2.0', 400_000_000n], ['grok-imagine-image', 200_000_000n], ['grok-imagine-image-quality', 500_000_000n]])('charges for %s by the image alone, and serves it nowhere else', (id, perImage) => {
    expect(catalogue.resolve(id)!.model).toMatchObject({ endpoints: ['images'], contextTokens: undefined, price: { perImage, base: { input: 0n, cachedInput: 0n, output: 0n }, longContext: undefined } });
  });

  it('has one model without a price, which nobody sells and so nobody may call', () => {
    expect(catalogue.listedNames.filter((name) => catalogue.resolve(name)!.model.price === undefined)).toEqual(['v1']);
  });

  it.each(catalogue.listedNames.filter((name) => name !== 'v1'))('gives %s a source and a date for its price, and money to hold for each of its efforts', (name) => {
    const { price: own, reasoning } = catalogue.resolve(name)!.model;
    expect(own?.source).not.toBe('');
    expect(own?.asOf).toMatch(/^\d{4}-\d{2}$/);
    for (const effort of reasoning ? [...reasoning.efforts, reasoning.defaultEffort] : []) expect(reasoning!.allowanceTokens[effort]).toEqual(expect.any(Number));
  });

  it.each(['', 'gpt-4', 'GROK-BETA', 'grok-beta ', '__proto__', 'constructor', 'toString'])('knows no model %p', (name) => {
    expect(catalogue.resolve(name)).toBeUndefined();
  });
});

describe('Catalogue', () => {
  type File = ConstructorParameters<typeof Catalogue>[0];
  const usd = { input: '1.00', cached_input: '0.50', output: '2.00' };
  const model = (id: string, more: Partial<File['models'][number]> = {}): File['models'][number] =>
    ({ id, aliases: [], endpoints: ['chat_completions'], context_tokens: 1000, capabilities: [], refuses: [], price: { usd_per_million: usd, source: 's', as_of: '2026-10' }, ...more });
  const file = (more: Partial<File>): File => ({
    defaults: { estimate: { bytes_per_token: 2.5, image_tokens: 1 }, priority_multiplier: 2, output_prior: { p50: 1, p90: 2 }, output_tokens_least: 16 }, aliases: {}, models: [model('m')],
    deployments: [{ id: 'd', base_url: 'env', models: ['*'], region: 'global', accelerator: 'shared' }], ...more,
  });

  it.each<[string, Partial<File>, RegExp]>([
    ['two models of one name', { models: [model('m'), model('n', { aliases: ['m'] })] }, /stands for two models/],
    ['an alias that hides a model', { aliases: { m: { model: 'm' } } }, /stands for two models/],
    ['an alias of nothing', { aliases: { a: { model: 'gone' } } }, /unknown model gone/],
    ['a price of zero', { models: [model('m', { price: { usd_per_million: { ...usd, output: '0.00' }, source: 's', as_of: '2026-10' } })] }, /no price/],
    ['a price of parts of a tick', { models: [model('m', { price: { usd_per_million: { ...usd, cached_input: '0.00001' }, source: 's', as_of: '2026-10' } })] }, /no price/],
  ])('refuses %s', (_, more, message) => {
    expect(() => new Catalogue(file(more))).toThrow(message);
  });

  type Price = NonNullable<File['models'][number]['price']>;
  const priceOf = (given: Partial<Price>): ModelPrice => new Catalogue(file({ models: [model('m', { price: { source: 's', as_of: '2026-10', ...given } })] })).resolve('m')!.model.price!;

  it.each<[string, Partial<Price>, object]>([
    ['by tokens', { usd_per_million: usd }, { base: { input: 10_000n, cachedInput: 5_000n, output: 20_000n }, perImage: 0n }],
    ['by input alone, cached or not', { usd_per_million: { input: '0.02' } }, { base: { input: 200n, cachedInput: 200n, output: 0n }, perImage: 0n }],
    ['by the image', { usd_per_image: '0.04' }, { base: { input: 0n, cachedInput: 0n, output: 0n }, perImage: 400_000_000n }],
    ['by both', { usd_per_million: usd, usd_per_image: '0.0000000001' }, { base: { output: 20_000n }, perImage: 1n }],
  ])('knows a price %s', (_, given, expected) => {
    expect(priceOf(given)).toMatchObject({ ...expected, longContext: undefined, priorityMultiplier: 2n });
  });

  it.each<[string, Partial<Price>, RegExp]>([
    ['of nothing', {}, /m: a price needs usd_per_million or usd_per_image/], ['of zero for an image', { usd_per_image: '0.00' }, /0\.00 is no price of whole ticks per image/], ['of parts of a tick for an image', { usd_per_image: '0.00000000001' }, /no price of whole ticks per image/],
    ['of zero for input alone', { usd_per_million: { input: '0' } }, /no price of whole ticks per token/], ['of zero for long context', { usd_per_million: usd, long_context: { from_prompt_tokens: 10, usd_per_million: { ...usd, input: '0' } } }, /no price of whole ticks per token/],
  ])('refuses a price %s', (_, given, message) => {
    expect(() => priceOf(given)).toThrow(message);
  });

  it('gives a name the deployments that serve it', () => {
    const deployment = (id: string, models: string[]): File['deployments'][number] => ({ id, base_url: 'env', models, region: 'global', accelerator: 'shared' });
    const own = new Catalogue(file({ aliases: { a: { model: 'm' } }, deployments: [deployment('all', ['*']), deployment('alias', ['a']), deployment('model', ['m'])] }));
    const serving = (name: string): string[] => own.resolve(name)!.deployments.map(({ id }) => id);
    expect(serving('a')).toEqual(['all', 'alias']);
    expect(serving('m')).toEqual(['all', 'model']);
  });
});

describe('loadCatalogue', () => {
  const folder = mkdtempSync(join(tmpdir(), 'novix-catalogue-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const own = readFileSync(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8');
  const PRICE = 'price: { usd_per_image: "0.02", source: "docs.x.ai pricing page (copy of Oct 2026)", as_of: "2026-10" }';
  const loadWith = (price: string): Catalogue => {
    expect(own.split(PRICE)).toHaveLength(2);
    writeFileSync(join(folder, 'models.yaml'), own.replace(PRICE, `price: { ${price}, source: "s", as_of: "2026-10" }`));
    return loadCatalogue(folder);
  };

  it.each<[string, object]>([
    ['usd_per_million: { input: "0.02" }', { base: { input: 200n, cachedInput: 200n, output: 0n }, perImage: 0n }], ['usd_per_image: "0.03"', { perImage: 300_000_000n }],
    ['usd_per_image: "0.03", usd_per_million: { input: "1.00", cached_input: "0.50", output: "2.00" }', { base: { output: 20_000n }, perImage: 300_000_000n }],
  ])('reads %s', (text, expected) => {
    expect(loadWith(text).resolve('grok-imagine-image')!.model.price).toMatchObject(expected);
  });

  it.each([
    ['usd_per_image: 0.03'], ['usd_per_image: "-0.03"'], ['usd_per_image: "1e-2"'], ['usd_per_million: { input: "1.00", output: "2.00" }'], ['usd_per_million: { input: "1.00", cached_input: "0.50" }'], ['usd_per_million: { output: "1.00" }'], ['usd_per_million: {}'], ['usd_per_million: { input: 1 }'],
    ['usd_per_video: "1"'],
  ])('refuses %s', (text) => {
    expect(() => loadWith(text)).toThrow(/^config\/models\.yaml: \/models\/\d+\/price/);
  });

  it('refuses a price of nothing', () => {
    expect(() => loadWith('long_context: { from_prompt_tokens: 1, usd_per_million: { input: "1.00", cached_input: "0.50", output: "2.00" } }')).toThrow(/grok-imagine-image: a price needs/);
  });
});
