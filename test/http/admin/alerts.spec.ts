import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { Pool } from 'pg';
import { Registry } from 'prom-client';
import { Alerts, type Alert } from '../../../src/alerts/alerts.ts';
import { createLogger } from '../../../src/shared/logger.ts';
import { listAll, wallClock } from '../../support/access.ts';
import { adminOf, madeBy, startReplica, type AdminCall } from '../../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { hold, resolution } from '../../support/ledger.ts';
import { settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// What people should know: each thing once per crossing and period, and seen by those whom it concerns.

interface AlertView {
  id: string;
  type: string;
  tenant: string | null;
  subject: string;
  state: 'firing' | 'resolved';
  at: string;
  resolved_at: string | null;
  value: string;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const HOUR_MS = 3_600_000;
/** Ticks of a cent. */
const CENT = 100_000_000n;
const clock = wallClock();
/** In the middle of an hour, so that no test runs over its end. */
const MID_HOUR_MS = Math.ceil(Date.now() / HOUR_MS) * HOUR_MS + HOUR_MS / 2;

let harness: Harness;
let admin: AdminCall;
let developer: string;
let counter = 0;
beforeAll(async () => {
  harness = await startHarness({ clock, env: { XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '3' } });
  admin = adminOf(harness, await harness.token({ tenant: 'platform', subject: 'root@platform.example', roles: ['platform-admin'], ttlSeconds: 12 * 3_600 }));
  developer = await harness.token({ ttlSeconds: 12 * 3_600 });
});
afterAll(() => harness.close());
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
});

const alerts = (call = admin): Promise<AlertView[]> => listAll<AlertView>(call, '/alerts');
const about = async (subject: string, type?: string): Promise<AlertView[]> => (await alerts()).filter((alert) => alert.subject === subject && (type === undefined || alert.type === type));
/** Waits until a subject has so many alerts. */
const untilToldOf = (subject: string, count: number, type?: string): Promise<AlertView[]> => eventually(async () => {
  const told = await about(subject, type);
  return told.length >= count && told;
}, 8_000);

/** Waits until every alert of a subject is over. */
const untilOver = (subject: string, type?: string): Promise<AlertView[]> => eventually(async () => {
  const told = await about(subject, type);
  return told.length > 0 && told.every(({ state }) => state === 'resolved') && told;
}, 8_000);
/** Alerts of a replica of the test's own, which looks at budgets when it is told to. */
const watcher = (pool: Pick<Pool, 'query'> = harness.db): Alerts => new Alerts(pool, createLogger('silent'), new Registry());

/** A tenant of a test's own, with room for anything. */
async function newTenant(): Promise<string> {
  counter += 1;
  const id = `alerted-${counter}`;
  await madeBy(await admin('POST', '/tenants', { id, name: 'Test', tier: 'standard' }), 201);
  await budget(id, { scope: { type: 'tenant' }, window: 'total', limit_usd: '1000.00', warn_at: [] });
  return id;
}

async function budget(tenant: string, fields: Record<string, unknown> = {}): Promise<string> {
  return (await madeBy<{ id: string }>(await admin('POST', '/budgets', { tenant, scope: { type: 'user', id: 'u' }, window: 'day', limit_usd: '1.00', warn_at: [0.5], ...fields }), 201)).id;
}

async function ledger(entry: string): Promise<void> {
  const { rows } = await harness.db.query<{ verdicts: number[] }>("SELECT ledger_apply('{0}', $1::json) AS verdicts", [`[{"i":0,${entry.slice(1)}]`]);
  if (rows[0]!.verdicts[0] !== 0) throw new Error(`the ledger says ${rows[0]!.verdicts[0]}`);
}

/** A call that costs so much, as the ledger has it. */
async function spend(tenant: string, ticks: bigint): Promise<void> {
  const id = randomUUID();
  await ledger(hold({ id, tenant, amount: ticks, scopes: ['tenant', 'user:u'] }));
  await ledger(resolution('settle', id, ticks));
}

/** A call of acme; good unless said otherwise. */
async function called(body: Record<string, unknown> = {}, status = 200): Promise<string> {
  const response = await harness.request('POST', '/v1/chat/completions', { token: developer, body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 20, ...body } });
  await response.text();
  expect(response.status).toBe(status);
  return response.headers.get('x-request-id')!;
}

