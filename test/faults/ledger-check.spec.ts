import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { booksClosed } from '../support/access.ts';
import { complete, expectBooksClosed, runningCalls, USD } from '../support/calls.ts';
import { novix, startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';
import { createBudget, createTenant, hold, resolution } from '../support/ledger.ts';

// `novix ledger check` after calls of all kinds and two deaths by kill -9: it proves that the books are right, and it finds whatever is not.

interface Proof {
  ok: boolean;
  checks: string[];
  faults: { check: string; id: string; expected: string; found: string }[];
}

const STREAMS = 20;
/** Open, so that a hold can be tampered with. */
const OPEN_HOLD = '00000000-0000-4000-8000-00000000aaaa';
const HELD = 1_000n;

let rig: Rig;
let gateway: GatewayProcess;
let narrow: string;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 100n * USD);
  await rig.addTenant('globex', 100n * USD);
  narrow = await createBudget(rig.db, 'acme', 50n * USD, { scope: 'team:bi', window: 'day' });
  await mixedLoad();
}, 150_000);
afterAll(() => rig.close());

async function check(): Promise<{ code: number | null; proof: Proof }> {
  const { code, stdout, stderr } = await novix(['ledger', 'check', '--json'], { cwd: rig.dir, env: { DATABASE_URL: rig.databaseUrl, NOVIX_DATA_DIR: rig.dir } });
  expect(stderr).toBe('');
  return { code, proof: JSON.parse(stdout) as Proof };
}

async function mixedLoad(): Promise<void> {
  const [acme, bi, globex] = await Promise.all([rig.token(), rig.token({ attributes: { team: 'bi' } }), rig.token({ tenant: 'globex' })]);
  const tokens = [acme, bi, globex];
  const first = await rig.start({ XAI_RETRY_MAX: '1', XAI_RETRY_BACKOFF_MS: '20', XAI_BREAKER_FAILURES: '100000' });
  const scripts = [{}, { status: 400 }, { cut_after: 2, output_tokens: 9 }, { no_usage: true }, { cost_usd_ticks: 4_321 }, { reasoning_tokens: 5_000 }];
  await Promise.all(Array.from({ length: 60 }, async (_, call) => {
    const response = await complete(first.url, { token: tokens[call % 3]!, stream: call % 2 === 0, script: scripts[call % scripts.length]! });
    await response.text().catch(() => 'cut');
  }));
  rig.emulator.setFaults([{ calls: 2, reset_before_headers: true }]);
  await (await complete(first.url, { token: bi })).text();
  rig.emulator.setFaults([]);
  // A period of the team's budget ends, with money spent in it.
  await rig.db.query("UPDATE budgets SET period_start = period_start - interval '1 day', period_end = now() WHERE id = $1", [narrow]);

  const script = { output_tokens: 400, token_interval_ms: 50, reasoning_tokens: 0 };
  const streams = Array.from({ length: STREAMS }, (_, call) => complete(first.url, { token: tokens[call % 3]!, script, stream: true }).then((response) => response.text()).catch(() => 'broken'));
  await eventually(() => runningCalls(rig.emulator).length === STREAMS, 10_000);
  first.kill('SIGKILL');
  await Promise.all([first.exited, ...streams]);

  gateway = await rig.start();
  const second = await rig.start();
  const more = Array.from({ length: STREAMS }, (_, call) => complete(second.url, { token: tokens[call % 3]!, script, stream: true }).then((response) => response.text()).catch(() => 'broken'));
  await eventually(() => runningCalls(rig.emulator).length === STREAMS, 10_000);
  second.kill('SIGKILL');
  await Promise.all([second.exited, ...more]);
  // It proves itself in the middle of things too: with calls that nobody has closed yet.
  expect((await check()).proof).toMatchObject({ ok: true, faults: [] });
  await eventually(async () => (await rig.db.query('SELECT FROM holds')).rowCount === 0, 110_000);
}

