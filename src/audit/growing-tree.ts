import { emptyRoot, rootOf } from './merkle.ts';
import { splitHashes, TILE_WIDTH, tileWidth, type TileId } from './tlog-tiles.ts';

/** A tile with more hashes than before. */
export interface GrownTile extends TileId {
  hashes: Buffer;
}

/** The right edge of the tree: all that is needed to add leaves, and to know the root. Pure; at most 255 hashes a level. */
export class GrowingTree {
  readonly #edge: Buffer[][];

  private constructor(
    private leaves: number,
    edge: Buffer[][],
  ) {
    this.#edge = edge;
  }

  static empty(): GrowingTree {
    return new GrowingTree(0, []);
  }

  /** The tiles that {@link load} needs. */
  static edgeTiles(size: number): TileId[] {
    const tiles: TileId[] = [];
    for (let level = 0; TILE_WIDTH ** level <= size; level++) {
      const id = { level, index: Math.floor(size / TILE_WIDTH ** (level + 1)) };
      if (tileWidth(id, size) > 0) tiles.push(id);
    }
    return tiles;
  }

  /** @param tile the hashes of a tile, at least those that the tree has */
  static load(size: number, tile: (id: TileId) => Buffer): GrowingTree {
    const edge: Buffer[][] = [];
    for (const id of GrowingTree.edgeTiles(size)) edge[id.level] = splitHashes(tile(id)).slice(0, tileWidth(id, size)).map((hash) => Buffer.from(hash));
    return new GrowingTree(size, Array.from(edge, (hashes) => hashes ?? []));
  }

  get size(): number {
    return this.leaves;
  }

  root(): Buffer {
    let below: Buffer | undefined;
    for (const hashes of this.#edge) {
      const all = below === undefined ? hashes : [...hashes, below];
      if (all.length > 0) below = rootOf(all);
    }
    return below ?? emptyRoot();
  }

  /** @returns the tiles that grew */
  append(leafHashes: readonly Buffer[]): GrownTile[] {
    const grown = new Map<string, GrownTile>();
    for (const hash of leafHashes) {
      this.#push(0, hash, grown);
      this.leaves += 1;
    }
    const last = { level: 0, index: Math.floor(this.leaves / TILE_WIDTH) };
    if (tileWidth(last, this.leaves) > 0) grown.set(`0/${last.index}`, { ...last, hashes: Buffer.concat(this.#edge[0]!) });
    return [...grown.values()];
  }

  #push(level: number, hash: Buffer, grown: Map<string, GrownTile>): void {
    const hashes = (this.#edge[level] ??= []);
    hashes.push(hash);
    const whole = hashes.length === TILE_WIDTH;
    if (level > 0 || whole) {
      const index = Math.floor(this.leaves / TILE_WIDTH ** (level + 1));
      grown.set(`${level}/${index}`, { level, index, hashes: Buffer.concat(hashes) });
    }
    if (!whole) return;
    const root = rootOf(hashes);
    this.#edge[level] = [];
    this.#push(level + 1, root, grown);
  }
}
