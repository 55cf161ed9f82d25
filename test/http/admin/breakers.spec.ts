import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { Gateway } from '../../../src/gateway.ts';
import { startXaiEmulator, type XaiEmulator } from '../../../src/sandbox/xai-emulator.ts';
import { adminOf, completeAt, deploy, madeBy, movableClock, quantile, removeStored, servedBy, startReplica, type AdminCall, type BreakerView } from '../../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Breakers as admins and other replicas see them. The clock is moved by hand: nobody waits five minutes.

const FAILURES = 3;
const RECOVERY_MS = 300_000;
const OTHER_KEY = 'xai-other-key';
/** Of an opening on another replica, and of an admin's order. */
const NEWS_MS = 1_000;
const ORDER_MS = 2_000;

let harness: Harness;
let admin: string;
let developer: string;
let call: AdminCall;
let other: XaiEmulator;
const clock = movableClock();
beforeAll(async () => {
  other = await startXaiEmulator({ apiKeys: [OTHER_KEY] });
  harness = await startHarness({ clock, env: { EGRESS_ALLOW: new URL(other.url).origin, XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: String(FAILURES) } });
  [admin, developer] = await Promise.all([harness.adminToken(), harness.token()]);
  call = adminOf(harness, admin);
});
afterEach(async () => {
  for (const emulator of [harness.emulator, other]) {
    emulator.setFaults([]);
    emulator.reset();
  }
  await removeStored(call);
  await call('POST', '/breakers/xai:reset');
});
afterAll(async () => {
  await harness.close();
  await other.close();
});

const breakers = async (ask = call): Promise<BreakerView[]> => madeBy(await ask('GET', '/breakers'));
const breaker = async (id = 'xai', ask = call): Promise<BreakerView> => (await breakers(ask)).find(({ deployment }) => deployment === id)!;
const order = async (text: string): Promise<BreakerView> => madeBy(await call('POST', `/breakers/${text}`));

async function fail(times: number, emulator = harness.emulator): Promise<void> {
  emulator.setFaults([{ status: 503 }]);
  for (let n = 0; n < times; n++) await expectError(await harness.complete(), 503, 'provider_unavailable');
  emulator.setFaults([]);
  emulator.reset();
}

interface Timed {
  status: number;
  code: string | undefined;
  ms: number;
}

async function timed(url = harness.url): Promise<Timed> {
  const startedMs = performance.now();
  const response = await completeAt(url, developer);
  const body = (await response.json()) as { error?: { code: string } };
  return { status: response.status, code: body.error?.code, ms: performance.now() - startedMs };
}

describe('GET /admin/v1/breakers', () => {
  it('lists every deployment with its breaker', async () => {
    await deploy(call, { id: 'other', model: 'grok-pro', base_url: other.url, api_key: OTHER_KEY });
    const closed = { state: 'closed', failures: 0, open_until: null, forced: false };
    const list = await breakers();
    expect(list.toSorted((left, right) => (left.deployment < right.deployment ? -1 : 1))).toEqual([{ deployment: 'other', model: 'grok-pro', ...closed }, { deployment: 'xai', model: '*', ...closed }]);
  });

  it('counts failures in a row, and forgets them at a success', async () => {
    for (let failures = 1; failures < FAILURES; failures++) {
      await fail(1);
      expect(await breaker()).toMatchObject({ state: 'closed', failures, open_until: null });
    }
    expect((await harness.complete()).status).toBe(200);
    expect(await breaker()).toMatchObject({ state: 'closed', failures: 0 });
    await fail(FAILURES - 1);
    expect(await breaker()).toMatchObject({ state: 'closed', failures: FAILURES - 1 });
  });

  it('shows it open after the last failure it takes, until a time of five minutes within a tenth', async () => {
    const beforeMs = Date.now();
    await fail(FAILURES);
    const { open_until: until, ...view } = await breaker();
    expect(view).toEqual({ deployment: 'xai', model: '*', state: 'open', failures: FAILURES, forced: false });
    const openMs = Date.parse(until!) - beforeMs;
    expect(until).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(openMs).toBeGreaterThanOrEqual(0.9 * RECOVERY_MS);
    expect(openMs).toBeLessThanOrEqual(1.1 * RECOVERY_MS + 1_000);
    clock.advance(openMs - 20_000);
    expect(Date.parse((await breaker()).open_until!) - Date.now()).toBeLessThanOrEqual(20_500);
  });

  it('shows it half open while a call finds out, and closed once that has its answer', async () => {
    await fail(FAILURES);
    clock.advance(1.1 * RECOVERY_MS);
    harness.emulator.setFaults([{ delay_ms: 300 }]);
    const probe = harness.complete();
    await eventually(() => harness.emulator.calls.length === 1);
    expect(await breaker()).toMatchObject({ state: 'half_open', open_until: null });
    expect((await probe).status).toBe(200);
    expect(await breaker()).toMatchObject({ state: 'closed', failures: 0 });
  });
});

