import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import type { Alert } from '../../src/alerts/alerts.ts';
import { CheckpointFile } from '../../src/audit/checkpoint-file.ts';
import { verifierKeys } from '../../src/audit/checkpoint.ts';
import { GrowingTree } from '../../src/audit/growing-tree.ts';
import { LogBook } from '../../src/audit/log-book.ts';
import type { VerifierKey } from '../../src/audit/signed-note.ts';
import type { SigningKeys } from '../../src/audit/signing-keys.ts';
import { readHead } from '../../src/audit/transparency-log.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { appendLeaves } from '../support/append-leaves.ts';
import { createTestDatabase } from '../support/test-database.ts';

// A transparency log on a real PostgreSQL, without the gateway around it.

export const LOGGER = pino({ level: 'silent' });

export function makeSigningKeys(): SigningKeys {
  return { ed25519: generateKeyPairSync('ed25519'), mlDsa44: generateKeyPairSync('ml-dsa-44') };
}

export function leafHashOf(body: Buffer): Buffer {
  return createHash('sha256').update(Buffer.of(0)).update(body).digest();
}

/** An event as the columns beside it describe it. */
export function eventText(n: number | string, tenant = 'acme', requestId: string = randomUUID()): { text: string; tenant: string; requestId: string } {
  return { text: JSON.stringify({ class_uid: 6003, time: 1_790_000_000_000, metadata: { correlation_uid: requestId, tenant_uid: tenant }, n, unmapped: { novix: { phase: 'refusal' } } }), tenant, requestId };
}

export interface BookOfTest {
  book: LogBook;
  outside: CheckpointFile;
  registry: Registry;
  fired: Alert[];
  resolved: string[];
  gauge(name: string): Promise<number>;
}

export interface TestLog {
  url: string;
  db: Client;
  dir: string;
  keys: SigningKeys;
  verifierKeys(): Promise<readonly VerifierKey[]>;
  /** A book of a replica of its own: its checkpoint is in a file of that name. */
  book(file?: string, keys?: SigningKeys | null): BookOfTest;
  append(count: number, first?: number, tenant?: string): Promise<void>;
  sequence(): Promise<void>;
  connect(): Promise<Client>;
  close(): Promise<void>;
}

export async function startLog(): Promise<TestLog> {
  const database = await createTestDatabase();
  const dir = await mkdtemp(join(tmpdir(), 'log-test-'));
  const clients: Client[] = [];
  const connect = async (): Promise<Client> => {
    const client = new Client({ connectionString: database.url });
    client.on('error', () => {}); // tests that end connections know that they do
    await client.connect();
    clients.push(client);
    return client;
  };
  const db = await connect();
  const keys = makeSigningKeys();
  return {
    url: database.url, db, dir, keys, connect,
    verifierKeys: async () => verifierKeys((await readHead(db)).origin, keys),
    book: (file = 'checkpoint', own = keys) => {
      const [registry, outside, fired, resolved] = [new Registry(), new CheckpointFile(join(dir, file)), [] as Alert[], [] as string[]];
      const alerts = { fire: (alert: Alert) => void fired.push(alert), resolve: (type: string) => void resolved.push(type) };
      const book = new LogBook(own ?? undefined, outside, alerts, systemClock, LOGGER, registry);
      const gauge = async (name: string): Promise<number> => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await registry.metrics())?.[1]);
      return { book, outside, registry, fired, resolved, gauge };
    },
    append: async (count, first = 0, tenant = 'acme') => {
      await appendLeaves(db, Array.from({ length: count }, (_, place) => ({ ...eventText(first + place, tenant), id: randomUUID() })));
    },
    sequence: async () => {
      while ((await db.query<{ moved: number }>('SELECT audit_sequence(4096) AS moved')).rows[0]!.moved > 0);
    },
    close: async () => {
      await Promise.all(clients.map((client) => client.end().catch(() => {})));
      await database.drop();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export async function leafBodies(db: Client): Promise<Buffer[]> {
  return (await db.query<{ body: Buffer }>('SELECT body FROM audit_leaves ORDER BY index')).rows.map(({ body }) => body);
}

export async function notesOf(db: Client): Promise<string[]> {
  return (await db.query<{ note: string }>('SELECT note FROM audit_checkpoints ORDER BY size')).rows.map(({ note }) => note);
}

/** Tiles of a tree over these leaves, made anew. */
export function tilesOver(bodies: readonly Buffer[]): { tree: GrowingTree; tiles: { level: number; index: number; hashes: Buffer }[] } {
  const tree = GrowingTree.empty();
  return { tree, tiles: tree.append(bodies.map(leafHashOf)) };
}

/** As somebody who may do anything in the database: nothing there keeps them. */
export async function asIntruder(db: Client, work: () => Promise<void>): Promise<void> {
  await db.query("SET session_replication_role = 'replica'");
  try {
    await work();
  } finally {
    await db.query("SET session_replication_role = 'origin'");
  }
}
