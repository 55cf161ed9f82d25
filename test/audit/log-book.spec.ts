import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { openCheckpoint, signCheckpoint } from '../../src/audit/checkpoint.ts';
import { consistencyPath, isConsistent } from '../../src/audit/merkle.ts';
import { Sequencer } from '../../src/audit/sequencer.ts';
import { readHead, readRoots } from '../../src/audit/transparency-log.ts';
import { verifyDatabase } from '../../src/audit/verify-database.ts';
import { appendLeaves } from '../support/append-leaves.ts';
import { eventually } from '../support/harness.ts';
import { asIntruder, leafBodies, LOGGER, makeSigningKeys, notesOf, startLog, tilesOver, type BookOfTest, type TestLog } from './log.ts';

// Who grows the tree and signs it, on a real PostgreSQL.

let log: TestLog;
beforeEach(async () => {
  log = await startLog();
});
afterEach(async () => {
  await log.close();
});

/** Tiles and head are those of the leaves, made anew from the leaves alone. */
async function expectWholeTree(): Promise<void> {
  const bodies = await leafBodies(log.db);
  const { tiles } = tilesOver(bodies);
  const { rows } = await log.db.query<{ level: number; index: string; hashes: Buffer }>('SELECT level, index, hashes FROM audit_tiles ORDER BY level, index');
  const named = (all: readonly { level: number; index: number | string; hashes: Buffer }[]): string[] => all.map(({ level, index, hashes }) => `${level}/${index} ${hashes.toString('hex')}`).toSorted();
  expect(named(rows)).toEqual(named(tiles));
  expect(await readHead(log.db)).toMatchObject({ size: bodies.length, treeSize: bodies.length });
}

/** Every checkpoint is good, and its tree is the beginning of the one that is there. */
async function expectGoesOnFrom(notes: Iterable<string>): Promise<number[]> {
  const keys = await log.verifierKeys();
  const { tree } = tilesOver(await leafBodies(log.db));
  const sizes: number[] = [];
  for (const note of notes) {
    const { size, root } = openCheckpoint(note, keys);
    const proof = await readRoots(log.db, consistencyPath(size, tree.size), tree.size);
    expect([size, isConsistent(size, root, tree.size, tree.root(), proof)]).toEqual([size, true]);
    sizes.push(size);
  }
  return sizes;
}

/** What a leader's turn does. */
async function turn({ book }: BookOfTest, count: number, first = 0): Promise<void> {
  await log.append(count, first);
  await log.sequence();
  await book.grow(log.db);
  await book.sign(log.db);
}

