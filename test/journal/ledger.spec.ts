import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { packLeaves } from '../../src/journal/packed-leaves.ts';
import { LEDGER_VERDICT, type SettlementKind } from '../../src/cost/ledger-entry.ts';
import { budgetState, createBudget, createTenant, hold, resolution, type BudgetState } from '../support/ledger.ts';
import { createTestDatabase } from '../support/test-database.ts';

// ledger_apply, audit_append, journal_seal and budgets_roll on a real PostgreSQL, called as the journal calls them.

const { fine, noRoom, noBudget, late, alreadyResolved, unknownHold } = LEDGER_VERDICT;
const SPENT = (ticks: bigint): Partial<BudgetState> => ({ spent: ticks, held: 0n });

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

/** The array of entries with each one's place, as `entriesJson` writes it. */
function placed(entries: readonly string[]): string {
  return `[${entries.map((entry, index) => `{"i":${index},${entry.slice(1)}`).join(',')}]`;
}

async function apply(entries: readonly string[], client: Client = db): Promise<number[]> {
  const { rows } = await client.query<{ verdicts: number[] }>('SELECT ledger_apply(journal_open($1), $2) AS verdicts', [entries.length, placed(entries)]);
  return rows[0]!.verdicts;
}

/** Grants a hold and gives its id. */
async function held(amount: bigint, scopes?: readonly string[]): Promise<string> {
  const id = randomUUID();
  expect(await apply([hold({ id, tenant, amount, ...(scopes && { scopes }) })])).toEqual([fine]);
  return id;
}

async function statesOf(budgets: readonly string[]): Promise<BudgetState[]> {
  const states: BudgetState[] = [];
  for (const budget of budgets) states.push(await budgetState(db, budget));
  return states;
}

async function settlementOf(holdId: string): Promise<Record<string, unknown> | undefined> {
  const { rows } = await db.query<Record<string, unknown>>('SELECT * FROM settlements WHERE hold_id = $1', [holdId]);
  return rows[0];
}

async function isOpen(holdId: string): Promise<boolean> {
  return (await db.query('SELECT 1 FROM holds WHERE id = $1', [holdId])).rows.length === 1;
}

describe('a hold', () => {
  it('is granted in order of arrival while it fits, and a later smaller one still fits where a larger did not', async () => {
    const budget = await createTenant(db, tenant, 100n);
    const amounts = [60n, 30n, 20n, 10n, 1n];
    expect(await apply(amounts.map((amount) => hold({ tenant, amount })))).toEqual([fine, fine, noRoom, fine, noRoom]);
    expect(await budgetState(db, budget)).toEqual({ limit: 100n, spent: 0n, held: 100n });
  });

  it('fits to the tick, and one tick more does not', async () => {
    const budget = await createTenant(db, tenant, 100n);
    expect(await apply([hold({ tenant, amount: 101n }), hold({ tenant, amount: 100n })])).toEqual([noRoom, fine]);
    expect(await apply([hold({ tenant, amount: 0n })])).toEqual([fine]);
    expect((await budgetState(db, budget)).held).toBe(100n);
  });

  it('needs room in every budget that matches, and a refused one takes nothing from any', async () => {
    const whole = await createTenant(db, tenant, 100n);
    const model = await createBudget(db, tenant, 50n, { scope: 'model:grok-beta' });
    const other = await createBudget(db, tenant, 1n, { scope: 'model:grok-pro' });
    const scopes = ['tenant', 'user:dev', 'model:grok-beta'];
    expect(await apply([hold({ tenant, amount: 40n, scopes }), hold({ tenant, amount: 20n, scopes }), hold({ tenant, amount: 60n }), hold({ tenant, amount: 1n })])).toEqual([fine, noRoom, fine, noRoom]);
    expect(await budgetState(db, whole)).toMatchObject({ held: 100n });
    expect(await budgetState(db, model)).toMatchObject({ held: 40n });
    expect(await budgetState(db, other)).toMatchObject({ held: 0n });
  });

  it('counts toward every window of one scope', async () => {
    const total = await createTenant(db, tenant, 1_000n);
    const day = await createBudget(db, tenant, 30n, { window: 'day' });
    expect(await apply([hold({ tenant, amount: 30n }), hold({ tenant, amount: 1n })])).toEqual([fine, noRoom]);
    expect(await statesOf([total, day])).toMatchObject([{ held: 30n }, { held: 30n }]);
  });

  it('is refused to a tenant without any budget, also where another tenant or another scope has one', async () => {
    await createTenant(db, `${tenant}other`, 100n);
    await db.query("INSERT INTO tenants (id, name, tier) VALUES ($1, $1, 'standard')", [tenant]);
    await createBudget(db, tenant, 100n, { scope: 'team:bi' });
    expect(await apply([hold({ tenant, amount: 1n }), hold({ tenant, amount: 1n, scopes: ['tenant', 'team:bi'] }), hold({ tenant: 'nobody', amount: 0n })])).toEqual([noBudget, fine, noBudget]);
  });

  it('is not granted to an operation that an earlier participant refused', async () => {
    const budget = await createTenant(db, tenant, 100n);
    const { rows } = await db.query<{ verdicts: number[] }>("SELECT ledger_apply('{0,9,0}', $1) AS verdicts", [placed([1n, 2n, 4n].map((amount) => hold({ tenant, amount })))]);
    expect(rows[0]!.verdicts).toEqual([fine, 9, fine]);
    expect((await budgetState(db, budget)).held).toBe(5n);
  });

  it('is refused where the limit was lowered below what is spent, and granted again when it is raised', async () => {
    const budget = await createTenant(db, tenant, 100n);
    await apply([resolution('settle', await held(80n), 80n)]);
    await db.query('UPDATE budgets SET limit_ticks = 50 WHERE id = $1', [budget]);
    expect(await apply([hold({ tenant, amount: 0n }), hold({ tenant, amount: 1n })])).toEqual([noRoom, noRoom]);
    await db.query('UPDATE budgets SET limit_ticks = 81 WHERE id = $1', [budget]);
    expect(await apply([hold({ tenant, amount: 1n })])).toEqual([fine]);
  });

  it('keeps what an outcome needs: tenant, replica, scopes’ budgets, context', async () => {
    const budget = await createTenant(db, tenant, 100n);
    const id = await held(7n);
    const { rows } = await db.query<Record<string, unknown>>('SELECT * FROM holds WHERE id = $1', [id]);
    expect(rows[0]).toMatchObject({ tenant_id: tenant, state: 'sent', amount_ticks: '7', budget_ids: [budget], context: { sub: 'dev', model: 'grok-beta', upstream_model: 'grok-4.3' } });
  });

  it('gets no room from a settlement in the same batch, but in the next', async () => {
    // Conservative on purpose: what a batch grants never hangs on money that the same batch gives back.
    const budget = await createTenant(db, tenant, 100n);
    const first = await held(100n);
    expect(await apply([resolution('settle', first, 10n), hold({ tenant, amount: 90n })])).toEqual([fine, noRoom]);
    expect(await apply([hold({ tenant, amount: 90n })])).toEqual([fine]);
    expect(await budgetState(db, budget)).toMatchObject({ spent: 10n, held: 90n });
  });
});

describe('the end of a hold', () => {
  // What becomes of each way to resolve a hold, by the state it is in.
  const kinds: SettlementKind[] = ['settle', 'release', 'expire', 'correct'];
  const table: [state: string, before: SettlementKind | undefined, expected: Record<SettlementKind, number>][] = [
    ['sent', undefined, { settle: fine, release: fine, expire: fine, correct: alreadyResolved }],
    ['settled', 'settle', { settle: alreadyResolved, release: alreadyResolved, expire: alreadyResolved, correct: alreadyResolved }],
    ['released', 'release', { settle: alreadyResolved, release: alreadyResolved, expire: alreadyResolved, correct: alreadyResolved }],
    ['expired_charged', 'expire', { settle: late, release: late, expire: alreadyResolved, correct: fine }],
  ];
  const cases = table.flatMap(([state, before, expected]) => kinds.map((kind): [SettlementKind, string, SettlementKind | undefined, number] => [kind, state, before, expected[kind]]));
  const CHARGES: Record<SettlementKind, bigint> = { settle: 30n, release: 0n, expire: 100n, correct: 40n };
  const STATES: Record<SettlementKind, string> = { settle: 'settled', release: 'released', expire: 'expired_charged', correct: 'settled' };

  /** A hold of 100 in the state to which `before` leads. */
  async function heldAnd(before: SettlementKind | undefined): Promise<{ budget: string; id: string }> {
    const budget = await createTenant(db, tenant, 1_000n);
    const id = await held(100n);
    if (before !== undefined) await apply([resolution(before, id, CHARGES[before])]);
    return { budget, id };
  }

  it.each(cases.filter(([, , , expected]) => expected === fine))('%s takes place for a hold that is %s', async (kind, _state, before) => {
    const { budget, id } = await heldAnd(before);
    expect(await apply([resolution(kind, id, CHARGES[kind])])).toEqual([fine]);
    expect(await budgetState(db, budget)).toMatchObject(SPENT(CHARGES[kind]));
    expect(await settlementOf(id)).toMatchObject({
      state: STATES[kind], held_ticks: '100', charged_ticks: String(CHARGES[kind]), tenant_id: tenant, subject: 'dev', input_tokens: '10', output_tokens: '5', budget_ids: [budget],
    });
    expect(await isOpen(id)).toBe(false);
  });

  it.each(cases.filter(([, , , expected]) => expected !== fine))('%s does nothing to a hold that is %s', async (kind, state, before, expected) => {
    const { budget, id } = await heldAnd(before);
    const [settlement, money] = [await settlementOf(id), await budgetState(db, budget)];
    expect(await apply([resolution(kind, id, 777n)])).toEqual([expected]);
    expect([await settlementOf(id), await budgetState(db, budget)]).toEqual([settlement, money]);
    expect(await isOpen(id)).toBe(state === 'sent');
  });

  it.each<[SettlementKind, SettlementKind]>([['settle', 'settle'], ['settle', 'release'], ['release', 'settle'], ['expire', 'settle'], ['settle', 'expire'], ['expire', 'expire']])(
    'counts once where one batch has two of them: %s, then %s', async (first, second) => {
      const budget = await createTenant(db, tenant, 1_000n);
      const id = await held(100n);
      const verdicts = await apply([resolution(first, id, 10n), resolution(second, id, 20n)]);
      expect(verdicts[0]).toBe(fine);
      expect(verdicts[1]).not.toBe(fine);
      expect(await budgetState(db, budget)).toMatchObject(SPENT(10n));
      expect(await settlementOf(id)).toMatchObject({ charged_ticks: '10' });
    });

  it('counts once where one batch corrects the same hold twice', async () => {
    const budget = await createTenant(db, tenant, 1_000n);
    const id = await held(100n);
    await apply([resolution('expire', id, 100n)]);
    expect(await apply([resolution('correct', id, 10n), resolution('correct', id, 20n)])).toEqual([fine, alreadyResolved]);
    expect(await budgetState(db, budget)).toMatchObject(SPENT(10n));
  });

  it.each(kinds)('%s of a hold that nobody knows is told so, and does nothing', async (kind) => {
    const budget = await createTenant(db, tenant, 100n);
    const id = await held(10n);
    expect(await apply([resolution(kind, randomUUID(), 5n), resolution('settle', id, 3n)])).toEqual([unknownHold, fine]);
    expect(await budgetState(db, budget)).toMatchObject(SPENT(3n));
  });

  it('succeeds above the hold and above the limit: the money is gone, whatever the budget says', async () => {
    const budget = await createTenant(db, tenant, 100n);
    expect(await apply([resolution('settle', await held(90n), 250n)])).toEqual([fine]);
    expect(await budgetState(db, budget)).toEqual({ limit: 100n, spent: 250n, held: 0n });
    expect(await apply([hold({ tenant, amount: 1n })])).toEqual([noRoom]);
  });

  it('gives back to and charges every budget that the hold was granted by, though they changed their limits since', async () => {
    const whole = await createTenant(db, tenant, 100n);
    const user = await createBudget(db, tenant, 100n, { scope: 'user:dev' });
    const id = await held(50n, ['tenant', 'user:dev']);
    await db.query('UPDATE budgets SET limit_ticks = 0 WHERE id = $1', [user]);
    const later = await createBudget(db, tenant, 100n, { scope: 'model:grok-beta' });
    await apply([resolution('settle', id, 20n)]);
    expect(await statesOf([whole, user, later])).toMatchObject([SPENT(20n), SPENT(20n), SPENT(0n)]);
  });

  it('corrects a charge whose budgets have all been deleted since', async () => {
    const budget = await createTenant(db, tenant, 1_000n);
    const id = await held(100n);
    await apply([resolution('expire', id, 100n)]);
    await db.query('UPDATE settlements SET budget_ids = array_remove(budget_ids, $1)', [budget]);
    await db.query('DELETE FROM budgets WHERE id = $1', [budget]);
    expect(await apply([resolution('correct', id, 40n)])).toEqual([fine]);
    expect(await settlementOf(id)).toMatchObject({ state: 'settled', charged_ticks: '40', budget_ids: [] });
  });

  it('books a correction in the team, and the minute, of the charge', async () => {
    await createTenant(db, tenant, 1_000n);
    const id = await held(100n);
    await db.query("UPDATE holds SET context = context || '{\"team\": \"bi\"}' WHERE id = $1", [id]);
    await apply([resolution('expire', id, 100n)]);
    await db.query("UPDATE usage_minutes SET start = start - interval '2 hours' WHERE tenant_id = $1", [tenant]);
    await db.query("UPDATE settlements SET finished_at = finished_at - interval '2 hours' WHERE hold_id = $1", [id]);
    await apply([resolution('correct', id, 40n)]);
    const { rows } = await db.query<{ team: string; cost_ticks: string; calls: string }>('SELECT team, cost_ticks, calls FROM usage_minutes WHERE tenant_id = $1', [tenant]);
    expect(rows).toEqual([{ team: 'bi', cost_ticks: '40', calls: '1' }]);
  });

  it('releases a correction’s difference in both directions', async () => {
    const budget = await createTenant(db, tenant, 1_000n);
    const [dear, cheap] = [await held(100n), await held(100n)];
    await apply([resolution('expire', dear, 100n), resolution('expire', cheap, 100n)]);
    await apply([resolution('correct', dear, 170n), resolution('correct', cheap, 1n)]);
    expect(await budgetState(db, budget)).toMatchObject(SPENT(171n));
  });
});

describe('the window of a budget', () => {
  /** Moves a budget’s window so that it ended a moment ago. */
  async function end(budget: string): Promise<{ start: Date; end: Date }> {
    const { rows } = await db.query<{ period_start: Date; period_end: Date }>(
      "UPDATE budgets SET period_start = now() - interval '1 day', period_end = now() WHERE id = $1 RETURNING period_start, period_end", [budget]);
    return { start: rows[0]!.period_start, end: rows[0]!.period_end };
  }

  it('rolls at its edge: what was spent is put by, what is held stays held, and the new limit counts', async () => {
    const budget = await createTenant(db, tenant, 1_000n);
    const day = await createBudget(db, tenant, 100n, { window: 'day' });
    await apply([resolution('settle', await held(60n), 60n)]);
    const open = await held(40n);
    expect(await apply([hold({ tenant, amount: 1n })])).toEqual([noRoom]);
    const period = await end(day);
    expect(await apply([hold({ tenant, amount: 61n }), hold({ tenant, amount: 60n })])).toEqual([noRoom, fine]);
    expect(await budgetState(db, day)).toEqual({ limit: 100n, spent: 0n, held: 100n });
    expect(await budgetState(db, budget)).toEqual({ limit: 1_000n, spent: 60n, held: 100n });
    const { rows } = await db.query('SELECT * FROM budget_periods WHERE budget_id = $1', [day]);
    expect(rows).toEqual([{ budget_id: day, period_start: period.start, period_end: period.end, spent_ticks: '60' }]);
    // Settled in the new period, for which it has room already.
    expect(await apply([resolution('settle', open, 40n)])).toEqual([fine]);
    expect(await budgetState(db, day)).toEqual({ limit: 100n, spent: 40n, held: 60n });
  });

  it('rolls once, also when two connections meet at its edge', async () => {
    await createTenant(db, tenant, 1_000n);
    const day = await createBudget(db, tenant, 100n, { window: 'day' });
    await apply([resolution('settle', await held(60n), 60n)]);
    await end(day);
    const other = await connect();
    try {
      const verdicts = await Promise.all([apply([hold({ tenant, amount: 50n })]), apply([hold({ tenant, amount: 50n })], other)]);
      expect(verdicts).toEqual([[fine], [fine]]);
      expect(await budgetState(db, day)).toMatchObject({ spent: 0n, held: 100n });
      const { rows } = await db.query<{ spent_ticks: string }>('SELECT spent_ticks FROM budget_periods WHERE budget_id = $1', [day]);
      expect(rows).toEqual([{ spent_ticks: '60' }]);
    } finally {
      await other.end();
    }
  });

  it('rolls too when the first thing after its edge is a settlement', async () => {
    await createTenant(db, tenant, 1_000n);
    const day = await createBudget(db, tenant, 100n, { window: 'day' });
    const open = await held(30n);
    await apply([resolution('settle', await held(70n), 70n)]);
    await end(day);
    await apply([resolution('settle', open, 25n)]);
    expect(await budgetState(db, day)).toMatchObject({ spent: 25n, held: 0n });
  });

  it.each([
    ['day', '2026-02-28T23:59:59.999Z', '2026-02-28T00:00:00.000Z', '2026-03-01T00:00:00.000Z'],
    ['day', '2026-03-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z', '2026-03-02T00:00:00.000Z'],
    ['month', '2028-02-29T12:00:00.000Z', '2028-02-01T00:00:00.000Z', '2028-03-01T00:00:00.000Z'],
    ['month', '2026-12-31T23:59:59.999Z', '2026-12-01T00:00:00.000Z', '2027-01-01T00:00:00.000Z'],
  ])('of a %s that contains %s reaches from %s to %s in UTC, whatever zone the session is in', async (window, at, start, finish) => {
    for (const zone of ['UTC', 'America/Los_Angeles', 'Pacific/Kiritimati']) {
      await db.query(`SET timezone = '${zone}'`);
      const { rows } = await db.query<{ start: Date; finish: Date }>('SELECT budget_period_start($1, $2::timestamptz) AS start, budget_period_end($1, $2::timestamptz) AS finish', [window, at]);
      expect([rows[0]!.start.toISOString(), rows[0]!.finish.toISOString()]).toEqual([start, finish]);
    }
    await db.query('RESET timezone');
  });

  it('of a total never ends', async () => {
    const { rows } = await db.query<{ finish: Date | null }>("SELECT budget_period_end('total', now()) AS finish");
    expect(rows).toEqual([{ finish: null }]);
  });
});

describe('a batch', () => {
  it('leaves a record of each operation that took place, in their order, and none of those refused', async () => {
    await createTenant(db, tenant, 100n);
    const ids = [randomUUID(), randomUUID(), randomUUID()];
    const holds = [60n, 60n, 40n].map((amount) => hold({ tenant, amount }));
    const { heads, bodies } = packLeaves(ids.map((id, index) => `{"id":"${id}"}\n{"n":${index}, "text" :"é\\u00e9 1.0e2"}`));
    const batch = randomUUID();
    const { rows } = await db.query<{ verdicts: string }>('SELECT journal_seal($1, audit_append(ledger_apply(journal_open(3), $2), $3, $4)) AS verdicts', [batch, placed(holds), heads, bodies]);
    expect(rows[0]!.verdicts).toBe('010');
    const found = await db.query<{ id: string; text: string }>("SELECT id, convert_from(body, 'UTF8') AS text FROM audit_pending WHERE id = ANY ($1) ORDER BY arrival", [ids]);
    expect(found.rows).toEqual([0, 2].map((index) => ({ id: ids[index], text: `{"n":${index}, "text" :"é\\u00e9 1.0e2"}` })));
    expect((await db.query('SELECT verdicts FROM journal_batches WHERE id = $1', [batch])).rows).toEqual([{ verdicts: '010' }]);
  });

  it('is all or nothing: one leaf that is too large undoes the holds beside it', async () => {
    const budget = await createTenant(db, tenant, 100n);
    const commit = (bytes: number): Promise<unknown> => {
      const { heads, bodies } = packLeaves([`{"id":"${randomUUID()}"}\n${'x'.repeat(bytes)}`]);
      return db.query('SELECT journal_seal($1, audit_append(ledger_apply(journal_open(1), $2), $3, $4))', [randomUUID(), placed([hold({ tenant, amount: 10n })]), heads, bodies]);
    };
    await commit(65_535);
    await expect(commit(65_536)).rejects.toMatchObject({ code: '23514' });
    expect((await budgetState(db, budget)).held).toBe(10n);
  });

  it('commits once under one id: whoever comes second with it is refused whole', async () => {
    const budget = await createTenant(db, tenant, 100n);
    const batch = randomUUID();
    const commit = (): Promise<unknown> => db.query('SELECT journal_seal($1, ledger_apply(journal_open(1), $2))', [batch, placed([hold({ tenant, amount: 10n })])]);
    await commit();
    await expect(commit()).rejects.toMatchObject({ code: '23505' });
    expect((await budgetState(db, budget)).held).toBe(10n);
  });

  it('takes an empty one', async () => {
    expect(await apply([])).toEqual([]);
  });

  it('never waits for another in a circle: two connections with 200 batches each over budgets in every order', async () => {
    const names = Array.from({ length: 6 }, (_, index) => `${tenant}x${index}`);
    const budgets: string[] = [];
    const models: string[] = [];
    for (const name of names) {
      budgets.push(await createTenant(db, name, 1_000_000n));
      models.push(await createBudget(db, name, 1_000_000n, { scope: 'model:grok-beta' }));
    }
    const run = async (client: Client, seed: number): Promise<void> => {
      let state = seed;
      const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
      let open: { id: string; amount: bigint }[] = [];
      for (let batch = 0; batch < 200; batch++) {
        const granted = Array.from({ length: 4 }, () => ({ id: randomUUID(), amount: BigInt(random(50)) }));
        const entries = granted.map(({ id, amount }) => hold({ id, tenant: names[random(names.length)]!, amount, scopes: random(2) === 0 ? ['tenant'] : ['tenant', 'model:grok-beta'] }));
        entries.push(...open.map(({ id, amount }) => resolution('settle', id, amount)));
        expect(await apply(entries, client)).toEqual(entries.map(() => fine));
        open = granted;
      }
      expect(await apply(open.map(({ id }) => resolution('release', id, 0n)), client)).toEqual(open.map(() => fine));
    };
    const clients = await Promise.all([connect(), connect()]);
    try {
      await Promise.all(clients.map((client, index) => run(client, 7 + index)));
    } finally {
      await Promise.all(clients.map((client) => client.end()));
    }
    const states = await statesOf([...budgets, ...models]);
    expect(states.map((state) => state.held)).toEqual(states.map(() => 0n));
    const { rows } = await db.query<{ sum: string }>('SELECT sum(charged_ticks) FROM settlements WHERE tenant_id = ANY ($1)', [names]);
    expect(states.slice(0, names.length).reduce((sum, state) => sum + state.spent, 0n)).toBe(BigInt(rows[0]!.sum));
  });
});

// The ledger against a model of it in a few lines. Amounts are small against the limits, so that refusals and grants alternate.
describe('any sequence of operations, cut into any batches', () => {
  const SCOPES = ['tenant', 'model:a', 'user:b'] as const;

  type Step =
    | { kind: 'hold'; amount: number; scopes: number }
    | { kind: SettlementKind; of: number; charge: number };
  interface ModelHold {
    budgets: number[];
    amount: bigint;
    state: 'sent' | 'settled' | 'released' | 'expired_charged';
    charged: bigint;
  }

  class Model {
    readonly holds = new Map<string, ModelHold>();
    readonly budgets: BudgetState[];
    constructor(limits: readonly number[]) {
      this.budgets = limits.map((limit) => ({ limit: BigInt(limit), spent: 0n, held: 0n }));
    }

    /** A batch sees the holds that were there before it, and its own holds make no room for each other. */
    batch(operations: readonly { id: string; step: Step }[]): number[] {
      const before = new Map([...this.holds].map(([id, one]) => [id, { ...one }]));
      const room = this.budgets.map(({ limit, spent, held: inUse }) => limit - spent - inUse);
      const done = new Set<string>();
      return operations.map(({ id, step }) => {
        if (step.kind === 'hold') {
          const amount = BigInt(step.amount);
          const budgets = SCOPES.flatMap((_, index) => ((step.scopes & (1 << index)) !== 0 && index < this.budgets.length ? [index] : []));
          if (budgets.length === 0) return noBudget;
          if (budgets.some((index) => room[index]! < amount)) return noRoom;
          for (const index of budgets) {
            room[index]! -= amount;
            this.budgets[index]!.held += amount;
          }
          this.holds.set(id, { budgets, amount, state: 'sent', charged: 0n });
          return fine;
        }
        const known = before.get(id);
        if (known === undefined) return unknownHold;
        if (known.state === 'expired_charged' && (step.kind === 'settle' || step.kind === 'release')) return late;
        if (done.has(id) || (known.state === 'sent') === (step.kind === 'correct') || known.state === 'settled' || known.state === 'released') return alreadyResolved;
        const charge = BigInt(step.charge);
        for (const index of known.budgets) {
          this.budgets[index]!.held -= known.state === 'sent' ? known.amount : 0n;
          this.budgets[index]!.spent += charge - known.charged;
        }
        done.add(id);
        this.holds.set(id, { ...known, charged: charge, state: step.kind === 'release' ? 'released' : step.kind === 'expire' ? 'expired_charged' : 'settled' });
        return fine;
      });
    }
  }

  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('hold' as const), amount: fc.nat(40), scopes: fc.integer({ min: 0, max: 7 }) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom<SettlementKind>('settle', 'settle', 'release', 'expire', 'correct'), of: fc.nat(100), charge: fc.nat(60) }) },
  );

  it('gives the verdicts, budgets and charges of the model, and admission never passes a limit', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 20, max: 200 }), { minLength: 1, maxLength: 3 }), fc.array(fc.array(step, { maxLength: 8 }), { maxLength: 8 }), async (limits, batches) => {
        const name = `t${(tenants += 1)}`;
        await db.query("INSERT INTO tenants (id, name, tier) VALUES ($1, $1, 'standard')", [name]);
        const budgets: string[] = [];
        for (const [index, limit] of limits.entries()) budgets.push(await createBudget(db, name, BigInt(limit), { scope: SCOPES[index]! }));
        const model = new Model(limits);
        const ids: string[] = [];
        for (const steps of batches) {
          const operations = steps.map((one) => {
            if (one.kind === 'hold') {
              ids.push(randomUUID());
              return { id: ids.at(-1)!, step: one };
            }
            return { id: ids.length === 0 ? randomUUID() : ids[one.of % ids.length]!, step: one.kind === 'release' ? { ...one, charge: 0 } : one };
          });
          const entries = operations.map(({ id, step: one }) =>
            one.kind === 'hold' ? hold({ id, tenant: name, amount: BigInt(one.amount), scopes: SCOPES.filter((_, index) => (one.scopes & (1 << index)) !== 0) }) : resolution(one.kind, id, BigInt(one.charge)));
          const before = await statesOf(budgets);
          expect(await apply(entries)).toEqual(model.batch(operations));
          const states = await statesOf(budgets);
          expect(states).toEqual(model.budgets);
          // Only a settlement above its hold can pass a limit; a batch of holds alone never does.
          const passed = states.filter(({ limit, spent, held: inUse }, index) => spent + inUse > limit && spent + inUse > before[index]!.spent + before[index]!.held);
          if (steps.every(({ kind }) => kind === 'hold')) assert.deepEqual(passed, []);
        }
        const { rows } = await db.query<{ id: string; state: string; charged: string }>(
          "SELECT id, state, '0' AS charged FROM holds WHERE tenant_id = $1 UNION ALL SELECT hold_id, state, charged_ticks::text FROM settlements WHERE tenant_id = $1", [name]);
        expect(new Map(rows.map(({ id, state, charged }) => [id, [state, charged]]))).toEqual(new Map([...model.holds].map(([id, one]) => [id, [one.state, String(one.charged)]])));
      }),
      { numRuns: 40 },
    );
  });
});
