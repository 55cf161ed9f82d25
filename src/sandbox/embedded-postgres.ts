import { execFile, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { isErrno } from './errno.ts';
import { withFileLock } from './file-lock.ts';
import { isLive, ownIdentity, processIdentity } from './live-process.ts';
import { placeHome, SERVER_ENV, serverAccount, type Account } from './postgres-account.ts';
import { postgresBinaries, type PostgresBinaries } from './postgres-binaries.ts';

const LOCK_WAIT_MS = 60_000;
const READY_WAIT_MS = 30_000;
const READY_POLL_MS = 25;
const FAST_SHUTDOWN_WAIT_MS = 20_000;
const IMMEDIATE_SHUTDOWN_WAIT_MS = 8_000; // PostgreSQL itself kills its children after 5 s
const LAUNCHES_MAX = 4;
const LOG_BYTES_MAX = 5_000_000;
const NAME = 'novix'; // of the superuser and of the database

export interface EmbeddedPostgres {
  /** `postgresql://novix:PASSWORD@127.0.0.1:PORT/novix` */
  readonly url: string;
  /** It ran already: started by another process that still uses it, or left behind by one that was killed. */
  readonly adopted: boolean;
  /** Where everything really is, with links followed: `cluster/`, `password`, `postgres.log`, `users/`, `start.lock`. */
  readonly dataDir: string;
  /** Ends our use, and the server too unless another live process uses it. Never throws. */
  stop(): Promise<void>;
}

export interface EmbeddedPostgresOptions {
  /** Made when missing, for example `.novix/postgres`. */
  dataDir: string;
  /** False in tests alone: a crash of the machine may then destroy the cluster. `synchronous_commit` stays on all the same. */
  durable: boolean;
  /** 100 unless said otherwise. An adopted server keeps what it was started with. */
  maxConnections?: number;
  log?: (line: string) => void;
}

interface Postmaster {
  readonly identity: string;
  readonly port: number;
}

interface Cluster {
  readonly home: string;
  /** PGDATA */
  readonly data: string;
  readonly password: string;
}

/**
 * PostgreSQL of our own, for the sandbox and for tests. It runs in its own session and outlives us when we are killed; the
 * next start on the same folder adopts it. Starting and stopping happen under one lock per folder.
 *
 * @throws {Error} saying what to do, with the end of PostgreSQL's log when it does not come up within 30 s
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const log = options.log ?? (() => undefined);
  const account = await serverAccount();
  const binaries = await postgresBinaries(account);
  const home = await placeHome(resolve(options.dataDir), account);
  return withFileLock(lockOf(home), LOCK_WAIT_MS, async () => {
    const cluster = await openCluster(home, binaries, account, options.durable, log);
    const { postmaster, adopted } = await adoptOrLaunch(cluster, binaries.postgres, account, options);
    const userFile = await registerUser(home);
    log(`PostgreSQL ${adopted ? 'adopted' : 'started'} on 127.0.0.1:${postmaster.port}, data in ${home}`);
    return {
      url: urlOf(cluster, postmaster.port, NAME),
      adopted,
      dataDir: home,
      stop: () => leave(cluster, userFile, postmaster, log),
    };
  });
}

/**
 * Ends the server at once, without waiting and whoever else uses it: for the `exit` handler of a test run, where nothing can be
 * awaited. What was committed is recovered by the next start.
 *
 * @param dataDir as in `EmbeddedPostgres.dataDir`
 */
export function killEmbeddedPostgres(dataDir: string): void {
  const postmaster = findPostmaster(dataOf(dataDir));
  if (postmaster !== undefined) signal(postmaster, 'SIGQUIT');
}

function lockOf(home: string): string {
  return join(home, 'start.lock');
}

function dataOf(home: string): string {
  return join(home, 'cluster');
}

function logOf(home: string): string {
  return join(home, 'postgres.log');
}

function urlOf(cluster: Cluster, port: number, database: string): string {
  return `postgresql://${NAME}:${cluster.password}@127.0.0.1:${port}/${database}`;
}

// The cluster on disk

/** An `initdb` that was interrupted leaves only a `staging-` folder: the cluster appears by a rename, whole. */
async function openCluster(
  home: string, binaries: PostgresBinaries, account: Account | undefined, durable: boolean, log: (line: string) => void,
): Promise<Cluster> {
  await removeStaging(home);
  const data = dataOf(home);
  const exists = await stat(data).then(() => true, () => false);
  const cluster = { home, data, password: await readOrMakePassword(home, exists) };
  if (!exists) {
    log(`Making a PostgreSQL cluster in ${home}`);
    await initialise(cluster, binaries.initdb, account, durable);
  }
  return cluster;
}

async function removeStaging(home: string): Promise<void> {
  const left = (await readdir(home)).filter((name) => name.startsWith('staging-'));
  // An initdb whose starter was killed may still be writing there: what cannot be removed now is removed at the next start.
  await Promise.allSettled(left.map((name) => rm(join(home, name), { recursive: true, force: true, maxRetries: 3 })));
}

async function readOrMakePassword(home: string, clusterExists: boolean): Promise<string> {
  const file = join(home, 'password');
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    if (clusterExists) throw new Error(`${file} is missing, so the PostgreSQL beside it cannot be used. Restore it, or remove ${home} with all its data.`, { cause: error });
  }
  const password = randomBytes(24).toString('base64url');
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, `${password}\n`, { mode: 0o600, flush: true });
  await rename(draft, file);
  return password;
}

