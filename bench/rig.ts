import { fork, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { startEmbeddedPostgres } from '../src/sandbox/embedded-postgres.ts';
import { LocalIssuer } from '../src/sandbox/local-issuer.ts';
import { runMigrations } from '../src/shared/migrations.ts';

const PROVIDER_KEY = 'xai-bench-key';

/** A way to reach the provider. */
export interface Arm {
  name: 'direct' | 'bare proxy' | 'gateway';
  url: string;
  authorization: string;
  /** Process whose CPU is the arm's own; none for direct. */
  pid: number | undefined;
}

export interface Rig {
  arms: Arm[];
  gatewayPid: number;
  metrics(): Promise<string>;
  close(): Promise<void>;
}

/** Starts the emulator, a bare proxy, PostgreSQL (durable) and the gateway, each in a process of its own. */
export async function startRig(pace: { firstTokenMs: number; tokenIntervalMs: number }, gatewayEnv: Record<string, string> = {}, gatewayArgv: string[] = []): Promise<Rig> {
  const dataDir = await mkdtemp(join(tmpdir(), 'novix-bench-'));
  const children: ChildProcess[] = [];
  const start = async (file: string, args: string[], env: Record<string, string> = {}, execArgv: string[] = []): Promise<{ url: string; pid: number }> => {
    const child = fork(new URL(file, import.meta.url), args, { env: { PATH: process.env['PATH'], ...env }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'], execArgv });
    children.push(child);
    const { url } = await new Promise<{ url: string }>((resolve, reject) => {
      child.once('message', (message) => resolve(message as { url: string }));
      child.once('exit', (code) => reject(new Error(`${file} ended with ${code}`)));
    });
    return { url, pid: child.pid! };
  };
  const postgres = await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), durable: true });
  await runMigrations(postgres.url);
  const db = new Client({ connectionString: postgres.url });
  await db.connect();
  await db.query("INSERT INTO tenants (id, name, tier) VALUES ('bench', 'Bench', 'government')");
  await db.query(
    "INSERT INTO budgets (id, tenant_id, scope, time_window, limit_ticks, period_start) VALUES (gen_random_uuid(), 'bench', 'tenant', 'total', 1000000000000000000, now())");
  await db.end();
  const issuer = await LocalIssuer.open(join(dataDir, 'issuer.pem'));
  const identity = await issuer.serve();
  const token = await issuer.mint({ tenant: 'bench', subject: 'load', roles: ['developer'], ttlSeconds: 7_200 });
  const emulator = await start('./emulator-process.js', [PROVIDER_KEY, String(pace.firstTokenMs), String(pace.tokenIntervalMs)]);
  const proxy = await start('./bare-proxy.js', [emulator.url, PROVIDER_KEY]);
  const gateway = await start('./gateway-process.js', [], {
    PORT: '0', DATABASE_URL: postgres.url, XAI_API_KEY: PROVIDER_KEY, XAI_API_ENDPOINT: emulator.url, NOVIX_DATA_DIR: dataDir, AUTH_ISSUER: identity.settings.issuer,
    AUTH_AUDIENCE: identity.settings.audience, AUTH_JWKS_URI: identity.url, AUTH_ALGORITHMS: 'ES256', DRAIN_DELAY_MS: '0', LOG_LEVEL: 'info', NODE_ENV: 'production', HOST: '127.0.0.1', ...gatewayEnv,
  }, gatewayArgv);
  return {
    arms: [
      { name: 'direct', url: emulator.url, authorization: `Bearer ${PROVIDER_KEY}`, pid: undefined },
      { name: 'bare proxy', url: proxy.url, authorization: `Bearer ${PROVIDER_KEY}`, pid: proxy.pid },
      { name: 'gateway', url: `${gateway.url}/v1`, authorization: `Bearer ${token}`, pid: gateway.pid },
    ],
    gatewayPid: gateway.pid,
    metrics: async () => (await fetch(`${gateway.url}/metrics`)).text(),
    close: async () => {
      const stopped = children.map((child) => new Promise<void>((resolve) => {
        if (child.exitCode !== null) resolve();
        child.once('exit', () => resolve());
      }));
      for (const child of children) child.kill('SIGTERM');
      await Promise.all(stopped);
      await identity.close();
      await postgres.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** CPU time of a process so far, all threads, in microseconds; in steps of 10 ms. Linux only. */
export function cpuMicros(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  return ticks * 10_000;
}

/** Resident memory of a process in bytes. Linux only. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
}
