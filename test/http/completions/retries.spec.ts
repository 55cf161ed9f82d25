import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { startHarness, type Harness } from '../../support/harness.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { eventOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Attempts and the breaker, judged from the provider's side: what it received, when, and what it would bill.

const RECOVERY_MS = 1_500;
/** Ids of the answers' requests. */
const idOf = (response: Response): string | null => response.headers.get('x-request-id');

let harness: Harness;
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
});

describe('retries', () => {
  beforeAll(async () => {
    harness = await startHarness({ env: { XAI_RETRY_BACKOFF_MS: '20', XAI_BREAKER_FAILURES: '1000000' } });
  });
  afterAll(async () => {
    await harness.close();
  });

  it.each([[500], [502], [503], [504], [429], [520]])('%i, twice, is not noticed by the caller; it is billed once, and every attempt is on record', async (status) => {
    harness.emulator.setFaults([{ calls: 2, status }]);
    const response = await harness.complete();
    expect(response.status).toBe(200);
    expect(response.headers.get('x-novix-attempts')).toBe('3');
    expect(harness.emulator.calls).toHaveLength(3);
    expect((await settled(harness, idOf(response))).chargedTicks).toBe(harness.emulator.billedUsdTicks());
    const outcome = await eventOf(harness, idOf(response), 'outcome');
    expect(outcome.unmapped.novix).toMatchObject({ attempts: [{ status }, { status }, { status: 200 }] });
  });

  it('gives up after three further attempts', async () => {
    harness.emulator.setFaults([{ status: 503 }]);
    await expectError(await harness.complete(), 503, 'provider_unavailable');
    expect(harness.emulator.calls).toHaveLength(4);
  });

  it.each([
    ['a refusal', { status: 400 }, 400], ['a wrong key', { status: 401 }, 502], ['a rate limit that is one of money', { status: 429, body: { code: 'resource-exhausted', error: 'Your team has used all available credits' } }, 502], ['silence that may have been billed', { cut_after: 0 }, 503], ['a break after the first byte', { cut_after: 3, output_tokens: 9 }, 502],
  ])('%s is not tried again', async (_, fault, status) => {
    harness.emulator.setFaults([fault]);
    expect((await harness.complete()).status).toBe(status);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('a connection that breaks before any answer is tried again, and the attempt that may have been billed is paid for by a hold of its own', async () => {
    harness.emulator.setFaults([{ calls: 2, reset_before_headers: true }]);
    const response = await harness.complete({ max_tokens: 20 });
    expect([response.status, response.headers.get('x-novix-attempts')]).toEqual([200, '3']);
    const { chargedTicks, heldTicks } = await settled(harness, idOf(response));
    const { rows } = await harness.db.query<{ outcome: string; basis: string; charged: string }>('SELECT outcome, basis, charged_ticks AS charged FROM settlements WHERE request_id = $1 ORDER BY finished_at, outcome', [idOf(response)]);
    const lost = { outcome: 'lost', basis: 'hold', charged: String(heldTicks) };
    expect(rows).toEqual([lost, lost, { outcome: 'completed', basis: 'provider', charged: String(chargedTicks) }]);
    expect(2n * heldTicks + chargedTicks).toBeGreaterThanOrEqual(harness.emulator.billedUsdTicks());
    expect((await eventOf(harness, idOf(response), 'outcome')).unmapped.novix).toMatchObject({ lost_attempts: [{ ticks: String(heldTicks) }, { ticks: String(heldTicks) }] });
    await expectBooksClosed(harness.db);
  });

  it('is not tried again where no budget has room for what the lost attempt may have cost', async () => {
    const { rows: [budget] } = await harness.db.query<{ id: string; limit: string; spent: string }>("SELECT id, limit_ticks AS limit, spent_ticks AS spent FROM budgets WHERE tenant_id = 'acme' AND scope = 'tenant'");
    const before = await settled(harness, idOf(await harness.complete({ max_tokens: 20 })));
    harness.emulator.reset();
    await harness.db.query('UPDATE budgets SET limit_ticks = spent_ticks + $2 WHERE id = $1', [budget!.id, String((3n * before.heldTicks) / 2n)]);
    harness.emulator.setFaults([{ calls: 1, reset_before_headers: true }]);
    const response = await harness.complete({ max_tokens: 20 });
    await harness.db.query('UPDATE budgets SET limit_ticks = $2 WHERE id = $1', [budget!.id, budget!.limit]);
    await expectError(response, 503, 'provider_unavailable');
    expect(harness.emulator.calls).toHaveLength(1);
    expect(await settled(harness, idOf(response))).toMatchObject({ outcome: 'failed', basis: 'hold', chargedTicks: before.heldTicks });
    await expectBooksClosed(harness.db);
  });

  it.each([[true], [false]])('a compressed answer, which nobody asked for, reaches the caller as it was meant (stream: %p)', async (stream) => {
    const plain = await (await harness.complete({ stream, x_emulator: { output_tokens: 40 } })).text();
    const response = await harness.complete({ stream, x_emulator: { output_tokens: 40, gzip: 'force' } });
    expect(response.headers.get('content-encoding')).toBeNull();
    const said = (text: string): string[] => [...text.matchAll(/"content":"([^"]*)"/g)].map(([, content]) => content!);
    expect(said(await response.text())).toEqual(said(plain));
    expect(said(plain).length).toBeGreaterThan(0);
    expect((await settled(harness, idOf(response))).outcome).toBe('completed');
  });

  it('a compressed answer that breaks off is a broken one', async () => {
    const response = await harness.complete({ stream: false, x_emulator: { output_tokens: 40, gzip: 'force', cut_after: 5 } });
    await expectError(response, 502, 'provider_bad_response');
    expect((await settled(harness, idOf(response))).outcome).toBe('failed');
  });

  it.each([[false], [true]])('pings of the provider are not passed on (with data: %p)', async (ping_data) => {
    const text = await (await harness.complete({ stream: true, x_emulator: { output_tokens: 9, ping_every: 1, ping_data } })).text();
    expect(text).not.toContain('ping');
    expect(text).toMatch(/data: \[DONE\]\n\n$/);
    expect(text.match(/"content"/g)).toHaveLength(9);
  });

  it('waits as long as the provider wants, where it fits the deadline, and not where it does not', async () => {
    harness.emulator.setFaults([{ calls: 1, status: 429, retry_after: 1 }]);
    const startedMs = performance.now();
    expect((await harness.complete()).status).toBe(200);
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(990);
    harness.emulator.setFaults([{ calls: 1, status: 429, retry_after: 1 }]);
    await expectError(await harness.complete({}, { 'x-novix-deadline-ms': '500' }), 429, 'rate_limit_exceeded');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  });

  it('an outage costs the provider at most a fifth more calls than were asked for', async () => {
    harness.emulator.setFaults([{ status: 503 }]);
    const calls = 1_000;
    let left = calls;
    const statuses = new Set<number>();
    await Promise.all(Array.from({ length: 20 }, async () => {
      while (left-- > 0) {
        const response = await harness.complete();
        statuses.add(response.status);
        await response.arrayBuffer();
      }
    }));
    expect(statuses).toEqual(new Set([503]));
    expect(harness.emulator.calls.length).toBeLessThanOrEqual(1.2 * calls);
  }, 60_000);
});

describe('the breaker', () => {
  beforeAll(async () => {
    harness = await startHarness({ env: { XAI_RETRY_MAX: '0', XAI_BREAKER_RECOVERY_MS: String(RECOVERY_MS) } });
  });
  afterAll(async () => {
    await harness.close();
  });

  it('answers locally after five failed attempts; then exactly one of a hundred calls finds out whether the provider is back', async () => {
    harness.emulator.setFaults([{ status: 503 }]);
    for (let attempt = 0; attempt < 5; attempt++) await expectError(await harness.complete(), 503, 'provider_unavailable');
    harness.emulator.reset();
    const startedMs = performance.now();
    const refused = await harness.complete();
    const refusedMs = performance.now() - startedMs;
    await expectError(refused, 503, 'breaker_open');
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(refusedMs).toBeLessThan(50);
    expect(harness.emulator.calls).toHaveLength(0);

    await new Promise((resolve) => setTimeout(resolve, RECOVERY_MS * 1.1 + 50));
    harness.emulator.setFaults([{ delay_ms: 400 }]); // so that all hundred come while the probe is under way
    const answers = await Promise.all(Array.from({ length: 100 }, () => harness.complete()));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 503)).toHaveLength(99);
    expect(harness.emulator.calls).toHaveLength(1);
    harness.emulator.setFaults([]);
    expect((await harness.complete()).status).toBe(200);
  });

  it('opens for breaks in mid-answer, and not for refusals of the provider or of its rate limit', async () => {
    harness.emulator.setFaults([{ status: 400 }]);
    for (let call = 0; call < 6; call++) expect((await harness.complete()).status).toBe(400);
    harness.emulator.setFaults([{ status: 429 }]);
    for (let call = 0; call < 6; call++) expect((await harness.complete()).status).toBe(429);
    harness.emulator.setFaults([{ cut_after: 3, output_tokens: 9 }]);
    for (let call = 0; call < 5; call++) await (await harness.complete({ stream: true })).text();
    await expectError(await harness.complete(), 503, 'breaker_open');
  });
});
