import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { checkLedger } from '../../../src/cost/ledger-check.ts';
import { HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, ticksOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

interface Settlement {
  id: string;
  request_id: string;
  tenant: string;
  state: string;
  basis: string;
  held_usd: string;
  charged_usd: string;
}

let harness: Harness;
let admin: string;
beforeAll(async () => {
  harness = await startHarness();
  admin = await harness.adminToken();
});
afterAll(async () => {
  await harness.close();
});

/** A call of which the provider never says what it cost; its settlement, as the list has it. */
async function uncertainCall(): Promise<Settlement> {
  const response = await harness.request('POST', '/v1/chat/completions', { body: { model: 'grok-beta', messages: HELLO, x_emulator: { no_usage: true, output_tokens: 5 } } });
  await response.text();
  const requestId = response.headers.get('x-request-id');
  expect((await settled(harness, requestId)).basis).toBe('observed');
  const row = (await list()).find(({ request_id: id }) => id === requestId);
  return row!;
}

async function list(token = admin): Promise<Settlement[]> {
  const response = await harness.request('GET', '/admin/v1/settlements?limit=200', { token });
  expect(response.status).toBe(200);
  return ((await response.json()) as { data: Settlement[] }).data;
}

function reconcile(id: string, body: unknown, token = admin): Promise<Response> {
  return harness.request('POST', `/admin/v1/settlements/${id}:reconcile`, { token, body });
}

/** What acme's budget of all has spent, in ticks. */
async function spent(): Promise<bigint> {
  const { rows } = await harness.db.query<{ spent_ticks: string }>("SELECT spent_ticks FROM budgets WHERE tenant_id = 'acme' AND scope = 'tenant'");
  return BigInt(rows[0]!.spent_ticks);
}

async function faults(): Promise<unknown[]> {
  const client = await harness.db.connect();
  try {
    return (await checkLedger(async (sql) => (await client.query<object>(sql)).rows)).faults;
  } finally {
    client.release();
  }
}

describe('settlements without the provider’s word', () => {
  it('are listed, in pages, and those with it are not', async () => {
    await (await harness.complete()).text();
    const [first, second] = [await uncertainCall(), await uncertainCall()];
    const rows = await list();
    expect(rows.map(({ id }) => id)).toEqual([first.id, second.id]);
    expect(rows[0]).toMatchObject({ tenant: 'acme', state: 'settled', basis: 'observed', outcome: 'completed', model: 'grok-beta', deployment: 'xai' });
    const page = (await (await harness.request('GET', '/admin/v1/settlements?limit=1', { token: admin })).json()) as { data: Settlement[]; next_cursor: string };
    expect(page.data.map(({ id }) => id)).toEqual([first.id]);
    const next = (await (await harness.request('GET', `/admin/v1/settlements?limit=1&cursor=${page.next_cursor}`, { token: admin })).json()) as { data: Settlement[]; next_cursor: string | null };
    expect([next.data.map(({ id }) => id), next.next_cursor]).toEqual([[second.id], null]);
  });

  it('are seen by their own tenant’s billing, and by no other tenant’s, nor by developers', async () => {
    await uncertainCall();
    expect((await list(await harness.token({ roles: ['billing'] }))).length).toBeGreaterThan(0);
    expect(await list(await harness.token({ tenant: 'globex', roles: ['tenant-admin'] }))).toEqual([]);
    await expectError(await harness.request('GET', '/admin/v1/settlements', {}), 403, 'policy_denied');
  });
});

describe('a reconciliation', () => {
  it.each(['0.0123', '0.00', '3.5'])('books the difference to %s USD in the budgets and the usage, and the ledger adds up', async (usd) => {
    const call = await uncertainCall();
    const before = await spent();
    const response = await reconcile(call.id, { charged_usd: usd, reason: 'invoice 2026-11, line 7' });
    expect(response.status).toBe(200);
    const after = (await response.json()) as Settlement;
    expect(after).toMatchObject({ id: call.id, state: 'settled', basis: 'reconciled' });
    const ticks = BigInt(Math.round(Number(usd) * 1e10));
    expect(ticksOf(after.charged_usd)).toBe(ticks);
    expect(await spent()).toBe(before + ticks - ticksOf(call.charged_usd));
    expect(await faults()).toEqual([]);
    expect((await list()).map(({ id }) => id)).not.toContain(call.id);
    const { unmapped } = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(unmapped.novix).toMatchObject({
      object: { type: 'settlement', id: call.id }, before: { charged_usd: call.charged_usd, basis: 'observed' }, after: { charged_usd: after.charged_usd, basis: 'reconciled', reason: 'invoice 2026-11, line 7' },
    });
  });

  it('may be put right by another', async () => {
    const call = await uncertainCall();
    const before = await spent();
    for (const usd of ['1.00', '0.01']) expect((await reconcile(call.id, { charged_usd: usd, reason: 'typed wrong' })).status).toBe(200);
    expect(await spent()).toBe(before + 100_000_000n - ticksOf(call.charged_usd));
    expect(await faults()).toEqual([]);
  });

  it('of a period that is over goes to that period, and the new one stays as it is', async () => {
    const made = await harness.request('POST', '/admin/v1/budgets', { token: admin, body: { tenant: 'acme', scope: { type: 'user', id: 'dev@acme.example' }, window: 'day', limit_usd: '50.00' } });
    const { id: budget } = (await made.json()) as { id: string };
    const call = await uncertainCall();
    // A day goes by: the call, and the period in which it was charged, are of yesterday.
    await harness.db.query("UPDATE settlements SET finished_at = finished_at - interval '1 day', started_at = started_at - interval '1 day' WHERE hold_id = $1", [call.id]);
    await harness.db.query("UPDATE budgets SET period_start = period_start - interval '1 day', period_end = period_end - interval '1 day' WHERE id = $1", [budget]);
    await (await harness.complete()).text(); // closes the period
    const today = await harness.db.query<{ spent_ticks: string }>('SELECT spent_ticks FROM budgets WHERE id = $1', [budget]);
    expect((await reconcile(call.id, { charged_usd: '0.00', reason: 'not on the invoice' })).status).toBe(200);
    expect((await harness.db.query<{ spent_ticks: string }>('SELECT spent_ticks FROM budgets WHERE id = $1', [budget])).rows).toEqual(today.rows);
    const { rows } = await harness.db.query<{ spent_ticks: string }>('SELECT spent_ticks FROM budget_periods WHERE budget_id = $1', [budget]);
    expect(rows).toEqual([{ spent_ticks: '0' }]);
  });

  it('at once with another of the same call comes after it, and the ledger adds up', async () => {
    const call = await uncertainCall();
    const answers = await Promise.all(['0.10', '0.20', '0.30'].map((usd) => reconcile(call.id, { charged_usd: usd, reason: 'race' })));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(await faults()).toEqual([]);
  });

  it('is refused for what the provider priced itself, for what is not there, and from a tenant', async () => {
    const priced = await harness.complete();
    await priced.text();
    await settled(harness, priced.headers.get('x-request-id'));
    const { rows } = await harness.db.query<{ hold_id: string }>('SELECT hold_id FROM settlements WHERE request_id = $1', [priced.headers.get('x-request-id')]);
    const body = { charged_usd: '0.01', reason: 'no' };
    await expectError(await reconcile(rows[0]!.hold_id, body), 400, 'invalid_request');
    await expectError(await reconcile('0192f3a4-0000-7000-8000-000000000000', body), 404, 'not_found');
    await expectError(await reconcile('no-id', body), 404, 'not_found');
    await expectError(await harness.request('POST', `/admin/v1/settlements/${rows[0]!.hold_id}`, { token: admin, body }), 404, 'not_found');
    for (const role of ['tenant-admin', 'billing']) await expectError(await reconcile((await uncertainCall()).id, body, await harness.token({ roles: [role] })), 403, 'policy_denied');
    expect(await list()).not.toEqual([]); // they stand as they stood
  });

  it.each([
    [{ charged_usd: '-1', reason: 'r' }], [{ charged_usd: '1e3', reason: 'r' }], [{ charged_usd: 1, reason: 'r' }], [{ charged_usd: '999999999', reason: 'r' }], [{ charged_usd: '1' }], [{ charged_usd: '1', reason: '' }],
    [{ charged_usd: '1', reason: 'r', basis: 'provider' }], [{ charged_usd: `1.${'0'.repeat(11)}`, reason: 'r' }],
  ])('refuses %j', async (body) => {
    const call = await uncertainCall();
    await expectError(await reconcile(call.id, body), 400, 'invalid_request');
    expect(await list()).toContainEqual(call);
  });
});
