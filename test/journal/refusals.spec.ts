import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Refusals } from '../../src/audit/refusals.ts';
import { JournalMetrics } from '../../src/journal/journal-metrics.ts';
import { Journal, JOURNAL_LIMITS } from '../../src/journal/journal.ts';
import { Spool } from '../../src/journal/spool.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { allEvents } from '../support/calls.ts';
import { eventually } from '../support/harness.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { createTestDatabase } from '../support/test-database.ts';

// The records of refused requests, on a real journal and PostgreSQL: whatever breaks, events and counts together are the number of refusals.

/** So many of one source have an event of their own, and then one every 50 ms. */
const BURST = 200;
const BURST_AT_MOST = BURST + 40;

let database: { url: string; drop(): Promise<void> };
let db: Pool;
let proxy: TcpProxy;
let journal: Journal;
let refusals: Refusals;
let dir: string;

beforeAll(async () => {
  database = await createTestDatabase();
  db = new Pool({ connectionString: database.url, max: 2 });
});
afterAll(async () => {
  await db.end();
  await database.drop();
});
beforeEach(async () => {
  dir = join(tmpdir(), `novix-test-spool-${randomUUID()}`);
  proxy = await startTcpProxy(database.url);
  const logger = pino({ level: 'silent' });
  const registry = new Registry();
  const spool = new Spool(dir, randomUUID(), async () => false, logger);
  await spool.open();
  journal = new Journal(proxy.url, spool, new JournalMetrics(registry), logger, { ...JOURNAL_LIMITS, outcomeTimeoutMs: 200 });
  await journal.open();
  refusals = new Refusals(journal, systemClock, logger, registry);
  refusals.open();
});
afterEach(async () => {
  proxy.mend();
  await refusals.close();
  await journal.close();
  await proxy.close();
  await rm(dir, { recursive: true, force: true });
});

/** Refuses `count` requests of a source at once. */
function refuse(source: string, count: number): void {
  for (let request = 0; request < count; request += 1) {
    refusals.record({
      id: randomUUID(), phase: 'refusal', timeMs: Date.now(), requestId: randomUUID(), operation: 'GET /v1/models', ip: source, httpStatus: 401, errorCode: 'invalid_token', activity: 'create',
      actor: { tenant: undefined, subject: undefined, tokenId: undefined, issuer: undefined, clientId: undefined }, details: {},
    });
  }
}

/** What the log says of a source. */
async function recorded(source: string): Promise<{ events: number; counted: number; aggregates: number }> {
  const all = (await allEvents(db)).filter((event) => (event as unknown as { src_endpoint: { ip: string } }).src_endpoint.ip === source);
  const aggregates = all.map(({ unmapped: { novix } }) => novix.aggregate).filter((aggregate) => aggregate !== undefined);
  return { events: all.length - aggregates.length, counted: aggregates.reduce((sum, { count }) => sum + count, 0), aggregates: aggregates.length };
}

async function recordedAll(source: string, count: number): Promise<{ events: number; counted: number; aggregates: number }> {
  return eventually(async () => {
    const found = await recorded(source);
    return found.events + found.counted >= count && found;
  });
}

describe('refusals', () => {
  it('of a source that behaves have an event each', async () => {
    refuse('192.0.2.1', 20);
    expect(await recordedAll('192.0.2.1', 20)).toEqual({ events: 20, counted: 0, aggregates: 0 });
  });

  it('of a flood are counted beyond the first ones, in one record a second, and not one is missing', async () => {
    refuse('192.0.2.2', 5_000);
    refuse('192.0.2.3', 3);
    const { events, counted, aggregates } = await recordedAll('192.0.2.2', 5_000);
    expect({ all: events + counted, aggregates }).toEqual({ all: 5_000, aggregates: 1 });
    expect(events).toBeGreaterThanOrEqual(BURST);
    expect(events).toBeLessThan(BURST_AT_MOST);
    expect(await recordedAll('192.0.2.3', 3)).toEqual({ events: 3, counted: 0, aggregates: 0 });
  });

  it('while PostgreSQL is away are counted, and recorded when it is back', async () => {
    proxy.sever();
    await eventually(() => !journal.available);
    refuse('192.0.2.4', 50);
    await new Promise((resolve) => setTimeout(resolve, 1_200)); // at least one attempt to write the count fails
    refuse('192.0.2.4', 50);
    proxy.mend();
    expect(await recordedAll('192.0.2.4', 100)).toMatchObject({ events: 0, counted: 100 });
  });

  it('are counted once where the answer to the count’s own commit is lost and comes too late', async () => {
    const source = '192.0.2.5';
    proxy.breakNext(`"aggregate":{"source":"${source}"`, 'swallow-answer');
    refuse(source, BURST + 300);
    await eventually(async () => (await recorded(source)).events >= BURST);
    proxy.refuse();
    await eventually(async () => (await recorded(source)).counted > 0); // it is in the log, though nobody could say so
    await new Promise((resolve) => setTimeout(resolve, 400)); // longer than an outcome may take
    proxy.mend();
    refuse('192.0.2.9', BURST + 1);
    await recordedAll('192.0.2.9', BURST + 1); // whatever would be written again has been written with these
    const { events, counted, aggregates } = await recorded(source);
    expect({ all: events + counted, aggregates }).toEqual({ all: BURST + 300, aggregates: 1 });
  });

  it('are written out at the close', async () => {
    refuse('192.0.2.6', 1_000);
    await refusals.close();
    expect((await recorded('192.0.2.6')).counted).toBeGreaterThan(1_000 - BURST_AT_MOST);
    await journal.close(); // the last events of their own
    const { events, counted } = await recorded('192.0.2.6');
    expect(events + counted).toBe(1_000);
  });
});
