import { describe, expect, it } from '@jest/globals';
import { generateKeyPairSync } from 'node:crypto';
import { signCheckpoint, verifierKeys } from './checkpoint.ts';
import { GrowingTree } from './growing-tree.ts';
import { inclusionPath, leafHash, rootOf } from './merkle.ts';
import type { SigningKeys } from './signing-keys.ts';
import { checkProof, formatProof, parseProof } from './tlog-proof.ts';

const ORIGIN = 'novix-gateway/proofs';
const makeKeys = (): SigningKeys => ({ ed25519: generateKeyPairSync('ed25519'), mlDsa44: generateKeyPairSync('ml-dsa-44') });
const signing = makeKeys();
const keys = verifierKeys(ORIGIN, signing);
const SIZE = 11;
const INDEX = 6;
const leaves = Array.from({ length: SIZE }, (_, index) => leafHash(Buffer.from(`leaf ${index}`)));
const tree = GrowingTree.empty();
tree.append(leaves);
const checkpoint = signCheckpoint({ origin: ORIGIN, size: SIZE, root: tree.root() }, signing, 1_790_000_000_000);
const proofOf = (index: number): string => formatProof({ index, hashes: inclusionPath(index, SIZE).map(({ start, end }) => rootOf(leaves.slice(start, end))), checkpoint });
const proof = proofOf(INDEX);
const extended = proof.replace('\nindex ', '\nextra YWdlLXYxLjIuMQ==\nindex ');

/** What a proof proves, or that it proves nothing. */
function proves(text: string, leaf = leaves[INDEX]!): unknown {
  try {
    const { origin, size, root } = checkProof(text, leaf, keys);
    return { index: parseProof(text).index, origin, size, root: root.toString('hex') };
  } catch {
    return undefined;
  }
}
const PROVEN = { index: INDEX, origin: ORIGIN, size: SIZE, root: tree.root().toString('hex') };

describe('a proof', () => {
  it('is the text of c2sp.org/tlog-proof', () => {
    const hashes = inclusionPath(INDEX, SIZE).map(({ start, end }) => rootOf(leaves.slice(start, end)).toString('base64'));
    expect(proof).toBe(`c2sp.org/tlog-proof@v1\nindex 6\n${hashes.join('\n')}\n\n${checkpoint}`);
    expect(hashes).toHaveLength(4);
    expect(parseProof(proof)).toEqual({ index: INDEX, hashes: hashes.map((hash) => Buffer.from(hash, 'base64')), checkpoint });
  });

  it('proves each leaf at its place, and no other', () => {
    for (let index = 0; index < SIZE; index++) {
      expect(proves(proofOf(index), leaves[index])).toEqual({ ...PROVEN, index });
      expect(leaves.filter((leaf) => proves(proofOf(index), leaf) !== undefined)).toEqual([leaves[index]]);
    }
  });

  it('may have a line of extra data, which says nothing', () => {
    expect(proves(extended)).toEqual(PROVEN);
    expect(parseProof(extended)).toEqual(parseProof(proof));
  });

  it('of the only leaf has no hashes', () => {
    const one = formatProof({ index: 0, hashes: [], checkpoint: signCheckpoint({ origin: ORIGIN, size: 1, root: leaves[0]! }, signing, 0) });
    expect(one).toMatch(/^c2sp\.org\/tlog-proof@v1\nindex 0\n\nnovix/);
    expect(proves(one, leaves[0])).toEqual({ index: 0, origin: ORIGIN, size: 1, root: leaves[0]!.toString('hex') });
  });

  it('is not taken by other keys', () => {
    expect(() => checkProof(proof, leaves[INDEX]!, verifierKeys(ORIGIN, makeKeys()))).toThrow('is not signed by');
    expect(() => checkProof(proof, leaves[INDEX]!, [])).toThrow('no key');
  });

  // Harmless is what still proves the very same; of the signatures, every 29th letter.
  it.each([['as it is', proof], ['with extra data', extended]])('%s proves nothing, or the very same, with any one letter changed, taken out or put in', (_, text) => {
    const end = text.indexOf('\u2014');
    const wrong: unknown[] = [];
    let refused = 0;
    for (let at = 0; at <= text.length; at += at < end ? 1 : 29) {
      const letters = ['1', '7', 'A', '=', ' ', '\n', ...(at < 60 ? ['0', '9', 'x', '/', '\t', '\r', '\u00e9'] : [])];
      const others = [...letters.flatMap((letter) => [`${text.slice(0, at)}${letter}${text.slice(at + 1)}`, `${text.slice(0, at)}${letter}${text.slice(at)}`]), text.slice(0, at) + text.slice(at + 1)];
      for (const other of others) {
        const proven = proves(other);
        if (proven === undefined) refused += 1;
        else if (JSON.stringify(proven) !== JSON.stringify(PROVEN)) wrong.push([at, other.slice(Math.max(0, at - 10), at + 10), proven]);
      }
    }
    expect(wrong).toEqual([]);
    expect(refused).toBeGreaterThan(4_000);
  });

  const lines = proof.split('\n');
  const changed = (change: (all: string[]) => void): string => {
    const all = [...lines];
    change(all);
    return all.join('\n');
  };
  it.each<[string, string]>([
    ['nothing', ''], ['a header alone', 'c2sp.org/tlog-proof@v1\n'], ['no checkpoint', lines.slice(0, 7).join('\n')], ['another version', proof.replace('@v1', '@v2')], ['no header', lines.slice(1).join('\n')], ['two headers', `${lines[0]}\n${proof}`], ['no index', changed((all) => all.splice(1, 1))],
    ['a leading zero in its index', proof.replace('index 6', 'index 06')], ['a negative index', proof.replace('index 6', 'index -6')], ['a huge index', proof.replace('index 6', `index ${'6'.repeat(30)}`)], ['another index', proof.replace('index 6', 'index 7')], ['a hash too few', changed((all) => all.splice(2, 1))],
    ['a hash too many', changed((all) => all.splice(2, 0, all[2]!))], ['two hashes swapped', changed((all) => all.splice(2, 2, all[3]!, all[2]!))], ['64 hashes', changed((all) => all.splice(2, 4, ...Array.from({ length: 64 }, () => all[2]!)))], ['line breaks of Windows', proof.replaceAll('\n', '\r\n')],
    ['extra data twice', extended.replace('extra', 'extra QQ==\nextra')], ['extra data behind its index', changed((all) => all.splice(2, 0, 'extra QQ=='))], ['a space behind a hash', changed((all) => all.splice(2, 1, `${all[2]} `))], ['text behind it', `${proof}more\n`], ['a line break behind it', `${proof}\n`],
  ])('is none with %s', (_, text) => {
    expect(proves(text)).toBeUndefined();
  });
});
