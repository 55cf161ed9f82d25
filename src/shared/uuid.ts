import { randomFillSync } from 'node:crypto';
import { v7 } from 'uuid';

const RANDOM_BYTES = 16;
const pool = Buffer.alloc(RANDOM_BYTES * 256);
let used = pool.length;

/** Random bytes from a pool: asking the system for 16 at a time costs more than all the rest of making an id. */
function random(): Uint8Array {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  used += RANDOM_BYTES;
  return pool.subarray(used - RANDOM_BYTES, used);
}

/** A UUID of version 7: ordered by time, so that indexes grow at their end. Made here, since PostgreSQL 15 has no function for it. */
export function uuid(): string {
  return v7({ rng: random });
}
