import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Decrypter, Encrypter, generateHybridIdentity, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseIdentities } from '../../src/secrets/age-identities.ts';
import { AgeSeal, makeIdentityFile } from '../../src/secrets/age-seal.ts';

// The age provider, with the library's own two sides as the other end.

const NAME = 'XAI_API_KEY';
const VALUE = 'xai-canary-age-2b9d';

let folder: string;
let file: string;
let identity: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'secrets-age-'));
  file = join(folder, 'identity');
  await makeIdentityFile(file);
  identity = (await readFile(file, 'utf8')).split('\n')[1]!;
});
afterAll(() => rm(folder, { recursive: true }));

const bytesOf = (sealed: string): Buffer => Buffer.from(sealed.slice('enc:v1:age:'.length), 'base64url');
const sealedFrom = (bytes: Uint8Array): string => `enc:v1:age:${Buffer.from(bytes).toString('base64url')}`;

async function identityFile(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

describe('age', () => {
  it('seals and opens, each time differently, whatever the letters', async () => {
    const age = await AgeSeal.open(file);
    for (const value of [VALUE, 'Grüße, 世界 🚀', '["a","b"]', 'x'.repeat(4_000)]) {
      const [one, two] = [await age.seal(NAME, value), await age.seal(NAME, value)];
      expect(one).toMatch(/^enc:v1:age:[\w-]+$/);
      expect(one).not.toBe(two);
      expect(await age.open(NAME, one)).toBe(value);
    }
  });

  it('writes a file of the age format with the one post-quantum recipient, which any age opens that has the identity', async () => {
    const bytes = bytesOf(await (await AgeSeal.open(file)).seal(NAME, VALUE));
    expect(bytes.toString('latin1')).toMatch(/^age-encryption\.org\/v1\n-> mlkem768x25519 [^\n]+\n/);
    expect(bytes.toString('latin1').match(/^-> /gm)).toHaveLength(1);
    const decrypter = new Decrypter();
    decrypter.addIdentity(identity);
    expect(await decrypter.decrypt(bytes, 'text')).toBe(JSON.stringify([NAME, VALUE]));
  });

  it('opens what another age sealed to its recipient', async () => {
    const encrypter = new Encrypter();
    encrypter.addRecipient(await identityToRecipient(identity));
    expect(await (await AgeSeal.open(file)).open(NAME, sealedFrom(await encrypter.encrypt(JSON.stringify([NAME, VALUE]))))).toBe(VALUE);
  });

  it.each<[string, (sealed: string) => string | Promise<string>, string?]>([
    ['under another name', (sealed) => sealed, 'deployment/a/api_key'],
    ['with a byte of the text changed', (sealed) => sealedFrom(bytesOf(sealed).map((byte, at, all) => (at === all.length - 3 ? byte ^ 1 : byte)))],
    ['with a byte of the header changed', (sealed) => sealedFrom(bytesOf(sealed).map((byte, at) => (at === 60 ? byte ^ 1 : byte)))],
    ['cut', (sealed) => sealedFrom(bytesOf(sealed).subarray(0, -4))],
    ['that is a plain value', () => sealedFrom(Buffer.from(VALUE))],
    ['sealed to somebody else', async () => {
      const encrypter = new Encrypter();
      encrypter.addRecipient(await identityToRecipient(await generateHybridIdentity()));
      return sealedFrom(await encrypter.encrypt(JSON.stringify([NAME, VALUE])));
    }],
    ['whose text has no name in it', async () => {
      const encrypter = new Encrypter();
      encrypter.addRecipient(await identityToRecipient(identity));
      return sealedFrom(await encrypter.encrypt(VALUE));
    }],
  ])('opens nothing %s', async (_, change, name = NAME) => {
    const age = await AgeSeal.open(file);
    const error = await age.open(name, await change(await age.seal(NAME, VALUE))).then(() => new Error('it opened'), (reason: unknown) => reason as Error);
    expect(error.message).toMatch(new RegExp(`^${name}: cannot be opened; [^\\n]+$`));
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) expect(`${cause.message}${cause.stack}`).not.toContain(VALUE);
  });

  it('seals with the first identity and opens with each, so that they can be changed', async () => {
    const old = await (await AgeSeal.open(file)).seal(NAME, VALUE);
    const next = await generateHybridIdentity();
    const both = await AgeSeal.open(await identityFile('both', `# new\n${next}\n\n# old\n${identity}\n`));
    expect(await both.open(NAME, old)).toBe(VALUE);
    const sealed = await both.seal(NAME, VALUE);
    expect(await (await AgeSeal.open(await identityFile('next', next))).open(NAME, sealed)).toBe(VALUE);
    await expect((await AgeSeal.open(file)).open(NAME, sealed)).rejects.toThrow(/cannot be opened/);
  });

  it('refuses an X25519 identity, also beside a good one, and says how to make the other kind', async () => {
    const classic = await generateX25519Identity();
    for (const text of [classic, `${identity}\n${classic}\n`, `  ${classic.toLowerCase()}  `]) {
      const error = await AgeSeal.open(await identityFile('classic', text)).then(() => new Error('taken'), (reason: unknown) => reason as Error);
      expect(error.message).toMatch(/^AGE_IDENTITY_FILE: holds an X25519 identity, .*novix secret age-identity --out/);
      expect(error.message.toUpperCase()).not.toContain(classic.slice(20, 40));
    }
  });

  it.each([['nothing', '# only a comment\n', /holds no identity/], ['something else', 'xai-plain-key\n', /neither a post-quantum identity/], ['a recipient', 'age1pq1abc\n', /neither/], ['too many', 'AGE-SECRET-KEY-PQ-1AAAA\n'.repeat(17), /more than 16/]])('refuses a file with %s', (_, text, line) => {
    expect(() => parseIdentities(text)).toThrow(line);
    expect(() => parseIdentities(text)).not.toThrow(/xai-plain-key|AAAA/);
  });

  it('refuses an identity that is damaged, and a file that is not there', async () => {
    const damaged = `${identity.slice(0, -1)}${identity.endsWith('Q') ? 'P' : 'Q'}`;
    await expect(AgeSeal.open(await identityFile('damaged', damaged))).rejects.toThrow(/^AGE_IDENTITY_FILE: holds an identity that is damaged$/);
    await expect(AgeSeal.open(join(folder, 'nowhere'))).rejects.toThrow(/^AGE_IDENTITY_FILE: .*nowhere cannot be read/);
  });

  it('makes an identity file for its owner alone, and never over another', async () => {
    expect(((await stat(file)).mode & 0o777).toString(8)).toBe('600');
    await expect(makeIdentityFile(file)).rejects.toThrow(/is there already/);
    expect(await readFile(file, 'utf8')).toContain(identity);
    const other = join(folder, 'other');
    const recipient = await makeIdentityFile(other);
    expect(recipient).toMatch(/^age1pq1/);
    expect(await readFile(other, 'utf8')).toMatch(new RegExp(`^# public key: ${recipient}\nAGE-SECRET-KEY-PQ-1[0-9A-Z]+\n$`));
  });
});
