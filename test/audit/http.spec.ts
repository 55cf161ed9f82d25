import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createHash, createPublicKey, verify, type KeyObject } from 'node:crypto';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { expectError, rawRequest } from '../support/wire.ts';

// `/audit/v1` as its readers use it. Nothing of src/audit is used here: what verifies, verifies by node:crypto and the endpoints alone.

interface Event {
  index: number;
  time: number;
  metadata: { uid: string; correlation_uid: string; tenant_uid?: string };
  unmapped: { novix: { phase: string } };
}
interface Page {
  data: Event[];
  next_cursor: string | null;
}

let harness: Harness;
/** Of the platform, of acme, of globex. */
let platform: string;
let acme: string;
let globex: string;
let requestId: string;
let globexRequestId: string;

const get = (path: string, token: string | null): Promise<Response> => harness.request('GET', `/audit/v1/${path}`, { token });
const text = async (path: string, token: string | null): Promise<string> => {
  const response = await get(path, token);
  const body = await response.text();
  if (response.status !== 200) throw new Error(`${path}: ${response.status} ${body}`);
  return body;
};
const bytes = async (path: string, token: string): Promise<Buffer> => {
  const response = await get(path, token);
  if (response.status !== 200) throw new Error(`${path}: ${response.status}`);
  return Buffer.from(await response.arrayBuffer());
};
const events = async (query: string, token: string): Promise<Page> => JSON.parse(await text(`events${query === '' ? '' : `?${query}`}`, token)) as Page;
const all = async (query: string, token: string): Promise<Event[]> => {
  const found: Event[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const page: Page = await events([query, cursor === '' ? '' : `cursor=${cursor}`].filter((part) => part !== '').join('&'), token);
    found.push(...page.data);
    cursor = page.next_cursor;
  }
  return found;
};
const sizeOf = (checkpoint: string): number => Number(checkpoint.split('\n')[1]);
/** Waits until a call's intent and outcome are both in the newest checkpoint, and gives their indexes. */
const covered = async (id: string, token: string): Promise<number[]> => eventually(async () => {
  const { data } = await events(`request_id=${id}`, token);
  return data.length === 2 && sizeOf(await text('checkpoint', token)) > data[1]!.index && data.map(({ index }) => index);
}, 10_000);

beforeAll(async () => {
  harness = await startHarness();
  const auditor = (tenant: string): Promise<string> => harness.token({ tenant, subject: `eva@${tenant}.example`, roles: ['auditor'] });
  [platform, acme, globex] = await Promise.all([auditor('platform'), auditor('acme'), auditor('globex')]);
  const call = await harness.complete();
  await call.text();
  requestId = call.headers.get('x-request-id')!;
  const other = await harness.request('POST', '/v1/chat/completions', { token: await harness.token({ tenant: 'globex', subject: 'dev@globex.example' }), body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Say hello.' }] } });
  await other.text();
  globexRequestId = other.headers.get('x-request-id')!;
  let last = requestId;
  for (let n = 0; n < 12; n++) {
    const more = await harness.complete();
    await more.text();
    last = more.headers.get('x-request-id')!;
  }
  await covered(globexRequestId, globex);
  await covered(last, acme);
});
afterAll(async () => {
  await harness?.close();
});

/** A verifier of C2SP logs, written from c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature and tlog-proof. */
const sha256 = (...parts: Buffer[]): Buffer => createHash('sha256').update(Buffer.concat(parts)).digest();
const uint64 = (value: number): Buffer => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(value));
  return buffer;
};
const SPKI = { 1: '302a300506032b6570032100', 6: '30820532300b06096086480165030403110382052100' } as Record<number, string>;

