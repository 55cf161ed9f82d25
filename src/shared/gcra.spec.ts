import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { Gcra } from './gcra.ts';

const HOUR_MS = 3_600_000;

function hits(gcra: Gcra, count: number, perMinute: number, burst: number, nowMs: number): number {
  let allowed = 0;
  for (let n = 0; n < count; n += 1) if (gcra.hit('tenant', perMinute, burst, nowMs).allowed) allowed += 1;
  return allowed;
}

describe('Gcra', () => {
  it.each([[60, 6, 0], [10_000, 1_000, 0], [100_000, 10_000, 0], [500_000, 50_000, 98_765_432.1], [7, 1, 0.25]])('at %p a minute allows a burst of exactly %p', (perMinute, burst, nowMs) => {
    expect(hits(new Gcra(10), burst + 50, perMinute, burst, nowMs)).toBe(burst);
  });

  it('after the burst allows the steady rate, and no more', () => {
    const gcra = new Gcra(10);
    expect(hits(gcra, 100, 600, 60, 0)).toBe(60);
    let allowed = 0;
    for (let nowMs = 1; nowMs <= HOUR_MS; nowMs += 10) if (gcra.hit('tenant', 600, 60, nowMs).allowed) allowed += 1;
    expect(allowed).toBeGreaterThanOrEqual(600 * 60 - 1);
    expect(allowed).toBeLessThanOrEqual(600 * 60 + 1);
  });

  it('never allows more than the burst and the rate in any window, however calls arrive', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 6_000 }), fc.integer({ min: 1, max: 50 }), fc.array(fc.nat(3_000), { minLength: 1, maxLength: 200 }), (perMinute, burst, gapsMs) => {
      const gcra = new Gcra(10);
      const allowedAtMs: number[] = [];
      let nowMs = 0;
      for (const gapMs of gapsMs) {
        nowMs += gapMs;
        if (gcra.hit('tenant', perMinute, burst, nowMs).allowed) allowedAtMs.push(nowMs);
      }
      for (const [first, from] of allowedAtMs.entries()) {
        for (const [last, to] of allowedAtMs.entries()) {
          if (last >= first) expect(last - first + 1).toBeLessThanOrEqual(burst + ((to - from) * perMinute) / 60_000 + 0.01);
        }
      }
    }));
  });

  it('says truly when to come back: not a moment earlier, but then', () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 500_000 }), fc.integer({ min: 1, max: 20 }), (perMinute, burst) => {
      const gcra = new Gcra(10);
      hits(gcra, burst, perMinute, burst, 0);
      const refused = gcra.hit('tenant', perMinute, burst, 0);
      expect(refused).toMatchObject({ allowed: false, remaining: 0 });
      expect(refused.retryAfterMs).toBeGreaterThan(0);
      expect(gcra.hit('tenant', perMinute, burst, refused.retryAfterMs * 0.9).allowed).toBe(false);
      expect(gcra.hit('tenant', perMinute, burst, refused.retryAfterMs * 1.01).allowed).toBe(true);
    }));
  });

  it('counts down what remains, and is full again after the reset', () => {
    const gcra = new Gcra(10);
    const remaining = [1, 2, 3].map(() => gcra.hit('tenant', 60, 3, 0).remaining);
    expect(remaining).toEqual([2, 1, 0]);
    const { resetAfterMs } = gcra.hit('tenant', 60, 3, 0);
    expect(resetAfterMs).toBe(3_000);
    expect(hits(gcra, 10, 60, 3, resetAfterMs)).toBe(3);
  });

  it('a refused call costs nothing: asking again and again does not lengthen the wait', () => {
    const gcra = new Gcra(10);
    hits(gcra, 1_000, 60, 1, 0);
    expect(gcra.hit('tenant', 60, 1, 1_000).allowed).toBe(true);
  });

  it('keeps keys apart', () => {
    const gcra = new Gcra(10);
    expect(gcra.hit('a', 60, 1, 0).allowed).toBe(true);
    expect(gcra.hit('a', 60, 1, 0).allowed).toBe(false);
    expect(gcra.hit('b', 60, 1, 0).allowed).toBe(true);
  });

  it('knows a bounded number of keys, and forgets the one unused for longest', () => {
    const gcra = new Gcra(3);
    for (const key of ['a', 'b', 'c', 'a', 'd']) gcra.hit(key, 60, 2, 0);
    expect(gcra.size).toBe(3);
    expect(gcra.hit('a', 60, 2, 0).allowed).toBe(false); // used twice, so not forgotten
    for (let n = 0; n < 1_000; n += 1) gcra.hit(`key ${n}`, 60, 2, 0);
    expect(gcra.size).toBe(3);
  });
});