describe('an open breaker', () => {
  it('answers in less than 20 ms at the median and 50 ms at most, and nothing goes upstream', async () => {
    for (let n = 0; n < 20; n++) await harness.complete();
    await fail(FAILURES);
    const answers: Timed[] = [];
    for (let n = 0; n < 100; n++) answers.push(await timed());
    expect(new Set(answers.map(({ status, code }) => `${status} ${code}`))).toEqual(new Set(['503 breaker_open']));
    expect(harness.emulator.calls).toHaveLength(0);
    const times = answers.map(({ ms }) => ms);
    expect(quantile(times, 0.5)).toBeLessThan(20);
    expect(Math.max(...times)).toBeLessThan(50);
    figure('answered locally', times);
  });

  it('tells callers when to come back, in a minute at the latest', async () => {
    await fail(FAILURES);
    expect((await harness.complete()).headers.get('retry-after')).toBe('60');
    clock.advance(0.9 * RECOVERY_MS - 30_000);
    expect(Number((await harness.complete()).headers.get('retry-after'))).toBeGreaterThanOrEqual(29);
  });

  it('lets exactly one of a hundred calls through at the end of its time; the others are refused before that one has its answer', async () => {
    await fail(FAILURES);
    clock.advance(0.9 * RECOVERY_MS - 1_000);
    await expectError(await harness.complete(), 503, 'breaker_open');
    clock.advance(0.2 * RECOVERY_MS + 1_000);
    const probeMs = 2_500;
    harness.emulator.setFaults([{ delay_ms: probeMs }]);
    const answers = await Promise.all(Array.from({ length: 100 }, () => timed()));
    const refused = answers.filter(({ code }) => code === 'breaker_open');
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(refused).toHaveLength(99);
    expect(harness.emulator.calls).toHaveLength(1);
    expect(Math.max(...refused.map(({ ms }) => ms))).toBeLessThan(probeMs / 2);
    figure('99 beside the probe, all at once, caller and gateway in one process', refused.map(({ ms }) => ms));
    expect(await breaker()).toMatchObject({ state: 'closed' });
  });

  it('opens anew when that one fails, and once more lets one through after its time', async () => {
    await fail(FAILURES);
    for (let round = 0; round < 2; round++) {
      clock.advance(1.1 * RECOVERY_MS);
      await fail(1);
      expect(await breaker()).toMatchObject({ state: 'open', failures: FAILURES + 1 + round });
      await expectError(await harness.complete(), 503, 'breaker_open');
      expect(harness.emulator.calls).toHaveLength(0);
    }
    clock.advance(1.1 * RECOVERY_MS);
    expect((await harness.complete()).status).toBe(200);
  });

  it('of one deployment is no other’s', async () => {
    await deploy(call, { id: 'other', base_url: other.url, api_key: OTHER_KEY });
    await call('PATCH', '/deployments/other', { weight: 0 });
    await fail(FAILURES);
    await call('PATCH', '/deployments/other', { weight: 1 });
    for (let n = 0; n < 5; n++) expect(await servedBy(harness.complete())).toBe('other');
    expect((await breakers()).map(({ deployment, state }) => `${deployment} ${state}`).toSorted()).toEqual(['other closed', 'xai open']);
  });
});

