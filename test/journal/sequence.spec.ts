import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import { CheckpointFile } from '../../src/audit/checkpoint-file.ts';
import { openCheckpoint, verifierKeys } from '../../src/audit/checkpoint.ts';
import { GrowingTree } from '../../src/audit/growing-tree.ts';
import { LogBook } from '../../src/audit/log-book.ts';
import { Sequencer } from '../../src/audit/sequencer.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { appendLeaves } from '../support/append-leaves.ts';
import { eventually } from '../support/harness.ts';
import { createTestDatabase } from '../support/test-database.ts';

// The order of the audit log, made by audit_sequence, and the sequencer that has it done, on a real PostgreSQL.

interface Leaf {
  index: string;
  id: string;
  leaf_hash: Buffer;
  body: Buffer;
}

let database: { url: string; drop(): Promise<void> };
let db: Client;
let dir: string;
const keys = { ed25519: generateKeyPairSync('ed25519'), mlDsa44: generateKeyPairSync('ml-dsa-44') };
beforeAll(async () => {
  database = await createTestDatabase();
  dir = await mkdtemp(join(tmpdir(), 'log-test-'));
  db = await connect();
});
afterAll(async () => {
  await db.end();
  await database.drop();
  await rm(dir, { recursive: true });
});

async function connect(): Promise<Client> {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  return client;
}

function append(client: Client, texts: readonly string[]): Promise<unknown> {
  return appendLeaves(client, texts.map((text) => ({ id: randomUUID(), text })));
}

async function leaves(): Promise<Leaf[]> {
  return (await db.query<Leaf>('SELECT * FROM audit_leaves ORDER BY index')).rows;
}

async function pending(): Promise<number> {
  return Number((await db.query<{ count: string }>('SELECT count(*) FROM audit_pending')).rows[0]!.count);
}

async function expectWholeLog(texts: ReadonlySet<string>): Promise<void> {
  const found = await leaves();
  expect(found.map(({ index }) => index)).toEqual(found.map((_, position) => String(position)));
  expect(new Set(found.map(({ id }) => id)).size).toBe(found.length);
  for (const text of texts) expect(found.some(({ body }) => body.toString() === text)).toBe(true);
  for (const { body, leaf_hash: hash } of found) expect(hash.equals(createHash('sha256').update(Buffer.of(0)).update(body).digest())).toBe(true);
  const { rows } = await db.query<{ size: string }>('SELECT size FROM audit_head');
  expect(rows).toEqual([{ size: String(found.length) }]);
}

