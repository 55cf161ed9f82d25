import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { generateX25519Identity } from 'age-encryption';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgeSeal, makeIdentityFile } from '../../src/secrets/age-seal.ts';
import { LocalSeal } from '../../src/secrets/local-seal.ts';
import { PACKAGE_ROOT } from '../../src/shared/config-files.ts';
import { USD } from '../support/calls.ts';
import { killAll, novix, spawnGateway, startGatewayProcess, startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually, HELLO, PROVIDER_KEY } from '../support/harness.ts';
import { FakeVault, TRANSIT_KEY } from './fake-vault.ts';

// How the built gateway starts with sealed secrets, and what it does while Vault does not open them: real processes, PostgreSQL and emulated xAI; Vault is
// the one of fake-vault.ts.

const NAME = 'XAI_API_KEY';
const TOKEN = 'hvs.canary-token-7e02';
const APPROLE = { VAULT_ROLE_ID: 'role-1', VAULT_SECRET_ID: 'canary-secret-id-19' };
/** What a replica takes at most to see that Vault is back. */
const RECOVERY_MS = 10_000;

let rig: Rig;
let vault: FakeVault;
let folder: string;
let identityFile: string;
let keyFile: string;
/** Settings without a key for the provider. */
let env: Record<string, string>;
let cwd: string;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', USD);
  folder = await mkdtemp(join(tmpdir(), 'secrets-start-'));
  [identityFile, keyFile] = [join(folder, 'identity'), join(folder, 'key')];
  await makeIdentityFile(identityFile);
  LocalSeal.open(keyFile, true);
});
afterAll(async () => {
  await rig.close();
  await rm(folder, { recursive: true });
});
beforeEach(async () => {
  vault = await FakeVault.start();
  vault.addToken(TOKEN);
  vault.appRole = { roleId: APPROLE.VAULT_ROLE_ID, secretId: APPROLE.VAULT_SECRET_ID };
  rig.emulator.reset();
  cwd = await mkdtemp(join(tmpdir(), 'secrets-cwd-'));
  const { XAI_API_KEY: _, ...rest } = rig.env;
  env = { ...rest, LOG_LEVEL: 'trace' };
});
afterEach(async () => {
  await killAll();
  await vault.close();
  await rm(cwd, { recursive: true });
});

const vaultEnv = (login: Record<string, string> = { VAULT_TOKEN: TOKEN }): Record<string, string> => ({ VAULT_ADDR: vault.url, VAULT_TRANSIT_KEY: TRANSIT_KEY, ...login });
const start = (more: Record<string, string>): Promise<GatewayProcess> => startGatewayProcess({ env: { ...env, ...more }, cwd });

