import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { Gcra } from './gcra.ts';

describe('Gcra', () => {
  it('allows the burst at once and not one more', () => {
    const gcra = new Gcra(10);
    const answers = Array.from({ length: 11 }, () => gcra.hit('a', 600, 10, 5_000));
    expect(answers.map(({ allowed }) => allowed)).toEqual([...Array<boolean>(10).fill(true), false]);
    expect(answers.map(({ remaining }) => remaining)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]);
  });

  it('says when the next is allowed, and keeps its word to the millisecond', () => {
    const gcra = new Gcra(10);
    for (let hits = 0; hits < 10; hits += 1) gcra.hit('a', 600, 10, 0);
    expect(gcra.hit('a', 600, 10, 0)).toEqual({ allowed: false, remaining: 0, retryAfterMs: 100, resetAfterMs: 1000 });
    expect(gcra.hit('a', 600, 10, 99).allowed).toBe(false);
    expect(gcra.hit('a', 600, 10, 100).allowed).toBe(true);
  });

  it('does not charge for what it refused', () => {
    const gcra = new Gcra(10);
    for (let hits = 0; hits < 500; hits += 1) gcra.hit('a', 600, 10, 0);
    expect(gcra.hit('a', 600, 10, 100).allowed).toBe(true);
  });

  it('gives the whole burst back after the reset, and never more', () => {
    const gcra = new Gcra(10);
    for (let hits = 0; hits < 10; hits += 1) gcra.hit('a', 600, 10, 0);
    expect(Array.from({ length: 11 }, () => gcra.hit('a', 600, 10, 10_000_000)).filter(({ allowed }) => allowed)).toHaveLength(10);
  });

  it('keeps keys apart', () => {
    const gcra = new Gcra(10);
    gcra.hit('a', 60, 1, 0);
    expect(gcra.hit('a', 60, 1, 0).allowed).toBe(false);
    expect(gcra.hit('b', 60, 1, 0).allowed).toBe(true);
  });

  it('never lets more through in any window than the burst and the rate of that window', () => {
    fc.assert(fc.property(fc.integer({ min: 60, max: 6_000 }), fc.integer({ min: 1, max: 50 }), fc.array(fc.integer({ min: 0, max: 200 }), { minLength: 1, maxLength: 200 }), (perMinute, burst, steps) => {
      const gcra = new Gcra(1);
      const allowedAt: number[] = [];
      let nowMs = 0;
      for (const step of steps) {
        nowMs += step;
        if (gcra.hit('a', perMinute, burst, nowMs).allowed) allowedAt.push(nowMs);
      }
      allowedAt.forEach((endMs, index) => {
        for (let from = 0; from <= index; from += 1) expect(index - from + 1).toBeLessThanOrEqual(burst + ((endMs - allowedAt[from]!) * perMinute) / 60_000 + 1e-6);
      });
    }), { numRuns: 50 });
  });

  it('remembers no more keys than it may, and forgets the one unused for longest', () => {
    const gcra = new Gcra(3);
    for (const key of ['a', 'b', 'c']) gcra.hit(key, 60, 1, 0);
    gcra.hit('a', 60, 5, 0); // used again, so that b is now the oldest
    gcra.hit('d', 60, 1, 0);
    expect(gcra.size).toBe(3);
    expect(gcra.hit('c', 60, 1, 0).allowed).toBe(false);
    expect(gcra.hit('b', 60, 1, 0).allowed).toBe(true);
    for (let key = 0; key < 1000; key += 1) gcra.hit(String(key), 60, 1, 0);
    expect(gcra.size).toBe(3);
  });
});
