import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Client } from 'pg';
import { Registry } from 'prom-client';
import { leafEntry } from '../src/audit/audit-event.ts';
import { CheckpointFile } from '../src/audit/checkpoint-file.ts';
import { verifierKeys } from '../src/audit/checkpoint.ts';
import { LogBook } from '../src/audit/log-book.ts';
import { Sequencer } from '../src/audit/sequencer.ts';
import { openSigningKeys, type SigningKeys } from '../src/audit/signing-keys.ts';
import { proveInclusion, readHead } from '../src/audit/transparency-log.ts';
import { verifyDatabase } from '../src/audit/verify-database.ts';
import { aboutCall, intentText, outcomeText } from '../src/completions/call-record.ts';
import { Journal } from '../src/journal/journal.ts';
import { JournalMetrics } from '../src/journal/journal-metrics.ts';
import { Spool } from '../src/journal/spool.ts';
import { startEmbeddedPostgres } from '../src/sandbox/embedded-postgres.ts';
import { systemClock } from '../src/shared/clock.ts';
import { createLogger } from '../src/shared/logger.ts';
import { runMigrations } from '../src/shared/migrations.ts';
import { uuid } from '../src/shared/uuid.ts';
import { quantile } from './load.ts';
import { completedEnd, sampleIdentity, sampleSetting, type CallSetting } from './sample-call.ts';

// `npm run bench:audit -- [--seconds 60] [--rate 16700] [--json]`: whether the audit log keeps up with so many records a second, the intents and outcomes of
// calls, made as the pipeline makes them: written through the journal to a durable PostgreSQL of its own, put in order, grown into the tree and signed by
// the sequencer in the same process. The load is open: a record that is due is written, however long others take, and its wait is told from when it was due.
//
// Then: what sequencing costs a leaf when there is a backlog, how long one proof takes, and how long the verification of all of it.
// Exits 1 where a record was lost or the log does not verify.

const AIM = { recordsPerSecond: 16_700, waitP99Ms: 50, sequencingMicros: 15, verifyMillionSeconds: 30, proofMs: 5 };
const WARM_UP_MS = 3_000;
const TICK_MS = 1;
const BACKLOG = 100_000;
const PROOFS = 500;
const CHARGE_TICKS = 1_750_000n;

interface Load {
  written: number;
  failed: number;
  seconds: number;
  waitMs: number[];
}

