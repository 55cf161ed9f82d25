import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/harness.ts';
import { eventText, eventTexts, NASTY, openBench, TOKEN, type ExportBench } from './export-bench.ts';
import { startHttpReceiver, type HttpReceiver } from './http-receiver.ts';

// OTLP over HTTP: the answer is the acknowledgement, and says how much of a batch was taken.

interface LogRecord {
  timeUnixNano: string;
  observedTimeUnixNano: string;
  severityNumber: number;
  severityText: string;
  body: { stringValue: string };
  attributes: { key: string; value: Record<string, string> }[];
}

interface LogsRequest {
  resourceLogs: { resource: { attributes: unknown[] }; scopeLogs: { logRecords: LogRecord[] }[] }[];
}

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

const recordsOf = (body: string): LogRecord[] => (JSON.parse(body) as LogsRequest).resourceLogs.flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords));
const indexOf = ({ attributes }: LogRecord): number => Number(attributes.find(({ key }) => key === 'audit.index')!.value['intValue']);
const indexes = (body: string): number[] => recordsOf(body).map(indexOf);
const operation = ({ body }: LogRecord): string => (JSON.parse(body.stringValue) as { api: { operation: string } }).api.operation;
const all = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
const sink = (more: { token?: string; url?: string } = {}): Promise<string> => bench.sink({ name: 'collector', type: 'otlp', url: collector.origin, ...more });
const exporter = (limits = {}): ReturnType<ExportBench['exporter']> => bench.exporter({ allowed: [collector.origin], limits });

it('delivers each event as one log record, whatever is in it', async () => {
  const timeMs = 1_764_000_000_123;
  const texts = [...NASTY.map((value) => eventText(value, { timeMs })), eventText('failed', { timeMs, severityId: 2 }), eventText('other', { timeMs, severityId: 99 })];
  const id = await sink({ token: TOKEN });
  await bench.append(texts);
  const running = exporter();
  await bench.reaches(id, texts.length);
  expect(collector.received).toHaveLength(1);
  const [{ path, headers, body }] = collector.received as [(typeof collector.received)[0]];
  expect([path, headers.authorization, headers['content-type']]).toEqual(['/v1/logs', `Bearer ${TOKEN}`, 'application/json']);
  const records = recordsOf(body);
  expect(records.map((record) => record.body.stringValue)).toEqual(texts);
  expect(records.map(operation)).toEqual([...NASTY, 'failed', 'other']);
  expect(indexes(body)).toEqual(all(texts.length));
  const ids = (await bench.db.query<{ id: string }>('SELECT id FROM audit_leaves ORDER BY index')).rows.map((row) => row.id);
  expect(records.map(({ attributes }) => attributes[1])).toEqual(ids.map((uid) => ({ key: 'audit.event_id', value: { stringValue: uid } })));
  expect(records[0]).toMatchObject({ timeUnixNano: '1764000000123000000', observedTimeUnixNano: expect.stringMatching(/^\d{19}$/), severityNumber: 9, severityText: 'Informational' });
  expect(records.slice(-2).map(({ severityNumber, severityText }) => [severityNumber, severityText])).toEqual([[10, 'Low'], [0, 'Unknown']]);
  expect((JSON.parse(body) as LogsRequest).resourceLogs[0]!.resource.attributes).toEqual([{ key: 'service.name', value: { stringValue: 'novix-gateway' } }]);
  expect(await running.metric('novix_siem_events_delivered_total', 'collector')).toBe(texts.length);
});

it('calls the whole path where one is given, and sends no credentials that it has not', async () => {
  const id = await sink({ url: `${collector.origin}/otlp/tenant-1/v1/logs` });
  await bench.append(eventTexts(1));
  exporter();
  await bench.reaches(id, 1);
  expect(collector.received.map(({ path, headers }) => [path, headers.authorization])).toEqual([['/otlp/tenant-1/v1/logs', undefined]]);
});

it('never sends more than 500 events or 1 MiB of them at once', async () => {
  const id = await sink();
  const large = Array.from({ length: 40 }, (_, place) => eventText(`${place}${'x'.repeat(60_000)}`));
  await bench.append([...eventTexts(1_200), ...large]);
  exporter();
  await bench.reaches(id, 1_240, 20_000);
  const sizes = collector.received.map(({ body }) => recordsOf(body).length);
  expect(sizes.slice(0, 2)).toEqual([500, 500]);
  expect(collector.received.flatMap(({ body }) => indexes(body))).toEqual(all(1_240));
  for (const { body } of collector.received) expect(recordsOf(body).reduce((sum, record) => sum + Buffer.byteLength(record.body.stringValue), 0)).toBeLessThanOrEqual(1024 * 1024);
});

