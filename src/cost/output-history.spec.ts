import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { TokenHistory } from './output-history.ts';

/** Off by at most one bucket of eight to the doubling, and by what rounding up adds. */
const GROWTH = 2 ** (1 / 8);

function historyOf(tokens: readonly number[]): TokenHistory {
  const history = new TokenHistory();
  for (const one of tokens) history.observe('a route', one);
  return history;
}

describe('TokenHistory', () => {
  it('says nothing before it has seen enough, nor of another route', () => {
    const history = historyOf([10, 10, 10]);
    expect(history.quantile('a route', 0.5, 4)).toBeUndefined();
    expect(history.quantile('a route', 0.5, 3)).toBeGreaterThanOrEqual(10);
    expect(history.quantile('another', 0.5, 0)).toBeUndefined();
    expect([history.calls('a route'), history.calls('another'), history.size]).toEqual([3, 0, 1]);
  });

  it.each([0, 1, 2, 3, 7, 8, 9, 40, 100, 999, 1_000, 32_768, 500_000, 1_000_000])('of calls of %i tokens each, is no less than that, and hardly more', (tokens) => {
    const history = historyOf(Array.from({ length: 20 }, () => tokens));
    for (const share of [0.01, 0.5, 0.9, 0.99, 1]) {
      const quantile = history.quantile('a route', share, 1)!;
      expect(quantile).toBeGreaterThanOrEqual(tokens);
      expect(quantile).toBeLessThanOrEqual(Math.ceil(tokens * GROWTH));
    }
  });

  it('bounds so many of the calls as it is asked for, of whatever they used', () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 2_000_000 }), { minLength: 1, maxLength: 60 }), fc.double({ min: 0.05, max: 0.99, noNaN: true }), (tokens, share) => {
      const quantile = historyOf(tokens).quantile('a route', share, 1)!;
      const within = tokens.filter((one) => one <= quantile).length / tokens.length;
      expect(Number.isInteger(quantile)).toBe(true);
      expect(within).toBeGreaterThanOrEqual(share - 0.1); // the latest weigh a little more
      expect(quantile).toBeLessThanOrEqual(Math.ceil(Math.max(...tokens, 1) * GROWTH));
    }), { numRuns: 300 });
  });

  it('never gives less for more', () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 1, maxLength: 40 }), (tokens) => {
      const history = historyOf(tokens);
      const quantiles = [0.1, 0.3, 0.5, 0.7, 0.9, 0.99].map((share) => history.quantile('a route', share, 1)!);
      expect(quantiles).toEqual(quantiles.toSorted((left, right) => left - right));
    }));
  });

  it('covers about nine tenths of a spread by its p90', () => {
    const tokens = Array.from({ length: 2_000 }, (_, call) => 1 + ((call * 7_919) % 1_000)); // each from 1 to 1,000, in no order
    const p90 = historyOf(tokens).quantile('a route', 0.9, 50)!;
    const covered = tokens.filter((one) => one <= p90).length / tokens.length;
    expect(covered).toBeGreaterThan(0.87);
    expect(covered).toBeLessThan(0.96);
  });

  it('follows a change within some hundred calls', () => {
    const history = historyOf([...Array.from({ length: 2_000 }, () => 1_000), ...Array.from({ length: 600 }, () => 10)]);
    expect(history.quantile('a route', 0.5, 50)).toBeLessThan(15);
    expect(history.quantile('a route', 0.99, 50)).toBeGreaterThanOrEqual(1_000); // which is not forgotten yet
    for (let call = 0; call < 3_000; call += 1) history.observe('a route', 10);
    expect(history.quantile('a route', 0.99, 50)).toBeLessThan(15);
  });

  it('is not moved far by one call', () => {
    const history = historyOf([...Array.from({ length: 200 }, () => 100), 1_000_000]);
    expect(history.quantile('a route', 0.9, 50)).toBeLessThan(110);
  });

  it('forgets the route that was least lately used, and keeps no more than 10,000', () => {
    const history = new TokenHistory();
    for (let route = 0; route < 10_000; route += 1) history.observe(`route ${route}`, 5);
    history.observe('route 0', 5); // used again, so that route 1 is the oldest
    history.observe('one more', 5);
    expect(history.size).toBe(10_000);
    expect([history.calls('route 0'), history.calls('route 1'), history.calls('route 2'), history.calls('one more')]).toEqual([2, 0, 1, 1]);
  });
});
