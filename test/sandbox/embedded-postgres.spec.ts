import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { killEmbeddedPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '../../src/sandbox/embedded-postgres.ts';
import { processIdentity } from '../../src/sandbox/live-process.ts';

// Everything here is real: PostgreSQL, the processes that start it, and the signals that end them.

const MODULE = resolve('src/sandbox/embedded-postgres.ts');
const isRoot = process.getuid?.() === 0;

let blank: string; // a stopped cluster to copy, which is quicker than a new one
let folder: string;
let dataDir: string;
let starters: ChildProcess[];

beforeAll(async () => {
  blank = mkdtempSync(join(tmpdir(), 'novix-spec-postgres-'));
  await (await startEmbeddedPostgres({ dataDir: blank, durable: false })).stop();
});

afterAll(() => rmSync(blank, { recursive: true, force: true }));

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'novix-spec-postgres-'));
  chmodSync(folder, 0o755);
  dataDir = join(folder, 'data', 'postgres');
  starters = [];
});

afterEach(async () => {
  for (const starter of starters) starter.kill('SIGKILL');
  if (!existsSync(dataDir)) return rmSync(folder, { recursive: true, force: true });
  const home = realpathSync(dataDir);
  const pid = existsSync(pidFile(home)) ? postmasterPid(home) : undefined;
  killEmbeddedPostgres(home);
  if (pid !== undefined) await ended(pid);
  for (const path of [home, folder]) rmSync(path, { recursive: true, force: true });
});

