import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LocalSeal } from '../src/secrets/local-seal.ts';
import { PACKAGE_ROOT } from '../src/shared/config-files.ts';
import { FakeVault, TRANSIT_KEY } from './secrets/fake-vault.ts';

// `novix secret seal|open` as it is built (`npm run build`), in processes of its own. Every value is a canary.

const NOVIX = join(PACKAGE_ROOT, 'dist/src/novix.js');
const NAME = 'deployment/xai-us-1/api_key';
const VALUE = 'xai-canary-value-6c0d9e';
const SEALED = /^v1:local:[A-Za-z0-9_-]{60,}\n$/;

let folder: string;
let env: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'novix-test-secret-'));
  await writeFile(join(folder, 'key'), `${randomBytes(32).toString('base64')}\n`);
  env = { NOVIX_KEY_FILE: join(folder, 'key'), NOVIX_DATA_DIR: join(folder, 'data') };
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

interface Run {
  code: number | null;
  stdout: string;
  stderr: string;
}

function secret(args: readonly string[], input: string | Buffer, more: Record<string, string> = {}): Promise<Run> {
  const child = spawn(process.execPath, [NOVIX, 'secret', ...args], { cwd: folder, env: { PATH: process.env['PATH'], ...env, ...more } });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => {}); // one that ends before it has read
  child.stdin.end(input);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** What stands after `enc:`. */
async function sealed(value = VALUE, name = NAME): Promise<string> {
  const { code, stdout, stderr } = await secret(['seal', '--name', name], value);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout.trimEnd();
}

/** The one clear line with which a run has ended that printed nothing else, and nothing secret. */
function refusalOf({ code, stdout, stderr }: Run): string {
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^novix: [^\n]+\n$/);
  expect(stderr).not.toContain(VALUE);
  expect(stderr).not.toContain(Buffer.from(VALUE).toString('base64').slice(0, -4));
  return stderr;
}

