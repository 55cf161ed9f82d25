import {
  createCipheriv, createDecipheriv, createHash, createPrivateKey, createPublicKey, decapsulate, diffieHellman, encapsulate, generateKeyPairSync, hkdfSync, type KeyObject,
} from 'node:crypto';
import { CannotOpen, uuidBytes, withLengths } from './record-cipher.ts';

// How a data key is wrapped for its epoch: X25519 and ML-KEM-768 together, so that it stays closed as long as either holds. Pure but for randomness.
// Wrapped: version, algorithm of the two, cipher, epoch id ‖ ephemeral X25519 key ‖ ML-KEM ciphertext ‖ AES-256-GCM of the data key ‖ tag.

/** Which data key it is: it unwraps as this one alone. */
export interface DataKeyName {
  id: string;
  tenantId: string;
  /** UTC, such as `2026-11-24`. */
  day: string;
  epochId: string;
}

export interface EpochPublic {
  x25519: KeyObject;
  mlKem: KeyObject;
}

export interface EpochPrivate {
  x25519: KeyObject;
  mlKem: KeyObject;
}

const VERSION = 1;
const X25519_ML_KEM_768 = 1;
const AES_256_GCM = 1;
const CIPHER = 'aes-256-gcm';
const LABEL = 'novix payload data key';
const HEADER_BYTES = 3 + 16;
const X25519_BYTES = 32;
const ML_KEM_CIPHERTEXT_BYTES = 1088;
const ML_KEM_SEED_BYTES = 64;
const ML_KEM_AT = HEADER_BYTES + X25519_BYTES;
const SEALED_AT = ML_KEM_AT + ML_KEM_CIPHERTEXT_BYTES;
const DATA_KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const WRAPPED_BYTES = SEALED_AT + DATA_KEY_BYTES + TAG_BYTES;

export function newEpochKeys(): { publicKeys: EpochPublic; privateKeys: EpochPrivate } {
  const x25519 = generateKeyPairSync('x25519');
  const mlKem = generateKeyPairSync('ml-kem-768');
  return { publicKeys: { x25519: x25519.publicKey, mlKem: mlKem.publicKey }, privateKeys: { x25519: x25519.privateKey, mlKem: mlKem.privateKey } };
}

/** Raw, as the standards have them: 32 bytes and 1184 bytes. */
export function encodePublic({ x25519, mlKem }: EpochPublic): { x25519: Buffer; mlKem: Buffer } {
  return { x25519: x25519.export({ format: 'raw-public' }), mlKem: mlKem.export({ format: 'raw-public' }) };
}

export function decodePublic({ x25519, mlKem }: { x25519: Buffer; mlKem: Buffer }): EpochPublic {
  return {
    x25519: createPublicKey({ key: x25519, format: 'raw-public', asymmetricKeyType: 'x25519' }),
    mlKem: createPublicKey({ key: mlKem, format: 'raw-public', asymmetricKeyType: 'ml-kem-768' }),
  };
}

/** The X25519 key, 32 bytes, and the seed of the ML-KEM key, 64 bytes. */
export function encodePrivate({ x25519, mlKem }: EpochPrivate): Buffer {
  return Buffer.concat([x25519.export({ format: 'raw-private' }), mlKem.export({ format: 'raw-seed' })]);
}

/** @throws {CannotOpen} */
export function decodePrivate(bytes: Buffer): EpochPrivate {
  if (bytes.length !== X25519_BYTES + ML_KEM_SEED_BYTES) throw new CannotOpen();
  return {
    x25519: createPrivateKey({ key: bytes.subarray(0, X25519_BYTES), format: 'raw-private', asymmetricKeyType: 'x25519' }),
    mlKem: createPrivateKey({ key: bytes.subarray(X25519_BYTES), format: 'raw-seed', asymmetricKeyType: 'ml-kem-768' }),
  };
}

export function wrapDataKey(recipient: EpochPublic, name: DataKeyName, dataKey: Buffer): Buffer {
  const ephemeral = generateKeyPairSync('x25519');
  const ephemeralPublic = ephemeral.publicKey.export({ format: 'raw-public' });
  const { sharedKey, ciphertext } = encapsulate(recipient.mlKem);
  const x25519Secret = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: recipient.x25519 });
  const { key, nonce } = wrappingKey(sharedKey, x25519Secret, ciphertext, ephemeralPublic, recipient, name);
  const header = headerOf(name);
  const cipher = createCipheriv(CIPHER, key, nonce).setAAD(associatedData(header, name));
  return Buffer.concat([header, ephemeralPublic, ciphertext, cipher.update(dataKey), cipher.final(), cipher.getAuthTag()]);
}

/** @throws {CannotOpen} for whatever is wrong */
export function unwrapDataKey(own: EpochPrivate, name: DataKeyName, wrapped: Buffer): Buffer {
  try {
    const header = wrapped.subarray(0, HEADER_BYTES);
    if (wrapped.length !== WRAPPED_BYTES || !header.equals(headerOf(name))) throw new Error('header');
    const ephemeralPublic = wrapped.subarray(HEADER_BYTES, ML_KEM_AT);
    const ciphertext = wrapped.subarray(ML_KEM_AT, SEALED_AT);
    const x25519Secret = diffieHellman({ privateKey: own.x25519, publicKey: createPublicKey({ key: ephemeralPublic, format: 'raw-public', asymmetricKeyType: 'x25519' }) });
    // A damaged ciphertext gives another secret, not an error: then the tag below does not fit.
    const mlKemSecret = decapsulate(own.mlKem, ciphertext);
    const recipient = { x25519: createPublicKey(own.x25519), mlKem: createPublicKey(own.mlKem) };
    const { key, nonce } = wrappingKey(mlKemSecret, x25519Secret, ciphertext, ephemeralPublic, recipient, name);
    const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(associatedData(header, name)).setAuthTag(wrapped.subarray(WRAPPED_BYTES - TAG_BYTES));
    return Buffer.concat([decipher.update(wrapped.subarray(SEALED_AT, WRAPPED_BYTES - TAG_BYTES)), decipher.final()]);
  } catch (cause) {
    throw new CannotOpen(cause);
  }
}

/** Both secrets, bound to everything that was said: to both ciphertexts and keys, and to which data key it is. Used once, so the nonce may come from it too. */
function wrappingKey(mlKemSecret: Buffer, x25519Secret: Buffer, ciphertext: Buffer, ephemeralPublic: Buffer, recipient: EpochPublic, name: DataKeyName): { key: Buffer; nonce: Buffer } {
  const { x25519, mlKem } = encodePublic(recipient);
  const salt = createHash('sha256').update(ciphertext).update(ephemeralPublic).update(mlKem).update(x25519).digest();
  const info = withLengths(LABEL, String(VERSION), name.epochId, name.tenantId, name.day, name.id);
  const derived = Buffer.from(hkdfSync('sha256', Buffer.concat([mlKemSecret, x25519Secret]), salt, info, 32 + NONCE_BYTES));
  return { key: derived.subarray(0, 32), nonce: derived.subarray(32) };
}

function headerOf({ epochId }: DataKeyName): Buffer {
  return Buffer.concat([Buffer.from([VERSION, X25519_ML_KEM_768, AES_256_GCM]), uuidBytes(epochId)]);
}

function associatedData(header: Buffer, { id, tenantId, day }: DataKeyName): Buffer {
  return Buffer.concat([header, withLengths(tenantId, day, id)]);
}