/** Writes so many records a second. */
async function writeFor(journal: Journal, setting: CallSetting, recordsPerSecond: number, durationMs: number): Promise<Load> {
  const load: Load = { written: 0, failed: 0, seconds: 0, waitMs: [] };
  const waiting = new Set<Promise<void>>();
  const startedMs = performance.now();
  for (let due = 0; ;) {
    const elapsedMs = performance.now() - startedMs;
    if (elapsedMs >= durationMs) break;
    for (const until = Math.floor((elapsedMs / 1_000) * recordsPerSecond); due < until; due++) {
      const dueMs = startedMs + (due / recordsPerSecond) * 1_000;
      const one = write(journal, setting, due % 2 === 0).then(() => {
        load.written += 1;
        load.waitMs.push(performance.now() - dueMs);
      }, () => {
        load.failed += 1;
      }).finally(() => waiting.delete(one));
      waiting.add(one);
    }
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await Promise.all(waiting);
  load.seconds = (performance.now() - startedMs) / 1_000;
  return load;
}

function write(journal: Journal, setting: CallSetting, intent: boolean): Promise<unknown> {
  const id = uuid();
  const call = sampleIdentity(setting);
  const { principal, plan, candidate, decision, commitment } = setting;
  const text = intent ? intentText(id, call, principal, plan, candidate, undefined, decision, undefined, commitment) : outcomeText(id, 'outcome', call, completedEnd(setting, call, CHARGE_TICKS), Date.now());
  return journal.commit({ id, lane: intent ? 'admission' : 'outcome', entries: { audit_append: leafEntry(id, aboutCall(call), text) } });
}

/** Waits until so many leaves are signed. Looks at the head alone: `audit_pending` is full of dead rows then, and looking there would cost the one who empties it. */
async function signedAll(db: Client, leaves: number): Promise<void> {
  for (;;) {
    const { rows: [row] } = await db.query<{ signed: string }>('SELECT coalesce(max(size), 0) AS signed FROM audit_checkpoints');
    if (Number(row!.signed) >= leaves) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Microseconds of the one leader for each leaf, with everything that belongs to it. */
async function sequencingMicros(db: Client, start: () => Sequencer): Promise<number> {
  await db.query(`INSERT INTO audit_pending (id, tenant_id, request_id, body) SELECT gen_random_uuid(), tenant_id, request_id, body FROM audit_leaves ORDER BY index DESC LIMIT ${BACKLOG}`);
  await db.query('CHECKPOINT'); // what was written before is not this one's work
  const { size } = await readHead(db);
  const startedMs = performance.now();
  const sequencer = start();
  await signedAll(db, size + BACKLOG);
  const tookMs = performance.now() - startedMs;
  await sequencer.stop();
  return (tookMs * 1_000) / BACKLOG;
}

async function proofMs(db: Client): Promise<number[]> {
  const { size } = await readHead(db);
  const times: number[] = [];
  for (let turn = 0; turn < PROOFS; turn++) {
    const index = Math.floor(((turn * 0.618) % 1) * size);
    const startedMs = performance.now();
    await proveInclusion(db, index);
    times.push(performance.now() - startedMs);
  }
  return times;
}

async function run(seconds: number, rate: number, say: (text: string) => void) {
  const dataDir = await mkdtemp(join(tmpdir(), 'novix-bench-audit-'));
  say('starting PostgreSQL, durable\n');
  const postgres = await startEmbeddedPostgres({ dataDir: join(dataDir, 'postgres'), durable: true });
  const db = new Client({ connectionString: postgres.url });
  const logger = createLogger('warn');
  const replicaId = uuid();
  const spool = new Spool(join(dataDir, 'spool'), replicaId, () => Promise.resolve(false), logger);
  const journal = new Journal(postgres.url, spool, new JournalMetrics(new Registry()), logger);
  const keys: SigningKeys = openSigningKeys(join(dataDir, 'audit-signing.pem'), true);
  const newSequencer = (): Sequencer => {
    const registry = new Registry();
    const sequencer = new Sequencer(postgres.url, new LogBook(keys, new CheckpointFile(join(dataDir, 'checkpoint')), { fire: () => {}, resolve: () => {} }, systemClock, logger, registry), logger, registry);
    sequencer.start();
    return sequencer;
  };
  try {
    await runMigrations(postgres.url);
    await db.connect();
    await spool.open();
    await journal.open();
    const setting = sampleSetting('bench', replicaId);
    const sequencer = newSequencer();
    say(`warming up, then ${rate} records/s for ${seconds} s\n`);
    const warm = await writeFor(journal, setting, rate / 2, WARM_UP_MS);
    const cpu = process.cpuUsage();
    const load = await writeFor(journal, setting, rate, seconds * 1_000);
    const { user, system } = process.cpuUsage(cpu);
    const endedMs = performance.now();
    await signedAll(db, warm.written + load.written);
    const behindMs = performance.now() - endedMs;
    await sequencer.stop();
    say('sequencing a backlog\n');
    const micros = await sequencingMicros(db, newSequencer);
    const proofs = await proofMs(db);
    say('verifying all of it\n');
    const { origin, size } = await readHead(db);
    const startedMs = performance.now();
    const report = await verifyDatabase(db, verifierKeys(origin, keys), [], () => {});
    const verifySeconds = (performance.now() - startedMs) / 1_000;
    return { rate, warm: warm.written, failed: warm.failed + load.failed, load: { ...load, waitMs: undefined }, wait: { p50: quantile(load.waitMs, 0.5), p99: quantile(load.waitMs, 0.99), max: quantile(load.waitMs, 1) }, ownCpuPercent: (user + system) / 10_000 / load.seconds, behindMs, micros, proofs: { p50: quantile(proofs, 0.5), p99: quantile(proofs, 0.99) }, size, expected: warm.written + load.written + BACKLOG, verifySeconds, faults: report.faults };
  } finally {
    await journal.close();
    await spool.close();
    await db.end();
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

const { values: options } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, rate: { type: 'string', default: String(AIM.recordsPerSecond) }, json: { type: 'boolean', default: false } } });
const report = await run(Number(options.seconds), Number(options.rate), (text) => void (options.json ? undefined : process.stderr.write(text)));
const whole = report.failed === 0 && report.size === report.expected && report.faults.length === 0;
if (options.json) process.stdout.write(`${JSON.stringify({ ...report, whole })}\n`);
else {
  const perMillion = (report.verifySeconds / report.size) * 1_000_000;
  process.stdout.write([
    '', `${cpus().length} cores, load ${loadavg()[0]!.toFixed(2)}`,
    `records        ${(report.load.written / report.load.seconds).toFixed(0)}/s for ${report.load.seconds.toFixed(1)} s (asked for ${report.rate}; aim ${AIM.recordsPerSecond}), ${report.failed} failed; own CPU ${report.ownCpuPercent.toFixed(0)} %`,
    `wait           p50 ${report.wait.p50.toFixed(1)} ms, p99 ${report.wait.p99.toFixed(1)} ms, longest ${report.wait.max.toFixed(0)} ms (aim p99 ${AIM.waitP99Ms} ms)`,
    `signed         ${report.behindMs.toFixed(0)} ms after the last record`,
    `sequencing     ${report.micros.toFixed(1)} µs a leaf, tree and signature included (aim ${AIM.sequencingMicros})`,
    `one proof      p50 ${report.proofs.p50.toFixed(2)} ms, p99 ${report.proofs.p99.toFixed(2)} ms (aim ${AIM.proofMs})`,
    `verification   ${report.verifySeconds.toFixed(1)} s for ${report.size} leaves, ${perMillion.toFixed(1)} s a million (aim ${AIM.verifyMillionSeconds})`,
    whole ? 'none lost, indexes contiguous, the log verifies' : `BROKEN: ${report.size} leaves of ${report.expected}, ${report.failed} failed, ${JSON.stringify(report.faults)}`, '',
  ].join('\n'));
}
process.exitCode = whole ? 0 : 1;
