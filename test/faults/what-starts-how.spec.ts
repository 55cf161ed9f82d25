import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { killEmbeddedPostgres } from '../../src/sandbox/embedded-postgres.ts';
import { USD } from '../support/calls.ts';
import { killAll, spawnGateway, startGatewayProcess, startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually, HELLO, PROVIDER_KEY } from '../support/harness.ts';

// The table "What starts how" of DESIGN 3.5, cell by cell: the built program as a process, once with each part given and once without.

// The figure is 5 s on a machine of its own; here the rest of the suite shares the two cores.
const START_MS = 15_000;

type Part = 'database' | 'provider' | 'identity';

let rig: Rig;
let dataDir: string;
let given: Record<Part, Record<string, string>>;

beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', USD);
  dataDir = await mkdtemp(join(tmpdir(), 'novix-test-starts-'));
  if (process.getuid?.() === 0) await chmod(dataDir, 0o755);
  const { DATABASE_URL, XAI_API_KEY, XAI_API_ENDPOINT, NOVIX_DATA_DIR: _, DRAIN_DELAY_MS: __, ...identity } = rig.env;
  given = { database: { DATABASE_URL: DATABASE_URL! }, provider: { XAI_API_KEY: XAI_API_KEY!, XAI_API_ENDPOINT: XAI_API_ENDPOINT! }, identity };
});
afterAll(async () => {
  await killAll();
  killEmbeddedPostgres(join(dataDir, 'postgres'));
  await rig.close();
  await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
});

function environment(parts: readonly Part[], more: Record<string, string> = {}): Record<string, string> {
  return Object.assign({ NOVIX_DATA_DIR: dataDir, DRAIN_DELAY_MS: '0' }, ...parts.map((part) => given[part]), more) as Record<string, string>;
}

async function start(env: Record<string, string>): Promise<GatewayProcess> {
  const gateway = await startGatewayProcess({ env, cwd: rig.dir });
  expect(gateway.readyMs).toBeLessThan(START_MS);
  return gateway;
}

async function stop(gateway: GatewayProcess): Promise<void> {
  gateway.kill('SIGTERM');
  expect(await gateway.exited).toEqual({ code: 0, signal: null });
}

/** What the start says when it is refused: status 1, one line per fault, no stack; on standard output nothing but the log of what worked before. */
async function refusal(env: Record<string, string>, cwd = rig.dir): Promise<string[]> {
  const gateway = spawnGateway({ env: { PORT: '0', ...env }, cwd });
  const exit = await gateway.exited;
  expect(exit).toEqual({ code: 1, signal: null });
  expect(gateway.stdout()).toMatch(/^(\{"level":"(warn|error)"[^\n]*\}\n)*$/);
  const lines = gateway.stderr().trimEnd().split('\n');
  for (const line of lines) expect(line).toMatch(/^novix: \S/);
  expect(gateway.stderr()).not.toMatch(/^\s+at |Error:|PROVIDER|\[object/m);
  return lines.map((line) => line.slice('novix: '.length));
}

/** Addresses on which somebody listens on a port, as the kernel writes them. */
function listeners(port: string): string[] {
  const wanted = Number(port).toString(16).toUpperCase().padStart(4, '0');
  return ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((file) => readFileSync(file, 'utf8').split('\n')).map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => state === '0A' && local?.endsWith(`:${wanted}`)).map(([, local]) => local!.split(':')[0]!);
}

/** The imitated parts that the banner names, in its order, and the token and the curl line where there are any. */
async function banner(gateway: GatewayProcess): Promise<{ imitated: string[]; databaseUrl: string | undefined; token: string | undefined; curl: string | undefined }> {
  const text = await eventually(() => /SANDBOX: not for production[\s\S]*\n\n/.exec(gateway.stdout())?.[0]);
  return {
    imitated: [...text.matchAll(/^ {4}- ([^:(,]+?)(?: \(|,|:)/gm)].map(([, part]) => part!),
    databaseUrl: /postgresql:\S+/.exec(text)?.[0], token: /^eyJ\S+$/m.exec(text)?.[0], curl: /^curl .*$/m.exec(text)?.[0],
  };
}

async function tenantsIn(databaseUrl: string): Promise<string[]> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  const { rows } = await client.query<{ id: string }>('SELECT id FROM tenants ORDER BY id');
  await client.end();
  return rows.map(({ id }) => id);
}

async function callWith(gateway: GatewayProcess, token: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO, max_tokens: 20 }),
  });
  return { status: response.status, text: await response.text() };
}