describe('novix secret', () => {
  it('seals what stands on standard input, and opens it again', async () => {
    const { code, stdout, stderr } = await secret(['seal', '--name', NAME, '--provider', 'local'], `${VALUE}\n`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(SEALED);
    expect(stdout).not.toContain(VALUE);
    expect(Buffer.from(stdout.slice('v1:local:'.length), 'base64url').toString('latin1')).not.toContain(VALUE);
    expect(await secret(['open', '--name', NAME], stdout)).toEqual({ code: 0, stdout: `${VALUE}\n`, stderr: '' });
  });

  it('opens it with "enc:" before it and with a line end of Windows behind, too', async () => {
    const text = await sealed();
    for (const given of [`enc:${text}`, `${text}\r\n`, `enc:${text}\n`]) expect((await secret(['open', '--name', NAME], given)).stdout).toBe(`${VALUE}\n`);
  });

  it('prints JSON where asked to', async () => {
    const seal = JSON.parse((await secret(['seal', '--name', NAME, '--json'], VALUE)).stdout) as { name: string; sealed: string };
    expect(seal).toEqual({ name: NAME, sealed: expect.stringMatching(/^v1:local:/) });
    expect(JSON.parse((await secret(['open', '--name', NAME, '--json'], seal.sealed)).stdout)).toEqual({ name: NAME, value: VALUE });
  });

  it('seals the same differently each time, so that nobody sees that it is the same', async () => {
    expect(await sealed()).not.toBe(await sealed());
  });

  it.each([['spaces within and around', '  a b  '], ['letters of all the world', 'Grüße, 世界 🚀'], ['what looks sealed', 'enc:v1:local:abc'], ['quotes and backslashes', '"\\n\'$HOME`'], ['4,000 characters', 'x'.repeat(4_000)]])('keeps %s as it is', async (_, value) => {
    expect((await secret(['open', '--name', NAME], await sealed(value))).stdout).toBe(`${value}\n`);
  });

  it('seals what the gateway opens, under that name', async () => {
    const seal = LocalSeal.open(env['NOVIX_KEY_FILE']!, false);
    expect(seal.open(NAME, `enc:${await sealed()}`)).toBe(VALUE);
    expect((await secret(['open', '--name', NAME], seal.seal(NAME, VALUE))).stdout).toBe(`${VALUE}\n`);
  });

  it.each([
    ['another deployment', 'deployment/xai-us-2/api_key'], ['another use', 'deployment/xai-us-1/tls_key'], ['a variable', 'XAI_API_KEY'], ['a name in capitals', NAME.toUpperCase()], ['a name with a space behind', `${NAME} `],
  ])('does not open for %s', async (_, name) => {
    expect(refusalOf(await secret(['open', '--name', name], await sealed()))).toMatch(/cannot be opened/);
  });

  it('does not open with another key', async () => {
    await writeFile(join(folder, 'other-key'), `${randomBytes(32).toString('base64')}\n`);
    expect(refusalOf(await secret(['open', '--name', NAME], await sealed(), { NOVIX_KEY_FILE: join(folder, 'other-key') }))).toMatch(/cannot be opened/);
  });

  it.each<[string, (text: string) => string]>([
    ['one bit is another', (text) => flipped(text, 20)], ['its end is another', (text) => flipped(text, -1)], ['its beginning is another', (text) => flipped(text, 0)], ['it is cut', (text) => text.slice(0, -6)],
    ['it is cut short', () => 'v1:local:AAAA'], ['it is longer', (text) => `${text}AAAA`], ['it is of another provider', (text) => text.replace('local', 'vault')], ['it is of another version', (text) => text.replace('v1', 'v2')], ['it is a plain value', () => VALUE],
  ])('does not open when %s', async (_, damage) => {
    expect(refusalOf(await secret(['open', '--name', NAME], damage(await sealed())))).toMatch(/cannot be opened/);
  });

  it.each([['nothing', ''], ['an empty line', '\n'], ['two lines', `${VALUE}\nmore\n`], ['a carriage return within', `${VALUE}\rmore`]])('does not take %s', async (_, input) => {
    for (const command of ['seal', 'open']) expect(refusalOf(await secret([command, '--name', NAME], input))).toMatch(/standard input/);
  });

  it.each([
    [['seal'], /--name/], [['open'], /--name/], [['seal', '--name', NAME, '--provider', 'rot13'], /--provider/], [['seal', '--name', NAME, 'more'], /on standard input, not as an argument/], [['shred', '--name', NAME], /shred/],
  ] as [string[], RegExp][])('%j ends with status 1 and one clear line', async (args, line) => {
    const { code, stdout, stderr } = await secret(args, VALUE);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(line);
    expect(stderr).not.toContain(VALUE);
  });

  it('says in one line that there is no key file, or that it holds no key', async () => {
    expect(refusalOf(await secret(['seal', '--name', NAME], VALUE, { NOVIX_KEY_FILE: join(folder, 'nowhere') }))).toMatch(/nowhere/);
    expect(existsSync(join(folder, 'nowhere'))).toBe(false);
    await writeFile(join(folder, 'short-key'), randomBytes(16).toString('base64'));
    expect(refusalOf(await secret(['seal', '--name', NAME], VALUE, { NOVIX_KEY_FILE: join(folder, 'short-key') }))).toMatch(/NOVIX_KEY_FILE: expected 32 bytes/);
  });

  it('makes a key of its own where none is named, for its owner alone, and the same for all', async () => {
    const own = { NOVIX_KEY_FILE: '' };
    const runs = [await secret(['seal', '--name', NAME], VALUE, own), await secret(['seal', '--name', NAME], VALUE, own)];
    expect(runs.map(({ code }) => code)).toEqual([0, 0]);
    for (const { stdout } of runs) expect((await secret(['open', '--name', NAME], stdout, own)).stdout).toBe(`${VALUE}\n`);
    const file = join(env['NOVIX_DATA_DIR']!, 'secret.key');
    expect(((await stat(file)).mode & 0o777).toString(8)).toBe('600');
    expect(Buffer.from(await readFile(file, 'utf8'), 'base64')).toHaveLength(32);
  });

  it('makes none in production', async () => {
    const data = join(folder, 'production');
    const production = { NODE_ENV: 'production', NOVIX_KEY_FILE: '', NOVIX_DATA_DIR: data, DATABASE_URL: 'postgresql://127.0.0.1:1/x', XAI_API_KEY: 'k', AUTH_ISSUER: 'https://i.example', AUTH_AUDIENCE: 'a', AUTH_JWKS_URI: 'https://i.example/jwks' };
    expect(refusalOf(await secret(['seal', '--name', NAME], VALUE, production))).toMatch(/NOVIX_KEY_FILE: required in production/);
    expect(existsSync(data)).toBe(false);
  });
});

describe('novix secret with age', () => {
  it('makes an identity, seals with it and opens again; where it is set, it needs no naming', async () => {
    const file = join(folder, 'identity');
    const made = await secret(['age-identity', '--out', file], '');
    expect(made).toMatchObject({ code: 0, stderr: '' });
    expect(made.stdout).toMatch(/\nage1pq1[0-9a-z]+\n$/);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(made.stdout).not.toContain((await readFile(file, 'utf8')).split('\n')[1]!.slice(20));
    const age = { AGE_IDENTITY_FILE: file };
    for (const args of [['--provider', 'age'], []]) {
      const { code, stdout, stderr } = await secret(['seal', '--name', NAME, ...args], VALUE, age);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^v1:age:[\w-]+\n$/);
      expect(await secret(['open', '--name', NAME], stdout, age)).toEqual({ code: 0, stdout: `${VALUE}\n`, stderr: '' });
      expect(refusalOf(await secret(['open', '--name', 'XAI_API_KEY'], stdout, age))).toMatch(/XAI_API_KEY: cannot be opened/);
      expect(refusalOf(await secret(['open', '--name', NAME], stdout))).toMatch(/cannot be opened: AGE_IDENTITY_FILE is not set/);
    }
  });

  it('writes over no identity, and says where it cannot write', async () => {
    const file = join(folder, 'kept');
    await writeFile(file, 'kept');
    expect(refusalOf(await secret(['age-identity', '--out', file], ''))).toMatch(/is there already, and is not overwritten/);
    expect(await readFile(file, 'utf8')).toBe('kept');
    expect(refusalOf(await secret(['age-identity', '--out', join(folder, 'no/such/folder')], ''))).toMatch(/cannot be written/);
  });
});

