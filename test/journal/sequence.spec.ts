import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createHash, randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import { Sequencer } from '../../src/audit/sequencer.ts';
import { eventually } from '../support/harness.ts';
import { createTestDatabase } from '../support/test-database.ts';

// The order of the audit log, made by audit_sequence, on a real PostgreSQL.

interface Leaf {
  index: string;
  id: string;
  leaf_hash: Buffer;
  body: Buffer;
}

let database: { url: string; drop(): Promise<void> };
let db: Client;
beforeAll(async () => {
  database = await createTestDatabase();
  db = await connect();
});
afterAll(async () => {
  await db.end();
  await database.drop();
});

async function connect(): Promise<Client> {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  return client;
}

function append(client: Client, texts: readonly string[]): Promise<unknown> {
  const entries = `[${texts.map((text, i) => `{"i":${i},"id":"${randomUUID()}","b":${text}}`).join(',')}]`;
  return client.query('SELECT audit_append(journal_open($1), $2)', [texts.length, entries]);
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

  it('goes on past the edge of a partition', async () => {
    const other = await createTestDatabase();
    const client = new Client({ connectionString: other.url });
    await client.connect();
    try {
      await client.query('UPDATE audit_head SET size = 1048574');
      await append(client, ['{"n":1}', '{"n":2}', '{"n":3}', '{"n":4}']);
      expect((await client.query('SELECT audit_sequence(100) AS moved')).rows).toEqual([{ moved: 4 }]);
      const { rows } = await client.query<{ index: string; part: string }>('SELECT index, tableoid::regclass::text AS part FROM audit_leaves ORDER BY index');
      expect(rows).toEqual([
        { index: '1048574', part: 'audit_leaves_00000000' }, { index: '1048575', part: 'audit_leaves_00000000' },
        { index: '1048576', part: 'audit_leaves_00000001' }, { index: '1048577', part: 'audit_leaves_00000001' },
      ]);
    } finally {
      await client.end();
      await other.drop();
    }
  });

  it.each([
    ['an update', "UPDATE audit_leaves SET body = 'x' WHERE index = 0"],
    ['a delete', 'DELETE FROM audit_leaves WHERE index = 0'],
    ['truncating', 'TRUNCATE audit_leaves'],
    ['an update of a partition', "UPDATE audit_leaves_00000000 SET body = 'x' WHERE index = 0"],
    ['a delete in a partition', 'DELETE FROM audit_leaves_00000000'],
    ['truncating a partition', 'TRUNCATE audit_leaves_00000000'],
    ['truncating a partition that a later leaf made', 'TRUNCATE audit_leaves_00000001'],
  ])('refuses %s', async (_, statement) => {
    await append(db, ['{"kept":true}']);
    await db.query('SELECT audit_sequence(100)');
    await db.query('SELECT audit_ensure_partition(1048576)');
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

describe('the sequencer', () => {
  it('has one leader; when that one is gone, another takes over, and no leaf is lost or doubled', async () => {
    const registries = [new Registry(), new Registry()];
    const sequencers = registries.map((registry) => new Sequencer(database.url, pino({ level: 'silent' }), registry));
    const leads = async (index: number): Promise<boolean> => /^novix_audit_sequencer_leader 1$/m.test(await registries[index]!.metrics());
    for (const sequencer of sequencers) sequencer.start();
    try {
      const first = await eventually(async () => ((await leads(0)) ? [0] : (await leads(1)) ? [1] : undefined));
      const [leader] = first as [number];
      await append(db, ['{"under":"the first leader"}']);
      await eventually(async () => (await pending()) === 0);
      expect(await leads(1 - leader)).toBe(false);
      // Its connection dies, as with a process that was killed; both may run for the place again.
      await db.query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");
      await append(db, ['{"under":"the next leader"}']);
      await eventually(async () => (await pending()) === 0);
      expect([await leads(0), await leads(1)].filter(Boolean)).toHaveLength(1);
    } finally {
      await Promise.all(sequencers.map((sequencer) => sequencer.stop()));
    }
    await expectWholeLog(new Set(['{"under":"the first leader"}', '{"under":"the next leader"}']));
  });

  it('sequences what is pending when it stops', async () => {
    const sequencer = new Sequencer(database.url, pino({ level: 'silent' }), new Registry());
    sequencer.start();
    await append(db, ['{"n":"a"}']);
    await eventually(async () => (await pending()) === 0);
    await append(db, ['{"n":"last"}']);
    await sequencer.stop();
    expect(await pending()).toBe(0);
  });
});
