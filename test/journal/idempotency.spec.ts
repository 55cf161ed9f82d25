import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash, randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { Idempotency, type IdempotencyClaim } from '../../src/completions/idempotency.ts';
import { KEY_TAKEN, LEDGER_VERDICT } from '../../src/cost/ledger-entry.ts';
import { PARTICIPANTS } from '../../src/journal/operation.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { budgetState, createTenant, hold, resolution } from '../support/ledger.ts';
import { createTestDatabase } from '../support/test-database.ts';

// idempotency_claim and idempotency_finish on a real PostgreSQL, called as the journal calls them: around ledger_apply, in one statement.

const { fine, noRoom } = LEDGER_VERDICT;
const RESULT = Buffer.from('a sealed result');

interface Row {
  request_id: string;
  body_hash: string;
  status: number | null;
  result: Buffer | null;
}
interface Operation {
  claim?: string | undefined;
  ledger?: string | undefined;
  finish?: string | undefined;
}

let database: { url: string; drop(): Promise<void> };
let db: Client;
let tenant: string;
let tenants = 0;
beforeAll(async () => {
  database = await createTestDatabase();
  db = await connect();
});
afterAll(async () => {
  await db.end();
  await database.drop();
});
beforeEach(() => {
  tenant = `t${(tenants += 1)}`;
});

async function connect(): Promise<Client> {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  return client;
}

const hash = (text: string): string => createHash('sha256').update(text).digest('hex');
const inADay = (): string => new Date(Date.now() + 86_400_000).toISOString();

/** The entry that claims a key for a request. */
function claim(key: string, requestId: string, { of = tenant, body = 'body', expiresAt = inADay() }: { of?: string; body?: string; expiresAt?: string } = {}): string {
  return JSON.stringify({ t: of, h: hash(key), rq: requestId, b: hash(body), x: expiresAt });
}

function finish(kind: 'admit' | 'finish' | 'drop', key: string, requestId: string, { of = tenant, status = 200 }: { of?: string; status?: number } = {}): string {
  return JSON.stringify({ k: kind, t: of, h: hash(key), rq: requestId, ...(kind === 'finish' && { s: status }) });
}

/** What the class does before the end of the call is committed. */
async function put(key: string, result: Buffer): Promise<void> {
  await db.query("UPDATE idempotency_keys SET result = $3 WHERE tenant_id = $1 AND key_hash = decode($2, 'hex')", [tenant, hash(key), result]);
}

/** The operation that admits a call under a key; with a hold where one is given. */
function admission(key: string, requestId: string, options: { of?: string; body?: string; expiresAt?: string; ledger?: string } = {}): Operation {
  return { claim: claim(key, requestId, options), ledger: options.ledger, finish: finish('admit', key, requestId, options) };
}

