import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { checkLedger } from '../../../src/cost/ledger-check.ts';
import { booksClosed } from '../../support/access.ts';
import { runningCalls } from '../../support/calls.ts';
import { adminOf, madeBy, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, ticksOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Budgets that go away, that could never count, and that turn over while calls hold them.

interface BudgetView {
  id: string;
  tenant: string;
  limit_usd: string;
  spent_usd: string;
  held_usd: string;
  remaining_usd: string;
  resets_at: string | null;
}

const USER = 'dev@acme.example';
/** A stream that is under way long enough to do something beside it. */
const SLOW = { output_tokens: 60, token_interval_ms: 50, reasoning_tokens: 0 };

let harness: Harness;
let admin: AdminCall;
beforeAll(async () => {
  harness = await startHarness();
  admin = adminOf(harness, await harness.adminToken());
});
afterAll(async () => {
  await booksClosed(harness.db);
  await expectWhole();
  await harness.close();
});
beforeEach(() => harness.emulator.reset());

async function expectWhole(): Promise<void> {
  const client = await harness.db.connect(); // what it reads is one view, so it needs one connection
  try {
    expect((await checkLedger(async (sql) => (await client.query(sql)).rows as unknown[])).faults).toEqual([]);
  } finally {
    client.release();
  }
}

async function create(fields: Record<string, unknown> = {}): Promise<BudgetView> {
  return madeBy<BudgetView>(await admin('POST', '/budgets', { tenant: 'acme', scope: { type: 'user', id: USER }, window: 'total', limit_usd: '1.00', ...fields }), 201);
}
const get = async (id: string): Promise<BudgetView> => madeBy<BudgetView>(await admin('GET', `/budgets/${id}`));
const remove = (id: string, call = admin): Promise<Response> => call('DELETE', `/budgets/${id}`);

async function removed(id: string): Promise<void> {
  const response = await remove(id);
  if (response.status !== 204) throw new Error(await response.text());
}

/** A stream that has begun. */
async function streaming(): Promise<{ id: string; text: Promise<string> }> {
  const response = await harness.complete({ messages: HELLO, stream: true, max_tokens: 100, x_emulator: SLOW });
  await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 1));
  return { id: response.headers.get('x-request-id')!, text: response.text() };
}

async function called(status = 200): Promise<string> {
  const response = await harness.complete({ max_tokens: 50 });
  const text = await response.text();
  expect([response.status, response.status === status ? '' : text]).toEqual([status, '']);
  return response.headers.get('x-request-id')!;
}