describe('a log', () => {
  it('is grown and signed, in the database and in a file outside', async () => {
    const one = log.book();
    await one.book.open(log.db);
    const sizes = [1, 2, 255, 256, 257, 600];
    for (const [place, size] of sizes.entries()) await turn(one, size - (sizes[place - 1] ?? 0), sizes[place - 1] ?? 0);
    await expectWholeTree();
    const notes = await notesOf(log.db);
    expect(await expectGoesOnFrom(notes)).toEqual(sizes);
    expect(await one.outside.read()).toBe(notes.at(-1));
    expect([await one.gauge('novix_audit_log_size'), await one.gauge('novix_audit_leaves_total'), await one.gauge('novix_audit_log_contradicted')]).toEqual([600, 600, 0]);
    expect(one.fired).toEqual([]);
  });

  it('that grew in a leader’s time and was not signed is signed by the next', async () => {
    const first = log.book('first');
    await first.book.open(log.db);
    await turn(first, 300);
    await log.append(200, 300);
    await log.sequence();
    await first.book.grow(log.db); // and here it dies
    const second = log.book('second');
    await second.book.open(log.db);
    expect(second.book.signedSize).toBe(300);
    expect(await second.book.grow(log.db)).toBe(500);
    await second.book.sign(log.db);
    await expectWholeTree();
    expect(await expectGoesOnFrom(await notesOf(log.db))).toEqual([300, 500]);
    expect(await second.outside.read()).toBe((await notesOf(log.db)).at(-1));
  });

  it('that was sequenced and not grown is grown by the next', async () => {
    await log.append(10);
    await log.sequence();
    expect(await readHead(log.db)).toMatchObject({ size: 10, treeSize: 0 });
    const next = log.book();
    await next.book.open(log.db);
    expect(await next.book.grow(log.db)).toBe(10);
    await expectWholeTree();
  });

  it('that was signed outside, and not in the database, goes on from what was signed', async () => {
    const first = log.book('first');
    await first.book.open(log.db);
    await turn(first, 5);
    await turn(first, 5, 5);
    await log.db.query('DELETE FROM audit_checkpoints WHERE size = 10'); // as if the database had gone before it was there
    const again = log.book('first');
    await again.book.open(log.db);
    await turn(again, 5, 10);
    expect(again.fired).toEqual([]);
    expect(await expectGoesOnFrom(await notesOf(log.db))).toEqual([5, 15]);
  });

  it('is grown in steps where much has come', async () => {
    await log.append(20_000);
    await log.sequence();
    const one = log.book();
    await one.book.open(log.db);
    expect(await one.book.grow(log.db)).toBe(20_000);
    await one.book.sign(log.db);
    await expectWholeTree();
    expect(await expectGoesOnFrom(await notesOf(log.db))).toEqual([20_000]);
  });

  it('is not grown by one that another has overtaken, and goes on all the same', async () => {
    const [one, other] = [log.book('one'), log.book('other')];
    await one.book.open(log.db);
    await other.book.open(log.db);
    await turn(one, 10);
    await log.append(10, 10);
    await log.sequence();
    await expect(other.book.grow(log.db)).rejects.toThrow(/only grow|another leader has grown/);
    expect(await other.book.grow(log.db)).toBe(20); // taken up anew
    await expect(one.book.grow(log.db)).rejects.toThrow(/only grow|another leader has grown/);
    expect(await one.book.grow(log.db)).toBe(20);
    await one.book.sign(log.db);
    await other.book.open(log.db);
    await turn(other, 10, 20);
    await expectWholeTree();
    expect(await expectGoesOnFrom([...(await notesOf(log.db)), (await one.outside.read())!])).toEqual([10, 20, 30, 20]);
  });

  it('with a gap in its leaves is not grown over it', async () => {
    const one = log.book();
    await one.book.open(log.db);
    await log.append(10);
    await log.sequence();
    await asIntruder(log.db, async () => void (await log.db.query('DELETE FROM audit_leaves WHERE index = 4')));
    expect(await one.book.grow(log.db)).toBe(0);
    expect(one.fired).toEqual([expect.objectContaining({ type: 'audit_contradicted', value: expect.stringContaining('has not all leaves') })]);
    expect(await readHead(log.db)).toMatchObject({ treeSize: 0 });
  });

  it('keeps each checkpoint for an hour, and the last of each hour for good', async () => {
    const one = log.book();
    await one.book.open(log.db);
    await log.append(6);
    await log.sequence();
    const ages = { 1: '2026-01-01T10:05:00Z', 2: '2026-01-01T10:59:59Z', 3: '2026-01-01T11:00:00Z', 4: '2026-01-01T12:10:00Z', 5: '2026-01-01T12:20:00Z' };
    await log.db.query("SET timezone = 'UTC'");
    await one.book.grow(log.db);
    const [{ origin }, bodies] = [await readHead(log.db), await leafBodies(log.db)];
    for (const [size, at] of Object.entries(ages)) {
      const note = signCheckpoint({ origin, size: Number(size), root: tilesOver(bodies.slice(0, Number(size))).tree.root() }, log.keys, Date.parse(at));
      await log.db.query('INSERT INTO audit_checkpoints (size, note, signed_at) VALUES ($1, $2, $3)', [size, note, at]);
    }
    await one.book.sign(log.db);
    const { rows } = await log.db.query<{ size: string }>('SELECT size FROM audit_checkpoints ORDER BY size');
    expect(rows.map(({ size }) => Number(size))).toEqual([2, 3, 5, 6]);
  });

  it('without keys grows, and nobody signs it', async () => {
    const one = log.book('none', null);
    await one.book.open(log.db);
    await turn(one, 20);
    await expectWholeTree();
    expect(await notesOf(log.db)).toEqual([]);
    expect(await one.outside.read()).toBeUndefined();
    await one.book.follow(log.db);
    expect(one.fired).toEqual([]);
  });
});

