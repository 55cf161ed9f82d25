import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { generateKeyPairSync, sign, verify } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointFile } from './checkpoint-file.ts';
import { openSigningKeys } from './signing-keys.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'log-test-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

const pem = (type: 'ed25519' | 'ml-dsa-44' | 'ml-dsa-65'): string => generateKeyPairSync(type as 'ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;

describe('the file of signing keys', () => {
  it('is made where there is none, for its owner alone, and is the same from then on', async () => {
    const path = join(dir, 'data', 'audit-signing.pem');
    const made = openSigningKeys(path, true);
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe('600');
    expect(await readdir(join(dir, 'data'))).toEqual(['audit-signing.pem']);
    for (const again of [openSigningKeys(path, true), openSigningKeys(path, false)]) {
      expect(again.ed25519.publicKey.equals(made.ed25519.publicKey)).toBe(true);
      expect(again.mlDsa44.publicKey.equals(made.mlDsa44.publicKey)).toBe(true);
    }
    for (const { privateKey, publicKey } of [made.ed25519, made.mlDsa44]) expect(verify(null, Buffer.from('x'), publicKey, sign(null, Buffer.from('x'), privateKey))).toBe(true);
  });

  it('is not made where it must be there', () => {
    expect(() => openSigningKeys(join(dir, 'none.pem'), false)).toThrow(/^AUDIT_SIGNING_KEY_FILE: the file cannot be read$/);
    expect(existsSync(join(dir, 'none.pem'))).toBe(false);
  });

  it('has its two keys in any order, with whatever stands around them', async () => {
    const [ed25519, mlDsa44] = [pem('ed25519'), pem('ml-dsa-44')];
    for (const text of [ed25519 + mlDsa44, mlDsa44 + ed25519, `# of the log\n${ed25519}\n\n${mlDsa44}# end\n`, (ed25519 + mlDsa44).replaceAll('\n', '\r\n')]) {
      await writeFile(join(dir, 'keys.pem'), text);
      const { ed25519: one, mlDsa44: other } = openSigningKeys(join(dir, 'keys.pem'), false);
      expect([one.privateKey.asymmetricKeyType, other.privateKey.asymmetricKeyType]).toEqual(['ed25519', 'ml-dsa-44']);
    }
  });

  it.each<[string, () => string]>([
    ['is empty', () => ''], ['has one alone', () => pem('ed25519')], ['has the other alone', () => pem('ml-dsa-44')], ['has two of a kind', () => pem('ed25519') + pem('ed25519')], ['has three', () => pem('ed25519') + pem('ml-dsa-44') + pem('ml-dsa-44')],
    ['has one of another kind', () => pem('ed25519') + pem('ml-dsa-65')], ['has a third of another kind', () => pem('ed25519') + pem('ml-dsa-44') + pem('ml-dsa-65')], ['has a damaged block', () => `${pem('ed25519')}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`],
  ])('is refused in one line where it %s', async (_, make) => {
    const text = make();
    await writeFile(join(dir, 'keys.pem'), text);
    let message = '';
    try {
      openSigningKeys(join(dir, 'keys.pem'), true);
    } catch (error) {
      ({ message } = error as Error);
    }
    expect(message).toMatch(/^AUDIT_SIGNING_KEY_FILE: [^\n]+$/);
    expect(await readFile(join(dir, 'keys.pem'), 'utf8')).toBe(text);
  });
});

describe('the checkpoint outside the database', () => {
  it('is none before the first, and the last one afterwards, with nothing beside it', async () => {
    const file = new CheckpointFile(join(dir, 'deep', 'checkpoint'));
    expect(await file.read()).toBeUndefined();
    for (const note of ['one\n', 'another, which is longer\n', 'three\n']) {
      await file.write(note);
      expect(await file.read()).toBe(note);
    }
    expect(await readdir(join(dir, 'deep'))).toEqual(['checkpoint']);
    expect(((await stat(file.path)).mode & 0o777).toString(8)).toBe('600');
  });

  it('that cannot be read is not taken for none', async () => {
    await expect(new CheckpointFile(dir).read()).rejects.toThrow('EISDIR');
  });
});