async function complete(gateway: GatewayProcess): Promise<Response> {
  return fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${await rig.token()}`, 'content-type': 'application/json' }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO, max_tokens: 20 }),
  });
}

async function readiness(gateway: GatewayProcess): Promise<{ status: number; down: string[] }> {
  const response = await fetch(`${gateway.url}/readyz`);
  const { error } = (await response.json()) as { error: Record<string, unknown> };
  return { status: response.status, down: Object.keys(error) };
}

/** Live, not ready, and refusing without a word to the provider. */
async function expectLocked(gateway: GatewayProcess): Promise<void> {
  expect((await fetch(`${gateway.url}/livez`)).status).toBe(200);
  expect(await readiness(gateway)).toEqual({ status: 503, down: ['secrets'] });
  const response = await complete(gateway);
  expect(await response.json()).toMatchObject({ error: { code: 'provider_unavailable', type: 'api_error' } });
  expect([response.status, response.headers.get('retry-after'), response.headers.get('x-should-retry')]).toEqual([503, '5', null]);
  expect(rig.emulator.calls).toHaveLength(0);
}

async function expectServing(gateway: GatewayProcess): Promise<void> {
  expect(await readiness(gateway)).toEqual({ status: 200, down: [] });
  expect((await complete(gateway)).status).toBe(200);
  expect(rig.emulator.calls.at(-1)!.headers['authorization']).toBe(`Bearer ${PROVIDER_KEY}`);
}

/** Lines of the log about secrets. */
function said(gateway: GatewayProcess): string[] {
  return gateway.stdout().split('\n').filter((line) => line.includes('"msg":"secrets: ')).map((line) => (JSON.parse(line) as { level: string; msg: string })).map(({ level, msg }) => `${level} ${msg}`);
}

/** Stops it, so that its whole log is there, and looks for what must not be in it. */
async function stopAndSearch(gateway: GatewayProcess, ...more: string[]): Promise<void> {
  gateway.kill('SIGTERM');
  expect(await gateway.exited).toEqual({ code: 0, signal: null });
  const output = gateway.stdout() + gateway.stderr();
  expect(output).toContain('"msg":"stopped"');
  for (const secret of [PROVIDER_KEY, TOKEN, APPROLE.VAULT_SECRET_ID, ...more]) expect([secret, output.includes(secret)]).toEqual([secret, false]);
}

describe('the seed’s block, XAI_API_KEY=enc:${VAULT_SECRET}', () => {
  it.each<[string, () => Promise<{ sealed: string; more: Record<string, string> }>]>([
    ['local', async () => ({ sealed: LocalSeal.open(keyFile, false).seal(NAME, PROVIDER_KEY).slice('enc:'.length), more: { NOVIX_KEY_FILE: keyFile } })],
    ['age', async () => ({ sealed: (await (await AgeSeal.open(identityFile)).seal(NAME, PROVIDER_KEY)).slice('enc:'.length), more: { AGE_IDENTITY_FILE: identityFile } })],
    ['vault', async () => ({ sealed: vault.seal(NAME, PROVIDER_KEY), more: vaultEnv() })],
    ['vault, by AppRole', async () => ({ sealed: vault.seal(NAME, PROVIDER_KEY), more: vaultEnv(APPROLE) })],
  ])('starts with a secret that was sealed by %s, and calls with the key that it holds', async (_, make) => {
    const { sealed, more } = await make();
    await writeFile(join(cwd, '.env'), [`AI_PROVIDER=xai`, 'XAI_API_KEY=enc:${VAULT_SECRET}', ...Object.entries(more).map(([name, value]) => `${name}=${value}`), `VAULT_SECRET=${sealed}`].join('\n'));
    const gateway = await start({});
    expect(gateway.stdout()).not.toContain('SANDBOX');
    await expectServing(gateway);
    await stopAndSearch(gateway);
  });

  it('takes what "novix secret seal" prints, by every provider', async () => {
    for (const [provider, more] of [['local', { NOVIX_KEY_FILE: keyFile }], ['age', { AGE_IDENTITY_FILE: identityFile }], ['vault', vaultEnv(APPROLE)]] as [string, Record<string, string>][]) {
      const { stdout, stderr, code } = await sealedBy(provider, more);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(new RegExp(`^v1:${provider}:[\\w-]+\n$`));
      const gateway = await start({ ...more, XAI_API_KEY: `enc:${stdout.trim()}` });
      await expectServing(gateway);
      await stopAndSearch(gateway);
    }
  });
});

async function sealedBy(provider: string, more: Record<string, string>): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [join(PACKAGE_ROOT, 'dist/src/novix.js'), 'secret', 'seal', '--name', NAME, '--provider', provider], { cwd, env: { PATH: process.env['PATH'], ...more } });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (part: Buffer) => {
    stdout += part.toString();
  });
  child.stderr.on('data', (part: Buffer) => {
    stderr += part.toString();
  });
  child.stdin.end(PROVIDER_KEY);
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })));
}

describe('a Vault that does not open the key when the gateway starts', () => {
  let lastPort: number;
  it.each<[string, () => Promise<void>, () => Promise<void>, RegExp]>([
    ['is sealed', async () => {
      vault.sealed = true;
    }, async () => {
      vault.sealed = false;
    }, /^warn secrets: XAI_API_KEY: cannot be opened now: Vault is sealed; it is tried again until it opens$/],
    ['is not there', async () => {
      await vault.close();
    }, async () => {
      const before = vault;
      vault = await FakeVault.start(lastPort);
      vault.takeKeysOf(before);
      vault.addToken(TOKEN);
    }, /^warn secrets: XAI_API_KEY: cannot be opened now: Vault cannot be reached \(ECONNREFUSED\); it is tried again until it opens$/],
    ['does not accept the token', async () => {
      vault.revokeTokens();
    }, async () => {
      vault.addToken(TOKEN);
    }, /^warn secrets: XAI_API_KEY: cannot be opened now: Vault does not accept VAULT_TOKEN: [^;]+; it is tried again until it opens$/],
  ])('and %s: live, not ready, refuses calls, and serves by itself once it opens', async (_, away, back, line) => {
    const sealed = vault.seal(NAME, PROVIDER_KEY);
    lastPort = vault.port;
    const more = { ...vaultEnv(), XAI_API_KEY: `enc:${sealed}` };
    await away();
    const gateway = await start(more);
    await expectLocked(gateway);
    await eventually(() => said(gateway).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 1_500)); // several attempts, and still one line
    expect(said(gateway)).toEqual([expect.stringMatching(line)]);
    await expectLocked(gateway);
    await back();
    await eventually(async () => (await readiness(gateway)).status === 200, RECOVERY_MS);
    await expectServing(gateway);
    await stopAndSearch(gateway);
    expect(said(gateway).slice(1)).toEqual(['info secrets: nothing is waited for any more']);
  }, 40_000);

  it('and then refuses it for good: it stays out of service, says why, and lives', async () => {
    vault.sealed = true;
    const gateway = await start({ ...vaultEnv(), XAI_API_KEY: `enc:${vault.seal('OTHER_NAME', PROVIDER_KEY)}` });
    await expectLocked(gateway);
    vault.sealed = false;
    await eventually(() => said(gateway).some((line) => line.startsWith('error secrets: XAI_API_KEY: cannot be opened; it was sealed for another name')), RECOVERY_MS);
    expect(await readiness(gateway)).toEqual({ status: 503, down: ['secrets'] });
    expect((await complete(gateway)).status).toBe(503);
    expect(rig.emulator.calls).toHaveLength(0);
    await stopAndSearch(gateway);
  }, 40_000);

  it('keeps only the deployments out of service that need it, and takes them in later', async () => {
    vault.sealed = true;
    const definition = { model: 'grok-beta', base_url: rig.emulator.url, api_key: `enc:${vault.seal('deployment/late/api_key', PROVIDER_KEY)}`, weight: 1_000 };
    await rig.db.query("INSERT INTO deployments (id, definition) VALUES ('late', $1)", [definition]);
    try {
      const gateway = await start({ ...vaultEnv(), XAI_API_KEY: PROVIDER_KEY, EGRESS_ALLOW: new URL(rig.emulator.url).origin });
      expect(await readiness(gateway)).toEqual({ status: 200, down: [] });
      const by = async (): Promise<string | null> => (await complete(gateway)).headers.get('x-novix-deployment');
      for (let n = 0; n < 5; n++) expect(await by()).toBe('xai');
      vault.sealed = false;
      await eventually(async () => (await by()) === 'late', RECOVERY_MS);
      await stopAndSearch(gateway);
    } finally {
      await rig.db.query('DELETE FROM deployments');
    }
  }, 40_000);
});

describe('a key that will never open stops the start with one line', () => {
  const cases: [string, () => Promise<{ value: string; more: Record<string, string> }>, RegExp][] = [
    ['sealed by Vault for another name', async () => ({ value: vault.seal('deployment/a/api_key', PROVIDER_KEY), more: vaultEnv() }), /cannot be opened; it was sealed for another name/],
    ['sealed by Vault, and damaged', async () => ({ value: damaged(vault.seal(NAME, PROVIDER_KEY)), more: vaultEnv() }), /cannot be opened/],
    ['sealed by Vault with a version that it does not open any more', async () => {
      const value = vault.seal(NAME, PROVIDER_KEY);
      vault.rotate();
      vault.minDecryptionVersion = 2;
      return { value, more: vaultEnv() };
    }, /min_decryption_version.*seal it again/],
    ['sealed by Vault, where none is set', async () => ({ value: vault.seal(NAME, PROVIDER_KEY), more: {} }), /VAULT_ADDR/],
    ['sealed by age for another name', async () => ({ value: (await (await AgeSeal.open(identityFile)).seal('XAI_CLIENT_KEY', PROVIDER_KEY)).slice(4), more: { AGE_IDENTITY_FILE: identityFile } }), /cannot be opened; it was sealed for another name/],
    ['sealed by age, and damaged', async () => ({ value: damaged((await (await AgeSeal.open(identityFile)).seal(NAME, PROVIDER_KEY)).slice(4)), more: { AGE_IDENTITY_FILE: identityFile } }), /cannot be opened/],
    ['sealed by age, where no identity is set', async () => ({ value: 'v1:age:abcd', more: {} }), /AGE_IDENTITY_FILE/],
    ['sealed locally for another name', async () => ({ value: LocalSeal.open(keyFile, false).seal('OTHER', PROVIDER_KEY).slice(4), more: { NOVIX_KEY_FILE: keyFile } }), /cannot be opened; it was sealed for another name/],
    ['sealed locally, and damaged', async () => ({ value: damaged(LocalSeal.open(keyFile, false).seal(NAME, PROVIDER_KEY).slice(4)), more: { NOVIX_KEY_FILE: keyFile } }), /cannot be opened/],
    ['of an unknown provider', async () => ({ value: 'v1:kms:Y2FuYXJ5LXZhbHVl', more: {} }), /no sealed value/],
    ['plain behind enc:', async () => ({ value: PROVIDER_KEY, more: {} }), /no sealed value.*plain key does not belong there/],
    ['plain behind enc:v1:vault:', async () => ({ value: `v1:vault:${PROVIDER_KEY}`, more: vaultEnv() }), /cannot be opened/],
  ];
  it.each(cases)('%s', async (_, make, line) => {
    const { value, more } = await make();
    const gateway = spawnGateway({ env: { ...env, ...more, PORT: '0', XAI_API_KEY: `enc:${value}` }, cwd });
    expect(await gateway.exited).toEqual({ code: 1, signal: null });
    expect(gateway.stderr()).toMatch(/^novix: XAI_API_KEY: [^\n]+\n$/);
    expect(gateway.stderr()).toMatch(line);
    const tail = value.split(':').at(-1)!;
    for (const part of [PROVIDER_KEY, TOKEN, tail, tail.slice(0, 12), tail.slice(-12), 'Y2FuYXJ5']) expect([part, (gateway.stderr() + gateway.stdout()).includes(part)]).toEqual([part, false]);
    expect(rig.emulator.calls).toHaveLength(0);
  });

  it('and so does an identity file that is not post-quantum, even where nothing is sealed with it', async () => {
    const file = join(cwd, 'classic');
    const identity = await generateX25519Identity();
    await writeFile(file, identity);
    const gateway = spawnGateway({ env: { ...env, PORT: '0', XAI_API_KEY: PROVIDER_KEY, AGE_IDENTITY_FILE: file }, cwd });
    expect(await gateway.exited).toEqual({ code: 1, signal: null });
    expect(gateway.stderr()).toMatch(/^novix: AGE_IDENTITY_FILE: holds an X25519 identity, [^\n]+\n$/);
    expect(gateway.stderr()).not.toContain(identity.slice(16, 40));
  });

  it('which "novix config check" says too, of what needs no Vault', async () => {
    const check = (key: string, more: Record<string, string>): ReturnType<typeof novix> => novix(['config', 'check'], { env: { ...env, ...more, XAI_API_KEY: key }, cwd });
    expect(await check(`enc:${damaged(LocalSeal.open(keyFile, false).seal(NAME, PROVIDER_KEY).slice(4))}`, { NOVIX_KEY_FILE: keyFile })).toMatchObject({ code: 1, stderr: expect.stringMatching(/^novix: XAI_API_KEY: cannot be opened[^\n]+\n$/) });
    vault.sealed = true;
    expect((await check(`enc:${vault.seal(NAME, PROVIDER_KEY)}`, vaultEnv())).code).toBe(0);
    expect(vault.calls).toEqual([]);
  });
});

/** One letter in the last third is another. */
function damaged(sealed: string): string {
  const at = sealed.length - 20;
  return `${sealed.slice(0, at)}${sealed[at] === 'A' ? 'B' : 'A'}${sealed.slice(at + 1)}`;
}
