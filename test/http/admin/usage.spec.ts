import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { booksClosed } from '../../support/access.ts';
import { runningCalls } from '../../support/calls.ts';
import { adminOf, madeBy, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { settled, ticksOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';
import type { EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';

// Usage as finance reads it: whatever became of the calls, the rows add up to the settlements, to the tick.

interface Row {
  start: string;
  tenant?: string;
  team?: string | null;
  model?: string;
  deployment?: string;
  calls: number;
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
  cost_usd: string;
}
interface Sums {
  calls: number;
  input: number;
  cached: number;
  output: number;
  ticks: bigint;
}

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;
/** Calls of all kinds that `mixedLoad` makes, those left out that were never sent. */
const SENT = { acme: 10, globex: 3 };

let harness: Harness;
let admin: AdminCall;
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '1', XAI_RETRY_BACKOFF_MS: '20', XAI_FIRST_BYTE_TIMEOUT_MS: '500', XAI_BREAKER_FAILURES: '100000' } });
  admin = adminOf(harness, await harness.adminToken());
  await mixedLoad();
});
afterAll(() => harness.close());

/** Quiet or scripted calls of grok-beta by somebody; gives the answer's request id once it has ended. */
async function made(token: string, script: EmulatorScript = {}, body: Record<string, unknown> = {}): Promise<string> {
  const response = await harness.request('POST', '/v1/chat/completions', { token, body: { model: 'grok-beta', messages: HELLO, ...(Object.keys(script).length > 0 && { x_emulator: script }), ...body } });
  await response.text().catch(() => 'cut');
  return response.headers.get('x-request-id')!;
}

async function mixedLoad(): Promise<void> {
  const developer = await harness.token();
  const [bi, ml] = [await harness.token({ attributes: { team: 'bi' } }), await harness.token({ attributes: { team: 'ml' } })];
  const globex = await harness.token({ tenant: 'globex' });
  await made(developer, { output_tokens: 20 });
  await made(bi, { output_tokens: 30 }, { stream: true });
  await made(ml, { output_tokens: 5 }, { model: 'grok-pro' });
  await made(bi, {}, { prompt_cache_key: 'one', messages: [{ role: 'user', content: 'The same beginning. '.repeat(60) }] });
  await made(bi, {}, { prompt_cache_key: 'one', messages: [{ role: 'user', content: 'The same beginning. '.repeat(60) }] }); // cached
  await made(developer, { status: 400 }); // refused, and free
  await made(developer, { cut_after: 3, output_tokens: 9 }, { stream: true }); // failed in the middle
  await made(ml, { no_usage: true }); // charged by what was seen
  await madeBy(await harness.request('POST', '/v1/images/generations', { token: developer, body: { model: 'grok-imagine-image', prompt: 'A fox.', n: 3 } }));
  await aborted(ml);

  harness.emulator.setFaults([{ calls: 1, reset_before_headers: true }]);
  await made(globex); // its first attempt was lost, and is charged too
  harness.emulator.setFaults([]);
  await made(globex, { stall_before_headers: true }); // timed out: the whole hold
  await made(globex, { cost_usd_ticks: 12_345 });
  await neverSent();
  await booksClosed(harness.db);
}

/** A stream whose caller hangs up in the middle. */
async function aborted(token: string): Promise<void> {
  const gone = new AbortController();
  const response = await harness.request('POST', '/v1/chat/completions', { token, signal: gone.signal, body: { model: 'grok-beta', messages: HELLO, stream: true, x_emulator: { output_tokens: 2_000, token_interval_ms: 20 } } });
  await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 3));
  gone.abort();
  await response.text().catch(() => 'aborted');
  await eventually(() => runningCalls(harness.emulator).length === 0);
}

/** A call that is admitted and comes to nothing before it is sent, straight in the ledger. */
async function neverSent(): Promise<void> {
  await ledger({ k: 'hold', id: NEVER_SENT, rq: NEVER_SENT, t: 'acme', s: 'tenant', a: '1000', rp: NEVER_SENT, x: new Date(Date.now() + 60_000).toISOString(), c: { sub: 'dev', model: 'grok-beta', upstream_model: 'grok-4.3', deployment: 'xai', stream: false, team: 'bi' } });
  await ledger({ k: 'release', id: NEVER_SENT, a: '0', u: { outcome: 'never_sent', basis: 'free' } });
}