describe('start and stop', () => {
  it('gives a database that takes our password alone, on the loopback address alone, and keeps it over a restart', async () => {
    const first = await start();
    expect(first.adopted).toBe(false);
    await query(first.url, 'CREATE TABLE kept (note text)');
    await query(first.url, `INSERT INTO kept VALUES ('here')`);
    expect(await query(first.url, `SELECT current_user, current_database(), current_setting('listen_addresses') AS address,
      current_setting('unix_socket_directories') AS sockets, current_setting('server_encoding') AS encoding, current_setting('max_connections') AS connections,
      current_setting('synchronous_commit') AS commits`)).toEqual([
      { current_user: 'novix', current_database: 'novix', address: '127.0.0.1', sockets: '', encoding: 'UTF8', connections: '100', commits: 'on' }]);
    const guess = new URL(first.url);
    guess.password = 'guess';
    await expect(query(guess.href, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    expect(statSync(join(first.dataDir, 'password')).mode & 0o777).toBe(0o600);

    const pid = postmasterPid(first.dataDir);
    await first.stop();
    expect(processIdentity(pid)).toBeUndefined();
    await first.stop(); // a second stop does nothing

    const second = await start();
    expect(second.adopted).toBe(false);
    expect(await query(second.url, 'SELECT note FROM kept')).toEqual([{ note: 'here' }]);
    await second.stop();
  });

  it('leaves the durable settings on in the sandbox', async () => {
    const postgres = await startEmbeddedPostgres({ dataDir, durable: true });
    expect(await query(postgres.url, `SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS pages`)).toEqual([{ fsync: 'on', pages: 'on' }]);
    await postgres.stop();
  });

  it('stays up while another user of it lives, and ends with the last', async () => {
    await copyBlank();
    const first = await start();
    const second = await start();
    expect(second).toMatchObject({ adopted: true, url: first.url });
    await first.stop();
    expect(await query(second.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    const pid = postmasterPid(second.dataDir);
    await second.stop();
    expect(processIdentity(pid)).toBeUndefined();
  });

  it('stops quietly when the server, or its folder too, is gone already', async () => {
    await copyBlank();
    const first = await start();
    const pid = postmasterPid(first.dataDir);
    process.kill(pid, 'SIGKILL');
    await ended(pid);
    await first.stop();

    const second = await start();
    const secondPid = postmasterPid(second.dataDir);
    rmSync(second.dataDir, { recursive: true });
    await second.stop();
    expect(processIdentity(secondPid)).toBeUndefined();
  });

  it('hands no variable of our environment to the server', async () => {
    await copyBlank();
    const starter = await startInChild({ env: { ...process.env, XAI_API_KEY: 'secret-key' } });
    expect(readFileSync(`/proc/${postmasterPid(dataDir)}/environ`, 'utf8')).not.toContain('secret-key');
    starter.process.kill('SIGKILL');
  });
});

describe('after a kill', () => {
  it('adopts the server whose starter was killed, with the data there', async () => {
    await copyBlank();
    const starter = await startInChild();
    await query(starter.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    await kill(starter.process, 'SIGKILL');

    const next = await start();
    expect(next).toMatchObject({ adopted: true, url: starter.url });
    expect(await query(next.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
    const pid = postmasterPid(next.dataDir);
    await next.stop(); // the killed starter counts no longer as a user
    expect(processIdentity(pid)).toBeUndefined();
  });

  it('is not reached by a Ctrl-C, which goes to the whole process group of the starter', async () => {
    await copyBlank();
    const starter = await startInChild({ detached: true });
    process.kill(-(starter.process.pid ?? 0), 'SIGINT');
    await once(starter.process, 'exit');
    await sleep(200);
    expect(await query(starter.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('recovers when the server itself was killed', async () => {
    await copyBlank();
    const first = await start();
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    process.kill(postmasterPid(first.dataDir), 'SIGKILL');
    const second = await start();
    expect(second.adopted).toBe(false);
    expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
    await second.stop();
  });

  it.each([
    ['a dead process', () => 4_194_305], // above the highest pid there can be
    ['a live process that is no PostgreSQL', liveProcessOfTheServersUser],
  ])('starts over a postmaster.pid of %s', async (_whose, stalePid) => {
    await copyBlank();
    const first = await start();
    const file = pidFile(first.dataDir);
    const left = readFileSync(file, 'utf8');
    await first.stop();
    writeFileSync(file, left.replace(/^\d+/, String(stalePid())));
    const { uid, gid } = statSync(join(first.dataDir, 'cluster'));
    if (isRoot) await run('chown', [`${uid}:${gid}`, file]);
    const second = await start();
    expect(second.adopted).toBe(false);
    await second.stop();
  });

  it('does not trust what an interrupted initdb has left', async () => {
    const starter = spawnStarter();
    while (!existsSync(dataDir) || !readdirSync(dataDir).some((name) => name.startsWith('staging-') && existsSync(join(dataDir, name, 'data', 'base')))) await sleep(1);
    await kill(starter, 'SIGKILL');
    expect(existsSync(join(dataDir, 'cluster'))).toBe(false);
    const next = await start();
    expect(next.adopted).toBe(false);
    expect(await query(next.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await next.stop();
  });
});

describe('two starters', () => {
  it('at once: one makes it, the other adopts it', async () => {
    const both = await Promise.all([startInChild(), startInChild()]);
    expect(both.filter((starter) => starter.adopted)).toHaveLength(1);
    expect(both[0].url).toBe(both[1].url);
  });

  it('at once with a lock left by a dead process: still one', async () => {
    await copyBlank();
    writeFileSync(join(dataDir, 'start.lock'), '4194305 1 11111111-1111-1111-1111-111111111111');
    const all = await Promise.all([startInChild(), startInChild(), startInChild()]);
    expect(all.filter((starter) => !starter.adopted)).toHaveLength(1);
    expect(new Set(all.map((starter) => starter.url)).size).toBe(1);
  });
});

it('shows the end of the log of PostgreSQL when it does not come up', async () => {
  await copyBlank();
  const first = await start();
  await first.stop();
  rmSync(join(first.dataDir, 'cluster', 'global', 'pg_control'));
  await expect(start()).rejects.toThrow(/could not find the database system[^]*DATABASE_URL/);
});

(isRoot ? describe : describe.skip)('as root below a folder that only root can enter', () => {
  it('keeps the cluster elsewhere behind a link, which the next start follows', async () => {
    chmodSync(folder, 0o700);
    const first = await start();
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer');
    expect(lstatSync(dataDir).isSymbolicLink()).toBe(true);
    expect(realpathSync(dataDir)).toBe(first.dataDir);
    await first.stop();
    const second = await start();
    expect(second.dataDir).toBe(first.dataDir);
    expect(await query(second.url, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
    await second.stop();
  });

  it('makes an empty cluster when the place behind the link was cleared', async () => {
    chmodSync(folder, 0o700);
    const first = await start();
    await first.stop();
    rmSync(first.dataDir, { recursive: true });
    const second = await start();
    expect(second).toMatchObject({ adopted: false, dataDir: first.dataDir });
    await second.stop();
  });

  it('is one cluster for two starters at once', async () => {
    chmodSync(folder, 0o700);
    const both = await Promise.all([startInChild(), startInChild()]);
    expect(both.filter((starter) => starter.adopted)).toHaveLength(1);
  });
});

async function copyBlank(): Promise<void> {
  mkdirSync(dirname(dataDir));
  await run('cp', ['-a', blank, dataDir]);
}

function start(): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ dataDir, durable: false });
}

interface Starter {
  readonly process: ChildProcess;
  readonly url: string;
  readonly adopted: boolean;
}

/** A process that starts PostgreSQL, says so in one line, and then waits to be killed. */
function spawnStarter(options: { detached?: boolean; env?: NodeJS.ProcessEnv } = {}): ChildProcess {
  const script = `
    const { startEmbeddedPostgres } = await import(${JSON.stringify(MODULE)});
    const { url, adopted } = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, durable: false });
    console.log(JSON.stringify({ url, adopted }));
    setInterval(() => undefined, 1_000);`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'], ...options });
  starters.push(child);
  return child;
}

async function startInChild(options: { detached?: boolean; env?: NodeJS.ProcessEnv } = {}): Promise<Starter> {
  const child = spawnStarter(options);
  if (child.stdout === null) throw new Error('no stdout');
  for await (const line of createInterface({ input: child.stdout })) {
    return { process: child, ...(JSON.parse(line) as { url: string; adopted: boolean }) };
  }
  throw new Error('the starter ended');
}

/** PostgreSQL takes the pid of another user's process for stale by itself, so the trap needs one of its own user. */
function liveProcessOfTheServersUser(): number {
  const { uid, gid } = statSync(join(dataDir, 'cluster'));
  const sleeper = spawn('sleep', ['60'], { stdio: 'ignore', cwd: '/', ...(isRoot ? { uid, gid } : {}) });
  starters.push(sleeper);
  return sleeper.pid ?? 0;
}

async function kill(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await once(child, 'exit');
}

async function run(command: string, args: string[]): Promise<void> {
  await once(spawn(command, args), 'exit');
}

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}

function pidFile(home: string): string {
  return join(home, 'cluster', 'postmaster.pid');
}

function postmasterPid(home: string): number {
  return Number.parseInt(readFileSync(pidFile(home), 'utf8'), 10);
}

async function ended(pid: number): Promise<void> {
  while (processIdentity(pid) !== undefined) await sleep(10);
}
