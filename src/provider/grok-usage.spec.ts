import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { loadCatalogue, type ModelPrice } from '../catalogue/catalogue.ts';
import { computeCostTicks, type ProviderUsage } from '../catalogue/token-price.ts';
import { parseUsdPerMillion, TICKS_MAX } from '../shared/usd-ticks.ts';
import { FREE_OF_CHARGE, readChatUsage, readEmbeddingUsage, readImageUsage, readResponseUsage } from './grok-usage.ts';

const RECORDED = {
  prompt_tokens: 600, completion_tokens: 3, total_tokens: 653, num_sources_used: 0, cost_in_usd_ticks: 3_449_000,
  prompt_tokens_details: { text_tokens: 600, audio_tokens: 0, image_tokens: 0, cached_tokens: 512 },
  completion_tokens_details: { reasoning_tokens: 50, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
};

describe('readChatUsage', () => {
  it('reads what was recorded: reasoning stands beside the completion', () => {
    expect(readChatUsage(RECORDED)).toEqual({ inputTokens: 600, cachedInputTokens: 512, outputTokens: 3, reasoningTokens: 50, costTicks: 3_449_000n });
  });

  it.each([
    ['without details', { prompt_tokens: 5, completion_tokens: 2 }],
    ['with empty details', { prompt_tokens: 5, completion_tokens: 2, prompt_tokens_details: {}, completion_tokens_details: {} }],
    ['with null details', { prompt_tokens: 5, completion_tokens: 2, prompt_tokens_details: null, completion_tokens_details: null, cost_in_usd_ticks: null }],
  ])('takes counts %s: no cached, no reasoning, no price of its own', (_, usage) => {
    expect(readChatUsage(usage)).toEqual({ inputTokens: 5, cachedInputTokens: 0, outputTokens: 2, reasoningTokens: 0, costTicks: undefined });
  });

  it('takes a price of zero, which is that of a call not billed', () => {
    expect(readChatUsage({ ...RECORDED, cost_in_usd_ticks: 0 })?.costTicks).toBe(0n);
  });

  it('takes all of a prompt from the cache', () => {
    expect(readChatUsage({ ...RECORDED, prompt_tokens_details: { cached_tokens: 600 } })?.cachedInputTokens).toBe(600);
  });

  const bad: unknown[] = [-1, 1.5, '7', Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 1e300, true, {}, []];
  it.each(['prompt_tokens', 'completion_tokens', 'cost_in_usd_ticks'])('trusts nothing where %s is negative, fractional, mistyped or huge', (field) => {
    for (const value of bad) expect(readChatUsage({ ...RECORDED, [field]: value })).toBeUndefined();
  });

  it.each([['prompt_tokens_details', 'cached_tokens'], ['completion_tokens_details', 'reasoning_tokens']])('trusts nothing where %s.%s is', (details, field) => {
    for (const value of bad) expect(readChatUsage({ ...RECORDED, [details]: { [field]: value } })).toBeUndefined();
  });

  it.each(['prompt_tokens_details', 'completion_tokens_details'])('trusts nothing where %s is no object', (details) => {
    for (const value of ['x', 7, [], true]) expect(readChatUsage({ ...RECORDED, [details]: value })).toBeUndefined();
  });

  it.each(['prompt_tokens', 'completion_tokens'])('trusts nothing without %s', (field) => {
    expect(readChatUsage({ ...RECORDED, [field]: undefined })).toBeUndefined();
    expect(readChatUsage({ ...RECORDED, [field]: null })).toBeUndefined();
  });

  it('trusts nothing where more is cached than was sent', () => {
    expect(readChatUsage({ ...RECORDED, prompt_tokens_details: { cached_tokens: 601 } })).toBeUndefined();
  });

  it('trusts no counts so large that the database could not hold their price', () => {
    const price = loadCatalogue().resolve('grok-4.7')!.model.price!;
    for (let exponent = 6; exponent <= 15; exponent += 1) {
      const usage = readChatUsage({ prompt_tokens: 10 ** exponent, completion_tokens: 10 ** exponent, completion_tokens_details: { reasoning_tokens: 10 ** exponent } });
      expect(usage ? computeCostTicks(usage, price, true) : 0n).toBeLessThanOrEqual(TICKS_MAX);
    }
  });

  it('finds no usage in what is no object', () => {
    for (const value of [undefined, null, 7, 'x', [], [RECORDED]]) expect(readChatUsage(value)).toBeUndefined();
  });
});

/** The same call as a chat completion reports it and as a response does: there the reasoning is part of the output. */
const inBothDialects = (input: number, cached: number, completion: number, reasoning: number, ticks?: number): [object, object] => [
  { prompt_tokens: input, completion_tokens: completion, total_tokens: input + completion + reasoning, prompt_tokens_details: { cached_tokens: cached }, completion_tokens_details: { reasoning_tokens: reasoning }, cost_in_usd_ticks: ticks },
  { input_tokens: input, output_tokens: completion + reasoning, total_tokens: input + completion + reasoning, input_tokens_details: { cached_tokens: cached }, output_tokens_details: { reasoning_tokens: reasoning }, cost_in_usd_ticks: ticks },
];
const priceOf = (input: string, cachedInput: string, output: string): ModelPrice => ({
  base: { input: parseUsdPerMillion(input)!, cachedInput: parseUsdPerMillion(cachedInput)!, output: parseUsdPerMillion(output)! }, perImage: 0n, revision: 0, longContext: undefined, priorityMultiplier: 2n, source: 'test', asOf: '2026-10',
});
const counts = ({ inputTokens, cachedInputTokens, outputTokens, reasoningTokens, generatedImages = 0 }: ProviderUsage): number[] => [inputTokens, cachedInputTokens, outputTokens, reasoningTokens, generatedImages];

describe('usage in both dialects', () => {
  // The four recorded answers of reference/xai-api.md section 3.4.
  it.each<[string, ModelPrice, number, number, number, number, number]>([
    ['grok-3-mini', priceOf('0.30', '0.075', '0.50'), 12, 2, 1, 228, 1_176_500],
    ['grok-3-mini, mostly cached', priceOf('0.30', '0.075', '0.50'), 291, 244, 26, 189, 1_399_000],
    ['grok-4.20 non-reasoning', priceOf('1.25', '0.20', '2.50'), 719, 64, 72, 0, 10_115_500],
    ['grok-4.3', priceOf('1.25', '0.20', '2.50'), 597, 576, 3, 0, 1_489_500],
  ])('has the price that was recorded for %s', (_, price, input, cached, completion, reasoning, ticks) => {
    const [chat, response] = inBothDialects(input, cached, completion, reasoning, ticks);
    for (const usage of [readChatUsage(chat)!, readResponseUsage(response)!]) {
      expect(usage).toEqual({ inputTokens: input, cachedInputTokens: cached, outputTokens: completion, reasoningTokens: reasoning, costTicks: BigInt(ticks) });
      expect(computeCostTicks(usage, price, false)).toBe(usage.costTicks);
    }
  });

  it('comes out the same, whatever the counts', () => {
    const tokens = fc.nat(1_000_000);
    fc.assert(fc.property(tokens, tokens, tokens, tokens, fc.option(tokens, { nil: undefined }), (input, more, completion, reasoning, ticks) => {
      const [chat, response] = inBothDialects(input + more, input, completion, reasoning, ticks);
      expect(readResponseUsage(response)).toEqual({ inputTokens: input + more, cachedInputTokens: input, outputTokens: completion, reasoningTokens: reasoning, costTicks: ticks === undefined ? undefined : BigInt(ticks) });
      expect(readChatUsage(chat)).toEqual(readResponseUsage(response));
    }), { numRuns: 500 });
  });

  it('never has a count below zero, nor more cached than sent, whatever it says', () => {
    const count = fc.oneof(fc.integer({ min: -5, max: 60 }), fc.constantFrom(undefined, null, 1.5, '7', Number.NaN, 2 ** 53, -0, true));
    const usage = fc.record({
      prompt_tokens: count, completion_tokens: count, input_tokens: count, output_tokens: count, cost_in_usd_ticks: count,
      prompt_tokens_details: fc.option(fc.record({ cached_tokens: count })), completion_tokens_details: fc.option(fc.record({ reasoning_tokens: count })), input_tokens_details: fc.option(fc.record({ cached_tokens: count })), output_tokens_details: fc.option(fc.record({ reasoning_tokens: count })),
    }, { requiredKeys: [] });
    fc.assert(fc.property(usage, fc.array(fc.constant({}), { maxLength: 3 }), (given, data) => {
      for (const read of [readChatUsage(given), readResponseUsage(given), readEmbeddingUsage({ usage: given }), readImageUsage({ data, usage: given })]) {
        if (read === undefined) continue;
        expect(counts(read).every((one) => Number.isSafeInteger(one) && one >= 0)).toBe(true);
        expect(read.cachedInputTokens).toBeLessThanOrEqual(read.inputTokens);
        expect(read.costTicks ?? 0n).toBeGreaterThanOrEqual(0n);
      }
    }), { numRuns: 2_000 });
  });
});

describe('readResponseUsage', () => {
  const RESPONSE = {
    input_tokens: 600, input_tokens_details: { cached_tokens: 512 }, output_tokens: 53, output_tokens_details: { reasoning_tokens: 50 }, total_tokens: 653, num_sources_used: 0, num_server_side_tools_used: 0, cost_in_usd_ticks: 3_449_000,
  };

  it('reads what was recorded: reasoning is part of the output, and taken out of it', () => {
    expect(readResponseUsage(RESPONSE)).toEqual({ inputTokens: 600, cachedInputTokens: 512, outputTokens: 3, reasoningTokens: 50, costTicks: 3_449_000n });
    expect(readResponseUsage(RESPONSE)).toEqual(readChatUsage(RECORDED));
  });

  it.each([
    ['without details', { input_tokens: 5, output_tokens: 2 }], ['with empty details', { input_tokens: 5, output_tokens: 2, input_tokens_details: {}, output_tokens_details: {} }],
    ['with null details', { input_tokens: 5, output_tokens: 2, input_tokens_details: null, output_tokens_details: null, cost_in_usd_ticks: null }],
  ])('takes counts %s: no cached, no reasoning, no price of its own', (_, usage) => {
    expect(readResponseUsage(usage)).toEqual({ inputTokens: 5, cachedInputTokens: 0, outputTokens: 2, reasoningTokens: 0, costTicks: undefined });
  });

  it('takes an answer that was all reasoning', () => {
    expect(readResponseUsage({ ...RESPONSE, output_tokens: 50 })).toMatchObject({ outputTokens: 0, reasoningTokens: 50 });
  });

  it.each<[string, object]>([
    ['more reasoning than output', { output_tokens: 49 }], ['more cached than sent', { input_tokens_details: { cached_tokens: 601 } }], ['the counts of a chat alone', { input_tokens: undefined, output_tokens: undefined, prompt_tokens: 5, completion_tokens: 2 }],
  ])('trusts nothing with %s', (_, change) => {
    expect(readResponseUsage({ ...RESPONSE, ...change })).toBeUndefined();
  });

  const bad: unknown[] = [-1, 1.5, '7', Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 1_000_000_001, true, {}, []];
  it.each(['input_tokens', 'output_tokens'])('trusts nothing where %s is missing, negative, fractional, mistyped or huge', (field) => {
    for (const value of [...bad, undefined, null]) expect(readResponseUsage({ ...RESPONSE, [field]: value })).toBeUndefined();
  });

  it.each([['input_tokens_details', 'cached_tokens'], ['output_tokens_details', 'reasoning_tokens']])('trusts nothing where %s.%s is, or where they are no object', (details, field) => {
    for (const value of bad) expect(readResponseUsage({ ...RESPONSE, [details]: { [field]: value } })).toBeUndefined();
    for (const value of ['x', 7, [], true]) expect(readResponseUsage({ ...RESPONSE, [details]: value })).toBeUndefined();
  });

  it('trusts nothing with a price that is none', () => {
    for (const value of [-1, 1.5, '7', 2 ** 53, {}]) expect(readResponseUsage({ ...RESPONSE, cost_in_usd_ticks: value })).toBeUndefined();
  });

  it('finds no usage in what is no object', () => {
    for (const value of [undefined, null, 7, 'x', [], [RESPONSE]]) expect(readResponseUsage(value)).toBeUndefined();
  });
});

describe('readEmbeddingUsage', () => {
  it.each<[object, object]>([
    [{ prompt_tokens: 7, total_tokens: 7 }, { inputTokens: 7, costTicks: undefined }], [{ prompt_tokens: 0 }, { inputTokens: 0, costTicks: undefined }], [{ prompt_tokens: 7, cost_in_usd_ticks: 700 }, { inputTokens: 7, costTicks: 700n }],
  ])('reads %j: input alone', (usage, expected) => {
    expect(readEmbeddingUsage({ usage })).toEqual({ cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, ...expected });
  });

  it.each([undefined, null, 7, [], {}, { total_tokens: 7 }, { prompt_tokens: -1 }, { prompt_tokens: '7' }, { prompt_tokens: 7, cost_in_usd_ticks: -1 }])('trusts nothing in %j', (usage) => {
    expect(readEmbeddingUsage({ usage })).toBeUndefined();
  });
});

describe('readImageUsage', () => {
  it('counts images, and takes the provider’s price where it gives one', () => {
    expect(readImageUsage({ data: [{ url: 'a' }, { url: 'b' }] })).toEqual({ inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, generatedImages: 2, costTicks: undefined });
    expect(readImageUsage({ data: [{ b64_json: 'a' }], usage: { cost_in_usd_ticks: 400_000_000 } })).toMatchObject({ generatedImages: 1, costTicks: 400_000_000n });
    expect(readImageUsage({ data: [], usage: null })).toMatchObject({ generatedImages: 0, costTicks: undefined });
  });

  it('prices them by the catalogue', () => {
    const { price } = loadCatalogue().resolve('grok-imagine-image-2.0')!.model;
    expect(computeCostTicks(readImageUsage({ data: [{}, {}, {}] })!, price!, false)).toBe(1_200_000_000n);
  });

  it.each<object>([{}, { data: null }, { data: {} }, { data: 'x' }, { usage: { cost_in_usd_ticks: 1 } }, { data: [{}], usage: { cost_in_usd_ticks: -1 } }, { data: [{}], usage: { cost_in_usd_ticks: '1' } }])('trusts nothing in %j', (answer) => {
    expect(readImageUsage(answer as Record<string, unknown>)).toBeUndefined();
  });
});

describe('FREE_OF_CHARGE', () => {
  it('costs nothing, by the provider’s word and by our own arithmetic', () => {
    expect(FREE_OF_CHARGE.costTicks).toBe(0n);
    expect(computeCostTicks(FREE_OF_CHARGE, loadCatalogue().resolve('grok-4.7')!.model.price!, true)).toBe(0n);
  });
});
