import { openCheckpoint, type Checkpoint } from './checkpoint.ts';
import { GrowingTree } from './growing-tree.ts';
import { nameFault, type LogFault, type LogReport } from './log-faults.ts';
import { emptyRoot, leafHash } from './merkle.ts';
import type { VerifierKey } from './signed-note.ts';
import { readEntryBundle, splitHashes, TILE_WIDTH, tilePath, tilesOfLevel, tileWidth } from './tlog-tiles.ts';

const REQUESTS_AT_ONCE = 8;
const TIMEOUT_MS = 30_000;
const BODY_BYTES_MAX = TILE_WIDTH * (65_535 + 2);
const TRIES = 4;

export interface RemoteLog {
  /** Of the gateway, without path. */
  url: string;
  token: string;
}

interface Tile {
  index: number;
  hashes: Buffer[];
  /** Undefined where this caller may not read the leaves, or they are pruned. */
  entries: Buffer[] | 'pruned' | 'missing' | undefined;
}

/**
 * Checks a log over HTTP, as any auditor can: that the hashes of all leaves make the root that was signed, that an older checkpoint is its beginning, and
 * that the leaves are those of the hashes, as far as the caller may read them.
 *
 * @param older a checkpoint that was kept from before
 */
export async function verifyRemote(log: RemoteLog, keys: readonly VerifierKey[], older: string | undefined, onProgress: (leaves: number, of: number) => void): Promise<LogReport> {
  const faults: LogFault[] = [];
  const head = openCheckpoint((await get(log, 'checkpoint')).toString(), keys);
  const old = older === undefined ? undefined : openCheckpoint(older, keys);
  if (old !== undefined && old.origin !== head.origin) throw new Error(`the older checkpoint is one of another log, ${old.origin}`);
  if (old !== undefined && old.size > head.size) faults.push({ kind: 'checkpoint', index: head.size, detail: `the older checkpoint covers ${old.size} leaves, and the log has ${head.size}: it was cut off` });
  const tree = GrowingTree.empty();
  let leavesRead = 0;
  let prunedBelow = 0;
  const count = tilesOfLevel(0, head.size);
  for (let first = 0; first < count && faults.length === 0; first += REQUESTS_AT_ONCE) {
    const indexes = Array.from({ length: Math.min(REQUESTS_AT_ONCE, count - first) }, (_, place) => first + place);
    for (const tile of await Promise.all(indexes.map((index) => readTile(log, index, head.size)))) {
      if (Array.isArray(tile.entries)) {
        const fault = firstDifference(tile.index, tile.hashes, tile.entries);
        if (fault !== undefined) faults.push(fault);
        else leavesRead += tile.entries.length;
      } else if (tile.entries === 'missing') {
        faults.push({ kind: 'missing', index: tile.index * TILE_WIDTH, detail: `the leaves from here to ${tile.index * TILE_WIDTH + tile.hashes.length - 1} were signed, and are not all there` });
      } else if (tile.entries === 'pruned') {
        prunedBelow = (tile.index + 1) * TILE_WIDTH;
      }
      growPast(tree, tile.hashes, old, faults);
    }
    onProgress(tree.size, head.size);
  }
  if (faults.length === 0 && !(head.size === 0 ? emptyRoot() : tree.root()).equals(head.root)) faults.push({ kind: 'checkpoint', index: undefined, detail: 'the hashes of the leaves do not make the root that was signed' });
  return { origin: head.origin, size: head.size, prunedBelow, leavesRead, checkpoints: old === undefined ? 1 : 2, faults };
}

/** The verifier keys that a gateway tells: for a first look. */
export async function remoteKeys(log: RemoteLog): Promise<string> {
  return (await get(log, 'keys')).toString();
}

/** Stops where the older checkpoint was signed, and compares. */
function growPast(tree: GrowingTree, hashes: readonly Buffer[], old: Checkpoint | undefined, faults: LogFault[]): void {
  const before = old === undefined || old.size <= tree.size || old.size > tree.size + hashes.length ? 0 : old.size - tree.size;
  tree.append(hashes.slice(0, before));
  if (before > 0 && !tree.root().equals(old!.root)) faults.push({ kind: 'checkpoint', index: undefined, detail: `the first ${old!.size} leaves are not those that the older checkpoint covers: the log was rewritten` });
  tree.append(hashes.slice(before));
}

function firstDifference(tileIndex: number, hashes: readonly Buffer[], entries: readonly Buffer[]): LogFault | undefined {
  const found = entries.map(leafHash);
  const place = hashes.findIndex((hash, at) => found[at]?.equals(hash) !== true);
  if (place < 0) return undefined;
  return nameFault(tileIndex * TILE_WIDTH + place, {
    expected: hashes[place]!, expectedNext: hashes[place + 1], found: found[place], foundNext: found[place + 1], foundElsewhere: found[place] !== undefined && hashes.some((hash) => hash.equals(found[place]!)),
  });
}

async function readTile(log: RemoteLog, index: number, size: number): Promise<Tile> {
  const width = tileWidth({ level: 0, index }, size);
  const [hashes, entries] = await Promise.all([
    get(log, `tile/${tilePath({ kind: 'hashes', level: 0, index, width })}`),
    get(log, `tile/${tilePath({ kind: 'entries', level: 0, index, width })}`, [403, 404, 410]),
  ]);
  const split = splitHashes(hashes);
  if (split.length !== width) throw new Error(`tile 0/${index} has ${split.length} hashes in place of ${width}`);
  return { index, hashes: split, entries: Buffer.isBuffer(entries) ? readEntryBundle(entries) : entries === 410 ? 'pruned' : entries === 404 ? 'missing' : undefined };
}

/** @param expected statuses that are an answer too, and are returned as such */
async function get(log: RemoteLog, path: string): Promise<Buffer>;
async function get(log: RemoteLog, path: string, expected: readonly number[]): Promise<Buffer | number>;
async function get({ url, token }: RemoteLog, path: string, expected: readonly number[] = []): Promise<Buffer | number> {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`${url}/audit/v1/${path}`, { headers: { authorization: `Bearer ${token}` }, redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (expected.includes(response.status)) return response.status;
    const body = Buffer.from(await response.arrayBuffer());
    if (response.status === 200 && body.length <= BODY_BYTES_MAX) return body;
    if ((response.status !== 429 && response.status !== 503) || attempt === TRIES) throw new Error(`${url} answered ${response.status} to GET /audit/v1/${path}`);
    await new Promise((resolve) => setTimeout(resolve, Math.min(60, Number(response.headers.get('retry-after') ?? 1)) * 1000));
  }
}
