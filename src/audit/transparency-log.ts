import type { Pool } from 'pg';
import { HASH_BYTES, inclusionPath, type LeafRange } from './merkle.ts';
import { rangeRoot, TILE_WIDTH, tilesFor, tileWidth, type TileId, type TilePath } from './tlog-tiles.ts';
import { formatProof } from './tlog-proof.ts';

/** What answers SQL: a pool, or a client of its own. */
export type Query = Pick<Pool, 'query'>;

export interface LogHead {
  origin: string;
  /** Leaves that have an index. */
  size: number;
  /** Leaves of which the tiles are made. */
  treeSize: number;
  /** Leaves below are gone by policy. */
  prunedBelow: number;
}

/** The log is not what was signed before, or not whole. */
export class ContradictionError extends Error {
  override readonly name = 'ContradictionError';
}

/** What is asked for was dropped at the end of its retention. Its place in the tree still verifies. */
export class PrunedError extends Error {
  override readonly name = 'PrunedError';
}

export async function readHead(query: Query): Promise<LogHead> {
  const { rows: [row] } = await query.query<Record<'origin' | 'size' | 'tree_size' | 'pruned_below', string>>('SELECT origin, size, tree_size, pruned_below FROM audit_head');
  return { origin: row!.origin, size: Number(row!.size), treeSize: Number(row!.tree_size), prunedBelow: Number(row!.pruned_below) };
}

/** The checkpoint signed last, or undefined before the first. */
export async function latestCheckpoint(query: Query): Promise<{ size: number; note: string } | undefined> {
  const { rows: [row] } = await query.query<{ size: string; note: string }>('SELECT size, note FROM audit_checkpoints ORDER BY size DESC LIMIT 1');
  return row && { size: Number(row.size), note: row.note };
}

/**
 * Reads tiles.
 *
 * @param size of the tree: a tile may have more hashes by now
 * @returns a look-up that throws a {@link ContradictionError} where one has fewer hashes than the tree, or is not there
 */
export async function readTiles(query: Query, ids: readonly TileId[], size: number): Promise<(id: TileId) => Buffer> {
  const tiles = new Map<string, Buffer>();
  const { rows } = await query.query<{ level: number; index: string; hashes: Buffer }>(
    'SELECT t.level, t.index, t.hashes FROM audit_tiles t JOIN unnest($1::smallint[], $2::bigint[]) AS asked (level, index) ON t.level = asked.level AND t.index = asked.index',
    [ids.map(({ level }) => level), ids.map(({ index }) => index)]);
  for (const { level, index, hashes } of rows) tiles.set(`${level}/${index}`, hashes);
  return (id) => {
    const tile = tiles.get(`${id.level}/${id.index}`);
    const bytes = tileWidth(id, size) * HASH_BYTES;
    if (tile === undefined || tile.length < bytes) throw new ContradictionError(`tile ${id.level}/${id.index} of the audit log is not whole`);
    return tile.subarray(0, bytes);
  };
}

/** Hashes of leaves in order, as they were stored with them. */
export async function readLeafHashes(query: Query, { start, end }: LeafRange): Promise<Buffer> {
  const { rows: [row] } = await query.query<{ hashes: Buffer | null }>("SELECT string_agg(leaf_hash, ''::bytea ORDER BY index) AS hashes FROM audit_leaves WHERE index >= $1 AND index < $2", [start, end]);
  return row!.hashes ?? Buffer.alloc(0);
}

export async function readRoots(query: Query, ranges: readonly LeafRange[], size: number): Promise<Buffer[]> {
  const tile = await readTiles(query, ranges.flatMap(tilesFor), size);
  return ranges.map((range) => rangeRoot(range, tile));
}

/**
 * That a leaf is in the log, as `tlog-proof`.
 *
 * @returns undefined for a leaf that no checkpoint covers yet
 * @throws {PrunedError}
 */
export async function proveInclusion(query: Query, index: number): Promise<string | undefined> {
  const [checkpoint, { prunedBelow }] = await Promise.all([latestCheckpoint(query), readHead(query)]);
  if (checkpoint === undefined || index >= checkpoint.size) return undefined;
  if (index < prunedBelow) throw new PrunedError();
  const hashes = await readRoots(query, inclusionPath(index, checkpoint.size), checkpoint.size);
  return formatProof({ index, hashes, checkpoint: checkpoint.note });
}

/**
 * A tile of hashes. Tiles outlive the leaves, so that whoever has an old checkpoint can still see that the log goes on from it.
 *
 * @returns undefined for one that the tree does not have, or not that wide
 */
export async function readHashTile(query: Query, { width, ...id }: TilePath): Promise<Buffer | undefined> {
  const { treeSize } = await readHead(query);
  if (tileWidth(id, treeSize) < width) return undefined;
  return (await readTiles(query, [id], treeSize))(id).subarray(0, width * HASH_BYTES);
}

/**
 * The leaves under a tile of level 0.
 *
 * @returns undefined where the log does not have all of them
 * @throws {PrunedError}
 */
export async function readEntries(query: Query, { index, width }: Pick<TilePath, 'index' | 'width'>): Promise<Buffer[] | undefined> {
  const { treeSize, prunedBelow } = await readHead(query);
  const start = index * TILE_WIDTH;
  if (start + width > treeSize) return undefined;
  if (start < prunedBelow) throw new PrunedError();
  const { rows } = await query.query<{ body: Buffer }>('SELECT body FROM audit_leaves WHERE index >= $1 AND index < $2 ORDER BY index', [start, start + width]);
  return rows.length === width ? rows.map(({ body }) => body) : undefined;
}