const NEVER_SENT = '00000000-0000-4000-8000-00000000dead';

async function ledger(entry: Record<string, unknown>): Promise<void> {
  const { rows } = await harness.db.query<{ verdicts: number[] }>("SELECT ledger_apply('{0}', $1::json) AS verdicts", [JSON.stringify([{ i: 0, ...entry }])]);
  if (rows[0]!.verdicts[0] !== 0) throw new Error(`the ledger says ${rows[0]!.verdicts[0]}`);
}

async function usage(query = '', call = admin): Promise<Row[]> {
  const { data, next_cursor: cursor } = await madeBy<{ data: Row[]; next_cursor: null }>(await call('GET', `/usage${query}`));
  expect(cursor).toBeNull();
  return data;
}

function sumOf(rows: readonly Row[]): Sums {
  return rows.reduce((sum, row) => ({ calls: sum.calls + row.calls, input: sum.input + row.input_tokens, cached: sum.cached + row.cached_tokens, output: sum.output + row.output_tokens, ticks: sum.ticks + ticksOf(row.cost_usd) }),
    { calls: 0, input: 0, cached: 0, output: 0, ticks: 0n });
}

/** What the settlements sum to; `calls` leaves out attempts that were lost. */
async function settledSums(where = 'true'): Promise<Sums> {
  const { rows: [row] } = await harness.db.query<Record<keyof Sums, string>>(
    `SELECT count(*) FILTER (WHERE outcome <> 'lost') AS calls, coalesce(sum(input_tokens), 0) AS input, coalesce(sum(cached_input_tokens), 0) AS cached,
       coalesce(sum(output_tokens), 0) + coalesce(sum(reasoning_tokens), 0) AS output, coalesce(sum(charged_ticks), 0) AS ticks
     FROM settlements WHERE state <> 'released' AND ${where}`);
  return { calls: Number(row!.calls), input: Number(row!.input), cached: Number(row!.cached), output: Number(row!.output), ticks: BigInt(row!.ticks) };
}

