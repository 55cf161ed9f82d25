import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { formatUsd, parseUsd, parseUsdPerMillion, TICKS_MAX } from './usd-ticks.ts';

describe('parseUsd', () => {
  it.each([
    ['0', 0n], ['12.50', 125_000_000_000n], ['0.0000000001', 1n], ['1', 10_000_000_000n], ['007', 70_000_000_000n],
    ['922337203.6854775807', TICKS_MAX],
  ])('reads %s', (text, ticks) => {
    expect(parseUsd(text)).toBe(ticks);
  });

  it.each(['', ' 1', '1 ', '-1', '+1', '1.', '.5', '1e3', '0x10', '1,5', '1_000', 'NaN', 'Infinity', '١', '0.00000000001', '922337203.6854775808', '99999999999', '1\n'])(
    'refuses %p: no rounding, no guessing, no overflow', (text) => {
      expect(parseUsd(text)).toBeUndefined();
    });
});

describe('formatUsd', () => {
  it.each([
    [0n, '0.00'], [125_000_000_000n, '12.50'], [1n, '0.0000000001'], [10_000_000_000n, '1.00'], [5_000_000_000n, '0.50'], [-1n, '-0.0000000001'], [-15_000_000_000n, '-1.50'],
  ])('writes %s ticks', (ticks, text) => {
    expect(formatUsd(ticks)).toBe(text);
  });

  it('is undone by parseUsd, to the tick', () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: TICKS_MAX }), (ticks) => {
      expect(parseUsd(formatUsd(ticks))).toBe(ticks);
      expect(formatUsd(ticks)).toMatch(/^\d+\.\d{2,10}$/);
    }));
  });
});

describe('parseUsdPerMillion', () => {
  it.each([['2.00', 20_000n], ['0.075', 750n], ['0.0001', 1n], ['1.25', 12_500n]])('turns %s USD per million tokens into ticks per token', (text, ticks) => {
    expect(parseUsdPerMillion(text)).toBe(ticks);
  });

  it.each(['0.00005', '1.00001', 'free', ''])('refuses %p, which is no whole number of ticks per token', (text) => {
    expect(parseUsdPerMillion(text)).toBeUndefined();
  });
});
