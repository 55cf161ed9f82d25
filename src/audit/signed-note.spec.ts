import { describe, expect, it } from '@jest/globals';
import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { ED25519, formatNote, formatVerifierKey, ML_DSA_44, parseNote, parseVerifierKey, signatureOf, verifierKey } from './signed-note.ts';

const NAME = 'log.example/one';
const ed25519 = generateKeyPairSync('ed25519').publicKey;
const mlDsa44 = generateKeyPairSync('ml-dsa-44').publicKey;

/** The raw key, by its JWK where it has one. */
function rawOf(key: KeyObject): Buffer {
  const { x, pub } = key.export({ format: 'jwk' }) as { x?: string; pub?: string };
  return Buffer.from((x ?? pub)!, 'base64url');
}

describe('a verifier key', () => {
  it.each<[string, number, KeyObject, number]>([['Ed25519', 1, ed25519, 32], ['ML-DSA-44', 6, mlDsa44, 1312]])('of %s is written as C2SP says, and read again', (_, type, publicKey, bytes) => {
    const raw = rawOf(publicKey);
    expect(raw).toHaveLength(bytes);
    const id = createHash('sha256').update(`${NAME}\n`).update(Buffer.of(type)).update(raw).digest('hex').slice(0, 8);
    const line = `${NAME}+${id}+${Buffer.concat([Buffer.of(type), raw]).toString('base64')}`;
    expect(formatVerifierKey(verifierKey(NAME, publicKey))).toBe(line);
    const read = parseVerifierKey(line);
    expect({ ...read, publicKey: undefined }).toEqual({ name: NAME, type: type === 1 ? ED25519 : ML_DSA_44, id: Buffer.from(id, 'hex'), publicKey: undefined });
    expect(read.publicKey.equals(publicKey)).toBe(true);
  });

  it('of the Go checksum database is read', () => {
    // Its published key: https://go.dev/ref/mod#checksum-database
    expect(parseVerifierKey('sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8')).toMatchObject({ name: 'sum.golang.org', type: ED25519 });
  });

  it('has an id that depends on the name', () => {
    expect(verifierKey('a', ed25519).id).not.toEqual(verifierKey('b', ed25519).id);
  });

  it.each(['', ' ', 'a b', 'a+b', 'a\nb', 'a\tb', 'a\u00a0b', 'a\u2003b'])('has no name like %j', (name) => {
    expect(() => verifierKey(name, ed25519)).toThrow('neither spaces nor plus signs');
  });

  it('is of no other kind', () => {
    expect(() => verifierKey(NAME, generateKeyPairSync('ed448').publicKey)).toThrow('not by ed448');
    expect(() => verifierKey(NAME, generateKeyPairSync('ml-dsa-65').publicKey)).toThrow('not by ml-dsa-65');
  });

  const line = formatVerifierKey(verifierKey(NAME, ed25519));
  const [, id, key] = /^\S+\+([0-9a-f]{8})\+(\S+)$/.exec(line)!;
  const typed = (type: number, raw: Buffer): string => {
    const other = createHash('sha256').update(`${NAME}\n`).update(Buffer.of(type)).update(raw).digest('hex').slice(0, 8);
    return `${NAME}+${other}+${Buffer.concat([Buffer.of(type), raw]).toString('base64')}`;
  };
  it.each<[string, string]>([
    ['nothing', ''], ['a name alone', NAME], ['no key', `${NAME}+${id}`], ['an empty key', `${NAME}+${id}+`], ['another id', `${NAME}+${id === '00000000' ? '00000001' : '00000000'}+${key}`], ['another name', `${NAME}x+${id}+${key}`],
    ['an id of other length', `${NAME}+${id}0+${key}`], ['an id in capitals', `${NAME}+ABCDEF01+${key}`], ['no name', `+${id}+${key}`], ['a plus sign in the name', `a+${line}`], ['a space before', ` ${line}`], ['a space behind', `${line} `], ['a line break behind', `${line}\n`],
    ['a key that is cut', line.slice(0, -4)], ['a key that is longer', `${line}AAAA`], ['base64 for URLs', `${NAME}+${id}+${'-'.repeat(key!.length)}`],
    ['a cosignature of Ed25519', typed(4, rawOf(ed25519))], ['an unknown type', typed(0xff, rawOf(ed25519))], ['ML-DSA-44 with a key of Ed25519', typed(6, rawOf(ed25519))], ['Ed25519 with a key of ML-DSA-44', typed(1, rawOf(mlDsa44))],
  ])('is not read from %s', (_, text) => {
    expect(() => parseVerifierKey(text)).toThrow(Error);
  });

  it('is not read with any one letter changed', () => {
    const read: string[] = [];
    for (let at = 0; at < line.length; at++) {
      for (const letter of ['A', 'b', '0', '+', '/', ' ', '\n']) {
        const other = `${line.slice(0, at)}${letter}${line.slice(at + 1)}`;
        if (other === line) continue;
        try {
          parseVerifierKey(other);
          read.push(other);
        } catch {
          // refused
        }
      }
    }
    expect(read).toEqual([]);
  });
});

