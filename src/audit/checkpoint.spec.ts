import { describe, expect, it } from '@jest/globals';
import { createHash, generateKeyPairSync, randomBytes, sign, verify } from 'node:crypto';
import { openCheckpoint, parseCheckpointText, signCheckpoint, verifierKeys, type TreeHead } from './checkpoint.ts';
import { formatNote, parseNote, verifierKey } from './signed-note.ts';
import type { SigningKeys } from './signing-keys.ts';

const makeKeys = (): SigningKeys => ({ ed25519: generateKeyPairSync('ed25519'), mlDsa44: generateKeyPairSync('ml-dsa-44') });

const ORIGIN = 'novix-gateway/11111111-2222-3333-4444-555555555555';
const NOW_MS = 1_790_000_000_999;
const signing = makeKeys();
const keys = verifierKeys(ORIGIN, signing);
const head: TreeHead = { origin: ORIGIN, size: 20_852_163, root: randomBytes(32) };
const note = signCheckpoint(head, signing, NOW_MS);

const uint64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
};

describe('a checkpoint', () => {
  it('says its log, size and root, and is opened by either key and by both', () => {
    expect(parseNote(note).text).toBe(`${ORIGIN}\n20852163\n${head.root.toString('base64')}\n`);
    expect(openCheckpoint(note, keys)).toEqual({ ...head, signedAtSeconds: 1_790_000_000 });
    expect(openCheckpoint(note, [keys[1]])).toEqual({ ...head, signedAtSeconds: 1_790_000_000 });
    expect(openCheckpoint(note, [keys[0]])).toEqual({ ...head, signedAtSeconds: undefined });
  });

  it('has an Ed25519 signature of the log itself over its text', () => {
    const { text, signatures } = parseNote(note);
    const [log] = signatures;
    expect([log!.name, log!.signature.length]).toEqual([ORIGIN, 64]);
    expect(verify(null, Buffer.from(text), signing.ed25519.publicKey, log!.signature)).toBe(true);
  });

  // Written from the text of c2sp.org/tlog-cosignature, "ML-DSA-44 signed message", byte by byte.
  it('has the cosignature of c2sp.org/tlog-cosignature', () => {
    const [, cosigner] = parseNote(note).signatures;
    const name = `${ORIGIN}/ml-dsa-44`;
    expect(cosigner!.name).toBe(name);
    expect(cosigner!.signature).toHaveLength(8 + 2_420);
    const timestamp = cosigner!.signature.subarray(0, 8);
    expect(timestamp).toEqual(uint64(1_790_000_000n));
    const message = Buffer.concat([
      Buffer.from([0x73, 0x75, 0x62, 0x74, 0x72, 0x65, 0x65, 0x2f, 0x76, 0x31, 0x0a, 0x00]), // "subtree/v1\n\0"
      Buffer.of(name.length), Buffer.from(name, 'ascii'), timestamp, Buffer.of(ORIGIN.length), Buffer.from(ORIGIN, 'ascii'), uint64(0n), uint64(20_852_163n), head.root,
    ]);
    expect(message).toHaveLength(12 + 1 + name.length + 8 + 1 + ORIGIN.length + 8 + 8 + 32);
    expect(verify(null, message, signing.mlDsa44.publicKey, cosigner!.signature.subarray(8))).toBe(true);
    for (let at = 0; at < message.length; at++) {
      const other = Buffer.from(message);
      other[at]! ^= 1;
      expect([at, verify(null, other, signing.mlDsa44.publicKey, cosigner!.signature.subarray(8))]).toEqual([at, false]);
    }
    // The other way round: what another signs by this text is taken.
    const theirs = Buffer.concat([timestamp, sign(null, message, signing.mlDsa44.privateKey)]);
    expect(openCheckpoint(formatNote({ text: parseNote(note).text, signatures: [{ ...cosigner!, signature: theirs }] }), [keys[1]])).toMatchObject({ size: head.size });
    const { pub } = signing.mlDsa44.publicKey.export({ format: 'jwk' }) as unknown as { pub: string };
    expect(cosigner!.keyId).toEqual(createHash('sha256').update(`${name}\n`).update(Buffer.of(6)).update(Buffer.from(pub, 'base64url')).digest().subarray(0, 4));
  });

  it('of the empty log is one too', () => {
    const root = createHash('sha256').digest();
    expect(openCheckpoint(signCheckpoint({ origin: ORIGIN, size: 0, root }, signing, NOW_MS), keys)).toMatchObject({ size: 0, root });
  });

  it('is not opened without keys', () => {
    expect(() => openCheckpoint(note, [])).toThrow('no key');
  });

  it('is not opened by other keys, nor by one of them', () => {
    const other = verifierKeys(ORIGIN, makeKeys());
    for (const given of [other, [other[0]], [other[1]], [keys[0], other[1]], [other[0], keys[1]]]) expect(() => openCheckpoint(note, given)).toThrow('is not signed by');
  });

  it('is not opened by other keys that claim the name and the id of its own', () => {
    const forger = makeKeys();
    const forged = parseNote(signCheckpoint(head, forger, NOW_MS));
    const [log, cosigner] = parseNote(note).signatures;
    const [theirLog, theirCosigner] = forged.signatures;
    const relabelled = formatNote({ text: forged.text, signatures: [{ ...log!, signature: theirLog!.signature }, { ...cosigner!, signature: theirCosigner!.signature }] });
    expect(() => openCheckpoint(relabelled, keys)).toThrow('the signature of');
    expect(() => openCheckpoint(relabelled, [keys[1]])).toThrow('the cosignature of');
  });

  it('of another log with the same keys is none of this one', () => {
    const other = signCheckpoint({ ...head, origin: 'novix-gateway/other' }, signing, NOW_MS);
    for (const given of [keys, [keys[0]], [keys[1]]]) expect(() => openCheckpoint(other, given)).toThrow('is not signed by');
  });

  // Ed25519 signs the text alone, so that the lines of signatures can be given another name by anybody.
  it('of another log with the same keys is none of this one either when its signatures are relabelled', () => {
    const other = parseNote(signCheckpoint({ ...head, origin: 'novix-gateway/other' }, signing, NOW_MS));
    const [log, cosigner] = other.signatures;
    const relabelled = formatNote({ text: other.text, signatures: [{ name: keys[0].name, keyId: keys[0].id, signature: log!.signature }, { name: keys[1].name, keyId: keys[1].id, signature: cosigner!.signature }] });
    for (const given of [keys, [keys[1]], [keys[0]]]) expect(() => openCheckpoint(relabelled, given)).toThrow(Error);
  });

  it('is not opened after any change of its text', () => {
    const end = note.indexOf('\n\n') + 1;
    const opened: number[] = [];
    for (let at = 0; at < end; at++) {
      for (const letter of ['0', 'A', 'a', '\n', ' ', '']) {
        const other = `${note.slice(0, at)}${letter}${note.slice(at + 1)}`;
        if (other === note) continue;
        for (const given of [[keys[0]], [keys[1]]]) {
          try {
            openCheckpoint(other, given);
            opened.push(at);
          } catch {
            // refused
          }
        }
      }
    }
    expect(opened).toEqual([]);
  });

  it('is not opened after any change of one bit in its signatures', () => {
    const { text, signatures } = parseNote(note);
    const opened: string[] = [];
    for (const [which, one] of signatures.entries()) {
      for (let bit = 0; bit < one.signature.length * 8; bit += which === 0 ? 1 : 61) {
        const damaged = Buffer.from(one.signature);
        damaged[bit >> 3]! ^= 1 << (bit & 7);
        try {
          openCheckpoint(formatNote({ text, signatures: signatures.map((other, place) => (place === which ? { ...one, signature: damaged } : other)) }), keys);
          opened.push(`${which} ${bit}`);
        } catch {
          // refused
        }
      }
    }
    expect(opened).toEqual([]);
  });

  it('is not opened with a signature that is cut', () => {
    const { text, signatures } = parseNote(note);
    for (const [which, one] of signatures.entries()) {
      for (const length of [1, 7, 8, 9, 63, one.signature.length - 1].filter((bytes) => bytes < one.signature.length)) {
        const cut = formatNote({ text, signatures: [{ ...one, signature: one.signature.subarray(0, length) }] });
        expect(() => openCheckpoint(cut, [keys[which]!])).toThrow('not good');
      }
    }
  });

  it('may have signatures of others, which say nothing', () => {
    const { text, signatures } = parseNote(note);
    const witness = { name: 'witness.example', keyId: randomBytes(4), signature: randomBytes(72) };
    expect(openCheckpoint(formatNote({ text, signatures: [witness, ...signatures] }), keys)).toMatchObject(head);
  });

  const root = head.root.toString('base64');
  it.each<[string, string]>([
    ['a leading zero in its size', `o\n05\n${root}\n`], ['00 for its size', `o\n00\n${root}\n`], ['a negative size', `o\n-1\n${root}\n`], ['a signed size', `o\n+1\n${root}\n`], ['a fraction', `o\n1.5\n${root}\n`], ['an exponent', `o\n1e3\n${root}\n`], ['a hexadecimal size', `o\n0x10\n${root}\n`],
    ['a size above all logs', `o\n${2 ** 48 + 1}\n${root}\n`], ['a size that is inexact', `o\n${2 ** 53 + 2}\n${root}\n`], ['a size of 20 digits', `o\n${'9'.repeat(20)}\n${root}\n`], ['a space before its size', `o\n 1\n${root}\n`], ['no size', `o\n\n${root}\n`], ['no origin', `\n1\n${root}\n`],
    ['no root', 'o\n1\n\n'], ['two lines', 'o\n1\n'], ['a root that is cut', `o\n1\n${head.root.subarray(1).toString('base64')}\n`], ['a root that is too long', `o\n1\n${Buffer.alloc(33).toString('base64')}\n`], ['a root without its padding', `o\n1\n${root.slice(0, -1)}\n`], ['a root in hexadecimal', `o\n1\n${head.root.toString('hex')}\n`], ['nothing', ''],
  ])('is none with %s, even if it is signed', (_, text) => {
    expect(() => parseCheckpointText(text)).toThrow('this is no checkpoint');
    const signedText = formatNote({ text, signatures: [{ name: keys[0].name, keyId: keys[0].id, signature: sign(null, Buffer.from(text), signing.ed25519.privateKey) }] });
    expect(() => openCheckpoint(signedText, [keys[0]])).toThrow(Error);
  });

  it('may be as large as 2^48', () => {
    expect(parseCheckpointText(`o\n${2 ** 48}\n${root}\n`).size).toBe(2 ** 48);
  });

  it('may have extension lines, which the log has signed', () => {
    const text = `${ORIGIN}\n1\n${root}\nextension\n`;
    const extended = formatNote({ text, signatures: [{ name: keys[0].name, keyId: keys[0].id, signature: sign(null, Buffer.from(text), signing.ed25519.privateKey) }] });
    expect(openCheckpoint(extended, [keys[0]])).toMatchObject({ size: 1 });
  });

  it('has a cosigner of another name than the log', () => {
    expect(keys.map(({ name, type }) => [name, type])).toEqual([[ORIGIN, 1], [`${ORIGIN}/ml-dsa-44`, 6]]);
    expect(keys[0].id).toEqual(verifierKey(ORIGIN, signing.ed25519.publicKey).id);
  });

  it('is not signed for a name that a cosignature cannot hold', () => {
    expect(() => signCheckpoint({ ...head, origin: 'o'.repeat(250) }, signing, NOW_MS)).toThrow('1 to 255 bytes');
    expect(() => signCheckpoint({ ...head, origin: 'a b' }, signing, NOW_MS)).toThrow('neither spaces');
  });
});
