import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

/** Time stands still unless a test moves it, so that the limit is exact. */
const clock = { monotonic: 1_000_000, nowMs: () => Date.now(), monotonicMs: () => clock.monotonic };
const BURST = 1_000; // a tenth of the standard tier's 10,000 a minute
const INTERVAL_MS = 6;

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({ clock, env: { XAI_RETRY_MAX: '0' } });
});
afterAll(async () => {
  await harness.close();
});

function models(token: string): Promise<Response> {
  return harness.request('GET', '/v1/models/grok-beta', { token });
}

/** Statuses of so many requests, 40 at once. */
async function statuses(token: string, count: number): Promise<Record<number, number>> {
  const found: Record<number, number> = {};
  let left = count;
  await Promise.all(Array.from({ length: 40 }, async () => {
    while (left > 0) {
      left -= 1;
      const response = await models(token);
      await response.arrayBuffer();
      found[response.status] = (found[response.status] ?? 0) + 1;
    }
  }));
  return found;
}

async function refused(token: string): Promise<Response> {
  const response = await models(token);
  const error = await expectError(response, 429, 'rate_limit_exceeded');
  expect(error.type).toBe('rate_limit_error');
  return response;
}

describe('the tier’s requests per minute, with a burst of a tenth', () => {
  it('count down in the headers', async () => {
    const token = await harness.token({ tenant: 'globex' });
    const [first, second] = [await models(token), await models(token)];
    expect(first.headers.get('x-ratelimit-limit-requests')).toBe('100000');
    expect(Number(first.headers.get('x-ratelimit-remaining-requests'))).toBe(9_999);
    expect(Number(second.headers.get('x-ratelimit-remaining-requests'))).toBe(9_998);
    expect(second.headers.get('x-ratelimit-reset-requests')).toMatch(/^\d+(\.\d+)?(ms|s)$/);
  });

  it('let the burst through to the last request and refuse the next, for every caller of the tenant, on every route', async () => {
    const token = await harness.token();
    expect(await statuses(token, BURST)).toEqual({ 200: BURST });
    const response = await refused(token);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(response.headers.get('x-should-retry')).toBeNull(); // waiting helps
    expect(response.headers.get('x-ratelimit-limit-requests')).toBe('10000');
    expect(response.headers.get('x-ratelimit-remaining-requests')).toBe('0');
    expect([...response.headers.keys()].filter((name) => name.startsWith('retry-after'))).toEqual(['retry-after']);
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).toMatchObject({ status_code: 'rate_limit_exceeded', metadata: { tenant_uid: 'acme' }, api: { response: { code: 429 } } });
    await refused(await harness.token({ subject: 'someone-else' }));
    await expectError(await harness.complete(), 429, 'rate_limit_exceeded');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('do not touch another tenant, nor a caller who is not known', async () => {
    expect((await models(await harness.token({ tenant: 'globex' }))).status).toBe(200);
    expect((await models('garbage')).status).toBe(401);
  });

  it('come back one by one, and a refused request costs nothing', async () => {
    const token = await harness.token();
    for (let attempt = 0; attempt < 5; attempt += 1) await refused(token);
    clock.monotonic += INTERVAL_MS;
    expect((await models(token)).status).toBe(200);
    await refused(token);
    clock.monotonic += 3 * INTERVAL_MS;
    expect(await statuses(token, 4)).toEqual({ 200: 3, 429: 1 });
  });

  it('are never more than the burst, however long nobody called', async () => {
    clock.monotonic += 3_600_000;
    expect(await statuses(await harness.token(), BURST + 5)).toEqual({ 200: BURST, 429: 5 });
  });
});

describe('the provider’s own limit', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['with its retry-after', { status: 429, retry_after: 7 }, '7'],
    ['of an hour, shown as a minute at most', { status: 429, retry_after: 3_600 }, '60'],
    ['without one', { status: 429 }, '1'],
  ])('is a 429 to the caller, free of charge: %s', async (_, script, retryAfter) => {
    for (const stream of [false, true]) {
      clock.monotonic += 60_000; // what a 429 keeps away for longest
      const response = await harness.complete({ stream, x_emulator: script });
      const error = await expectError(response, 429, 'rate_limit_exceeded');
      expect(error).toMatchObject({ type: 'rate_limit_error', param: null });
      expect(error.message).not.toContain('6f0a3d52'); // our team's id
      expect(response.headers.get('retry-after')).toBe(retryAfter);
      expect(response.headers.get('x-should-retry')).toBeNull();
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
    }
  });

  it('is told at once to whoever comes within the time that the provider named', async () => {
    clock.monotonic += 60_000;
    await expectError(await harness.complete({ x_emulator: { status: 429, retry_after: 7 } }), 429, 'rate_limit_exceeded');
    harness.emulator.reset();
    clock.monotonic += 3_000;
    const response = await harness.complete();
    await expectError(response, 429, 'rate_limit_exceeded');
    expect(response.headers.get('retry-after')).toBe('4');
    expect(harness.emulator.calls).toEqual([]);
    clock.monotonic += 4_000;
    expect((await harness.complete()).status).toBe(200);
  });
});
