import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { hostname } from 'node:os';
import { Pki } from '../support/pki.ts';
import { eventually } from '../support/harness.ts';
import { eventText, eventTexts, NASTY, openBench, TOKEN, type ExportBench } from './export-bench.ts';
import { startHttpReceiver, type HttpReceiver, type Received } from './http-receiver.ts';

// Splunk's HTTP Event Collector: what was received is not what is indexed.

const EVENTS = '/services/collector/event';
const ACK = /^\/services\/collector\/ack\?channel=/;

interface HecEvent {
  time: number;
  source: string;
  sourcetype: string;
  event: { api: { operation: string } };
  fields: { audit_index: string };
}

let pki: Pki;
let hec: HttpReceiver;
let bench: ExportBench;
beforeAll(async () => {
  pki = await Pki.create('HEC authority');
  hec = await startHttpReceiver(await pki.issue({ subject: '/CN=hec', san: 'IP:127.0.0.1' }));
});
afterAll(async () => {
  await hec.close();
  await pki.remove();
});
beforeEach(async () => {
  bench = await openBench();
  hec.received.length = 0;
  acknowledged.clear();
  nextAck = 0;
});
afterEach(() => bench.close());

const acknowledged = new Set<number>();
let nextAck = 0;
const batches = (): Received[] => hec.received.filter(({ path }) => path === EVENTS);
/** Objects one after the other, which a parser of JSON takes apart by itself, whatever stands between them. */
function eventsOf(body: string): HecEvent[] {
  const events: HecEvent[] = [];
  let [depth, inText, start] = [0, false, 0];
  for (let place = 0; place < body.length; place += 1) {
    const character = body[place];
    if (inText) {
      if (character === '\\') place += 1;
      else if (character === '"') inText = false;
    } else if (character === '"') inText = true;
    else if (character === '{') depth += 1;
    else if (character === '}' && --depth === 0) {
      events.push(JSON.parse(body.slice(start, place + 1)) as HecEvent);
      start = place + 1;
    }
  }
  expect(body.slice(start).trim()).toBe('');
  return events;
}
const indexes = (body: string): number[] => eventsOf(body).map(({ fields }) => Number(fields.audit_index));

/** A HEC that takes everything, and indexes it after it was asked once. */
function indexing(request: Received): { body: unknown; status?: number } {
  if (request.path === EVENTS) return { body: { text: 'Success', code: 0, ackId: (nextAck += 1) } };
  const { acks } = JSON.parse(request.body) as { acks: number[] };
  const states = acks.map((id) => [id, acknowledged.has(id)]);
  for (const id of acks) acknowledged.add(id);
  return { body: { acks: Object.fromEntries(states) as unknown } };
}
const sink = (cursor?: number): Promise<string> => bench.sink({ name: 'splunk', type: 'hec', url: hec.origin, token: TOKEN, ca: pki.ca, ...(cursor !== undefined && { cursor }) });
const exporter = (limits = {}): ReturnType<ExportBench['exporter']> => bench.exporter({ allowed: [hec.origin], limits });

it('delivers each event once to a HEC that indexes, with token, channel and index, and moves the cursor only then', async () => {
  hec.answer(indexing);
  const texts = [...NASTY.map((value) => eventText(value, { timeMs: 1_764_000_000_123 })), '{ "time" : 1,\n "api":{"operation":"pretty"}, "big": 123456789012345678901234567890 }'];
  const id = await sink();
  await bench.append(texts);
  const running = exporter();
  const state = await bench.reaches(id, texts.length);
  expect(batches()).toHaveLength(1);
  const [{ body, headers }] = batches() as [Received];
  expect(headers).toMatchObject({ authorization: `Splunk ${TOKEN}`, 'x-splunk-request-channel': id });
  expect(eventsOf(body).map(({ event }) => event.api.operation)).toEqual([...NASTY, 'pretty']);
  expect(indexes(body)).toEqual(texts.map((_, place) => place));
  expect(eventsOf(body)[0]).toMatchObject({ source: 'novix-gateway', sourcetype: 'novix:ocsf' });
  expect(body).toContain('"time":1764000000.123,');
  for (const text of texts) expect(body).toContain(`"event":${text},`); // to the byte
  const polls = hec.received.filter(({ path }) => ACK.test(path));
  expect(polls.map(({ path, body: asked }) => [path, asked])).toEqual(polls.map(() => [`/services/collector/ack?channel=${id}`, '{"acks":[1]}']));
  expect(polls.length).toBeGreaterThanOrEqual(2);
  expect(state).toMatchObject({ parked: 0, lastError: null, lastDeliveredAt: expect.any(Date) });
  expect(await running.metric('novix_siem_events_delivered_total', 'splunk')).toBe(texts.length);
  expect(await running.metric('novix_siem_delivery_failures_total', 'splunk')).toBe(0);
});

