import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { leafHash } from '../../src/audit/merkle.ts';
import { parseVerifierKey } from '../../src/audit/signed-note.ts';
import { checkProof } from '../../src/audit/tlog-proof.ts';
import { killAll, novix } from '../support/gateway-process.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { asIntruder } from './log.ts';
import { Client } from 'pg';

// `novix audit verify|prove` as it is built (`npm run build`), in processes of its own, beside a gateway that runs.

let harness: Harness;
let folder: string;
let env: Record<string, string>;
let token: string;
let size: number;
let db: Client;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'log-test-'));
  harness = await startHarness();
  db = new Client({ connectionString: harness.databaseUrl });
  db.on('error', () => {});
  await db.connect();
  token = await harness.token({ tenant: 'platform', subject: 'eva@platform.example', roles: ['auditor'] });
  for (let n = 0; n < 5; n++) await (await harness.complete()).text();
  size = await eventually(async () => {
    const { rows: [row] } = await db.query<{ pending: string; size: string; signed: string | null }>('SELECT (SELECT count(*) FROM audit_pending) AS pending, size, (SELECT max(size) FROM audit_checkpoints) AS signed FROM audit_head');
    return row!.pending === '0' && Number(row!.size) >= 10 && row!.signed === row!.size && Number(row!.size);
  }, 10_000);
  env = { DATABASE_URL: harness.databaseUrl, NOVIX_DATA_DIR: folder, AUDIT_SIGNING_KEY_FILE: harness.settings.audit.signingKeyFile! };
  await copyFile(harness.settings.audit.checkpointFile, join(folder, 'audit-checkpoint'));
  await writeFile(join(folder, 'keys'), `# of the log\n${await (await harness.request('GET', '/audit/v1/keys', { token: null })).text()}\n`);
  await copyFile(join(folder, 'audit-checkpoint'), join(folder, 'old'));
});
afterAll(async () => {
  await killAll();
  await db?.end();
  await harness?.close();
  await rm(folder, { recursive: true, force: true });
});

const audit = (args: readonly string[], more: Record<string, string> = {}): ReturnType<typeof novix> => novix(['audit', ...args], { cwd: folder, env: { ...env, ...more } });

