import { openCheckpoint, type Checkpoint } from './checkpoint.ts';
import { HASH_BYTES, rootFromInclusion } from './merkle.ts';
import type { VerifierKey } from './signed-note.ts';

// That a leaf is in the log, in one text that needs nothing else but the log's keys.
// @see https://c2sp.org/tlog-proof

const HEADER = 'c2sp.org/tlog-proof@v1';
const HASHES_MAX = 63;

export interface TlogProof {
  index: number;
  hashes: readonly Buffer[];
  /** The signed note. */
  checkpoint: string;
}

export function formatProof({ index, hashes, checkpoint }: TlogProof): string {
  return `${HEADER}\nindex ${index}\n${hashes.map((hash) => `${hash.toString('base64')}\n`).join('')}\n${checkpoint}`;
}

/** @throws {Error} for what is no proof */
export function parseProof(text: string): TlogProof {
  const end = text.indexOf('\n\n');
  const [header, ...rest] = text.slice(0, Math.max(end, 0)).split('\n');
  const lines = rest[0]?.startsWith('extra ') ? rest.slice(1) : rest;
  const index = /^index (0|[1-9]\d{0,14})$/.exec(lines[0] ?? '')?.[1];
  if (header !== HEADER || index === undefined || lines.length - 1 > HASHES_MAX) throw new Error('this is no proof of a transparency log');
  const hashes = lines.slice(1).map((line) => {
    const hash = Buffer.from(line, 'base64');
    if (hash.length !== HASH_BYTES || hash.toString('base64') !== line) throw new Error('a hash of the proof is damaged');
    return hash;
  });
  return { index: Number(index), hashes, checkpoint: text.slice(end + 2) };
}

/**
 * Checks that a leaf is where the proof says, in the log that the keys are of.
 *
 * @throws {Error} saying what is wrong
 */
export function checkProof(text: string, leaf: Buffer, keys: readonly VerifierKey[]): Checkpoint {
  const { index, hashes, checkpoint } = parseProof(text);
  const head = openCheckpoint(checkpoint, keys);
  if (rootFromInclusion(index, head.size, leaf, hashes)?.equals(head.root) !== true) throw new Error(`the proof does not lead from the leaf at ${index} to the checkpoint`);
  return head;
}
