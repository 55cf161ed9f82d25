import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/harness.ts';
import { eventText, eventTexts, openBench, type ExportBench } from './export-bench.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { startHttpReceiver, type HttpReceiver } from './http-receiver.ts';

// Who exports, from where, and what operators are told. The receiver is a collector of OTLP.

const LOCK = 7_204_115_005;

let collector: HttpReceiver;
let bench: ExportBench;
beforeAll(async () => {
  collector = await startHttpReceiver();
});
afterAll(() => collector.close());
beforeEach(async () => {
  bench = await openBench();
  collector.received.length = 0;
  collector.answer(() => ({}));
});
afterEach(() => bench.close());

const indexes = (path?: string): number[] => collector.received.filter((one) => path === undefined || one.path === path)
  .flatMap(({ body }) => [...body.matchAll(/"audit\.index","value":\{"intValue":"(\d+)"/g)].map(([, index]) => Number(index)));
const all = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, place) => from + place);
const sink = (name: string, cursor?: number): Promise<string> => bench.sink({ name, type: 'otlp', url: `${collector.origin}/${name}`, ...(cursor !== undefined && { cursor }) });
const exporter = (limits = {}): ReturnType<ExportBench['exporter']> => bench.exporter({ allowed: [collector.origin], limits });
const sleep = (ms: number): Promise<void> => new Promise((resolve) => {
  setTimeout(resolve, ms);
});
const leaders = async (): Promise<number[]> => (await bench.db.query<{ pid: number }>("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) + objid::bigint = $1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", [LOCK])).rows.map(({ pid }) => pid);

describe('of two exporters', () => {
  it('one delivers, and each event once', async () => {
    const id = await sink('a');
    exporter();
    exporter();
    for (let round = 0; round < 20; round += 1) {
      await bench.append(eventTexts(10));
      await sleep(10);
    }
    await bench.reaches(id, 200);
    expect(indexes()).toEqual(all(0, 200));
    expect(await leaders()).toHaveLength(1);
  });

  it('the other takes over when the first stops, from where it stood', async () => {
    const id = await sink('a');
    const first = exporter();
    await eventually(async () => (await leaders()).length === 1);
    exporter();
    await bench.append(eventTexts(5));
    await bench.reaches(id, 5);
    await first.close();
    await bench.append(eventTexts(5));
    await bench.reaches(id, 10);
    expect(indexes()).toEqual(all(0, 10));
  });

  it('one takes over when the connection of the leader breaks, and nothing is lost', async () => {
    const id = await sink('a');
    exporter();
    exporter();
    await bench.append(eventTexts(5));
    await bench.reaches(id, 5);
    for (let round = 0; round < 3; round += 1) {
      const [pid] = await eventually(async () => {
        const found = await leaders();
        return found.length === 1 && found;
      });
      await bench.db.query('SELECT pg_terminate_backend($1)', [pid]);
      await bench.append(eventTexts(5));
      await bench.reaches(id, 10 + 5 * round);
    }
    expect(new Set(indexes())).toEqual(new Set(all(0, 20)));
  });

  it('both may believe to lead, and still no cursor goes back or skips', async () => {
    const id = await sink('a');
    // As a leader that was cut off would go on: its answers come late, while the other has moved the cursor.
    let first = true;
    collector.answer(async () => {
      if (first) {
        first = false;
        await bench.db.query('UPDATE siem_sinks SET cursor = 3 WHERE id = $1', [id]);
      }
      return {};
    });
    await bench.append(eventTexts(5));
    const running = exporter();
    await bench.reaches(id, 5);
    expect(indexes()).toEqual([...all(0, 5), ...all(3, 5)]);
    expect(await running.metric('novix_siem_events_delivered_total', 'a')).toBe(2);
  });
});

it('an exporter that starts anew resumes at the cursor', async () => {
  const id = await sink('a');
  await bench.append(eventTexts(3));
  const first = exporter();
  await bench.reaches(id, 3);
  await first.close();
  await bench.append(eventTexts(4));
  await sleep(100);
  expect(indexes()).toEqual(all(0, 3));
  exporter();
  await bench.reaches(id, 7);
  expect(indexes()).toEqual(all(0, 7));
});

