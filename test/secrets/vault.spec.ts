import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseSecretSettings } from '../../src/secrets/secret-settings.ts';
import { SecretUnavailable } from '../../src/secrets/secret-provider.ts';
import { Secrets } from '../../src/secrets/secrets.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { eventually } from '../support/harness.ts';
import { FakeVault, TRANSIT_KEY } from './fake-vault.ts';

// `src/secrets` against a Vault over real HTTP; see fake-vault.ts for what it is and is not.

const NAME = 'XAI_API_KEY';
const VALUE = 'xai-canary-vault-41f7';
const STATIC = { VAULT_TOKEN: 'hvs.operator-token' };
const APPROLE = { VAULT_ROLE_ID: 'role-1', VAULT_SECRET_ID: 'canary-secret-id' };

let vault: FakeVault;
let open: Secrets[];
let notices: string[];
let hidden: string[];
beforeEach(async () => {
  vault = await FakeVault.start();
  vault.addToken(STATIC.VAULT_TOKEN);
  vault.appRole = { roleId: APPROLE.VAULT_ROLE_ID, secretId: APPROLE.VAULT_SECRET_ID };
  [open, notices, hidden] = [[], [], []];
});
afterEach(async () => {
  await Promise.all(open.map((secrets) => secrets.close()));
  await vault.close();
});

function secretsWith(env: Record<string, string>): Secrets {
  const all: Record<string, string> = { VAULT_ADDR: vault.url, VAULT_TRANSIT_KEY: TRANSIT_KEY, ...env };
  const faults: string[] = [];
  const settings = parseSecretSettings((name) => all[name], faults);
  expect(faults).toEqual([]);
  const secrets = new Secrets(settings, { clock: systemClock, random: () => 0.5, onSecret: (value) => void hidden.push(value), onNotice: (text) => void notices.push(text) });
  open.push(secrets);
  return secrets;
}

/** The one line with which it fails, without anything secret in it. */
async function lineOf(doing: Promise<unknown>): Promise<{ line: string; later: boolean }> {
  const error = await doing.then(() => new Error('it did not fail'), (reason: unknown) => reason as Error);
  for (const secret of [VALUE, ...Object.values(STATIC), APPROLE.VAULT_SECRET_ID]) expect(error.message).not.toContain(secret);
  expect(error.message).not.toContain('\n');
  return { line: error.message, later: error instanceof SecretUnavailable };
}

describe('transit', () => {
  it('seals and opens, bound to the name, with the token and the namespace in headers', async () => {
    const secrets = secretsWith({ ...STATIC, VAULT_NAMESPACE: 'admin/novix' });
    const sealed = await secrets.seal(NAME, VALUE);
    expect(sealed).toMatch(/^enc:v1:vault:[\w-]+$/);
    expect(Buffer.from(sealed.slice('enc:v1:vault:'.length), 'base64url').toString()).toMatch(/^vault:v1:/);
    expect(await secrets.open(NAME, sealed)).toBe(VALUE);
    expect(vault.callsOf(`transit/decrypt/${TRANSIT_KEY}`)).toEqual([{ method: 'POST', path: `transit/decrypt/${TRANSIT_KEY}`, token: STATIC.VAULT_TOKEN, namespace: 'admin/novix', status: 200 }]);
    expect(hidden).toEqual(expect.arrayContaining([VALUE, STATIC.VAULT_TOKEN]));
  });

  it('opens what an operator sealed with the command line of Vault', async () => {
    expect(await secretsWith(STATIC).open(NAME, `enc:${vault.seal(NAME, VALUE)}`)).toBe(VALUE);
  });

  it('opens old and new after the key was rotated, and seals with the new one', async () => {
    const secrets = secretsWith(STATIC);
    const old = await secrets.seal(NAME, VALUE);
    vault.rotate();
    const now = await secrets.seal(NAME, VALUE);
    expect(Buffer.from(now.slice('enc:v1:vault:'.length), 'base64url').toString()).toMatch(/^vault:v2:/);
    expect([await secrets.open(NAME, old), await secrets.open(NAME, now)]).toEqual([VALUE, VALUE]);
    vault.minDecryptionVersion = 2;
    expect(await secrets.open(NAME, now)).toBe(VALUE);
    expect(await lineOf(secrets.open(NAME, old))).toEqual({ line: expect.stringMatching(/^XAI_API_KEY: .*min_decryption_version.*seal it again$/), later: false });
  });

  it.each<[string, (sealed: string) => [string, string]]>([
    ['under another name', (sealed) => ['deployment/a/api_key', sealed]],
    ['with one letter changed', (sealed) => [NAME, `${sealed.slice(0, -12)}${sealed.at(-12) === 'A' ? 'B' : 'A'}${sealed.slice(-11)}`]],
    ['cut', (sealed) => [NAME, sealed.slice(0, -20)]],
    ['that is a plain value', () => [NAME, `enc:v1:vault:${Buffer.from(VALUE).toString('base64url')}`]],
    ['that is a plain value, bare', () => [NAME, `enc:v1:vault:${VALUE}`]],
    ['of an unknown provider', (sealed) => [NAME, sealed.replace('vault', 'kms')]],
    ['of a version to come', (sealed) => [NAME, sealed.replace('v1', 'v2')]],
  ])('opens nothing %s, for good, in one line', async (_, change) => {
    const secrets = secretsWith(STATIC);
    const [name, sealed] = change(await secrets.seal(NAME, VALUE));
    expect(await lineOf(secrets.open(name, sealed))).toEqual({ line: expect.stringMatching(new RegExp(`^${name}: cannot be opened`)), later: false });
  });

  it('sends nothing to Vault that has never been Vault’s', async () => {
    await lineOf(secretsWith(STATIC).open(NAME, `enc:v1:vault:${Buffer.from(VALUE).toString('base64url')}`));
    expect(vault.calls).toEqual([]);
  });

  it('says that there is no such key', async () => {
    expect(await lineOf(secretsWith({ ...STATIC, VAULT_TRANSIT_KEY: 'other' }).seal(NAME, VALUE))).toEqual({ line: expect.stringMatching(/VAULT_TRANSIT_KEY/), later: false });
  });
});

