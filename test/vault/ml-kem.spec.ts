import { describe, expect, it } from '@jest/globals';
import { ml_kem768 } from '@noble/post-quantum/ml-kem.js';
import { createPrivateKey, createPublicKey, decapsulate, encapsulate, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// The ML-KEM-768 that the vault uses (OpenSSL's, through node:crypto), against another implementation, and against NIST's and Wycheproof's own vectors where
// MLKEM_VECTORS names a folder with their JSON files (ACVP: ML-KEM-keyGen-FIPS203, ML-KEM-encapDecap-FIPS203, internalProjection.json; Wycheproof: mlkem_768*.json).

interface Vector {
  seed: string;
  ek: string;
  m: string;
  c: string;
  k: string;
  flipped_bit: number;
  rejected_k: string;
}

const { vectors } = JSON.parse(readFileSync(new URL('vectors/ml-kem-768.json', import.meta.url), 'utf8')) as { vectors: Vector[] };
const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');

function privateKeyOf(seed: Buffer): KeyObject {
  return createPrivateKey({ key: seed, format: 'raw-seed', asymmetricKeyType: 'ml-kem-768' });
}

function publicKeyOf(ek: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.from(ek), format: 'raw-public', asymmetricKeyType: 'ml-kem-768' });
}

/** PKCS#8 around an expanded key: how OpenSSL takes one whose seed is not known. */
function expandedKeyOf(dk: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([bytes('30820978020100300b06096086480165030404020482096404820960'), dk]), format: 'der', type: 'pkcs8' });
}

function flip(value: Uint8Array, bit: number): Buffer {
  const flipped = Buffer.from(value);
  flipped[bit >> 3]! ^= 1 << (bit & 7);
  return flipped;
}

describe('ML-KEM-768 of node:crypto and of @noble/post-quantum', () => {
  it.each(vectors.map((vector, index) => [index, vector] as const))('agree on vector %d: key, secret, and the secret of a flipped ciphertext', (_, { seed, ek, m, c, k, flipped_bit: bit, rejected_k: rejected }) => {
    const privateKey = privateKeyOf(bytes(seed));
    expect(hex(createPublicKey(privateKey).export({ format: 'raw-public' }))).toBe(ek);
    expect(hex(decapsulate(privateKey, bytes(c)))).toBe(k);
    expect(hex(decapsulate(privateKey, flip(bytes(c), bit)))).toBe(rejected);
    expect(rejected).not.toBe(k);
    const noble = ml_kem768.keygen(bytes(seed));
    expect(hex(noble.publicKey)).toBe(ek);
    const { cipherText, sharedSecret } = ml_kem768.encapsulate(bytes(ek), bytes(m));
    expect([hex(cipherText), hex(sharedSecret)]).toEqual([c, k]);
    expect(hex(decapsulate(expandedKeyOf(Buffer.from(noble.secretKey)), bytes(c)))).toBe(k);
  });

  it('open each other’s ciphertexts, and reject the same flipped ones implicitly, with the same secret', () => {
    for (let round = 0; round < 20; round += 1) {
      const { publicKey, privateKey } = generateKeyPairSync('ml-kem-768');
      const noble = ml_kem768.keygen(privateKey.export({ format: 'raw-seed' }));
      const ours = encapsulate(publicKey);
      expect(hex(ml_kem768.decapsulate(ours.ciphertext, noble.secretKey))).toBe(hex(ours.sharedKey));
      const theirs = ml_kem768.encapsulate(noble.publicKey);
      expect(hex(decapsulate(privateKey, theirs.cipherText))).toBe(hex(theirs.sharedSecret));
      const flipped = flip(ours.ciphertext, (round * 431) % (1088 * 8));
      const rejected = hex(decapsulate(privateKey, flipped));
      expect(rejected).toBe(hex(ml_kem768.decapsulate(flipped, noble.secretKey)));
      expect(rejected).not.toBe(hex(ours.sharedKey));
    }
  });

  it('refuse a ciphertext and a public key of another length', () => {
    const { privateKey, publicKey } = generateKeyPairSync('ml-kem-768');
    expect(works(() => decapsulate(privateKey, Buffer.alloc(1087)))).toBe(false);
    expect(works(() => publicKeyOf(publicKey.export({ format: 'raw-public' }).subarray(1)))).toBe(false);
    expect(works(() => decapsulate(privateKey, Buffer.alloc(1088)))).toBe(true);
  });
});