describe('POST /admin/v1/breakers/{deployment}:force-open', () => {
  it('keeps calls away until a reset, however much time goes by, and records both', async () => {
    const forced = await call('POST', '/breakers/xai:force-open');
    const view = { deployment: 'xai', model: '*', state: 'open', failures: 0, open_until: null, forced: true };
    expect(await madeBy(forced)).toEqual(view);
    expect(await breaker()).toEqual(view);
    for (let day = 0; day < 3; day++) {
      await expectError(await harness.complete(), 503, 'breaker_open');
      clock.advance(86_400_000);
    }
    expect(harness.emulator.calls).toHaveLength(0);
    expect((await harness.complete()).headers.get('retry-after')).toBe('60');

    const reset = await call('POST', '/breakers/xai:reset');
    expect(await madeBy(reset)).toEqual({ ...view, state: 'closed', forced: false });
    expect((await harness.complete()).status).toBe(200);

    const closed = { state: 'closed', forced: false };
    const open = { state: 'open', forced: true };
    for (const [response, before, after] of [[forced, closed, open], [reset, open, closed]] as const) {
      expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({
        metadata: { tenant_uid: 'platform' }, actor: { user: { uid: 'root@platform.example' } }, api: { operation: 'POST /admin/v1/breakers/:order', response: { code: 200 } },
        unmapped: { novix: { object: { type: 'breaker', id: 'xai' }, before: { deployment: 'xai', ...before }, after: { deployment: 'xai', ...after } } },
      });
    }
  });

  it('is not undone by a call under way that ends well, nor by its being ordered twice', async () => {
    const stream = await harness.complete({ stream: true, x_emulator: { output_tokens: 20, token_interval_ms: 20 } });
    await order('xai:force-open');
    expect(await stream.text()).toMatch(/data: \[DONE\]\n\n$/);
    expect(await order('xai:force-open')).toMatchObject({ state: 'open', forced: true });
    await expectError(await harness.complete(), 503, 'breaker_open');
  });

  it('holds for a probe under way too', async () => {
    await fail(FAILURES);
    clock.advance(1.1 * RECOVERY_MS);
    harness.emulator.setFaults([{ delay_ms: 300 }]);
    const probe = harness.complete();
    await eventually(() => harness.emulator.calls.length === 1);
    await order('xai:force-open');
    expect((await probe).status).toBe(200);
    expect(await breaker()).toMatchObject({ state: 'open', forced: true });
    await expectError(await harness.complete(), 503, 'breaker_open');
  });

  it('takes the deployment alone out of the choice, while others serve', async () => {
    await deploy(call, { id: 'other', base_url: other.url, api_key: OTHER_KEY });
    await order('xai:force-open');
    for (let n = 0; n < 10; n++) expect(await servedBy(harness.complete())).toBe('other');
    await order('other:force-open');
    await expectError(await harness.complete(), 503, 'breaker_open');
    await order('xai:reset');
    for (let n = 0; n < 10; n++) expect(await servedBy(harness.complete())).toBe('xai');
    await order('other:reset');
  });

  it('holds over a restart, from the first call on; a reset does too', async () => {
    await order('xai:force-open');
    const restarted = await startReplica(harness);
    await expectError(await completeAt(restarted.url, developer), 503, 'breaker_open');
    expect(await breaker('xai', adminOf(harness, admin, restarted.url))).toMatchObject({ state: 'open', forced: true, open_until: null });
    await restarted.close();
    expect(harness.emulator.calls).toHaveLength(0);
    await order('xai:reset');
    const again = await startReplica(harness);
    expect((await completeAt(again.url, developer)).status).toBe(200);
    await again.close();
  });

  it('holds for the requests of every endpoint', async () => {
    await order('xai:force-open');
    await expectError(await harness.request('POST', '/v1/responses', { body: { model: 'grok-beta', input: 'Hi' } }), 503, 'breaker_open');
    await expectError(await harness.complete({ stream: true }), 503, 'breaker_open');
    expect(harness.emulator.calls).toHaveLength(0);
  });
});