async function ledger(entry: string): Promise<void> {
  const { rows } = await rig.db.query<{ verdicts: number[] }>("SELECT ledger_apply('{0}', $1::json) AS verdicts", [`[{"i":0,${entry.slice(1)}]`]);
  if (rows[0]!.verdicts[0] !== 0) throw new Error(`the ledger says ${rows[0]!.verdicts[0]}`);
}

it('adds up, call by call and death by death: status 0 and every check by name', async () => {
  const { code, proof } = await check();
  expect([code, proof.ok, proof.faults]).toEqual([0, true, []]);
  expect(proof.checks.map((name) => name.split(':')[0])).toEqual(['held', 'spent', 'settled', 'once', 'usage']);
  await expectBooksClosed(rig.db, 'acme');
  await expectBooksClosed(rig.db, 'globex');
  const { rows } = await rig.db.query<{ state: string; count: number }>("SELECT state, count(*)::int AS count FROM settlements WHERE state = 'expired_charged' GROUP BY state");
  expect(rows).toEqual([{ state: 'expired_charged', count: 2 * STREAMS }]);
  expect((await rig.db.query('SELECT FROM budget_periods WHERE budget_id = $1 AND spent_ticks > 0', [narrow])).rowCount).toBe(1);
  const text = await novix(['ledger', 'check'], { cwd: rig.dir, env: { DATABASE_URL: rig.databaseUrl, NOVIX_DATA_DIR: rig.dir } });
  expect([text.code, text.stdout.split('\n')[0]]).toEqual([0, 'The ledger adds up.']);
});

it('adds up at any moment of a load', async () => {
  const token = await rig.token({ tenant: 'globex' });
  const answers = Array.from({ length: 40 }, (_, call) => complete(gateway.url, { token, stream: call % 2 === 0, script: { output_tokens: 20, token_interval_ms: 20 } }).then((response) => response.text()));
  await eventually(() => runningCalls(rig.emulator).length > 0);
  for (let time = 0; time < 3; time += 1) expect((await check()).proof.faults).toEqual([]);
  await Promise.all(answers);
  await booksClosed(rig.db);
  expect((await check()).proof.faults).toEqual([]);
});

