import { describe, expect, it } from '@jest/globals';
import { RETRY_MS_MAX, retryAfterMs, waitMs } from './retry-after.ts';

const NOW_MS = Date.UTC(2026, 10, 24, 12, 0, 0);

describe('retryAfterMs', () => {
  it.each<[string | string[] | undefined, number]>([
    ['7', 7_000], [' 7 ', 7_000], ['0', 0], ['86400', RETRY_MS_MAX], ['9'.repeat(400), RETRY_MS_MAX], [['3', '9'], 3_000],
    ['Tue, 24 Nov 2026 12:00:30 GMT', 30_000], ['Tuesday, 24-Nov-26 12:00:30 GMT', 30_000], ['Tue Nov 24 12:00:30 2026', 30_000], ['Tue, 24 Nov 2026 11:00:00 GMT', 0], ['Wed, 25 Nov 2026 12:00:00 GMT', RETRY_MS_MAX],
    [undefined, 0], ['', 0], ['-7', 0], ['1.5', 0], ['soon', 0], ['2026', RETRY_MS_MAX], ['Tue, 99 Nov 2026 12:00:00 GMT', 0],
  ])('of %j is %i', (header, ms) => {
    expect(retryAfterMs(header, NOW_MS)).toBe(ms);
  });
});

describe('waitMs', () => {
  it.each<[failures: number, afterMs: number, random: number, ms: number]>([[1, 0, 0.5, 500], [2, 0, 0.5, 1_000], [5, 0, 0.25, 4_000], [5, 0, 0, 0], [40, 0, 1, RETRY_MS_MAX], [4_000, 0, 0.5, RETRY_MS_MAX / 2], [1, 60_000, 0.5, 60_000], [8, 1_000, 0.5, 64_000], [1, 9e9, 0.5, RETRY_MS_MAX]])('after %i failures and %i asked for, at %f, is %i', (failures, afterMs, random, ms) => {
    expect(waitMs(failures, 1_000, afterMs, random)).toBe(ms);
  });
});
