import { HASH_BYTES, nodeHash, powerOfTwoBelow, rootOf, type LeafRange } from './merkle.ts';

// Tiles of the log: 256 hashes each, of the leaves at level 0, of whole tiles of the level below at the others.
// @see https://c2sp.org/tlog-tiles

export const TILE_WIDTH = 256;
const TILE_HEIGHT = 8;
const LEVEL_MAX = 5;
/** The length of an entry is told in two bytes. */
const LENGTH_BYTES = 2;

export interface TileId {
  level: number;
  index: number;
}

/** What a path under `/tile/` asks for. */
export interface TilePath extends TileId {
  /** Entries are the leaves' own bytes. */
  kind: 'hashes' | 'entries';
  /** Fewer than 256 for the last tile of a level. */
  width: number;
}

/** @returns undefined for what is no tile's path */
export function parseTilePath(path: string): TilePath | undefined {
  const [, level, number, partial] = /^(0|[1-9]\d?|entries)\/((?:x\d{3}\/){0,4}\d{3})(?:\.p\/([1-9]\d{0,2}))?$/.exec(path) ?? [];
  if (level === undefined || number === undefined) return undefined;
  const index = Number(number.replaceAll(/[x/]/g, ''));
  const width = partial === undefined ? TILE_WIDTH : Number(partial);
  if (tileNumber(index) !== number || width > TILE_WIDTH || (partial !== undefined && width === TILE_WIDTH)) return undefined;
  if (level === 'entries') return { kind: 'entries', level: 0, index, width };
  return Number(level) > LEVEL_MAX ? undefined : { kind: 'hashes', level: Number(level), index, width };
}

/** `0/x001/x234/067`, or `entries/000.p/17`. */
export function tilePath({ kind, level, index, width }: TilePath): string {
  return `${kind === 'entries' ? 'entries' : level}/${tileNumber(index)}${width === TILE_WIDTH ? '' : `.p/${width}`}`;
}

function tileNumber(index: number): string {
  const digits = String(index);
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, '0').match(/\d{3}/g)!;
  return groups.map((group, place) => (place === groups.length - 1 ? group : `x${group}`)).join('/');
}

/** How many hashes a tile has in a tree. */
export function tileWidth({ level, index }: TileId, size: number): number {
  const hashes = Math.floor(size / TILE_WIDTH ** level);
  return Math.max(0, Math.min(TILE_WIDTH, hashes - index * TILE_WIDTH));
}

/** All tiles of a level that have anything in them. */
export function tilesOfLevel(level: number, size: number): number {
  return Math.ceil(Math.floor(size / TILE_WIDTH ** level) / TILE_WIDTH);
}

/** A bundle of entries: each with its length before it, big-endian. */
export function entryBundle(bodies: readonly Buffer[]): Buffer {
  return Buffer.concat(bodies.flatMap((body) => {
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt16BE(body.length);
    return [length, body];
  }));
}

/** @throws {Error} for a bundle that is cut off */
export function readEntryBundle(bundle: Buffer): Buffer[] {
  const bodies: Buffer[] = [];
  let at = 0;
  while (at < bundle.length) {
    const end = at + LENGTH_BYTES > bundle.length ? Number.POSITIVE_INFINITY : at + LENGTH_BYTES + bundle.readUInt16BE(at);
    if (end > bundle.length) throw new Error('a bundle of entries is cut off');
    bodies.push(bundle.subarray(at + LENGTH_BYTES, end));
    at = end;
  }
  return bodies;
}

/** Hashes of a tile one by one. */
export function splitHashes(tile: Buffer): Buffer[] {
  return Array.from({ length: Math.floor(tile.length / HASH_BYTES) }, (_, place) => tile.subarray(place * HASH_BYTES, (place + 1) * HASH_BYTES));
}

/** The tiles from which the root over a range is made. Ranges are those of proofs, and whole trees. */
export function tilesFor(range: LeafRange): TileId[] {
  return perfectSubtrees(range).map(({ start, end }) => tileOf(start, end - start));
}

/**
 * Root over a range.
 *
 * @param tile the hashes of a tile named by {@link tilesFor}, at least those that the tree has
 */
export function rangeRoot(range: LeafRange, tile: (id: TileId) => Buffer): Buffer {
  const roots = perfectSubtrees(range).map(({ start, end }) => {
    const id = tileOf(start, end - start);
    const first = start / TILE_WIDTH ** id.level - id.index * TILE_WIDTH;
    const count = (end - start) / TILE_WIDTH ** id.level;
    const hashes = splitHashes(tile(id)).slice(first, first + count);
    if (hashes.length !== count) throw new Error(`tile ${id.level}/${id.index} has not all the hashes of its tree`);
    return rootOf(hashes);
  });
  return roots.reduceRight((right, left) => nodeHash(left, right));
}

/** From the largest to the smallest: the splits of RFC 6962, followed down the right side. */
function perfectSubtrees({ start, end }: LeafRange): LeafRange[] {
  const size = end - start;
  if (size === 1) return [{ start, end }];
  const split = powerOfTwoBelow(size);
  return split * 2 === size ? [{ start, end }] : [{ start, end: start + split }, ...perfectSubtrees({ start: start + split, end })];
}

function tileOf(start: number, leaves: number): TileId {
  const level = Math.floor(Math.log2(leaves) / TILE_HEIGHT);
  return { level, index: Math.floor(start / TILE_WIDTH ** (level + 1)) };
}
