import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { GrowingTree } from './growing-tree.ts';
import { consistencyPath, emptyRoot, inclusionPath, isConsistent, leafHash, powerOfTwoBelow, rootFromInclusion, rootOf, type LeafRange } from './merkle.ts';
import { rangeRoot, TILE_WIDTH, tilesFor, tilesOfLevel, tileWidth, type TileId } from './tlog-tiles.ts';

// The tree against RFC 6962 as it is written: slow, recursive, and without a line of ours.

const sha256 = (...parts: Buffer[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();

/** Section 2.1 over made-up leaves; subtrees are kept, as the same ones are asked for often. */
class NaiveTree {
  readonly #known = new Map<string, Buffer>();

  constructor(private readonly leaf: (index: number) => Buffer = (index) => Buffer.from(`leaf ${index}`)) {}

  root(size: number): Buffer {
    return this.range(0, size);
  }

  range(start: number, end: number): Buffer {
    if (end === start) return sha256();
    const key = `${start}-${end}`;
    const known = this.#known.get(key);
    if (known) return known;
    const made = end - start === 1 ? sha256(Buffer.of(0), this.leaf(start)) : this.#node(start, end);
    this.#known.set(key, made);
    return made;
  }

  #node(start: number, end: number): Buffer {
    const k = naiveSplit(end - start);
    return sha256(Buffer.of(1), this.range(start, start + k), this.range(start + k, end));
  }

  /** Section 2.1.1. */
  path(m: number, start: number, end: number): Buffer[] {
    if (end - start === 1) return [];
    const k = naiveSplit(end - start);
    return m < k
      ? [...this.path(m, start, start + k), this.range(start + k, end)]
      : [...this.path(m - k, start + k, end), this.range(start, start + k)];
  }

  /** Section 2.1.2. */
  proof(m: number, n: number): Buffer[] {
    return m === 0 ? [] : this.#subproof(m, 0, n, true);
  }

  #subproof(m: number, start: number, end: number, whole: boolean): Buffer[] {
    const n = end - start;
    if (m === n) return whole ? [] : [this.range(start, end)];
    const k = naiveSplit(n);
    return m <= k
      ? [...this.#subproof(m, start, start + k, whole), this.range(start + k, end)]
      : [...this.#subproof(m - k, start + k, end, false), this.range(start, start + k)];
  }
}

function naiveSplit(n: number): number {
  let k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}

/** What the product stores while a tree grows, tile by tile. */
class StoredTiles {
  readonly tiles = new Map<string, Buffer>();

  grow(tree: GrowingTree, leaves: readonly Buffer[]): void {
    for (const { level, index, hashes } of tree.append(leaves)) {
      const before = this.tiles.get(`${level}/${index}`) ?? Buffer.alloc(0);
      if (!hashes.subarray(0, before.length).equals(before)) throw new Error(`tile ${level}/${index} changed what it had`);
      this.tiles.set(`${level}/${index}`, hashes);
    }
  }

  /** As a reader of a tree of that size sees them. */
  at(size: number): (id: TileId) => Buffer {
    return (id) => {
      const tile = this.tiles.get(`${id.level}/${id.index}`);
      const bytes = tileWidth(id, size) * 32;
      if (tile === undefined || bytes === 0 || tile.length < bytes) throw new Error(`tile ${id.level}/${id.index} is not there in a tree of ${size}`);
      return tile.subarray(0, bytes);
    };
  }
}

const naive = new NaiveTree();
const hashes = (start: number, end: number): Buffer[] => Array.from({ length: end - start }, (_, place) => naive.range(start + place, start + place + 1));

/** One tree that grew leaf by leaf, for all that only reads. */
const grown = new StoredTiles();
const tree = GrowingTree.empty();
const SIZES = 300;
const rootsOnTheWay = [tree.root()];
for (let index = 0; index < SIZES; index++) {
  grown.grow(tree, hashes(index, index + 1));
  rootsOnTheWay.push(tree.root());
}

function prove(ranges: readonly LeafRange[], size: number): Buffer[] {
  const needed = new Set(ranges.flatMap(tilesFor).map(({ level, index }) => `${level}/${index}`));
  const tile = grown.at(size);
  return ranges.map((range) => rangeRoot(range, (id) => {
    if (!needed.has(`${id.level}/${id.index}`)) throw new Error('a tile is read that was not named');
    return tile(id);
  }));
}

const flip = (hash: Buffer, bit: number): Buffer => {
  const other = Buffer.from(hash);
  other[bit >> 3]! ^= 1 << (bit & 7);
  return other;
};
const text = (proof: readonly Buffer[]): string => Buffer.concat(proof).toString('hex');
const replaced = <T>(list: readonly T[], at: number, value: T): T[] => list.map((item, place) => (place === at ? value : item));

/** Every way in which a list of hashes is not the one it was, with one bit of each hash. */
function damaged(proof: readonly Buffer[], seed: number): Buffer[][] {
  return [
    ...proof.map((hash, at) => replaced(proof, at, flip(hash, (seed * 31 + at * 97) % 256))),
    ...proof.map((_, at) => proof.filter((__, place) => place !== at)),
    ...Array.from({ length: proof.length + 1 }, (_, at) => [...proof.slice(0, at), naive.range(at, at + 1), ...proof.slice(at)]),
    ...proof.slice(1).map((hash, at) => replaced(replaced(proof, at, hash), at + 1, proof[at]!)),
    ...proof.map((hash, at) => replaced(proof, at, hash.subarray(0, 31))),
  ];
}

describe('the tree', () => {
  it('has the roots of the test vectors of Certificate Transparency', () => {
    const vectors = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map((hex) => leafHash(Buffer.from(hex, 'hex')));
    const roots = [
      '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d', 'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
      'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77', 'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
      '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4', '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
      'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c', '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
    ];
    for (const [place, root] of roots.entries()) {
      const leaves = vectors.slice(0, place + 1);
      const small = GrowingTree.empty();
      small.append(leaves);
      expect([place + 1, small.root().toString('hex')]).toEqual([place + 1, root]);
      expect(rootOf(leaves).toString('hex')).toBe(root);
    }
    expect(emptyRoot().toString('hex')).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
    // Proofs of the same vectors (certificate-transparency-go, merkletree tests).
    const eight = (from: number, to: number): string => rootOf(vectors.slice(from, to)).toString('hex');
    expect(inclusionPath(5, 8).map(({ start, end }) => eight(start, end))).toEqual([
      'bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b', 'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0', 'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ]);
    expect(consistencyPath(6, 8).map(({ start, end }) => eight(start, end))).toEqual([
      '0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a', 'ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0', 'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    ]);
  });

  it('does not take a node for a leaf', () => {
    const [left, right] = [naive.range(0, 1), naive.range(1, 2)];
    expect(leafHash(Buffer.concat([left, right]))).not.toEqual(rootOf([left, right]));
  });

  it('has the root of RFC 6962 at every size, grown leaf by leaf, all at once, and from what is stored', () => {
    for (let size = 0; size <= SIZES; size++) {
      const expected = naive.root(size).toString('hex');
      const atOnce = GrowingTree.empty();
      atOnce.append(hashes(0, size));
      const whole = size === 0 ? [] : prove([{ start: 0, end: size }], size);
      expect([size, rootsOnTheWay[size]!.toString('hex'), atOnce.root().toString('hex'), GrowingTree.load(size, grown.at(size)).root().toString('hex'), (whole[0] ?? emptyRoot()).toString('hex')])
        .toEqual([size, expected, expected, expected, expected]);
    }
  });

  it('grows in steps of any size, from any point where another left it, up to the third level of tiles', () => {
    fc.assert(fc.property(fc.array(fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 250, max: 260 }), fc.integer({ min: 0, max: 9_000 }), fc.constantFrom(256, 65_536)), { minLength: 1, maxLength: 6 }), fc.boolean(), (steps, anew) => {
      const stored = new StoredTiles();
      let growing = GrowingTree.empty();
      for (const step of steps) {
        const { size } = growing;
        stored.grow(growing, hashes(size, size + step));
        expect(growing.size).toBe(size + step);
        expect(growing.root().equals(naive.root(size + step))).toBe(true);
        if (anew) growing = GrowingTree.load(growing.size, stored.at(growing.size));
        expect(growing.root().equals(naive.root(size + step))).toBe(true);
      }
      // All tiles of the specification are there, whole, and nothing else.
      const { size } = growing;
      const expected = new Map<string, Buffer>();
      for (let level = 0; level < 5; level++) {
        for (let index = 0; index < tilesOfLevel(level, size); index++) {
          const width = tileWidth({ level, index }, size);
          const unit = TILE_WIDTH ** level;
          expected.set(`${level}/${index}`, Buffer.concat(Array.from({ length: width }, (_, place) => naive.range((index * TILE_WIDTH + place) * unit, (index * TILE_WIDTH + place + 1) * unit))));
        }
      }
      expect([...stored.tiles.keys()].toSorted()).toEqual([...expected.keys()].toSorted());
      for (const [name, tile] of stored.tiles) expect([name, tile.equals(expected.get(name)!)]).toEqual([name, true]);
    }), { numRuns: 8 });
  });

  it('as it was at a smaller size is loaded from the tiles of a larger one, and goes on from there', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: SIZES }), fc.integer({ min: 0, max: 40 }), (size, more) => {
      const taken = GrowingTree.load(size, (id) => grown.at(SIZES)(id));
      expect(taken.root()).toEqual(naive.root(size));
      taken.append(hashes(size, size + more));
      expect(taken.root()).toEqual(naive.root(size + more));
    }));
  });

  it('does not share memory with the tiles that it was loaded from', () => {
    const tile = Buffer.concat(hashes(0, 3));
    const taken = GrowingTree.load(3, () => tile);
    tile.fill(0);
    expect(taken.root()).toEqual(naive.root(3));
  });
});