describe('the audit log', () => {
  it('has contiguous indexes and the leaf hashes of RFC 6962, however many write and however many would lead', async () => {
    const writers = await Promise.all([connect(), connect(), connect()]);
    const leaders = await Promise.all([connect(), connect()]);
    const texts = new Set<string>();
    let writing = true;
    const write = async (client: Client, writer: number): Promise<void> => {
      for (let batch = 0; batch < 40; batch++) {
        const batchTexts = Array.from({ length: 7 }, (_, n) => `{"writer":${writer}, "batch":${batch}, "n":${n}, "é":"\\u00e9"}`);
        for (const text of batchTexts) texts.add(text);
        await append(client, batchTexts);
      }
    };
    const lead = async (client: Client): Promise<number> => {
      let moved = 0;
      while (writing || (await pending()) > 0) moved += (await client.query<{ moved: number }>('SELECT audit_sequence(50) AS moved')).rows[0]!.moved;
      return moved;
    };
    try {
      const leading = Promise.all(leaders.map(lead));
      await Promise.all(writers.map(write)).finally(() => {
        writing = false;
      });
      const moved = await leading;
      expect(moved[0]! + moved[1]!).toBe(texts.size);
      expect(texts.size).toBe(3 * 40 * 7);
    } finally {
      await Promise.all([...writers, ...leaders].map((client) => client.end()));
    }
    await expectWholeLog(texts);
  });

  it('takes up a leaf whose transaction was the slower one later, and loses none', async () => {
    const slow = await connect();
    const size = (await leaves()).length;
    try {
      await slow.query('BEGIN');
      await append(slow, ['{"who":"slow"}']); // has its arrival number before the others
      await append(db, ['{"who":"quick"}']);
      await db.query('SELECT audit_sequence(100)');
      expect((await leaves()).slice(size).map(({ body }) => body.toString())).toEqual(['{"who":"quick"}']);
      await slow.query('COMMIT');
    } finally {
      await slow.end();
    }
    await db.query('SELECT audit_sequence(100)');
    expect((await leaves()).slice(size).map(({ body }) => body.toString())).toEqual(['{"who":"quick"}', '{"who":"slow"}']);
    await expectWholeLog(new Set());
  });

  it('goes on past the edge of a partition, and the next is twice as wide where that one filled quickly', async () => {
    const other = await createTestDatabase();
    const client = new Client({ connectionString: other.url });
    await client.connect();
    try {
      await client.query('UPDATE audit_head SET size = 65534');
      await append(client, ['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}']);
      expect((await client.query('SELECT audit_sequence(100) AS moved')).rows).toEqual([{ moved: 4 }]);
      const { rows } = await client.query<{ index: string; part: string }>('SELECT index, tableoid::regclass::text AS part FROM audit_leaves ORDER BY index');
      expect(rows).toEqual([
        { index: '65534', part: 'audit_leaves_00000000000000' }, { index: '65535', part: 'audit_leaves_00000000000000' },
        { index: '65536', part: 'audit_leaves_00000000065536' }, { index: '65537', part: 'audit_leaves_00000000065536' },
      ]);
    } finally {
      await client.end();
      await other.drop();
    }
  });

  // How long the last partition took to fill, and how wide the next one is.
  it.each([
    ['within the hour', '59 minutes', 65_536, 131_072], ['within the day', '2 hours', 65_536, 65_536], ['in more than a day', '25 hours', 65_536, 32_768], ['quickly, as wide as any', '1 minute', 16_777_216, 16_777_216], ['slowly, as narrow as any', '3 days', 4_096, 4_096],
  ])('has a partition after one that filled %s that is wider, as wide or narrower', async (_, age, width, next) => {
    const other = await createTestDatabase();
    const client = new Client({ connectionString: other.url });
    await client.connect();
    try {
      const high = Math.max(65_536, width); // the first one is there already, and is said to be narrower or wider
      await client.query('UPDATE audit_partitions SET created_at = clock_timestamp() - $1::interval, low = $2, high = $3', [age, high - width, high]);
      await client.query('UPDATE audit_head SET size = $1', [high - 1]);
      await client.query('SELECT audit_ensure_partition($1)', [high]);
      const { rows } = await client.query<Record<'low' | 'high' | 'name', string>>('SELECT low, high, name FROM audit_partitions ORDER BY low');
      expect(rows.map(({ low, high, name }) => [Number(low), Number(high), name])).toEqual([[high - width, high, 'audit_leaves_00000000000000'], [high, high + next, `audit_leaves_${String(high).padStart(14, '0')}`]]);
      expect((high + next) % 256).toBe(0);
      const bounds = await client.query<{ bound: string }>('SELECT pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_class c WHERE relname = $1', [rows[1]!.name]);
      expect(bounds.rows[0]!.bound).toBe(`FOR VALUES FROM ('${high}') TO ('${high + next}')`);
      // It is known when the first was full, and the gap to a far index is closed without a hole.
      await client.query('UPDATE audit_head SET size = $1', [high]);
      await client.query('SELECT audit_ensure_partition($1)', [high + 3 * next]);
      const { rows: all } = await client.query<{ low: string; high: string; filled: boolean }>('SELECT low, high, filled_at IS NOT NULL AS filled FROM audit_partitions ORDER BY low');
      expect(all.map(({ filled }) => filled)).toEqual(all.map((__, place) => place === 0));
      expect(all.slice(1).map(({ low }) => low)).toEqual(all.slice(0, -1).map(({ high }) => high));
      expect(Number(all.at(-1)!.high)).toBeGreaterThan(high + 3 * next);
    } finally {
      await client.end();
      await other.drop();
    }
  });

  it.each([
    ['an update', "UPDATE audit_leaves SET body = 'x' WHERE index = 0"],
    ['a delete', 'DELETE FROM audit_leaves WHERE index = 0'],
    ['truncating', 'TRUNCATE audit_leaves'],
    ['an update of a partition', "UPDATE audit_leaves_00000000000000 SET body = 'x' WHERE index = 0"],
    ['a delete in a partition', 'DELETE FROM audit_leaves_00000000000000'],
    ['truncating a partition', 'TRUNCATE audit_leaves_00000000000000'],
    ['truncating a partition that a later leaf made', 'TRUNCATE audit_leaves_00000000065536'],
  ])('refuses %s', async (_, statement) => {
    await append(db, ['{"kept":true}']);
    await db.query('SELECT audit_sequence(100)');
    await db.query('SELECT audit_ensure_partition(65536)');
    const before = await leaves();
    expect(before.length).toBeGreaterThan(0);
    await db.query('BEGIN');
    try {
      await expect(db.query(statement)).rejects.toMatchObject({ message: expect.stringContaining('append-only') });
    } finally {
      await db.query('ROLLBACK');
    }
    expect(await leaves()).toEqual(before);
  });
});

/** A replica's sequencer, and the file of its own that it keeps the last checkpoint in. */
function replica(name: string): { sequencer: Sequencer; registry: Registry; file: string; fired: unknown[] } {
  const [registry, file, logger, fired] = [new Registry(), join(dir, name), pino({ level: 'silent' }), [] as unknown[]];
  const book = new LogBook(keys, new CheckpointFile(file), { fire: (alert) => void fired.push(alert), resolve: () => {} }, systemClock, logger, registry);
  return { sequencer: new Sequencer(database.url, book, logger, registry), registry, file, fired };
}

