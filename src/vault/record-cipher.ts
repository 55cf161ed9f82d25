import { createCipheriv, createDecipheriv, randomFillSync, type CipherGCM, type KeyObject } from 'node:crypto';

// A stored text as it lies in the database: header ‖ AES-256-GCM ciphertext ‖ tag.
// Header: version, algorithm, id of the data key, nonce. Associated data: the header, then tenant, request id and purpose, each behind its length, so that no
// two records have the same.

export const PURPOSES = ['prompt', 'answer'] as const;
export type Purpose = (typeof PURPOSES)[number];

/** Which record it is: it opens as this one alone. */
export interface RecordName {
  tenantId: string;
  requestId: string;
  purpose: Purpose;
}

const VERSION = 1;
const AES_256_GCM = 1;
const CIPHER = 'aes-256-gcm';
const KEY_ID_BYTES = 16;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const NONCE_AT = 2 + KEY_ID_BYTES;
const HEADER_BYTES = NONCE_AT + NONCE_BYTES;
/** What a sealed text is longer than the text. */
export const SEAL_BYTES = HEADER_BYTES + TAG_BYTES;

/** One text for whatever is wrong, so that it says nothing of how near an attempt came. */
export class CannotOpen extends Error {
  override readonly name = 'CannotOpen';
  constructor(cause?: unknown) {
    super('what is stored cannot be opened: it is damaged, or stands where it was not stored', { cause });
  }
}

const noncePool = Buffer.alloc(NONCE_BYTES * 256);
let nonceUsed = noncePool.length;

/** Random, from a pool: to ask the system for twelve bytes costs as much as to seal a short text. */
function fillNonce(target: Buffer, at: number): void {
  if (nonceUsed === noncePool.length) {
    randomFillSync(noncePool);
    nonceUsed = 0;
  }
  noncePool.copy(target, at, nonceUsed, nonceUsed + NONCE_BYTES);
  nonceUsed += NONCE_BYTES;
}

/** Seals a text that comes in pieces; what it keeps of them is ciphertext alone. */
export class RecordSealer {
  readonly #cipher: CipherGCM;
  readonly #parts: Buffer[];
  #textBytes = 0;

  constructor(key: KeyObject, keyId: Buffer, name: RecordName) {
    const header = Buffer.allocUnsafe(HEADER_BYTES);
    header[0] = VERSION;
    header[1] = AES_256_GCM;
    keyId.copy(header, 2, 0, KEY_ID_BYTES);
    fillNonce(header, NONCE_AT);
    this.#cipher = createCipheriv(CIPHER, key, header.subarray(NONCE_AT)).setAAD(associatedData(header, name));
    this.#parts = [header];
  }

  get textBytes(): number {
    return this.#textBytes;
  }

  update(bytes: Buffer): void {
    this.#textBytes += bytes.length;
    this.#parts.push(this.#cipher.update(bytes));
  }

  /** Call once. */
  finish(): Buffer {
    this.#cipher.final(); // empty: the mode has no padding
    this.#parts.push(this.#cipher.getAuthTag());
    return Buffer.concat(this.#parts, this.#textBytes + SEAL_BYTES);
  }
}

/**
 * @param keyId as the row has it, which the header must agree with
 * @throws {CannotOpen} for whatever is wrong
 */
export function openRecord(key: KeyObject, keyId: Buffer, name: RecordName, sealed: Buffer): Buffer {
  try {
    const header = sealed.subarray(0, HEADER_BYTES);
    if (sealed.length < SEAL_BYTES || header[0] !== VERSION || header[1] !== AES_256_GCM || !header.subarray(2, NONCE_AT).equals(keyId)) throw new Error('header');
    const decipher = createDecipheriv(CIPHER, key, header.subarray(NONCE_AT), { authTagLength: TAG_BYTES });
    decipher.setAAD(associatedData(header, name)).setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
    return Buffer.concat([decipher.update(sealed.subarray(HEADER_BYTES, sealed.length - TAG_BYTES)), decipher.final()]);
  } catch (cause) {
    throw new CannotOpen(cause);
  }
}

function associatedData(header: Buffer, { tenantId, requestId, purpose }: RecordName): Buffer {
  return Buffer.concat([header, withLengths(tenantId, requestId, purpose)]);
}

/** Texts one after another, each behind its length: told apart whatever they hold. */
export function withLengths(...texts: readonly string[]): Buffer {
  return Buffer.concat(texts.flatMap((text) => {
    const bytes = Buffer.from(text);
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(bytes.length);
    return [length, bytes];
  }));
}

/** A UUID as its 16 bytes. */
export function uuidBytes(id: string): Buffer {
  return Buffer.from(id.replaceAll('-', ''), 'hex');
}
