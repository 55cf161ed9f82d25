import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import { CheckpointFile } from '../../src/audit/checkpoint-file.ts';
import { openCheckpoint, signCheckpoint, verifierKeys } from '../../src/audit/checkpoint.ts';
import { LogBook } from '../../src/audit/log-book.ts';
import type { LogFault, LogReport } from '../../src/audit/log-faults.ts';
import type { VerifierKey } from '../../src/audit/signed-note.ts';
import { openSigningKeys, type SigningKeys } from '../../src/audit/signing-keys.ts';
import { readHead } from '../../src/audit/transparency-log.ts';
import { verifyDatabase } from '../../src/audit/verify-database.ts';
import { verifyRemote } from '../../src/audit/verify-remote.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { appendLeaves } from '../support/append-leaves.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { asIntruder, eventText, leafBodies, LOGGER, makeSigningKeys, notesOf, startLog, tilesOver, type TestLog } from './log.ts';

// Whatever is changed in the database by hand is found, and named: by whoever has the database, and over HTTP where that can be seen there.

const LEADER_LOCK = 7_204_115_002;
const TABLES = ['audit_leaves', 'audit_tiles', 'audit_checkpoints', 'audit_head'];

let harness: Harness;
let db: Client;
let signing: SigningKeys;
let keys: readonly VerifierKey[];
let token: string;
let size: number;
let older: string;
let newest: string;
beforeAll(async () => {
  harness = await startHarness();
  db = new Client({ connectionString: harness.databaseUrl });
  db.on('error', () => {});
  await db.connect();
  signing = openSigningKeys(harness.settings.audit.signingKeyFile!, false);
  keys = verifierKeys((await readHead(db)).origin, signing);
  token = await harness.token({ tenant: 'platform', subject: 'eva@platform.example', roles: ['auditor'] });
  // From here on this test leads: the gateway's own sequencer would go on with the log in the midst of it.
  const mine = db.query('SELECT pg_advisory_lock($1)', [LEADER_LOCK]);
  await eventually(async () => (await harness.db.query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = $1 AND pid <> pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", [LEADER_LOCK % 2 ** 32])).rowCount! > 0, 10_000);
  await mine;
  const book = new LogBook(signing, new CheckpointFile(`${harness.settings.audit.checkpointFile}-of-test`), { fire: () => {}, resolve: () => {} }, systemClock, LOGGER, new Registry());
  await book.open(db);
  for (const count of [100, 156, 150, 330]) {
    await appendLeaves(db, Array.from({ length: count }, (_, i) => {
      const { text, tenant, requestId } = eventText(i, i % 3 === 0 ? 'globex' : 'acme');
      return { id: requestId, tenant, requestId, text };
    }));
    await db.query('SELECT audit_sequence(4096)');
    await book.grow(db);
    await book.sign(db);
  }
  ({ size } = await readHead(db));
  const notes = await notesOf(db);
  [older, newest] = [notes.find((note) => openCheckpoint(note, keys).size > 310)!, notes.at(-1)!];
  for (const table of TABLES) await db.query(`CREATE TABLE kept_${table} AS TABLE ${table}`);
});
afterAll(async () => {
  await db?.end();
  await harness?.close();
});
afterEach(async () => {
  await asIntruder(db, async () => {
    for (const table of TABLES) await db.query(`DELETE FROM ${table}`);
    for (const table of TABLES) await db.query(`INSERT INTO ${table} SELECT * FROM kept_${table}`);
  });
});

const byDatabase = (outside: readonly { place: string; note: string }[] = []): Promise<LogReport> => verifyDatabase(db, keys, outside, () => {});
/** The first fault, or why it could not even be read. */
async function byHttp(old: string | null = older): Promise<Partial<LogFault> & { refused?: string }> {
  try {
    const { faults } = await verifyRemote({ url: harness.url, token }, keys, old ?? undefined, () => {});
    return faults[0] ?? {};
  } catch (error) {
    return { refused: (error as Error).message };
  }
}
const run = (...statements: string[]): Promise<void> => asIntruder(db, async () => {
  for (const statement of statements) await db.query(statement);
});
const FORGED = `convert_to('{"metadata":{"tenant_uid":"acme"},"forged":true}', 'UTF8')`;

/** All tiles, and the roots, made anew over whatever the leaves now are. */
async function makeTilesAnew(): Promise<Buffer> {
  const { tree, tiles } = tilesOver(await leafBodies(db));
  await run("UPDATE audit_leaves SET leaf_hash = sha256('\\x00'::bytea || body)", 'DELETE FROM audit_tiles');
  for (const { level, index, hashes } of tiles) await db.query('INSERT INTO audit_tiles (level, index, hashes) VALUES ($1, $2, $3)', [level, index, hashes]);
  return tree.root();
}

describe('a log that nobody has touched', () => {
  it('verifies, in the database and over HTTP', async () => {
    expect(size).toBeGreaterThan(2 * 256 + 100);
    const notes = await notesOf(db);
    expect(notes.length).toBeGreaterThanOrEqual(4);
    expect(await byDatabase([{ place: 'a file', note: older }])).toEqual({ origin: keys[0]!.name, size, prunedBelow: 0, leavesRead: size, checkpoints: notes.length + 1, faults: [] });
    expect(await verifyRemote({ url: harness.url, token }, keys, older, () => {})).toEqual({ origin: keys[0]!.name, size, prunedBelow: 0, leavesRead: size, checkpoints: 2, faults: [] });
    expect(await verifyRemote({ url: harness.url, token }, keys, undefined, () => {})).toMatchObject({ size, checkpoints: 1, faults: [] });
    // Either key alone will do.
    for (const key of keys) expect((await verifyRemote({ url: harness.url, token }, [key], newest, () => {})).faults).toEqual([]);
  });

  it('verifies while it grows: leaves without a checkpoint are no fault', async () => {
    const { text, requestId } = eventText('new');
    await appendLeaves(db, [{ id: '00000000-0000-4000-8000-000000000001', tenant: 'acme', requestId, text }]);
    await db.query('SELECT audit_sequence(4096)');
    expect((await readHead(db)).size).toBeGreaterThan(size);
    expect((await byDatabase()).faults).toEqual([]);
    expect(await byHttp()).toEqual({});
  });

  it('is read over HTTP by a tenant’s auditor too, who sees no leaf, and still what was signed', async () => {
    const own = await harness.token({ subject: 'al@acme.example', roles: ['auditor'] });
    expect(await verifyRemote({ url: harness.url, token: own }, keys, older, () => {})).toMatchObject({ size, leavesRead: 0, faults: [] });
    await run(`UPDATE audit_leaves SET body = ${FORGED} WHERE index = 300`);
    await makeTilesAnew();
    expect((await verifyRemote({ url: harness.url, token: own }, keys, older, () => {})).faults[0]).toMatchObject({ kind: 'checkpoint' });
  });

  it('shows how far it has come', async () => {
    const seen: number[][] = [];
    await verifyDatabase(db, keys, [], (leaves, of) => void seen.push([leaves, of]));
    expect(seen.at(-1)).toEqual([size, size]);
  });
});

describe('an intruder is found who', () => {
  const shift = (from: number, by: number): string[] => [`UPDATE audit_leaves SET index = index + 10000 WHERE index >= ${from}`, `UPDATE audit_leaves SET index = index - 10000 + ${by} WHERE index >= 10000`];
  const swap = (one: number, two: number): string[] => [`UPDATE audit_leaves SET index = 10001 WHERE index = ${one}`, `UPDATE audit_leaves SET index = ${one} WHERE index = ${two}`, `UPDATE audit_leaves SET index = ${two} WHERE index = 10001`];

  it.each<[string, string[], Partial<LogFault>, Partial<LogFault>]>([
    ['changes a leaf', [`UPDATE audit_leaves SET body = ${FORGED} WHERE index = 300`], { kind: 'edited', index: 300 }, { kind: 'edited', index: 300 }],
    ['changes one letter of the first leaf', ['UPDATE audit_leaves SET body = set_byte(body, 20, get_byte(body, 20) # 1) WHERE index = 0'], { kind: 'edited', index: 0 }, { kind: 'edited', index: 0 }],
    ['changes the last leaf', ['UPDATE audit_leaves SET body = set_byte(body, 20, get_byte(body, 20) # 1) WHERE index = (SELECT max(index) FROM audit_leaves)'], { kind: 'edited' }, { kind: 'edited' }],
    ['changes a leaf and its hash', [`UPDATE audit_leaves SET body = ${FORGED}, leaf_hash = sha256('\\x00'::bytea || ${FORGED}) WHERE index = 300`], { kind: 'edited', index: 300 }, { kind: 'edited', index: 300 }],
    ['changes a leaf into what is no JSON', ["UPDATE audit_leaves SET body = 'forged', leaf_hash = sha256('\\x00'::bytea || 'forged'::bytea) WHERE index = 300"], { kind: 'edited', index: 300 }, { kind: 'edited', index: 300 }],
    ['swaps two leaves', swap(300, 500), { kind: 'reordered', index: 300 }, { index: 300 }],
    ['swaps two leaves of a tile', swap(300, 400), { kind: 'reordered', index: 300 }, { kind: 'reordered', index: 300 }],
    ['swaps two that are next to each other', swap(300, 301), { kind: 'reordered', index: 300 }, { kind: 'reordered', index: 300 }],
    ['swaps two at the edge of a tile', swap(255, 256), { kind: 'reordered', index: 255 }, { index: 255 }],
    ['copies a leaf over another', ['UPDATE audit_leaves SET body = (SELECT body FROM audit_leaves WHERE index = 500) WHERE index = 300'], { kind: 'reordered', index: 300 }, { index: 300 }],
    ['puts a leaf in, and moves the later ones on', [...shift(300, 1), `INSERT INTO audit_leaves (index, id, leaf_hash, body) VALUES (300, gen_random_uuid(), sha256('\\x00'::bytea || ${FORGED}), ${FORGED})`, 'UPDATE audit_head SET size = size + 1'], { kind: 'inserted', index: 300 }, { kind: 'inserted', index: 300 }],
    ['takes a leaf out, and moves the later ones up', ['DELETE FROM audit_leaves WHERE index = 300', ...shift(301, -1)], { kind: 'missing', index: 300 }, { kind: 'missing', index: 300 }],
  ])('%s', async (_, statements, inDatabase, overHttp) => {
    await run(...statements);
    expect((await byDatabase()).faults[0]).toMatchObject(inDatabase);
    expect(await byHttp()).toMatchObject(overHttp);
  });

  it('takes a leaf out', async () => {
    await run('DELETE FROM audit_leaves WHERE index = 300');
    expect((await byDatabase()).faults).toEqual([{ kind: 'missing', index: 300, detail: 'there is no leaf at this index' }]);
  });

  // The gateway has the hashes of that tile, and has signed them: that the leaves are not there is no matter of what this auditor may see.
  it('takes a leaf out, also over HTTP', async () => {
    await run('DELETE FROM audit_leaves WHERE index = 300');
    expect(await byHttp()).toMatchObject({ kind: 'missing', index: expect.any(Number) });
  });

  it('puts a leaf behind the end', async () => {
    await run(`INSERT INTO audit_leaves (index, id, leaf_hash, body) VALUES (${size + 5}, gen_random_uuid(), sha256('\\x00'::bytea || ${FORGED}), ${FORGED})`);
    expect((await byDatabase()).faults).toEqual([{ kind: 'inserted', index: size + 5, detail: expect.any(String) }]);
  });

  it('takes the last leaf away, and makes the log shorter', async () => {
    await run(`DELETE FROM audit_leaves WHERE index = ${size - 1}`, `UPDATE audit_head SET size = ${size - 1}, tree_size = ${size - 1}`);
    expect((await byDatabase()).faults[0]).toMatchObject({ kind: 'missing', index: size - 1 });
    expect((await byHttp()).refused).toMatch(/404/);
    await run(`UPDATE audit_tiles SET hashes = substring(hashes FOR octet_length(hashes) - 32) WHERE level = 0 AND index = ${Math.floor(size / 256)}`);
    expect((await byDatabase()).faults[0]).toMatchObject({ kind: 'missing', index: size - 1 });
  });

  it('takes the last leaves away with their checkpoints: by one that is elsewhere', async () => {
    await run(`DELETE FROM audit_leaves WHERE index >= ${size - 10}`, `UPDATE audit_head SET size = ${size - 10}, tree_size = ${size - 10}`, `DELETE FROM audit_checkpoints WHERE size > ${size - 10}`,
      `UPDATE audit_tiles SET hashes = substring(hashes FOR octet_length(hashes) - 320) WHERE level = 0 AND index = ${Math.floor(size / 256)}`);
    expect((await byDatabase()).faults).toEqual([]);
    expect((await byDatabase([{ place: '/elsewhere', note: newest }])).faults[0]).toMatchObject({ kind: 'missing', index: size - 10 });
    expect(await byHttp(newest)).toMatchObject({ kind: 'checkpoint', detail: expect.stringContaining('cut off') });
  });

  it('changes a leaf, its hash and all tiles above it, so that the signature alone is against it', async () => {
    await run(`UPDATE audit_leaves SET body = convert_to(replace(convert_from(body, 'UTF8'), '"class_uid":6003', '"class_uid":6004'), 'UTF8') WHERE index = 300`);
    await makeTilesAnew();
    const { faults } = await byDatabase();
    expect(faults[0]).toMatchObject({ kind: 'edited' });
    const at = openCheckpoint(older, keys).size;
    expect(faults[0]!.index).toBeLessThanOrEqual(300);
    expect(faults[0]!.index).toBeGreaterThan(200); // behind the checkpoint before, which is good
    expect(faults[0]!.detail).toContain(`to ${at - 1} and their tiles are not those of the checkpoint`);
    expect(await byHttp()).toMatchObject({ kind: 'checkpoint', detail: expect.stringContaining('rewritten') });
    expect(await byHttp(null)).toMatchObject({ kind: 'checkpoint', detail: expect.stringContaining('root that was signed') });
  });

  it.each([['no JSON', "'forged'::bytea"], ['JSON that is no object', "'null'::bytea"], ['no text', "'\\xff00ff'::bytea"]])('changes a leaf into %s, its hash and all tiles above it', async (_, body) => {
    await run(`UPDATE audit_leaves SET body = ${body} WHERE index = 300`);
    await makeTilesAnew();
    expect((await byDatabase()).faults.map(({ kind }) => kind)).toContain('edited');
    expect(await byHttp()).toMatchObject({ kind: 'checkpoint' });
  });

  it.each<[string, string, number]>([
    ['the tenant of a leaf', "UPDATE audit_leaves SET tenant_id = 'initech' WHERE index = 300", 300],
    ['the tenant of a leaf to none', 'UPDATE audit_leaves SET tenant_id = NULL WHERE index = 300', 300],
    ['the request of a leaf', 'UPDATE audit_leaves SET request_id = gen_random_uuid() WHERE index = 300', 300],
    ['the request of a leaf to none', 'UPDATE audit_leaves SET request_id = NULL WHERE index = 300', 300],
    ['the stored hash of a leaf', "UPDATE audit_leaves SET leaf_hash = sha256('x') WHERE index = 300", 300],
  ])('changes %s, by which it is found', async (_, statement, index) => {
    await run(statement);
    expect((await byDatabase()).faults).toEqual([{ kind: 'column', index, detail: expect.any(String) }]);
  });

  it.each<[string, string[], Partial<LogFault>]>([
    ['changes a hash of a tile', ["UPDATE audit_tiles SET hashes = set_byte(hashes, 44 * 32, get_byte(hashes, 44 * 32) # 1) WHERE level = 0 AND index = 1"], { index: 300 }],
    ['changes a hash of a tile above', ['UPDATE audit_tiles SET hashes = set_byte(hashes, 32, get_byte(hashes, 32) # 1) WHERE level = 1'], { kind: 'tile', index: 0 }],
    ['takes a tile away', ['DELETE FROM audit_tiles WHERE level = 0 AND index = 1'], { kind: 'tile', index: 256 }],
    ['takes a tile above away', ['DELETE FROM audit_tiles WHERE level = 1'], { kind: 'tile', index: 0 }],
    ['takes the end of a tile away', ['UPDATE audit_tiles SET hashes = substring(hashes FOR 44 * 32) WHERE level = 0 AND index = 1'], { kind: 'tile', index: 300 }],
  ])('%s', async (_, statements, fault) => {
    await run(...statements);
    expect((await byDatabase()).faults[0]).toMatchObject(fault);
  });

  it.each<[string, (other: SigningKeys, head: { origin: string; size: number; root: Buffer }) => string]>([
    ['nonsense', () => 'nonsense'], ['nothing', () => ''], ['one signed by other keys', (other, head) => signCheckpoint(head, other, 0)], ['one of another log', (_, head) => signCheckpoint({ ...head, origin: 'novix-gateway/another' }, signing, 0)],
    ['one of the same size and another root', (_, head) => signCheckpoint({ ...head, root: Buffer.alloc(32) }, signing, 0)], ['one with a letter changed', () => newest.replace(/\n(\d)/, (__, digit: string) => `\n${(Number(digit) % 9) + 1}`)],
  ])('puts %s in the place of a checkpoint', async (_, make) => {
    const { origin, root } = openCheckpoint(newest, keys);
    await db.query('UPDATE audit_checkpoints SET note = $1 WHERE size = $2', [make(makeSigningKeys(), { origin, size, root }), size]);
    const { faults } = await byDatabase();
    expect(faults.length).toBeGreaterThan(0);
    expect(['checkpoint', 'edited']).toContain(faults[0]!.kind);
    const seen = await byHttp();
    expect(seen.refused ?? seen.kind).toEqual(expect.any(String));
  });

  // Proofs are made for the size in the table, and would lead to no checkpoint at all.
  it('puts an older checkpoint in the place of a newer', async () => {
    await db.query('UPDATE audit_checkpoints SET note = $1 WHERE size = $2', [older, size]);
    expect((await byDatabase()).faults).toEqual([expect.objectContaining({ kind: 'checkpoint' })]);
  });

  it('takes all checkpoints away', async () => {
    await run('DELETE FROM audit_checkpoints');
    expect((await byDatabase()).faults).toEqual([{ kind: 'checkpoint', index: undefined, detail: 'the database has no signed checkpoint' }]);
    expect((await byHttp()).refused).toMatch(/503/);
  });

  it('gives the log another name', async () => {
    await run("UPDATE audit_head SET origin = 'novix-gateway/another'");
    const { faults } = await byDatabase();
    expect(faults.length).toBe((await notesOf(db)).length);
    expect(faults[0]).toMatchObject({ kind: 'checkpoint', detail: expect.stringContaining(`it is one of ${keys[0]!.name}`) });
  });

  it('makes all of it anew, with other keys', async () => {
    await run(`UPDATE audit_leaves SET body = ${FORGED}, tenant_id = 'acme', request_id = NULL WHERE index = 300`);
    const root = await makeTilesAnew();
    const [{ origin }, other, bodies] = [openCheckpoint(newest, keys), makeSigningKeys(), await leafBodies(db)];
    for (const note of await notesOf(db)) {
      const { size: at } = openCheckpoint(note, keys);
      await db.query('UPDATE audit_checkpoints SET note = $1 WHERE size = $2', [signCheckpoint({ origin, size: at, root: tilesOver(bodies.slice(0, at)).tree.root() }, other, 0), at]);
    }
    expect(root).not.toEqual(openCheckpoint(newest, keys).root);
    // By its own keys there is nothing to be seen.
    expect((await verifyDatabase(db, verifierKeys(origin, other), [], () => {})).faults).toEqual([]);
    const { faults } = await byDatabase();
    expect(faults.slice(0, 4).map(({ kind }) => kind)).toEqual(['checkpoint', 'checkpoint', 'checkpoint', 'checkpoint']);
    expect((await byHttp()).refused).toMatch(/is not signed by/);
    // And where the forger’s key is the one that is trusted, a checkpoint from before is against it.
    await expect(verifyRemote({ url: harness.url, token }, verifierKeys(origin, other), older, () => {})).rejects.toThrow('is not signed by');
    const outside = await verifyDatabase(db, verifierKeys(origin, other), [{ place: '/elsewhere', note: older }], () => {});
    expect(outside.faults[0]).toMatchObject({ kind: 'checkpoint', detail: expect.stringContaining('/elsewhere') });
  });

  it.each([['up to the middle of a tile', '300'], ['further than the log is signed', '(SELECT size FROM audit_head) + 1024']])('says that leaves were pruned %s', async (_, below) => {
    await run(`UPDATE audit_leaves SET body = ${FORGED} WHERE index = 100`, `UPDATE audit_head SET pruned_below = ${below}`, 'DELETE FROM audit_leaves l USING audit_head h WHERE l.index < h.pruned_below');
    expect((await byDatabase()).faults.length).toBeGreaterThan(0);
  });
});

describe('what is pruned by policy', () => {
  it('is told as such, and all else still verifies', async () => {
    await run('DELETE FROM audit_leaves WHERE index < 256', 'UPDATE audit_head SET pruned_below = 256');
    // Whoever prunes by hand leaves no record in the log; what retention leaves is in leaf-retention.spec.ts.
    expect(await byDatabase([{ place: 'a file', note: older }])).toMatchObject({ prunedBelow: 256, leavesRead: size - 256, faults: [{ kind: 'missing', index: 0, detail: expect.stringContaining('no record of their pruning') }] });
    expect(await verifyRemote({ url: harness.url, token }, keys, older, () => {})).toMatchObject({ prunedBelow: 256, leavesRead: size - 256, faults: [] });
    await run(`UPDATE audit_leaves SET body = ${FORGED} WHERE index = 300`);
    expect((await byDatabase()).faults[0]).toMatchObject({ kind: 'edited', index: 300 });
    expect(await byHttp()).toMatchObject({ kind: 'edited', index: 300 });
  });

  it('and is half there is told', async () => {
    await run('DELETE FROM audit_leaves WHERE index BETWEEN 10 AND 255', 'UPDATE audit_head SET pruned_below = 256');
    expect((await byDatabase()).faults[0]).toMatchObject({ kind: 'inserted', index: 0 });
  });

  it('does not hide that the tree before it was another', async () => {
    await run('DELETE FROM audit_leaves WHERE index < 256', 'UPDATE audit_head SET pruned_below = 256', 'UPDATE audit_tiles SET hashes = set_byte(hashes, 5, get_byte(hashes, 5) # 1) WHERE level = 0 AND index = 0');
    expect((await byDatabase()).faults[0]).toMatchObject({ kind: 'checkpoint' });
  });
});

describe('where the leaves are read in parts', () => {
  let log: TestLog;
  const EDGE = 4_095;
  beforeEach(async () => {
    log = await startLog();
    const { book } = log.book();
    await book.open(log.db);
    await log.append(EDGE + 300);
    await log.sequence();
    await book.grow(log.db);
    await book.sign(log.db);
  });
  afterEach(async () => {
    await log.close();
  });
  const up = 'UPDATE audit_leaves SET index = index + 20000 WHERE index >= ';
  it.each<[string, string[], Partial<LogFault>]>([
    ['a leaf that was taken out', [`DELETE FROM audit_leaves WHERE index = ${EDGE}`], { kind: 'missing', index: EDGE }],
    ['a leaf that was changed', [`UPDATE audit_leaves SET body = ${FORGED} WHERE index = ${EDGE + 1}`], { kind: 'edited', index: EDGE + 1 }],
    ['a leaf that was put in', [`${up}${EDGE}`, 'UPDATE audit_leaves SET index = index - 19999 WHERE index >= 20000', `INSERT INTO audit_leaves (index, id, leaf_hash, body) VALUES (${EDGE}, gen_random_uuid(), 'x', ${FORGED})`], { kind: 'inserted', index: EDGE }],
    ['a leaf that was taken out, with the later ones moved up', [`DELETE FROM audit_leaves WHERE index = ${EDGE}`, `${up}${EDGE}`, 'UPDATE audit_leaves SET index = index - 20001 WHERE index >= 20000'], { kind: 'missing', index: EDGE }],
    ['two that were swapped', [`UPDATE audit_leaves SET index = 20000 WHERE index = ${EDGE}`, `UPDATE audit_leaves SET index = ${EDGE} WHERE index = ${EDGE + 1}`, `UPDATE audit_leaves SET index = ${EDGE + 1} WHERE index = 20000`], { kind: 'reordered', index: EDGE }],
  ])('%s is named all the same', async (_, statements, fault) => {
    const trusted = await log.verifierKeys();
    expect((await verifyDatabase(log.db, trusted, [], () => {})).faults).toEqual([]);
    await asIntruder(log.db, async () => {
      for (const statement of statements) await log.db.query(statement);
    });
    expect((await verifyDatabase(log.db, trusted, [], () => {})).faults[0]).toMatchObject(fault);
  });
});
