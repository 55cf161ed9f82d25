import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { deny, expectCut, LONG_STREAM, publish, removeAll, running, type RunningStream } from '../support/access.ts';
import { complete, expectBooksClosed, USD } from '../support/calls.ts';
import { adminOf, madeBy, type AdminCall } from '../support/deployments.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

// Three gateway processes on one PostgreSQL: what one of them is told, all of them do. One reaches PostgreSQL through a proxy that a test can sever.

const TOLD_MS = 1_000;
const LOOKED_MS = 2_000;
const STALE_MS = 5_000;
/** Between two looks at the rules. */
const LOOK_MS = 1_000;

let rig: Rig;
let proxy: TcpProxy;
let gateways: GatewayProcess[];
let token: string;
let root: AdminCall[];
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 1_000n * USD);
  proxy = await startTcpProxy(rig.databaseUrl);
  const own = (at: number): Record<string, string> => ({ SPOOL_DIR: `${rig.dir}/spool-${at}`, XAI_RETRY_MAX: '0' });
  gateways = await Promise.all([rig.start(own(0)), rig.start(own(1)), rig.start({ ...own(2), DATABASE_URL: proxy.url })]);
  token = await rig.token({ ttlSeconds: 3_600 });
  const adminToken = await rig.token({ tenant: 'platform', subject: 'root', roles: ['platform-admin'], ttlSeconds: 3_600 });
  root = gateways.map(({ url }) => adminOf({ url }, adminToken));
}, 60_000);
afterEach(async () => {
  await removeAll(root[0]!, '/policies');
  await removeAll(root[0]!, '/revocations');
  await everywhere(200);
  rig.emulator.reset();
});
afterAll(async () => {
  await rig.close();
  await proxy.close();
});

async function statusOf(answer: Promise<Response>): Promise<number> {
  const response = await answer;
  await response.text();
  return response.status;
}

/** Waits until every gateway answers a call with this status, and says how long that took. */
async function everywhere(status: number, who = token): Promise<number> {
  const startedMs = performance.now();
  const took = await Promise.all(gateways.map(async ({ url }) => {
    await eventually(async () => (await statusOf(complete(url, { token: who }))) === status, 10_000);
    return performance.now() - startedMs;
  }));
  return Math.max(...took);
}

async function openStreams(count: number, who: string): Promise<RunningStream[]> {
  return Promise.all(Array.from({ length: count }, (_, at) => running(complete(gateways[at % 3]!.url, { token: who, stream: true, script: { ...LONG_STREAM, token_interval_ms: 100 } }))));
}

/** Sessions of the gateways that listen. */
async function listening(): Promise<number> {
  const { rows } = await rig.db.query<{ count: string }>("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'novix-listen'");
  return Number(rows[0]!.count);
}

/** Runs something while no gateway can hear a notification: whoever listens anew is cut off again. */
async function unheard<T>(work: () => Promise<T>): Promise<T> {
  const cut = async (): Promise<unknown> => rig.db.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'novix-listen'");
  await cut();
  const timer = setInterval(() => void cut(), 20);
  try {
    await eventually(async () => (await listening()) === 0);
    return await work();
  } finally {
    clearInterval(timer);
    await eventually(async () => (await listening()) === 3);
  }
}

