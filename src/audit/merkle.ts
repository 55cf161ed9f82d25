import { hash } from 'node:crypto';

/** Hashes of the tree are SHA-256 throughout. */
export const HASH_BYTES = 32;
const LEAF_PREFIX = Buffer.of(0);
const NODE_PREFIX = Buffer.of(1);

/** Leaf indexes from `start` up to, but without, `end`. */
export interface LeafRange {
  start: number;
  end: number;
}

/** RFC 6962, section 2.1: the two kinds of hash have different prefixes, so that a node never passes for a leaf. */
export function leafHash(body: Buffer): Buffer {
  return sha256(Buffer.concat([LEAF_PREFIX, body]));
}

export function nodeHash(left: Buffer, right: Buffer): Buffer {
  return sha256(Buffer.concat([NODE_PREFIX, left, right]));
}

/** Root of the tree without leaves. */
export function emptyRoot(): Buffer {
  return sha256(Buffer.alloc(0));
}

/**
 * Root over equal subtrees in order, of which the last may be smaller: the split at the largest power of two below their number is also that of their
 * leaves.
 *
 * @param hashes one or more
 */
export function rootOf(hashes: readonly Buffer[]): Buffer {
  if (hashes.length === 1) return hashes[0]!;
  const split = powerOfTwoBelow(hashes.length);
  return nodeHash(rootOf(hashes.slice(0, split)), rootOf(hashes.slice(split)));
}

/** Largest power of two below a number of two or more. */
export function powerOfTwoBelow(count: number): number {
  return 2 ** Math.floor(Math.log2(count - 1));
}

/**
 * The subtrees whose roots prove that a leaf is in a tree, nearest to the leaf first (RFC 6962, section 2.1.1).
 *
 * @param index below `size`
 */
export function inclusionPath(index: number, size: number): LeafRange[] {
  return path(index, { start: 0, end: size });
}

function path(index: number, { start, end }: LeafRange): LeafRange[] {
  if (end - start === 1) return [];
  const middle = start + powerOfTwoBelow(end - start);
  return index < middle
    ? [...path(index, { start, end: middle }), { start: middle, end }]
    : [...path(index, { start: middle, end }), { start, end: middle }];
}

/** Root that a leaf hash and its inclusion proof come to; undefined where their number does not fit the place (RFC 9162, section 2.1.3.2). */
export function rootFromInclusion(index: number, size: number, leaf: Buffer, proof: readonly Buffer[]): Buffer | undefined {
  if (!Number.isSafeInteger(index) || index < 0 || index >= size) return undefined;
  const ranges = inclusionPath(index, size);
  if (ranges.length !== proof.length) return undefined;
  return proof.reduce((below, sibling, step) => (ranges[step]!.start > index ? nodeHash(below, sibling) : nodeHash(sibling, below)), leaf);
}

/** The subtrees whose roots prove that the tree of `oldSize` leaves is the beginning of that of `size` (RFC 6962, section 2.1.2). */
export function consistencyPath(oldSize: number, size: number): LeafRange[] {
  if (oldSize === 0 || oldSize === size) return [];
  return subproof(oldSize, { start: 0, end: size }, true);
}

function subproof(oldSize: number, { start, end }: LeafRange, whole: boolean): LeafRange[] {
  if (oldSize === end) return whole ? [] : [{ start, end }];
  const middle = start + powerOfTwoBelow(end - start);
  return oldSize <= middle
    ? [...subproof(oldSize, { start, end: middle }, whole), { start: middle, end }]
    : [...subproof(oldSize, { start: middle, end }, false), { start, end: middle }];
}

/** Whether the tree of `oldSize` leaves is the beginning of that of `size` (RFC 9162, section 2.1.4.2). */
export function isConsistent(oldSize: number, oldRoot: Buffer, size: number, root: Buffer, proof: readonly Buffer[]): boolean {
  if (oldSize > size) return false;
  if (oldSize === size) return proof.length === 0 && oldRoot.equals(root);
  if (oldSize === 0) return proof.length === 0 && oldRoot.equals(emptyRoot());
  const hashes = isPowerOfTwo(oldSize) ? [oldRoot, ...proof] : [...proof];
  const first = hashes.shift();
  if (first === undefined) return false;
  let node = oldSize - 1;
  let last = size - 1;
  while (node % 2 === 1) {
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  let oldBelow = first;
  let below = first;
  for (const sibling of hashes) {
    if (last === 0) return false;
    if (node % 2 === 1 || node === last) {
      oldBelow = nodeHash(sibling, oldBelow);
      below = nodeHash(sibling, below);
      while (node % 2 === 0 && node !== 0) {
        node /= 2;
        last = Math.floor(last / 2);
      }
    } else {
      below = nodeHash(below, sibling);
    }
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && oldBelow.equals(oldRoot) && below.equals(root);
}

function isPowerOfTwo(count: number): boolean {
  return count > 0 && 2 ** Math.floor(Math.log2(count)) === count;
}

function sha256(bytes: Buffer): Buffer {
  return hash('sha256', bytes, 'buffer');
}