describe('POST /admin/v1/breakers/{deployment}:reset', () => {
  it('closes a breaker that failures have opened, and begins to count anew', async () => {
    await fail(FAILURES);
    expect(await order('xai:reset')).toEqual({ deployment: 'xai', model: '*', state: 'closed', failures: 0, open_until: null, forced: false });
    expect((await harness.complete()).status).toBe(200);
    await fail(FAILURES - 1);
    expect(await breaker()).toMatchObject({ state: 'closed', failures: FAILURES - 1 });
    await fail(1);
    expect(await breaker()).toMatchObject({ state: 'open' });
  });

  it('is done once: a breaker that opens later stays open', async () => {
    await order('xai:reset');
    await fail(FAILURES);
    const { rows: [now] } = await harness.db.query<{ at: Date }>('SELECT clock_timestamp() AS at');
    // Orders are read every second: once they have been read anew, nothing may have changed.
    const reading = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT deployment, forced_open%' AND query_start > $1 AND state = 'idle'";
    await eventually(async () => (await harness.db.query(reading, [now!.at])).rowCount! > 0);
    expect(await breaker()).toMatchObject({ state: 'open', forced: false });
    await expectError(await harness.complete(), 503, 'breaker_open');
  });
});

describe('the order', () => {
  it('may have its colon percent-encoded', async () => {
    expect(await madeBy<BreakerView>(await call('POST', '/breakers/xai%3Aforce-open'))).toMatchObject({ state: 'open', forced: true });
    expect(await madeBy<BreakerView>(await call('POST', '/breakers/xai%3areset'))).toMatchObject({ state: 'closed', forced: false });
  });

  it.each(['nobody:force-open', 'nobody:reset', 'XAI:reset', 'xai', 'xai:', 'xai:close', 'xai:FORCE-OPEN', 'xai:reset:', ':reset', 'xai%20:reset', 'xai:reset%20', '__proto__:reset', 'xai:reset%00'])('%s is not there: 404', async (text) => {
    await expectError(await call('POST', `/breakers/${text}`), 404, 'not_found');
    expect(await breakers()).toEqual([{ deployment: 'xai', model: '*', state: 'closed', failures: 0, open_until: null, forced: false }]);
  });

  it.each<[string, string, string[]]>([
    ['a developer', 'acme', ['developer']], ['a tenant-admin', 'acme', ['tenant-admin']], ['billing', 'acme', ['billing']], ['an auditor', 'acme', ['auditor']], ['a platform-admin of another tenant', 'acme', ['platform-admin']],
    ['a tenant-admin of the platform', 'platform', ['tenant-admin']],
  ])('is not for %s', async (_, tenant, roles) => {
    const mine = adminOf(harness, await harness.token({ tenant, roles }));
    for (const [method, path] of [['GET', ''], ['POST', '/xai:force-open'], ['POST', '/xai:reset'], ['POST', '/nobody:reset']] as const) {
      await expectError(await mine(method, `/breakers${path}`), 403, 'policy_denied');
    }
    expect(await breaker()).toMatchObject({ state: 'closed', forced: false });
  });
});

