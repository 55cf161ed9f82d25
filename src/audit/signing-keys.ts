import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

interface KeyPair {
  privateKey: KeyObject;
  publicKey: KeyObject;
}

/** What checkpoints are signed with: one that every verifier knows, and one that a quantum computer does not break. */
export interface SigningKeys {
  ed25519: KeyPair;
  mlDsa44: KeyPair;
}

const PEM_BLOCK = /-----BEGIN PRIVATE KEY-----[\s\S]+?-----END PRIVATE KEY-----/g;

/**
 * Reads `AUDIT_SIGNING_KEY_FILE`: PKCS#8 PEM, one block of each kind, in any order.
 *
 * @param make whether to make the file where there is none
 * @throws {Error} with one clear line
 */
export function openSigningKeys(path: string, make: boolean): SigningKeys {
  if (make && !existsSync(path)) makeFile(path);
  let pem: string;
  try {
    pem = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new Error('AUDIT_SIGNING_KEY_FILE: the file cannot be read', { cause });
  }
  const pairs = (pem.match(PEM_BLOCK) ?? []).map(toPair);
  const ed25519 = only(pairs, 'ed25519');
  const mlDsa44 = only(pairs, 'ml-dsa-44');
  if (ed25519 === undefined || mlDsa44 === undefined || pairs.length !== 2) throw new Error('AUDIT_SIGNING_KEY_FILE: expected two PKCS#8 PEM blocks, one Ed25519 and one ML-DSA-44 key, as "openssl genpkey -algorithm ED25519" and "openssl genpkey -algorithm ML-DSA-44" print them');
  return { ed25519, mlDsa44 };
}

function toPair(pem: string): KeyPair {
  try {
    const privateKey = createPrivateKey(pem);
    return { privateKey, publicKey: createPublicKey(privateKey) };
  } catch (cause) {
    throw new Error('AUDIT_SIGNING_KEY_FILE: a block of it is no private key', { cause });
  }
}

function only(pairs: readonly KeyPair[], type: string): KeyPair | undefined {
  const found = pairs.filter(({ privateKey }) => (privateKey.asymmetricKeyType as string) === type);
  return found.length === 1 ? found[0] : undefined;
}

function makeFile(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const pem = [generateKeyPairSync('ed25519'), generateKeyPairSync('ml-dsa-44')].map(({ privateKey }) => privateKey.export({ type: 'pkcs8', format: 'pem' })).join('');
  // Whole at once: another process must not read half of it, nor put its own over it.
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, pem, { mode: 0o600 });
  try {
    linkSync(draft, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    unlinkSync(draft);
  }
}
