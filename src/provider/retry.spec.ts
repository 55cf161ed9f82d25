import { describe, expect, it } from '@jest/globals';
import { errorFromAnswer, timeoutError, transportError } from './grok-errors.ts';
import { backoffMs, isRetryable, RetryBudget } from './retry.ts';

const answer = (status: number, error = 'x'): Parameters<typeof isRetryable>[0] => errorFromAnswer(status, JSON.stringify({ code: 'c', error }), {}, 'answer');

describe('isRetryable', () => {
  it.each([429, 500, 502, 503, 504, 520, 524, 529, 200])('%i passes', (status) => {
    expect(isRetryable(answer(status))).toBe(true);
  });
  it.each([400, 401, 403, 404, 413, 415, 422, 501, 525, 526])('%i does not', (status) => {
    expect(isRetryable(answer(status))).toBe(false);
  });
  it('neither does a rate limit that is one of money', () => {
    expect(isRetryable(answer(429, 'Your team has used all available credits'))).toBe(false);
  });
  it('no connection passes; a silence that may have been billed, and a break in mid-answer do not', () => {
    expect(isRetryable(timeoutError('connect', 'connect'))).toBe(true);
    expect(isRetryable(transportError(new Error('refused'), 'connect'))).toBe(true);
    expect(isRetryable(timeoutError('first-byte', 'before-answer'))).toBe(false);
    expect(isRetryable(transportError(new Error('reset'), 'mid-stream'))).toBe(false);
  });
});

describe('backoffMs', () => {
  it.each([[1, 500], [2, 1_000], [3, 2_000]])('after %i failures is anywhere up to %i ms', (attempts, most) => {
    expect(backoffMs(attempts, { max: 3, backoffMs: 500 }, 0)).toBe(0);
    expect(backoffMs(attempts, { max: 3, backoffMs: 500 }, 0.999)).toBeCloseTo(most, -1);
  });
});

describe('RetryBudget', () => {
  it('lets an outage cost a tenth more calls, and a few', () => {
    const budget = new RetryBudget(0);
    let retries = 0;
    for (let call = 0; call < 6_000; call++) {
      budget.earn();
      for (let attempt = 0; attempt < 3; attempt++) retries += budget.spend(call * 5) ? 1 : 0; // 200 calls a second
    }
    expect(retries).toBeGreaterThan(500);
    expect(6_000 + retries).toBeLessThanOrEqual(1.2 * 6_000);
  });

  it('gives rare calls their retries back with time', () => {
    const budget = new RetryBudget(0);
    while (budget.spend(0)) { /* use it up */ }
    expect(budget.spend(1_000)).toBe(false);
    expect(budget.spend(10_000)).toBe(true);
  });
});