describe('GET /admin/v1/usage', () => {
  it.each(['minute', 'hour', 'day'])('by %s adds up to the settlements of all calls, whatever became of them', async (step) => {
    const rows = await usage(`?step=${step}`);
    const sums = await settledSums();
    expect(sumOf(rows)).toEqual(sums);
    expect(sums.calls).toBe(SENT.acme + SENT.globex);
    expect(sums.cached).toBeGreaterThan(0);
    const unit = { minute: 60_000, hour: HOUR_MS, day: DAY_MS }[step]!;
    for (const { start } of rows) expect(Date.parse(start) % unit).toBe(0);
    expect(rows.map(({ start }) => start)).toEqual([...new Set(rows.map(({ start }) => start))].toSorted());
  });

  it('by hour is what is given where nobody says', async () => {
    expect(await usage()).toEqual(await usage('?step=hour'));
  });

  it('has the shape of the contract', async () => {
    const [plain] = await usage('?step=day');
    expect(Object.keys(plain!)).toEqual(['start', 'calls', 'input_tokens', 'cached_tokens', 'output_tokens', 'cost_usd']);
    const [grouped] = await usage('?step=day&group_by=deployment,model,team,tenant');
    expect(Object.keys(grouped!).toSorted()).toEqual(['cached_tokens', 'calls', 'cost_usd', 'deployment', 'input_tokens', 'model', 'output_tokens', 'start', 'team', 'tenant']);
  });

  it.each<[string, keyof Row, string]>([['tenant', 'tenant', 'tenant_id'], ['model', 'model', 'model'], ['deployment', 'deployment', 'deployment']])('by %s gives each its own', async (group, field, column) => {
    const rows = await usage(`?step=day&group_by=${group}`);
    const names = [...new Set(rows.map((row) => row[field] as string))];
    const { rows: known } = await harness.db.query<{ name: string }>(`SELECT DISTINCT ${column} AS name FROM settlements WHERE state <> 'released' ORDER BY 1`);
    expect(names.toSorted()).toEqual(known.map(({ name }) => name));
    for (const name of names) expect(sumOf(rows.filter((row) => row[field] === name))).toEqual(await settledSums(`${column} = '${name}'`));
    expect(sumOf(rows)).toEqual(await settledSums());
  });

  it('by team gives those without one apart', async () => {
    const rows = await usage('?step=day&group_by=team,tenant');
    const of = (team: string | null, tenant = 'acme'): Sums => sumOf(rows.filter((row) => row.team === team && row.tenant === tenant));
    expect([of('bi').calls, of('ml').calls, of(null).calls, of(null, 'globex').calls]).toEqual([3, 3, 4, SENT.globex]);
    expect(sumOf(rows)).toEqual(await settledSums());
    expect(of('bi').cached).toBe((await settledSums()).cached);
  });

  it('counts what a lost attempt cost, and not the attempt as a call', async () => {
    const { rows: [lost] } = await harness.db.query<{ attempts: string; ticks: string }>("SELECT count(*) AS attempts, sum(charged_ticks) AS ticks FROM settlements WHERE outcome = 'lost'");
    expect(lost!.attempts).toBe('1');
    const globex = sumOf((await usage('?step=day&group_by=tenant')).filter(({ tenant }) => tenant === 'globex'));
    expect(globex.calls).toBe(SENT.globex);
    expect(globex.ticks).toBeGreaterThanOrEqual(BigInt(lost!.ticks) + 12_345n);
    expect(globex.ticks).toBe((await settledSums("tenant_id = 'globex'")).ticks);
  });

  it('counts images by what they cost, without tokens', async () => {
    const images = (await usage('?step=day&group_by=model')).filter(({ model }) => model === 'grok-imagine-image');
    expect(sumOf(images)).toEqual({ calls: 1, input: 0, cached: 0, output: 0, ticks: 600_000_000n });
  });

  it('counts a call at the moment it is settled, and reasoning as output', async () => {
    const before = sumOf(await usage('?group_by=tenant'));
    const id = await made(await harness.token({ tenant: 'initech' }), { output_tokens: 7, reasoning_tokens: 11 });
    const { chargedTicks } = await settled(harness, id);
    const after = sumOf(await usage('?group_by=tenant'));
    expect([after.calls - before.calls, after.output - before.output, after.ticks - before.ticks]).toEqual([1, 18, chargedTicks]);
  });

  it('follows a correction, to the tick and the token', async () => {
    const id = '00000000-0000-4000-8000-00000000c0de';
    const sums = async (): Promise<Sums> => sumOf((await usage('?step=day&group_by=tenant')).filter(({ tenant }) => tenant === 'initech'));
    const before = await sums();
    await ledger({ k: 'hold', id, rq: id, t: 'initech', s: 'tenant', a: '5000', rp: id, x: new Date(Date.now() + 60_000).toISOString(), c: { sub: 'dev', model: 'grok-beta', upstream_model: 'grok-4.3', deployment: 'xai', stream: false } });
    await ledger({ k: 'expire', id, a: '5000', u: { outcome: 'unknown', basis: 'hold' } });
    expect(await sums()).toEqual({ ...before, calls: before.calls + 1, ticks: before.ticks + 5_000n });
    await ledger({ k: 'correct', id, a: '1234', u: { outcome: 'completed', basis: 'provider', input_tokens: 10, cached_input_tokens: 4, output_tokens: 5, reasoning_tokens: 6 } });
    expect(await sums()).toEqual({ calls: before.calls + 1, input: before.input + 10, cached: before.cached + 4, output: before.output + 11, ticks: before.ticks + 1_234n });
    expect(await sums()).toEqual(await settledSums("tenant_id = 'initech'"));
  });

  it('gives each minute to one of two ranges that meet', async () => {
    const { rows: [first] } = await harness.db.query<{ start: Date }>('SELECT max(start) AS start FROM usage_minutes');
    const meet = first!.start.toISOString();
    const [from, to] = [new Date(Date.parse(meet) - HOUR_MS).toISOString(), new Date(Date.parse(meet) + HOUR_MS).toISOString()];
    const [left, right, whole] = [await usage(`?from=${from}&to=${meet}&step=minute`), await usage(`?from=${meet}&to=${to}&step=minute`), await usage(`?from=${from}&to=${to}&step=minute`)];
    expect(right.length).toBeGreaterThan(0);
    expect([...left, ...right]).toEqual(whole);
    expect(await usage('?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00%2B02:00')).toEqual([]);
  });
});

