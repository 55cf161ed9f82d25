import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { randomUUID } from 'node:crypto';
import { LocalIssuer, type TokenRequest } from '../../src/sandbox/local-issuer.ts';
import { startXaiEmulator, type EmulatorOptions, type XaiEmulator } from '../../src/sandbox/xai-emulator.ts';
import { PACKAGE_ROOT } from '../../src/shared/config-files.ts';
import { createTestDatabase } from './test-database.ts';
import { eventually, PROVIDER_KEY } from './harness.ts';

// The built product (`npm run build`) in processes of its own, for tests in which a process must die.

const MAIN = join(PACKAGE_ROOT, 'dist/src/main.js');
const NOVIX = join(PACKAGE_ROOT, 'dist/src/novix.js');
const READY_MS = 20_000;

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface NovixProcess {
  readonly pid: number;
  /** Resolves when the process and its output have ended. */
  readonly exited: Promise<Exit>;
  readonly hasExited: boolean;
  stdout(): string;
  stderr(): string;
  /** @param group the whole process group, as Ctrl-C does; only for processes started with `ownGroup` */
  kill(signal: NodeJS.Signals, group?: boolean): void;
  /** Resident memory in bytes, as Linux counts it. */
  residentBytes(): number;
  /** CPU time used so far, of all threads, in milliseconds. */
  cpuMs(): number;
}

export interface GatewayProcess extends NovixProcess {
  readonly url: string;
  /** From the start of the process until it said that it serves. */
  readonly readyMs: number;
}

export interface SpawnOptions {
  env: Readonly<Record<string, string>>;
  /** Where `.env` would be read; an empty folder, so that no developer's own settings reach the test. */
  cwd: string;
  ownGroup?: boolean;
  nodeArgs?: readonly string[];
}

const running = new Set<NovixProcess>();

/** Ends whatever a spec has started and not ended; call it in `afterAll`. */
export async function killAll(): Promise<void> {
  const left = [...running];
  for (const one of left) one.kill('SIGKILL');
  await Promise.all(left.map((one) => one.exited));
}

/** Runs `novix …` to its end. */
export async function novix(args: readonly string[], options: SpawnOptions): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const process_ = launch([NOVIX, ...args], options);
  const { code } = await process_.exited;
  return { code, stdout: process_.stdout(), stderr: process_.stderr() };
}

/** Starts the gateway and does not wait for anything. */
export function spawnGateway(options: SpawnOptions): NovixProcess {
  return launch([MAIN], options);
}

/** Starts the gateway and waits until it serves. */
export async function startGatewayProcess(options: SpawnOptions): Promise<GatewayProcess> {
  const startedMs = performance.now();
  const gateway = spawnGateway({ ...options, env: { PORT: '0', ...options.env } });
  const url = await eventually(() => {
    if (gateway.hasExited) throw new Error(`the gateway did not start:\n${gateway.stdout()}${gateway.stderr()}`);
    return /"url":"([^"]+)"[^\n]*"msg":"gateway ready"/.exec(gateway.stdout())?.[1];
  }, READY_MS);
  return Object.assign(gateway, { url, readyMs: performance.now() - startedMs });
}

function launch(args: readonly string[], { env, cwd, ownGroup = false, nodeArgs = [] }: SpawnOptions): NovixProcess {
  const child: ChildProcess = spawn(process.execPath, [...nodeArgs, ...args], {
    cwd, detached: ownGroup, stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
  });
  let [stdout, stderr, ended] = ['', '', false];
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const exited = new Promise<Exit>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      ended = true;
      running.delete(novixProcess);
      resolve({ code, signal });
    });
  });
  const novixProcess: NovixProcess = {
    pid: child.pid!, exited,
    get hasExited() {
      return ended;
    },
    stdout: () => stdout,
    stderr: () => stderr,
    kill: (signal, group = false) => {
      if (group) process.kill(-child.pid!, signal);
      else child.kill(signal);
    },
    residentBytes: () => Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024,
    cpuMs: () => {
      const [userTicks, systemTicks] = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ').slice(11, 13).map(Number);
      return (userTicks! + systemTicks!) * 10; // Linux counts in hundredths of a second
    },
  };
  running.add(novixProcess);
  return novixProcess;
}

/** All that a gateway process needs, in the test's own process: database, emulated xAI, issuer; and a tenant `acme` with a budget. */
export interface Rig {
  emulator: XaiEmulator;
  db: Pool;
  databaseUrl: string;
  /** What leads a gateway to these parts. */
  env: Readonly<Record<string, string>>;
  /** A folder of its own, for `.env`, spool and sandbox data. */
  dir: string;
  start(env?: Record<string, string>, options?: Partial<SpawnOptions>): Promise<GatewayProcess>;
  token(request?: Partial<TokenRequest>): Promise<string>;
  addTenant(id: string, limitTicks: bigint, tier?: 'standard' | 'enterprise' | 'government'): Promise<void>;
  close(): Promise<void>;
}

export async function startRig({ emulator: emulatorOptions, databaseUrl }: { emulator?: Partial<EmulatorOptions>; databaseUrl?: string } = {}): Promise<Rig> {
  const database = databaseUrl === undefined ? await createTestDatabase() : { url: databaseUrl, drop: async () => {} };
  const dir = await mkdtemp(join(tmpdir(), 'novix-test-'));
  const emulator = await startXaiEmulator({ apiKeys: [PROVIDER_KEY], ...emulatorOptions });
  const issuer = await LocalIssuer.open(join(dir, 'issuer.pem'));
  const served = await issuer.serve();
  const db = new Pool({ connectionString: database.url, max: 4, allowExitOnIdle: true });
  db.on('error', () => {}); // tests that take PostgreSQL away know that they do
  const env = {
    DATABASE_URL: database.url, XAI_API_KEY: PROVIDER_KEY, XAI_API_ENDPOINT: emulator.url, NOVIX_DATA_DIR: dir, DRAIN_DELAY_MS: '0',
    AUTH_ISSUER: served.settings.issuer, AUTH_AUDIENCE: served.settings.audience, AUTH_JWKS_URI: served.url, AUTH_ALGORITHMS: 'ES256',
  };
  return {
    emulator, db, databaseUrl: database.url, env, dir,
    start: (more = {}, options = {}) => startGatewayProcess({ cwd: dir, ...options, env: { ...env, ...more } }),
    token: (request = {}) => issuer.mint({ tenant: 'acme', subject: 'dev@acme.example', roles: ['developer'], ttlSeconds: 600, ...request }),
    addTenant: (id, limitTicks, tier = 'enterprise') => addTenant(db, id, limitTicks, tier),
    close: async () => {
      await killAll();
      await emulator.close();
      await served.close();
      await db.end();
      await database.drop();
      await rm(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A tenant with a budget for good. */
export async function addTenant(db: Pool, id: string, limitTicks: bigint, tier: 'standard' | 'enterprise' | 'government' = 'enterprise'): Promise<void> {
  await db.query('INSERT INTO tenants (id, name, tier) VALUES ($1, $1, $2)', [id, tier]);
  await db.query("INSERT INTO budgets (id, tenant_id, scope, time_window, limit_ticks, period_start) VALUES ($1, $2, 'tenant', 'total', $3, now())", [randomUUID(), id, String(limitTicks)]);
}
