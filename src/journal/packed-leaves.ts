/** PostgreSQL's number for `bytea`. */
const BYTEA_OID = 17;

/** Arguments of `audit_append`. */
export interface PackedLeaves {
  /** JSON array of what the leaves are found by, each with its operation's place in the batch as `i`. */
  heads: string;
  /** The leaves, as a `bytea[]` in PostgreSQL's binary form: text would have to be escaped, sent longer, and parsed. */
  bodies: Buffer;
}

/** @param entries of a batch, by the operations' places: a head in one line, and the leaf in the next; undefined for operations without a record */
export function packLeaves(entries: readonly (string | undefined)[]): PackedLeaves {
  let heads = '';
  const leaves: string[] = [];
  let bytes = 0;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i];
    if (entry === undefined) continue;
    const end = entry.indexOf('\n');
    heads += `${heads === '' ? '' : ','}{"i":${i},${entry.slice(1, end)}`;
    const leaf = entry.slice(end + 1);
    leaves.push(leaf);
    bytes += 4 + Buffer.byteLength(leaf);
  }
  return { heads: `[${heads}]`, bodies: byteaArray(leaves, bytes) };
}

/** @see src/backend/utils/adt/arrayfuncs.c of PostgreSQL, array_recv: dimensions, whether there are nulls, type, length, first index; then length and bytes of each. */
function byteaArray(leaves: readonly string[], bytes: number): Buffer {
  const array = Buffer.allocUnsafe(leaves.length === 0 ? 12 : 20 + bytes);
  array.writeInt32BE(leaves.length === 0 ? 0 : 1, 0);
  array.writeInt32BE(0, 4);
  array.writeInt32BE(BYTEA_OID, 8);
  if (leaves.length === 0) return array;
  array.writeInt32BE(leaves.length, 12);
  array.writeInt32BE(1, 16);
  let at = 20;
  for (const leaf of leaves) {
    const length = array.write(leaf, at + 4);
    array.writeInt32BE(length, at);
    at += 4 + length;
  }
  return array;
}
