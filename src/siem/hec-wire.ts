import { isRecord } from './json-record.ts';
import type { ExportEvent } from './export-event.ts';
import { retry, type Outcome } from './sink.ts';

// The HTTP Event Collector of Splunk, as its documentation has it: https://help.splunk.com/en/splunk-enterprise/get-data-in/get-started-with-the-http-event-collector

const DEFAULT_PATH = '/services/collector/event';
/** Codes that find fault with the token's settings or with ours, and not with an event: incorrect index, no or a bad channel, no acknowledgement, token in the query. */
const SETTINGS_AT_FAULT: ReadonlySet<unknown> = new Set([7, 10, 11, 14, 16]);

/** What a HEC answered: to a batch the id to ask about, else how the batch fared. */
export type HecAnswer = { kind: 'taken'; ackId: number } | Exclude<Outcome, { kind: 'acknowledged' }>;

/** Where batches go, and where to ask whether they are indexed. */
export function hecUrls(url: string, channel: string): { events: string; acks: string } {
  const events = new URL(url);
  if (events.pathname === '/') events.pathname = DEFAULT_PATH;
  const acks = new URL(events);
  acks.pathname = `${events.pathname.replace(/\/(?:event(?:\/1\.0)?)?$/, '')}/ack`;
  acks.searchParams.set('channel', channel);
  return { events: events.href, acks: acks.href };
}

/** Objects one after the other, the events in them as they are in the log. */
export function hecBody(events: readonly ExportEvent[]): Buffer {
  return Buffer.concat(events.flatMap(({ index, timeMs, body }) => [
    Buffer.from(`{"time":${(timeMs / 1000).toFixed(3)},"source":"novix-gateway","sourcetype":"novix:ocsf","event":`), body, Buffer.from(`,"fields":{"audit_index":"${index}"}}\n`),
  ]));
}

export function ackBody(ackId: number): string {
  return JSON.stringify({ acks: [ackId] });
}

/** @param afterMs what the answer's Retry-After asks for */
export function readHecAnswer(status: number, text: string, afterMs: number): HecAnswer {
  const answer = parsed(text);
  const code = answer['code'];
  const reason = `the HEC answered ${status}${typeof code === 'number' ? `, code ${code}` : ''}${typeof answer['text'] === 'string' ? `: ${answer['text']}` : ''}`;
  if (status === 200) {
    if (code !== 0) return retry(`${reason}, which is no success`);
    if (!isAckId(answer['ackId'])) return retry('the HEC took events without an ackId: indexer acknowledgement is switched off for its token. Switch it on; until then nothing counts as delivered', { slow: true });
    return { kind: 'taken', ackId: answer['ackId'] };
  }
  if (status === 413) return { kind: 'refused', reason };
  if (status !== 400 && status !== 422) return retry(reason, { afterMs, slow: status < 500 && status !== 429 && status !== 408 });
  if (SETTINGS_AT_FAULT.has(code)) return retry(reason, { afterMs, slow: true });
  const place = answer['invalid-event-number'];
  return typeof place === 'number' && Number.isInteger(place) && place >= 0 ? { kind: 'poison', place, reason } : { kind: 'refused', reason };
}

/** Whether a batch is indexed; undefined for an answer that does not say. */
export function readAck(status: number, text: string, ackId: number): boolean | undefined {
  const { acks } = parsed(text);
  const state = status === 200 && isRecord(acks) ? acks[String(ackId)] : undefined;
  return typeof state === 'boolean' ? state : undefined;
}

function isAckId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : {};
  } catch {
    return {};
  }
}