async function verifyNote(note: string): Promise<{ origin: string; size: number; root: Buffer }> {
  const end = note.lastIndexOf('\n\n') + 1;
  const body = note.slice(0, end);
  const [origin, size, root] = body.split('\n') as [string, string, string];
  const lines = note.slice(end + 1).split('\n').filter((line) => line !== '').map((line) => /^\u2014 (\S+) (\S+)$/.exec(line)!);
  const keys = (await text('keys', null)).trimEnd().split('\n');
  const good: boolean[] = [];
  for (const key of keys) {
    const [, name, id, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(key)!;
    const typed = Buffer.from(encoded!, 'base64');
    expect(sha256(Buffer.from(`${name}\n`), typed).toString('hex').slice(0, 8)).toBe(id);
    const publicKey: KeyObject = createPublicKey({ key: Buffer.concat([Buffer.from(SPKI[typed[0]!]!, 'hex'), typed.subarray(1)]), format: 'der', type: 'spki' });
    const signature = lines.map(([, signer, base64]) => ({ signer, blob: Buffer.from(base64!, 'base64') })).find(({ signer, blob }) => signer === name && blob.subarray(0, 4).toString('hex') === id)!.blob.subarray(4);
    if (typed[0] === 1) {
      good.push(name === origin && verify(null, Buffer.from(body), publicKey, signature));
    } else {
      const timestamp = signature.subarray(0, 8);
      const message = Buffer.concat([Buffer.from('subtree/v1\n\0'), Buffer.of(name!.length), Buffer.from(name!), timestamp, Buffer.of(origin.length), Buffer.from(origin), uint64(0), uint64(Number(size)), Buffer.from(root, 'base64')]);
      good.push(verify(null, message, publicKey, signature.subarray(8)) && Math.abs(Number(timestamp.readBigUInt64BE()) - Date.now() / 1000) < 120);
    }
  }
  expect(good).toEqual([true, true]);
  return { origin, size: Number(size), root: Buffer.from(root, 'base64') };
}

/** RFC 9162, section 2.1.3.2. */
function rootFrom(index: number, size: number, leaf: Buffer, proof: readonly Buffer[]): Buffer {
  let [fn, sn, hash] = [index, size - 1, leaf];
  for (const sibling of proof) {
    if (sn === 0) throw new Error('the proof is too long');
    if (fn % 2 === 1 || fn === sn) {
      hash = sha256(Buffer.of(1), sibling, hash);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn / 2, Math.floor(sn / 2)];
    } else {
      hash = sha256(Buffer.of(1), hash, sibling);
    }
    [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  }
  if (sn !== 0) throw new Error('the proof is too short');
  return hash;
}

async function isProven(index: number, token: string): Promise<boolean> {
  const proof = await text(`proof/${index}`, token);
  const end = proof.indexOf('\n\n');
  const [header, indexLine, ...hashes] = proof.slice(0, end).split('\n');
  expect([header, indexLine]).toEqual(['c2sp.org/tlog-proof@v1', `index ${index}`]);
  const { size, root } = await verifyNote(proof.slice(end + 2));
  const leaf = sha256(Buffer.of(0), await bytes(`leaf/${index}`, token));
  return rootFrom(index, size, leaf, hashes.map((hash) => Buffer.from(hash, 'base64'))).equals(root);
}

describe('whoever made a call', () => {
  it('can prove with their own tools that it is in the log', async () => {
    const { data } = await events(`request_id=${requestId}`, acme);
    expect(data.map(({ unmapped }) => unmapped.novix.phase)).toEqual(['intent', 'outcome']);
    for (const { index, metadata } of data) {
      expect(metadata).toMatchObject({ correlation_uid: requestId, tenant_uid: 'acme' });
      expect(await isProven(index, acme)).toBe(true);
    }
  });

  it('could not prove it with another leaf', async () => {
    const [index] = await covered(requestId, acme);
    const proof = await text(`proof/${index}`, acme);
    const end = proof.indexOf('\n\n');
    const { size, root } = await verifyNote(proof.slice(end + 2));
    const hashes = proof.slice(0, end).split('\n').slice(2).map((hash) => Buffer.from(hash, 'base64'));
    expect(rootFrom(index!, size, sha256(Buffer.of(0), Buffer.from('{}')), hashes)).not.toEqual(root);
  });
});

describe('GET /audit/v1/keys', () => {
  it('is public, and tells both keys', async () => {
    const response = await get('keys', null);
    expect([response.status, response.headers.get('content-type'), response.headers.get('cache-control')]).toEqual([200, 'text/plain; charset=utf-8', 'no-cache']);
    expect(await response.text()).toMatch(/^(novix-gateway\/[0-9a-f-]{36})\+[0-9a-f]{8}\+[\w+/=]+\n\1\/ml-dsa-44\+[0-9a-f]{8}\+[\w+/=]{1700,}\n$/);
  });
});

describe('GET /audit/v1/checkpoint', () => {
  it('is signed by those keys, and is not kept by caches', async () => {
    for (const token of [platform, acme, globex]) {
      const response = await get('checkpoint', token);
      expect([response.status, response.headers.get('content-type'), response.headers.get('cache-control')]).toEqual([200, 'text/plain; charset=utf-8', 'no-cache']);
      expect((await verifyNote(await response.text())).size).toBeGreaterThanOrEqual(28);
    }
  });
});

describe('GET /audit/v1/tile', () => {
  it('has the hashes that make the signed root, for an auditor of any tenant', async () => {
    for (const token of [platform, acme, globex]) {
      const { size, root } = await verifyNote(await text('checkpoint', token));
      expect(size).toBeLessThan(256); // else this test would need more of a verifier
      const response = await get(`tile/0/000.p/${size}`, token);
      expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/octet-stream']);
      expect(response.headers.get('cache-control')).toMatch(/^private, max-age=\d+/);
      const tile = Buffer.from(await response.arrayBuffer());
      expect(tile).toHaveLength(size * 32);
      const rootOf = (hashes: readonly Buffer[]): Buffer => {
        if (hashes.length === 1) return hashes[0]!;
        let split = 1;
        while (split * 2 < hashes.length) split *= 2;
        return sha256(Buffer.of(1), rootOf(hashes.slice(0, split)), rootOf(hashes.slice(split)));
      };
      expect(rootOf(Array.from({ length: size }, (_, at) => tile.subarray(at * 32, at * 32 + 32)))).toEqual(root);
      expect(await bytes('tile/0/000.p/3', token)).toEqual(tile.subarray(0, 96));
    }
  });

  it('has the entries under them, for the platform’s auditors', async () => {
    const size = sizeOf(await text('checkpoint', platform));
    const [tile, response] = [await bytes(`tile/0/000.p/${size}`, platform), await get(`tile/entries/000.p/${size}`, platform)];
    expect([response.status, response.headers.get('content-type'), response.headers.get('cache-control')]).toEqual([200, 'application/octet-stream', 'private, max-age=31536000, immutable']);
    const bundle = Buffer.from(await response.arrayBuffer());
    let at = 0;
    for (let index = 0; index < size; index++) {
      const length = bundle.readUInt16BE(at);
      const body = bundle.subarray(at + 2, at + 2 + length);
      expect([index, sha256(Buffer.of(0), body).equals(tile.subarray(index * 32, index * 32 + 32))]).toEqual([index, true]);
      at += 2 + length;
    }
    expect(at).toBe(bundle.length);
  });

  it('of entries is closed to a tenant’s own auditor', async () => {
    expect((await expectError(await get('tile/entries/000.p/1', acme), 403, 'policy_denied')).message).toMatch(/\w/);
  });

  it.each(['0/000', '0/000.p/255', '0/001', '0/001.p/1', '0/x001/234.p/1', '1/000', '1/000.p/1', '5/000.p/1', 'entries/000', 'entries/000.p/255', 'entries/001.p/1', '0/000.p/0', '0/000.p/256', '0/0', '00/000.p/1', '6/000.p/1', '63/000', 'x/000', '0/x000/000.p/1', '', '0', '0/000.p/1/2', '-1/000', '0/%30%30%30.p/1'])('answers 404 for tile/%s', async (path) => {
    const { status, body } = await rawRequest(harness.url, `/audit/v1/tile/${path}`, { headers: { authorization: `Bearer ${platform}` } });
    expect([status, (JSON.parse(body) as { error: { code: string } }).error.code]).toEqual([404, 'not_found']);
  });
});

describe('GET /audit/v1/proof and leaf', () => {
  it('are of a tenant’s own events, and of any for the platform', async () => {
    const [own] = await covered(requestId, acme);
    const [other] = await covered(globexRequestId, globex);
    expect(await isProven(own!, acme)).toBe(true);
    expect(await isProven(other!, globex)).toBe(true);
    expect(await isProven(own!, platform)).toBe(true);
    expect(await isProven(other!, platform)).toBe(true);
    for (const [token, index] of [[acme, other], [globex, own]] as const) {
      await expectError(await get(`proof/${index}`, token), 404, 'not_found');
      await expectError(await get(`leaf/${index}`, token), 404, 'not_found');
    }
  });

  it('tell the same of another’s leaf as of one that there is not', async () => {
    const [other] = await covered(globexRequestId, globex);
    for (const path of ['proof', 'leaf']) {
      const [foreign, none] = await Promise.all([other, 999_999].map(async (index) => expectError(await get(`${path}/${index}`, acme), 404, 'not_found')));
      expect(foreign).toEqual(none);
    }
  });

  it.each(['-1', '01', '1.5', 'x', '99999999999999999999', '1e1', '%31%00', '999999'])('answer 404 for %s', async (index) => {
    for (const path of ['proof', 'leaf']) expect((await expectError(await get(`${path}/${index}`, platform), 404, 'not_found')).message).toContain('no such leaf');
  });

  it('give a leaf’s exact bytes', async () => {
    for (const index of (await covered(requestId, acme)).concat(0)) {
      const { rows: [row] } = await harness.db.query<{ body: Buffer; leaf_hash: Buffer }>('SELECT body, leaf_hash FROM audit_leaves WHERE index = $1', [index]);
      const response = await get(`leaf/${index}`, platform);
      expect([response.headers.get('content-type'), response.headers.get('cache-control')]).toEqual(['application/octet-stream', 'private, max-age=31536000, immutable']);
      const body = Buffer.from(await response.arrayBuffer());
      expect(body.equals(row!.body)).toBe(true);
      expect(sha256(Buffer.of(0), body)).toEqual(row!.leaf_hash);
    }
  });

  it('give a proof for every leaf of the checkpoint', async () => {
    const size = sizeOf(await text('checkpoint', platform));
    for (let index = 0; index < size; index += 5) expect(await isProven(index, platform)).toBe(true);
    expect(await isProven(size - 1, platform)).toBe(true);
  });
});

describe('what is pruned by policy', () => {
  it('is gone, and not missing; its hashes are still there', async () => {
    await harness.db.query('UPDATE audit_head SET pruned_below = 5');
    try {
      for (const path of ['leaf/4', 'proof/4', 'tile/entries/000.p/6']) expect((await expectError(await get(path, platform), 410, 'pruned')).message).toContain('pruned by policy');
      for (const path of ['leaf/5', 'proof/5', 'tile/0/000.p/6']) expect([path, (await get(path, platform)).status]).toEqual([path, 200]);
    } finally {
      await harness.db.query('UPDATE audit_head SET pruned_below = 0');
    }
  });
});

describe('GET /audit/v1/events', () => {
  it('is the log in its order, to its end, by pages of any size', async () => {
    const { rows } = await harness.db.query<{ index: string; body: Buffer }>('SELECT index, body FROM audit_leaves ORDER BY index');
    for (const limit of [1, 7, 200]) {
      const found = (await all(`limit=${limit}`, platform)).slice(0, rows.length);
      expect(found.map(({ index }) => index)).toEqual(rows.map(({ index }) => Number(index)));
      expect(found).toEqual(rows.map(({ index, body }) => ({ index: Number(index), ...(JSON.parse(body.toString()) as object) })));
    }
    const page = await events('limit=7', platform);
    expect([page.data.length, typeof page.next_cursor]).toEqual([7, 'string']);
    const response = await get('events', platform);
    expect([response.headers.get('content-type'), response.headers.get('cache-control')]).toEqual(['application/json; charset=utf-8', 'no-store']);
  });

  it('of a tenant is that tenant’s alone, and of the platform everybody’s', async () => {
    const everybodys = await all('', platform);
    expect([...new Set(everybodys.map(({ metadata }) => metadata.tenant_uid))]).toEqual(expect.arrayContaining(['acme', 'globex']));
    for (const [token, tenant] of [[acme, 'acme'], [globex, 'globex']] as const) {
      const own = await all('limit=5', token);
      expect(own.length).toBeGreaterThan(1);
      expect(own.filter(({ metadata }) => metadata.tenant_uid !== tenant)).toEqual([]);
      expect(own.map(({ index }) => index)).toEqual((await all(`tenant=${tenant}`, platform)).map(({ index }) => index));
      expect(own).toEqual(await all(`tenant=${tenant}`, token));
    }
    expect((await events(`request_id=${globexRequestId}`, acme)).data).toEqual([]);
    expect((await events(`request_id=${globexRequestId}`, globex)).data).toHaveLength(2);
    await expectError(await get('events?tenant=globex', acme), 404, 'not_found');
    expect((await events('tenant=nobody', platform)).data).toEqual([]);
  });

  // The column finds it; what the leaf itself says is what counts.
  it('does not show a leaf to a tenant in whose name its column was changed', async () => {
    const [index] = await covered(globexRequestId, globex);
    await harness.db.query('ALTER TABLE audit_leaves DISABLE TRIGGER audit_leaves_append_only');
    const { rows: [leaf] } = await harness.db.query<{ part: string }>('SELECT tableoid::regclass::text AS part FROM audit_leaves WHERE index = $1', [index]);
    await harness.db.query(`ALTER TABLE ${leaf!.part} DISABLE TRIGGER ALL`);
    try {
      await harness.db.query("UPDATE audit_leaves SET tenant_id = 'acme' WHERE index = $1", [index]);
      expect((await all('', acme)).filter((event) => event.index === index)).toEqual([]);
      await expectError(await get(`leaf/${index}`, acme), 404, 'not_found');
      await expectError(await get(`proof/${index}`, acme), 404, 'not_found');
    } finally {
      await harness.db.query("UPDATE audit_leaves SET tenant_id = 'globex' WHERE index = $1", [index]);
      await harness.db.query(`ALTER TABLE ${leaf!.part} ENABLE TRIGGER ALL`);
      await harness.db.query('ALTER TABLE audit_leaves ENABLE TRIGGER audit_leaves_append_only');
    }
  });

  it('is filtered by phase, and by more than one filter at once', async () => {
    for (const phase of ['intent', 'outcome']) {
      const found = await all(`phase=${phase}`, acme);
      expect(found.length).toBeGreaterThanOrEqual(13);
      expect(found.filter(({ unmapped }) => unmapped.novix.phase !== phase)).toEqual([]);
    }
    const both = await events(`phase=outcome&request_id=${requestId}&tenant=acme`, platform);
    expect(both.data.map(({ unmapped, metadata }) => [unmapped.novix.phase, metadata.correlation_uid])).toEqual([['outcome', requestId]]);
    const refused = await harness.request('POST', '/v1/chat/completions', { body: { model: 'no-such-model', messages: [] } });
    await refused.text();
    const id = refused.headers.get('x-request-id')!;
    expect(await eventually(async () => (await events(`phase=refusal&request_id=${id}`, acme)).data[0], 10_000)).toMatchObject({ metadata: { correlation_uid: id } });
  });

  it('is filtered by time: from the first moment, up to the last and without it', async () => {
    const own = await all('phase=intent', acme);
    const [first, last] = [own[3]!.time, own[9]!.time];
    const [from, to] = [new Date(first).toISOString(), new Date(last).toISOString()];
    expect((await all(`phase=intent&from=${from}&to=${to}`, acme)).map(({ index }) => index)).toEqual(own.filter(({ time }) => time >= first && time < last).map(({ index }) => index));
    expect((await all(`phase=intent&from=${from}&limit=2`, acme)).map(({ index }) => index)).toEqual(own.filter(({ time }) => time >= first).map(({ index }) => index));
    expect((await all(`from=${new Date(Date.now() + 3_600_000).toISOString()}`, acme))).toEqual([]);
    expect((await all('to=2020-01-01T00:00:00Z', acme))).toEqual([]);
  });

  it('begins at the checkpoint before that time, and misses nothing', async () => {
    // As if all but the last five leaves had been signed an hour ago.
    const own = await all('', acme);
    const { rows: [row] } = await harness.db.query<{ size: string }>('SELECT size FROM audit_checkpoints ORDER BY size DESC OFFSET 1 LIMIT 1');
    await harness.db.query("UPDATE audit_checkpoints SET signed_at = now() - interval '2 hours' WHERE size = $1", [row!.size]);
    try {
      const from = new Date(Date.now() - 3_600_000).toISOString();
      expect((await all(`from=${from}`, acme)).map(({ index }) => index)).toEqual(own.map(({ index }) => index).filter((index) => index >= Number(row!.size)));
    } finally {
      await harness.db.query('UPDATE audit_checkpoints SET signed_at = now() WHERE size = $1', [row!.size]);
    }
  });

  it.each([
    ['an unknown filter', 'who=me', 'who'], ['a phase that there is not', 'phase=all', 'phase'], ['two phases', 'phase=intent&phase=outcome', 'phase'], ['what is no request id', 'request_id=1', 'request_id'], ['what is no time', 'from=yesterday', 'from'], ['a day alone', 'to=2026-13-01', 'to'],
    ['a limit of none', 'limit=0', 'limit'], ['a limit above all', 'limit=201', 'limit'], ['a cursor of another list', `cursor=${Buffer.from('abc').toString('base64url')}`, 'cursor'], ['a cursor that is damaged', 'cursor=*', 'cursor'], ['a prototype’s name', '__proto__=1', '__proto__'],
  ])('refuses %s', async (_, query, param) => {
    expect((await expectError(await get(`events?${query}`, acme), 400, 'invalid_request')).param).toBe(param);
  });

  it('goes on behind its end with nothing', async () => {
    expect(await events(`cursor=${Buffer.from('999999999').toString('base64url')}`, platform)).toEqual({ data: [], next_cursor: null });
  });
});

describe('the log', () => {
  const PATHS = ['checkpoint', 'tile/0/000.p/1', 'tile/entries/000.p/1', 'proof/0', 'leaf/0', 'events'];

  it.each(PATHS)('is closed without a token: %s', async (path) => {
    expect((await expectError(await get(path, null), 401, 'invalid_token')).message).toMatch(/\w/);
  });

  it.each(PATHS)('is closed to a developer, of a tenant and of the platform: %s', async (path) => {
    await expectError(await get(path, await harness.token()), 403, 'policy_denied');
    expect((await expectError(await get(path, await harness.token({ tenant: 'platform', subject: 'dev@platform.example', roles: ['developer'] })), 403, 'policy_denied')).message).toMatch(/\w/);
  });

  it('is open to a platform-admin', async () => {
    const admin = await harness.adminToken();
    for (const path of PATHS) expect([path, (await get(path, admin)).status]).toEqual([path, 200]);
  });

  it.each(['POST', 'PUT', 'PATCH', 'DELETE'])('is not written by %s', async (method) => {
    for (const path of PATHS) expect((await harness.request(method, `/audit/v1/${path}`, { token: platform, body: {} })).status).toBe(404);
  });
});

describe('a gateway without signing keys', () => {
  it('keeps the log, and says that nothing of it is signed', async () => {
    // Sandbox defaults make keys; what is asked of production alone is set by hand.
    const { startGateway } = await import('../../src/gateway.ts');
    const { createLogger } = await import('../../src/shared/logger.ts');
    const { systemClock } = await import('../../src/shared/clock.ts');
    const { createTestDatabase } = await import('../support/test-database.ts');
    const database = await createTestDatabase();
    const { settings } = harness;
    const gateway = await startGateway({ ...settings, databaseUrl: database.url, audit: { ...settings.audit, signingKeyFile: undefined, checkpointFile: `${settings.audit.checkpointFile}-unsigned` } }, createLogger('silent'), systemClock);
    try {
      const at = (path: string, token: string | null): Promise<Response> => fetch(`${gateway.url}/audit/v1/${path}`, token === null ? {} : { headers: { authorization: `Bearer ${token}` } });
      await (await at('checkpoint', platform.slice(0, -3))).text(); // a refusal makes a leaf
      await eventually(async () => (await at('tile/0/000.p/1', platform)).status === 200, 10_000);
      for (const [path, token] of [['checkpoint', platform], ['keys', null]] as const) {
        const response = await at(path, token);
        expect(response.headers.get('retry-after')).toMatch(/^\d+$/);
        await expectError(response, 503, 'audit_unavailable');
      }
      await expectError(await at('proof/0', platform), 404, 'not_found');
      expect((await at('leaf/0', platform)).status).toBe(200);
    } finally {
      await gateway.close();
      await database.drop();
    }
  });
});
