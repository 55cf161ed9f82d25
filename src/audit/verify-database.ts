import type { Client } from 'pg';
import { openCheckpoint } from './checkpoint.ts';
import { GrowingTree } from './growing-tree.ts';
import { nameFault, type LogFault, type LogReport } from './log-faults.ts';
import { HASH_BYTES, leafHash } from './merkle.ts';
import type { VerifierKey } from './signed-note.ts';
import { splitHashes, TILE_WIDTH, type TileId } from './tlog-tiles.ts';
import { readHead, readRoots, readTiles, type LogHead } from './transparency-log.ts';

/** A multiple of the tiles' width. */
const LEAVES_PER_READ = 4_096;
const FAULTS_MAX = 20;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

interface Leaf {
  index: number;
  body: Buffer;
  storedHash: Buffer;
  tenantId: string | null;
  requestId: string | null;
}

interface SignedSize {
  size: number;
  root: Buffer;
  place: string;
}

/**
 * Checks the whole log of a database: that each leaf is the one that the tree has, in its place, and that the tree is the one that was signed, by every
 * checkpoint there is. Reads one snapshot, so that the gateway may go on meanwhile.
 *
 * @param keys of the log; both must have signed each checkpoint
 * @param outside checkpoints from elsewhere, by their places
 */
export async function verifyDatabase(client: Client, keys: readonly VerifierKey[], outside: readonly { place: string; note: string }[], onProgress: (leaves: number, of: number) => void): Promise<LogReport> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    return await new DatabaseVerification(client, keys, await readHead(client), onProgress).run(outside);
  } finally {
    await client.query('ROLLBACK');
  }
}

class DatabaseVerification {
  readonly #faults: LogFault[] = [];
  #leavesRead = 0;
  #pruningRecorded = false;

  constructor(
    private readonly client: Client,
    private readonly keys: readonly VerifierKey[],
    private readonly head: LogHead,
    private readonly onProgress: (leaves: number, of: number) => void,
  ) {}

  async run(outside: readonly { place: string; note: string }[]): Promise<LogReport> {
    const signed = await this.#openCheckpoints(outside);
    const size = Math.max(this.head.treeSize, ...signed.map((checkpoint) => checkpoint.size));
    if (!this.#prunedPlausibly(signed)) return this.#report(signed);
    await this.#checkOldCheckpoints(signed);
    await this.#checkLeaves(size, signed.filter((checkpoint) => checkpoint.size > this.head.prunedBelow));
    if (this.#faults.length === 0) await this.#checkBeyond();
    return this.#report(signed);
  }

  #report(signed: readonly SignedSize[]): LogReport {
    return { origin: this.head.origin, size: Math.max(0, ...signed.map((checkpoint) => checkpoint.size)), prunedBelow: this.head.prunedBelow, leavesRead: this.#leavesRead, checkpoints: signed.length, faults: this.#faults };
  }

  /** By size. What cannot be opened is a fault. */
  async #openCheckpoints(outside: readonly { place: string; note: string }[]): Promise<SignedSize[]> {
    const { rows } = await this.client.query<{ size: string; note: string }>('SELECT size, note FROM audit_checkpoints ORDER BY size');
    if (rows.length === 0 && this.head.treeSize > 0) this.#fault({ kind: 'checkpoint', index: undefined, detail: 'the database has no signed checkpoint' });
    const notes: { place: string; note: string; told?: number }[] = [...rows.map(({ size, note }) => ({ place: `the database (size ${size})`, note, told: Number(size) })), ...outside];
    return notes.flatMap(({ place, note, told }) => {
      try {
        const checkpoint = openCheckpoint(note, this.keys);
        if (checkpoint.origin !== this.head.origin) throw new Error(`it is one of ${checkpoint.origin}`);
        if (told !== undefined && told !== checkpoint.size) throw new Error(`it is one of ${checkpoint.size} leaves`);
        return [{ size: checkpoint.size, root: checkpoint.root, place }];
      } catch (error) {
        this.#fault({ kind: 'checkpoint', index: undefined, detail: `the checkpoint in ${place} is not good: ${(error as Error).message}` });
        return [];
      }
    }).toSorted((left, right) => left.size - right.size);
  }

  /** Leaves are pruned by whole tiles, and behind a checkpoint. That the log itself has a record of it is seen once its leaves are read. */
  #prunedPlausibly(signed: readonly SignedSize[]): boolean {
    const { prunedBelow } = this.head;
    if (prunedBelow % TILE_WIDTH === 0 && prunedBelow <= Math.max(0, ...signed.map(({ size }) => size))) return true;
    this.#fault({ kind: 'missing', index: 0, detail: `the leaves below ${prunedBelow} are said to be pruned, but no retention prunes there` });
    return false;
  }