describe('a budget', () => {
  it('of any window tells of each threshold that it crosses, once', async () => {
    await Promise.all(['day', 'month', 'total'].map(async (window) => {
      const tenant = await newTenant();
      const id = await budget(tenant, { window, warn_at: [0.5, 0.9] });
      await spend(tenant, 49n * CENT);
      await spend(tenant, CENT); // which is the half, to the tick
      const [half] = await untilToldOf(id, 1);
      expect(half).toEqual({
        id: expect.stringMatching(UUID), type: 'budget_threshold', tenant, subject: id, state: 'firing', at: expect.stringMatching(RFC3339), resolved_at: null, value: expect.stringContaining('50 %'),
      });
      await spend(tenant, 20n * CENT); // beyond the half still
      await spend(tenant, 25n * CENT);
      const told = await untilToldOf(id, 2); // the scan that sees this has passed over the half again
      expect(told).toHaveLength(2);
      expect(told[0]).toEqual(half);
      expect(told[1]!.value).toContain('90 %');
    }));
  });

  it('that has not come to a threshold tells nothing', async () => {
    const tenant = await newTenant();
    const [quiet, loud] = [await budget(tenant, { window: 'month', limit_usd: '2.00' }), await budget(tenant)];
    await spend(tenant, 99n * CENT);
    await untilToldOf(loud, 1);
    await spend(tenant, CENT);
    await untilToldOf(quiet, 1);
    expect(await about(quiet)).toHaveLength(1);
    expect((await about(loud)).map(({ value }) => value)).toEqual([expect.stringContaining('50 %')]);
  });

  it('tells again in its next period, and what it told of the last one is resolved', async () => {
    const tenant = await newTenant();
    const id = await budget(tenant);
    // The period began a day earlier, and is about to end.
    await harness.db.query("UPDATE budgets SET period_start = period_start - interval '1 day' WHERE id = $1", [id]);
    await spend(tenant, 60n * CENT);
    await untilToldOf(id, 1);
    await harness.db.query('UPDATE budgets SET period_end = now() WHERE id = $1', [id]);
    const [past] = await eventually(async () => {
      const told = await about(id);
      return told[0]?.state === 'resolved' && told;
    });
    expect(past).toMatchObject({ state: 'resolved', resolved_at: expect.stringMatching(RFC3339) });
    await spend(tenant, 55n * CENT); // the first of the new period
    const told = await untilToldOf(id, 2);
    expect(told.map(({ state }) => state)).toEqual(['resolved', 'firing']);
  });

  it('tells of a limit that was lowered below what is spent, and of a threshold that was set too late', async () => {
    const tenant = await newTenant();
    const id = await budget(tenant, { warn_at: [] });
    await spend(tenant, 30n * CENT);
    await madeBy(await admin('PATCH', `/budgets/${id}`, { warn_at: [0.3] }));
    await untilToldOf(id, 1);
    await madeBy(await admin('PATCH', `/budgets/${id}`, { limit_usd: '0.10', warn_at: [0.3, 1] }));
    expect((await untilToldOf(id, 2)).map(({ value }) => value)).toEqual([expect.stringContaining('30 %'), expect.stringContaining('100 %')]);
  });

  it('that a call has rolled to its next period before anybody looked: what it told of the last one is resolved', async () => {
    const tenant = await newTenant();
    const id = await budget(tenant);
    await spend(tenant, 60n * CENT);
    await untilToldOf(id, 1);
    await harness.db.query("UPDATE budgets SET period_start = period_start + interval '1 day', period_end = period_end + interval '1 day', spent_ticks = 0 WHERE id = $1", [id]);
    await untilOver(id);
    await harness.db.query('UPDATE budgets SET spent_ticks = $2 WHERE id = $1', [id, 70n * CENT]);
    expect((await untilToldOf(id, 2)).map(({ state }) => state)).toEqual(['resolved', 'firing']);
  });

  it.each(['month', 'total'])('of the window %s whose limit was raised is right again, and tells of the threshold of the new limit', async (window) => {
    const tenant = await newTenant();
    const id = await budget(tenant, { window });
    await spend(tenant, 60n * CENT);
    await untilToldOf(id, 1);
    await madeBy(await admin('PATCH', `/budgets/${id}`, { limit_usd: '2.00' }));
    const [past] = await untilOver(id);
    expect(past!.resolved_at).toMatch(RFC3339);
    await spend(tenant, 40n * CENT);
    const told = await untilToldOf(id, 2);
    expect(told.map(({ state }) => state)).toEqual(['resolved', 'firing']);
    await watcher().scanBudgets();
    expect(await about(id)).toEqual(told);
  });

  it('that is gone, or warns of a threshold no more, has nothing firing', async () => {
    const tenant = await newTenant();
    const [gone, silent] = [await budget(tenant), await budget(tenant, { window: 'month' })];
    await spend(tenant, 60n * CENT);
    await untilToldOf(gone, 1);
    await untilToldOf(silent, 1);
    expect((await admin('DELETE', `/budgets/${gone}`)).status).toBe(204);
    await madeBy(await admin('PATCH', `/budgets/${silent}`, { warn_at: [0.9] }));
    await untilOver(gone);
    await untilOver(silent);
  });

  it('of nothing, which is one that was stopped, has no threshold to cross', async () => {
    const tenant = await newTenant();
    const [stopped, other] = [await budget(tenant, { limit_usd: '0' }), await budget(tenant, { scope: { type: 'user', id: 'v' }, limit_usd: '0.01' })];
    await harness.db.query('UPDATE budgets SET spent_ticks = limit_ticks WHERE id = $1', [other]);
    await untilToldOf(other, 1);
    expect(await about(stopped)).toEqual([]);
  });

  it('tells what is spent, by which it is judged, and not what is held', async () => {
    const tenant = await newTenant();
    const id = await budget(tenant);
    await ledger(hold({ id: randomUUID(), tenant, amount: 40n * CENT, scopes: ['tenant', 'user:u'] }));
    await spend(tenant, 55n * CENT);
    expect((await untilToldOf(id, 1))[0]!.value).toContain(`(${55n * CENT} of ${100n * CENT} ticks)`);
  });

  it('whose period began between two milliseconds tells as any other', async () => {
    const tenant = await newTenant();
    const id = await budget(tenant, { window: 'total' });
    await harness.db.query("UPDATE budgets SET period_start = date_trunc('second', now()) + interval '0.123456 s' WHERE id = $1", [id]);
    await spend(tenant, 55n * CENT);
    expect(await untilToldOf(id, 1)).toHaveLength(1);
  });

  it('tells once, whatever time zone the sessions of a replica have', async () => {
    const tenant = await newTenant();
    const id = await budget(tenant);
    await spend(tenant, 55n * CENT);
    const told = await untilToldOf(id, 1);
    const elsewhere = new Pool({ connectionString: harness.databaseUrl, max: 1, options: '-c timezone=Asia/Kolkata' });
    try {
      await watcher(elsewhere).scanBudgets();
      expect(await about(id)).toEqual(told);
    } finally {
      await elsewhere.end();
    }
  });

  it('tells once, however many replicas look at it', async () => {
    const replica = await startReplica(harness, {}, clock);
    try {
      const tenant = await newTenant();
      const [first, second] = [await budget(tenant), await budget(tenant, { window: 'month' })];
      await spend(tenant, 60n * CENT);
      await untilToldOf(first, 1);
      await untilToldOf(second, 1);
      const metrics = await Promise.all([harness.url, replica.url].map(async (url) => /novix_alerts_total\{type="budget_threshold"\} (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1] ?? '0'));
      expect(metrics.reduce((sum, count) => sum + Number(count), 0)).toBe((await alerts()).filter(({ type }) => type === 'budget_threshold').length);
    } finally {
      await replica.close();
    }
  });
});