describe('outside production', () => {
  it('with all parts given: no sandbox, no banner, and calls go to the given provider', async () => {
    const gateway = await start(environment(['database', 'provider', 'identity']));
    expect(gateway.stdout()).not.toContain('SANDBOX');
    expect((await callWith(gateway, await rig.token())).status).toBe(200);
    expect(rig.emulator.calls.at(-1)!.headers).toMatchObject({ authorization: `Bearer ${PROVIDER_KEY}` });
    expect(await tenantsIn(rig.databaseUrl)).toEqual(['acme', 'platform']); // no demo tenants
    await stop(gateway);
  });

  // In the order of what a later start would find in the shared data folder: the demo tenants come last.
  it('with identity alone given: PostgreSQL and the xAI API are imitated, no token is printed, and no demo tenants are made', async () => {
    const gateway = await start(environment(['identity']));
    const { imitated, databaseUrl, token, curl } = await banner(gateway);
    expect({ imitated, token, curl }).toEqual({ imitated: ['PostgreSQL', 'xAI API'], token: undefined, curl: undefined });
    expect(await tenantsIn(databaseUrl!)).toEqual(['platform']);
    expect(listeners(new URL(gateway.url).port)).toEqual(['0100007F']);
    await stop(gateway);
  });

  it('without a database: PostgreSQL alone is imitated', async () => {
    const gateway = await start(environment(['provider', 'identity']));
    expect(await banner(gateway)).toMatchObject({ imitated: ['PostgreSQL'], token: undefined });
    await stop(gateway);
  });

  it('without a provider key: the xAI API alone is imitated, and answers', async () => {
    const gateway = await start(environment(['database', 'identity']));
    expect((await banner(gateway)).imitated).toEqual(['xAI API']);
    const before = rig.emulator.calls.length;
    expect((await callWith(gateway, await rig.token())).status).toBe(200);
    expect(rig.emulator.calls).toHaveLength(before);
    await stop(gateway);
  });

  it('with the database alone given: the xAI API and the identity provider are imitated, with demo tenants', async () => {
    const gateway = await start(environment(['database']));
    const { imitated, token } = await banner(gateway);
    expect(imitated).toEqual(['xAI API', 'identity provider']);
    expect(await tenantsIn(rig.databaseUrl)).toEqual(['acme', 'globex', 'initech', 'platform']);
    expect((await callWith(gateway, token!)).status).toBe(200);
    await stop(gateway);
  });

  it('with nothing given: all is imitated on loopback, and the printed curl line works as it stands', async () => {
    const gateway = await start(environment([]));
    const { imitated, token, curl } = await banner(gateway);
    expect(imitated).toEqual(['PostgreSQL', 'xAI API', 'identity provider']);
    expect(gateway.stdout()).toContain('/dashboard');
    expect(gateway.stdout().match(/SANDBOX/g)).not.toBeNull();
    expect(curl).toContain(token!);
    const [, url, headers, body] = /^curl -N (\S+)((?: -H '[^']*')+) -d '([^']*)'$/.exec(curl!)!;
    const response = await fetch(url!, { method: 'POST', body: body!, headers: Object.fromEntries([...headers!.matchAll(/-H '([^:]+): ([^']*)'/g)].map(([, name, value]) => [name!, value!])) });
    expect(await response.text()).toContain('data: [DONE]');
    expect(listeners(new URL(gateway.url).port)).toEqual(['0100007F']);
    process.stdout.write(`figure: start of the whole sandbox to ready ${Math.round(gateway.readyMs)} ms\n`);
    await stop(gateway);
  });

  it.each<[string, Part[]]>([['with the provider alone given', ['provider']], ['without an identity provider', ['database', 'provider']]])(
    '%s: refused, since the sandbox’s issuer would let anyone spend real money', async (_, parts) => {
      expect(await refusal(environment(parts))).toEqual([expect.stringMatching(/^AUTH_ISSUER: .*SANDBOX_ISSUER=yes/)]);
    });

  it('nothing but SANDBOX_ISSUER=yes on loopback changes that', async () => {
    const [otherWord, otherHost] = await Promise.all(([{ SANDBOX_ISSUER: 'true' }, { SANDBOX_ISSUER: 'yes', HOST: '0.0.0.0' }] as Record<string, string>[]).map((more) => refusal(environment(['database', 'provider'], more))));
    expect(otherWord).toEqual([expect.stringMatching(/^AUTH_ISSUER: /)]);
    expect(otherHost!.join()).toContain('HOST');
  });

  it('without an identity provider, but with SANDBOX_ISSUER=yes on loopback: starts, and says that calls cost money', async () => {
    const gateway = await start(environment(['database', 'provider'], { SANDBOX_ISSUER: 'yes', HOST: '127.0.0.1' }));
    expect((await banner(gateway)).imitated).toEqual(['identity provider']);
    expect(gateway.stdout()).toContain('costs money');
    await stop(gateway);
  });

  it.each<[string, Part[]]>([['and everything else', ['database', 'identity']]])('an endpoint without a key, %s: refused', async (_, parts) => {
    expect(await refusal(environment(parts, { XAI_API_ENDPOINT: 'https://api.x.ai/v1' }))).toEqual([expect.stringMatching(/^XAI_API_KEY: missing/)]);
  });

  it.each<[string, Part[]]>([['a database', ['provider', 'identity']], ['anything', []]])('without %s, on an address that others can reach: refused', async (_, parts) => {
    expect(await refusal(environment(parts, { HOST: '0.0.0.0' }))).toEqual([expect.stringMatching(/^HOST: .*loopback/)]);
  });
});

describe('in production', () => {
  const MISSING: Record<Part, RegExp> = { database: /^DATABASE_URL: required/, provider: /^XAI_API_KEY: required/, identity: /^AUTH_ISSUER.*: required/ };
  const parts: Part[] = ['database', 'provider', 'identity'];

  it('with all parts given: starts, on all addresses, without a word of a sandbox', async () => {
    const gateway = await start(environment(parts, { NODE_ENV: 'production' }));
    expect(gateway.stdout()).not.toContain('SANDBOX');
    expect(listeners(new URL(gateway.url).port)).toEqual(['00000000']);
    await stop(gateway);
  });

  it.each(parts)('without its %s: refused', async (part) => {
    expect(await refusal(environment(parts.filter((one) => one !== part), { NODE_ENV: 'production' }))).toEqual([expect.stringMatching(MISSING[part])]);
  });

  it('without anything: refused with a line for each, and SANDBOX_ISSUER=yes does not help', async () => {
    expect(await refusal(environment([], { NODE_ENV: 'production', SANDBOX_ISSUER: 'yes' }))).toEqual(parts.map((part) => expect.stringMatching(MISSING[part])));
  });
});

describe('a start', () => {
  it('names every fault of the settings at once, a line each, and repeats no value that may be secret', async () => {
    const secret = 'hunter2hunter2';
    const lines = await refusal(environment(['identity'], {
      XAI_API_KEYS: secret, DATABASE_URL: `mysql://root:${secret}@db/x`, XAI_MAX_TOKENS: 'many', XAI_API_ENDPOINT: `http://user:${secret}@api.example/v1`, LOG_LEVEL: 'loud', PORT: '70000',
    }));
    expect(lines.map((line) => line.split(':')[0]!).toSorted((a, b) => a.localeCompare(b))).toEqual(['DATABASE_URL', 'LOG_LEVEL', 'PORT', 'XAI_API_ENDPOINT', 'XAI_API_KEY', 'XAI_API_KEYS', 'XAI_MAX_TOKENS']);
    expect(lines.find((line) => line.startsWith('XAI_API_KEYS'))).toContain('did you mean XAI_API_KEY?');
    expect(lines.join()).not.toContain(secret);
  });

  it.each<[string, Record<string, string>, RegExp]>([
    ['a PostgreSQL that nobody serves', { DATABASE_URL: 'postgresql://user:topsecret@127.0.0.1:1/db' }, /127\.0\.0\.1:1|ECONNREFUSED/],
    ['a database that does not exist', { DATABASE_URL: '(the test’s own server)' }, /does not exist/],
    ['a model that config/models.yaml does not know', { XAI_MODEL: 'grok-17' }, /^XAI_MODEL: .*grok-17/],
    ['a key file that is not there', { AUTH_JWKS_URI: '', AUTH_JWKS_FILE: '/nowhere/jwks.json' }, /\/nowhere\/jwks\.json/],
  ])('with %s: refused in one line', async (_, env, expected) => {
    const url = new URL(rig.databaseUrl);
    url.pathname = '/no_such_database';
    const resolved = env['DATABASE_URL']?.startsWith('(') ? { DATABASE_URL: url.href } : env;
    const lines = await refusal(environment(['database', 'provider', 'identity'], resolved));
    expect(lines).toEqual([expect.stringMatching(expected)]);
    expect(lines.join()).not.toMatch(/topsecret/);
  });

  it('on a port that is taken: refused in one line that names the port', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as AddressInfo;
    const lines = await refusal(environment(['database', 'provider', 'identity'], { PORT: String(port) }));
    expect(lines).toEqual([expect.stringContaining(String(port))]);
    await new Promise((resolve) => taken.close(resolve));
  });

  it('reads .env of its folder, with ${VAR} expanded', async () => {
    const cwd = join(rig.dir, 'with-dot-env');
    await mkdir(cwd);
    await writeFile(join(cwd, '.env'), `XAI_API_KEY=\${THE_KEY}\nXAI_API_ENDPOINT=${rig.emulator.url}\nAI_PROVIDER=xai\n`);
    const { XAI_API_KEY: _, XAI_API_ENDPOINT: __, ...env } = environment(['database', 'provider', 'identity'], { THE_KEY: PROVIDER_KEY });
    const gateway = await startGatewayProcess({ env, cwd });
    expect((await callWith(gateway, await rig.token())).status).toBe(200);
    expect(rig.emulator.calls.at(-1)!.headers).toMatchObject({ authorization: `Bearer ${PROVIDER_KEY}` });
    await stop(gateway);
  });
});