describe('a log that is not what was signed before', () => {
  /** Leaves 40 to 59 were signed, and are gone; `checkpoints` says whether their checkpoint is gone too. */
  async function cutOff(checkpoints: boolean): Promise<BookOfTest> {
    const one = log.book();
    await one.book.open(log.db);
    await turn(one, 40);
    await turn(one, 20, 40);
    await asIntruder(log.db, async () => {
      await log.db.query('DELETE FROM audit_leaves WHERE index >= 40');
      await log.db.query('UPDATE audit_head SET size = 40, tree_size = 40');
      await log.db.query('UPDATE audit_tiles SET hashes = substring(hashes FOR 40 * 32)');
      if (checkpoints) await log.db.query('DELETE FROM audit_checkpoints WHERE size > 40');
    });
    return log.book();
  }

  /** What there is to be seen of it. */
  async function seenOf(one: BookOfTest): Promise<object> {
    return { signed: await signedSizes(), fired: one.fired.map(({ type, tenantId, value }) => ({ type, tenantId, value })), gauge: await one.gauge('novix_audit_log_contradicted'), resolved: one.resolved };
  }

  function contradicted(signed: readonly number[], words: string): object {
    return { signed, fired: [{ type: 'audit_contradicted', tenantId: undefined, value: expect.stringContaining(words) }], gauge: 1, resolved: [] };
  }

  async function signedSizes(): Promise<number[]> {
    const keys = await log.verifierKeys();
    return (await notesOf(log.db)).map((note) => openCheckpoint(note, keys).size);
  }

  it('because leaves are lost is not signed any more, and says so', async () => {
    const next = await cutOff(true);
    const before = await next.outside.read();
    await next.book.open(log.db);
    await turn(next, 3, 100);
    await turn(next, 3, 103);
    expect(await seenOf(next)).toEqual(contradicted([40], 'leaves that were signed are lost'));
    expect(await next.outside.read()).toBe(before);
  });

  it('because others stand in the place of those that are lost is not signed any more', async () => {
    const next = await cutOff(true);
    await next.book.open(log.db);
    await turn(next, 30, 100);
    expect(await seenOf(next)).toEqual(contradicted([40], 'are not those that the checkpoint in'));
  });

  it('because leaves are lost whose checkpoint the database still has is not signed any more', async () => {
    const next = await cutOff(false);
    await next.book.open(log.db);
    await turn(next, 30, 100);
    expect(await seenOf(next)).toEqual(contradicted([40, 60], 'are not those that the checkpoint in'));
  });

  // Through the sequencer, which decides when it is signed.
  it.each([['with their checkpoint', true], ['and their checkpoint is still there', false]])('because leaves are lost, %s, is found before the log is as long again', async (_, checkpoints) => {
    const next = await cutOff(checkpoints);
    const sequencer = new Sequencer(log.url, next.book, LOGGER, next.registry);
    sequencer.start();
    try {
      await log.append(3, 100);
      await eventually(() => next.fired.length > 0, 4_000);
    } finally {
      await sequencer.stop();
    }
    expect(await seenOf(next)).toEqual(contradicted(checkpoints ? [40] : [40, 60], 'leaves that were signed are lost'));
  });

  it('because a file outside is of another log is not signed', async () => {
    const next = log.book();
    await next.outside.write(signCheckpoint({ origin: 'novix-gateway/another', size: 1, root: Buffer.alloc(32) }, log.keys, 0));
    await next.book.open(log.db);
    await turn(next, 10);
    expect(await seenOf(next)).toEqual(contradicted([], 'is not one of this log'));
    expect(await next.outside.read()).toContain('novix-gateway/another');
  });

  it('because a file outside is damaged is not signed', async () => {
    const next = log.book();
    await next.outside.write('nonsense');
    await next.book.open(log.db);
    await turn(next, 10);
    expect(await seenOf(next)).toEqual(contradicted([], 'is not one of this log'));
  });

  it('because it was signed by other keys is not signed', async () => {
    const first = log.book('first', makeSigningKeys());
    await first.book.open(log.db);
    await turn(first, 10);
    const next = log.book('second');
    await next.book.open(log.db);
    await turn(next, 10, 10);
    expect((await notesOf(log.db)).length).toBe(1);
    expect(next.fired.map(({ type }) => type)).toEqual(['audit_contradicted']);
    expect(await next.gauge('novix_audit_log_contradicted')).toBe(1);
  });

  it('because a tile was rewritten is not signed', async () => {
    const one = log.book();
    await one.book.open(log.db);
    await turn(one, 10);
    await asIntruder(log.db, async () => void (await log.db.query("UPDATE audit_tiles SET hashes = overlay(hashes PLACING '\\x00'::bytea FROM 5)")));
    const next = log.book();
    await next.book.open(log.db);
    await turn(next, 10, 10);
    expect(await seenOf(next)).toEqual(contradicted([10], 'are not those that the checkpoint in'));
  });

  // Nobody can sign it, and nobody would know.
  it.each([['a tile is gone', 'DELETE FROM audit_tiles WHERE level = 0'], ['a leaf is gone that is not in the tree yet', 'DELETE FROM audit_leaves WHERE index = 25']])('because %s says so', async (_, statement) => {
    const one = log.book();
    await one.book.open(log.db);
    await turn(one, 20);
    await log.append(10, 20);
    await log.sequence();
    await asIntruder(log.db, async () => void (await log.db.query(statement)));
    const next = log.book();
    const sequencer = new Sequencer(log.url, next.book, LOGGER, next.registry);
    sequencer.start();
    try {
      await log.append(3, 30);
      await eventually(() => next.fired.length > 0, 4_000);
    } finally {
      await sequencer.stop();
    }
    expect(next.fired.map(({ type }) => type)).toEqual(['audit_contradicted']);
    expect(await signedSizes()).toEqual([20]);
  });

  it('is seen by a replica that follows, which keeps what it has', async () => {
    const leader = log.book('leader');
    await leader.book.open(log.db);
    await turn(leader, 10);
    const follower = log.book('follower');
    await follower.book.follow(log.db);
    const kept = await follower.outside.read();
    expect(kept).toBe((await notesOf(log.db)).at(-1));
    // All is made anew, with the right keys, by somebody who has stolen them.
    await asIntruder(log.db, async () => {
      await log.db.query("UPDATE audit_leaves SET body = '{\"forged\":true}', leaf_hash = sha256('\\x00'::bytea || '{\"forged\":true}'::bytea) WHERE index = 3");
      await log.db.query('DELETE FROM audit_checkpoints');
      await log.db.query('DELETE FROM audit_tiles');
      await log.db.query('UPDATE audit_head SET tree_size = 0');
    });
    const thief = log.book('thief');
    await thief.book.open(log.db);
    await turn(thief, 10, 10);
    await follower.book.follow(log.db);
    expect(follower.fired.map(({ type }) => type)).toEqual(['audit_contradicted']);
    expect(await follower.outside.read()).toBe(kept);
    expect(await follower.gauge('novix_audit_log_contradicted')).toBe(1);
  });

  it('is signed again once the file is moved away', async () => {
    const next = log.book();
    await next.outside.write('nonsense');
    const sequencer = new Sequencer(log.url, next.book, LOGGER, next.registry);
    sequencer.start();
    try {
      await log.append(3);
      await eventually(() => next.fired.length > 0);
      await log.append(3, 3);
      const { rename } = await import('node:fs/promises');
      await rename(next.outside.path, `${next.outside.path}.away`);
      await eventually(async () => (await notesOf(log.db)).length > 0, 14_000); // it is looked at again every 10 s
    } finally {
      await sequencer.stop();
    }
    expect(await next.gauge('novix_audit_log_contradicted')).toBe(0);
    expect(next.resolved).toEqual(['audit_contradicted']);
    await expectGoesOnFrom(await notesOf(log.db));
  });
});