describe('the provider', () => {
  it('whose price is not ours is told of, once an hour and model; a right price is not', async () => {
    await clock.at(MID_HOUR_MS, async () => {
      await called();
      await called({ model: 'grok-pro' });
      await called({ x_emulator: { cost_usd_ticks: 777 } });
      await called({ x_emulator: { cost_usd_ticks: 778 } });
      await untilToldOf('grok-4.3', 1, 'price_drift');
      await called({ model: 'grok-pro', x_emulator: { cost_usd_ticks: 777 } });
      await untilToldOf('grok-4.7', 1, 'price_drift'); // alerts are written in their order
    });
    const [drift, ...more] = await about('grok-4.3', 'price_drift');
    expect(drift).toMatchObject({ type: 'price_drift', tenant: null, state: 'firing', resolved_at: null, value: expect.stringContaining('777') });
    expect(more).toEqual([]);
    expect((await alerts()).filter(({ type }) => type === 'price_drift')).toHaveLength(2);

    await clock.at(MID_HOUR_MS + HOUR_MS, () => called({ x_emulator: { cost_usd_ticks: 779 } }));
    const told = await untilToldOf('grok-4.3', 2, 'price_drift');
    expect(told.at(-1)!.value).toContain('779');
  });

  it('whose price is a tick from ours has only rounded it', async () => {
    // In hours of their own.
    await clock.at(MID_HOUR_MS + 5 * HOUR_MS, async () => {
      const priced = (ticks: number): Promise<string> => called({ x_emulator: { usage: { prompt_tokens: 100, completion_tokens: 50, total_tokens: 150, cost_in_usd_ticks: ticks } } });
      const ours = 100 * 12_500 + 50 * 25_000;
      const before = (await about('grok-4.3', 'price_drift')).length;
      for (const ticks of [ours, ours + 1, ours - 1, ours + 2]) await priced(ticks);
      const told = await untilToldOf('grok-4.3', before + 1, 'price_drift');
      expect(told).toHaveLength(before + 1);
      expect(told.at(-1)!.value).toContain(`charged ${ours + 2} ticks, the price table says ${ours}`);
    });
  });

  it('that refuses the gateway itself is told of', async () => {
    for (const status of [401, 403]) {
      await clock.at(MID_HOUR_MS + (status - 400) * HOUR_MS, async () => {
        harness.emulator.setFaults([{ calls: 1, status }]);
        await called({}, 502);
      });
    }
    const told = await untilToldOf('xai', 2, 'provider_credentials');
    expect(told).toHaveLength(2);
    expect(told[0]).toMatchObject({ tenant: null, state: 'firing', value: expect.stringContaining('key') });
    await madeBy(await admin('POST', '/breakers/xai:reset'));
  });

  it('that charges more than was held is told of, and the call is charged all the same', async () => {
    const id = await called({ x_emulator: { output_tokens: 5, reasoning_tokens: 5_000 } });
    const { heldTicks, chargedTicks, basis } = await settled(harness, id);
    expect(basis).toBe('provider');
    expect(chargedTicks).toBeGreaterThan(heldTicks);
    const told = await untilToldOf('grok-4.3', 1, 'hold_overrun');
    expect(told[0]).toMatchObject({ tenant: null, state: 'firing', value: expect.stringMatching(/cost 0\.\d+ USD, and 0\.\d+ were held/) });
  });

  it('whose breaker opens is told of', async () => {
    expect(await about('xai', 'breaker_open')).toEqual([]);
    harness.emulator.setFaults([{ status: 503 }]);
    for (let failed = 0; failed < 3; failed += 1) await called({}, 503);
    const told = await untilToldOf('xai', 1, 'breaker_open');
    expect(told).toHaveLength(1);
    expect(told[0]).toMatchObject({ tenant: null, state: 'firing', value: expect.stringMatching(/^open for [23]\d\d s$/) });
    await madeBy(await admin('POST', '/breakers/xai:reset'));
    await untilOver('xai', 'breaker_open');

    // Anew, be it in the same minute.
    for (let failed = 0; failed < 3; failed += 1) await called({}, 503);
    expect((await untilToldOf('xai', 2, 'breaker_open')).map(({ state }) => state)).toEqual(['resolved', 'firing']);
    await madeBy(await admin('POST', '/breakers/xai:reset'));
    await untilOver('xai', 'breaker_open');
  });

  it('whose price changes to and fro is told of each time', async () => {
    const { prices } = harness.gateway.parts;
    const changes: [string, string][] = [['1', '2'], ['2', '1'], ['1', '2']];
    const onChange = (prices as unknown as { onChange: (model: string, before: object, after: object) => void }).onChange;
    for (const [hour, [before, after]] of changes.entries()) {
      await clock.at(MID_HOUR_MS + hour * HOUR_MS, () => {
        onChange('to-and-fro', { input_usd_per_million: before }, { input_usd_per_million: after });
        return Promise.resolve();
      });
    }
    expect(await untilToldOf('to-and-fro', 3, 'price_changed')).toHaveLength(3);
  });
});

