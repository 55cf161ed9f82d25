import { describe, expect, it } from '@jest/globals';
import { describeFault, nameFault, type Around } from './log-faults.ts';
import { leafHash } from './merkle.ts';

const [a, b, c] = ['a', 'b', 'c'].map((text) => leafHash(Buffer.from(text))) as [Buffer, Buffer, Buffer];
const other = leafHash(Buffer.from('other'));

describe('the name of a fault', () => {
  it.each<[string, string, Around]>([
    ['edited', 'one that belongs nowhere', { expected: a, expectedNext: b, found: other, foundNext: b, foundElsewhere: false }],
    ['edited', 'one at the end that belongs nowhere', { expected: a, expectedNext: undefined, found: other, foundNext: undefined, foundElsewhere: false }],
    ['missing', 'none', { expected: a, expectedNext: b, found: undefined, foundNext: b, foundElsewhere: false }],
    ['missing', 'the next one, and behind it the one after that', { expected: a, expectedNext: b, found: b, foundNext: c, foundElsewhere: true }],
    ['missing', 'the next one, and none behind it', { expected: a, expectedNext: b, found: b, foundNext: undefined, foundElsewhere: true }],
    ['inserted', 'one that belongs nowhere, and behind it the right one', { expected: a, expectedNext: b, found: other, foundNext: a, foundElsewhere: false }],
    ['reordered', 'the next one, and behind it the right one', { expected: a, expectedNext: b, found: b, foundNext: a, foundElsewhere: true }],
    ['reordered', 'one from elsewhere', { expected: a, expectedNext: b, found: c, foundNext: b, foundElsewhere: true }],
  ])('is %s where there stands %s', (kind, _, around) => {
    const fault = nameFault(7, around);
    expect(fault).toMatchObject({ kind, index: 7 });
    expect(describeFault(fault)).toBe(`leaf 7 ${kind}: ${fault.detail}`);
  });

  it('needs no index', () => {
    expect(describeFault({ kind: 'checkpoint', index: undefined, detail: 'none' })).toBe('checkpoint: none');
  });
});