describe('what was tampered with is found, and named:', () => {
  let acme: string;
  let settlement: string;
  let charged: bigint;
  beforeAll(async () => {
    acme = (await rig.db.query<{ id: string }>("SELECT id FROM budgets WHERE tenant_id = 'acme' AND scope = 'tenant'")).rows[0]!.id;
    const { rows: [row] } = await rig.db.query<{ hold_id: string; charged: string }>("SELECT hold_id, charged_ticks AS charged FROM settlements WHERE tenant_id = 'acme' AND state = 'settled' AND charged_ticks > 100 AND budget_ids = ARRAY[$1::uuid] LIMIT 1", [acme]);
    [settlement, charged] = [row!.hold_id, BigInt(row!.charged)];
  });

  /** Runs the check between a change and its undoing, and gives the faults by check, with what they name. */
  async function foundOf(change: string, undo: string): Promise<{ code: number | null; text: string[]; faults: Proof['faults'] }> {
    await rig.db.query(change);
    try {
      const { code, proof } = await check();
      expect(proof.ok).toBe(false);
      return { code, faults: proof.faults, text: proof.faults.map((fault) => `${fault.check.split(':')[0]} ${fault.id}`) };
    } finally {
      await rig.db.query(undo);
      expect((await check()).proof.faults).toEqual([]);
    }
  }
  /** The table without the triggers that follow a change of it. */
  const quietly = (table: string, statement: string): string => `ALTER TABLE ${table} DISABLE TRIGGER USER; ${statement}; ALTER TABLE ${table} ENABLE TRIGGER USER`;

  it.each([['held', 'held_ticks', 1], ['held', 'held_ticks', 123_456], ['held', 'held_ticks', -1], ['spent', 'spent_ticks', 1], ['spent', 'spent_ticks', -1]])('a budget’s %s (%s) by %i ticks', async (name, column, by) => {
    const { code, text, faults: [fault] } = await foundOf(`UPDATE budgets SET ${column} = ${column} + ${by} WHERE id = '${acme}'`, `UPDATE budgets SET ${column} = ${column} - ${by} WHERE id = '${acme}'`);
    expect([code, text]).toEqual([1, [`${name} ${acme}`]]);
    expect(BigInt(fault!.found) - BigInt(fault!.expected)).toBe(BigInt(by));
  });

  it('two budgets that were exchanged', async () => {
    const globex = (await rig.db.query<{ id: string }>("SELECT id FROM budgets WHERE tenant_id = 'globex'")).rows[0]!.id;
    const move = (by: number): string => `UPDATE budgets SET spent_ticks = spent_ticks + CASE id WHEN '${acme}' THEN ${by} ELSE ${-by} END WHERE id IN ('${acme}', '${globex}')`;
    const { text } = await foundOf(move(500), move(-500));
    expect(text.toSorted()).toEqual([`spent ${acme}`, `spent ${globex}`].toSorted()); // though the sum of all is right
  });

  it('what a closed period has spent', async () => {
    const { text } = await foundOf(`UPDATE budget_periods SET spent_ticks = spent_ticks + 1 WHERE budget_id = '${narrow}'`, `UPDATE budget_periods SET spent_ticks = spent_ticks - 1 WHERE budget_id = '${narrow}'`);
    expect(text).toEqual([`spent ${narrow}`]);
  });

  it('a charge, whether or not usage followed it', async () => {
    const to = (ticks: bigint): string => `UPDATE settlements SET charged_ticks = ${ticks} WHERE hold_id = '${settlement}'`;
    expect((await foundOf(to(charged - 1n), to(charged))).text).toEqual([`spent ${acme}`]);
    expect((await foundOf(quietly('settlements', to(charged + 7n)), quietly('settlements', to(charged)))).text).toEqual([`spent ${acme}`, 'usage acme grok-beta xai']);
  });

  it('a charge below zero', async () => {
    const to = (ticks: bigint): string => quietly('settlements', `UPDATE settlements SET charged_ticks = ${ticks} WHERE hold_id = '${settlement}'`);
    const { text, faults } = await foundOf(to(-5n), to(charged));
    expect(text).toEqual([`spent ${acme}`, `settled ${settlement}`, 'usage acme grok-beta xai']);
    expect(faults[1]).toMatchObject({ expected: '>= 0', found: '-5' });
  });

  it('a settlement that is said to be free, and is not', async () => {
    const to = (state: string): string => `UPDATE settlements SET state = '${state}' WHERE hold_id = '${settlement}'`;
    const { text, faults: [fault] } = await foundOf(to('released'), to('settled'));
    expect(text).toEqual([`settled ${settlement}`]);
    expect(fault).toMatchObject({ expected: '0', found: String(charged) });
  });

  it('a settlement that is gone', async () => {
    await rig.db.query(`CREATE TABLE kept AS SELECT * FROM settlements WHERE hold_id = '${settlement}'`);
    const { text, faults } = await foundOf(`DELETE FROM settlements WHERE hold_id = '${settlement}'`, 'INSERT INTO settlements SELECT * FROM kept');
    expect(text).toEqual([`spent ${acme}`, 'usage acme grok-beta xai']);
    for (const { expected, found } of faults) expect(BigInt(found) - BigInt(expected)).toBe(charged);
  });

  it('a settlement that counts toward another budget', async () => {
    const { text } = await foundOf(`UPDATE settlements SET budget_ids = ARRAY['${narrow}'::uuid] WHERE hold_id = '${settlement}'`, `UPDATE settlements SET budget_ids = ARRAY['${acme}'::uuid] WHERE hold_id = '${settlement}'`);
    expect(text.toSorted()).toEqual([`spent ${acme}`, `spent ${narrow}`].toSorted());
  });

  it('a hold that was changed, taken away, or resolved and still there', async () => {
    await createTenant(rig.db, 'holding', USD);
    const budget = (await rig.db.query<{ id: string }>("SELECT id FROM budgets WHERE tenant_id = 'holding'")).rows[0]!.id;
    await ledger(hold({ id: OPEN_HOLD, tenant: 'holding', amount: HELD }));
    expect((await check()).proof.faults).toEqual([]);
    const { faults: [changed] } = await foundOf(`UPDATE holds SET amount_ticks = amount_ticks + 1 WHERE id = '${OPEN_HOLD}'`, `UPDATE holds SET amount_ticks = amount_ticks - 1 WHERE id = '${OPEN_HOLD}'`);
    expect(changed).toMatchObject({ id: budget, expected: String(HELD + 1n), found: String(HELD) });
    await rig.db.query(`CREATE TABLE kept_holds AS SELECT * FROM holds WHERE id = '${OPEN_HOLD}'`);
    const { faults: [gone] } = await foundOf(`DELETE FROM holds WHERE id = '${OPEN_HOLD}'`, 'INSERT INTO holds SELECT * FROM kept_holds');
    expect(gone).toMatchObject({ id: budget, expected: '0', found: String(HELD) });
    await ledger(resolution('settle', OPEN_HOLD, 900n));
    expect((await check()).proof.faults).toEqual([]);
    const { text } = await foundOf('INSERT INTO holds SELECT * FROM kept_holds', quietly('holds', `DELETE FROM holds WHERE id = '${OPEN_HOLD}'`));
    expect(text).toEqual([`held ${budget}`, `once ${OPEN_HOLD}`]);
  });

  it.each<[string, string, string]>([
    ['what usage says it cost', "UPDATE usage_minutes SET cost_ticks = cost_ticks + 1 WHERE ctid = (SELECT ctid FROM usage_minutes WHERE tenant_id = 'acme' LIMIT 1)", 'acme'], ['a minute that is gone', "DELETE FROM usage_minutes WHERE tenant_id = 'globex' AND cost_ticks > 0", 'globex'],
    ['usage of a tenant that has used nothing', "INSERT INTO usage_minutes VALUES ('2026-01-01', 'nobody', '', 'grok-beta', 'xai', 1, 1, 0, 1, 5)", 'nobody'], ['usage that went to another', "UPDATE usage_minutes SET tenant_id = 'elsewhere' WHERE tenant_id = 'globex'", 'elsewhere'],
  ])('%s', async (_, change, tenant) => {
    await rig.db.query('CREATE TABLE kept_usage AS SELECT * FROM usage_minutes');
    const { code, text } = await foundOf(change, 'DELETE FROM usage_minutes; INSERT INTO usage_minutes SELECT * FROM kept_usage; DROP TABLE kept_usage');
    expect(code).toBe(1);
    expect(text.toSorted()).toEqual((tenant === 'elsewhere' ? ['elsewhere', 'globex'] : [tenant]).map((one) => `usage ${one} grok-beta xai`));
  });

  it('in words for people, row by row, with status 1', async () => {
    await rig.db.query(`UPDATE budgets SET spent_ticks = spent_ticks + 1 WHERE id = '${acme}'`);
    const { code, stdout } = await novix(['ledger', 'check'], { cwd: rig.dir, env: { DATABASE_URL: rig.databaseUrl, NOVIX_DATA_DIR: rig.dir } });
    await rig.db.query(`UPDATE budgets SET spent_ticks = spent_ticks - 1 WHERE id = '${acme}'`);
    expect(code).toBe(1);
    expect(stdout).toMatch(new RegExp(`^spent: .*\\n {2}${acme}: expected \\d+, found \\d+\\n$`));
  });
});
