import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { formatUsd, parseUsd, parseUsdPerMillion, TICKS_MAX } from './usd-ticks.ts';

const ticks = fc.bigInt({ min: 0n, max: TICKS_MAX });

describe('parseUsd', () => {
  it.each([
    ['0', 0n], ['1', 10_000_000_000n], ['12.50', 125_000_000_000n], ['0.0000000001', 1n], ['0.1', 1_000_000_000n], ['007.5', 75_000_000_000n],
    ['922337203.6854775807', TICKS_MAX],
  ])('reads %s to the tick', (text, expected) => {
    expect(parseUsd(text)).toBe(expected);
  });

  it.each(['', ' ', '.', '.5', '5.', '-1', '+1', '1e3', '1,5', '1_000', '0x10', ' 1', '1 ', '1\n', 'NaN', 'Infinity', '١', '$1', '0.00000000001', '1.2.3', '922337203.6854775808', '9999999999', '12345678901'])(
    'refuses %p rather than guessing', (text) => {
      expect(parseUsd(text)).toBeUndefined();
    });
});

describe('formatUsd', () => {
  it.each([
    [0n, '0.00'], [1n, '0.0000000001'], [125_000_000_000n, '12.50'], [10n, '0.000000001'], [-1n, '-0.0000000001'], [-125_000_000_000n, '-12.50'], [TICKS_MAX, '922337203.6854775807'],
  ])('writes %p as %s', (amount, text) => {
    expect(formatUsd(amount)).toBe(text);
  });

  it('loses nothing: what it writes is read back to the tick', () => {
    fc.assert(fc.property(ticks, (amount) => {
      const text = formatUsd(amount);
      expect(text).toMatch(/^\d+\.\d{2,10}$/);
      expect(parseUsd(text)).toBe(amount);
    }));
  });
});

describe('parseUsdPerMillion', () => {
  it.each([['0.075', 750n], ['0.30', 3_000n], ['1.25', 12_500n], ['2.00', 20_000n], ['6', 60_000n], ['0.0001', 1n]])('%s USD a million are %p ticks a token', (text, expected) => {
    expect(parseUsdPerMillion(text)).toBe(expected);
  });

  it.each(['0.00001', '0.00005', '1.00001', 'free', '-1'])('refuses %s, which is no whole number of ticks', (text) => {
    expect(parseUsdPerMillion(text)).toBeUndefined();
  });
});