describe('a tenant', () => {
  it.each(['billing', 'tenant-admin'])('sees with the role %s its own usage, and nobody else’s', async (role) => {
    const own = adminOf(harness, await harness.token({ tenant: 'globex', roles: [role] }));
    const rows = await usage('?step=day&group_by=tenant,model', own);
    expect([...new Set(rows.map(({ tenant }) => tenant))]).toEqual(['globex']);
    expect(sumOf(rows)).toEqual(await settledSums("tenant_id = 'globex'"));
    expect(sumOf(await usage('?step=day', own))).toEqual(await settledSums("tenant_id = 'globex'"));
  });

  it.each([['developer'], ['auditor']])('sees nothing with the role %s', async (role) => {
    const response = await adminOf(harness, await harness.token({ roles: [role] }))('GET', '/usage');
    expect(response.status).toBe(403);
  });

  it('whose token is another’s admin sees nothing of the platform', async () => {
    const token = await harness.token({ tenant: 'globex', roles: ['platform-admin'] }); // which counts in the tenant platform alone
    expect((await adminOf(harness, token)('GET', '/usage')).status).toBe(403);
  });
});

describe('400', () => {
  const ago = (ms: number): string => new Date(Date.now() - ms).toISOString();
  it.each<[string, string, string]>([ // what is wrong, the query, and the parameter that the answer names
    ['an unknown step', '?step=week', 'step'], ['a step with SQL', "?step=day'--", 'step'], ['a step that every object has', '?step=constructor', 'step'], ['two steps', '?step=day&step=hour', 'step'],
    ['an unknown group', '?group_by=user', 'group_by'], ['a group twice', '?group_by=tenant,tenant', 'group_by'], ['an empty group', '?group_by=tenant,', 'group_by'], ['a group that every object has', '?group_by=__proto__', 'group_by'], ['group_by twice', '?group_by=tenant&group_by=team', 'group_by'],
    ['a time that is none', '?from=yesterday', 'from'], ['a date alone', '?from=2026-11-24', 'from'], ['a time without a zone', '?to=2026-11-24T00:00:00', 'to'], ['a day that does not exist', '?to=2026-13-45T00:00:00Z', 'to'], ['an epoch', '?from=1764000000', 'from'], ['from twice', `?from=${ago(1)}&from=${ago(2)}`, 'from'],
    ['an empty time', '?from=', 'from'], ['an end before the beginning', `?from=${ago(0)}&to=${ago(HOUR_MS)}`, 'from'], ['no time at all', '?from=2026-11-24T00:00:00Z&to=2026-11-24T00:00:00Z', 'from'],
    ['more minutes than a day has', `?step=minute&from=${ago(DAY_MS + 2 * HOUR_MS)}&to=${ago(0)}`, 'from'], ['more hours than a month has', `?step=hour&from=${ago(32 * DAY_MS)}&to=${ago(0)}`, 'from'], ['more days than a year has', `?step=day&from=${ago(368 * DAY_MS)}&to=${ago(0)}`, 'from'],
    ['a parameter that is not known', '?tenant=globex', 'tenant'], ['a cursor', '?cursor=abc', 'cursor'],
  ])('%s', async (_, query, param) => {
    expect((await expectError(await admin('GET', `/usage${query}`), 400, 'invalid_request')).param).toBe(param);
  });

  it.each([['minute', DAY_MS], ['hour', 31 * DAY_MS], ['day', 366 * DAY_MS]])('is not said of the longest range by %s', async (step, rangeMs) => {
    const to = Date.now() + 1_000;
    expect(sumOf(await usage(`?step=${step}&from=${new Date(to - rangeMs).toISOString()}&to=${new Date(to).toISOString()}`)).calls).toBeGreaterThanOrEqual(SENT.acme);
  });
});