  /** Those of trees whose leaves are pruned, by the tiles that are kept. */
  async #checkOldCheckpoints(signed: readonly SignedSize[]): Promise<void> {
    for (const { size, root, place } of signed) {
      if (size === 0 || size > this.head.prunedBelow) continue;
      const [kept] = await readRoots(this.client, [{ start: 0, end: size }], this.head.treeSize);
      if (!kept!.equals(root)) this.#fault({ kind: 'checkpoint', index: undefined, detail: `the tree is not the one of ${size} leaves that was signed (${place})` });
    }
  }

  async #checkLeaves(size: number, signed: readonly SignedSize[]): Promise<void> {
    const tree = GrowingTree.load(this.head.prunedBelow, await readTiles(this.client, GrowingTree.edgeTiles(this.head.prunedBelow), this.head.treeSize));
    let nextSigned = 0;
    let verified = this.head.prunedBelow;
    // The next leaves are on their way while these are checked.
    let reading = this.#read(tree.size, Math.min(size, tree.size + LEAVES_PER_READ) + 1);
    while (tree.size < size) {
      const start = tree.size;
      const end = Math.min(size, start + LEAVES_PER_READ);
      const expected = await this.#expectedHashes(start, Math.min(end + 1, this.head.treeSize));
      const leaves = await reading;
      reading = this.#read(end, Math.min(size, end + LEAVES_PER_READ) + 1);
      reading.catch(() => {}); // told where it is awaited, unless there is a fault before
      const found = await this.#checkedLeaves(start, end, expected, leaves);
      if (found === undefined) return;
      // Cut where something was signed, to compare the root there.
      let from = start;
      while (from < end) {
        const to = signed[nextSigned] !== undefined && signed[nextSigned]!.size < end ? signed[nextSigned]!.size : end;
        const grown = tree.append(found.slice(from - start, to - start));
        if (!(await this.#sameTiles(grown))) return;
        for (; signed[nextSigned]?.size === to; nextSigned++) {
          const { root, place } = signed[nextSigned]!;
          if (!tree.root().equals(root)) {
            this.#fault({ kind: 'edited', index: verified, detail: `the leaves from ${verified} to ${to - 1} and their tiles are not those of the checkpoint in ${place}: one of them was changed` });
            return;
          }
        }
        if (nextSigned > 0) verified = signed[nextSigned - 1]!.size;
        from = to;
      }
      this.onProgress(tree.size, size);
    }
  }

  /** Hashes of the leaves as the tiles have them. */
  async #expectedHashes(start: number, end: number): Promise<Buffer[]> {
    const ids: TileId[] = [];
    for (let index = Math.floor(start / TILE_WIDTH); index * TILE_WIDTH < end; index++) ids.push({ level: 0, index });
    const { rows } = await this.client.query<{ index: string; hashes: Buffer }>('SELECT index, hashes FROM audit_tiles WHERE level = 0 AND index = ANY ($1) ORDER BY index', [ids.map(({ index }) => index)]);
    const hashes: Buffer[] = [];
    for (const tile of rows) for (const [place, hash] of splitHashes(tile.hashes).entries()) hashes[Number(tile.index) * TILE_WIDTH + place - start] = hash;
    return hashes;
  }

  /** @returns the hashes of the leaves' own bytes; undefined once one is not as expected */
  async #checkedLeaves(start: number, end: number, expected: readonly Buffer[], leaves: ReadonlyMap<number, Leaf>): Promise<Buffer[] | undefined> {
    const hashes: Buffer[] = [];
    for (let index = start; index < end; index++) {
      const leaf = leaves.get(index);
      const found = leaf && leafHash(leaf.body);
      const right = expected[index - start];
      if (right === undefined) {
        this.#fault(found === undefined ? { kind: 'missing', index, detail: 'there is neither a leaf nor a tile at this index, though it was signed' } : { kind: 'tile', index, detail: 'the tile of this leaf is not there, or not whole' });
        return undefined;
      }
      if (leaf === undefined || found === undefined || !found.equals(right)) {
        const next = leaves.get(index + 1);
        this.#fault(nameFault(index, { expected: right, expectedNext: expected[index + 1 - start], found, foundNext: next && leafHash(next.body), foundElsewhere: found !== undefined && (await this.#belongsElsewhere(found)) }));
        return undefined;
      }
      if (!leaf.storedHash.equals(found)) this.#fault({ kind: 'column', index, detail: 'leaf_hash is not the hash of the leaf' });
      this.#checkColumns(leaf);
      hashes.push(found);
    }
    this.#leavesRead += hashes.length;
    return hashes;
  }

  /** The columns by which a leaf is found say what the leaf says: otherwise it would be there, and not be found. */
  #checkColumns({ index, body, tenantId, requestId }: Leaf): void {
    if (this.head.prunedBelow > 0 && body.includes(`"pruned_below":${this.head.prunedBelow},`)) this.#pruningRecorded = true;
    // Nearly always they agree, which is seen without parsing: within a string of JSON these quotes would be escaped.
    if (tenantId !== null && requestId !== null && body.includes(`"correlation_uid":"${requestId}","tenant_uid":${JSON.stringify(tenantId)}`)) return;
    const metadata = metadataOf(body);
    if (metadata === undefined) {
      this.#fault({ kind: 'column', index, detail: 'the leaf is no event' });
      return;
    }
    if ((metadata.tenant_uid ?? null) !== tenantId) this.#fault({ kind: 'column', index, detail: 'tenant_id is not the tenant of the event' });
    const uuid = metadata.correlation_uid !== undefined && UUID.test(metadata.correlation_uid) ? metadata.correlation_uid : null;
    if (uuid !== requestId) this.#fault({ kind: 'column', index, detail: 'request_id is not the request of the event' });
  }

  async #read(start: number, end: number): Promise<Map<number, Leaf>> {
    const { rows } = await this.client.query<{ index: string; body: Buffer; leaf_hash: Buffer; tenant_id: string | null; request_id: string | null }>(
      'SELECT index, body, leaf_hash, tenant_id, request_id FROM audit_leaves WHERE index >= $1 AND index < $2', [start, end]);
    return new Map(rows.map(({ index, body, leaf_hash: storedHash, tenant_id: tenantId, request_id: requestId }) => [Number(index), { index: Number(index), body, storedHash, tenantId, requestId }]));
  }

  async #belongsElsewhere(hash: Buffer): Promise<boolean> {
    const { rows } = await this.client.query<{ at: number }>('SELECT position($1 IN hashes) AS at FROM audit_tiles WHERE level = 0 AND position($1 IN hashes) > 0', [hash]);
    return rows.some(({ at }) => (at - 1) % HASH_BYTES === 0);
  }

  async #sameTiles(grown: readonly { level: number; index: number; hashes: Buffer }[]): Promise<boolean> {
    const above = grown.filter(({ level }) => level > 0);
    if (above.length === 0) return true;
    const { rows } = await this.client.query<{ level: number; index: string; hashes: Buffer }>(
      'SELECT t.level, t.index, t.hashes FROM audit_tiles t JOIN unnest($1::smallint[], $2::bigint[]) AS asked (level, index) ON t.level = asked.level AND t.index = asked.index',
      [above.map(({ level }) => level), above.map(({ index }) => index)]);
    const stored = new Map(rows.map(({ level, index, hashes }) => [`${level}/${index}`, hashes]));
    const wrong = above.find(({ level, index, hashes }) => stored.get(`${level}/${index}`)?.subarray(0, hashes.length).equals(hashes) !== true);
    if (wrong === undefined) return true;
    this.#fault({ kind: 'tile', index: wrong.index * TILE_WIDTH ** (wrong.level + 1), detail: `tile ${wrong.level}/${wrong.index} is not made of the leaves below it` });
    return false;
  }

  async #checkBeyond(): Promise<void> {
    const { rows: [row] } = await this.client.query<{ index: string | null }>('SELECT min(index) AS index FROM audit_leaves WHERE index >= $1 OR index < $2', [this.head.size, this.head.prunedBelow]);
    if (row!.index !== null) this.#fault({ kind: 'inserted', index: Number(row!.index), detail: 'the log never gave this index to a leaf that it still has' });
    if (this.head.prunedBelow > 0 && !this.#pruningRecorded) this.#fault({ kind: 'missing', index: 0, detail: `the leaves below ${this.head.prunedBelow} are gone, and the log has no record of their pruning` });
  }

  #fault(fault: LogFault): void {
    if (this.#faults.length < FAULTS_MAX) this.#faults.push(fault);
  }
}

/** @returns undefined for what is no event */
function metadataOf(body: Buffer): { tenant_uid?: string; correlation_uid?: string } | undefined {
  try {
    const event = JSON.parse(body.toString()) as { metadata?: unknown } | null;
    return typeof event?.metadata === 'object' && event.metadata !== null ? event.metadata : undefined;
  } catch {
    return undefined; // the caller tells it as a fault
  }
}
