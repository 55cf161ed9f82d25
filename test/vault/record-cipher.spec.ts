import { describe, expect, it } from '@jest/globals';
import { createSecretKey, randomBytes } from 'node:crypto';
import { CannotOpen, openRecord, RecordSealer, SEAL_BYTES, uuidBytes, type RecordName } from '../../src/vault/record-cipher.ts';

const KEY = createSecretKey(randomBytes(32));
const KEY_ID = uuidBytes('01890000-0000-7000-8000-0000000000aa');
const NAME: RecordName = { tenantId: 'acme', requestId: '01890000-0000-7000-8000-000000000001', purpose: 'prompt' };
const TEXT = Buffer.from('What does the contract with Globex say? — nothing that others should read');

function seal(text = TEXT, name = NAME): Buffer {
  const sealer = new RecordSealer(KEY, KEY_ID, name);
  sealer.update(text);
  return sealer.finish();
}

/** Why it does not open; undefined where it does. */
function refusal(sealed: Buffer, name = NAME, keyId = KEY_ID, key = KEY): string | undefined {
  try {
    openRecord(key, keyId, name, sealed);
    return undefined;
  } catch (error) {
    return error instanceof CannotOpen ? error.message : `another error: ${String(error)}`;
  }
}

const ONE_TEXT = refusal(Buffer.alloc(0))!;

describe('a sealed record', () => {
  it('opens to the byte, whether it came whole, in pieces, or empty', () => {
    expect(openRecord(KEY, KEY_ID, NAME, seal()).equals(TEXT)).toBe(true);
    const sealer = new RecordSealer(KEY, KEY_ID, NAME);
    for (const byte of TEXT) sealer.update(Buffer.from([byte]));
    expect(sealer.textBytes).toBe(TEXT.length);
    expect(openRecord(KEY, KEY_ID, NAME, sealer.finish()).equals(TEXT)).toBe(true);
    const empty = seal(Buffer.alloc(0));
    expect(empty).toHaveLength(SEAL_BYTES);
    expect(openRecord(KEY, KEY_ID, NAME, empty)).toHaveLength(0);
  });

  it('does not show its text, and is never sealed the same way twice', () => {
    const seals = Array.from({ length: 1_000 }, () => seal());
    expect(seals.some((sealed) => sealed.includes(TEXT.subarray(0, 8)))).toBe(false);
    expect(new Set(seals.map((sealed) => sealed.subarray(18, 30).toString('hex'))).size).toBe(1_000); // nonces
  });

  it('is refused with one text for each of 1,000 flips of a single bit, header and tag included', () => {
    const sealed = seal();
    const bits = sealed.length * 8;
    const texts = new Map<string | undefined, number>();
    for (let flip = 0; flip < 1_000; flip += 1) {
      const bit = Math.floor((flip * bits) / 1_000);
      const flipped = Buffer.from(sealed);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      const text = refusal(flipped);
      texts.set(text, (texts.get(text) ?? 0) + 1);
    }
    expect([...texts]).toEqual([[ONE_TEXT, 1_000]]);
    const header = Array.from({ length: 30 * 8 }, (_, bit) => {
      const flipped = Buffer.from(sealed);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      return refusal(flipped);
    });
    expect(new Set(header)).toEqual(new Set([ONE_TEXT]));
  });

  it.each([
    ['another tenant', { ...NAME, tenantId: 'acme2' }],
    ['another row', { ...NAME, requestId: '01890000-0000-7000-8000-000000000002' }],
    ['another purpose', { ...NAME, purpose: 'answer' as const }],
    ['names that run together the same', { ...NAME, tenantId: 'acm', requestId: `e${NAME.requestId}` }],
  ])('is refused as that of %s, with the same text', (_, name) => {
    expect(refusal(seal(), name)).toBe(ONE_TEXT);
  });

  it('is refused under another key, under another key’s id, and cut at any length, with the same text', () => {
    const sealed = seal();
    expect(refusal(sealed, NAME, KEY_ID, createSecretKey(randomBytes(32)))).toBe(ONE_TEXT);
    expect(refusal(sealed, NAME, uuidBytes('01890000-0000-7000-8000-0000000000ab'))).toBe(ONE_TEXT);
    for (let length = 0; length < sealed.length; length += 1) expect(refusal(sealed.subarray(0, length))).toBe(ONE_TEXT);
  });
});