describe('a partial success', () => {
  it.each([3, '3'])('rejects %j for good: they are parked by their number, and nothing is sent again', async (rejectedLogRecords) => {
    let first = true;
    collector.answer(() => {
      const body = first ? { partialSuccess: { rejectedLogRecords, errorMessage: 'attribute\ntoo long' } } : {};
      first = false;
      return { body };
    });
    const id = await sink();
    await bench.append(eventTexts(10));
    const running = exporter();
    await bench.reaches(id, 10);
    await bench.append(eventTexts(2));
    await bench.reaches(id, 12);
    expect(collector.received.map(({ body }) => indexes(body))).toEqual([all(10), [10, 11]]);
    expect(await bench.parked(id)).toEqual([{ first: 0, last: 9, events: 3, reason: 'the collector rejected 3: attribute too long' }]);
    expect(await bench.state(id)).toMatchObject({ cursor: 12, parked: 3 });
    expect(await running.metric('novix_siem_events_parked_total', 'collector')).toBe(3);
    expect(await running.metric('novix_siem_events_delivered_total', 'collector')).toBe(9);
    await eventually(async () => (await bench.firing('siem_parked', 'collector'))[0] === '3 of the events 0 to 9: the collector rejected 3: attribute too long');
  });

  it.each([{ partialSuccess: {} }, { partialSuccess: { rejectedLogRecords: 0, errorMessage: 'a warning' } }, { partialSuccess: { rejectedLogRecords: '0' } }, { partialSuccess: null }, ''])('that rejects nothing is a success: %j', async (body) => {
    collector.answer(() => ({ body }));
    const id = await sink();
    await bench.append(eventTexts(5));
    exporter();
    expect(await bench.reaches(id, 5)).toMatchObject({ parked: 0 });
    expect(collector.received).toHaveLength(1);
  });

  it('of more than was sent counts what was sent', async () => {
    collector.answer(() => ({ body: { partialSuccess: { rejectedLogRecords: 99 } } }));
    const id = await sink();
    await bench.append(eventTexts(5));
    const running = exporter();
    expect(await bench.reaches(id, 5)).toMatchObject({ parked: 5, lastDeliveredAt: null });
    expect(await running.metric('novix_siem_events_delivered_total', 'collector')).toBe(0);
  });
});

it.each([400, 422, 413])('a refusal by %i is not repeated as it is: the poison event is found and parked, all others arrive once', async (status) => {
  const accepted: number[] = [];
  collector.answer(({ body }) => {
    if (recordsOf(body).some((record) => operation(record) === 'poison')) return { status, body: { code: 3, message: 'bad record' } };
    accepted.push(...indexes(body));
    return {};
  });
  const id = await sink();
  const texts = eventTexts(64);
  for (const index of [7, 8]) texts[index] = eventText('poison');
  await bench.append(texts);
  const running = exporter();
  await bench.reaches(id, 64);
  expect(accepted).toEqual(all(64).filter((index) => index !== 7 && index !== 8));
  expect(await bench.parked(id)).toEqual([7, 8].map((index) => ({ first: index, last: index, events: 1, reason: `the collector answered ${status}: bad record` })));
  expect(await running.metric('novix_siem_events_delivered_total', 'collector')).toBe(62);
});

it('a batch that is too large (413) is halved, and nothing of it parked', async () => {
  const accepted: number[] = [];
  collector.answer(({ body }) => {
    if (recordsOf(body).length > 10) return { status: 413 };
    accepted.push(...indexes(body));
    return {};
  });
  const id = await sink();
  await bench.append(eventTexts(100));
  exporter();
  expect(await bench.reaches(id, 100)).toMatchObject({ parked: 0 });
  expect(accepted).toEqual(all(100));
});

describe('parks nothing, and delivers everything later,', () => {
  it.each([429, 500, 502, 503, 504, 401, 403, 404, 302])('after %i', async (status) => {
    let refusals = 2;
    collector.answer(() => ((refusals -= 1) >= 0 ? { status, headers: { location: `${collector.origin}/elsewhere` } } : {}));
    const id = await sink();
    await bench.append(eventTexts(4));
    exporter();
    expect(await bench.reaches(id, 4)).toMatchObject({ parked: 0, lastError: null });
    expect(collector.received.map(({ path, body }) => [path, indexes(body)])).toEqual(Array.from({ length: 3 }, () => ['/v1/logs', all(4)]));
  });

  it.each([() => '1', () => new Date(Math.ceil(Date.now() / 1000) * 1000 + 1_000).toUTCString()])('and not before Retry-After says so', async (retryAfter) => {
    let refusals = 1;
    collector.answer(() => ((refusals -= 1) >= 0 ? { status: 429, headers: { 'retry-after': retryAfter() } } : {}));
    const id = await sink();
    await bench.append(eventTexts(1));
    exporter();
    await bench.reaches(id, 1);
    const [first, second] = collector.received.map(({ atMs }) => atMs) as [number, number];
    expect(second - first).toBeGreaterThanOrEqual(950);
    expect(second - first).toBeLessThan(4_000);
  });

  it('where the answer is not one of OTLP, or much too long', async () => {
    const answers = ['<html>sign in first</html>', JSON.stringify({ padding: 'x'.repeat(100_000) }), '{}'];
    collector.answer(() => ({ body: answers.shift()! }));
    const id = await sink();
    await bench.append(eventTexts(1));
    exporter();
    expect(await bench.reaches(id, 1)).toMatchObject({ parked: 0 });
    expect(collector.received).toHaveLength(3);
  });
});