describe('novix secret with Vault', () => {
  let vault: FakeVault;
  let settings: Record<string, string>;
  beforeAll(async () => {
    vault = await FakeVault.start();
    vault.addToken('hvs.command-canary');
    settings = { VAULT_ADDR: vault.url, VAULT_TRANSIT_KEY: TRANSIT_KEY, VAULT_TOKEN: 'hvs.command-canary' };
  });
  afterAll(() => vault.close());

  it('seals and opens, and ends at once; where it is set, it needs no naming', async () => {
    for (const args of [['--provider', 'vault'], []]) {
      const { code, stdout, stderr } = await secret(['seal', '--name', NAME, ...args], VALUE, settings);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^v1:vault:[\w-]+\n$/);
      expect(await secret(['open', '--name', NAME], stdout, settings)).toEqual({ code: 0, stdout: `${VALUE}\n`, stderr: '' });
      expect(refusalOf(await secret(['open', '--name', 'XAI_API_KEY'], stdout, settings))).toMatch(/XAI_API_KEY: cannot be opened/);
    }
  });

  it('opens what others sealed, though the default is another', async () => {
    expect((await secret(['open', '--name', NAME], await sealed(), settings)).stdout).toBe(`${VALUE}\n`);
  });

  it('seals before the setting that is to hold the key is any good', async () => {
    expect(await secret(['seal', '--name', 'XAI_API_KEY'], VALUE, { ...settings, XAI_API_KEY: 'enc:', XAI_API_ENDPOINT: 'https://api.x.ai/v1' })).toMatchObject({ code: 0, stderr: '' });
  });

  it('says in one line that Vault is sealed, that the token is not accepted, that settings are missing', async () => {
    vault.sealed = true;
    expect(refusalOf(await secret(['seal', '--name', NAME], VALUE, settings))).toMatch(/cannot be sealed now: Vault is sealed/);
    vault.sealed = false;
    const refused = refusalOf(await secret(['seal', '--name', NAME], VALUE, { ...settings, VAULT_TOKEN: 'hvs.wrong-canary' }));
    expect(refused).toMatch(/does not accept VAULT_TOKEN/);
    expect(refused).not.toContain('hvs.wrong-canary');
    expect(refusalOf(await secret(['seal', '--name', NAME, '--provider', 'vault'], VALUE))).toMatch(/cannot be sealed: VAULT_ADDR is not set/);
    expect(refusalOf(await secret(['seal', '--name', NAME], VALUE, { ...settings, VAULT_TRANSIT_KEY: '' }))).toMatch(/VAULT_TRANSIT_KEY: missing/);
  });
});

/** One letter of the base64 behind the prefix is another. */
function flipped(text: string, at: number): string {
  const letters = text.slice('v1:local:'.length).split('');
  const index = at < 0 ? letters.length + at : at;
  letters[index] = letters[index] === 'A' ? 'Q' : 'A';
  return `v1:local:${letters.join('')}`;
}