function placed(entries: readonly (string | undefined)[]): string {
  return `[${entries.flatMap((entry, index) => (entry === undefined ? [] : [`{"i":${index},${entry.slice(1)}`])).join(',')}]`;
}

/** One batch, in one statement. */
async function commit(operations: readonly Operation[], client: Client = db): Promise<number[]> {
  const { rows } = await client.query<{ verdicts: number[] }>(
    'SELECT idempotency_finish(ledger_apply(idempotency_claim(journal_open($1), $2), $3), $4) AS verdicts',
    [operations.length, placed(operations.map((one) => one.claim)), placed(operations.map((one) => one.ledger)), placed(operations.map((one) => one.finish))]);
  return rows[0]!.verdicts;
}

async function rowOf(key: string, of = tenant): Promise<Row | undefined> {
  const { rows } = await db.query<Row>("SELECT request_id, encode(body_hash, 'hex') AS body_hash, status, result FROM idempotency_keys WHERE tenant_id = $1 AND key_hash = decode($2, 'hex')", [of, hash(key)]);
  return rows[0];
}

async function expire(key: string): Promise<void> {
  expect((await db.query("UPDATE idempotency_keys SET expires_at = now() WHERE tenant_id = $1 AND key_hash = decode($2, 'hex')", [tenant, hash(key)])).rowCount).toBe(1);
}

it('the claim is the first of the participants, before the money, and its end the last', () => {
  expect([PARTICIPANTS[0], PARTICIPANTS.at(-1)]).toEqual(['idempotency_claim', 'idempotency_finish']);
  expect(PARTICIPANTS.indexOf('ledger_apply')).toBeGreaterThan(0);
  expect([fine, KEY_TAKEN]).toEqual([0, 6]);
  expect(Object.values(LEDGER_VERDICT)).not.toContain(KEY_TAKEN);
});

describe('a claim', () => {
  it('is granted once, and keeps whose it is', async () => {
    const id = randomUUID();
    expect(await commit([admission('k', id)])).toEqual([fine]);
    expect(await rowOf('k')).toEqual({ request_id: id, body_hash: hash('body'), status: null, result: null });
    expect(await commit([admission('k', randomUUID())])).toEqual([KEY_TAKEN]);
    expect(await commit([admission('k', randomUUID(), { body: 'another' })])).toEqual([KEY_TAKEN]);
    expect(await rowOf('k')).toMatchObject({ request_id: id, body_hash: hash('body') });
  });

  it('is granted to the first of one batch', async () => {
    const ids = Array.from({ length: 5 }, () => randomUUID());
    expect(await commit(ids.map((id, index) => admission(index === 3 ? 'other' : 'k', id)))).toEqual([fine, KEY_TAKEN, KEY_TAKEN, fine, KEY_TAKEN]);
    expect([(await rowOf('k'))!.request_id, (await rowOf('other'))!.request_id]).toEqual([ids[0], ids[3]]);
  });

  it('is granted to the first of a batch of 512, whatever its place', async () => {
    const ids = Array.from({ length: 512 }, () => randomUUID());
    const verdicts = await commit(ids.map((id, index) => admission(`k${index % 100}`, id)));
    expect(verdicts).toEqual(ids.map((_, index) => (index < 100 ? fine : KEY_TAKEN)));
    const { rows } = await db.query<{ request_id: string }>('SELECT request_id FROM idempotency_keys WHERE tenant_id = $1', [tenant]);
    expect(new Set(rows.map((row) => row.request_id))).toEqual(new Set(ids.slice(0, 100)));
  });

  it('is each tenant’s own', async () => {
    const ids = [randomUUID(), randomUUID()] as const;
    expect(await commit([admission('k', ids[0]), admission('k', ids[1], { of: `${tenant}other` })])).toEqual([fine, fine]);
    expect([(await rowOf('k'))!.request_id, (await rowOf('k', `${tenant}other`))!.request_id]).toEqual(ids);
  });

  it('leaves operations without one alone, among those with one and in batches without any', async () => {
    await commit([admission('k', randomUUID())]);
    expect(await commit([{}, admission('k', randomUUID()), {}, admission('free', randomUUID()), {}])).toEqual([fine, KEY_TAKEN, fine, fine, fine]);
    expect(await commit([{}, {}])).toEqual([fine, fine]);
  });

  it('does not hide what was refused before', async () => {
    const id = randomUUID();
    const { rows } = await db.query<{ verdicts: number[] }>("SELECT idempotency_claim('{9,0}', $1) AS verdicts", [placed([undefined, claim('k', id)])]);
    expect(rows[0]!.verdicts).toEqual([9, fine]);
  });

  it('of somebody else costs nothing: the ledger holds no money for it', async () => {
    const budget = await createTenant(db, tenant, 100n);
    expect(await commit([admission('k', randomUUID(), { ledger: hold({ tenant, amount: 30n }) }), admission('k', randomUUID(), { ledger: hold({ tenant, amount: 30n }) })])).toEqual([fine, KEY_TAKEN]);
    expect(await commit([admission('k', randomUUID(), { ledger: hold({ tenant, amount: 30n }) })])).toEqual([KEY_TAKEN]);
    expect((await budgetState(db, budget)).held).toBe(30n);
  });

  it('is taken back where the ledger refuses the call', async () => {
    const budget = await createTenant(db, tenant, 50n);
    expect(await commit([admission('k', randomUUID(), { ledger: hold({ tenant, amount: 60n }) })])).toEqual([noRoom]);
    expect(await rowOf('k')).toBeUndefined();
    const id = randomUUID();
    expect(await commit([admission('k', id, { ledger: hold({ tenant, amount: 50n }) })])).toEqual([fine]);
    expect([(await rowOf('k'))!.request_id, (await budgetState(db, budget)).held]).toEqual([id, 50n]);
  });

  it('that the ledger refuses takes nobody else’s back, and lets nobody of its own batch have the key', async () => {
    await createTenant(db, tenant, 50n);
    const mine = randomUUID();
    await commit([admission('mine', mine, { ledger: hold({ tenant, amount: 10n }) })]);
    const batch = [
      admission('k', randomUUID(), { ledger: hold({ tenant, amount: 60n }) }), // first, and too dear
      admission('k', randomUUID(), { ledger: hold({ tenant, amount: 1n }) }), // second: comes again
      admission('mine', randomUUID(), { ledger: hold({ tenant, amount: 1n }) }),
      admission('good', randomUUID(), { ledger: hold({ tenant, amount: 1n }) }),
    ];
    expect(await commit(batch)).toEqual([noRoom, KEY_TAKEN, KEY_TAKEN, fine]);
    expect([await rowOf('k'), (await rowOf('mine'))!.request_id]).toEqual([undefined, mine]);
    expect(await commit([admission('k', randomUUID(), { ledger: hold({ tenant, amount: 1n }) })])).toEqual([fine]);
  });

  it('goes with its transaction', async () => {
    await db.query('BEGIN');
    expect(await commit([admission('k', randomUUID())])).toEqual([fine]);
    await db.query('ROLLBACK');
    expect(await rowOf('k')).toBeUndefined();
  });

  it('waits for another transaction’s, and is refused or granted as that ends', async () => {
    for (const [end, expected] of [['COMMIT', KEY_TAKEN], ['ROLLBACK', fine]] as const) {
      const [one, two] = [await connect(), await connect()];
      try {
        await one.query('BEGIN');
        expect(await commit([admission(end, randomUUID())], one)).toEqual([fine]);
        const { rows: [backend] } = await two.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
        const second = commit([admission(end, randomUUID())], two);
        for (let waits = false; !waits; ) {
          const { rows } = await db.query<{ waits: boolean }>('SELECT cardinality(pg_blocking_pids($1)) > 0 AS waits', [backend!.pid]);
          waits = rows[0]!.waits;
        }
        await one.query(end);
        expect(await second).toEqual([expected]);
      } finally {
        await one.end();
        await two.end();
      }
    }
  });
});

describe('an expired row', () => {
  it('makes way for a new claim, its result included', async () => {
    const first = randomUUID();
    await commit([admission('k', first)]);
    await commit([{ finish: finish('finish', 'k', first) }]);
    await expire('k');
    const second = randomUUID();
    expect(await commit([admission('k', second, { body: 'another' })])).toEqual([fine]);
    expect(await rowOf('k')).toEqual({ request_id: second, body_hash: hash('another'), status: null, result: null });
  });

  it('makes way for one of a batch alone', async () => {
    await commit([admission('k', randomUUID())]);
    await expire('k');
    expect(await commit([admission('k', randomUUID()), admission('k', randomUUID())])).toEqual([fine, KEY_TAKEN]);
  });

  it('leaves no trace where the ledger refuses its successor', async () => {
    await createTenant(db, tenant, 1n);
    await commit([admission('k', randomUUID())]);
    await expire('k');
    expect(await commit([admission('k', randomUUID(), { ledger: hold({ tenant, amount: 2n }) })])).toEqual([noRoom]);
    expect(await rowOf('k')).toBeUndefined();
  });

  it('cannot be finished or dropped by its old call once a new one has the key', async () => {
    const old = randomUUID();
    await commit([admission('k', old)]);
    await expire('k');
    const current = randomUUID();
    await commit([admission('k', current)]);
    expect(await commit([{ finish: finish('finish', 'k', old) }, { finish: finish('drop', 'k', old) }])).toEqual([fine, fine]);
    expect(await rowOf('k')).toMatchObject({ request_id: current, status: null, result: null });
  });

  it('is no one else’s: those that are still good stay', async () => {
    await commit([admission('old', randomUUID()), admission('good', randomUUID())]);
    await expire('old');
    expect(await commit([admission('old', randomUUID()), admission('good', randomUUID())])).toEqual([fine, KEY_TAKEN]);
  });
});

describe('the end of a call', () => {
  it('keeps its status and result, or only its status', async () => {
    const [kept, lost] = [randomUUID(), randomUUID()];
    await commit([admission('kept', kept), admission('lost', lost)]);
    await put('kept', RESULT);
    expect(await commit([{ finish: finish('finish', 'kept', kept, { status: 502 }) }, { finish: finish('finish', 'lost', lost, { status: 499 }) }])).toEqual([fine, fine]);
    expect([await rowOf('kept'), await rowOf('lost')]).toMatchObject([{ status: 502, result: RESULT }, { status: 499, result: null }]);
    expect(await commit([admission('kept', randomUUID()), admission('lost', randomUUID())])).toEqual([KEY_TAKEN, KEY_TAKEN]);
  });

  it('gives the key back where the call was free', async () => {
    const id = randomUUID();
    await commit([admission('k', id)]);
    expect(await commit([{ finish: finish('drop', 'k', id) }])).toEqual([fine]);
    expect(await rowOf('k')).toBeUndefined();
    expect(await commit([admission('k', randomUUID())])).toEqual([fine]);
  });

  it.each(['finish', 'drop'] as const)('%s by another call or tenant changes nothing', async (kind) => {
    const id = randomUUID();
    await commit([admission('k', id)]);
    await commit([{ finish: finish(kind, 'k', randomUUID()) }, { finish: finish(kind, 'k', id, { of: `${tenant}other` }) }, { finish: finish(kind, 'else', id) }]);
    expect(await rowOf('k')).toEqual({ request_id: id, body_hash: hash('body'), status: null, result: null });
  });

  it.each(['finish', 'drop'] as const)('%s does not count where the ledger refuses the settlement', async (kind) => {
    const id = randomUUID();
    await createTenant(db, tenant, 100n);
    await commit([admission('k', id)]);
    const [verdict] = await commit([{ ledger: resolution('settle', randomUUID(), 1n), finish: finish(kind, 'k', id) }]);
    expect(verdict).toBe(LEDGER_VERDICT.unknownHold);
    expect(await rowOf('k')).toMatchObject({ request_id: id, status: null });
  });

  it('of one and the admission of the next may be in one batch: the next has to come again', async () => {
    const id = randomUUID();
    await commit([admission('k', id)]);
    expect(await commit([{ finish: finish('drop', 'k', id) }, admission('k', randomUUID())])).toEqual([fine, KEY_TAKEN]);
    expect(await rowOf('k')).toBeUndefined();
  });

  it('of many calls is of each its own', async () => {
    const ids = Array.from({ length: 200 }, () => randomUUID());
    await commit(ids.map((id, index) => admission(`k${index}`, id)));
    await commit(ids.map((id, index) => ({ finish: finish(index % 2 === 0 ? 'finish' : 'drop', `k${index}`, id, { status: 200 + index }) })));
    const { rows } = await db.query<Row>('SELECT request_id, status FROM idempotency_keys WHERE tenant_id = $1', [tenant]);
    expect(rows).toHaveLength(100);
    expect(rows.filter((row) => ids[row.status! - 200] !== row.request_id)).toEqual([]);
  });
});

describe('two batches at once', () => {
  it('never both have a key, in whatever order they claim, and none is lost', async () => {
    const clients = await Promise.all(Array.from({ length: 4 }, () => connect()));
    try {
      for (let round = 0; round < 25; round += 1) {
        const keys = Array.from({ length: 20 }, (_, index) => `${round}-${index}`);
        const verdicts = await Promise.all(clients.map((client, index) => commit((index % 2 === 0 ? keys : keys.toReversed()).map((key) => admission(key, randomUUID())), client)));
        expect(verdicts.flat().filter((verdict) => verdict === fine)).toHaveLength(keys.length);
      }
    } finally {
      await Promise.all(clients.map((client) => client.end()));
    }
  });
});

describe('what is kept', () => {
  /** A call that has ended with a result, through the class and the functions together. */
  async function ended(idempotency: Idempotency, key: string, startedAtMs = Date.now()): Promise<{ claim: IdempotencyClaim; requestId: string }> {
    const requestId = randomUUID();
    const claimed = idempotency.claimOf({ 'idempotency-key': key }, tenant, 'POST /v1/chat/completions', Buffer.from('{}'))!;
    const { idempotency_claim: entry, idempotency_finish: admitted } = idempotency.claimEntries(claimed, requestId, startedAtMs);
    expect(await commit([{ claim: entry, finish: admitted }])).toEqual([fine]);
    expect(await idempotency.keep(claimed, requestId, startedAtMs, { status: 200, body: Buffer.from('{"said":"hello"}') })).toBe(true);
    expect(await commit([{ finish: idempotency.finishEntry(claimed, requestId, 200) }])).toEqual([fine]);
    return { claim: claimed, requestId };
  }

  it('opens again, in another process too', async () => {
    const { claim: claimed, requestId } = await ended(new Idempotency(db as never, systemClock), 'k');
    expect(await new Idempotency(db as never, systemClock).find(claimed)).toEqual({ requestId, status: 200, body: Buffer.from('{"said":"hello"}') });
  });

  it('of expired results nothing, and of their keys nothing after two days; what is still good stays', async () => {
    const idempotency = new Idempotency(db as never, systemClock);
    const good = await ended(idempotency, 'good');
    await ended(idempotency, 'old');
    await expire('old');
    await db.query("INSERT INTO replay_keys SELECT $1, (now() AT TIME ZONE 'UTC')::date - ago, decode(repeat('00', 32), 'hex') FROM generate_series(1, 5) AS ago", [tenant]);
    await idempotency.trim();
    expect([await rowOf('old'), (await idempotency.find(good.claim))!.requestId]).toEqual([undefined, good.requestId]);
    const { rows } = await db.query<{ ago: number }>("SELECT (now() AT TIME ZONE 'UTC')::date - day AS ago FROM replay_keys WHERE tenant_id = $1 ORDER BY ago", [tenant]);
    expect(rows.map(({ ago }) => ago)).toEqual([0, 1]);
  });

  it('is up to 4 MiB, byte by byte, and longer ones are not', async () => {
    const idempotency = new Idempotency(db as never, systemClock);
    const body = Buffer.alloc(4 * 1024 * 1024, 0xa7);
    const { claim: claimed, requestId } = await ended(idempotency, 'k');
    expect(await idempotency.keep(claimed, requestId, Date.now(), { status: 200, body: Buffer.concat([body, body.subarray(0, 1)]) })).toBe(false);
    expect(await idempotency.keep(claimed, requestId, Date.now(), { status: 200, body })).toBe(true);
    expect((await idempotency.find(claimed))!.body.equals(body)).toBe(true);
  });

  it('opens although its call began on the last millisecond of a day', async () => {
    const midnightMs = Math.floor(Date.now() / 86_400_000) * 86_400_000;
    const { claim: claimed } = await ended(new Idempotency(db as never, systemClock), 'k', midnightMs - 1);
    expect((await new Idempotency(db as never, systemClock).find(claimed))!.status).toBe(200);
  });

  it('does not open as the result of another key or body, even with its request id', async () => {
    const idempotency = new Idempotency(db as never, systemClock);
    const first = await ended(idempotency, 'first');
    const second = await ended(idempotency, 'second');
    await db.query("UPDATE idempotency_keys k SET (result, request_id) = (SELECT result, request_id FROM idempotency_keys o WHERE o.request_id = $1) WHERE k.request_id = $2", [first.requestId, second.requestId]);
    await expect(idempotency.find(second.claim)).rejects.toThrow('unable to authenticate data');
    await db.query('UPDATE idempotency_keys SET status = 201 WHERE request_id = $1', [first.requestId]);
    await expect(idempotency.find(first.claim)).rejects.toThrow('unable to authenticate data');
  });
});