describe('DELETE /admin/v1/budgets', () => {
  it('takes a budget away, on record, and what it stopped may go on', async () => {
    const budget = await create({ limit_usd: '0' });
    await called(402);
    const response = await remove(budget.id);
    expect([response.status, await response.text()]).toEqual([204, '']);
    await called();
    await expectError(await admin('GET', `/budgets/${budget.id}`), 404, 'not_found');
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({
      api: { operation: 'DELETE /admin/v1/budgets/:id' }, unmapped: { novix: { object: { type: 'budget', id: budget.id }, before: budget, after: null } },
    });
  });

  it('of one that has spent, in this period and in those before, leaves the ledger whole', async () => {
    const budget = await create({ window: 'day' });
    await called();
    await harness.db.query("UPDATE budgets SET period_start = period_start - interval '1 day', period_end = now() WHERE id = $1", [budget.id]);
    await called();
    expect((await harness.db.query('SELECT FROM budget_periods WHERE budget_id = $1', [budget.id])).rowCount).toBe(1);
    await removed(budget.id);
    expect((await harness.db.query('SELECT FROM budget_periods WHERE budget_id = $1', [budget.id])).rowCount).toBe(0);
    await called();
    await booksClosed(harness.db);
    await expectWhole();
  });

  it('makes room for another of the same scope and window, which begins at nothing', async () => {
    const first = await create();
    await called();
    expect(ticksOf((await get(first.id)).spent_usd)).toBeGreaterThan(0n);
    await removed(first.id);
    const second = await create();
    expect(second).toMatchObject({ spent_usd: '0.00', held_usd: '0.00', remaining_usd: '1.00' });
    expect(second.id).not.toBe(first.id);
    await removed(second.id);
  });

  it('of one that a call holds is refused, until the call has ended', async () => {
    const budget = await create();
    const call = await streaming();
    expect(ticksOf((await get(budget.id)).held_usd)).toBeGreaterThan(0n);
    const error = await expectError(await remove(budget.id), 400, 'invalid_request');
    expect(error.message).toContain('limit_usd');
    // As the refusal says: no more begin, and then it can go.
    await madeBy(await admin('PATCH', `/budgets/${budget.id}`, { limit_usd: '0' }));
    await called(402);
    expect(await call.text).toContain('[DONE]');
    const { chargedTicks } = await settled(harness, call.id);
    expect(await get(budget.id)).toMatchObject({ held_usd: '0.00', limit_usd: '0.00', remaining_usd: '0.00' });
    expect(ticksOf((await get(budget.id)).spent_usd)).toBe(chargedTicks);
    await removed(budget.id);
  });

  it('of many at once, while calls come and go, loses nothing and holds nothing up', async () => {
    for (let round = 0; round < 3; round += 1) {
      const budget = await create();
      const calls = Array.from({ length: 10 }, () => called());
      const answers = await Promise.all(Array.from({ length: 6 }, async () => (await remove(budget.id)).status));
      expect(answers.filter((status) => status === 204).length).toBeLessThanOrEqual(1);
      expect(answers.every((status) => [204, 400, 404].includes(status))).toBe(true);
      await Promise.all(calls);
      await booksClosed(harness.db);
      if (!answers.includes(204)) await removed(budget.id);
    }
    expect((await harness.db.query("SELECT FROM budgets WHERE scope LIKE 'user:%'")).rowCount).toBe(0);
  });

  it('of the last one leaves a tenant that may spend nothing', async () => {
    await madeBy(await admin('POST', '/tenants', { id: 'bare', name: 'Bare', tier: 'standard' }), 201);
    const { id } = await create({ tenant: 'bare', scope: { type: 'tenant' } });
    const token = await harness.token({ tenant: 'bare' });
    const call = (): Promise<Response> => harness.request('POST', '/v1/chat/completions', { token, body: { model: 'grok-beta', messages: HELLO } });
    expect((await call()).status).toBe(200);
    await removed(id);
    await expectError(await call(), 402, 'budget_exceeded');
  });

  it.each(['nonsense', '00000000-0000-4000-8000-000000000000', '%00', 'acme'])('of %s is 404', async (id) => {
    expect((await remove(id)).status).toBe(404);
  });

  it('twice is 404 the second time', async () => {
    const { id } = await create();
    expect([(await remove(id)).status, (await remove(id)).status]).toEqual([204, 404]);
  });

  it('is for a tenant’s admin within its own tenant, and not of the tenant as a whole', async () => {
    const { id } = await create();
    const { rows: [whole] } = await harness.db.query<{ id: string }>("SELECT id FROM budgets WHERE tenant_id = 'acme' AND scope = 'tenant'");
    const callOf = async (roles: string[], tenant = 'acme'): Promise<AdminCall> => adminOf(harness, await harness.token({ tenant, roles }));
    const own = await callOf(['tenant-admin']);
    expect((await remove(id, await callOf(['billing']))).status).toBe(403);
    expect((await remove(id, await callOf(['developer', 'auditor']))).status).toBe(403);
    expect((await remove(id, await callOf(['tenant-admin'], 'globex'))).status).toBe(404);
    expect((await remove(whole!.id, own)).status).toBe(403);
    expect((await remove(id, own)).status).toBe(204);
  });
});

describe('a budget that can never count', () => {
  it.each(['grok-99', 'auto', 'grok-latest', 'grok-4.3-latest', '*', 'grok-*', 'GROK-BETA', 'xai', '__proto__'])('since no call counts toward the model %s, is refused', async (id) => {
    const response = await admin('POST', '/budgets', { tenant: 'acme', scope: { type: 'model', id }, window: 'day', limit_usd: '1' });
    expect((await expectError(response, 400, 'invalid_request')).param).toBe('scope.id');
  });

  it.each([['grok-beta', 'grok-beta'], ['grok-4.3', 'grok-4.3'], ['grok-4.3', 'grok-latest']])('is none of the model %s: calls of %s count toward it', async (scope, model) => {
    const budget = await create({ scope: { type: 'model', id: scope } });
    const response = await harness.complete({ model });
    await response.text();
    const { chargedTicks } = await settled(harness, response.headers.get('x-request-id'));
    expect(ticksOf((await get(budget.id)).spent_usd)).toBe(chargedTicks);
    expect(chargedTicks).toBeGreaterThan(0n);
    await removed(budget.id);
  });
});

