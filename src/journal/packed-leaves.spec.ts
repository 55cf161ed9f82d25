import { describe, expect, it } from '@jest/globals';
import { packLeaves } from './packed-leaves.ts';

/** Read as PostgreSQL's array_recv does. */
function bodiesOf(array: Buffer): string[] {
  const [dimensions, nulls, type] = [array.readInt32BE(0), array.readInt32BE(4), array.readInt32BE(8)];
  expect([nulls, type]).toEqual([0, 17]);
  if (dimensions === 0) return [];
  expect([dimensions, array.readInt32BE(16)]).toEqual([1, 1]);
  const bodies: string[] = [];
  let at = 20;
  for (let n = 0; n < array.readInt32BE(12); n++) {
    const end = at + 4 + array.readInt32BE(at);
    bodies.push(array.subarray(at + 4, end).toString());
    at = end;
  }
  expect(at).toBe(array.length);
  return bodies;
}

describe('packLeaves', () => {
  it('has heads with their places, and the leaves to the byte', () => {
    const { heads, bodies } = packLeaves(['{"id":"a","t":"acme"}\n{"text":"é \\n 🙂"}', undefined, '{"id":"b"}\n{}']);
    expect(JSON.parse(heads)).toEqual([{ i: 0, id: 'a', t: 'acme' }, { i: 2, id: 'b' }]);
    expect(bodiesOf(bodies)).toEqual(['{"text":"é \\n 🙂"}', '{}']);
  });

  it('is two empty lists where no operation has a record', () => {
    for (const entries of [[], [undefined, undefined]]) {
      const { heads, bodies } = packLeaves(entries);
      expect(heads).toBe('[]');
      expect(bodiesOf(bodies)).toEqual([]);
    }
  });
});
