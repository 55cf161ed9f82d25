import { describe, expect, it } from '@jest/globals';
import { loadTiers } from '../../src/catalogue/tiers.ts';
import { dayOf, firstDayOfAll, firstKeptDay, firstKeptDays, isDue } from '../../src/vault/retention-plan.ts';

const at = (time: string): number => Date.parse(time);

describe('the first day that is kept', () => {
  it.each([
    ['2026-11-24T00:00:00Z', 7, '2026-11-17'],
    ['2026-11-24T23:59:59.999Z', 7, '2026-11-17'],
    ['2026-11-25T00:00:00Z', 7, '2026-11-18'],
    ['2026-03-01T12:00:00Z', 1, '2026-02-28'],
    ['2028-03-01T12:00:00Z', 1, '2028-02-29'],
  ])('at %s with %d days is %s', (now, days, day) => {
    expect(firstKeptDay(at(now), days)).toBe(day);
  });

  it('keeps what came in the last moment of a day for the whole time', () => {
    const came = at('2026-11-17T23:59:59.999Z');
    expect(dayOf(came) >= firstKeptDay(came + 7 * 86_400_000, 7)).toBe(true);
    expect(dayOf(came) >= firstKeptDay(came + 7 * 86_400_000 + 1, 7)).toBe(false);
  });

  it('is by tier, and of all the earliest', () => {
    const tiers = loadTiers();
    expect(firstKeptDays(at('2026-11-24T12:00:00Z'), tiers)).toEqual({ standard: '2026-11-17', enterprise: '2026-10-25', government: '2026-08-26' });
    expect(firstDayOfAll(at('2026-11-24T12:00:00Z'), tiers)).toBe('2026-08-26');
  });
});

describe('retention is due', () => {
  it.each([
    [undefined, '2026-11-24T12:00:00Z', true],
    ['2026-11-23T23:59:59Z', '2026-11-24T00:00:00Z', true],
    ['2026-11-24T00:00:00Z', '2026-11-24T23:59:59Z', false],
  ])('after %s at %s: %s', (last, now, due) => {
    expect(isDue(last === undefined ? undefined : at(last), at(now))).toBe(due);
  });
});