it('that answers 200 and never acknowledges gets the same events again, and the cursor stays', async () => {
  hec.answer(({ path }) => (path === EVENTS ? { body: { text: 'Success', code: 0, ackId: 7 } } : { body: { acks: { 7: false } } }));
  const id = await sink();
  await bench.append(eventTexts(3));
  const running = exporter({ ackTimeoutMs: 60 });
  await eventually(() => batches().length >= 3);
  expect(batches().map(({ body }) => indexes(body)).slice(0, 3)).toEqual([[0, 1, 2], [0, 1, 2], [0, 1, 2]]);
  expect(hec.received.some(({ path }) => ACK.test(path))).toBe(true);
  expect(await bench.state(id)).toMatchObject({ cursor: 0, parked: 0, lastDeliveredAt: null, lastError: expect.stringContaining('not acknowledged within') });
  expect(await running.metric('novix_siem_sink_lag_events', 'splunk')).toBe(3);
  expect(await running.metric('novix_siem_events_delivered_total', 'splunk')).toBe(0);
});

it('that has acknowledgement switched off moves nothing, and the sink says so', async () => {
  hec.answer(() => ({ body: { text: 'Success', code: 0 } }));
  const id = await sink();
  await bench.append(eventTexts(2));
  exporter();
  await eventually(() => batches().length >= 2);
  expect(await bench.state(id)).toMatchObject({ cursor: 0, parked: 0, lastError: expect.stringMatching(/acknowledgement is switched off/) });
});

it.each([[6, 'Invalid data format'], [12, 'Event field is required'], [13, 'Event field cannot be blank']])('that names a poison event by code %i has exactly that one parked, and gets all the others', async (code, text) => {
  const accepted: number[][] = [];
  hec.answer((request) => {
    if (request.path !== EVENTS) return indexing(request);
    const place = eventsOf(request.body).findIndex(({ event }) => event.api.operation === 'poison');
    if (place !== -1) return { status: 400, body: { text, code, 'invalid-event-number': place } };
    accepted.push(indexes(request.body));
    return indexing(request);
  });
  const id = await sink();
  await bench.append(['a', 'b', 'poison', 'c', 'poison', 'd'].map((value) => eventText(value)));
  const running = exporter();
  await bench.reaches(id, 6);
  expect(accepted).toEqual([[0, 1, 3, 5]]);
  expect(await bench.parked(id)).toEqual([2, 4].map((index) => ({ first: index, last: index, events: 1, reason: `the HEC answered 400, code ${code}: ${text}` })));
  expect(await bench.state(id)).toMatchObject({ parked: 2 });
  expect(await running.metric('novix_siem_events_parked_total', 'splunk')).toBe(2);
  expect(await running.metric('novix_siem_events_delivered_total', 'splunk')).toBe(4);
  await eventually(async () => (await bench.firing('siem_parked', 'splunk')).length === 1);
});

it('that refuses with 400 and no number has the poison event found by halves', async () => {
  const accepted: number[] = [];
  hec.answer((request) => {
    if (request.path !== EVENTS) return indexing(request);
    if (eventsOf(request.body).some(({ event }) => event.api.operation === 'poison')) return { status: 400, body: { text: 'Invalid data format', code: 6 } };
    accepted.push(...indexes(request.body));
    return indexing(request);
  });
  const id = await sink();
  const texts = eventTexts(100);
  for (const index of [0, 41, 99]) texts[index] = eventText('poison');
  await bench.append(texts);
  exporter();
  await bench.reaches(id, 100);
  expect(accepted).toEqual(Array.from({ length: 100 }, (_, index) => index).filter((index) => ![0, 41, 99].includes(index)));
  expect((await bench.parked(id)).map(({ first, last, events }) => [first, last, events])).toEqual([[0, 0, 1], [41, 41, 1], [99, 99, 1]]);
  expect(batches().length).toBeLessThan(60);
});

