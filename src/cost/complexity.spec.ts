import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { readConfigFile } from '../shared/config-files.ts';
import { complexityOf, ComplexityFile, FEATURES, featuresOf } from './complexity.ts';

const weights = readConfigFile('complexity.yaml', ComplexityFile);
const PROOF = 'Prove that if n is greater than 1 and not prime, then n has a prime divisor that is not more than its square root. When must equality hold, and would the statement be false if 1 were prime?';

describe('complexityOf', () => {
  it('is a number from 0 to 1 for any text, and the same each time', () => {
    fc.assert(fc.property(fc.oneof(fc.string({ unit: 'binary', maxLength: 2_000 }), fc.string({ maxLength: 2_000 }), fc.constantFrom('', '\u0000', '\ud800', '\n'.repeat(10_000), 'x'.repeat(50_000))), (text) => {
      const complexity = complexityOf(text, weights);
      expect(complexity >= 0 && complexity <= 1).toBe(true);
      expect(complexityOf(text, weights)).toBe(complexity);
    }), { numRuns: 500 });
  });

  it.each(['', ' ', '？！', 'Hi', 'Say hello.', 'What is the capital of France?', 'Write a haiku about autumn.', 'Danke!', '今天天气怎么样？'])('takes %p for something that the economical model does', (text) => {
    expect(complexityOf(text, weights)).toBeLessThan(0.5);
  });

  it.each([PROOF, 'Refactor this so that it would not fail when the list has more than 10 entries, and explain whether it could be faster than O(n log n) if most of the 1,000,000 values were equal, or no better than before.'])(
    'takes %p for something that it may not', (text) => {
      expect(complexityOf(text, weights)).toBeGreaterThan(0.5);
    });

  it('takes at most 200 µs for 4 kB, and hardly more for a megabyte', () => {
    const cpuUs = (text: string, times: number): number => {
      const before = process.cpuUsage();
      for (let n = 0; n < times; n++) complexityOf(text, weights);
      const { user, system } = process.cpuUsage(before);
      return (user + system) / times;
    };
    const text = `${PROOF} `.repeat(Math.ceil(4_096 / PROOF.length)).slice(0, 4_096);
    cpuUs(text, 200);
    // Jest's own modules run slower than the product's: see docs/operations.md for how it is measured there.
    expect(cpuUs(text, 200)).toBeLessThan(1_000);
    expect(cpuUs(text.repeat(256), 20)).toBeLessThan(10_000);
  });
});

describe('featuresOf', () => {
  it('has a value for each feature', () => {
    expect(featuresOf(PROOF)).toHaveLength(FEATURES.length);
    expect(featuresOf('').every(Number.isFinite)).toBe(true);
  });

  it('looks at the head and the tail of a long text', () => {
    const middle = (word: string): string => `${PROOF.repeat(50)}${word.repeat(10_000)}${PROOF.repeat(50)}`;
    expect(complexityOf(middle('not 12 '), weights)).toBeCloseTo(complexityOf(middle('haus um '), weights), 5);
  });
});