describe('a signed note', () => {
  const signature = { name: NAME, keyId: Buffer.from('01020304', 'hex'), signature: Buffer.from('signature') };
  const base64 = Buffer.from('01020304' + Buffer.from('signature').toString('hex'), 'hex').toString('base64');

  it('is the text, an empty line, and a line for each signature', () => {
    const note = formatNote({ text: 'one\ntwo\n', signatures: [signature, { ...signature, name: 'other' }] });
    expect(note).toBe(`one\ntwo\n\n\u2014 ${NAME} ${base64}\n\u2014 other ${base64}\n`);
    expect(parseNote(note)).toEqual({ text: 'one\ntwo\n', signatures: [signature, { ...signature, name: 'other' }] });
  });

  it('may have empty lines in its text: the last one is before the signatures', () => {
    expect(parseNote(`one\n\nthree\n\n\u2014 a ${base64}\n`).text).toBe('one\n\nthree\n');
  });

  it('as the specification shows it is read', () => {
    const note = 'Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n';
    const { text, signatures } = parseNote(note);
    expect(text).toBe('Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n');
    expect(signatures.map(({ name, keyId, signature: bytes }) => [name, keyId.toString('hex'), bytes.length])).toEqual([['quasimodo.example/salvatore', '367ba04b', 64]]);
    expect(formatNote({ text, signatures })).toBe(note);
  });

  it('may have sixteen signatures, as every verifier must take, and not seventeen', () => {
    const lines = (count: number): string => `a\n\n${`\u2014 a ${base64}\n`.repeat(count)}`;
    expect(parseNote(lines(16)).signatures).toHaveLength(16);
    expect(() => parseNote(lines(17))).toThrow('at most 16');
  });

  it.each<[string, string]>([
    ['nothing', ''], ['no empty line', `a\n\u2014 a ${base64}\n`], ['no signature', 'a\n\n'], ['no line break at the end', `a\n\n\u2014 a ${base64}`], ['a line that is no signature', `a\n\n\u2014 a ${base64}\nand more\n`], ['an empty line at the end', `a\n\n\u2014 a ${base64}\n\n`],
    ['a carriage return', `a\r\n\n\u2014 a ${base64}\n`], ['a tabulator', `a\tb\n\n\u2014 a ${base64}\n`], ['NUL', `a\u0000\n\n\u2014 a ${base64}\n`], ['a hyphen in place of the dash', `a\n\n- a ${base64}\n`], ['no name', `a\n\n\u2014  ${base64}\n`], ['a name with a plus sign', `a\n\n\u2014 a+b ${base64}\n`],
    ['a name with a space', `a\n\n\u2014 a b ${base64}\n`], ['two spaces', `a\n\n\u2014 a  ${base64}\n`], ['a space behind', `a\n\n\u2014 a ${base64} \n`], ['no signature behind the key id', 'a\n\n\u2014 a AQIDBA==\n'], ['less than a key id', 'a\n\n\u2014 a AQI=\n'], ['no base64', 'a\n\n\u2014 a ****\n'],
    ['base64 without its end', `a\n\n\u2014 a ${Buffer.alloc(8).toString('base64').replaceAll('=', '')}\n`], ['base64 whose last letter has bits to spare', 'a\n\n\u2014 a AQIDBAUGBwR=\n'], ['base64 for URLs', 'a\n\n\u2014 a AQIDBAU-_w==\n'],
  ])('is not read with %s', (_, note) => {
    expect(() => parseNote(note)).toThrow(Error);
  });

  it('has a key’s signature where both name and id are that key’s', () => {
    const key = verifierKey(NAME, ed25519);
    const own = { name: NAME, keyId: key.id, signature: Buffer.from('own') };
    const others = [{ ...own, name: 'other' }, { ...own, keyId: Buffer.from('00000000', 'hex') }];
    expect(signatureOf({ text: 'a\n', signatures: [...others, own] }, key)).toBe(own);
    expect(signatureOf({ text: 'a\n', signatures: others }, key)).toBeUndefined();
  });
});
