import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { JournalMetrics } from '../../src/journal/journal-metrics.ts';
import { Journal, JOURNAL_LIMITS, type JournalLimits } from '../../src/journal/journal.ts';
import type { Operation, Verdict } from '../../src/journal/operation.ts';
import { Spool } from '../../src/journal/spool.ts';
import { eventually } from '../support/harness.ts';
import { budgetState, commitCount, createTenant, hold, leafCount, leafOperation, resolution } from '../support/ledger.ts';
import { startTcpProxy, type LinkFault, type TcpProxy } from '../support/tcp-proxy.ts';
import { createTestDatabase } from '../support/test-database.ts';

// The group committer on a real PostgreSQL, behind a TCP proxy that breaks the connection where a test says so.

/** Stands in every commit's bytes: the name of the prepared statement. */
const COMMIT = 'journal-commit';
const POISON_BYTES = 65_600;

let database: { url: string; drop(): Promise<void> };
let db: Pool;
let proxy: TcpProxy;
let journal: Journal;
let dir: string;
let tenants = 0;
const open: Journal[] = [];
const stopped: number[] = [];

beforeAll(async () => {
  database = await createTestDatabase();
  db = new Pool({ connectionString: database.url, max: 4 });
});
afterAll(async () => {
  await db.end();
  await database.drop();
});
beforeEach(async () => {
  dir = join(tmpdir(), `novix-test-spool-${randomUUID()}`);
  proxy = await startTcpProxy(database.url);
  journal = await startJournal();
});
afterEach(async () => {
  for (const pid of stopped.splice(0)) process.kill(pid, 'SIGCONT');
  proxy.mend();
  await Promise.all(open.splice(0).map((one) => one.close()));
  await proxy.close();
  await rm(dir, { recursive: true, force: true });
});

/** Patient with admissions unless said otherwise: only some tests are about time, and the machine has other things to do. */
async function startJournal(limits: Partial<JournalLimits> = {}): Promise<Journal> {
  const logger = pino({ level: 'silent' });
  const spool = new Spool(dir, randomUUID(), async () => false, logger);
  await spool.open();
  const started = new Journal(proxy.url, spool, new JournalMetrics(new Registry()), logger, { ...JOURNAL_LIMITS, admissionTimeoutMs: 5_000, ...limits });
  await started.open();
  open.push(started);
  return started;
}

/** What became of operations: their verdicts, or the codes with which they were refused. */
function outcomes(commits: readonly Promise<Verdict>[]): Promise<(Verdict | string)[]> {
  return Promise.all(commits.map((commit) => commit.catch((error: { code?: string }) => error.code ?? 'an error without a code')));
}

function admissions(count: number): Operation[] {
  return Array.from({ length: count }, () => leafOperation('admission'));
}

/** In place of the patient one, a journal with the product's own limits. */
async function useProductLimits(): Promise<void> {
  await journal.close();
  journal = await startJournal(JOURNAL_LIMITS);
}

async function commitsDuring(work: () => Promise<unknown>): Promise<number> {
  const before = await commitCount(db);
  await work();
  return (await commitCount(db)) - before;
}

/** Stops the server process behind the journal, as a machine that hangs. */
async function stopBackend(): Promise<number> {
  const { rows } = await db.query<{ pid: number }>("SELECT pid FROM pg_stat_activity WHERE application_name = 'novix-journal' AND datname = current_database()");
  const [{ pid }] = rows as [{ pid: number }];
  process.kill(pid, 'SIGSTOP');
  stopped.push(pid);
  return pid;
}

function goOn(pid: number): void {
  stopped.splice(stopped.indexOf(pid), 1);
  process.kill(pid, 'SIGCONT');
}

