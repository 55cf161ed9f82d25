import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID, verify } from 'node:crypto';
import type { DataSource } from 'typeorm';
import { collectEvidence, preAuthentication, signEvidence } from '../../src/audit/evidence.ts';
import { LeafRetention } from '../../src/audit/leaf-retention.ts';
import { checkProof } from '../../src/audit/tlog-proof.ts';
import { proveInclusion, PrunedError, readHead } from '../../src/audit/transparency-log.ts';
import { verifyDatabase } from '../../src/audit/verify-database.ts';
import { createDataSource } from '../../src/shared/database.ts';
import { leafHashOf, LOGGER, startLog, type BookOfTest, type TestLog } from './log.ts';

const DAY_MS = 86_400_000;
const NOW_MS = Date.now();
const LEAVES = 800;

let log: TestLog;
let book: BookOfTest;
let dataSource: DataSource;
let retention: LeafRetention;
const proofs = new Map<number, { proof: string; hash: Buffer }>();

async function signAll(): Promise<void> {
  await log.sequence();
  await book.book.grow(log.db);
  await book.book.sign(log.db);
}

async function filledDaysAgo(days: number): Promise<void> {
  await log.db.query('UPDATE audit_partitions SET filled_at = $1 WHERE filled_at IS NOT NULL', [new Date(NOW_MS - days * DAY_MS)]);
}

async function keepProof(index: number): Promise<void> {
  const { rows: [row] } = await log.db.query<{ body: Buffer }>('SELECT body FROM audit_leaves WHERE index = $1', [index]);
  proofs.set(index, { proof: (await proveInclusion(log.db, index))!, hash: leafHashOf(row!.body) });
}

beforeAll(async () => {
  log = await startLog();
  book = log.book();
  dataSource = await createDataSource(log.url, LOGGER).initialize();
  retention = new LeafRetention(dataSource, 91, LOGGER);
  // Narrow partitions, as a log has them that fills slowly: 0 to 256, then twice as wide, since the first was filled at once.
  await log.db.query('DROP TABLE audit_leaves_00000000000000');
  await log.db.query('DELETE FROM audit_partitions');
  await log.db.query('CREATE TABLE audit_leaves_00000000000000 PARTITION OF audit_leaves FOR VALUES FROM (0) TO (256)');
  await log.db.query("INSERT INTO audit_partitions (low, high, name) VALUES (0, 256, 'audit_leaves_00000000000000')");
  await book.book.open(log.db);
  await log.append(LEAVES);
  await log.sequence();
});
afterAll(async () => {
  await dataSource.destroy();
  await log.close();
});

describe('leaves whose time is over', () => {
  it('stay for ever where no time is set', async () => {
    await filledDaysAgo(10_000);
    expect(await new LeafRetention(dataSource, undefined, LOGGER).run(NOW_MS)).toMatchObject({ partitions: 0, failures: 0 });
  });

  it('stay as long as no checkpoint covers them', async () => {
    expect(await retention.run(NOW_MS)).toMatchObject({ partitions: 0, failures: 0 });
    await signAll();
    for (const index of [3, 300, 790]) await keepProof(index);
  });

  it('stay as long as a SIEM sink has not got them', async () => {
    await log.db.query("INSERT INTO siem_sinks (id, name, type, url, enabled, cursor) VALUES ($1, 'slow', 'file', 'file:///x', true, 255)", [randomUUID()]);
    expect(await retention.run(NOW_MS)).toMatchObject({ partitions: 0, failures: 0 });
    await log.db.query('UPDATE siem_sinks SET cursor = 256');
    expect(await retention.run(NOW_MS)).toEqual({ leaves: 256, partitions: 1, commitment_keys: 0, failures: 0 });
    await log.db.query('DELETE FROM siem_sinks');
  });

  it('stay where their partition was filled too late', async () => {
    await filledDaysAgo(90);
    expect(await retention.run(NOW_MS)).toMatchObject({ partitions: 0 });
    await filledDaysAgo(92);
    expect(await retention.run(NOW_MS)).toMatchObject({ leaves: 512, partitions: 1, failures: 0 });
    expect(await readHead(log.db)).toMatchObject({ prunedBelow: 768 });
  });

  it('leave a log that verifies, with receipts in it', async () => {
    await log.append(300, LEAVES);
    await signAll();
    const report = await verifyDatabase(log.db, await log.verifierKeys(), [], () => {});
    expect(report).toMatchObject({ prunedBelow: 768, size: LEAVES + 2 + 300, leavesRead: LEAVES + 2 + 300 - 768, faults: [] });
    const keys = await log.verifierKeys();
    // What was proved before still is, whether its leaf is kept or not.
    for (const { proof, hash } of proofs.values()) expect(() => checkProof(proof, hash, keys)).not.toThrow();
    checkProof((await proveInclusion(log.db, 790))!, proofs.get(790)!.hash, keys);
    await expect(proveInclusion(log.db, 300)).rejects.toThrow(PrunedError);
  });

  it('stand in the evidence, which is signed', async () => {
    const { origin } = await readHead(log.db);
    const evidence = await collectEvidence(log.db, { tls: undefined, audit: { signingKeyFile: undefined, checkpointFile: '', retentionDays: 91 } }, log.keys, NOW_MS);
    expect(evidence['shred_receipts']).toEqual([
      expect.objectContaining({ object: { type: 'audit_partition', id: 'audit_leaves_00000000000256' }, before: { first_index: 256, last_index: 767 } }),
      expect.objectContaining({ object: { type: 'audit_partition', id: 'audit_leaves_00000000000000' }, before: { first_index: 0, last_index: 255 } }),
    ]);
    expect(evidence['statement']).not.toMatch(/certified/i);
    const { payload, signatures } = signEvidence(evidence, origin, log.keys);
    const bytes = Buffer.from(payload, 'base64');
    expect(JSON.parse(bytes.toString())).toMatchObject({ audit_log: { origin, pruned_below: 768 } });
    const [ed25519, mlDsa] = signatures.map(({ sig }) => Buffer.from(sig, 'base64'));
    expect(verify(null, preAuthentication(bytes), log.keys.ed25519.publicKey, ed25519!)).toBe(true);
    expect(verify(null, preAuthentication(bytes), log.keys.mlDsa44.publicKey, mlDsa!)).toBe(true);
    expect(verify(null, preAuthentication(Buffer.concat([bytes, Buffer.from(' ')])), log.keys.ed25519.publicKey, ed25519!)).toBe(false);
  });

  it('are dropped whole or not at all', async () => {
    await log.append(1_000, 5_000);
    await signAll();
    await log.append(1); // with the next leaves it is seen that the partition is full
    await signAll();
    await filledDaysAgo(92);
    await log.db.query('ALTER TABLE audit_pending RENAME TO audit_pending_away'); // the receipt cannot be written
    try {
      expect(await retention.run(NOW_MS)).toMatchObject({ partitions: 0, failures: 1 });
      expect((await log.db.query('SELECT FROM audit_leaves WHERE index = 790')).rowCount).toBe(1);
      expect(await readHead(log.db)).toMatchObject({ prunedBelow: 768 });
    } finally {
      await log.db.query('ALTER TABLE audit_pending_away RENAME TO audit_pending');
    }
  });
});