describe('another replica', () => {
  let replica: Gateway;
  let there: AdminCall;
  const theirClock = movableClock();
  beforeAll(async () => {
    replica = await startReplica(harness, {}, theirClock);
    there = adminOf(harness, admin, replica.url);
  });
  afterAll(async () => {
    await replica.close();
  });

  it('learns within a second that a breaker has opened here, without a failure of its own, and probes after its time', async () => {
    await fail(FAILURES);
    await eventually(async () => (await breaker('xai', there)).state === 'open', NEWS_MS);
    const [here, learnt] = [await breaker(), await breaker('xai', there)];
    expect(learnt).toMatchObject({ forced: false, failures: 0 });
    expect(Math.abs(Date.parse(learnt.open_until!) - Date.parse(here.open_until!))).toBeLessThan(2_000);
    await expectError(await completeAt(replica.url, developer), 503, 'breaker_open');
    expect(harness.emulator.calls).toHaveLength(0);
    expect((await harness.db.query('SELECT FROM breaker_orders WHERE forced_open')).rowCount).toBe(0); // told, and not stored
    theirClock.advance(1.1 * RECOVERY_MS);
    expect((await completeAt(replica.url, developer)).status).toBe(200);
    expect(await breaker()).toMatchObject({ state: 'open' }); // that it is well again, each finds out for itself
  });

  it('does not hear of failures that open nothing', async () => {
    await fail(FAILURES - 1);
    await order('xai:reset');
    await fail(FAILURES - 1);
    expect(await breaker('xai', there)).toMatchObject({ state: 'closed', failures: 0 });
  });

  it('acts within two seconds on an order that was given here, and the other way round', async () => {
    await order('xai:force-open');
    await eventually(async () => (await breaker('xai', there)).forced, ORDER_MS);
    await expectError(await completeAt(replica.url, developer), 503, 'breaker_open');
    await madeBy(await there('POST', '/breakers/xai:reset'));
    await eventually(async () => !(await breaker()).forced, ORDER_MS);
    expect((await harness.complete()).status).toBe(200);
    expect((await completeAt(replica.url, developer)).status).toBe(200);
  });

  it('acts on an order that it was not told of either, since it looks for itself', async () => {
    await harness.db.query("INSERT INTO breaker_orders (deployment, forced_open) VALUES ('xai', true) ON CONFLICT (deployment) DO UPDATE SET forced_open = true, number = DEFAULT");
    await eventually(async () => (await breaker('xai', there)).forced, ORDER_MS);
    await eventually(async () => (await breaker()).forced, ORDER_MS);
    await order('xai:reset');
    await eventually(async () => !(await breaker('xai', there)).forced, ORDER_MS);
    expect(await breaker('xai', there)).toMatchObject({ state: 'closed', failures: 0 });
  });

  it('is not led astray by odd news', async () => {
    for (const news of ['', ' ', 'x', 'x xai', 'x xai -1', 'x xai 0', 'x xai NaN', 'x xai Infinity', 'x xai 1e12', 'x nobody 1000', '__proto__ __proto__ 1000']) {
      await harness.db.query("SELECT pg_notify('novix', $1)", [`breaker-opened ${news}`]);
    }
    await harness.db.query("SELECT pg_notify('novix', 'something-else xai 1000'), pg_notify('novix', '')");
    // Notifications keep their order: what was said before has been heard when this has. The reset before this test may come in between, so it is said again.
    await eventually(async () => {
      await harness.db.query("SELECT pg_notify('novix', 'breaker-opened x xai 86400000')");
      return (await breaker('xai', there)).state === 'open';
    }, NEWS_MS);
    const until = Date.parse((await breaker('xai', there)).open_until!);
    expect(Math.abs(until - Date.now() - 86_400_000)).toBeLessThan(2_000);
  });
});

/** Written to standard error for the report, where FIGURES is set. */
function figure(name: string, times: readonly number[]): void {
  if (process.env['FIGURES'] === undefined) return;
  process.stderr.write(`${name}: median ${quantile(times, 0.5).toFixed(1)} ms, p99 ${quantile(times, 0.99).toFixed(1)} ms, most ${Math.max(...times).toFixed(1)} ms\n`);
}
