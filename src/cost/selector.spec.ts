import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { expectedQuality } from '../catalogue/reach.ts';
import { selectModel, temperatureFor, type ModelOption } from './selector.ts';

function option(name: string, fields: Partial<ModelOption> & { p50?: bigint } = {}): ModelOption {
  const { p50 = 100n, ...rest } = fields;
  return { name, reach: 0.5, costTicks: { p50, p90: p50 * 3n }, outputTokens: { p50: 250, p90: 900 }, fits: true, ...rest };
}

const CHEAP = option('cheap', { reach: 0.5, p50: 10n });
const GOOD = option('good', { reach: 0.9, p50: 50n });
const BEST = option('best', { reach: 1, p50: 70n });
const ALL = [BEST, CHEAP, GOOD];

const options = fc.uniqueArray(fc.record({
  name: fc.string({ minLength: 1, maxLength: 8 }), reach: fc.double({ min: 0, max: 1, noNaN: true }), p50: fc.bigInt({ min: 0n, max: 1_000_000n }), fits: fc.boolean(),
}).map(({ name, ...fields }) => option(name, fields)), { selector: ({ name }) => name, maxLength: 8 });
const share = fc.double({ min: 0, max: 1, noNaN: true });
const budget = fc.option(fc.bigInt({ min: 0n, max: 1_000_000n }), { nil: undefined });

describe('expectedQuality', () => {
  it('is a half at the reach, and falls with complexity', () => {
    expect(expectedQuality(0.5, 0.5)).toBe(0.5);
    expect(expectedQuality(0.5, 0.2)).toBeGreaterThan(0.9);
    expect(expectedQuality(0.5, 0.8)).toBeLessThan(0.1);
    fc.assert(fc.property(share, share, share, (reach, one, other) => {
      const [low, high] = [Math.min(one, other), Math.max(one, other)];
      expect(expectedQuality(reach, low)).toBeGreaterThanOrEqual(expectedQuality(reach, high));
      expect(expectedQuality(reach, low)).toBeLessThanOrEqual(1);
      expect(expectedQuality(reach, high)).toBeGreaterThanOrEqual(0);
    }));
  });
});

describe('selectModel', () => {
  it.each<[number, number, string]>([[0.1, 0.5, 'cheap'], [0.5, 0.5, 'cheap'], [0.51, 0.5, 'good'], [0.9, 0.5, 'good'], [0.91, 0.5, 'best'], [0.1, 0.995, 'good'], [0.99, 0, 'cheap']])('for complexity %f and target %f takes %s', (complexity, target, name) => {
    expect(selectModel(ALL, complexity, target, undefined)?.option.name).toBe(name);
  });

  it('takes the best where none reaches the target, and says so', () => {
    const selection = selectModel(ALL, 0.95, 0.99, undefined)!;
    expect(selection.option.name).toBe('best');
    expect(selection.expectedQuality).toBe(expectedQuality(1, 0.95));
    expect(selection.reasons.at(-1)).toMatch(/^None is expected .*best comes nearest/);
  });

  it('leaves out what the budget does not bear, by name', () => {
    const selection = selectModel(ALL, 0.95, 0.5, 49n)!;
    expect(selection.option.name).toBe('cheap');
    expect(selection.reasons).toContain('Too dear for the budget: best, good.');
    expect(selectModel(ALL, 0.95, 0.5, 50n)!.option.name).toBe('good');
    expect(selectModel([CHEAP, { ...GOOD, fits: false }], 0.95, 0.5, undefined)!.option.name).toBe('cheap');
  });

  it('takes the first of two that cost the same', () => {
    expect(selectModel([option('first'), option('second')], 0.1, 0.5, undefined)!.option.name).toBe('first');
  });

  it.each<[string, ModelOption[], bigint | undefined]>([['there is nothing', [], undefined], ['nothing fits', [{ ...CHEAP, fits: false }], undefined], ['everything is too dear', ALL, 9n]])('takes none where %s', (_, given, budgetTicks) => {
    expect(selectModel(given, 0.1, 0.5, budgetTicks)).toBeUndefined();
  });

  it('is always affordable, is the cheapest that passes the target, or else the best', () => {
    fc.assert(fc.property(options, share, share, budget, (given, complexity, target, budgetTicks) => {
      const affordable = given.filter(({ fits, costTicks }) => fits && (budgetTicks === undefined || costTicks.p50 <= budgetTicks));
      const selection = selectModel(given, complexity, target, budgetTicks);
      expect(selection === undefined).toBe(affordable.length === 0);
      if (selection === undefined) return;
      const qualityOf = ({ reach }: ModelOption): number => expectedQuality(reach, complexity);
      const good = affordable.filter((one) => qualityOf(one) >= target);
      expect(affordable).toContain(selection.option);
      expect(selection.expectedQuality).toBe(qualityOf(selection.option));
      expect(good.length > 0 ? good : affordable).toContain(selection.option);
      const better = good.length > 0 ? good.filter(({ costTicks }) => costTicks.p50 < selection.option.costTicks.p50) : affordable.filter((one) => qualityOf(one) > selection.expectedQuality);
      expect(better).toEqual([]);
      expect(selection.reasons.length).toBeGreaterThan(1);
    }), { numRuns: 500 });
  });

  it('costs no more where less quality is asked for', () => {
    fc.assert(fc.property(options, share, share, share, (given, complexity, one, other) => {
      const [low, high] = [one, other].toSorted((left, right) => left - right).map((target) => selectModel(given, complexity, target, undefined));
      const affordable = given.filter(({ fits }) => fits);
      if (high === undefined || high.expectedQuality < Math.max(one, other)) return; // nothing passed
      expect(low!.option.costTicks.p50).toBeLessThanOrEqual(high.option.costTicks.p50);
      expect(affordable).toContain(low!.option);
    }));
  });
});

describe('temperatureFor', () => {
  it.each([[0, 0.8], [0.5, 0.8], [0.7, 0.8], [0.700001, 0.4], [1, 0.4]])('for complexity %f is %f', (complexity, temperature) => {
    expect(temperatureFor(complexity)).toBe(temperature);
  });
});