describe('a batch', () => {
  it('takes what many callers want at once: far fewer commits than operations, and each operation is there once', async () => {
    const operations = admissions(2_000);
    const commits = await commitsDuring(async () => expect(new Set(await outcomes(operations.map((operation) => journal.commit(operation))))).toEqual(new Set([0])));
    expect(commits).toBeLessThanOrEqual(8);
    const { rows } = await db.query<{ leaves: string; ids: string }>('SELECT count(*) AS leaves, count(DISTINCT id) AS ids FROM audit_events WHERE id = ANY ($1)', [operations.map(({ id }) => id)]);
    expect(rows).toEqual([{ leaves: '2000', ids: '2000' }]);
  });

  it('gathers under steady load too: 64 callers in a row commit far less than once each', async () => {
    const commits = await commitsDuring(() => Promise.all(Array.from({ length: 64 }, async () => {
      for (let call = 0; call < 20; call++) expect(await journal.commit(leafOperation('outcome'))).toBe(0);
    })));
    expect(commits).toBeLessThan(64 * 20 / 8);
  });

  it('of one is committed at once when nothing else is going on', async () => {
    // With a gathering time far beyond what the test allows: an idle journal must not use it.
    const patient = await startJournal({ gatherMs: 5_000 });
    await patient.commit(leafOperation('admission'));
    for (let call = 0; call < 5; call++) {
      await new Promise((resolve) => setTimeout(resolve, 5)); // until the flush before is quite over
      const started = performance.now();
      await patient.commit(leafOperation('admission'));
      expect(performance.now() - started).toBeLessThan(400);
    }
  });

  it('never has more operations than the limit', async () => {
    const small = await startJournal({ batchMax: 10 });
    const commits = await commitsDuring(async () => expect(await outcomes(admissions(95).map((operation) => small.commit(operation)))).toEqual(Array.from({ length: 95 }, () => 0)));
    expect(commits).toBeGreaterThanOrEqual(10);
    const { rows } = await db.query<{ longest: number }>('SELECT max(length(verdicts)) AS longest FROM (SELECT verdicts FROM journal_batches WHERE verdicts IS NOT NULL ORDER BY created_at DESC LIMIT $1) AS last', [commits]);
    expect(rows[0]!.longest).toBeLessThanOrEqual(10);
  });

  it('gives each caller its own verdict', async () => {
    const tenant = `j${(tenants += 1)}`;
    await createTenant(db, tenant, 100n);
    const amounts = [60n, 60n, 40n, 1n];
    const operations = amounts.map((amount): Operation => {
      const { id, entries } = leafOperation('admission');
      return { id, lane: 'admission', entries: { ...entries, ledger_apply: hold({ tenant, amount }) } };
    });
    expect(await outcomes(operations.map((operation) => journal.commit(operation)))).toEqual([0, 1, 0, 1]);
    expect(await Promise.all(operations.map(({ id }) => leafCount(db, id)))).toEqual([1, 0, 1, 0]);
  });

  it('is told when more wait than may: overloaded, at once, and the others are committed', async () => {
    const small = await startJournal({ admissionsMax: 20 });
    const answers = await outcomes(admissions(50).map((operation) => small.commit(operation)));
    expect(answers).toEqual([...Array.from({ length: 20 }, () => 0), ...Array.from({ length: 30 }, () => 'overloaded')]);
  });

  it('leaves outcomes room when admissions are full', async () => {
    const small = await startJournal({ admissionsMax: 1 });
    const answers = await outcomes([leafOperation('admission'), leafOperation('admission'), leafOperation('outcome'), leafOperation('outcome')].map((operation) => small.commit(operation)));
    expect(answers).toEqual([0, 'overloaded', 0, 0]);
  });
});

describe('a poisonous operation', () => {
  it('among 300 good ones is the only one that fails', async () => {
    const good = admissions(300);
    const bad = leafOperation('admission', { bytes: POISON_BYTES });
    const operations = [...good.slice(0, 137), bad, ...good.slice(137)];
    const answers = await outcomes(operations.map((operation) => journal.commit(operation)));
    expect(answers.filter((answer) => answer !== 0)).toEqual(['internal_error']);
    expect(answers[137]).toBe('internal_error');
    const { rows } = await db.query<{ leaves: string }>('SELECT count(*) AS leaves FROM audit_events WHERE id = ANY ($1)', [operations.map(({ id }) => id)]);
    expect(rows[0]!.leaves).toBe('300');
  });

  it('takes no money with it, and the good ones beside it take theirs once', async () => {
    const tenant = `j${(tenants += 1)}`;
    const budget = await createTenant(db, tenant, 1_000n);
    const operations = Array.from({ length: 9 }, (_, index): Operation => {
      const { id, entries } = leafOperation('admission', { bytes: index === 4 ? POISON_BYTES : 40 });
      return { id, lane: 'admission', entries: { ...entries, ledger_apply: hold({ tenant, amount: 10n }) } };
    });
    expect(await outcomes(operations.map((operation) => journal.commit(operation)))).toEqual([0, 0, 0, 0, 'internal_error', 0, 0, 0, 0]);
    expect(await budgetState(db, budget)).toMatchObject({ held: 80n });
  });

  it('does no harm to what comes after it', async () => {
    expect(await outcomes([journal.commit(leafOperation('outcome', { bytes: POISON_BYTES }))])).toEqual(['internal_error']);
    expect(await journal.commit(leafOperation('admission'))).toBe(0);
  });
});

