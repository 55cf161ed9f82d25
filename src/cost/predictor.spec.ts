import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { loadCatalogue, type Model } from '../catalogue/catalogue.ts';
import type { TokenUsage } from '../catalogue/token-price.ts';
import { Predictor, type Route } from './predictor.ts';

const catalogue = loadCatalogue();
const THINKING = catalogue.resolve('grok-4.3')!.model;
const PLAIN = catalogue.resolve('grok-4.20-0309-non-reasoning')!.model;
const ROUTE: Route = { tenantId: 'acme', model: THINKING, kind: 'conversational' };
const USAGE: TokenUsage = { inputTokens: 100, cachedInputTokens: 0, outputTokens: 40, reasoningTokens: 300 };

function taught(times: number, { route = ROUTE, effort, bytes = 400, usage = {} }: { route?: Route; effort?: string; bytes?: number; usage?: Partial<TokenUsage> } = {}, predictor = new Predictor()): Predictor {
  for (let time = 0; time < times; time += 1) predictor.observe(route, effort, bytes, { ...USAGE, ...usage });
  return predictor;
}

describe('outputTokens', () => {
  it('are the prior of the model for the first 49 calls, and what was used from then on', () => {
    expect(taught(0).outputTokens(ROUTE)).toEqual(THINKING.outputPrior);
    expect(taught(49).outputTokens(ROUTE)).toEqual(THINKING.outputPrior);
    const { p50, p90 } = taught(50).outputTokens(ROUTE);
    for (const tokens of [p50, p90]) {
      expect(tokens).toBeGreaterThanOrEqual(40);
      expect(tokens).toBeLessThanOrEqual(44);
    }
  });

  it.each<[string, Partial<Route>]>([['tenant', { tenantId: 'globex' }], ['model', { model: PLAIN }], ['kind', { kind: 'real_time' }]])('are known of each %s apart', (_, other) => {
    expect(taught(60).outputTokens({ ...ROUTE, ...other })).toEqual(THINKING.outputPrior);
  });

  it('tell half from nine tenths', () => {
    const predictor = new Predictor();
    for (let call = 0; call < 100; call += 1) taught(1, { usage: { outputTokens: call % 5 === 0 ? 2_000 : 100 } }, predictor);
    const { p50, p90 } = predictor.outputTokens(ROUTE);
    expect(p50).toBeLessThan(110);
    expect(p90).toBeGreaterThanOrEqual(2_000);
  });

  it('count what is written, not what is thought', () => {
    expect(taught(50, { usage: { reasoningTokens: 100_000 } }).outputTokens(ROUTE).p90).toBeLessThan(50);
  });
});

describe('reasoningAllowance', () => {
  it('is unknown before 200 calls, and then what nearly all of them used', () => {
    expect(taught(199).reasoningAllowance(THINKING, undefined)).toBeUndefined();
    const allowance = taught(200).reasoningAllowance(THINKING, undefined)!;
    expect(allowance).toBeGreaterThanOrEqual(300);
    expect(allowance).toBeLessThan(330);
  });

  it('is that of the default effort where none is named, and of no other', () => {
    const predictor = taught(200, { effort: 'low' });
    expect(predictor.reasoningAllowance(THINKING, undefined)).toBe(predictor.reasoningAllowance(THINKING, 'low'));
    expect(predictor.reasoningAllowance(THINKING, 'low')).toBeGreaterThanOrEqual(300);
    expect(predictor.reasoningAllowance(THINKING, 'high')).toBeUndefined();
    expect(predictor.reasoningAllowance(catalogue.resolve('grok-4.7')!.model, 'low')).toBeUndefined();
  });

  it('is learned from all tenants and kinds together', () => {
    const predictor = taught(100);
    taught(100, { route: { ...ROUTE, tenantId: 'globex', kind: 'real_time' } }, predictor);
    expect(predictor.reasoningAllowance(THINKING, 'low')).toBeGreaterThanOrEqual(300);
  });

  it('covers what one call in fifty uses', () => {
    const predictor = new Predictor();
    for (let call = 0; call < 400; call += 1) taught(1, { usage: { reasoningTokens: call % 50 === 0 ? 9_000 : 100 } }, predictor);
    expect(predictor.reasoningAllowance(THINKING, undefined)).toBeGreaterThanOrEqual(9_000);
  });

  it('is unknown of a model that does not reason', () => {
    expect(taught(300, { route: { ...ROUTE, model: PLAIN } }).reasoningAllowance(PLAIN, undefined)).toBeUndefined();
  });
});

describe('inputTokens', () => {
  it('go by the careful ratio for the first 19 calls, and by the mean from then on', () => {
    expect(taught(0).inputTokens(THINKING, 1_000)).toBe(1_000 / THINKING.bytesPerToken);
    expect(taught(19).inputTokens(THINKING, 1_000)).toBe(1_000 / THINKING.bytesPerToken);
    expect(taught(20).inputTokens(THINKING, 1_000)).toBe(250); // 400 bytes were 100 tokens
    expect(taught(20).inputTokens(PLAIN, 1_000)).toBe(1_000 / PLAIN.bytesPerToken);
  });

  it('follow the language that a model is asked in', () => {
    const predictor = taught(100); // 4 bytes a token
    taught(300, { bytes: 200 }, predictor); // 2 bytes a token
    const tokens = predictor.inputTokens(THINKING, 1_000);
    expect(tokens).toBeGreaterThan(490);
    expect(tokens).toBeLessThanOrEqual(501);
  });

  it('learn nothing from calls that had no text, or no tokens', () => {
    const predictor = taught(40, { bytes: 0 });
    taught(40, { usage: { inputTokens: 0 } }, predictor);
    expect(predictor.inputTokens(THINKING, 1_000)).toBe(1_000 / THINKING.bytesPerToken);
  });

  it('are a whole number, zero for nothing, and never fewer for more text', () => {
    const predictor = taught(30);
    const count = (bytes: number, model: Model = THINKING): number => predictor.inputTokens(model, bytes);
    expect(count(0)).toBe(0);
    expect(count(1)).toBe(1);
    fc.assert(fc.property(fc.integer({ min: 0, max: 40_000_000 }), fc.integer({ min: 0, max: 1_000 }), (bytes, more) => {
      expect(Number.isSafeInteger(count(bytes))).toBe(true);
      expect(count(bytes + more)).toBeGreaterThanOrEqual(count(bytes));
    }));
  });
});