describe('a log whose leaders die', () => {
  const ROUNDS = 20;

  it('is whole, and contradicts no checkpoint that was ever seen', async () => {
    const books = [log.book('one'), log.book('two')];
    const sequencers = books.map(({ book, registry }) => new Sequencer(log.url, book, LOGGER, registry));
    const seen = new Set<string>();
    let written = 0;
    let running = true;
    const writer = await log.connect();
    const watcher = await log.connect();
    const write = async (): Promise<void> => {
      while (running) {
        const count = 1 + Math.floor(Math.random() * 40);
        const from = written;
        await appendLeaves(writer, Array.from({ length: count }, (_, i) => ({ id: `00000000-0000-4000-8000-${String(from + i).padStart(12, '0')}`, tenant: 'acme', text: `{"n":${from + i},"metadata":{"tenant_uid":"acme"}}` })));
        written += count;
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
      }
    };
    const watch = async (): Promise<void> => {
      while (running) {
        for (const note of await notesOf(watcher)) seen.add(note);
        for (const { outside } of books) {
          const note = await outside.read();
          if (note !== undefined) seen.add(note);
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    for (const sequencer of sequencers) sequencer.start();
    const work = Promise.all([write(), watch()]);
    let killed = 0;
    try {
      for (let round = 0; round < ROUNDS; round++) {
        await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 700));
        const { rowCount } = await log.db.query(
          `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`);
        killed += rowCount!;
      }
    } finally {
      running = false;
      await work;
      await eventually(async () => (await log.db.query('SELECT FROM audit_pending')).rowCount === 0, 15_000);
      await Promise.all(sequencers.map((sequencer) => sequencer.stop()));
    }
    expect(killed).toBeGreaterThan(ROUNDS / 2);
    const { rows } = await log.db.query<{ index: string; id: string }>('SELECT index, id FROM audit_leaves ORDER BY index');
    expect(rows.map(({ index }) => Number(index))).toEqual(rows.map((_, place) => place));
    expect(rows.length).toBe(written);
    expect(new Set(rows.map(({ id }) => id)).size).toBe(written);
    await expectWholeTree();
    for (const note of await notesOf(log.db)) seen.add(note);
    for (const { outside } of books) seen.add((await outside.read())!);
    const sizes = await expectGoesOnFrom(seen);
    expect(seen.size).toBeGreaterThan(ROUNDS / 2);
    expect(Math.max(...sizes)).toBe(written);
    expect(books.flatMap(({ fired }) => fired)).toEqual([]);
    const last = await notesOf(log.db);
    const report = await verifyDatabase(log.db, await log.verifierKeys(), await Promise.all(books.map(async ({ outside }) => ({ place: outside.path, note: (await outside.read())! }))), () => {});
    expect(report).toMatchObject({ faults: [], size: written, leavesRead: written, checkpoints: last.length + 2 });
  }, 90_000);
});