it('what was sent and not acknowledged before a stop is sent again', async () => {
  const id = await sink('a');
  await bench.append(eventTexts(3));
  let hang = true;
  collector.answer(async () => {
    if (hang) await sleep(2_000);
    return {};
  });
  const first = exporter();
  await eventually(() => collector.received.length === 1);
  await first.close();
  expect((await bench.state(id)).cursor).toBe(0);
  hang = false;
  exporter();
  await bench.reaches(id, 3);
  expect(indexes()).toEqual([...all(0, 3), ...all(0, 3)]);
});

it('goes on after an outage of PostgreSQL, and stops without delay during one', async () => {
  const proxy = await startTcpProxy(bench.databaseUrl);
  try {
    const id = await sink('a');
    const running = bench.exporter({ allowed: [collector.origin], databaseUrl: proxy.url });
    await bench.append(eventTexts(3));
    await bench.reaches(id, 3);
    proxy.sever();
    await bench.append(eventTexts(3));
    await sleep(500);
    expect((await bench.state(id)).cursor).toBe(3);
    proxy.mend();
    await bench.reaches(id, 6);
    proxy.breakNext('UPDATE siem_sinks SET cursor', 'swallow-answer'); // it has moved, and nobody knows
    await bench.append(eventTexts(3));
    await eventually(() => proxy.broken);
    await bench.append(eventTexts(1));
    await bench.reaches(id, 10);
    expect(indexes()).toEqual(all(0, 10));
    proxy.sever();
    const stoppedMs = performance.now();
    await running.close();
    expect(performance.now() - stoppedMs).toBeLessThan(2_000);
  } finally {
    await proxy.close();
  }
});

it('a sink that hangs holds up no other', async () => {
  const [slow, quick] = [await sink('slow'), await sink('quick')];
  collector.answer(async ({ path }) => {
    if (path === '/slow') await sleep(1_500);
    return {};
  });
  await bench.append(eventTexts(10));
  exporter();
  await bench.reaches(quick, 10, 1_000);
  expect((await bench.state(slow)).cursor).toBe(0);
  await bench.reaches(slow, 10);
});

it('a change of a sink acts within a second, also on one that waits or hangs', async () => {
  const id = await sink('a');
  collector.answer(async ({ path }) => {
    if (path === '/a') await sleep(4_000);
    return {};
  });
  await bench.append(eventTexts(2));
  exporter({ reconcilePauseMs: 500 });
  await eventually(() => collector.received.length > 0);
  await bench.db.query('UPDATE siem_sinks SET url = $2 WHERE id = $1', [id, `${collector.origin}/b`]);
  await bench.reaches(id, 2, 1_000);
  expect(indexes('/b')).toEqual([0, 1]);
  await bench.db.query('UPDATE siem_sinks SET enabled = false WHERE id = $1', [id]);
  await sleep(700);
  await bench.append(eventTexts(1));
  await sleep(300);
  expect((await bench.state(id)).cursor).toBe(2);
  await bench.db.query('UPDATE siem_sinks SET enabled = true WHERE id = $1', [id]);
  await bench.reaches(id, 3, 1_500);
});

it('a sink that is deleted during a delivery ends in peace', async () => {
  const id = await sink('a');
  collector.answer(async () => {
    await bench.db.query('DELETE FROM siem_sinks WHERE id = $1', [id]);
    return {};
  });
  await bench.append(eventTexts(2));
  const running = exporter();
  await eventually(async () => collector.received.length === 1 && (await running.metric('novix_siem_sink_lag_events', 'a')) === undefined && (await running.metric('novix_siem_events_delivered_total', 'a')) === undefined);
  const other = await sink('b', 0);
  await bench.reaches(other, 2);
  expect(indexes('/a')).toEqual([0, 1]);
});

describe('leaves that are not there any more', () => {
  async function prune(from: number, to: number): Promise<void> {
    await bench.db.query('ALTER TABLE audit_leaves DISABLE TRIGGER USER');
    await bench.db.query('DELETE FROM audit_leaves WHERE index >= $1 AND index < $2', [from, to]);
  }

  it.each<[string, number, number]>([['at the cursor', 0, 4], ['in the middle', 3, 6], ['up to the head', 7, 10], ['all of them', 0, 10]])('%s are skipped, and counted as parked', async (_, from, to) => {
    await bench.append(eventTexts(10));
    await prune(from, to);
    const id = await sink('a', 0);
    const running = exporter();
    await bench.reaches(id, 10);
    expect(indexes()).toEqual([...all(0, from), ...all(to, 10)]);
    expect(await bench.parked(id)).toEqual([{ first: from, last: to - 1, events: to - from, reason: 'pruned before delivery' }]);
    expect(await running.metric('novix_siem_events_parked_total', 'a')).toBe(to - from);
    await eventually(async () => (await bench.firing('siem_parked', 'a')).length === 1);
  });
});

