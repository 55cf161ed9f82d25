import { describe, expect, it } from '@jest/globals';
import { CallLimits } from './call-limits.ts';

const SETTINGS = { tokensPerMinute: 6_000, concurrentCalls: 3 };
function limits(): { begin: (tokens: number, tenant?: string) => ReturnType<CallLimits['begin']>; advance: (ms: number) => void } {
  let nowMs = 1_000;
  const all = new CallLimits({ nowMs: () => 0, monotonicMs: () => nowMs });
  return { begin: (tokens, tenant = 'acme') => all.begin(tenant, SETTINGS, tokens), advance: (ms) => { nowMs += ms; } };
}
const refused = (retryAfterSeconds: number): unknown => expect.objectContaining({ code: 'rate_limit_exceeded', status: 429, retryAfterSeconds });

describe('CallLimits', () => {
  it('lets a minute’s tokens be used, and fills them up again with time', () => {
    const { begin, advance } = limits();
    expect(begin(4_000).left).toEqual({ limit: 6_000, remaining: 2_000, resetSeconds: 40 });
    expect(() => begin(3_000)).toThrow(refused(10));
    advance(10_000);
    expect(begin(3_000).left.remaining).toBe(0);
  });

  it('corrects the estimate by what was used', () => {
    const { begin } = limits();
    begin(6_000).end(100);
    expect(begin(5_900).left.remaining).toBe(0);
  });

  it('lets the next ones wait where more was used than was expected', () => {
    const { begin, advance } = limits();
    begin(1_000).end(9_000);
    expect(() => begin(1)).toThrow(expect.objectContaining({ code: 'rate_limit_exceeded', retryAfterSeconds: expect.closeTo(30.01, 6) }));
    advance(30_010);
    expect(begin(1).left.remaining).toBe(0);
  });

  it('keeps the estimate where nobody knows, and counts an end once', () => {
    const { begin } = limits();
    const place = begin(6_000);
    place.end(undefined);
    place.end(0);
    expect(() => begin(1)).toThrow(refused(0.01));
  });

  it('lets a call that is larger than a minute’s tokens go when nothing else has used any', () => {
    const { begin } = limits();
    begin(1_000_000).end(6_000);
    expect(() => begin(1)).toThrow(expect.objectContaining({ code: 'rate_limit_exceeded' }));
  });

  it('allows so many calls at once, of each tenant', () => {
    const { begin } = limits();
    const places = [begin(1), begin(1), begin(1)];
    expect(() => begin(1)).toThrow(refused(1));
    expect(begin(1, 'globex').left.remaining).toBe(5_999);
    places[0]!.end(1);
    expect(begin(1).left.limit).toBe(6_000);
  });
});