describe('a proof of inclusion', () => {
  const UP_TO = 70;

  it('is that of RFC 6962 for every leaf of every size, and leads to the root', () => {
    const wrong: unknown[] = [];
    for (let size = 1; size <= UP_TO; size++) {
      for (let index = 0; index < size; index++) {
        const proof = prove(inclusionPath(index, size), size);
        if (text(proof) !== text(naive.path(index, 0, size))) wrong.push([index, size, 'another proof']);
        if (rootFromInclusion(index, size, naive.range(index, index + 1), proof)?.equals(naive.root(size)) !== true) wrong.push([index, size, 'does not lead to the root']);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('is refused after any change', () => {
    const led: number[][] = [];
    for (let size = 1; size <= UP_TO; size++) {
      const leads = (index: number, leaf: Buffer, proof: readonly Buffer[], to = size): boolean => rootFromInclusion(index, to, leaf, proof)?.equals(naive.root(to)) === true;
      for (let index = 0; index < size; index++) {
        const [leaf, proof] = [naive.range(index, index + 1), naive.path(index, 0, size)];
        if (leads(index, flip(leaf, (index * 7) % 256), proof)) led.push([index, size]);
        for (const other of damaged(proof, index)) if (leads(index, leaf, other)) led.push([index, size]);
        // Every other place, and every other size with the root that it has.
        for (let other = 0; other <= size; other++) if (other !== index && leads(other, leaf, proof)) led.push([index, size, other, size]);
        for (let other = 1; other <= UP_TO; other++) if (other !== size && leads(index, leaf, proof, other)) led.push([index, size, index, other]);
      }
    }
    expect(led).toEqual([]);
  });

  it('is refused with any bit of any hash flipped', () => {
    const [index, size] = [41, 70];
    const proof = naive.path(index, 0, size);
    const good = proof.flatMap((hash, at) => Array.from({ length: 256 }, (_, bit) => replaced(proof, at, flip(hash, bit))))
      .filter((other) => rootFromInclusion(index, size, naive.range(index, index + 1), other)?.equals(naive.root(size)) === true);
    expect(good).toEqual([]);
  });

  it.each([[-1, 4], [4, 4], [5, 4], [0, 0], [0.5, 4], [Number.NaN, 4], [2 ** 60, 2 ** 61]])('of leaf %d of %d is none', (index, size) => {
    expect(rootFromInclusion(index, size, naive.range(0, 1), [])).toBeUndefined();
  });
});

describe('a proof of consistency', () => {
  const UP_TO = 70;

  it('is that of RFC 6962 for every two sizes, and holds', () => {
    const wrong: unknown[] = [];
    for (let size = 0; size <= UP_TO; size++) {
      for (let old = 0; old <= size; old++) {
        const proof = prove(consistencyPath(old, size), size);
        if (text(proof) !== text(naive.proof(old, size))) wrong.push([old, size, 'another proof']);
        if (!isConsistent(old, naive.root(old), size, naive.root(size), proof)) wrong.push([old, size, 'does not hold']);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('is refused after any change', () => {
    const held: unknown[] = [];
    for (let size = 0; size <= UP_TO; size++) {
      const root = naive.root(size);
      for (let old = 0; old <= size; old++) {
        const [oldRoot, proof] = [naive.root(old), naive.proof(old, size)];
        for (const other of damaged(proof, old)) if (isConsistent(old, oldRoot, size, root, other)) held.push([old, size, 'other hashes']);
        if (isConsistent(old, flip(oldRoot, old % 256), size, root, proof)) held.push([old, size, 'other old root']);
        // Every tree goes on from the empty one.
        if (old > 0 && isConsistent(old, oldRoot, size, flip(root, size % 256), proof)) held.push([old, size, 'other root']);
        if (size > old && isConsistent(size, root, old, oldRoot, proof)) held.push([old, size, 'the wrong way round']);
        for (let other = 0; other <= size + 1; other++) {
          const another = other > size || text(naive.proof(other, size)) !== text(proof);
          if (another && isConsistent(other, naive.root(other), size, root, proof)) held.push([old, size, 'other old size', other]);
        }
      }
    }
    expect(held).toEqual([]);
  });

  it('does not come from a tree with another beginning', () => {
    const other = new NaiveTree((index) => Buffer.from(index === 3 ? 'another' : `leaf ${index}`));
    for (let size = 5; size <= UP_TO; size++) {
      for (let old = 4; old < size; old++) {
        for (const proof of [naive.proof(old, size), other.proof(old, size)]) {
          expect(isConsistent(old, other.root(old), size, naive.root(size), proof)).toBe(false);
          expect(isConsistent(old, naive.root(old), size, other.root(size), proof)).toBe(false);
        }
      }
    }
  });
});

describe('proofs in trees of any size', () => {
  const MAX = 2 ** 48;
  /** All leaves are the same, so that a subtree's root is a matter of its size alone. */
  const known = new Map<number, Buffer>([[1, sha256(Buffer.of(0), Buffer.from('x'))]]);
  const same = (size: number): Buffer => {
    if (!known.has(size)) known.set(size, sha256(Buffer.of(1), same(naiveSplit(size)), same(size - naiveSplit(size))));
    return known.get(size)!;
  };
  const paths = (ranges: readonly LeafRange[]): Buffer[] => ranges.map(({ start, end }) => same(end - start));
  const edges = Array.from({ length: 48 }, (_, exponent) => 2 ** (exponent + 1)).flatMap((power) => [power - 1, power, Math.min(MAX, power + 1)]);
  const size = fc.oneof(fc.integer({ min: 1, max: MAX }), fc.constantFrom(...edges), fc.integer({ min: 1, max: 100_000 }));

  it('split at the largest power of two below, also where a logarithm would be rounded', () => {
    for (const edge of edges.filter((one) => one >= 2)) expect([edge, powerOfTwoBelow(edge)]).toEqual([edge, naiveSplit(edge)]);
    fc.assert(fc.property(fc.integer({ min: 2, max: MAX }), (count) => powerOfTwoBelow(count) === naiveSplit(count)));
  });

  it('cover each leaf but the one once, and lead to the root', () => {
    fc.assert(fc.property(size, fc.nat(), fc.boolean(), (of, seed, late) => {
      const index = late ? of - 1 - (seed % Math.min(of, 1_000)) : Math.floor((seed / 0x7f_ff_ff_ff) * (of - 1));
      const ranges = inclusionPath(index, of);
      const ordered = [...ranges, { start: index, end: index + 1 }].toSorted((left, right) => left.start - right.start);
      expect(ordered.map(({ start }) => start)).toEqual([0, ...ordered.slice(0, -1).map(({ end }) => end)]);
      expect(ordered.at(-1)!.end).toBe(of);
      expect(rootFromInclusion(index, of, same(1), paths(ranges))).toEqual(same(of));
      expect(rootFromInclusion(index, of, flip(same(1), 3), paths(ranges))).not.toEqual(same(of));
    }), { numRuns: 500 });
  });

  it('show that a tree is the beginning of another', () => {
    fc.assert(fc.property(size, size, (one, two) => {
      const [old, now] = [Math.min(one, two), Math.max(one, two)];
      const proof = paths(consistencyPath(old, now));
      expect([old, now, isConsistent(old, same(old), now, same(now), proof)]).toEqual([old, now, true]);
      expect(proof.filter((hash, at) => isConsistent(old, same(old), now, same(now), replaced(proof, at, flip(hash, at))))).toEqual([]);
      expect(isConsistent(old, same(old), now, same(now), [...proof, same(1)])).toBe(false);
    }), { numRuns: 200 });
  });
});
