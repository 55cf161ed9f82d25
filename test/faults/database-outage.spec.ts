import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { killEmbeddedPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/sandbox/embedded-postgres.ts';
import { runMigrations } from '../../src/shared/migrations.ts';
import { complete, expectBooksClosed, ledgerOf, runningCalls, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { expectError } from '../support/wire.ts';

// A PostgreSQL of this spec's own, killed and started again. A server that starts again gets another port, so the gateway reaches it through a
// proxy whose port stays.

const FAST_MS = 500;

let folder: string;
let postgres: EmbeddedPostgres;
let proxy: TcpProxy;
let rig: Rig;
let gateway: GatewayProcess;
let token: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'novix-test-outage-'));
  if (process.getuid?.() === 0) await chmod(folder, 0o755);
  postgres = await start();
  await runMigrations(postgres.url);
  proxy = await startTcpProxy(postgres.url);
  rig = await startRig({ databaseUrl: proxy.url });
  await rig.addTenant('acme', 100n * USD);
  gateway = await rig.start();
  token = await rig.token();
}, 60_000);
afterAll(async () => {
  await rig.close();
  await proxy.close();
  await postgres.stop();
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
});
beforeEach(() => rig.emulator.reset());

function start(): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ dataDir: join(folder, 'postgres'), durable: false });
}

async function killDatabase(): Promise<void> {
  killEmbeddedPostgres(postgres.dataDir);
  await postgres.stop();
}

async function startDatabase(): Promise<void> {
  postgres = await start();
  proxy.target(postgres.url);
}

/** Past the proxy, on connections that no outage has broken. */
async function withDatabase<T>(use: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = new Pool({ connectionString: postgres.url, max: 2 });
  try {
    return await use(pool);
  } finally {
    await pool.end();
  }
}

/** Lines in the spool, as they are on disk. */
async function spooled(): Promise<string[]> {
  const names = await readdir(join(rig.dir, 'spool'));
  const texts = await Promise.all(names.map((name) => readFile(join(rig.dir, 'spool', name), 'utf8')));
  return texts.flatMap((text) => text.split('\n').filter((line) => line !== ''));
}

async function timed<T>(work: Promise<T>): Promise<{ result: T; ms: number }> {
  const startedMs = performance.now();
  const result = await work;
  return { result, ms: performance.now() - startedMs };
}

/** Starts streams and waits until each of them has reached its caller. */
async function openStreams(count: number): Promise<Promise<string>[]> {
  const script = { output_tokens: 40, token_interval_ms: 40, reasoning_tokens: 0 };
  const responses = await Promise.all(Array.from({ length: count }, () => complete(gateway.url, { token, script, stream: true })));
  expect(responses.map(({ status }) => status)).toEqual(responses.map(() => 200));
  return responses.map((response) => response.text());
}

function expectBrokenByOutage(stream: string): void {
  expect(stream).not.toContain('[DONE]');
  expect(stream).not.toContain('"finish_reason":"stop"');
  expect(JSON.parse(stream.trimEnd().split('\n\n').at(-1)!.slice('data: '.length))).toMatchObject({ error: { code: 'audit_unavailable' } });
}

it('refuses new calls with 503 audit_unavailable in under half a second, sends nothing upstream, and recovers without a restart', async () => {
  expect((await complete(gateway.url, { token })).status).toBe(200);
  await killDatabase();
  rig.emulator.reset();
  const refusals = await Promise.all(Array.from({ length: 20 }, () => timed(complete(gateway.url, { token, stream: true }))));
  for (const { result, ms } of refusals) {
    const error = await expectError(result, 503, 'audit_unavailable');
    expect(error.type).toBe('api_error');
    expect(result.headers.get('retry-after')).toMatch(/^\d+$/);
    expect(ms).toBeLessThan(FAST_MS);
  }
  const late = await timed(complete(gateway.url, { token }));
  await expectError(late.result, 503, 'audit_unavailable');
  expect(late.ms).toBeLessThan(FAST_MS);
  expect(rig.emulator.calls).toEqual([]);
  expect((await fetch(`${gateway.url}/readyz`)).status).toBe(503);
  expect((await fetch(`${gateway.url}/livez`)).status).toBe(200);

  await startDatabase();
  await eventually(async () => (await fetch(`${gateway.url}/readyz`)).status === 200);
  const answer = await complete(gateway.url, { token });
  expect(answer.status).toBe(200);
  await answer.text();
  // What was refused meanwhile is recorded now, as counts.
  const counted = await eventually(async () => withDatabase(async (pool) => {
    const { rows: [row] } = await pool.query<{ sum: string | null }>("SELECT sum((event->'unmapped'->'novix'->'aggregate'->>'count')::int) AS sum FROM audit_events WHERE event->>'status_code' = 'audit_unavailable'");
    return row!.sum !== null && row!.sum;
  }));
  expect(counted).toBe('21');
  await withDatabase((pool) => expectBooksClosed(pool));
});

it('a stream under way when PostgreSQL goes ends in an error, its outcome is on disk in the spool, and is settled and recorded once when PostgreSQL is back', async () => {
  const before = await withDatabase((pool) => ledgerOf(pool));
  const streams = await openStreams(10);
  await killDatabase();
  for (const stream of await Promise.all(streams)) expectBrokenByOutage(stream);
  expect(await spooled()).toHaveLength(10); // at the latest when the caller hears of it

  await startDatabase();
  await eventually(async () => (await spooled()).length === 0);
  const sums = await withDatabase((pool) => expectBooksClosed(pool));
  expect(sums.calls - before.calls).toBe(10);
  expect(sums.chargedTicks - before.chargedTicks).toBe(rig.emulator.billedUsdTicks());
});

it('a plain answer whose outcome cannot be recorded is no success either', async () => {
  const answer = complete(gateway.url, { token, script: { output_tokens: 10, first_token_ms: 600, reasoning_tokens: 0 } });
  await eventually(() => runningCalls(rig.emulator).length === 1);
  await killDatabase();
  expect(await expectError(await answer, 503, 'audit_unavailable')).toMatchObject({ type: 'api_error' });
  await startDatabase();
  await eventually(async () => (await spooled()).length === 0);
  await withDatabase((pool) => expectBooksClosed(pool));
});

it('a first call of a tenant, for which a key must be read, is refused just as fast while PostgreSQL hangs', async () => {
  await rig.addTenant('latecomer', USD);
  const stranger = await rig.token({ tenant: 'latecomer', subject: 'dev@latecomer.example' });
  await eventually(async () => (await fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${stranger}` } })).status === 200);
  const pids = await postgresPids();
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    const { result, ms } = await timed(complete(gateway.url, { token: stranger }));
    await expectError(result, 503, 'audit_unavailable');
    expect(ms).toBeLessThan(FAST_MS + 100);
    expect(rig.emulator.calls).toEqual([]);
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
  await eventually(async () => (await complete(gateway.url, { token: stranger })).status === 200, 15_000);
});

/** The postmaster and all its children. */
async function postgresPids(): Promise<number[]> {
  const postmaster = Number((await readFile(join(postgres.dataDir, 'cluster/postmaster.pid'), 'utf8')).split('\n', 1)[0]);
  const children = (await readFile(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8')).trim().split(' ').map(Number);
  return [postmaster, ...children];
}
