import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import { DataSource } from 'typeorm';
import { CreateTransparencyLog20261126000000 } from '../../migrations/20261126000000-create-transparency-log.ts';
import { MIGRATIONS } from '../../migrations/index.ts';
import { CheckpointFile } from '../../src/audit/checkpoint-file.ts';
import { verifierKeys } from '../../src/audit/checkpoint.ts';
import { LogBook } from '../../src/audit/log-book.ts';
import { readEvents } from '../../src/audit/recorded-events.ts';
import { readHead } from '../../src/audit/transparency-log.ts';
import { verifyDatabase } from '../../src/audit/verify-database.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { createTestDatabase } from '../support/test-database.ts';
import { eventText, LOGGER, makeSigningKeys } from './log.ts';

// A gateway that has a log already gets its tree. The database is one of before: all migrations up to the one of the tree.

let database: { url: string; drop(): Promise<void> };
let db: Client;
let dir: string;
const signing = makeSigningKeys();
const own = [eventText('sequenced'), eventText('pending')];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'log-test-'));
  database = await createTestDatabase();
  db = new Client({ connectionString: database.url });
  await db.connect();
  await db.query('DROP SCHEMA public CASCADE');
  await db.query('CREATE SCHEMA public');
  const at = MIGRATIONS.indexOf(CreateTransparencyLog20261126000000);
  await migrate(MIGRATIONS.slice(0, at));
  const append = ({ text }: { text: string }): Promise<unknown> => db.query('SELECT audit_append(journal_open(1), $1)', [`[{"i":0,"id":"${randomUUID()}","b":${text}}]`]);
  await append(own[0]!);
  await db.query('SELECT audit_sequence(100)');
  await append(own[1]!);
  await migrate(MIGRATIONS.slice(0, at + 1));
  await db.query('SELECT audit_sequence(100)');
  const book = new LogBook(signing, new CheckpointFile(join(dir, 'checkpoint')), { fire: () => {}, resolve: () => {} }, systemClock, LOGGER, new Registry());
  await book.open(db);
  await book.grow(db);
  await book.sign(db);
});
afterAll(async () => {
  await db?.end();
  await database?.drop();
  await rm(dir, { recursive: true, force: true });
});

async function migrate(migrations: (typeof MIGRATIONS)[number][]): Promise<void> {
  const source = await new DataSource({ type: 'postgres', url: database.url, migrations }).initialize();
  await source.runMigrations({ transaction: 'each' });
  await source.destroy();
}

describe('a log of before', () => {
  it('is not said to be tampered with', async () => {
    const report = await verifyDatabase(db, verifierKeys((await readHead(db)).origin, signing), [], () => {});
    expect(report).toMatchObject({ size: 2, leavesRead: 2, faults: [] });
  });

  it('has events that are found by their tenant and their request', async () => {
    const filter = { tenantId: 'acme', requestId: undefined, phase: undefined, fromMs: undefined, toMs: undefined };
    expect((await readEvents(db, filter, undefined, 10)).events).toHaveLength(2);
    for (const { requestId } of own) expect((await readEvents(db, { ...filter, requestId }, undefined, 10)).events).toHaveLength(1);
  });

  it('keeps the partition that it has, and goes on behind it', async () => {
    await db.query('SELECT audit_ensure_partition(1048576)');
    const { rows } = await db.query<{ low: string; name: string }>('SELECT low, name FROM audit_partitions ORDER BY low');
    expect(rows[0]).toEqual({ low: '0', name: 'audit_leaves_00000000' });
    expect(rows[1]!.low).toBe('1048576');
  });
});
