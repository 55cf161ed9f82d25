import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { admittance, afterFailure, afterNeither, afterProbeAnswered, afterProbeBegan, afterSuccess, CLOSED, type Breaker } from './circuit-breaker.ts';

const LIMITS = { failures: 5, recoveryMs: 300_000 };
const fail = (breaker: Breaker, times: number, nowMs = 0): Breaker => Array.from({ length: times }).reduce<Breaker>((state) => afterFailure(state, false, LIMITS, nowMs, 0.5), breaker);
const OPEN = fail(CLOSED, 5);
const PROBING = afterProbeBegan(OPEN);

describe('the breaker', () => {
  it('opens after five failures in a row, and not after four', () => {
    expect(admittance(fail(CLOSED, 4), 0)).toBe('call');
    expect(OPEN).toEqual({ state: 'open', failures: 5, untilMs: 300_000 });
    expect(fail(afterSuccess(fail(CLOSED, 4), false), 4).state).toBe('closed');
  });

  it('stays open for its time, within a tenth', () => {
    fc.assert(fc.property(fc.double({ min: 0, max: 0.999_999, noNaN: true }), (random) => {
      const opened = afterFailure(fail(CLOSED, 4), false, LIMITS, 1_000, random) as Extract<Breaker, { state: 'open' }>;
      expect(opened.untilMs).toBeGreaterThanOrEqual(1_000 + 270_000);
      expect(opened.untilMs).toBeLessThanOrEqual(1_000 + 330_000);
    }));
  });

  it('refuses while it is open, then lets one probe through, and refuses beside it', () => {
    expect(admittance(OPEN, 299_999)).toBe('refused');
    expect(admittance(OPEN, 300_000)).toBe('probe');
    expect(admittance(PROBING, 1e12)).toBe('refused');
  });

  it('closes on probation when the probe gets an answer: one failure opens it anew, one success ends the probation', () => {
    const probation = afterProbeAnswered(PROBING, LIMITS);
    expect(admittance(probation, 0)).toBe('call');
    expect(fail(probation, 1, 7).state).toBe('open');
    expect(afterSuccess(probation, true)).toEqual(CLOSED);
  });

  it('opens again when the probe fails, and leaves the place to the next when it came to nothing', () => {
    expect(afterFailure(PROBING, true, LIMITS, 10, 0.5)).toEqual({ state: 'open', failures: 6, untilMs: 300_010 });
    expect(admittance(afterNeither(PROBING, true, 10), 10)).toBe('probe');
  });

  it('is not moved by calls that began before it opened', () => {
    expect(afterSuccess(OPEN, false)).toBe(OPEN);
    expect(afterFailure(OPEN, false, LIMITS, 5, 0.5)).toBe(OPEN);
    expect(afterFailure(PROBING, false, LIMITS, 5, 0.5)).toBe(PROBING);
    expect(afterNeither(PROBING, false, 5)).toBe(PROBING);
  });
});