describe('an alert of which nobody sees the end', () => {
  it.each([['price_drift', '1 hour'], ['hold_overrun', '1 hour'], ['provider_credentials', '1 hour'], ['price_changed', '1 day'], ['breaker_open', '1 day']] as const)('%s is over after %s', async (type, time) => {
    const [past, present] = [`past-${type}`, `present-${type}`];
    const watching = watcher();
    for (const subject of [past, present]) watching.fire({ type, tenantId: undefined, subject, occasion: subject, value: 'v' });
    await watching.close();
    await harness.db.query('UPDATE alerts SET fired_at = now() - $2::interval WHERE subject = $1', [past, time]);
    await harness.db.query("UPDATE alerts SET fired_at = now() - $2::interval + interval '1 minute' WHERE subject = $1", [present, time]);
    await untilOver(past);
    expect(await about(present)).toMatchObject([{ state: 'firing', resolved_at: null }]);
  });
});

describe('an alert that a replica has told', () => {
  const DRIFT: Alert = { type: 'price_drift', tenantId: undefined, subject: 'told', occasion: 'told', value: 'v' };

  it('is not written again with every call, up to a thousand occasions', async () => {
    let writes = 0;
    const watching = watcher({ query: () => { writes += 1; return Promise.resolve({ rowCount: 0, rows: [] }); } } as unknown as Pool);
    for (let calls = 0; calls < 5; calls += 1) watching.fire(DRIFT);
    await watching.close();
    expect(writes).toBe(1);
    for (let other = 0; other < 999; other += 1) watching.fire({ ...DRIFT, occasion: `other ${other}` });
    watching.fire(DRIFT); // the oldest, known still
    await watching.close();
    expect(writes).toBe(1_000);
    watching.fire({ ...DRIFT, occasion: 'one more' });
    watching.fire(DRIFT);
    await watching.close();
    expect(writes).toBe(1_002);
  });

  it('is written again where it could not be kept', async () => {
    let writes = 0;
    const watching = watcher({ query: () => { writes += 1; return writes === 1 ? Promise.reject(new Error('no database')) : Promise.resolve({ rowCount: 0, rows: [] }); } } as unknown as Pool);
    for (let calls = 0; calls < 3; calls += 1) {
      watching.fire(DRIFT);
      await watching.close();
    }
    expect(writes).toBe(2);
  });

  it('is told again after it was resolved', async () => {
    const watching = watcher();
    const alert: Alert = { ...DRIFT, type: 'breaker_open', subject: 'resolved-and-back', occasion: 'resolved-and-back' };
    watching.fire(alert);
    watching.resolve('breaker_open', alert.subject);
    watching.fire(alert);
    await watching.close();
    expect((await about(alert.subject)).map(({ state }) => state)).toEqual(['resolved', 'firing']);
  });
});

