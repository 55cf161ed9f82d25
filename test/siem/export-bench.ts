import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { Registry } from 'prom-client';
import { Alerts } from '../../src/alerts/alerts.ts';
import { LocalSeal } from '../../src/secrets/local-seal.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { createLogger } from '../../src/shared/logger.ts';
import type { ExportLimits } from '../../src/siem/export-limits.ts';
import { SiemExporter } from '../../src/siem/exporter.ts';
import { tokenName, type SinkType } from '../../src/siem/sink.ts';
import { eventually } from '../support/harness.ts';
import { createTestDatabase } from '../support/test-database.ts';

// Exporters on a real PostgreSQL, with leaves put in as the gateway puts them in. Receivers are real servers of the tests.

/** Pauses in which a test need not wait. */
export const QUICK: Partial<ExportLimits> = {
  idlePauseMs: 20, reconcilePauseMs: 50, electionPauseMs: 50, backoffBaseMs: 20, slowRetryMs: 60, ackPauseMs: 10, ackTimeoutMs: 3_000, closeTimeoutMs: 1_000, requestTimeoutMs: 5_000, connectTimeoutMs: 2_000,
};
export const TOKEN = 'token-of-the-test-0123456789';
/** Values that have broken envelopes before: each has to arrive as it is, in one event. */
export const NASTY: readonly string[] = [
  'line\nbreak', 'carriage\r\nreturn', 'nul\u0000tab\tbell\u0007escape\u001b[31m', 'quote " and \\" and \\', 'pipe | equals = a=b|c=d', ']closing] [brackets', "apostrophe ' <xml> & % %0A ${x}", 'next\u0085line\u2028separator\u2029paragraph', '\u007fdelete\u009f', 'ünïcödé 日本 🙂', '}{', '1 <110>1 - - - - - -', '\\n \\u000a',
];

export interface SinkState {
  cursor: number;
  parked: number;
  lastError: string | null;
  lastDeliveredAt: Date | null;
}

export interface ParkedRow {
  first: number;
  last: number;
  events: number;
  reason: string;
}

export interface ExportBench {
  db: Pool;
  /** Where file sinks may write. */
  siemDir: string;
  /** Puts events into the log; gives their texts. */
  append(texts: readonly string[]): Promise<void>;
  head(): Promise<number>;
  /** Makes a sink that begins at the log's end unless said otherwise. */
  sink(sink: { type: SinkType; url: string; token?: string; ca?: string; name?: string; cursor?: number }): Promise<string>;
  state(id: string): Promise<SinkState>;
  parked(id: string): Promise<ParkedRow[]>;
  /** @param options databaseUrl: its own way to the database */
  exporter(options?: { allowed?: readonly string[]; limits?: Partial<ExportLimits>; databaseUrl?: string }): RunningExporter;
  databaseUrl: string;
  /** Waits until the cursor stands at an index. */
  reaches(id: string, cursor: number, timeoutMs?: number): Promise<SinkState>;
  firing(type: string, subject: string): Promise<string[]>;
  close(): Promise<void>;
}

export interface RunningExporter {
  metric(name: string, sink: string): Promise<number | undefined>;
  close(): Promise<void>;
}

/** An event as the log has it, with a text that is to arrive. */
export function eventText(text: string, { timeMs = Date.now(), severityId = 1, phase = 'intent' } = {}): string {
  return JSON.stringify({ class_uid: 6003, time: timeMs, severity_id: severityId, metadata: { uid: randomUUID() }, api: { operation: text }, unmapped: { novix: { phase } } });
}

export function eventTexts(count: number, label = 'event'): string[] {
  return Array.from({ length: count }, (_, place) => eventText(`${label} ${place}`));
}