describe('a policy written through one gateway', () => {
  it.each([0, 1, 2])('of three, number %i, is enforced by all within a second, and so is its end', async (at) => {
    await everywhere(200);
    const { id } = await publish(root[at]!, [deny('stop')]);
    expect(await everywhere(403)).toBeLessThan(TOLD_MS);
    expect((await root[(at + 1) % 3]!('DELETE', `/policies/${id}`)).status).toBe(204);
    expect(await everywhere(200)).toBeLessThan(TOLD_MS);
  });

  it('is enforced by all within two seconds though none of them hears of it', async () => {
    await everywhere(200);
    const took = await unheard(async () => {
      const { id } = await publish(root[1]!, [deny('stop')]);
      const enforced = await everywhere(403);
      expect((await root[2]!('DELETE', `/policies/${id}`)).status).toBe(204);
      return [enforced, await everywhere(200)];
    });
    expect(Math.max(...took)).toBeLessThan(LOOKED_MS);
  });

  it('is heard of again after the listening connections were cut', async () => {
    await unheard(async () => {});
    await publish(root[2]!, [deny('stop')]);
    expect(await everywhere(403)).toBeLessThan(TOLD_MS);
  });

  it('is at the same revision everywhere, whoever wrote last', async () => {
    const revisions: string[] = [];
    for (const call of root) revisions.push((await publish(call, [deny('r', { models: ['grok-none'] })])).revision!);
    const numbers = revisions.map((revision) => Number.parseInt(revision, 10));
    expect(numbers).toEqual([numbers[0]!, numbers[0]! + 1, numbers[0]! + 2]);
    const seen = await eventually(async () => {
      const answers = await Promise.all(root.map(async (call) => (await madeBy<{ revision: string }>(await call('POST', '/policies:explain', { request: { model: 'grok-beta' } }))).revision));
      return new Set(answers).size === 1 ? answers[0] : undefined;
    });
    expect(seen).toBe(revisions[2]);
  });

  it('written through all of them at once, many times, leaves all of them with the same rules', async () => {
    const made = await Promise.all(Array.from({ length: 24 }, (_, at) => publish(root[at % 3]!, [deny(`r${at}`, { models: ['grok-none'] })], { name: `p${at}` })));
    expect(new Set(made.map(({ revision }) => revision)).size).toBeGreaterThan(1);
    const explained = (): Promise<string[]> => Promise.all(root.map(async (call) => {
      const { matched } = await madeBy<{ matched: { rule: string }[] }>(await call('POST', '/policies:explain', { principal: { tenant: 'acme', roles: [] }, request: { model: 'grok-none' } }));
      return matched.map(({ rule }) => rule).toSorted().join();
    }));
    const all = made.map((_, at) => `r${at}`).toSorted().join();
    await eventually(async () => (await explained()).every((rules) => rules === all), TOLD_MS);
    expect(await explained()).toEqual([all, all, all]);
  });
});

describe('fifty streams that run on three gateways', () => {
  it.each<[string, boolean, string, () => Promise<unknown>]>([
    ['a deny is published', false, 'policy_denied', () => publish(root[1]!, [deny('stop', { when: [{ attr: 'principal.sub', op: 'eq', value: 'streamer' }] })])],
    ['a deny is published that nobody hears of', true, 'policy_denied', () => publish(root[2]!, [deny('stop', { when: [{ attr: 'principal.sub', op: 'eq', value: 'streamer' }] })])],
    ['their subject is revoked', false, 'invalid_token', async () => madeBy(await root[0]!('POST', '/revocations', { type: 'sub', value: 'streamer', tenant: 'acme' }), 201)],
  ])('are cut within two seconds when %s, each settled and recorded once; others go on', async (_, deaf, code, change) => {
    const streams = await openStreams(50, await rig.token({ subject: 'streamer' }));
    const others = await openStreams(3, token);
    const startedMs = { at: 0 };
    const go = async (): Promise<void> => {
      startedMs.at = performance.now();
      await change();
      await Promise.all(streams.map(({ ended }) => ended));
    };
    await (deaf ? unheard(go) : go());
    const ends = await Promise.all(streams.map(({ ended }) => ended));
    for (const { text } of ends) expectCut(text, code);
    const tookMs = Math.max(...ends.map(({ atMs }) => atMs)) - startedMs.at;
    expect(tookMs).toBeLessThan(LOOKED_MS);
    expect(rig.emulator.calls.filter(({ state }) => state === 'running')).toHaveLength(others.length);
    await publish(root[0]!, [deny('all')]);
    for (const { ended } of others) expectCut((await ended).text, 'policy_denied');
    await eventually(async () => (await rig.db.query('SELECT FROM holds')).rowCount === 0);
    const { chargedTicks } = await expectBooksClosed(rig.db);
    expect(chargedTicks).toBeGreaterThan(0n);
  });
});