describe('a limit', () => {
  const BAD = ['-1', '-0.01', 'NaN', 'Infinity', '1e308', '9'.repeat(30), `0.${'1'.repeat(30)}`, '922337203.6854775808', '0x10', '１', '', ' 1', '1 ', '+1', '.5', '5.', -1, 1e308, 1, null, true, [], ['1'], { usd: '1' }];
  it.each(BAD.map((limit) => [JSON.stringify(limit), limit] as const))('of %s is refused at creation and at change', async (_, limit) => {
    await expectError(await admin('POST', '/budgets', { tenant: 'acme', scope: { type: 'user', id: 'nobody' }, window: 'day', limit_usd: limit }), 400, 'invalid_request');
    const { rows: [whole] } = await harness.db.query<{ id: string }>("SELECT id FROM budgets WHERE tenant_id = 'acme' AND scope = 'tenant'");
    const before = await get(whole!.id);
    await expectError(await admin('PATCH', `/budgets/${whole!.id}`, { limit_usd: limit }), 400, 'invalid_request');
    expect((await get(whole!.id)).limit_usd).toBe(before.limit_usd);
  });

  it('of as much as a bigint holds works: nothing overflows', async () => {
    const budget = await create({ limit_usd: '922337203.6854775807' });
    await called();
    const { spent_usd: spent, remaining_usd: remaining, held_usd: held } = await get(budget.id);
    expect(ticksOf(spent) + ticksOf(remaining)).toBe(9_223_372_036_854_775_807n);
    expect(held).toBe('0.00');
    await removed(budget.id);
  });
});

describe('a window that ends in the middle of a call', () => {
  it.each(['day', 'month'])('of a %s: the call is charged to the period in which it ends, and holds its room until then', async (window) => {
    const budget = await create({ window });
    const first = await called();
    const { chargedTicks: before } = await settled(harness, first);
    const call = await streaming();
    const held = ticksOf((await get(budget.id)).held_usd);
    expect(held).toBeGreaterThan(0n);
    await harness.db.query('UPDATE budgets SET period_start = period_start - ($2 || $3)::interval, period_end = now() WHERE id = $1', [budget.id, '1 ', window]);
    // Seen from here the new period has begun: nothing is spent, and the hold is still held.
    const between = await get(budget.id);
    expect([between.spent_usd, ticksOf(between.held_usd)]).toEqual(['0.00', held]);
    expect(Date.parse(between.resets_at!)).toBeGreaterThan(Date.now());
    expect(runningCalls(harness.emulator)).toHaveLength(1);

    expect(await call.text).toContain('[DONE]');
    const { chargedTicks } = await settled(harness, call.id);
    const after = await get(budget.id);
    expect([ticksOf(after.spent_usd), after.held_usd]).toEqual([chargedTicks, '0.00']);
    const { rows: periods } = await harness.db.query<{ spent: string }>('SELECT spent_ticks AS spent FROM budget_periods WHERE budget_id = $1', [budget.id]);
    expect(periods).toEqual([{ spent: String(before) }]);
    await expectWhole();
    await removed(budget.id);
  });

  it('turns over once, however many calls see it first', async () => {
    const budget = await create({ window: 'day' });
    const { chargedTicks: before } = await settled(harness, await called());
    await harness.db.query("UPDATE budgets SET period_start = period_start - interval '1 day', period_end = now() WHERE id = $1", [budget.id]);
    const charges = await Promise.all(Array.from({ length: 12 }, async () => (await settled(harness, await called())).chargedTicks));
    const { rows: periods } = await harness.db.query<{ spent: string }>('SELECT spent_ticks AS spent FROM budget_periods WHERE budget_id = $1', [budget.id]);
    expect(periods).toEqual([{ spent: String(before) }]);
    expect(ticksOf((await get(budget.id)).spent_usd)).toBe(charges.reduce((sum, ticks) => sum + ticks, 0n));
    await removed(budget.id);
  });

  it('does not turn over backwards: a period that begins in the future stays as it is', async () => {
    const budget = await create({ window: 'day' });
    await harness.db.query("UPDATE budgets SET period_start = period_start + interval '1 day', period_end = period_end + interval '1 day' WHERE id = $1", [budget.id]);
    const ends = (await get(budget.id)).resets_at;
    const { chargedTicks } = await settled(harness, await called());
    expect(await get(budget.id)).toMatchObject({ resets_at: ends });
    expect(ticksOf((await get(budget.id)).spent_usd)).toBe(chargedTicks);
    await removed(budget.id);
  });
});
