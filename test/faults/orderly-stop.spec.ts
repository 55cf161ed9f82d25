import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { killEmbeddedPostgres, startEmbeddedPostgres } from '../../src/sandbox/embedded-postgres.ts';
import { complete, expectBooksClosed, ledgerOf, runningCalls, USD } from '../support/calls.ts';
import { killAll, startGatewayProcess, startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';

const IN_ORDER = { code: 0, signal: null };

describe('with its own database', () => {
  let rig: Rig;
  let token: string;
  beforeAll(async () => {
    rig = await startRig();
    await rig.addTenant('acme', 100n * USD);
    token = await rig.token();
  });
  afterAll(() => rig.close());
  beforeEach(() => rig.emulator.reset());

  /** Streams of about the given length, each of which has reached its caller already. */
  async function openStreams(url: string, count: number, ms: number): Promise<Promise<string>[]> {
    const script = { output_tokens: ms / 20, token_interval_ms: 20, reasoning_tokens: 0 };
    const responses = await Promise.all(Array.from({ length: count }, () => complete(url, { token, script, stream: true })));
    return responses.map((response) => response.text().catch(() => 'broken'));
  }

  it('SIGTERM: readiness fails at once, new calls are served during the drain delay, streams finish, exit 0, and nothing is open', async () => {
    const gateway = await rig.start({ DRAIN_DELAY_MS: '1000' });
    expect((await fetch(`${gateway.url}/readyz`)).status).toBe(200);
    const streams = await openStreams(gateway.url, 10, 2_500);
    gateway.kill('SIGTERM');
    const stoppedMs = performance.now();
    await eventually(async () => (await fetch(`${gateway.url}/readyz`)).status === 503, 250);
    expect((await fetch(`${gateway.url}/livez`)).status).toBe(200);
    const late = await complete(gateway.url, { token });
    expect(late.status).toBe(200);
    await late.text();
    expect(performance.now() - stoppedMs).toBeLessThan(1_000);
    await eventually(() => fetch(`${gateway.url}/livez`).then(() => false, () => true)); // the door is closed
    expect(runningCalls(rig.emulator)).toHaveLength(10); // and the streams go on
    for (const stream of await Promise.all(streams)) expect(stream).toContain('data: [DONE]');
    expect(await gateway.exited).toEqual(IN_ORDER);
    const sums = await expectBooksClosed(rig.db);
    expect(sums.chargedTicks).toBe(rig.emulator.billedUsdTicks());
    expect((await rig.db.query('SELECT 1 FROM replicas WHERE stopped_at IS NULL')).rowCount).toBe(0);
  });

  it('streams that outlast the grace period are cut, settled and recorded before the process ends', async () => {
    const before = await ledgerOf(rig.db);
    const gateway = await rig.start({ SHUTDOWN_GRACE_MS: '300' });
    const streams = await openStreams(gateway.url, 10, 20_000);
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toEqual(IN_ORDER);
    for (const stream of await Promise.all(streams)) expect(stream).not.toContain('[DONE]');
    const sums = await expectBooksClosed(rig.db);
    expect(sums.calls - before.calls).toBe(10);
    expect(sums.chargedTicks - before.chargedTicks).toBeGreaterThanOrEqual(rig.emulator.billedUsdTicks());
  });

  it('a second signal ends the waiting, and still records', async () => {
    const gateway = await rig.start({ DRAIN_DELAY_MS: '60000' });
    const streams = await openStreams(gateway.url, 3, 60_000);
    gateway.kill('SIGTERM');
    await eventually(async () => (await fetch(`${gateway.url}/readyz`)).status === 503);
    gateway.kill('SIGTERM');
    expect(await gateway.exited).toEqual(IN_ORDER);
    await Promise.all(streams);
    await expectBooksClosed(rig.db);
  });
});

describe('the sandbox', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'novix-test-sandbox-'));
    if (process.getuid?.() === 0) await chmod(folder, 0o755);
  });
  afterAll(async () => {
    await killAll();
    const data = join(folder, 'data/postgres');
    await realpath(data).then((dir) => killEmbeddedPostgres(dir), () => {});
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  });

  interface Sandbox {
    gateway: GatewayProcess;
    token: string;
    databaseUrl: string;
    adopted: boolean;
  }

  async function startSandbox(): Promise<Sandbox> {
    const gateway = await startGatewayProcess({ cwd: folder, env: { NOVIX_DATA_DIR: join(folder, 'data') }, ownGroup: true });
    const banner = await eventually(() => gateway.stdout().includes('\ncurl ') && gateway.stdout());
    return {
      gateway, adopted: banner.includes('left running by an earlier start'),
      token: /'authorization: Bearer ([\w.-]+)'/.exec(banner)![1]!, databaseUrl: /postgresql:\/\/\S+/.exec(banner)![0],
    };
  }

  it('Ctrl-C, which reaches the whole process group, stops in order: PostgreSQL goes last, after everything is recorded', async () => {
    const { gateway, token, databaseUrl } = await startSandbox();
    const stream = complete(gateway.url, { token, stream: true, script: { output_tokens: 60 } }).then((response) => response.text());
    await eventually(async () => withPool(databaseUrl, async (pool) => (await ledgerOf(pool)).open === 1));
    gateway.kill('SIGINT', true);
    expect(await stream).toContain('data: [DONE]');
    expect(await gateway.exited).toEqual(IN_ORDER);
    expect(gateway.stderr()).toBe('');
    await withPool(databaseUrl, async (pool) => expect(pool.query('SELECT 1')).rejects.toThrow('ECONNREFUSED')); // PostgreSQL has ended too
  }, 60_000);

  it('one that was killed leaves its PostgreSQL running; the next start adopts it, with all data, and stops it in the end', async () => {
    const first = await startSandbox();
    expect(first.adopted).toBe(false);
    await (await complete(first.gateway.url, { token: first.token })).text();
    const before = await withPool(first.databaseUrl, (pool) => expectBooksClosed(pool));
    expect(before.calls).toBe(2); // and the one before Ctrl-C
    first.gateway.kill('SIGKILL');
    await first.gateway.exited;

    const second = await startSandbox();
    expect(second.adopted).toBe(true);
    expect(second.databaseUrl).toBe(first.databaseUrl);
    expect(await withPool(second.databaseUrl, (pool) => ledgerOf(pool))).toEqual(before);
    expect((await complete(second.gateway.url, { token: first.token })).status).toBe(200); // the issuer is the same too
    second.gateway.kill('SIGTERM');
    expect(await second.gateway.exited).toEqual(IN_ORDER);
    const postgres = await startEmbeddedPostgres({ dataDir: join(folder, 'data/postgres'), durable: true });
    try {
      expect(postgres.adopted).toBe(false);
      expect((await withPool(postgres.url, (pool) => expectBooksClosed(pool))).calls).toBe(3);
    } finally {
      await postgres.stop();
    }
  }, 60_000);
});

async function withPool<T>(url: string, use: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = new Pool({ connectionString: url, max: 1 });
  pool.on('error', () => {});
  try {
    return await use(pool);
  } finally {
    await pool.end();
  }
}
