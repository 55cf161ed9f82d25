import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

let harness: Harness;
let token: string;
beforeAll(async () => {
  harness = await startHarness();
  token = await harness.token();
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => {
  harness.emulator.reset();
  harness.emulator.setSwitches({ documentationStyle: false });
});

/** A call whose thinking alone costs 25 cents, of which the provider tells as it goes; answered 200 tokens long. */
function think(maxCostUsd: string, body: Record<string, unknown> = {}): Promise<Response> {
  harness.emulator.setSwitches({ documentationStyle: true });
  return harness.request('POST', '/v1/chat/completions', {
    token, headers: { 'x-novix-max-cost-usd': maxCostUsd },
    body: { model: 'grok-beta', messages: HELLO, x_emulator: { reasoning_tokens: 100_000, output_tokens: 200, token_interval_ms: 5 }, ...body },
  });
}

describe('a call that runs past its ceiling', () => {
  it('is cut in mid-stream with an error event and no [DONE], settled and recorded', async () => {
    const response = await think('0.02', { stream: true });
    expect(response.status).toBe(200);
    const text = await response.text();
    expect(text).toContain('"code":"request_cost_exceeded"');
    expect(text).not.toContain('[DONE]');
    const requestId = response.headers.get('x-request-id')!;
    const { outcome, chargedTicks } = await settled(harness, requestId);
    expect(outcome).toBe('failed');
    expect(chargedTicks).toBeGreaterThan(2_400_000_000n); // what the provider said it had cost by then
    expect(await eventOf(harness, requestId, 'outcome')).toMatchObject({ status_code: 'request_cost_exceeded' });
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('is refused with 402 where nothing has gone out, and never tried again', async () => {
    const error = await expectError(await think('0.02'), 402, 'request_cost_exceeded');
    expect(error.message).toContain('has reached the limit');
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('is let be where the ceiling pays for it, and where there is none', async () => {
    for (const ceiling of ['0.30', undefined]) {
      const response = ceiling === undefined
        ? await harness.request('POST', '/v1/chat/completions', { token, body: { model: 'grok-beta', messages: HELLO, stream: true, x_emulator: { reasoning_tokens: 100_000, output_tokens: 20 } } })
        : await think(ceiling, { stream: true });
      expect(await response.text()).toContain('[DONE]');
    }
  });

  it('may use its ceiling to the last tick', async () => {
    // The plan leaves as many tokens as the ceiling pays for; the provider makes exactly so many.
    const response = await harness.request('POST', '/v1/chat/completions', {
      token, headers: { 'x-novix-max-cost-usd': '0.006' }, body: { model: 'grok-beta', messages: HELLO, stream: true, reasoning_effort: 'none', x_emulator: { output_tokens: 32_000, token_interval_ms: 0 } },
    });
    const text = await response.text();
    expect(text).toContain('[DONE]');
    expect(text).toContain('"finish_reason":"length"');
  });
});