describe('novix audit verify', () => {
  it('says that the log of the database verifies, and by which keys', async () => {
    const { code, stdout, stderr } = await audit(['verify']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^The log verifies: novix-gateway/[0-9a-f-]{36}\\n  ${size} leaves read of ${size} that are signed; \\d+ checkpoints; keys: signing key file; [\\d.]+ s\\n$`));
    const pinned = await audit(['verify', '--key', 'keys', '--checkpoint', 'old'], { AUDIT_SIGNING_KEY_FILE: join(folder, 'nowhere') });
    expect({ code: pinned.code, stderr: pinned.stderr }).toEqual({ code: 0, stderr: '' });
    expect(pinned.stdout).toContain('keys: pinned');
  });

  it('says the same over HTTP, and in JSON', async () => {
    const { code, stdout, stderr } = await audit(['verify', '--url', harness.url, '--token', token, '--key', 'keys', '--checkpoint', 'old', '--json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({ ok: true, origin: expect.stringMatching(/^novix-gateway\//), size, prunedBelow: 0, leavesRead: size, checkpoints: 2, keys: 'pinned', seconds: expect.any(Number), faults: [] });
    const told = await audit(['verify', '--url', `${harness.url}/`, '--token', token]);
    expect(told.code).toBe(0);
    expect(told.stdout).toContain('keys: told by the log itself');
  });

  it('ends with status 1 and names the first leaf at fault', async () => {
    const { rows: [row] } = await db.query<{ body: Buffer }>('SELECT body FROM audit_leaves WHERE index = 4');
    await asIntruder(db, async () => void (await db.query("UPDATE audit_leaves SET body = set_byte(body, 30, 33) WHERE index = 4")));
    try {
      for (const [args, checkpoints] of [[['verify'], undefined], [['verify', '--url', harness.url, '--token', token, '--key', 'keys'], 1]] as const) {
        const { code, stdout, stderr } = await audit(args);
        expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
        expect(stdout).toMatch(/^THE LOG DOES NOT VERIFY: novix-gateway\/\S+\n {2}leaf 4 edited: the leaf is not the one that was recorded\n {2}\d+ leaves read/);
        const json = await audit([...args, '--json']);
        expect(json.code).toBe(1);
        expect(JSON.parse(json.stdout)).toMatchObject({ ok: false, faults: [{ kind: 'edited', index: 4 }], ...(checkpoints && { checkpoints }) });
      }
    } finally {
      await asIntruder(db, async () => void (await db.query('UPDATE audit_leaves SET body = $1 WHERE index = 4', [row!.body])));
    }
  });

  it.each<[string, string[], RegExp, Record<string, string>?]>([
    ['a URL without a token', ['verify', '--url', 'http://127.0.0.1:1'], /--token/], ['what is no URL', ['verify', '--url', 'gateway', '--token', 'x'], /--url/], ['a file that there is not', ['verify', '--key', 'nowhere'], /--key: nowhere cannot be read/],
    ['a checkpoint that there is not', ['verify', '--checkpoint', 'nowhere'], /--checkpoint: nowhere cannot be read/], ['a file without a key', ['verify', '--key', 'empty'], /has no verifier key/], ['a file of something else', ['verify', '--key', 'old'], /no verifier key/],
    ['no keys', ['verify'], /--key FILE/, { AUDIT_SIGNING_KEY_FILE: '/nowhere/key' }],
  ])('ends with status 1 and one clear line for %s', async (_, args, line, more = {}) => {
    await writeFile(join(folder, 'empty'), '# nothing\n\n');
    const { code, stdout, stderr } = await audit(args, more);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^novix: [^\n]+\n$/);
    expect(stderr).toMatch(line);
  });

  it('does not take a token that is no auditor’s', async () => {
    const { code, stderr } = await audit(['verify', '--url', harness.url, '--token', await harness.token(), '--key', 'keys']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^novix: \S+ answered 403 to GET \/audit\/v1\/checkpoint\n$/);
  });
});

describe('novix audit prove', () => {
  it('prints a proof that needs nothing but the keys', async () => {
    const { code, stdout, stderr } = await audit(['prove', '--index', '3']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const keys = (await readFile(join(folder, 'keys'), 'utf8')).split('\n').filter((line) => line.startsWith('novix')).map(parseVerifierKey);
    const { rows: [row] } = await db.query<{ body: Buffer }>('SELECT body FROM audit_leaves WHERE index = 3');
    expect(checkProof(stdout, leafHash(row!.body), keys).size).toBeGreaterThanOrEqual(size);
    expect(() => checkProof(stdout, leafHash(Buffer.from('{}')), keys)).toThrow('does not lead');
    const out = await audit(['prove', '--index', '3', '--out', 'three.tlog-proof']);
    expect([out.code, out.stdout]).toEqual([0, 'The proof of leaf 3 is in three.tlog-proof.\n']);
    const written = await readFile(join(folder, 'three.tlog-proof'), 'utf8');
    expect(checkProof(written, leafHash(row!.body), keys).size).toBeGreaterThanOrEqual(size);
    const json = JSON.parse((await audit(['prove', '--index', '3', '--json'])).stdout) as { index: number; proof: string };
    expect(json.index).toBe(3);
    expect(checkProof(json.proof, leafHash(row!.body), keys).size).toBeGreaterThanOrEqual(size);
  });

  it.each([['999999', /there is no leaf 999999/], ['-1', /--index/], ['x', /--index/]])('ends with status 1 and one clear line for leaf %s', async (index, line) => {
    const { code, stdout, stderr } = await audit(['prove', `--index=${index}`]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^novix: [^\n]+\n$/);
    expect(stderr).toMatch(line);
  });
});
