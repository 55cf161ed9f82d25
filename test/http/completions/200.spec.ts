import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness.close();
});

describe('POST /v1/chat/completions', () => {
  it('answers whole, priced as the provider billed it', async () => {
    const response = await harness.complete({ x_emulator: { content: 'Hello there.' } });
    const body = (await response.json()) as { choices: { message: { content: string } }[]; usage: { cost_in_usd_ticks: number } };
    expect(response.status).toBe(200);
    expect(body.choices[0]!.message.content).toBe('Hello there.');
    const record = await eventually(async () => (await harness.db.query('SELECT * FROM usage_records WHERE request_id = $1', [response.headers.get('x-request-id')])).rows[0] as { charged_ticks: string; basis: string });
    expect(record).toMatchObject({ charged_ticks: String(body.usage.cost_in_usd_ticks), basis: 'provider' });
    expect(harness.emulator.billedUsdTicks()).toBe(BigInt(record.charged_ticks));
  });
});
