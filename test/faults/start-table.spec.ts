import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { killEmbeddedPostgres } from '../../src/sandbox/embedded-postgres.ts';
import { spawnGateway, startGatewayProcess, startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';

// DESIGN 3.5, "What starts how": each cell with a process of its own. "Given" means real settings, that lead to parts in this process.

const READY_MOST_MS = 5_000;
const IN_ORDER = { code: 0, signal: null };

let rig: Rig;
let folder: string;
let given: Record<'database' | 'provider' | 'identity', Record<string, string>>;
beforeAll(async () => {
  rig = await startRig();
  folder = await mkdtemp(join(tmpdir(), 'novix-test-start-'));
  if (process.getuid?.() === 0) await chmod(folder, 0o755);
  const { DATABASE_URL, XAI_API_KEY, XAI_API_ENDPOINT, AUTH_ISSUER, AUTH_AUDIENCE, AUTH_JWKS_URI, AUTH_ALGORITHMS } = rig.env as Record<string, string>;
  given = {
    database: { DATABASE_URL: DATABASE_URL! },
    provider: { XAI_API_KEY: XAI_API_KEY!, XAI_API_ENDPOINT: XAI_API_ENDPOINT! },
    identity: { AUTH_ISSUER: AUTH_ISSUER!, AUTH_AUDIENCE: AUTH_AUDIENCE!, AUTH_JWKS_URI: AUTH_JWKS_URI!, AUTH_ALGORITHMS: AUTH_ALGORITHMS! },
  };
});
afterAll(async () => {
  await rig.close();
  killEmbeddedPostgres(join(folder, 'data/postgres'));
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
});

/** The settings of one cell; what is not given is not there at all. */
function settings(parts: readonly (keyof typeof given)[], more: Record<string, string> = {}): Record<string, string> {
  return Object.assign({ NOVIX_DATA_DIR: join(folder, 'data'), PORT: '0', DRAIN_DELAY_MS: '0' }, ...parts.map((part) => given[part]), more) as Record<string, string>;
}

async function start(env: Record<string, string>): Promise<GatewayProcess> {
  return startGatewayProcess({ cwd: folder, env });
}

async function stop(gateway: GatewayProcess): Promise<void> {
  gateway.kill('SIGTERM');
  expect(await gateway.exited).toEqual(IN_ORDER);
}

/** Starts what must not start; gives the lines it leaves. */
async function refusal(env: Record<string, string>): Promise<string[]> {
  const gateway = spawnGateway({ cwd: folder, env });
  expect(await gateway.exited).toEqual({ code: 1, signal: null });
  expect(gateway.stdout()).toBe('');
  return gateway.stderr().trimEnd().split('\n');
}

describe('in production', () => {
  const production = { NODE_ENV: 'production', HOST: '127.0.0.1' };

  it('starts without any sandbox when every part is given', async () => {
    const gateway = await start(settings(['database', 'provider', 'identity'], production));
    expect(gateway.readyMs).toBeLessThan(READY_MOST_MS);
    await stop(gateway);
    expect(gateway.stdout() + gateway.stderr()).not.toContain('SANDBOX');
  });

  it.each([
    [[], [/^novix: DATABASE_URL: required in production$/, /^novix: XAI_API_KEY: required in production$/, /^novix: AUTH_ISSUER, AUTH_AUDIENCE .* required in production$/]],
    [['provider', 'identity'], [/^novix: DATABASE_URL: required in production$/]],
    [['database', 'identity'], [/^novix: XAI_API_KEY: required in production$/]],
    [['database', 'provider'], [/^novix: AUTH_ISSUER, AUTH_AUDIENCE .* required in production$/]],
  ] as [(keyof typeof given)[], RegExp[]][])('refuses to start with %j alone, with one line per missing part', async (parts, lines) => {
    const said = await refusal(settings(parts, production));
    expect(said).toHaveLength(lines.length);
    for (const [at, line] of lines.entries()) expect(said[at]).toMatch(line);
  });

  it('does not let SANDBOX_ISSUER=yes stand in for an identity provider', async () => {
    const said = await refusal(settings(['database', 'provider'], { ...production, SANDBOX_ISSUER: 'yes' }));
    expect(said.join('\n')).toMatch(/AUTH_ISSUER.*required in production/);
  });
});

describe('outside production', () => {
  const imitations = { database: '- PostgreSQL', provider: '- xAI API', identity: '- identity provider' } as const;

  // The provider's key without an identity provider is a cell of its own, below.
  it.each([
    [['database', 'provider', 'identity'], []],
    [['database', 'identity'], ['provider']],
    [['database'], ['provider', 'identity']],
    [['provider', 'identity'], ['database']],
    [['identity'], ['database', 'provider']],
    [[], ['database', 'provider', 'identity']],
  ] as [(keyof typeof given)[], (keyof typeof given)[]][])('with %j given it imitates exactly %j, says so, and is ready within 5 s', async (parts, imitated) => {
    const gateway = await start(settings(parts));
    expect(gateway.readyMs).toBeLessThan(READY_MOST_MS);
    expect((await fetch(`${gateway.url}/readyz`)).status).toBe(200);
    expect(new URL(gateway.url).hostname).toBe('127.0.0.1');
    const own = imitated.includes('identity');
    if (imitated.length > 0) await eventually(() => gateway.stdout().includes(own ? '\ncurl -N ' : 'API docs'));
    await stop(gateway);
    const banner = gateway.stdout();
    expect(banner.includes('SANDBOX')).toBe(imitated.length > 0);
    for (const [part, line] of Object.entries(imitations)) expect([part, banner.includes(line)]).toEqual([part, imitated.includes(part as keyof typeof given)]);
    expect([banner.includes('authorization: Bearer'), banner.includes('tenants     acme')]).toEqual([own, own]);
  }, 30_000);

  it('makes no demo tenants beside an identity provider that is real', async () => {
    const { rows } = await rig.db.query<{ id: string }>("SELECT id FROM tenants WHERE id <> 'platform'");
    const gateway = await start(settings(['database', 'identity']));
    await stop(gateway);
    expect((await rig.db.query("SELECT id FROM tenants WHERE id <> 'platform'")).rows).toEqual(rows);
  });

  it.each([
    ['an endpoint without a key', ['database', 'identity'], { XAI_API_ENDPOINT: 'https://api.x.ai/v1' }, /^novix: XAI_API_KEY: missing/],
    ['a provider key with no identity provider', ['database', 'provider'], {}, /^novix: AUTH_ISSUER: missing/],
    ['a provider key with no identity provider, not even on loopback unless SANDBOX_ISSUER says yes', ['database', 'provider'], { HOST: '127.0.0.1', SANDBOX_ISSUER: 'no' }, /^novix: AUTH_ISSUER: missing/],
    ['a sandbox part on an address that others reach', ['database', 'identity'], { HOST: '0.0.0.0' }, /^novix: HOST: a process with sandbox parts listens on loopback only/],
    ['half an identity provider', ['database', 'provider'], { AUTH_ISSUER: 'https://issuer.example' }, /^novix: AUTH_AUDIENCE: missing/],
    ['a name of ours that is misspelled', ['database', 'provider', 'identity'], { XAI_TEMPERATUR: '0.5' }, /^novix: XAI_TEMPERATUR: unknown setting; did you mean XAI_TEMPERATURE\?$/],
    ['a value out of range', ['database', 'provider', 'identity'], { XAI_TEMPERATURE: '3' }, /^novix: XAI_TEMPERATURE: expected a number from 0 to 2$/],
    ['a default model that is not in the catalogue', ['database', 'provider', 'identity'], { XAI_MODEL: 'grok-none' }, /^novix: XAI_MODEL: .*grok-none/],
    ['a database that cannot be reached', ['provider', 'identity'], { DATABASE_URL: 'postgresql://novix:hush@127.0.0.1:1/novix' }, /^novix: .*ECONNREFUSED/],
  ] as [string, (keyof typeof given)[], Record<string, string>, RegExp][])('refuses to start with %s', async (_what, parts, more, line) => {
    const said = await refusal(settings(parts, more));
    expect(said[0]).toMatch(line);
    expect(said.filter((text) => !text.startsWith('novix: '))).toEqual([]); // clear lines only, no stack
    expect(said.join('\n')).not.toContain('hush');
  });

  it('takes SANDBOX_ISSUER=yes on loopback together with a real provider key, and says that calls cost money', async () => {
    const gateway = await start(settings(['database', 'provider'], { SANDBOX_ISSUER: 'yes' }));
    await eventually(() => gateway.stdout().includes('costs money'));
    await stop(gateway);
    expect(gateway.stdout()).toContain('SANDBOX');
  });

  it('refuses the same on an address that others reach, with one line for each fault', async () => {
    const said = await refusal(settings(['database', 'provider'], { SANDBOX_ISSUER: 'yes', HOST: '0.0.0.0' }));
    expect(said).toEqual([expect.stringMatching(/^novix: AUTH_ISSUER: missing/), expect.stringMatching(/^novix: HOST: /)]);
  });
});