/** A test of ACVP or Wycheproof, by the fields that say what it is about. */
interface OfficialTest {
  tcId: number;
  d?: string;
  z?: string;
  seed?: string;
  ek?: string;
  dk?: string;
  m?: string;
  c?: string;
  k?: string;
  K?: string;
  result?: 'valid' | 'invalid' | 'acceptable';
  testPassed?: boolean;
}

function officialFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.json')).map((name) => join(folder, name)).toSorted();
}

interface Check {
  kind: 'keyGen' | 'decapsulation' | 'encapsulation' | 'refusal' | 'key check';
  made: unknown;
  expected: unknown;
}

function works(attempt: () => unknown): boolean {
  try {
    attempt();
    return true;
  } catch {
    return false;
  }
}

/** @returns none for a test that says nothing of ML-KEM-768 as it is used here */
function checksOf({ d, z, seed, ek, dk, m, c, k, K, result, testPassed }: OfficialTest, groupDk: string | undefined): Check[] {
  const wholeSeed = seed ?? (d !== undefined && z !== undefined ? d + z : undefined);
  const expandedKey = dk ?? groupDk;
  const privateKey = (): KeyObject => (wholeSeed === undefined ? expandedKeyOf(bytes(expandedKey!)) : privateKeyOf(bytes(wholeSeed)));
  const opened = c === undefined || (wholeSeed ?? expandedKey) === undefined ? undefined : (): Buffer => decapsulate(privateKey(), bytes(c));
  if (testPassed !== undefined && c === undefined) return ek === undefined ? [] : [{ kind: 'key check', made: works(() => encapsulate(publicKeyOf(bytes(ek)))), expected: testPassed }];
  if (result === 'invalid') return [{ kind: 'refusal', made: works(opened ?? (() => encapsulate(publicKeyOf(bytes(ek ?? ''))))), expected: false }];
  const checks: Check[] = [];
  const secret = (k ?? K)?.toLowerCase();
  if (wholeSeed !== undefined && ek !== undefined) checks.push({ kind: 'keyGen', made: hex(createPublicKey(privateKeyOf(bytes(wholeSeed))).export({ format: 'raw-public' })), expected: ek.toLowerCase() });
  if (opened !== undefined && secret !== undefined) checks.push({ kind: 'decapsulation', made: hex(opened()), expected: secret });
  // node:crypto takes no randomness from outside: what it would have made of this is what the other implementation makes, with which it agrees above.
  if (ek !== undefined && m !== undefined && c !== undefined && secret !== undefined) {
    const { cipherText, sharedSecret } = ml_kem768.encapsulate(bytes(ek), bytes(m));
    checks.push({ kind: 'encapsulation', made: [hex(cipherText), hex(sharedSecret)], expected: [c.toLowerCase(), secret] });
  }
  return checks;
}

const folder = process.env['MLKEM_VECTORS'];
(folder === undefined ? describe.skip : describe)(`ML-KEM-768 by the vectors of NIST ACVP and Wycheproof${folder === undefined ? ' (skipped: MLKEM_VECTORS names no folder, and the repository ships none of them)' : ''}`, () => {
  it('passes each test of each file, and there are some', () => {
    const counts: Record<string, number> = {};
    for (const file of officialFiles(folder!)) {
      const { testGroups = [] } = JSON.parse(readFileSync(file, 'utf8')) as { testGroups?: { parameterSet?: string; dk?: string; tests: OfficialTest[] }[] };
      for (const { tests, dk } of testGroups.filter(({ parameterSet = 'ML-KEM-768' }) => parameterSet === 'ML-KEM-768')) {
        for (const test of tests) {
          for (const { kind, made, expected } of checksOf(test, dk)) {
            expect({ file, tcId: test.tcId, kind, value: made }).toEqual({ file, tcId: test.tcId, kind, value: expected });
            counts[kind] = (counts[kind] ?? 0) + 1;
          }
        }
      }
    }
    process.stderr.write(`ML-KEM-768 vectors passed: ${JSON.stringify(counts)}\n`);
    expect(Object.keys(counts)).not.toEqual([]);
  });
});
