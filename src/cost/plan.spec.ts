import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { loadCatalogue, type ResolvedModel } from '../catalogue/catalogue.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { candidatesFor, exceedsCeiling, NO_COST, planCall, type CostFacts, type Plan, type PlanLimits } from './plan.ts';

const catalogue = loadCatalogue();
const FACTS: CostFacts = { ...NO_COST, textBytes: 250, maxOutputTokens: 100 };
const LIMITS: PlanLimits = { maxTokensCap: 32_768, maxCostTicks: undefined };
const plan = (facts: Partial<CostFacts> = {}, limits: Partial<PlanLimits> = {}, model = 'grok-4.20-0309-non-reasoning'): Plan =>
  planCall(catalogue.resolve(model)!, candidatesFor(catalogue, [catalogue.resolve(model)!]), { ...FACTS, ...facts }, { ...LIMITS, ...limits });

function planOrRefusal(...given: Parameters<typeof plan>): Plan | GatewayError {
  try {
    return plan(...given);
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
}

describe('planCall', () => {
  it('holds input and output at the uncached price', () => {
    expect(plan()).toMatchObject({ inputTokens: 100, maxOutputTokens: 100, reasoningTokens: 0, holdTicks: 100n * 12_500n + 100n * 25_000n, fixedTicks: 1_250_000n, outputRateTicks: 25_000n });
  });

  it('takes 4,000 output tokens for a call without a limit, and never more than the cap', () => {
    expect(plan({ maxOutputTokens: undefined }).maxOutputTokens).toBe(4_000);
    expect(plan({ maxOutputTokens: undefined }, { maxTokensCap: 1_000 }).maxOutputTokens).toBe(1_000);
    expect(plan({ maxOutputTokens: 1_000_000 }).maxOutputTokens).toBe(32_768);
    expect(plan({ maxOutputTokens: 1 }).maxOutputTokens).toBe(1);
  });

  it.each([[undefined, 1_000], ['none', 0], ['low', 1_000], ['medium', 4_000], ['high', 8_000], ['unheard-of', 8_000]])('holds for the reasoning of effort %p, which no output limit cuts', (reasoningEffort, tokens) => {
    const planned = plan({ reasoningEffort }, {}, 'grok-4.3');
    expect(planned.reasoningTokens).toBe(tokens);
    expect(planned.holdTicks).toBe(100n * 12_500n + BigInt(tokens + 100) * 25_000n);
  });

  it.each(['constructor', '__proto__', 'toString'])('takes the effort %p for an unknown one', (reasoningEffort) => {
    expect(plan({ reasoningEffort }, {}, 'grok-4.3').reasoningTokens).toBe(8_000);
  });

  it('doubles with priority', () => {
    expect(plan({ priority: true }).holdTicks).toBe(2n * plan().holdTicks);
  });

  it('holds output and reasoning for each choice', () => {
    const [one, three] = [plan({}, {}, 'grok-4.3'), plan({ choices: 3 }, {}, 'grok-4.3')];
    expect(three.holdTicks).toBeGreaterThanOrEqual(100n * 12_500n + 3n * 1_100n * 25_000n);
    expect(three.holdTicks).toBeLessThanOrEqual(3n * one.holdTicks);
  });

  it('counts images by the catalogue, beside the text', () => {
    expect(plan({ images: 2 }).inputTokens).toBe(100 + 2 * catalogue.resolve('grok-4.3')!.model.imageTokens);
  });

  it('takes the long-context price from 200,000 estimated prompt tokens on', () => {
    expect(plan({ textBytes: 499_997 }).outputRateTicks).toBe(25_000n);
    expect(plan({ textBytes: 499_998 })).toMatchObject({ inputTokens: 200_000, outputRateTicks: 50_000n, fixedTicks: 200_000n * 25_000n });
  });

  it('reads stored turns again, beside the text', () => {
    expect(plan({ storedTokens: 5_000 })).toMatchObject({ inputTokens: 5_100, fixedTicks: 5_100n * 12_500n });
    expect(plan({ storedTokens: 199_899 }).outputRateTicks).toBe(25_000n);
    expect(plan({ storedTokens: 199_900 })).toMatchObject({ inputTokens: 200_000, outputRateTicks: 50_000n });
  });

  it('holds for each image to be made, whose price neither priority nor tokens change', () => {
    const images = { ...NO_COST, generatedImages: 3 };
    expect(plan(images, {}, 'grok-imagine-image-2.0')).toMatchObject({ inputTokens: 0, maxOutputTokens: 0, reasoningTokens: 0, holdTicks: 1_200_000_000n, fixedTicks: 1_200_000_000n, outputRateTicks: 0n });
    expect(plan({ ...images, priority: true }, {}, 'grok-imagine-image-2.0').holdTicks).toBe(1_200_000_000n);
    expect(plan({ ...images, textBytes: 1_000_000, maxOutputTokens: 100 }, {}, 'grok-imagine-image-2.0').holdTicks).toBe(1_200_000_000n);
  });

  it('holds for no image where the model makes none', () => {
    expect(plan({ generatedImages: 3 }).holdTicks).toBe(plan().holdTicks);
  });

  it('assumes the ceiling of all calls for a model that takes no limit', () => {
    expect(plan({ maxOutputTokens: 'uncapped' })).toMatchObject({ maxOutputTokens: 32_768, holdTicks: 100n * 12_500n + 32_768n * 25_000n });
    expect(plan({ maxOutputTokens: 'uncapped' }, { maxTokensCap: 1_000 }).maxOutputTokens).toBe(1_000);
  });

  it('holds nothing for what costs nothing, not even for reasoning', () => {
    for (const model of ['grok-4.7', 'grok-4.3', 'grok-imagine-image']) {
      expect(plan(NO_COST, {}, model)).toMatchObject({ inputTokens: 0, maxOutputTokens: 0, reasoningTokens: 0, holdTicks: 0n, fixedTicks: 0n });
      expect(plan({ ...NO_COST, reasoningEffort: 'high', priority: true }, { maxCostTicks: 0n }, model).holdTicks).toBe(0n);
    }
  });

  it('refuses a model without a price', () => {
    const resolved = catalogue.resolve('grok-4.3')!;
    const free: ResolvedModel = { ...resolved, model: { ...resolved.model, price: undefined } };
    expect(() => planCall(free, candidatesFor(catalogue, [free]), FACTS, LIMITS)).toThrow(expect.objectContaining({ code: 'price_unavailable' }));
  });

  it('offers each deployment as a candidate', () => {
    const resolved = catalogue.resolve('grok-beta')!;
    const two: ResolvedModel = { ...resolved, deployments: [{ ...resolved.deployments[0]!, id: 'a' }, { ...resolved.deployments[0]!, id: 'b' }] };
    expect(planCall(two, candidatesFor(catalogue, [two]), FACTS, LIMITS).candidates.map(({ deployment }) => deployment.id)).toEqual(['a', 'b']);
  });
});

describe('candidatesFor', () => {
  const resolved = catalogue.resolve('grok-beta')!;
  const at = (change: object): ResolvedModel => ({ ...resolved, deployments: [{ ...resolved.deployments[0]!, ...change }] });

  it('scales the price to the deployment, and the hold with it', () => {
    const [candidate] = candidatesFor(catalogue, [at({ pricePercent: 110n })]);
    expect(candidate!.price).toMatchObject({ base: { input: 13_750n, cachedInput: 2_200n, output: 27_500n }, longContext: { rates: { input: 27_500n } } });
    expect(planCall(resolved, [...candidatesFor(catalogue, [resolved]), candidate!], FACTS, LIMITS).outputRateTicks).toBe(27_500n);
  });

  it('takes the facts of the model that a deployment serves, where we know it', () => {
    expect(candidatesFor(catalogue, [at({ upstreamModel: 'grok-4.7' })])[0]).toMatchObject({ upstreamModel: 'grok-4.7', model: { id: 'grok-4.7' } });
    expect(candidatesFor(catalogue, [at({ upstreamModel: 'our-own-llm' })])[0]).toMatchObject({ upstreamModel: 'our-own-llm', model: { id: 'grok-4.3' } });
  });

  it('ranks those that may stand in behind those asked for', () => {
    expect(candidatesFor(catalogue, [catalogue.resolve('grok-pro')!, resolved]).map(({ name, rank }) => [name, rank])).toEqual([['grok-pro', 0], ['grok-beta', 1]]);
  });
});

describe('planCall with the caller’s own ceiling', () => {
  const fixed = 1_250_000n;

  it('shortens the answer to what the ceiling pays for', () => {
    expect(plan({}, { maxCostTicks: fixed + 40n * 25_000n })).toMatchObject({ maxOutputTokens: 40, holdTicks: fixed + 1_000_000n });
    expect(plan({}, { maxCostTicks: fixed + 40n * 25_000n + 24_999n }).maxOutputTokens).toBe(40);
  });

  it('refuses an answer shorter than sixteen tokens, unless the caller wants one so short', () => {
    expect(plan({}, { maxCostTicks: fixed + 16n * 25_000n }).maxOutputTokens).toBe(16);
    expect(() => plan({}, { maxCostTicks: fixed + 16n * 25_000n - 1n })).toThrow(expect.objectContaining({ code: 'request_cost_exceeded', status: 402 }));
    expect(plan({ maxOutputTokens: 3 }, { maxCostTicks: fixed + 3n * 25_000n }).maxOutputTokens).toBe(3);
  });

  it.each([0n, 1n, fixed - 1n, fixed])('refuses a ceiling of %s ticks, which does not even pay for the prompt', (maxCostTicks) => {
    expect(() => plan({}, { maxCostTicks })).toThrow(expect.objectContaining({ code: 'request_cost_exceeded' }));
  });

  it('cannot shorten what takes no limit: it is paid for whole, or refused', () => {
    const ceiling = fixed + 32_768n * 25_000n;
    expect(plan({ maxOutputTokens: 'uncapped' }, { maxCostTicks: ceiling })).toMatchObject({ maxOutputTokens: 32_768, holdTicks: ceiling });
    expect(() => plan({ maxOutputTokens: 'uncapped' }, { maxCostTicks: ceiling - 1n })).toThrow(expect.objectContaining({ code: 'request_cost_exceeded' }));
  });

  it('cannot leave out images, either', () => {
    const images = { ...NO_COST, generatedImages: 2 };
    expect(plan(images, { maxCostTicks: 400_000_000n }, 'grok-imagine-image').holdTicks).toBe(400_000_000n);
    expect(() => plan(images, { maxCostTicks: 399_999_999n }, 'grok-imagine-image')).toThrow(expect.objectContaining({ code: 'request_cost_exceeded' }));
  });

  it('never holds more than the ceiling, nor plans more output than asked', () => {
    const facts = fc.record({
      textBytes: fc.nat(1_000_000), images: fc.nat(3), maxOutputTokens: fc.option(fc.integer({ min: 1, max: 100_000 }), { nil: undefined }), choices: fc.integer({ min: 1, max: 4 }),
      reasoningEffort: fc.constantFrom(undefined, 'none', 'low', 'high', 'x'), priority: fc.boolean(),
    });
    fc.assert(fc.property(facts, fc.constantFrom('grok-4.3', 'grok-4.7', 'grok-build-0.1'), fc.bigInt({ min: 0n, max: 20_000_000_000n }), (given, model, maxCostTicks) => {
      const planned = planOrRefusal(given, { maxCostTicks }, model);
      const shortest = plan({ ...given, maxOutputTokens: Math.min(16, given.maxOutputTokens ?? 16) }, {}, model);
      expect(planned instanceof GatewayError ? planned.code : undefined).toBe(shortest.holdTicks > maxCostTicks ? 'request_cost_exceeded' : undefined);
      const { holdTicks, fixedTicks, maxOutputTokens, outputRateTicks } = planned instanceof GatewayError ? { ...shortest, holdTicks: 0n, fixedTicks: 0n, outputRateTicks: 0n } : planned;
      expect(holdTicks).toBeLessThanOrEqual(maxCostTicks);
      expect(holdTicks).toBe(fixedTicks + BigInt(maxOutputTokens) * outputRateTicks);
      expect(maxOutputTokens).toBeLessThanOrEqual(given.maxOutputTokens ?? 4_000);
    }), { numRuns: 500 });
  });

  it('holds what each part costs, and within the ceiling, for whatever is asked', () => {
    const facts = fc.record({
      textBytes: fc.nat(1_000_000), storedTokens: fc.nat(400_000), images: fc.nat(3), generatedImages: fc.nat(10), maxOutputTokens: fc.oneof(fc.nat(100_000), fc.constantFrom('uncapped' as const, undefined)), choices: fc.integer({ min: 1, max: 4 }),
      reasoningEffort: fc.constantFrom(undefined, 'none', 'low', 'high'), priority: fc.boolean(),
    });
    fc.assert(fc.property(facts, fc.constantFrom('grok-4.3', 'grok-4.7', 'grok-imagine-image', 'grok-4.20-multi-agent-0309'), fc.option(fc.bigInt({ min: 0n, max: 20_000_000_000n }), { nil: undefined }), (given, model, maxCostTicks) => {
      const [planned, free] = [planOrRefusal(given, { maxCostTicks }, model), plan(given, {}, model)];
      const { base, perImage, longContext, priorityMultiplier } = catalogue.resolve(model)!.model.price!;
      const { inputTokens, reasoningTokens, maxOutputTokens, fixedTicks, outputRateTicks } = planned instanceof GatewayError ? free : planned;
      const [rates, factor] = [longContext !== undefined && inputTokens >= longContext.fromPromptTokens ? longContext.rates : base, given.priority ? priorityMultiplier : 1n];
      expect(outputRateTicks).toBe(rates.output * factor * BigInt(given.choices));
      expect(fixedTicks).toBe(BigInt(inputTokens) * rates.input * factor + BigInt(reasoningTokens) * outputRateTicks + BigInt(given.generatedImages) * perImage);
      expect(inputTokens).toBeGreaterThanOrEqual(given.storedTokens);
      expect(maxOutputTokens).toBeLessThanOrEqual(given.maxOutputTokens === 'uncapped' ? LIMITS.maxTokensCap : (given.maxOutputTokens ?? 4_000));
      expect(maxOutputTokens).toBeGreaterThanOrEqual(given.maxOutputTokens === 'uncapped' ? LIMITS.maxTokensCap : 0);
      expect(reasoningTokens > 0 && given.maxOutputTokens === 0).toBe(false);
      expect(planned instanceof GatewayError ? free.holdTicks > maxCostTicks! : planned.holdTicks <= (maxCostTicks ?? planned.holdTicks)).toBe(true);
    }), { numRuns: 500 });
  });
});

describe('exceedsCeiling', () => {
  const capped = plan({ choices: 2 }, { maxCostTicks: 1_250_000n + 2n * 40n * 25_000n });

  it('lets a call write as much as the plan gave it, to the token', () => {
    expect(capped.maxOutputTokens).toBe(40);
    expect([0, 79, 80].map((tokens) => exceedsCeiling(capped, tokens))).toEqual([false, false, false]);
    expect(exceedsCeiling(capped, 81)).toBe(true);
  });

  it('lets it think in place of writing, since both cost the same', () => {
    const thinking = plan({ reasoningEffort: 'low' }, { maxCostTicks: 10_000_000_000n }, 'grok-4.3');
    expect(thinking.reasoningTokens).toBeGreaterThan(0);
    const affordable = Number((10_000_000_000n - 1_250_000n) / 25_000n);
    expect([affordable, affordable + 1].map((tokens) => exceedsCeiling(thinking, tokens))).toEqual([false, true]);
  });

  it('holds nothing against a call without a ceiling', () => {
    expect(exceedsCeiling(plan(), Number.MAX_SAFE_INTEGER)).toBe(false);
  });
});