describe('a Vault that does not serve', () => {
  it('is tried again while it is sealed, and the secret opens once it is not', async () => {
    const secrets = secretsWith(STATIC);
    const sealed = `enc:${vault.seal(NAME, VALUE)}`;
    vault.sealed = true;
    expect(await lineOf(secrets.open(NAME, sealed))).toEqual({ line: 'XAI_API_KEY: cannot be opened now: Vault is sealed', later: true });
    expect(vault.callsOf(`transit/decrypt/${TRANSIT_KEY}`).length).toBe(3);
    const opening = secrets.open(NAME, sealed);
    await eventually(() => vault.callsOf(`transit/decrypt/${TRANSIT_KEY}`).length > 3);
    vault.sealed = false;
    expect(await opening).toBe(VALUE);
  });

  it('is given up in time where it is not there, or does not answer', async () => {
    const secrets = secretsWith(STATIC);
    vault.silent = true;
    const startedMs = performance.now();
    expect(await lineOf(secrets.open(NAME, `enc:${vault.seal(NAME, VALUE)}`))).toEqual({ line: expect.stringMatching(/no answer in time/), later: true });
    expect(performance.now() - startedMs).toBeLessThan(10_000);
    vault.silent = false;
    await vault.close();
    expect(await lineOf(secrets.open(NAME, `enc:${vault.seal(NAME, VALUE)}`))).toEqual({ line: expect.stringMatching(/ECONNREFUSED/), later: true });
    vault = await FakeVault.start();
  }, 20_000);

  it('leads nowhere else: a redirect is not followed, and the token stays here', async () => {
    const seen: unknown[] = [];
    const elsewhere = createServer((request, response) => {
      seen.push(request.headers);
      response.end('{}');
    }).listen(0, '127.0.0.1');
    await eventually(() => elsewhere.listening);
    vault.redirectTo = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/v1/`;
    expect(await lineOf(secretsWith(STATIC).seal(NAME, VALUE))).toEqual({ line: expect.stringMatching(/redirects are not followed/), later: true });
    expect(seen).toEqual([]);
    elsewhere.close();
  });
});

describe('a token', () => {
  it('of AppRole is got by one login for all who wait, and got again when it is not accepted any more', async () => {
    const secrets = secretsWith(APPROLE);
    const sealed = `enc:${vault.seal(NAME, VALUE)}`;
    await Promise.all(Array.from({ length: 5 }, () => secrets.open(NAME, sealed)));
    expect(vault.callsOf('auth/approle/login')).toHaveLength(1);
    vault.revokeTokens();
    expect(await secrets.open(NAME, sealed)).toBe(VALUE);
    expect(vault.callsOf('auth/approle/login')).toHaveLength(2);
    expect(vault.calls.filter(({ status }) => status === 403)).toHaveLength(1);
    expect(hidden.filter((value) => value.startsWith('hvs.fake-'))).toHaveLength(2);
  });

  it('of Kubernetes is got with the service account’s token as it is at that time', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'secrets-k8s-'));
    const file = join(folder, 'token');
    await writeFile(file, 'jwt-one\n');
    vault.kubernetes = { role: 'novix', jwt: 'jwt-one' };
    const secrets = secretsWith({ VAULT_K8S_ROLE: 'novix', VAULT_K8S_JWT_FILE: file });
    const sealed = await secrets.seal(NAME, VALUE);
    vault.kubernetes = { role: 'novix', jwt: 'jwt-two' };
    vault.revokeTokens();
    expect(await lineOf(secrets.open(NAME, sealed))).toEqual({ line: expect.stringMatching(/refuses the login \(VAULT_K8S_ROLE/), later: true });
    await writeFile(file, 'jwt-two\n');
    expect(await secrets.open(NAME, sealed)).toBe(VALUE);
    await rm(file);
    vault.revokeTokens();
    expect(await lineOf(secrets.open(NAME, sealed))).toEqual({ line: expect.stringMatching(/VAULT_K8S_JWT_FILE/), later: true });
    await rm(folder, { recursive: true });
  });

  it('is renewed before its lease ends, and goes on without another login', async () => {
    vault.lease = { seconds: 3, renewable: true, maxSeconds: 1_000 }; // shorter ones end before a busy machine gets to renew them
    const secrets = secretsWith(APPROLE);
    const sealed = await secrets.seal(NAME, VALUE);
    await eventually(() => vault.callsOf('auth/token/renew-self').filter(({ status }) => status === 200).length >= 2, 15_000);
    expect(await secrets.open(NAME, sealed)).toBe(VALUE);
    expect(vault.callsOf('auth/approle/login')).toHaveLength(1);
    expect(vault.calls.filter(({ status }) => status !== 200)).toEqual([]);
  });

  it.each<[string, (vault: FakeVault) => void]>([
    ['cannot be renewed', (one) => {
      one.lease = { seconds: 1, renewable: false, maxSeconds: 1_000 };
    }],
    ['is refused the renewal', (one) => {
      one.lease = { seconds: 1, renewable: true, maxSeconds: 1_000 };
      one.refusesRenewals = true;
    }],
    ['has reached the end of its life', (one) => {
      one.lease = { seconds: 2, renewable: true, maxSeconds: 2 };
    }],
  ])('that %s is replaced by a login, before anybody is refused', async (_, prepare) => {
    prepare(vault);
    const secrets = secretsWith(APPROLE);
    const sealed = await secrets.seal(NAME, VALUE);
    await eventually(() => vault.callsOf('auth/approle/login').length >= 2);
    expect(await secrets.open(NAME, sealed)).toBe(VALUE);
    expect(vault.callsOf(`transit/decrypt/${TRANSIT_KEY}`).map(({ status }) => status)).toEqual([200]);
  });

  it('whose renewal Vault could not take is renewed when it can', async () => {
    vault.lease = { seconds: 3, renewable: true, maxSeconds: 1_000 };
    const secrets = secretsWith(APPROLE);
    await secrets.seal(NAME, VALUE);
    vault.sealed = true;
    await eventually(() => vault.callsOf('auth/token/renew-self').length === 1, 10_000);
    expect(notices).toEqual([expect.stringMatching(/lease .* not renewed yet: Vault is sealed/)]);
    vault.sealed = false;
    await eventually(() => vault.callsOf('auth/token/renew-self').some(({ status }) => status === 200), 10_000);
  }, 20_000);

  it('of an operator is renewed too, is refused once it has ended, and is good again when the operator has seen to it', async () => {
    vault.addToken(STATIC.VAULT_TOKEN, 2);
    const secrets = secretsWith(STATIC);
    const sealed = await secrets.seal(NAME, VALUE);
    await eventually(() => vault.callsOf('auth/token/renew-self').length >= 2);
    vault.revokeTokens();
    expect(await lineOf(secrets.open(NAME, sealed))).toEqual({ line: 'XAI_API_KEY: cannot be opened now: Vault does not accept VAULT_TOKEN: it has ended, or its policy does not allow this', later: true });
    vault.addToken(STATIC.VAULT_TOKEN);
    expect(await secrets.open(NAME, sealed)).toBe(VALUE);
  });

  it('that nobody gets: a wrong secret id is said in one line, and may be put right', async () => {
    vault.appRole = { roleId: APPROLE.VAULT_ROLE_ID, secretId: 'another' };
    expect(await lineOf(secretsWith(APPROLE).seal(NAME, VALUE))).toEqual({ line: expect.stringMatching(/refuses the login \(VAULT_ROLE_ID and VAULT_SECRET_ID\)/), later: true });
    expect(vault.callsOf('auth/approle/login')).toHaveLength(1);
  });
});
