import { isRecord } from './json-record.ts';
import type { ExportEvent } from './export-event.ts';
import { ACKNOWLEDGED, retry, type Outcome } from './sink.ts';

// OTLP 1.x over HTTP in its JSON encoding: https://opentelemetry.io/docs/specs/otlp/#otlphttp

const DEFAULT_PATH = '/v1/logs';
/** The specification's own list; of every other the same request would be refused again. */
const RETRYABLE: ReadonlySet<number> = new Set([429, 502, 503, 504]);
/** These find fault with where and as whom we call, never with an event: a mistyped path must not cost the records. */
const SETTINGS_AT_FAULT: ReadonlySet<number> = new Set([401, 403, 404, 405, 407, 415]);

/** Severity numbers of OTLP by severity ids of OCSF: https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber */
const SEVERITIES: Readonly<Record<number, readonly [number: number, text: string]>> = {
  1: [9, 'Informational'], 2: [10, 'Low'], 3: [13, 'Medium'], 4: [17, 'High'], 5: [18, 'Critical'], 6: [21, 'Fatal'],
};

export function otlpUrl(url: string): string {
  const logs = new URL(url);
  if (logs.pathname === '/') logs.pathname = DEFAULT_PATH;
  return logs.href;
}

export function otlpBody(events: readonly ExportEvent[], nowMs: number): string {
  const attribute = (key: string, value: Record<string, string>): unknown => ({ key, value });
  return JSON.stringify({
    resourceLogs: [{
      resource: { attributes: [attribute('service.name', { stringValue: 'novix-gateway' })] },
      scopeLogs: [{
        scope: { name: 'novix.audit' },
        logRecords: events.map(({ index, id, text, timeMs, severityId }) => {
          const [severityNumber, severityText] = SEVERITIES[severityId] ?? [0, 'Unknown'];
          return {
            timeUnixNano: nanos(timeMs), observedTimeUnixNano: nanos(nowMs), severityNumber, severityText, body: { stringValue: text },
            // 64-bit numbers are strings in the JSON of protobuf.
            attributes: [attribute('audit.index', { intValue: String(index) }), attribute('audit.event_id', { stringValue: id })],
          };
        }),
      }],
    }],
  });
}

/** @param afterMs what the answer's Retry-After asks for */
export function readOtlpAnswer(status: number, text: string, afterMs: number): Outcome {
  if (status >= 200 && status < 300) return readSuccess(status, text);
  const reason = `the collector answered ${status}${text.trim() === '' ? '' : `: ${messageOf(text)}`}`;
  if (RETRYABLE.has(status)) return retry(reason, { afterMs });
  if (status === 408 || status < 400 || status >= 500) return retry(reason, { afterMs, slow: status < 400 });
  return SETTINGS_AT_FAULT.has(status) ? retry(reason, { afterMs, slow: true }) : { kind: 'refused', reason };
}

/** What a partial success rejects is rejected for good: the specification forbids to send any of it again. */
function readSuccess(status: number, text: string): Outcome {
  if (text.trim() === '') return ACKNOWLEDGED; // an answer with no field set, as some servers write it
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = undefined;
  }
  if (!isRecord(answer)) return retry(`the collector answered ${status} with something that is no answer of OTLP`, { slow: true });
  const partial = answer['partialSuccess'];
  if (!isRecord(partial)) return ACKNOWLEDGED;
  const rejected = Number(partial['rejectedLogRecords'] ?? 0);
  const message = typeof partial['errorMessage'] === 'string' ? partial['errorMessage'] : '';
  if (!Number.isSafeInteger(rejected) || rejected <= 0) return ACKNOWLEDGED; // with a message: a warning
  return { kind: 'acknowledged', rejected, reason: `the collector rejected ${rejected}${message === '' ? '' : `: ${message}`}` };
}

/** The `message` of a google.rpc.Status, or the text as it came. */
function messageOf(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    return typeof message === 'string' ? message : text;
  } catch {
    return text;
  }
}

function nanos(ms: number): string {
  return `${BigInt(Math.floor(ms)) * 1_000_000n}`;
}