describe('a connection that breaks', () => {
  const faults: [string, LinkFault][] = [
    ['before the commit reaches PostgreSQL', 'cut-before'],
    ['right after the commit has been handed over', 'cut-after'],
    ['when the answer is on its way', 'swallow-answer'],
  ];
  it.each(faults)('%s: each operation happens exactly once, and its caller is told so', async (_, fault) => {
    const tenant = `j${(tenants += 1)}`;
    const budget = await createTenant(db, tenant, 1_000n);
    await journal.commit(leafOperation('admission'));
    for (let round = 0; round < 5; round++) {
      const operations = Array.from({ length: 10 }, (__, index): Operation => {
        const { id, entries } = leafOperation(index % 2 === 0 ? 'admission' : 'outcome');
        return { id, lane: index % 2 === 0 ? 'admission' : 'outcome', entries: { ...entries, ledger_apply: hold({ tenant, amount: 1n }) } };
      });
      proxy.breakNext(COMMIT, fault);
      expect(await outcomes(operations.map((operation) => journal.commit(operation)))).toEqual(operations.map(() => 0));
      expect(proxy.broken).toBe(true);
      expect(await Promise.all(operations.map(({ id }) => leafCount(db, id)))).toEqual(operations.map(() => 1));
      expect(await budgetState(db, budget)).toMatchObject({ held: BigInt(10 * (round + 1)) });
    }
  });

  it('and cannot be made again in time: admissions are refused, outcomes wait in the spool, and both are right afterwards', async () => {
    await useProductLimits();
    const tenant = `j${(tenants += 1)}`;
    const budget = await createTenant(db, tenant, 1_000n);
    const holdId = randomUUID();
    await journal.commit({ ...leafOperation('admission'), entries: { ledger_apply: hold({ id: holdId, tenant, amount: 100n }) } });
    const admission = leafOperation('admission');
    const undone = jest.fn();
    const settle = leafOperation('outcome');
    proxy.refuse();
    proxy.breakNext(COMMIT, 'swallow-answer');
    expect(await outcomes([journal.commit({ ...admission, onCommittedAfterGivingUp: undone })])).toEqual(['audit_unavailable']);
    expect(await leafCount(db, admission.id)).toBe(1); // it did happen, and nobody could say so
    expect(journal.available).toBe(false);
    expect(await journal.commitOrSpool({ ...settle, entries: { ...settle.entries, ledger_apply: resolution('settle', holdId, 60n) } })).toBe('spooled');
    expect(await readdir(dir)).toHaveLength(1);
    expect(await outcomes([journal.commit(leafOperation('admission')), journal.commit(leafOperation('refusal'))])).toEqual(['audit_unavailable', 'audit_unavailable']);

    proxy.mend();
    await eventually(async () => (await budgetState(db, budget)).held === 0n);
    expect(await budgetState(db, budget)).toMatchObject({ spent: 60n, held: 0n });
    await eventually(async () => (await readdir(dir)).length === 0);
    expect(await leafCount(db, settle.id)).toBe(1);
    // Its caller had been told that it did not happen, so it is undone.
    await eventually(() => undone.mock.calls.length === 1);
    expect(await leafCount(db, admission.id)).toBe(1);
  });

  it('is not taken for a reason to commit again what the old connection still has in hand', async () => {
    // The commit lies in the socket of a server process that hangs; the journal goes on by another connection, and then the old one wakes up.
    const tenant = `j${(tenants += 1)}`;
    const budget = await createTenant(db, tenant, 1_000n);
    await journal.commit(leafOperation('admission'));
    const pid = await stopBackend();
    const { id, entries } = leafOperation('outcome');
    proxy.breakNext(COMMIT, 'cut-after');
    const [answer] = await outcomes([journal.commit({ id, lane: 'outcome', entries: { ...entries, ledger_apply: hold({ tenant, amount: 10n }) } })]);
    expect(answer).toBe(0);
    expect(await leafCount(db, id)).toBe(1);
    goOn(pid);
    await eventually(async () => (await db.query('SELECT 1 FROM pg_stat_activity WHERE pid = $1', [pid])).rows.length === 0);
    expect(await leafCount(db, id)).toBe(1);
    expect(await budgetState(db, budget)).toMatchObject({ held: 10n });
  });

  it('twenty times in a row under load: nothing is lost, nothing is there twice, and who was told "no" finds nothing', async () => {
    let told: { id: string; answer: Verdict | string }[] = [];
    let breaking = true;
    const caller = async (): Promise<void> => {
      while (breaking) {
        const operation = leafOperation('admission');
        const [answer] = await outcomes([journal.commit(operation)]);
        told.push({ id: operation.id, answer: answer! });
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };
    const callers = Array.from({ length: 20 }, caller);
    for (let round = 0; round < 20; round++) {
      proxy.breakNext(COMMIT, (['cut-before', 'cut-after', 'swallow-answer'] as const)[round % 3]!);
      await eventually(() => proxy.broken);
    }
    breaking = false;
    await Promise.all(callers);
    const { rows } = await db.query<{ id: string; count: string }>('SELECT id, count(*) FROM audit_events WHERE id = ANY ($1) GROUP BY id', [told.map(({ id }) => id)]);
    const counts = new Map(rows.map(({ id, count }) => [id, Number(count)]));
    expect(told.length).toBeGreaterThan(100);
    told = told.filter(({ id, answer }) => (counts.get(id) ?? 0) !== (answer === 0 ? 1 : 0));
    expect(told).toEqual([]);
  });
});

describe('an outcome that comes after the sweeper has charged its hold', () => {
  /** A settlement that becomes a correction, with the leaf that goes with each. */
  function settlement(holdId: string, ticks: bigint): { operation: Operation; corrected: string } {
    const [{ id, entries }, change] = [leafOperation('outcome'), leafOperation('outcome')];
    return {
      corrected: change.id,
      operation: {
        id, lane: 'outcome', entries: { ...entries, ledger_apply: resolution('settle', holdId, ticks) },
        otherwise: { verdict: 3, entries: () => ({ ...change.entries, ledger_apply: resolution('correct', holdId, ticks) }) },
      },
    };
  }

  async function heldAndExpired(): Promise<{ budget: string; holdId: string }> {
    const tenant = `j${(tenants += 1)}`;
    const budget = await createTenant(db, tenant, 1_000n);
    const holdId = randomUUID();
    await journal.commit({ ...leafOperation('admission'), entries: { ledger_apply: hold({ id: holdId, tenant, amount: 100n }) } });
    await journal.commit({ ...leafOperation('outcome'), entries: { ledger_apply: resolution('expire', holdId, 100n) } });
    return { budget, holdId };
  }

  it('corrects the charge, and leaves one record of that', async () => {
    const { budget, holdId } = await heldAndExpired();
    const { operation, corrected } = settlement(holdId, 35n);
    expect(await journal.commitOrSpool(operation)).toBe(0);
    expect(await budgetState(db, budget)).toMatchObject({ spent: 35n, held: 0n });
    expect([await leafCount(db, operation.id), await leafCount(db, corrected)]).toEqual([0, 1]);
  });

  it('does so from the spool as well, once, however often it is replayed', async () => {
    const { budget, holdId } = await heldAndExpired();
    const { operation, corrected } = settlement(holdId, 35n);
    proxy.sever();
    await eventually(() => !journal.available);
    expect(await journal.commitOrSpool(operation)).toBe('spooled');
    expect(await journal.commitOrSpool(operation)).toBe('spooled'); // as when an answer was lost, and the same outcome is spooled again
    proxy.mend();
    await eventually(async () => (await readdir(dir)).length === 0);
    expect(await budgetState(db, budget)).toMatchObject({ spent: 35n, held: 0n });
    expect([await leafCount(db, operation.id), await leafCount(db, corrected)]).toEqual([0, 1]);
  });
});

describe('a PostgreSQL that hangs', () => {
  it('has admissions refused within 500 ms; what had been given up and yet commits is undone, and the journal goes on by itself', async () => {
    await useProductLimits();
    const tenant = `j${(tenants += 1)}`;
    const budget = await createTenant(db, tenant, 1_000n);
    const holdId = randomUUID();
    const pid = await stopBackend();
    const undo = jest.fn(() => void journal.commit({ ...leafOperation('outcome'), entries: { ledger_apply: resolution('release', holdId, 0n) } }));
    const started = performance.now();
    const operation = leafOperation('admission');
    const first = journal.commit({ ...operation, entries: { ...operation.entries, ledger_apply: hold({ id: holdId, tenant, amount: 10n }) }, onCommittedAfterGivingUp: undo });
    const second = leafOperation('admission');
    const late = jest.fn();
    const answers = outcomes([first, new Promise((resolve) => setImmediate(resolve)).then(() => journal.commit({ ...second, onCommittedAfterGivingUp: late }))]);
    expect(await answers).toEqual(['audit_unavailable', 'audit_unavailable']);
    expect(performance.now() - started).toBeLessThan(500);

    goOn(pid);
    await eventually(() => undo.mock.calls.length === 1);
    await eventually(async () => (await budgetState(db, budget)).held === 0n);
    expect(await journal.commit(leafOperation('admission'))).toBe(0);
    expect(undo).toHaveBeenCalledTimes(1);
    // The second waited behind the first and had been given up before it was sent: it never happens.
    expect([late.mock.calls.length, await leafCount(db, second.id)]).toEqual([0, 0]);
    expect(await budgetState(db, budget)).toMatchObject({ spent: 0n, held: 0n });
  });
});

describe('the lane of refusals', () => {
  it('does not delay admissions, however full it is', async () => {
    const flood = await startJournal({ refusalsMax: 100_000 });
    const refused = outcomes(Array.from({ length: 20_000 }, () => flood.commit(leafOperation('refusal', { bytes: 1_000 }))));
    const waits: number[] = [];
    for (let call = 0; call < 30; call++) {
      const started = performance.now();
      expect(await flood.commit(leafOperation('admission'))).toBe(0);
      waits.push(performance.now() - started);
    }
    expect(waits.toSorted((left, right) => left - right)[15]).toBeLessThan(60);
    expect(Math.max(...waits)).toBeLessThan(400);
    await refused;
  });

  it('is bounded, and gives up its own first', async () => {
    const answers = await outcomes(Array.from({ length: JOURNAL_LIMITS.refusalsMax + 10 }, () => journal.commit(leafOperation('refusal'))));
    expect(answers.filter((answer) => answer === 'overloaded')).toHaveLength(10);
    expect(answers.filter((answer) => answer === 0)).toHaveLength(JOURNAL_LIMITS.refusalsMax);
  });

  it('is served in the end also while calls keep coming', async () => {
    let busy = true;
    const callers = Array.from({ length: 32 }, async () => {
      while (busy) await journal.commit(leafOperation('outcome'));
    });
    expect(await outcomes(Array.from({ length: 200 }, () => journal.commit(leafOperation('refusal'))))).toEqual(Array.from({ length: 200 }, () => 0));
    busy = false;
    await Promise.all(callers);
  });
});

describe('close', () => {
  it('commits what is waiting first, and takes nothing after', async () => {
    const closing = await startJournal({ batchMax: 16 });
    const operations = [...admissions(50), ...Array.from({ length: 50 }, () => leafOperation('outcome')), ...Array.from({ length: 50 }, () => leafOperation('refusal'))];
    const answers = outcomes(operations.map((operation) => closing.commit(operation)));
    const closed = closing.close();
    expect(await outcomes([closing.commit(leafOperation('admission'))])).toEqual(['audit_unavailable']);
    await closed;
    expect(await answers).toEqual(operations.map(() => 0));
    expect(await outcomes([closing.commit(leafOperation('outcome'))])).toEqual(['audit_unavailable']);
  });

  it('ends also while PostgreSQL is away', async () => {
    const closing = await startJournal();
    proxy.sever();
    await eventually(() => !closing.available);
    const started = performance.now();
    await closing.close();
    expect(performance.now() - started).toBeLessThan(3_000);
  });
});

it('will not work with a PostgreSQL that may forget what it has committed', async () => {
  const { pathname } = new URL(database.url);
  await db.query(`ALTER DATABASE ${pathname.slice(1)} SET synchronous_commit = off`);
  try {
    await expect(startJournal()).rejects.toMatchObject({ message: expect.stringContaining('synchronous_commit') });
  } finally {
    await db.query(`ALTER DATABASE ${pathname.slice(1)} RESET synchronous_commit`);
  }
});
