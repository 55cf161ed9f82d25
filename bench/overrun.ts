import { fork, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Pool } from 'pg';
import { Agent } from 'undici';
import { parse } from 'yaml';
import { startEmbeddedPostgres } from '../src/sandbox/embedded-postgres.ts';
import { LocalIssuer } from '../src/sandbox/local-issuer.ts';
import { BUILT_IN_CONFIG } from '../src/shared/config-files.ts';
import { runMigrations } from '../src/shared/migrations.ts';
import { formatUsd, parseUsd, TICKS_PER_USD } from '../src/shared/usd-ticks.ts';
import { uuid } from '../src/shared/uuid.ts';

// `npm run bench:overrun -- [--seconds 60] [--seed 1] [--calls 5000] [--callers 64] [--budget-usd N] [--only race|chaos]`: whether a budget can be overrun by three
// gateway processes on one PostgreSQL, judged by the bill of the emulated provider, which knows nothing of the gateway's books.
//
// race    many calls at once on a budget of a dollar, each held for and billed at exactly one cent: a hundred may be served.
// chaos   callers without pause, one in five of whom hangs up at a random moment, half of the calls streams; every 2 s one of the three processes is killed (-9) and
//         started again. The budget is such that it is spent near the end: worked out from what some seconds of the same cost on a budget of their own.
//
// Afterwards every call's charge is compared with its bill. They may differ only where nobody could know the bill: charges for calls of dead processes
// (expired_charged), for aborted ones (observed, hold); those together must cover theirs. Exits 1 where an invariant is broken.

const GATEWAYS = 3;
const PROVIDER_KEY = 'xai-bench-key';
const MODEL = 'grok-4.20-0309-non-reasoning'; // does not reason, so that a hold is a bound
const CENT_TICKS = TICKS_PER_USD / 100n;
const RACE_LIMIT_TICKS = TICKS_PER_USD;
const RACE_OUTPUT_TOKENS = 10;
/** A price at which ten tokens out, and a thousand in at a tick each, are a cent to the tick. There is no free input. */
const CENT_PRICE = { usd_per_million: { input: '0.0001', cached_input: '0.0001', output: '999.99' }, source: 'bench', as_of: '2026-11' };
const AMPLE_TICKS = 1_000_000_000_000_000_000n;
const KILL_EVERY_MS = 2_000;
const HANG_UP_SHARE = 0.2;
const CALIBRATION_MS = 10_000;
/** Of what the calibration says would be spent in the time. */
const BUDGET_PERCENT = 80n;
const SETTLED_WITHIN_MS = 90_000;
/** More calls than this the emulator does not keep, so that they could not be compared one by one. */
const EMULATED_CALLS_KEPT = 20_000;
/** Of an answer: enough for `[DONE]`, and for all of a refusal. */
const TAIL_BYTES = 1_024;
const NO_BUDGET_LEFT = '402 budget_exceeded';

type Say = (text: string) => void;
type Random = () => number;

/** A gateway process that is started again when it is killed. */
class Gateway {
  #child: ChildProcess | undefined;
  #url: string | undefined;
  #ready: Promise<void> = Promise.resolve();

  constructor(private readonly env: Readonly<Record<string, string>>) {
    this.start();
  }

  /** Undefined while it does not serve. */
  get url(): string | undefined {
    return this.#url;
  }

  get ready(): Promise<void> {
    return this.#ready;
  }

  start(): void {
    const child = fork(new URL('./gateway-process.js', import.meta.url), [], { env: { PATH: process.env['PATH'], ...this.env }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child = child;
    this.#ready = new Promise((resolve, reject) => {
      child.once('message', (message) => {
        this.#url = (message as { url: string }).url;
        resolve();
      });
      child.once('exit', (code, signal) => reject(new Error(`a gateway ended with ${signal ?? code} before it served`)));
    });
    this.#ready.catch(() => undefined); // killed before it served
  }

  /** As a machine fails: without a word to anyone. */
  killAndStart(): void {
    this.#url = undefined;
    this.#child!.kill('SIGKILL');
    this.start();
  }

