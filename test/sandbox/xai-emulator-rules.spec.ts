import { describe, expect, it } from '@jest/globals';
import { costInUsdTicks } from '../../src/sandbox/emulated-price.ts';
import { minimalValue } from '../../src/sandbox/emulated-schema.ts';
import { countTokens, splitTokens } from '../../src/sandbox/emulated-tokens.ts';
import { NO_REASONING, complete, pricesOf } from './emulator-client.ts';

describe('price', () => {
  const mini = { input: 3_000, cachedInput: 750, output: 5_000 };
  it.each([
    ['grok-3-mini', mini, 12, 2, 1, 228, 1_176_500n],
    ['grok-3-mini, mostly cached', mini, 291, 244, 26, 189, 1_399_000n],
    ['grok-4.20 non-reasoning', pricesOf(NO_REASONING), 719, 64, 72, 0, 10_115_500n],
    ['grok-4.3', pricesOf('grok-4.3'), 597, 576, 3, 0, 1_489_500n],
  ])('is the one recorded for %s', (_, prices, promptTokens, cachedTokens, completionTokens, reasoningTokens, ticks) => {
    expect(costInUsdTicks(prices, { promptTokens, cachedTokens, completionTokens, reasoningTokens })).toBe(ticks);
  });

  it('doubles for all tokens once the prompt has reached 200,000, cached ones included', () => {
    const cost = (promptTokens: number) =>
      costInUsdTicks(pricesOf('grok-4.7'), { promptTokens, cachedTokens: 100_000, completionTokens: 10, reasoningTokens: 5 });
    expect(cost(199_999)).toBe(99_999n * 20_000n + 100_000n * 5_000n + 15n * 60_000n);
    expect(cost(200_000)).toBe(100_000n * 40_000n + 100_000n * 10_000n + 15n * 120_000n);
  });

  it('doubles with priority, and the answer says so', async () => {
    const script = { output_tokens: 10 };
    const normal = await complete({ service_tier: 'auto', x_emulator: script });
    for (const service_tier of ['priority', 'fast']) {
      const prior = await complete({ service_tier, x_emulator: script });
      expect(prior.service_tier).toBe('priority');
      expect(prior.usage.cost_in_usd_ticks).toBe(2 * normal.usage.cost_in_usd_ticks);
    }
    expect(normal.service_tier).toBe('default');
  });
});

describe('token rule', () => {
  it.each(['', 'a', 'four', 'fives', 'Grüße aus Köln', '日本語のテキスト', '🙂🙂🙂', 'mixed 🙂 ü 日 text'])('cuts %p into as many pieces as it counts tokens', (text) => {
    const pieces = splitTokens(text);
    expect(pieces.join('')).toBe(text);
    expect(pieces).toHaveLength(countTokens(text));
    pieces.forEach((_, index) => expect(countTokens(pieces.slice(0, index + 1).join(''))).toBe(index + 1));
  });
});

describe('schema values', () => {
  it.each([
    [{ $ref: '#/$defs/a', $defs: { a: { type: 'array', items: { type: 'number' }, minItems: 2 } } }, [1, 1]],
    [{ anyOf: [{ const: 7 }, { type: 'null' }] }, 7],
    [{ type: ['string', 'null'], minLength: 6 }, 'text..'],
    [{ allOf: [{ properties: { a: { type: 'null' } }, required: ['a'] }, { properties: { b: { type: 'string', format: 'date' } }, required: ['b'] }] }, { a: null, b: '2026-01-01' }],
    [{ exclusiveMinimum: 2, type: 'integer' }, 3],
    [{}, null],
  ])('%j → %j', (schema, value) => {
    expect(minimalValue(schema)).toEqual(value);
  });

  it('ends for a circular reference', () => {
    const circular = { type: 'object', required: ['child'], properties: { child: { $ref: '#' } } };
    expect(JSON.stringify(minimalValue(circular))).toMatch(/null/);
  });
});