it('a leaf that is no JSON is parked, and spoils nothing that goes out with it', async () => {
  await bench.append(eventTexts(1));
  await bench.db.query("INSERT INTO audit_pending (id, body) VALUES (gen_random_uuid(), '\\xff00'::bytea), (gen_random_uuid(), 'no json'::bytea), (gen_random_uuid(), '[1]'::bytea)");
  await bench.append(eventTexts(1));
  const id = await sink('a', 0);
  exporter();
  await bench.reaches(id, 5);
  expect(indexes()).toEqual([0, 4]);
  expect((await bench.parked(id)).map(({ first, reason }) => [first, reason])).toEqual([1, 2, 3].map((index) => [index, 'is no JSON object']));
});

it('keeps a bounded number of parked rows, and the exact count of all', async () => {
  collector.answer(() => ({ status: 400 }));
  await bench.append(eventTexts(12));
  const id = await sink('a', 0);
  exporter({ parkedRowsMax: 5 });
  expect(await bench.reaches(id, 12)).toMatchObject({ parked: 12 });
  await eventually(async () => (await bench.parked(id)).length === 5);
  expect((await bench.parked(id)).map(({ first }) => first)).toEqual(all(7, 12));
});

describe('operators are told of a sink that', () => {
  it('is too many events behind, until it has caught up', async () => {
    const id = await sink('a');
    collector.answer(() => ({ status: 503 }));
    await bench.append(eventTexts(30));
    const running = exporter({ lagEventsMax: 20 });
    await eventually(async () => (await bench.firing('siem_lag', 'a')).length === 1);
    expect(await bench.firing('siem_lag', 'a')).toEqual([expect.stringMatching(/^30 events not delivered/)]);
    expect(await running.metric('novix_siem_sink_lag_events', 'a')).toBe(30);
    collector.answer(() => ({}));
    await bench.reaches(id, 30);
    await eventually(async () => (await bench.firing('siem_lag', 'a')).length === 0);
    expect(await running.metric('novix_siem_sink_lag_events', 'a')).toBe(0);
    await bench.db.query('UPDATE siem_sinks SET cursor = 0, enabled = false'); // switched off: behind on purpose
    await sleep(150);
    expect(await bench.firing('siem_lag', 'a')).toEqual([]);
    await bench.db.query('UPDATE siem_sinks SET enabled = true');
    collector.answer(() => ({ status: 503 }));
    await bench.db.query('UPDATE siem_sinks SET cursor = 0');
    await eventually(async () => (await bench.firing('siem_lag', 'a')).length === 1); // again
  });

  it('has an old event to deliver, however few there are', async () => {
    collector.answer(() => ({ status: 503 }));
    await sink('a');
    await bench.append([eventText('old', { timeMs: Date.now() - 301_000 }), eventText('new')]);
    await sink('b');
    await bench.append([eventText('new')]);
    exporter();
    await eventually(async () => (await bench.firing('siem_lag', 'a')).length === 1);
    expect((await bench.firing('siem_lag', 'a'))[0]).toMatch(/^3 events not delivered, the oldest 30\d s old$/);
    expect(await bench.firing('siem_lag', 'b')).toEqual([]);
  });

  it('was behind when another exporter led, and has caught up since', async () => {
    collector.answer(() => ({ status: 503 }));
    const id = await sink('a');
    await bench.append(eventTexts(30));
    const first = exporter({ lagEventsMax: 20 });
    await eventually(async () => (await bench.firing('siem_lag', 'a')).length === 1);
    await first.close();
    collector.answer(() => ({}));
    exporter({ lagEventsMax: 20 });
    await bench.reaches(id, 30);
    expect(await eventually(async () => (await bench.firing('siem_lag', 'a')).length === 0)).toBe(true);
  });
});

it('waits longer after each failure, and begins anew after a success', async () => {
  collector.answer(() => ({ status: 503 }));
  const id = await sink('a');
  await bench.append(eventTexts(1));
  exporter({ backoffBaseMs: 400 });
  await sleep(2_500);
  expect(collector.received.length).toBeGreaterThan(1);
  expect(collector.received.length).toBeLessThan(20); // without a growing pause it would be hundreds
  collector.answer(() => ({}));
  await bench.reaches(id, 1, 15_000);
});