  async stop(): Promise<void> {
    const child = this.#child!;
    this.#url = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }
}

interface Rig {
  db: Pool;
  emulatorUrl: string;
  startGateways(configDir?: string): Promise<Gateway[]>;
  addTenant(id: string, limitTicks: bigint): Promise<string>;
  dataDir: string;
  close(): Promise<void>;
}

async function startRig(): Promise<Rig> {
  const dataDir = await mkdtemp(join(tmpdir(), 'novix-bench-overrun-'));
  const postgres = await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), durable: true });
  await runMigrations(postgres.url);
  const db = new Pool({ connectionString: postgres.url, max: 2 });
  db.on('error', () => {}); // its connections may still be closing when PostgreSQL stops
  const issuer = await LocalIssuer.open(join(dataDir, 'issuer.pem'));
  const identity = await issuer.serve();
  const emulator = fork(new URL('./emulator-process.js', import.meta.url), [PROVIDER_KEY, '0', '0'], { env: { PATH: process.env['PATH'] }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const { url } = await new Promise<{ url: string }>((resolve, reject) => {
    emulator.once('message', (message) => resolve(message as { url: string }));
    emulator.once('exit', (code) => reject(new Error(`the emulator ended with ${code}`)));
  });
  const env = {
    PORT: '0', HOST: '127.0.0.1', DATABASE_URL: postgres.url, XAI_API_KEY: PROVIDER_KEY, XAI_API_ENDPOINT: url, NOVIX_DATA_DIR: dataDir, AUTH_ISSUER: identity.settings.issuer,
    AUTH_AUDIENCE: identity.settings.audience, AUTH_JWKS_URI: identity.url, AUTH_ALGORITHMS: 'ES256', DRAIN_DELAY_MS: '0', LOG_LEVEL: 'error', NODE_ENV: 'production',
  };
  const started: Gateway[] = [];
  return {
    db, dataDir, emulatorUrl: new URL(url).origin,
    startGateways: async (configDir) => {
      const gateways = Array.from({ length: GATEWAYS }, () => new Gateway({ ...env, ...(configDir === undefined ? {} : { NOVIX_CONFIG_DIR: configDir }) }));
      started.push(...gateways);
      await Promise.all(gateways.map(({ ready }) => ready));
      return gateways;
    },
    addTenant: async (id, limitTicks) => {
      await db.query("INSERT INTO tenants (id, name, tier) VALUES ($1, $1, 'enterprise')", [id]);
      await db.query("INSERT INTO budgets (id, tenant_id, scope, time_window, limit_ticks, period_start) VALUES ($1, $2, 'tenant', 'total', $3, now())", [uuid(), id, String(limitTicks)]);
      return issuer.mint({ tenant: id, subject: `load@${id}.example`, roles: ['developer'], ttlSeconds: 7_200 });
    },
    close: async () => {
      await Promise.all(started.map((gateway) => gateway.stop()));
      emulator.kill('SIGTERM');
      await agent.destroy();
      await identity.close();
      await db.end();
      await postgres.stop();
      await rm(dataDir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

const agent = new Agent({ connections: null, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 });

/** How a call ended for its caller: its status, with the code of a refusal, `hung up`, or `broken` where the connection or the answer was. */
function call(url: string, token: string, body: Readonly<Record<string, unknown>>, hangUpAfterMs?: number): Promise<string> {
  return new Promise((resolve) => {
    let status = 0;
    let tail = '';
    let gone = false;
    let timer: NodeJS.Timeout | undefined;
    const end = (how: string): void => {
      clearTimeout(timer);
      resolve(gone ? 'hung up' : how);
    };
    agent.dispatch(
      { origin: url, path: '/v1/chat/completions', method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` } },
      {
        onRequestStart(controller) {
          if (hangUpAfterMs === undefined) return;
          timer = setTimeout(() => {
            gone = true;
            controller.abort(new Error('hung up'));
          }, hangUpAfterMs);
        },
        onResponseStart(_controller, statusCode) {
          status = statusCode;
        },
        onResponseData(_controller, chunk) {
          tail = chunk.subarray(-TAIL_BYTES).toString();
        },
        onResponseEnd: () => {
          if (status !== 200) end(`${status} ${/"code":"(\w+)"/.exec(tail)?.[1] ?? ''}`.trimEnd());
          else end(body['stream'] === true && !tail.includes('[DONE]') ? 'broken' : '200');
        },
        onResponseError: () => end('broken'),
      },
    );
  });
}

/** Numbers that a seed repeats (mulberry32). */
function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface EmulatedBill {
  calls: number;
  running: number;
  billedTicks: bigint;
}

async function readBill({ emulatorUrl }: Rig): Promise<EmulatedBill> {
  const bill = (await (await fetch(`${emulatorUrl}/__emulator/bill`)).json()) as { calls: number; running: number; billed_usd_ticks: string };
  return { calls: bill.calls, running: bill.running, billedTicks: BigInt(bill.billed_usd_ticks) };
}

async function resetBill({ emulatorUrl }: Rig): Promise<void> {
  await fetch(`${emulatorUrl}/__emulator/reset`, { method: 'POST' });
}

interface Books {
  limitTicks: bigint;
  spentTicks: bigint;
  heldTicks: bigint;
  openHolds: number;
  settlements: number;
  chargedTicks: bigint;
}

async function readBooks({ db }: Rig, tenant: string): Promise<Books> {
  const { rows: [row] } = await db.query<Record<'limit' | 'spent' | 'held' | 'open' | 'settlements' | 'charged', string>>(
    `SELECT b.limit_ticks AS "limit", b.spent_ticks AS spent, b.held_ticks AS held, (SELECT count(*) FROM holds WHERE tenant_id = $1) AS open,
       (SELECT count(*) FROM settlements WHERE tenant_id = $1) AS settlements, (SELECT coalesce(sum(charged_ticks), 0) FROM settlements WHERE tenant_id = $1) AS charged
     FROM budgets b WHERE b.tenant_id = $1`, [tenant]);
  return {
    limitTicks: BigInt(row!.limit), spentTicks: BigInt(row!.spent), heldTicks: BigInt(row!.held), openHolds: Number(row!.open), settlements: Number(row!.settlements), chargedTicks: BigInt(row!.charged),
  };
}

/** Waits until no money of the tenant is held and the provider is at rest. @returns milliseconds waited; undefined where it did not come to that */
async function untilNothingHeld(rig: Rig, tenant: string, withinMs: number, say: Say): Promise<number | undefined> {
  const startedMs = performance.now();
  for (let turn = 0; ; turn++) {
    const { openHolds, heldTicks } = await readBooks(rig, tenant);
    const { running } = await readBill(rig);
    const waitedMs = performance.now() - startedMs;
    if (openHolds === 0 && heldTicks === 0n && running === 0) return waitedMs;
    if (waitedMs > withinMs) return undefined;
    if (turn % 10 === 9) say(`  ${(waitedMs / 1_000).toFixed(0)} s: ${openHolds} holds of ${usd(heldTicks)} still open, ${running} calls running at the provider\n`);
    await sleep(500);
  }
}

/** The reviewed models with one of them at the price of the race. */
async function writeRaceConfig({ dataDir }: Rig): Promise<string> {
  const folder = join(dataDir, 'race-config');
  const file = parse(readFileSync(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8')) as { models: { id: string; price?: object }[] };
  file.models.find(({ id }) => id === MODEL)!.price = CENT_PRICE;
  await mkdir(folder);
  await writeFile(join(folder, 'models.yaml'), JSON.stringify(file)); // JSON is YAML too
  return folder;
}

function raceBody(promptBytes: number, stream: boolean): Record<string, unknown> {
  return {
    model: MODEL, stream, max_completion_tokens: RACE_OUTPUT_TOKENS, messages: [{ role: 'user', content: 'x'.repeat(promptBytes) }],
    // Answers take a moment, so that none is paid before the others ask.
    x_emulator: { output_tokens: RACE_OUTPUT_TOKENS, reasoning_tokens: 0, first_token_ms: 300, cost_usd_ticks: Number(CENT_TICKS) },
  };
}

/** Length of the prompt with which a hold is one cent to the tick: what the gateway counts as input is its own affair, so it is asked. */
async function exactPromptBytes(rig: Rig, url: string, token: string, tenant: string): Promise<number> {
  let bytes = 1_000;
  for (let turn = 0; turn < 10; turn++) {
    const status = await call(url, token, raceBody(bytes, false));
    if (status !== '200') throw new Error(`the first call was answered with ${status}`);
    const { rows: [row] } = await rig.db.query<{ held_ticks: string }>('SELECT held_ticks FROM settlements WHERE tenant_id = $1 ORDER BY hold_id DESC LIMIT 1', [tenant]);
    const missingTokens = Number(CENT_TICKS - BigInt(row!.held_ticks)); // a tick each
    if (missingTokens === 0) return bytes;
    bytes += Math.sign(missingTokens) * Math.max(1, Math.floor(Math.abs(missingTokens) * 2.5));
  }
  throw new Error('no prompt was found whose hold is exactly a cent');
}

async function race(rig: Rig, calls: number, say: Say): Promise<string[]> {
  say(`race: starting ${GATEWAYS} gateways\n`);
  const gateways = await rig.startGateways(await writeRaceConfig(rig));
  const promptBytes = await exactPromptBytes(rig, gateways[0]!.url!, await rig.addTenant('probe', AMPLE_TICKS), 'probe');
  const token = await rig.addTenant('race', RACE_LIMIT_TICKS);
  await resetBill(rig);
  say(`race: ${calls} calls at once, holds of exactly a cent (a prompt of ${promptBytes} bytes)\n`);
  const startedMs = performance.now();
  const ends = await Promise.all(Array.from({ length: calls }, (_, index) => call(gateways[index % GATEWAYS]!.url!, token, raceBody(promptBytes, index % 2 === 0))));
  const tookMs = performance.now() - startedMs;
  const closedAfterMs = await untilNothingHeld(rig, 'race', 30_000, say);
  const [books, bill] = [await readBooks(rig, 'race'), await readBill(rig)];
  await Promise.all(gateways.map((gateway) => gateway.stop()));

  const counts = countBy(ends);
  const served = counts.get('200') ?? 0;
  const mayServe = Number(RACE_LIMIT_TICKS / CENT_TICKS);
  process.stdout.write(`\nRace: ${calls} calls at once over ${GATEWAYS} processes on a budget of ${usd(RACE_LIMIT_TICKS)}, ${(tookMs / 1_000).toFixed(1)} s; ${shownCounts(counts)}\n` +
    `  served ${served} (at most ${mayServe}); the provider's bill ${usd(bill.billedTicks)} for ${bill.calls} calls; ledger ${usd(books.chargedTicks)} for ${books.settlements}, spent ${usd(books.spentTicks)}, held ${usd(books.heldTicks)}\n`);
  const faults = [...booksFaults('race', books, closedAfterMs, bill)];
  if (served > mayServe) faults.push(`race: ${served} calls were served where the budget has room for ${mayServe}`);
  if (bill.billedTicks !== books.chargedTicks) faults.push(`race: the bill is ${usd(bill.billedTicks)}, the ledger says ${usd(books.chargedTicks)}`);
  // A call that was given up for another reason may have had room for a moment that a refused one has asked in.
  const onlyBudget = [...counts.keys()].every((how) => how === '200' || how === NO_BUDGET_LEFT);
  if (served < mayServe && calls >= mayServe && onlyBudget) faults.push(`race: only ${served} calls were served where the budget has room for ${mayServe}`);
  return faults;
}

interface Load {
  rig: Rig;
  gateways: readonly Gateway[];
  token: string;
  callers: number;
  durationMs: number;
  seed: number;
  /** Called every few seconds. */
  onProgress?: (elapsedMs: number, counts: ReadonlyMap<string, number>, kills: number) => Promise<void>;
}

/** Callers without pause, and a killer. @returns how the calls ended, how many processes were killed, and when the budget was first found spent */
async function disturbedLoad({ gateways, token, callers, durationMs, seed, onProgress }: Load): Promise<{ ends: Map<string, number>; kills: number; lastKillMs: number; spentAfterMs: number | undefined }> {
  const ends = new Map<string, number>();
  const startedMs = performance.now();
  const elapsedMs = (): number => performance.now() - startedMs;
  let [kills, lastKillMs] = [0, startedMs];
  let spentAfterMs: number | undefined;
  const caller = async (random: Random): Promise<void> => {
    while (elapsedMs() < durationMs) {
      const serving = gateways.flatMap(({ url }) => url ?? []);
      if (serving.length === 0) {
        await sleep(20);
        continue;
      }
      const body = {
        model: MODEL, stream: random() < 0.5, max_completion_tokens: 64,
        messages: [{ role: 'user', content: `Call ${Math.floor(random() * 1e9)}. ${'What is the capital of France, and what is it known for? '.repeat(4)}` }],
        x_emulator: { output_tokens: 10 + Math.floor(random() * 50), reasoning_tokens: 0, first_token_ms: 50 + Math.floor(random() * 250), token_interval_ms: 20 },
      };
      const hangUpAfterMs = random() < HANG_UP_SHARE ? random() * 1_500 : undefined;
      const how = await call(serving[Math.floor(random() * serving.length)]!, token, body, hangUpAfterMs);
      ends.set(how, (ends.get(how) ?? 0) + 1);
      if (how === NO_BUDGET_LEFT) {
        spentAfterMs ??= elapsedMs();
        await sleep(20); // a refusal comes at once; the machine is to be kept busy with calls
      }
      if (how === 'broken') await sleep(5);
    }
  };
  const killer = async (random: Random): Promise<void> => {
    for (let nextMs = KILL_EVERY_MS; nextMs < durationMs; nextMs += KILL_EVERY_MS) {
      await sleep(Math.max(0, nextMs - elapsedMs()));
      gateways[Math.floor(random() * gateways.length)]!.killAndStart();
      lastKillMs = performance.now();
      kills += 1;
    }
  };
  const progress = async (): Promise<void> => {
    for (let nextMs = 5_000; nextMs < durationMs; nextMs += 5_000) {
      await sleep(Math.max(0, nextMs - elapsedMs()));
      await onProgress?.(elapsedMs(), ends, kills);
    }
  };
  await Promise.all([...Array.from({ length: callers }, (_, index) => caller(seeded(seed * 1_000 + index))), killer(seeded(seed * 1_000 + 999)), progress()]);
  return { ends, kills, lastKillMs, spentAfterMs };
}

interface Settled {
  hold_id: string;
  state: string;
  basis: string;
  charged_ticks: string;
  held_ticks: string;
  /** Of the last attempt that is on record; those before it are free, or paid for by holds of their own. */
  provider_request_id: string | null;
}

interface Comparison {
  rows: { state: string; basis: string; count: number; chargedTicks: bigint; heldTicks: bigint }[];
  /** Charges that are known to be the bill, and are not. */
  different: { holdId: string; basis: string; chargedTicks: bigint; billedTicks: bigint }[];
  exactTicks: bigint;
  exactBilledTicks: bigint;
  estimatedTicks: bigint;
  /** What of the bill belongs to no exact charge. */
  estimatedBilledTicks: bigint;
}

/** Sets every charge against what the provider billed for it. */
async function compare({ db, emulatorUrl }: Rig, tenant: string): Promise<Comparison> {
  const emulated = (await (await fetch(`${emulatorUrl}/__emulator/calls`)).json()) as { requestId: string; billedUsdTicks: string }[];
  const bills = new Map(emulated.map(({ requestId, billedUsdTicks }) => [requestId, BigInt(billedUsdTicks)]));
  const { rows: settled } = await db.query<Settled>(
    `WITH outcomes AS MATERIALIZED (
       SELECT e.event #>> '{unmapped,novix,hold_id}' AS hold_id, max(e.event #>> '{unmapped,novix,attempts,-1,providerRequestId}') AS provider_request_id
       FROM (SELECT event::jsonb AS event FROM audit_events) e GROUP BY 1
     )
     SELECT s.hold_id, s.state, s.basis, s.charged_ticks, s.held_ticks, o.provider_request_id
     FROM settlements s LEFT JOIN outcomes o ON o.hold_id = s.hold_id::text WHERE s.tenant_id = $1`, [tenant]);
  const result: Comparison = { rows: [], different: [], exactTicks: 0n, exactBilledTicks: 0n, estimatedTicks: 0n, estimatedBilledTicks: 0n };
  for (const row of settled) {
    const [chargedTicks, heldTicks] = [BigInt(row.charged_ticks), BigInt(row.held_ticks)];
    const group = result.rows.find(({ state, basis }) => state === row.state && basis === row.basis);
    if (group === undefined) result.rows.push({ state: row.state, basis: row.basis, count: 1, chargedTicks, heldTicks });
    else Object.assign(group, { count: group.count + 1, chargedTicks: group.chargedTicks + chargedTicks, heldTicks: group.heldTicks + heldTicks });
    if (row.state === 'expired_charged' || row.basis === 'observed' || row.basis === 'hold') {
      result.estimatedTicks += chargedTicks;
      continue;
    }
    const billedTicks = (row.provider_request_id === null ? undefined : bills.get(row.provider_request_id)) ?? 0n;
    result.exactTicks += chargedTicks;
    result.exactBilledTicks += billedTicks;
    if (billedTicks !== chargedTicks) result.different.push({ holdId: row.hold_id, basis: row.basis, chargedTicks, billedTicks });
  }
  result.estimatedBilledTicks = [...bills.values()].reduce((sum, ticks) => sum + ticks, 0n) - result.exactBilledTicks;
  return result;
}

async function chaos(rig: Rig, options: { seconds: number; seed: number; callers: number; budgetTicks: bigint | undefined }, say: Say): Promise<string[]> {
  const { seed, callers } = options;
  const durationMs = options.seconds * 1_000;
  say(`chaos: starting ${GATEWAYS} gateways\n`);
  const gateways = await rig.startGateways();
  let limitTicks = options.budgetTicks;
  if (limitTicks === undefined) {
    say(`chaos: ${CALIBRATION_MS / 1_000} s of the same, to learn what it costs\n`);
    await disturbedLoad({ rig, gateways, token: await rig.addTenant('calibration', AMPLE_TICKS), callers, durationMs: CALIBRATION_MS, seed: seed + 1 });
    const { spentTicks, heldTicks } = await readBooks(rig, 'calibration');
    // To full thousandths of a dollar. What is still held counts: of calls whose process is dead, it stays held for as long as the minute takes.
    limitTicks = ((((spentTicks + heldTicks) * BigInt(durationMs)) / BigInt(CALIBRATION_MS)) * BUDGET_PERCENT) / 100n / 10_000_000n * 10_000_000n;
  }
  say(`chaos: the budget is ${usd(limitTicks)}\n`);
  const token = await rig.addTenant('chaos', limitTicks);
  while ((await readBill(rig)).running > 0) await sleep(50);
  await resetBill(rig);
  const { ends, kills, lastKillMs, spentAfterMs } = await disturbedLoad({
    rig, gateways, token, callers, durationMs, seed,
    onProgress: async (elapsedMs, counts, killed) => {
      const [{ spentTicks, heldTicks }, { billedTicks }] = [await readBooks(rig, 'chaos'), await readBill(rig)];
      say(`  ${(elapsedMs / 1_000).toFixed(0)} s: ${killed} killed, ${gateways.filter(({ url }) => url !== undefined).length} serve; spent ${usd(spentTicks)}, held ${usd(heldTicks)}; bill ${usd(billedTicks)}; ${shownCounts(counts)}\n`);
    },
  });
  const billAtEnd = await readBill(rig);
  say('chaos: over; waiting until nothing is held\n');
  const waitedMs = await untilNothingHeld(rig, 'chaos', SETTLED_WITHIN_MS - (performance.now() - lastKillMs), say);
  const closedAfterMs = waitedMs === undefined ? undefined : performance.now() - lastKillMs;
  const [books, bill] = [await readBooks(rig, 'chaos'), await readBill(rig)];
  // Leaves get their place in the log a moment after they are durable, and are in the view all the while.
  const compared = await compare(rig, 'chaos');

  process.stdout.write(`\nChaos: ${options.seconds} s, seed ${seed}, ${callers} callers, ${kills} processes killed; budget ${usd(limitTicks)}, ${spentAfterMs === undefined ? 'never spent' : `first refused for it at ${(spentAfterMs / 1_000).toFixed(1)} s`}\n` +
    `  ${shownCounts(ends)}\n` +
    `  the provider's bill: ${usd(billAtEnd.billedTicks)} when the callers stopped, ${usd(bill.billedTicks)} at the end, for ${bill.calls} calls; limit ${usd(limitTicks)}\n` +
    `  nothing held ${closedAfterMs === undefined ? 'was not reached' : `${(closedAfterMs / 1_000).toFixed(1)} s after the last kill`}; ledger ${usd(books.chargedTicks)} for ${books.settlements} holds, spent ${usd(books.spentTicks)}, held ${usd(books.heldTicks)}\n\n` +
    '  state            basis      holds        charged           held\n');
  for (const { state, basis, count, chargedTicks, heldTicks } of compared.rows) {
    process.stdout.write(`  ${state.padEnd(16)} ${basis.padEnd(9)} ${String(count).padStart(6)} ${usd(chargedTicks).padStart(14)} ${usd(heldTicks).padStart(14)}\n`);
  }
  process.stdout.write(`\n  known charges: ledger ${usd(compared.exactTicks)}, bill ${usd(compared.exactBilledTicks)}, ${compared.different.length} calls differ\n` +
    `  estimated charges (expired_charged, observed, hold): ledger ${usd(compared.estimatedTicks)}, all the rest of the bill ${usd(compared.estimatedBilledTicks)}\n`);
  const faults = booksFaults('chaos', books, closedAfterMs, bill);
  if (bill.calls > EMULATED_CALLS_KEPT) return [...faults, `chaos: ${bill.calls} calls are more than the emulator keeps, so they could not be compared; take fewer callers`];
  for (const { holdId, basis, chargedTicks, billedTicks } of compared.different.slice(0, 10)) faults.push(`chaos: hold ${holdId} (${basis}) is charged ${usd(chargedTicks)}, its bill is ${usd(billedTicks)}`);
  if (compared.different.length > 10) faults.push(`chaos: and ${compared.different.length - 10} more`);
  if (compared.estimatedBilledTicks > compared.estimatedTicks) faults.push(`chaos: estimated charges of ${usd(compared.estimatedTicks)} do not cover their bill of ${usd(compared.estimatedBilledTicks)}`);
  return faults;
}

function booksFaults(what: string, books: Books, closedAfterMs: number | undefined, bill: EmulatedBill): string[] {
  const faults: string[] = [];
  if (bill.billedTicks > books.limitTicks) faults.push(`${what}: the bill of ${usd(bill.billedTicks)} is over the limit of ${usd(books.limitTicks)}`);
  if (books.spentTicks > books.limitTicks) faults.push(`${what}: ${usd(books.spentTicks)} are spent of ${usd(books.limitTicks)}`);
  if (closedAfterMs === undefined) faults.push(`${what}: ${books.openHolds} holds of ${usd(books.heldTicks)} stayed open, or ${bill.running} calls stayed running at the provider`);
  if (books.spentTicks !== books.chargedTicks) faults.push(`${what}: spent is ${usd(books.spentTicks)}, the settlements sum up to ${usd(books.chargedTicks)}`);
  return faults;
}

function countBy(values: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function shownCounts(counts: ReadonlyMap<string, number>): string {
  return [...counts].toSorted(([left], [right]) => (left < right ? -1 : 1)).map(([how, count]) => `${how}: ${count}`).join(', ');
}

function usd(ticks: bigint): string {
  return `$${formatUsd(ticks)}`;
}

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' }, seed: { type: 'string', default: '1' }, calls: { type: 'string', default: '5000' }, callers: { type: 'string', default: '64' },
    'budget-usd': { type: 'string' }, only: { type: 'string' },
  },
});
const say: Say = (text) => void process.stderr.write(text);
say('starting PostgreSQL and the emulator\n');
const rig = await startRig();
const faults: string[] = [];
try {
  if (options.only !== 'chaos') faults.push(...(await race(rig, Number(options.calls), say)));
  const budgetTicks = options['budget-usd'] === undefined ? undefined : parseUsd(options['budget-usd']);
  if (options.only !== 'race') faults.push(...(await chaos(rig, { seconds: Number(options.seconds), seed: Number(options.seed), callers: Number(options.callers), budgetTicks }, say)));
} finally {
  await rig.close();
}
process.stdout.write(`\n${cpus().length} cores, load ${loadavg()[0]!.toFixed(2)}\n${faults.length === 0 ? 'all invariants hold\n' : `BROKEN:\n${faults.map((fault) => `  ${fault}\n`).join('')}`}`);
process.exitCode = faults.length === 0 ? 0 : 1;