async function initialise(cluster: Cluster, initdb: string, account: Account | undefined, durable: boolean): Promise<void> {
  const staging = await mkdtemp(join(cluster.home, 'staging-'));
  try {
    const [data, passwordFile] = [join(staging, 'data'), join(staging, 'password')];
    await writeFile(passwordFile, `${cluster.password}\n`, { mode: 0o600 });
    if (account !== undefined) await Promise.all([staging, passwordFile].map((path) => chown(path, account.uid, account.gid)));
    const args = [
      `--pgdata=${data}`, `--username=${NAME}`, '--auth=scram-sha-256', `--pwfile=${passwordFile}`, '--locale=C', '--encoding=UTF8',
      '--no-instructions', ...(durable ? [] : ['--no-sync']),
    ];
    await promisify(execFile)(initdb, args, { ...account, cwd: cluster.home, env: SERVER_ENV });
    await rename(data, cluster.data);
    if (durable) await syncFolder(cluster.home);
  } catch (error) {
    const said = typeof error === 'object' && error !== null && 'stderr' in error ? String(error.stderr).trim() : '';
    throw new Error(`initdb failed in ${cluster.home}. ${said}`.trim(), { cause: error });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

// The running server

/** A launch may lose its port to another process, or meet the last children of a server that was killed: then once more. */
async function adoptOrLaunch(
  cluster: Cluster, postgres: string, account: Account | undefined, options: EmbeddedPostgresOptions,
): Promise<{ postmaster: Postmaster; adopted: boolean }> {
  const deadlineMs = Date.now() + READY_WAIT_MS;
  for (let launches = 0; launches < LAUNCHES_MAX; ) {
    const running = findPostmaster(cluster.data);
    if (running !== undefined) {
      if (await becomesReady(cluster, running, deadlineMs)) return { postmaster: running, adopted: true };
      continue; // it was shutting down
    }
    await sleep(launches * 200);
    launches += 1;
    const launched = await launch(cluster, postgres, account, options);
    if (launched !== undefined && (await readyOrKilled(cluster, launched, deadlineMs))) return { postmaster: launched, adopted: false };
  }
  throw new Error(await notUp(cluster, 'PostgreSQL ended while starting'));
}

async function readyOrKilled(cluster: Cluster, postmaster: Postmaster, deadlineMs: number): Promise<boolean> {
  try {
    return await becomesReady(cluster, postmaster, deadlineMs);
  } catch (error) {
    signal(postmaster, 'SIGQUIT');
    throw error;
  }
}

/**
 * The server that runs on this data folder, by its `postmaster.pid` (pid, folder, start, port, one a line). The pid counts only when
 * that process works in the folder, as a postmaster does: after a reboot it may be anyone's.
 */
function findPostmaster(data: string): Postmaster | undefined {
  try {
    const lines = readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n');
    const [pid, port] = [Number(lines[0]), Number(lines[3])];
    const identity = processIdentity(pid);
    return identity !== undefined && port > 0 && readlinkSync(`/proc/${pid}/cwd`) === realpathSync(data) ? { identity, port } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * PostgreSQL refuses to start while the pid in a stale `postmaster.pid` is alive, though it be someone else's by now. It
 * overlooks the pid of its own parent, which is us. The file must stay: its last lines tell PostgreSQL whether children of the
 * dead server still work on the data.
 */
function disownStalePidFile(data: string): void {
  const file = join(data, 'postmaster.pid');
  try {
    const [pid, ...rest] = readFileSync(file, 'utf8').split('\n');
    if (existsSync(`/proc/${pid}`)) writeFileSync(file, [process.pid, ...rest].join('\n'), { flag: 'r+' });
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

/** @returns undefined when the process ended before it had a name in the process table */
async function launch(
  cluster: Cluster, postgres: string, account: Account | undefined, options: EmbeddedPostgresOptions,
): Promise<Postmaster | undefined> {
  disownStalePidFile(cluster.data);
  const port = await freePort();
  const settings = {
    port, listen_addresses: '127.0.0.1', unix_socket_directories: '', max_connections: options.maxConnections ?? 100, shared_buffers: '128MB',
    // Values of rows and statements stay out of the log: they may be what a customer wrote.
    log_error_verbosity: 'terse', log_min_error_statement: 'panic', log_checkpoints: 'off',
    // Checkpoints of the database write pages whole again, and stall commits: under load, rarer ones.
    ...(options.durable ? { max_wal_size: '4GB', checkpoint_timeout: '15min' } : { fsync: 'off', full_page_writes: 'off' }),
  };
  const args = ['-D', cluster.data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  const logFile = await openLog(cluster.home);
  try {
    // Detached means an own session: a Ctrl-C in our terminal does not reach it.
    const child = spawn(postgres, args, { ...account, cwd: cluster.home, env: SERVER_ENV, detached: true, stdio: ['ignore', logFile, logFile] });
    await new Promise<void>((started, failed) => child.once('spawn', started).once('error', failed));
    child.unref();
    const identity = child.pid === undefined ? undefined : processIdentity(child.pid);
    return identity === undefined ? undefined : { identity, port };
  } finally {
    closeSync(logFile);
  }
}

async function openLog(home: string): Promise<number> {
  const file = logOf(home);
  const bytes = await stat(file).then((found) => found.size, () => 0);
  if (bytes > LOG_BYTES_MAX) await rename(file, `${file}.old`);
  return openSync(file, 'a', 0o600);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening, failed) => server.once('error', failed).listen(0, '127.0.0.1', listening));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((closed) => server.close(() => closed()));
  return port;
}

/**
 * Waits until the server takes connections with our password, and makes our database when it is not there yet.
 *
 * @returns false when the process has ended
 * @throws {Error} when it refuses our password, or is not ready at the deadline
 */
async function becomesReady(cluster: Cluster, postmaster: Postmaster, deadlineMs: number): Promise<boolean> {
  for (;;) {
    const refusal = await connectionRefusal(urlOf(cluster, postmaster.port, NAME));
    if (refusal === undefined) return true;
    if (!isLive(postmaster.identity)) return false;
    if (isErrno(refusal, '3D000')) await makeDatabase(urlOf(cluster, postmaster.port, 'postgres'));
    if (isErrno(refusal, '28P01', '28000')) throw new Error(`The PostgreSQL in ${cluster.home} refuses the password in the file beside it`, { cause: refusal });
    if (Date.now() > deadlineMs) throw new Error(await notUp(cluster, `PostgreSQL was not ready within ${READY_WAIT_MS / 1000} s`), { cause: refusal });
    await sleep(READY_POLL_MS);
  }
}

async function connectionRefusal(url: string): Promise<unknown> {
  try {
    await withClient(url, async () => undefined);
    return undefined;
  } catch (error) {
    return error ?? new Error('unknown');
  }
}

async function makeDatabase(url: string): Promise<void> {
  await withClient(url, (client) => client.query(`CREATE DATABASE ${NAME}`));
}

async function withClient(url: string, work: (client: Client) => Promise<unknown>): Promise<void> {
  const client = new Client({ connectionString: url, ssl: false, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined); // the server may end at any time; whatever waits is rejected anyway
  try {
    await client.connect();
    await work(client);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function notUp(cluster: Cluster, what: string): Promise<string> {
  const file = logOf(cluster.home);
  const tail = await readFile(file, 'utf8').then((text) => text.trimEnd().split('\n').slice(-15).join('\n'), () => '(no log)');
  return `${what}. The end of ${file}:\n${tail}\nTo use another PostgreSQL, set DATABASE_URL.`;
}

// Users of one server, and its end

async function registerUser(home: string): Promise<string> {
  const folder = join(home, 'users');
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o700);
  const file = join(folder, randomUUID());
  await writeFile(file, ownIdentity(), { mode: 0o600 });
  return file;
}

/** Whether a live process still uses the server; the files of dead ones are removed. */
async function isUsed(home: string): Promise<boolean> {
  const folder = join(home, 'users');
  const names = await readdir(folder).catch(() => []);
  const live = await Promise.all(names.map(async (name) => {
    const file = join(folder, name);
    if (isLive(await readFile(file, 'utf8').catch(() => ''))) return true;
    await rm(file, { force: true });
    return false;
  }));
  return live.includes(true);
}

async function leave(cluster: Cluster, userFile: string, started: Postmaster, log: (line: string) => void): Promise<void> {
  const end = async (): Promise<void> => {
    await rm(userFile, { force: true });
    if (await isUsed(cluster.home)) return log('PostgreSQL stays up: another process uses it');
    await shutDown(findPostmaster(cluster.data) ?? started, log);
  };
  try {
    await withFileLock(lockOf(cluster.home), LOCK_WAIT_MS, end);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return shutDown(started, log); // the folder was removed under it
    log(`PostgreSQL was left running; the next start adopts it. ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** Fast shutdown: sessions are ended, what was committed is written. Immediate when that takes too long. */
async function shutDown(postmaster: Postmaster, log: (line: string) => void): Promise<void> {
  for (const [name, waitMs] of [['SIGINT', FAST_SHUTDOWN_WAIT_MS], ['SIGQUIT', IMMEDIATE_SHUTDOWN_WAIT_MS]] as const) {
    signal(postmaster, name);
    const deadlineMs = Date.now() + waitMs;
    while (isLive(postmaster.identity) && Date.now() < deadlineMs) await sleep(READY_POLL_MS);
    if (!isLive(postmaster.identity)) return;
    log(`PostgreSQL did not end within ${waitMs / 1000} s of ${name}`);
  }
}

function signal(postmaster: Postmaster, name: 'SIGINT' | 'SIGQUIT'): void {
  if (!isLive(postmaster.identity)) return;
  try {
    process.kill(Number.parseInt(postmaster.identity, 10), name);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}
