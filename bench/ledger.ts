import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import { leafEntry } from '../src/audit/audit-event.ts';
import { neverSent } from '../src/completions/admission.ts';
import { aboutCall, intentText, outcomeText, type CallIdentity } from '../src/completions/call-record.ts';
import { holdEntry, LEDGER_VERDICT, settlementEntry } from '../src/cost/ledger-entry.ts';
import { Journal } from '../src/journal/journal.ts';
import { JournalMetrics } from '../src/journal/journal-metrics.ts';
import { Spool } from '../src/journal/spool.ts';
import { startEmbeddedPostgres } from '../src/sandbox/embedded-postgres.ts';
import { createLogger } from '../src/shared/logger.ts';
import { runMigrations } from '../src/shared/migrations.ts';
import { uuid } from '../src/shared/uuid.ts';
import { quantile } from './load.ts';
import { completedEnd, sampleIdentity, sampleSetting, type CallSetting } from './sample-call.ts';

// `npm run bench:ledger -- [--seconds 10] [--in-flight 2048] [--json]`: how many calls a second one process can hold money for and settle on one hot budget, through
// the journal and the SQL of the product, against a durable PostgreSQL of its own. A pair is what a call writes: the hold with its intent in one commit, the
// settlement with its outcome in another. Records are made as the pipeline makes them, from one plan and one decision; HTTP, the provider, and the sequencer that
// later moves the leaves are left out. Then the same without the audit leaves, to tell what the ledger alone costs.
//
// Exits 1 where money was lost or made up: spent must be the sum of the settlements, and nothing may be held at the end.

const TENANT = 'bench';
const AIM_PAIRS_PER_SECOND = 10_000;
const WARM_UP_MS = 3_000;
/** Of a call: 100 tokens in and 20 out at grok-4.20's price. */
const CHARGE_TICKS = 1_750_000n;
/** A thousand days of it, so that no hold is ever refused. */
const LIMIT_TICKS = 1_000_000_000_000_000_000n;

interface Measured {
  variant: string;
  seconds: number;
  pairs: number;
  pairsPerSecond: number;
  holdMs: { p50: number; p99: number };
  settleMs: { p50: number; p99: number };
  operationsPerCommit: number;
  failed: number;
  /** Of this process alone: where it is near 100 %, it and not the database is the limit. */
  ownCpuPercent: number;
}

interface Books {
  settlements: number;
  chargedTicks: bigint;
  spentTicks: bigint;
  heldTicks: bigint;
  openHolds: number;
}

/** One call's two records, in the form and of the size that the pipeline writes. */
class Pair {
  readonly #identity: CallIdentity;

  constructor(
    private readonly setting: CallSetting,
    private readonly withLeaves: boolean,
  ) {
    this.#identity = sampleIdentity(setting);
  }