describe('a gateway that cannot reach PostgreSQL', () => {
  const models = async (): Promise<{ status: number; code: string }> => {
    const response = await fetch(`${gateways[2]!.url}/v1/models`, { headers: { authorization: `Bearer ${token}` } });
    const text = await response.text();
    return { status: response.status, code: response.status === 200 ? '' : (JSON.parse(text) as { error: { code: string } }).error.code };
  };

  it('allows nothing any more after five seconds, says so, leaves readiness, and recovers by itself, with the rules of then', async () => {
    await everywhere(200);
    proxy.sever();
    const severedMs = performance.now();
    const seen: { atMs: number; status: number; code: string }[] = [];
    await eventually(async () => {
      seen.push({ atMs: performance.now() - severedMs, ...(await models()) });
      return seen.at(-1)!.status === 503;
    }, STALE_MS + 3_000);
    expect(seen.at(-1)).toMatchObject({ status: 503, code: 'policy_unavailable' });
    // Rules that were confirmed a moment before still count; the last look was up to a second before.
    expect(seen.at(-1)!.atMs).toBeGreaterThan(STALE_MS - LOOK_MS - 500);
    expect(seen.at(-1)!.atMs).toBeLessThan(STALE_MS + 500);
    expect(new Set(seen.slice(0, -1).map(({ status }) => status))).toEqual(new Set([200]));
    const refused = await complete(gateways[2]!.url, { token });
    expect([refused.status, /policy_unavailable|audit_unavailable/.test(await refused.text())]).toEqual([503, true]);
    expect((await root[2]!('GET', '/policies')).status).toBe(503);
    expect([await statusOf(fetch(`${gateways[2]!.url}/readyz`)), await statusOf(fetch(`${gateways[2]!.url}/livez`)), await statusOf(fetch(`${gateways[0]!.url}/readyz`))]).toEqual([503, 200, 200]);

    const { id } = await publish(root[0]!, [deny('meanwhile')]);
    const statuses: number[] = [];
    proxy.mend();
    await eventually(async () => {
      statuses.push(await statusOf(complete(gateways[2]!.url, { token })));
      return statuses.at(-1) === 403;
    }, 10_000);
    expect(statuses.filter((status) => status !== 503 && status !== 403)).toEqual([]); // never by the rules of before
    await root[0]!('DELETE', `/policies/${id}`);
    await everywhere(200);
    await eventually(async () => (await statusOf(fetch(`${gateways[2]!.url}/readyz`))) === 200);
  }, 60_000);

  it('cuts its streams for a rule of that time as soon as it hears of it', async () => {
    const stream = await running(complete(gateways[2]!.url, { token, stream: true, script: { ...LONG_STREAM, token_interval_ms: 100 } }));
    proxy.sever();
    await publish(root[0]!, [deny('meanwhile')]);
    await eventually(async () => (await statusOf(fetch(`${gateways[2]!.url}/readyz`))) === 503, 10_000);
    proxy.mend();
    const mendedMs = performance.now();
    const { text, atMs } = await stream.ended;
    expectCut(text, 'policy_denied');
    expect(atMs - mendedMs).toBeLessThan(5_000);
  }, 30_000);

  it('and one that stood still as long lets nobody in by the rules of before', async () => {
    await everywhere(200);
    const gateway = gateways[1]!;
    gateway.kill('SIGSTOP');
    const stoppedMs = performance.now();
    const { id } = await publish(root[0]!, [deny('meanwhile')]);
    const waiting = Array.from({ length: 10 }, () => statusOf(complete(gateway.url, { token })));
    await eventually(() => performance.now() - stoppedMs > STALE_MS + 500, STALE_MS + 1_000);
    gateway.kill('SIGCONT');
    const statuses = await Promise.all(waiting);
    expect(statuses.filter((status) => status !== 503 && status !== 403)).toEqual([]);
    await root[0]!('DELETE', `/policies/${id}`);
    expect(await everywhere(200)).toBeLessThan(LOOKED_MS);
  }, 30_000);
});