export async function openBench(): Promise<ExportBench> {
  const database = await createTestDatabase();
  const folder = await mkdtemp(join(tmpdir(), 'siem-test-'));
  const db = new Pool({ connectionString: database.url, max: 4, allowExitOnIdle: true });
  db.on('error', () => {});
  const seal = LocalSeal.open(join(folder, 'secret.key'), true);
  const logger = createLogger('silent');
  const exporters: RunningExporter[] = [];
  const siemDir = join(folder, 'siem');
  const bench: ExportBench = {
    db, siemDir, databaseUrl: database.url,
    append: async (texts) => {
      await db.query("INSERT INTO audit_pending (id, body) SELECT gen_random_uuid(), convert_to(t.text, 'UTF8') FROM unnest($1::text[]) WITH ORDINALITY AS t(text, place) ORDER BY place", [texts]);
      for (;;) if ((await db.query<{ moved: number }>('SELECT audit_sequence(4096) AS moved')).rows[0]!.moved === 0) return;
    },
    head: async () => Number((await db.query<{ size: string }>('SELECT size FROM audit_head')).rows[0]!.size),
    sink: async ({ type, url, token, ca, name = randomUUID(), cursor }) => {
      const id = randomUUID();
      await db.query('INSERT INTO siem_sinks (id, name, type, url, sealed_token, ca, enabled, cursor) SELECT $1, $2, $3, $4, $5, $6, true, coalesce($7, size) FROM audit_head', [id, name, type, url, token === undefined ? null : seal.seal(tokenName(id), token), ca ?? null, cursor ?? null]);
      return id;
    },
    state: async (id) => {
      const { rows: [row] } = await db.query<{ cursor: string; parked: string; last_error: string | null; last_delivered_at: Date | null }>('SELECT cursor, parked, last_error, last_delivered_at FROM siem_sinks WHERE id = $1', [id]);
      return { cursor: Number(row!.cursor), parked: Number(row!.parked), lastError: row!.last_error, lastDeliveredAt: row!.last_delivered_at };
    },
    parked: async (id) => (await db.query<{ first_index: string; last_index: string; events: string; reason: string }>('SELECT first_index, last_index, events, reason FROM siem_parked WHERE sink = $1 ORDER BY first_index', [id])).rows
      .map(({ first_index: first, last_index: last, events, reason }) => ({ first: Number(first), last: Number(last), events: Number(events), reason })),
    exporter: ({ allowed = [], limits = {}, databaseUrl } = {}) => {
      const pool = databaseUrl === undefined ? db : new Pool({ connectionString: databaseUrl, max: 4, connectionTimeoutMillis: 2_000, allowExitOnIdle: true });
      if (pool !== db) pool.on('error', () => {});
      const registry = new Registry();
      const alerts = new Alerts(pool, logger, registry);
      const exporter = new SiemExporter({
        settings: { databaseUrl: databaseUrl ?? database.url, siemDir, egress: { proxyUrl: undefined, noProxy: undefined, allowedOrigins: allowed } }, pool, seal, alerts, clock: systemClock, random: Math.random, logger, registry,
      }, { ...QUICK, ...limits });
      exporter.start();
      let closing: Promise<void> | undefined;
      const running: RunningExporter = {
        metric: async (name, sink) => (await registry.getSingleMetric(name)!.get()).values.find(({ labels }) => labels['sink'] === sink)?.value,
        close: () => (closing ??= exporter.close().then(() => alerts.close()).then(() => (pool === db ? undefined : pool.end()))),
      };
      exporters.push(running);
      return running;
    },
    reaches: (id, cursor, timeoutMs = 10_000) => eventually(async () => {
      const state = await bench.state(id);
      return state.cursor === cursor && state;
    }, timeoutMs).catch(async (error: unknown) => {
      throw new Error(`the cursor did not reach ${cursor}: ${JSON.stringify(await bench.state(id))}`, { cause: error });
    }),
    firing: async (type, subject) => (await db.query<{ value: string }>("SELECT value FROM alerts WHERE type = $1 AND subject = $2 AND state = 'firing'", [type, subject])).rows.map(({ value }) => value),
    close: async () => {
      await Promise.all(exporters.map((one) => one.close()));
      await db.end();
      await database.drop();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return bench;
}
