import { describe, expect, it } from '@jest/globals';
import { createDecipheriv, createHash, createPublicKey, decapsulate, diffieHellman, hkdfSync, randomBytes } from 'node:crypto';
import { decodePrivate, decodePublic, encodePrivate, encodePublic, newEpochKeys, unwrapDataKey, wrapDataKey, type DataKeyName, type EpochPrivate } from '../../src/vault/key-wrap.ts';
import { CannotOpen } from '../../src/vault/record-cipher.ts';

const NAME: DataKeyName = { id: '01890000-0000-7000-8000-0000000000aa', tenantId: 'acme', day: '2026-11-24', epochId: '01890000-0000-7000-8000-0000000000ee' };
const DATA_KEY = randomBytes(32);
const EPOCH = newEpochKeys();
const WRAPPED = wrapDataKey(EPOCH.publicKeys, NAME, DATA_KEY);

/** A length of four bytes, then the text, for each. */
function lengthPrefixed(...texts: string[]): Buffer {
  return Buffer.concat(texts.flatMap((text) => [Buffer.from([0, 0, 0, Buffer.byteLength(text)]), Buffer.from(text)]));
}

function opens(wrapped: Buffer, name = NAME, keys: EpochPrivate = EPOCH.privateKeys): boolean {
  try {
    return unwrapDataKey(keys, name, wrapped).equals(DATA_KEY);
  } catch (error) {
    if (error instanceof CannotOpen) return false;
    throw error;
  }
}

describe('a wrapped data key', () => {
  it('opens with the private half, also after both halves went through their encodings', () => {
    expect(opens(WRAPPED)).toBe(true);
    const bytes = encodePublic(EPOCH.publicKeys);
    expect([bytes.x25519.length, bytes.mlKem.length]).toEqual([32, 1184]);
    const secret = encodePrivate(EPOCH.privateKeys);
    expect(secret).toHaveLength(96);
    expect(opens(wrapDataKey(decodePublic(bytes), NAME, DATA_KEY), NAME, decodePrivate(secret))).toBe(true);
  });

  it('needs both private keys: neither that of X25519 nor that of ML-KEM alone is enough', () => {
    const other = newEpochKeys().privateKeys;
    expect(opens(WRAPPED, NAME, { x25519: EPOCH.privateKeys.x25519, mlKem: other.mlKem })).toBe(false);
    expect(opens(WRAPPED, NAME, { x25519: other.x25519, mlKem: EPOCH.privateKeys.mlKem })).toBe(false);
  });

  it('is refused with any bit flipped of its header, of either ciphertext, of the key or the tag', () => {
    let opened = 0;
    for (let bit = 0; bit < WRAPPED.length * 8; bit += 7) {
      const flipped = Buffer.from(WRAPPED);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      if (opens(flipped)) opened += 1;
    }
    expect(opened).toBe(0);
    expect(opens(WRAPPED.subarray(0, -1))).toBe(false);
    expect(opens(Buffer.concat([WRAPPED, Buffer.alloc(1)]))).toBe(false);
  });

  it.each([
    ['tenant', { tenantId: 'globex' }], ['day', { day: '2026-11-25' }], ['id', { id: '01890000-0000-7000-8000-0000000000ab' }], ['epoch', { epochId: '01890000-0000-7000-8000-0000000000ef' }],
  ])('is refused as one of another %s', (_, other) => {
    expect(opens(WRAPPED, { ...NAME, ...other })).toBe(false);
  });

  // Written down a second time, so that a change of either part is noticed: what lies in the database has to open for ninety days.
  it('is by the format that is written down: HKDF over both secrets, bound to both ciphertexts, both keys and every name', () => {
    const [header, ephemeral, ciphertext, sealed, tag] = [WRAPPED.subarray(0, 19), WRAPPED.subarray(19, 51), WRAPPED.subarray(51, 1139), WRAPPED.subarray(1139, 1171), WRAPPED.subarray(1171)];
    expect(header.toString('hex')).toBe(`010101${NAME.epochId.replaceAll('-', '')}`);
    const { x25519, mlKem } = encodePublic(EPOCH.publicKeys);
    const x25519Secret = diffieHellman({ privateKey: EPOCH.privateKeys.x25519, publicKey: createPublicKey({ key: ephemeral, format: 'raw-public', asymmetricKeyType: 'x25519' }) });
    const secrets = Buffer.concat([decapsulate(EPOCH.privateKeys.mlKem, ciphertext), x25519Secret]);
    expect(secrets).toHaveLength(64);
    const salt = createHash('sha256').update(Buffer.concat([ciphertext, ephemeral, mlKem, x25519])).digest();
    const derived = Buffer.from(hkdfSync('sha256', secrets, salt, lengthPrefixed('novix payload data key', '1', NAME.epochId, NAME.tenantId, NAME.day, NAME.id), 44));
    const decipher = createDecipheriv('aes-256-gcm', derived.subarray(0, 32), derived.subarray(32));
    decipher.setAAD(Buffer.concat([header, lengthPrefixed(NAME.tenantId, NAME.day, NAME.id)])).setAuthTag(tag);
    expect(Buffer.concat([decipher.update(sealed), decipher.final()]).equals(DATA_KEY)).toBe(true);
  });

  it('is another one each time', () => {
    expect(wrapDataKey(EPOCH.publicKeys, NAME, DATA_KEY).equals(WRAPPED)).toBe(false);
  });
});