  /** @returns whether the money is held */
  async hold(journal: Journal): Promise<boolean> {
    const { principal, plan, candidate, decision, replicaId, commitment } = this.setting;
    const { requestId, holdId, startedAtMs, context } = this.#identity;
    const id = uuid();
    const ledger = holdEntry({
      id: holdId, requestId, tenantId: TENANT, scopes: ['tenant', `user:${principal.subject}`, `model:${plan.resolved.name}`], amountTicks: plan.holdTicks, replicaId,
      expiresAtMs: startedAtMs + 600_000, context,
    });
    const leaf = this.withLeaves ? { audit_append: leafEntry(id, aboutCall(this.#identity), intentText(id, this.#identity, principal, plan, candidate, undefined, decision, undefined, commitment)) } : {};
    const verdict = await journal.commit({
      id, lane: 'admission', entries: { ledger_apply: ledger, ...leaf },
      // Held although we were told that it was not: given back, as the product does.
      onCommittedAfterGivingUp: () => void this.settle(journal, neverSent()),
    });
    return verdict === LEDGER_VERDICT.fine;
  }

  async settle(journal: Journal, end = completedEnd(this.setting, this.#identity, CHARGE_TICKS)): Promise<boolean> {
    const id = uuid();
    const kind = end.outcome === 'never_sent' ? 'release' : 'settle';
    const ledger = settlementEntry({ kind, holdId: this.#identity.holdId, outcome: end.outcome, usage: end.usage, charge: end.charge });
    const leaf = this.withLeaves ? { audit_append: leafEntry(id, aboutCall(this.#identity), outcomeText(id, 'outcome', this.#identity, end, Date.now())) } : {};
    return (await journal.commitOrSpool({ id, lane: 'outcome', entries: { ledger_apply: ledger, ...leaf } })) === LEDGER_VERDICT.fine;
  }

}

/** As many calls at once as said, each held, settled, and followed by the next. */
async function measure(variant: string, journal: Journal, registry: Registry, setting: CallSetting, withLeaves: boolean, inFlight: number, durationMs: number): Promise<Measured> {
  const holdMs: number[] = [];
  const settleMs: number[] = [];
  let failed = 0;
  const commits = await commitCounts(registry);
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const endMs = startedMs + durationMs;
  await Promise.all(Array.from({ length: inFlight }, async () => {
    for (let nowMs = performance.now(); nowMs < endMs; nowMs = performance.now()) {
      const pair = new Pair(setting, withLeaves);
      const held = await pair.hold(journal).catch(() => false);
      const heldAtMs = performance.now();
      if (held && (await pair.settle(journal))) {
        holdMs.push(heldAtMs - nowMs);
        settleMs.push(performance.now() - heldAtMs);
      } else failed += 1;
    }
  }));
  const tookMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  const after = await commitCounts(registry);
  return {
    variant, seconds: tookMs / 1_000, pairs: settleMs.length, pairsPerSecond: (settleMs.length * 1_000) / tookMs, failed,
    holdMs: { p50: quantile(holdMs, 0.5), p99: quantile(holdMs, 0.99) }, settleMs: { p50: quantile(settleMs, 0.5), p99: quantile(settleMs, 0.99) },
    operationsPerCommit: (after.operations - commits.operations) / (after.commits - commits.commits), ownCpuPercent: (user + system) / 10 / tookMs,
  };
}

async function commitCounts(registry: Registry): Promise<{ commits: number; operations: number }> {
  const values = (await registry.getSingleMetric('novix_journal_batch_operations')!.get()).values as { metricName?: string; value: number }[];
  const read = (end: string): number => values.find(({ metricName }) => metricName?.endsWith(end))?.value ?? 0;
  return { commits: read('_count'), operations: read('_sum') };
}

async function readBooks(db: Client): Promise<Books> {
  const { rows: [row] } = await db.query<Record<'settlements' | 'charged' | 'spent' | 'held' | 'open', string>>(
    `SELECT (SELECT count(*) FROM settlements) AS settlements, (SELECT coalesce(sum(charged_ticks), 0) FROM settlements) AS charged, (SELECT count(*) FROM holds) AS open,
       spent_ticks AS spent, held_ticks AS held FROM budgets WHERE tenant_id = $1`, [TENANT]);
  return { settlements: Number(row!.settlements), chargedTicks: BigInt(row!.charged), spentTicks: BigInt(row!.spent), heldTicks: BigInt(row!.held), openHolds: Number(row!.open) };
}

async function run(seconds: number, inFlight: number, say: (text: string) => void) {
  const dataDir = await mkdtemp(join(tmpdir(), 'novix-bench-ledger-'));
  say('starting PostgreSQL, durable\n');
  const postgres = await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), durable: true });
  const db = new Client({ connectionString: postgres.url });
  const registry = new Registry();
  const replicaId = uuid();
  const logger = createLogger('warn');
  const spool = new Spool(join(dataDir, 'spool'), replicaId, () => Promise.resolve(false), logger);
  const journal = new Journal(postgres.url, spool, new JournalMetrics(registry), logger);
  try {
    await runMigrations(postgres.url);
    await db.connect();
    await db.query("INSERT INTO tenants (id, name, tier) VALUES ($1, 'Bench', 'enterprise')", [TENANT]);
    await db.query("INSERT INTO budgets (id, tenant_id, scope, time_window, limit_ticks, period_start) VALUES ($1, $2, 'tenant', 'total', $3, now())", [uuid(), TENANT, String(LIMIT_TICKS)]);
    await spool.open();
    await journal.open();
    const setting = sampleSetting(TENANT, replicaId);
    const measured: Measured[] = [];
    let [pairs, failed] = [0, 0];
    for (const [variant, withLeaves] of [['with audit leaves', true], ['ledger alone', false]] as const) {
      say(`${variant}: warming up, then ${seconds} s with ${inFlight} calls in flight\n`);
      const warm = await measure(variant, journal, registry, setting, withLeaves, inFlight, WARM_UP_MS);
      const counted = await measure(variant, journal, registry, setting, withLeaves, inFlight, seconds * 1_000);
      pairs += warm.pairs + counted.pairs;
      failed += warm.failed + counted.failed;
      measured.push(counted);
    }
    // Holds that were given up are being given back; and what is in the spool comes after.
    await journal.replaySpool();
    for (let turns = 0; turns < 100 && (await readBooks(db)).openHolds > 0; turns++) await new Promise((resolve) => setTimeout(resolve, 50));
    const leaves = Number((await db.query<{ count: string }>('SELECT count(*) FROM audit_pending')).rows[0]!.count);
    const settings = (await db.query<{ settings: string }>("SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name) AS settings FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')")).rows[0]!.settings;
    return { measured, pairs, failed, leaves, settings, books: await readBooks(db), inFlight };
  } finally {
    await journal.close();
    await spool.close();
    await db.end();
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** What of the books is not as it must be. */
function faultsOf({ books, pairs, failed }: Awaited<ReturnType<typeof run>>): string[] {
  const faults: string[] = [];
  if (books.spentTicks !== books.chargedTicks) faults.push(`spent is ${books.spentTicks} ticks, the settlements sum up to ${books.chargedTicks}`);
  if (books.heldTicks !== 0n || books.openHolds !== 0) faults.push(`${books.heldTicks} ticks are still held, by ${books.openHolds} holds`);
  // A call that failed may have been settled all the same, from the spool; one that was counted must have been.
  if (books.settlements < pairs) faults.push(`${pairs} pairs were acknowledged, and ${books.settlements} are in the ledger`);
  if (failed === 0 && books.chargedTicks !== BigInt(pairs) * CHARGE_TICKS) faults.push(`${pairs} pairs of ${CHARGE_TICKS} ticks were charged as ${books.chargedTicks}`);
  return faults;
}

const { values: options } = parseArgs({ options: { seconds: { type: 'string', default: '10' }, 'in-flight': { type: 'string', default: '2048' }, json: { type: 'boolean', default: false } } });
const report = await run(Number(options.seconds), Number(options['in-flight']), (text) => void (options.json ? undefined : process.stderr.write(text)));
const faults = faultsOf(report);
if (options.json) process.stdout.write(`${JSON.stringify({ ...report, faults }, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}\n`);
else {
  process.stdout.write(`\nHold-and-settle pairs on one budget, one process, ${report.inFlight} calls in flight (aim ${AIM_PAIRS_PER_SECOND} pairs/s); PostgreSQL: ${report.settings}; ` +
    `${cpus().length} cores, load ${loadavg()[0]!.toFixed(2)}\n\n                     pairs/s   seconds   hold p50 / p99 ms   settle p50 / p99 ms   operations/commit   own CPU   failed\n`);
  for (const { variant, pairsPerSecond, seconds, holdMs, settleMs, operationsPerCommit, ownCpuPercent, failed } of report.measured) {
    process.stdout.write(`${variant.padEnd(18)} ${pairsPerSecond.toFixed(0).padStart(9)} ${seconds.toFixed(1).padStart(9)} ${`${holdMs.p50.toFixed(0)} / ${holdMs.p99.toFixed(0)}`.padStart(19)} ` +
      `${`${settleMs.p50.toFixed(0)} / ${settleMs.p99.toFixed(0)}`.padStart(21)} ${operationsPerCommit.toFixed(0).padStart(19)} ${`${ownCpuPercent.toFixed(0)} %`.padStart(9)} ${String(failed).padStart(8)}\n`);
  }
  const { books } = report;
  process.stdout.write(`\n${books.settlements} settlements of ${books.chargedTicks} ticks in all, spent ${books.spentTicks}, held ${books.heldTicks}; ${report.leaves} leaves; ${report.failed} failed, the warm-up included\n`);
  process.stdout.write(faults.length === 0 ? 'books agree\n' : `BROKEN: ${faults.join('; ')}\n`);
}
process.exitCode = faults.length === 0 ? 0 : 1;