/** Tiles and checkpoints are those of the leaves, made anew from the leaves alone. Returns the sizes that were signed. */
async function expectTreeAndCheckpoints(): Promise<number[]> {
  const bodies = (await leaves()).map(({ body }) => body);
  const tree = GrowingTree.empty();
  const roots = new Map<number, Buffer>();
  const tiles = new Map<string, string>();
  for (const body of bodies) {
    for (const { level, index, hashes } of tree.append([createHash('sha256').update(Buffer.of(0)).update(body).digest()])) tiles.set(`${level}/${index}`, hashes.toString('hex'));
    roots.set(tree.size, tree.root());
  }
  const { rows } = await db.query<{ level: number; index: string; hashes: Buffer }>('SELECT level, index, hashes FROM audit_tiles');
  expect(new Map(rows.map(({ level, index, hashes }) => [`${level}/${index}`, hashes.toString('hex')] as const))).toEqual(tiles);
  const { rows: [head] } = await db.query<{ origin: string; tree_size: string }>('SELECT origin, tree_size FROM audit_head');
  expect(head!.tree_size).toBe(String(bodies.length));
  const { rows: signed } = await db.query<{ size: string; note: string }>('SELECT size, note FROM audit_checkpoints ORDER BY size');
  return signed.map(({ size, note }) => {
    const checkpoint = openCheckpoint(note, verifierKeys(head!.origin, keys));
    expect({ size: checkpoint.size, root: checkpoint.root }).toEqual({ size: Number(size), root: roots.get(Number(size)) });
    return checkpoint.size;
  });
}

describe('the sequencer', () => {
  it('has one leader; when that one is gone, another goes on with log, tree and checkpoints, and no leaf is lost or doubled', async () => {
    const replicas = [replica('one'), replica('two')];
    const leads = async (index: number): Promise<boolean> => /^novix_audit_sequencer_leader 1$/m.test(await replicas[index]!.registry.metrics());
    const signedSize = async (): Promise<number> => Number((await db.query<{ size: string | null }>('SELECT max(size) AS size FROM audit_checkpoints')).rows[0]!.size);
    const signedAll = async (): Promise<boolean> => (await pending()) === 0 && (await signedSize()) === (await leaves()).length;
    for (const { sequencer } of replicas) sequencer.start();
    let signedByFirst: number;
    try {
      const first = await eventually(async () => ((await leads(0)) ? [0] : (await leads(1)) ? [1] : undefined));
      const [leader] = first as [number];
      await append(db, ['{"under":"the first leader"}']);
      await eventually(signedAll);
      signedByFirst = await signedSize();
      expect(await leads(1 - leader)).toBe(false);
      // The one that follows has the checkpoint on its own disk too.
      await eventually(async () => (await readFile(replicas[1 - leader]!.file, 'utf8').catch(() => '')).split('\n')[1] === String(signedByFirst));
      // Its connection dies, as with a process that was killed; both may run for the place again.
      await db.query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");
      await append(db, ['{"under":"the next leader"}', ...Array.from({ length: 300 }, (_, n) => `{"next":${n}}`)]);
      await eventually(signedAll);
      expect([await leads(0), await leads(1)].filter(Boolean)).toHaveLength(1);
    } finally {
      await Promise.all(replicas.map(({ sequencer }) => sequencer.stop()));
    }
    await expectWholeLog(new Set(['{"under":"the first leader"}', '{"under":"the next leader"}']));
    const sizes = await expectTreeAndCheckpoints();
    expect(sizes).toContain(signedByFirst);
    expect(sizes.at(-1)).toBe((await leaves()).length);
    expect(sizes.at(-1)! - signedByFirst).toBeGreaterThanOrEqual(301);
    expect(replicas.flatMap(({ fired }) => fired)).toEqual([]);
  });

  it('sequences and signs what is pending when it stops', async () => {
    const { sequencer, file } = replica('last');
    sequencer.start();
    await append(db, ['{"n":"a"}']);
    await eventually(async () => (await pending()) === 0);
    await append(db, ['{"n":"last"}']);
    await sequencer.stop();
    expect(await pending()).toBe(0);
    const sizes = await expectTreeAndCheckpoints();
    expect(sizes.at(-1)).toBe((await leaves()).length);
    expect((await readFile(file, 'utf8')).split('\n')[1]).toBe(String(sizes.at(-1)));
  });

  it('signs at least every second while leaves come without an end', async () => {
    const { sequencer } = replica('busy');
    const before = await expectTreeAndCheckpoints();
    sequencer.start();
    const until = performance.now() + 3_500;
    let n = 0;
    while (performance.now() < until) await append(db, Array.from({ length: 500 }, () => `{"busy":${n++}}`));
    const { rows: [now] } = await db.query<{ count: string }>('SELECT count(*) FROM audit_checkpoints');
    await sequencer.stop();
    expect(Number(now!.count) - before.length).toBeGreaterThanOrEqual(2);
    const { rows } = await db.query<{ gap: number | null }>("SELECT extract(epoch FROM max(gap))::float AS gap FROM (SELECT signed_at - lag(signed_at) OVER (ORDER BY size) AS gap FROM audit_checkpoints WHERE size > $1) g", [before.at(-1)!]);
    expect(rows[0]!.gap).toBeLessThan(6); // on a machine that has other things to do
  });
});
