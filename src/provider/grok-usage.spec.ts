import { describe, expect, it } from '@jest/globals';
import { loadCatalogue } from '../catalogue/catalogue.ts';
import { computeCostTicks } from '../catalogue/token-price.ts';
import { TICKS_MAX } from '../shared/usd-ticks.ts';
import { readChatUsage } from './grok-usage.ts';

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
