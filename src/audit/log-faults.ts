/** What is wrong with a log, and from where on. */
export interface LogFault {
  kind: 'edited' | 'missing' | 'reordered' | 'inserted' | 'checkpoint' | 'column' | 'tile';
  /** The first leaf at fault; undefined where it is not about one. */
  index: number | undefined;
  detail: string;
}

export interface LogReport {
  origin: string;
  /** Leaves that the newest checkpoint covers. */
  size: number;
  /** Leaves below are gone by policy: the tree has their hashes. */
  prunedBelow: number;
  /** Leaves of which the bytes were hashed. */
  leavesRead: number;
  checkpoints: number;
  faults: readonly LogFault[];
}

/** Hashes around a place where the log is not what it should be; undefined where there is nothing. */
export interface Around {
  expected: Buffer;
  expectedNext: Buffer | undefined;
  found: Buffer | undefined;
  foundNext: Buffer | undefined;
  /** Whether the hash found belongs elsewhere in the log. */
  foundElsewhere: boolean;
}

/** What was done to the log where it first differs. Pure. */
export function nameFault(index: number, { expected, expectedNext, found, foundNext, foundElsewhere }: Around): LogFault {
  const is = (hash: Buffer | undefined, other: Buffer | undefined): boolean => hash !== undefined && other !== undefined && hash.equals(other);
  if (found === undefined) return { kind: 'missing', index, detail: 'there is no leaf at this index' };
  if (is(foundNext, expected) && !is(found, expectedNext)) return { kind: 'inserted', index, detail: 'a leaf was put in here, and the later ones moved on' };
  if (is(found, expectedNext) && !is(foundNext, expected)) return { kind: 'missing', index, detail: 'the leaf was taken out, and the later ones moved up' };
  if (foundElsewhere) return { kind: 'reordered', index, detail: 'here stands a leaf that belongs to another index' };
  return { kind: 'edited', index, detail: 'the leaf is not the one that was recorded' };
}

/** One line for people. */
export function describeFault({ kind, index, detail }: LogFault): string {
  return index === undefined ? `${kind}: ${detail}` : `leaf ${index} ${kind}: ${detail}`;
}