describe('parks nothing, and delivers everything later,', () => {
  it.each<[number, unknown]>([
    [503, { text: 'Server is busy', code: 9 }], [500, 'no JSON'], [429, {}], [401, { text: 'Invalid authorization', code: 3 }], [403, { text: 'Invalid token', code: 4 }], [404, 'not here'], [301, ''], [400, { text: 'Incorrect index', code: 7, 'invalid-event-number': 0 }], [400, { text: 'Data channel is missing', code: 10 }],
  ])('after %i %j', async (status, body) => {
    let refusals = 2;
    hec.answer((request) => {
      if (request.path !== EVENTS || refusals === 0) return indexing(request);
      refusals -= 1;
      return { status, body, headers: { location: `${hec.origin}/elsewhere` } };
    });
    const id = await sink();
    await bench.append(eventTexts(4));
    const running = exporter();
    await eventually(async () => (await bench.state(id)).lastError?.includes(String(status)));
    await bench.reaches(id, 4);
    expect(batches().map(({ body: sent }) => indexes(sent))).toEqual([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]);
    expect(hec.received.some(({ path }) => path === '/elsewhere')).toBe(false);
    expect(await bench.state(id)).toMatchObject({ parked: 0, lastError: null });
    expect(await running.metric('novix_siem_delivery_failures_total', 'splunk')).toBe(2);
  });

  it('when the answer to a question about an acknowledgement fails', async () => {
    let failures = 3;
    hec.answer((request) => (request.path !== EVENTS && (failures -= 1) >= 0 ? { status: 503, body: {} } : indexing(request)));
    const id = await sink();
    await bench.append(eventTexts(2));
    exporter({ ackTimeoutMs: 5_000 });
    await bench.reaches(id, 2);
    expect(batches()).toHaveLength(1);
  });
});

it('that takes long to index has several batches open, and the cursor still moves in order', async () => {
  const open = new Set<number>();
  let most = 0;
  hec.answer(async (request) => {
    if (request.path === EVENTS) {
      open.add((nextAck += 1));
      most = Math.max(most, open.size);
      return { body: { text: 'Success', code: 0, ackId: nextAck } };
    }
    const [ackId] = (JSON.parse(request.body) as { acks: number[] }).acks as [number];
    const indexed = hec.received.filter(({ path, body }) => path !== EVENTS && body === request.body).length > 10 - 2 * ackId; // the last batch first
    if (indexed) open.delete(ackId);
    return { body: { acks: { [ackId]: indexed } } };
  });
  const id = await sink();
  await bench.append(eventTexts(95));
  const cursors = new Set<number>();
  exporter({ batchEventsMax: 10, hecBatchesInFlight: 4, ackTimeoutMs: 5_000 });
  await eventually(async () => {
    const { cursor } = await bench.state(id);
    cursors.add(cursor);
    return cursor === 95;
  });
  expect(most).toBe(4);
  expect(batches().flatMap(({ body }) => indexes(body))).toEqual(Array.from({ length: 95 }, (_, index) => index));
  expect([...cursors].filter((cursor) => cursor % 10 !== 0)).toEqual([95]);
});

it('that refuses one of several open batches gets all behind it again, and loses none', async () => {
  let refused = false;
  const accepted: number[] = [];
  hec.answer((request) => {
    if (request.path === EVENTS && !refused && indexes(request.body).includes(15)) {
      refused = true;
      return { status: 503, body: { text: 'Server is busy', code: 9 } };
    }
    if (request.path === EVENTS) accepted.push(...indexes(request.body));
    return indexing(request);
  });
  const id = await sink();
  await bench.append(eventTexts(40));
  const running = exporter({ batchEventsMax: 10, hecBatchesInFlight: 4 });
  await bench.reaches(id, 40);
  const at = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, place) => from + place);
  expect(accepted).toEqual([...at(0, 10), ...at(20, 40), ...at(10, 40)]);
  expect(await running.metric('novix_siem_events_delivered_total', 'splunk')).toBe(40);
});

it('never tells its token in last_error, even where the HEC repeats it', async () => {
  hec.answer(() => ({ status: 403, body: { text: `Invalid token ${TOKEN}\n`, code: 4 } }));
  const id = await sink();
  await bench.append(eventTexts(1));
  exporter();
  const { lastError } = await eventually(async () => {
    const state = await bench.state(id);
    return state.lastError !== null && state;
  });
  expect(lastError).toBe('the HEC answered 403, code 4: Invalid token …');
});

it('is not called where its certificate is not vouched for, or its origin is not allowed', async () => {
  hec.answer(indexing);
  await bench.append(eventTexts(1));
  const strange = await bench.sink({ name: 'strange', type: 'hec', url: hec.origin, token: TOKEN, cursor: 0 });
  const running = exporter();
  await eventually(async () => /certificate|issuer/i.test((await bench.state(strange)).lastError ?? ''));
  await running.close();
  const id = await sink(0);
  bench.exporter();
  await eventually(async () => (await bench.state(id)).lastError?.includes('not public'));
  const named = await bench.sink({ name: 'named', type: 'hec', url: `https://${hostname()}:${new URL(hec.origin).port}`, token: TOKEN, ca: pki.ca, cursor: 0 });
  await eventually(async () => /not public|ENOTFOUND|EAI_AGAIN/.test((await bench.state(named)).lastError ?? '')); // seen at the connection alone
  expect(hec.received).toEqual([]);
});