describe('GET /admin/v1/alerts', () => {
  it.each(['billing', 'tenant-admin'])('shows the role %s the alerts of its own tenant alone', async (role) => {
    const [tenant, other] = [await newTenant(), await newTenant()];
    const [own, foreign] = [await budget(tenant), await budget(other)];
    await spend(tenant, 60n * CENT);
    await spend(other, 60n * CENT);
    await untilToldOf(own, 1);
    await untilToldOf(foreign, 1);
    const seen = await alerts(adminOf(harness, await harness.token({ tenant, roles: [role] })));
    expect(seen.map(({ tenant: whose, subject }) => [whose, subject])).toEqual([[tenant, own]]);
    const all = await alerts();
    expect(all.filter(({ subject }) => subject === own || subject === foreign)).toHaveLength(2);
    expect(all.some(({ tenant: whose }) => whose === null)).toBe(true); // the platform's own
  });

  it.each(['developer', 'auditor'])('is not for the role %s', async (role) => {
    expect((await adminOf(harness, await harness.token({ roles: [role] }))('GET', '/alerts')).status).toBe(403);
  });

  it('gives each once, page by page, oldest first, also of one state', async () => {
    const all = await alerts();
    expect(all.length).toBeGreaterThan(5);
    expect(await listAll<AlertView>(admin, '/alerts', 2)).toEqual(all);
    expect(all.map(({ id }) => id)).toEqual(all.map(({ id }) => id).toSorted());
    expect(Date.parse(all.at(-1)!.at)).toBeGreaterThan(Date.parse(all[0]!.at));
    for (const state of ['firing', 'resolved'] as const) {
      const { data } = await madeBy<{ data: AlertView[] }>(await admin('GET', `/alerts?limit=200&state=${state}`));
      expect(data.length).toBeGreaterThan(0);
      expect(data).toEqual(all.filter((alert) => alert.state === state));
    }
  });

  it.each([['state', '?state=open'], ['state', '?state='], ['state', '?state=firing&state=resolved'], ['limit', '?limit=0'], ['limit', '?limit=201'], ['cursor', '?cursor='], ['cursor', '?cursor=bm90LWEtdXVpZA'], ['cursor', '?cursor=%00']])('refuses a bad %s with 400: %s', async (param, query) => {
    expect((await expectError(await admin('GET', `/alerts${query}`), 400, 'invalid_request')).param).toBe(param);
  });
});
