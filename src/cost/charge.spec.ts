import { describe, expect, it } from '@jest/globals';
import { loadCatalogue } from '../catalogue/catalogue.ts';
import type { ProviderUsage } from '../catalogue/token-price.ts';
import { chargeFor, type CallObservation, type Charge } from './charge.ts';
import { candidatesFor, NO_COST, planCall, type Plan } from './plan.ts';

const catalogue = loadCatalogue();
const resolved = catalogue.resolve('grok-4.20-0309-non-reasoning')!;
const price = resolved.model.price!;
const planFor = (choices: number): Plan => planCall(resolved, candidatesFor(catalogue, [resolved]), { ...NO_COST, textBytes: 250, maxOutputTokens: 1_000, choices }, { maxTokensCap: 32_768, maxCostTicks: undefined });
const plan = planFor(1); // 100 tokens in, 1,000 out: holds 26,250,000 ticks
const USAGE: ProviderUsage = { inputTokens: 100, cachedInputTokens: 0, outputTokens: 10, reasoningTokens: 0, costTicks: 1_500_000n }; // also by our own arithmetic
const SEEN: CallObservation = { mayHaveBeenBilled: true, usage: USAGE, priority: false, outputTokensSeen: 10, backlogged: false };
const charge = (observation: Partial<CallObservation>, of: Plan = plan): Charge => chargeFor({ ...SEEN, ...observation }, of, price);
const priced = (costTicks: bigint | undefined): Charge => charge({ usage: { ...USAGE, costTicks } });

describe('chargeFor', () => {
  it('takes the provider’s price', () => {
    expect(charge({})).toEqual({ ticks: 1_500_000n, basis: 'provider', providerTicks: 1_500_000n, computedTicks: 1_500_000n, drift: false });
  });

  it('takes the provider’s price where it differs from ours, and says so', () => {
    expect(priced(1_600_000n)).toMatchObject({ ticks: 1_600_000n, basis: 'provider', drift: true });
    expect(priced(0n)).toMatchObject({ ticks: 0n, basis: 'provider', drift: true });
    for (const off of [2n, -2n]) expect(priced(1_500_000n + off)).toMatchObject({ ticks: 1_500_000n + off, drift: true });
  });

  it('takes a difference of one tick for rounding', () => {
    for (const off of [1n, -1n]) expect(priced(1_500_000n + off)).toMatchObject({ ticks: 1_500_000n + off, basis: 'provider', drift: false });
  });

  it('takes a price above the hold: no constraint may make a settlement fail', () => {
    const usage = { ...USAGE, outputTokens: 2_000, costTicks: 51_250_000n };
    expect(charge({ usage })).toMatchObject({ ticks: 51_250_000n, basis: 'provider', drift: false });
  });

  it('takes our own arithmetic where the provider’s price is above both the hold and ten times that', () => {
    expect(priced(26_250_001n)).toMatchObject({ ticks: 1_500_000n, basis: 'computed', providerTicks: 26_250_001n, drift: true });
    expect(priced(26_250_000n)).toMatchObject({ ticks: 26_250_000n, basis: 'provider' }); // not above the hold
    const usage = { ...USAGE, outputTokens: 200, costTicks: 62_500_000n }; // exactly ten times 6,250,000
    expect(charge({ usage })).toMatchObject({ ticks: 62_500_000n, basis: 'provider' });
    expect(charge({ usage: { ...usage, costTicks: 62_500_001n } })).toMatchObject({ ticks: 6_250_000n, basis: 'computed' });
  });

  it('takes our own arithmetic where the provider names no price', () => {
    expect(priced(undefined)).toMatchObject({ ticks: 1_500_000n, basis: 'computed', providerTicks: undefined, drift: false });
  });

  it('compares at the priority rate where the answer was served so', () => {
    expect(charge({ usage: { ...USAGE, costTicks: 3_000_000n }, priority: true })).toMatchObject({ computedTicks: 3_000_000n, drift: false });
  });

  it('takes usage even where the call failed afterwards', () => {
    expect(charge({ mayHaveBeenBilled: false })).toMatchObject({ ticks: 1_500_000n, basis: 'provider' });
  });
});

describe('chargeFor without usage', () => {
  const none = { usage: undefined };

  it('is free only where nothing can have been billed', () => {
    expect(charge({ ...none, mayHaveBeenBilled: false })).toMatchObject({ ticks: 0n, basis: 'free' });
  });

  it('charges the whole hold where nothing was seen, or what was seen says little', () => {
    expect(charge({ ...none, outputTokensSeen: 0 })).toMatchObject({ ticks: plan.holdTicks, basis: 'hold' });
    expect(charge({ ...none, outputTokensSeen: 10, backlogged: true })).toMatchObject({ ticks: plan.holdTicks, basis: 'hold' });
  });

  it('charges the prompt and what was seen, with an eighth and 32 tokens on top', () => {
    expect(charge({ ...none, outputTokensSeen: 80 })).toMatchObject({ ticks: plan.fixedTicks + (80n + 10n + 32n) * 25_000n, basis: 'observed', drift: false });
  });

  it('never charges more than the hold', () => {
    expect(charge({ ...none, outputTokensSeen: 1_000_000 })).toMatchObject({ ticks: plan.holdTicks, basis: 'observed' });
  });

  it('counts the frames of several choices once each', () => {
    const three = planFor(3);
    expect(charge({ ...none, outputTokensSeen: 80 }, three).ticks).toBe(three.fixedTicks + (80n + 10n + 32n) * 25_000n);
  });
});
