import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeJwt } from 'jose';
import { Client, Pool } from 'pg';
import { allEvents, complete, USD } from '../support/calls.ts';
import { novix, startRig, type Rig } from '../support/gateway-process.ts';

// The built command line against real, empty databases.

let folder: string;
let empty: Pool;
let emptyUrl: string;
let rig: Rig;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'novix-test-cli-'));
  emptyUrl = await createEmptyDatabase();
  empty = new Pool({ connectionString: emptyUrl, max: 1 });
  empty.on('error', () => {});
  rig = await startRig({ databaseUrl: emptyUrl });
});
afterAll(async () => {
  await rig.close();
  await empty.end();
  await asAdmin(`DROP DATABASE IF EXISTS ${new URL(emptyUrl).pathname.slice(1)} WITH (FORCE)`);
  await rm(folder, { recursive: true, force: true });
});

async function createEmptyDatabase(): Promise<string> {
  const name = `test_empty_${randomBytes(6).toString('hex')}`;
  await asAdmin(`CREATE DATABASE ${name}`);
  const url = new URL(process.env['TEST_POSTGRES_URL']!);
  url.pathname = `/${name}`;
  return url.href;
}

async function asAdmin(statement: string): Promise<void> {
  const admin = new Client({ connectionString: process.env['TEST_POSTGRES_URL'] });
  await admin.connect();
  try {
    await admin.query(statement);
  } finally {
    await admin.end();
  }
}

function run(...args: string[]): ReturnType<typeof novix> {
  return novix(args, { cwd: folder, env: { DATABASE_URL: emptyUrl, NOVIX_DATA_DIR: join(folder, 'data') } });
}

async function json<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await run(...args, '--json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout.trimEnd().split('\n')).toHaveLength(1);
  return JSON.parse(stdout) as T;
}

it('three migrations at once on an empty database run each step once, and all succeed', async () => {
  const runs = await Promise.all(Array.from({ length: 3 }, () => json<{ migrations: string[] }>('migrate')));
  const ran = runs.flatMap(({ migrations }) => migrations);
  expect(ran.length).toBeGreaterThanOrEqual(3);
  expect(new Set(ran).size).toBe(ran.length);
  expect(runs.filter(({ migrations }) => migrations.length > 0)).toHaveLength(1);
});

it('makes the first tenant and its budget on an empty database, audited, and the gateway serves them', async () => {
  await empty.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
  expect(await json('tenant', 'create', '--id', 'first', '--name', 'First & Co', '--tier', 'enterprise')).toMatchObject({ id: 'first', name: 'First & Co', tier: 'enterprise' });
  const budget = await json<{ id: string }>('budget', 'create', '--tenant', 'first', '--limit-usd', '12.50', '--window', 'month');
  expect(budget).toMatchObject({ tenant: 'first', scope: { type: 'tenant' }, window: 'month', limit_usd: '12.50', spent_usd: '0.00', remaining_usd: '12.50' });
  expect(await json('budget', 'create', '--tenant', 'first', '--limit-usd', '1', '--window', 'day', '--scope', 'user:dev@first.example')).toMatchObject({ scope: { type: 'user', id: 'dev@first.example' } });
  const { rows } = await empty.query<{ limit_ticks: string }>('SELECT limit_ticks FROM budgets WHERE id = $1', [budget.id]);
  expect(BigInt(rows[0]!.limit_ticks)).toBe((125n * USD) / 10n);
  const changes = (await allEvents(empty)).map(({ actor, unmapped: { novix } }) => [actor.user.uid, novix.phase, novix.object?.type]);
  expect(changes).toEqual([['command-line', 'change', 'tenant'], ['command-line', 'change', 'budget'], ['command-line', 'change', 'budget']]);

  const gateway = await rig.start();
  const answer = await complete(gateway.url, { token: await rig.token({ tenant: 'first', subject: 'dev@first.example' }) });
  expect(answer.status).toBe(200);
  await answer.text();
  gateway.kill('SIGTERM');
  expect((await gateway.exited).code).toBe(0);
});

it('mints a token of the sandbox issuer with the claims asked for, and nothing else on standard output', async () => {
  const { code, stdout, stderr } = await run('token', 'mint', '--tenant', 'globex', '--sub', 'me', '--role', 'auditor', 'billing', '--attr', 'team=bi', 'clearance=3', 'region=eu,us', '--ttl', '60');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const claims = decodeJwt(stdout.trim());
  expect(claims).toMatchObject({ tenant: 'globex', sub: 'me', roles: ['auditor', 'billing'], attrs: { team: 'bi', clearance: 3, region: ['eu', 'us'] } });
  expect(claims.exp! - claims.iat!).toBe(60);
});

it('checks settings and config files without starting anything', async () => {
  expect(await json('config', 'check')).toEqual({ ok: true, sandbox: ['provider', 'identity'] });
  const bad = await novix(['config', 'check'], { cwd: folder, env: { ...rig.env, XAI_MAX_TOKENS: 'many', XAI_TOP_P: '2', LOG_LEVEL: 'loud' } });
  expect(bad.code).toBe(1);
  expect(bad.stderr.trimEnd().split('\n').map((line) => line.split(':', 2).join(':'))).toEqual(expect.arrayContaining(['novix: LOG_LEVEL', 'novix: XAI_MAX_TOKENS', 'novix: XAI_TOP_P']));
  expect(bad.stderr.trimEnd().split('\n')).toHaveLength(3);
});

it.each([
  [['tenant', 'create', '--id', 'first', '--name', 'Again', '--tier', 'standard'], /first.*(exists|already)|(exists|already)/i],
  [['tenant', 'create', '--id', 'No Spaces', '--name', 'X', '--tier', 'standard'], /--id/],
  [['tenant', 'create', '--id', 'x', '--name', 'X', '--tier', 'golden'], /--tier/],
  [['budget', 'create', '--tenant', 'nobody', '--limit-usd', '1', '--window', 'day'], /nobody/],
  [['budget', 'create', '--tenant', 'first', '--limit-usd', '-1', '--window', 'day'], /--limit-usd/],
  [['budget', 'create', '--tenant', 'first', '--limit-usd', '1', '--window', 'day', '--scope', 'planet:earth'], /--scope/],
  [['token', 'mint', '--tenant', 'acme', '--sub', 'me', '--ttl', '0'], /--ttl/],
  [['frobnicate'], /frobnicate/],
] as [string[], RegExp][])('novix %j ends with status 1 and one clear line', async (args, line) => {
  const { code, stdout, stderr } = await run(...args);
  expect({ code, stdout, lines: stderr.trimEnd().split('\n').length }).toEqual({ code: 1, stdout: '', lines: 1 });
  expect(stderr).toMatch(/^novix: /);
  expect(stderr).toMatch(line);
});

it('says in one line, without the password, that the database cannot be reached', async () => {
  const { code, stdout, stderr } = await novix(['migrate'], { cwd: folder, env: { DATABASE_URL: 'postgresql://novix:hush@127.0.0.1:1/novix' } });
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^novix: [^\n]*ECONNREFUSED[^\n]*\n$/);
  expect(stderr).not.toContain('hush');
});
