import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { entryBundle, parseTilePath, rangeRoot, readEntryBundle, splitHashes, tilePath, tilesFor, tilesOfLevel, tileWidth, type TilePath } from './tlog-tiles.ts';

describe('the path of a tile', () => {
  it.each<[string, TilePath]>([
    ['0/000', { kind: 'hashes', level: 0, index: 0, width: 256 }],
    ['0/000.p/1', { kind: 'hashes', level: 0, index: 0, width: 1 }],
    ['1/999.p/255', { kind: 'hashes', level: 1, index: 999, width: 255 }],
    ['0/x001/000', { kind: 'hashes', level: 0, index: 1_000, width: 256 }],
    ['0/x001/x234/067', { kind: 'hashes', level: 0, index: 1_234_067, width: 256 }],
    ['5/x123/x456/x789/x012/345.p/17', { kind: 'hashes', level: 5, index: 123_456_789_012_345, width: 17 }],
    ['entries/000', { kind: 'entries', level: 0, index: 0, width: 256 }],
    ['entries/x001/x234/067.p/9', { kind: 'entries', level: 0, index: 1_234_067, width: 9 }],
  ])('%s is read and written', (path, tile) => {
    expect(parseTilePath(path)).toEqual(tile);
    expect(tilePath(tile)).toBe(path);
  });

  it('comes back as it was, whatever the tile', () => {
    fc.assert(fc.property(fc.constantFrom('hashes' as const, 'entries' as const), fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 999_999_999_999_999 }), fc.integer({ min: 1, max: 256 }), (kind, level, index, width) => {
      const tile: TilePath = { kind, level: kind === 'entries' ? 0 : level, index, width };
      expect(parseTilePath(tilePath(tile))).toEqual(tile);
    }));
  });

  it.each([
    '', '/', '0', '0/', '0/0', '0/00', '0/0000', '0/1234', '0/x001', '0/x001/', '0/x001/234/', '0/001/234', '0/x001/x234', '0/x000/000', '0/x000/x001/234', '0/x01/234', '0/x0001/234', '0/X001/234', '0/001/x234', '/0/000', '0//000', '0/000/',
    '00/000', '01/000', '+1/000', '-1/000', '1.0/000', '6/000', '9/000', '63/000', '64/000', '100/000', 'x/000', 'entries', 'entries/', 'entries/x000/000', 'Entries/000', 'entries/0/000', '0/entries/000',
    '0/000.p', '0/000.p/', '0/000.p/0', '0/000.p/00', '0/000.p/01', '0/000.p/256', '0/000.p/257', '0/000.p/999', '0/000.p/1000', '0/000.p/-1', '0/000.p/1.5', '0/000.p/1/', '0/000.P/1', '0/000p/1', '0/x001.p/3/234', '0/000.p/1\n', '0/000 ', ' 0/000',
    '0/%30%30%30', '0/٠٠٠', '0/x123/x456/x789/x012/x345/678',
  ])('is not %j', (path) => {
    expect(parseTilePath(path)).toBeUndefined();
  });

  it('has one spelling: what is read is written the same', () => {
    fc.assert(fc.property(fc.stringMatching(/^(?:[0-9]{1,2}|entries)\/(?:x?[0-9]{3}\/){0,2}x?[0-9]{3}(?:\.p\/[0-9]{1,3})?$/), (path) => {
      const tile = parseTilePath(path);
      expect(tile === undefined ? path : tilePath(tile)).toBe(path);
    }), { numRuns: 2_000 });
  });
});

describe('the width of a tile', () => {
  it.each([
    // The example of the specification: a tree of 70,000.
    [0, 0, 70_000, 256], [0, 272, 70_000, 256], [0, 273, 70_000, 112], [0, 274, 70_000, 0], [1, 0, 70_000, 256], [1, 1, 70_000, 17], [1, 2, 70_000, 0], [2, 0, 70_000, 1], [2, 1, 70_000, 0], [3, 0, 70_000, 0],
    [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 256, 256], [0, 1, 256, 0], [1, 0, 255, 0], [1, 0, 256, 1],
  ])('of %d/%d in a tree of %d is %d', (level, index, size, width) => {
    expect(tileWidth({ level, index }, size)).toBe(width);
  });

  it('is told for as many tiles as a level has', () => {
    expect([0, 1, 2, 3].map((level) => tilesOfLevel(level, 70_000))).toEqual([274, 2, 1, 0]);
    expect([0, 1, 255, 256, 257].map((size) => tilesOfLevel(0, size))).toEqual([0, 1, 1, 1, 2]);
  });
});

describe('the root of a range', () => {
  it('is not made from a tile that has too few hashes', () => {
    expect(() => rangeRoot({ start: 0, end: 4 }, () => Buffer.alloc(3 * 32))).toThrow('tile 0/0 has not all the hashes of its tree');
    expect(() => rangeRoot({ start: 0, end: 4 }, () => Buffer.alloc(4 * 32 - 1))).toThrow('has not all');
  });

  it('of a large tree takes few tiles', () => {
    expect(tilesFor({ start: 0, end: 70_000 })).toEqual([{ level: 2, index: 0 }, { level: 1, index: 1 }, { level: 1, index: 1 }, { level: 0, index: 273 }, { level: 0, index: 273 }, { level: 0, index: 273 }]);
    expect(tilesFor({ start: 65_536, end: 65_537 })).toEqual([{ level: 0, index: 256 }]);
  });

  it('splits a tile into its hashes', () => {
    const tile = Buffer.from(Array.from({ length: 96 }, (_, at) => at));
    expect(splitHashes(tile).map((hash) => hash[0])).toEqual([0, 32, 64]);
    expect(splitHashes(Buffer.alloc(0))).toEqual([]);
  });
});

describe('a bundle of entries', () => {
  it('has each entry behind its length in two bytes', () => {
    expect(entryBundle([Buffer.from('ab'), Buffer.alloc(0), Buffer.from('c')]).toString('hex')).toBe('000261620000000163');
    expect(entryBundle([])).toEqual(Buffer.alloc(0));
    const longest = Buffer.alloc(65_535, 1);
    expect(entryBundle([longest]).subarray(0, 2).toString('hex')).toBe('ffff');
    expect(readEntryBundle(entryBundle([longest]))).toEqual([longest]);
  });

  it('does not hold what is too long for its two bytes', () => {
    expect(() => entryBundle([Buffer.alloc(65_536)])).toThrow('out of range');
  });

  it('comes back as it was, and not when it is cut off', () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 5 }), (arrays) => {
      const bodies = arrays.map((array) => Buffer.from(array));
      const bundle = entryBundle(bodies);
      expect(readEntryBundle(bundle)).toEqual(bodies);
      const whole = bodies.reduce<number[]>((ends, body) => [...ends, ends.at(-1)! + 2 + body.length], [0]);
      for (let cut = 0; cut <= bundle.length; cut++) {
        let read: unknown;
        try {
          read = readEntryBundle(bundle.subarray(0, cut));
        } catch (error) {
          read = (error as Error).message;
        }
        expect(read).toEqual(whole.includes(cut) ? bodies.slice(0, whole.indexOf(cut)) : 'a bundle of entries is cut off');
      }
    }));
  });
});
