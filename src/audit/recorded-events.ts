import type { AuditPhase } from './audit-event.ts';
import type { Query } from './transparency-log.ts';

/** At most so many leaves are looked at for one page; where fewer fit, the next page goes on from there. */
const SCANNED_MAX = 5_000;
const ROWS_PER_READ = 500;
/** Clocks of replicas may differ by this much, and a record is written this long before it has its index. */
const CLOCK_MARGIN_MS = 60_000;

export interface EventFilter {
  /** Undefined: of all tenants. */
  tenantId: string | undefined;
  requestId: string | undefined;
  phase: AuditPhase | undefined;
  fromMs: number | undefined;
  toMs: number | undefined;
}

export interface EventPage {
  /** Each event's own text, with its index before all else. */
  events: string[];
  /** Where the next page begins; undefined at the end of the log. */
  next: number | undefined;
}

interface Row {
  index: string;
  body: Buffer;
}

/** Recorded events in the order of the log. */
export async function readEvents(query: Query, filter: EventFilter, start: number | undefined, limit: number): Promise<EventPage> {
  const { rows: [head] } = await query.query<{ size: string; begin: string | null }>(
    `SELECT size, CASE WHEN $1::timestamptz IS NULL THEN 0 ELSE (SELECT max(c.size) FROM audit_checkpoints c WHERE c.signed_at < $1) END AS begin FROM audit_head`,
    [filter.fromMs === undefined ? null : new Date(filter.fromMs - CLOCK_MARGIN_MS)]);
  const end = Number(head!.size);
  let at = start ?? Number(head!.begin ?? 0);
  let scanned = 0;
  const events: string[] = [];
  while (scanned < SCANNED_MAX) {
    const rows = await readRows(query, filter, at, end);
    for (const { index, body } of rows) {
      const text = body.toString();
      if (fits(text, filter)) events.push(`{"index":${index},${text.slice(1)}`);
      at = Number(index) + 1;
      if (events.length === limit) return { events, next: at < end ? at : undefined };
    }
    scanned += rows.length;
    if (rows.length < ROWS_PER_READ) return { events, next: undefined };
  }
  return { events, next: at };
}

async function readRows(query: Query, { tenantId, requestId }: EventFilter, start: number, end: number): Promise<Row[]> {
  const values: unknown[] = [start, end];
  const conditions = [['tenant_id', tenantId], ['request_id', requestId]].flatMap(([column, value]) => (value === undefined ? [] : [` AND ${column} = $${values.push(value)}`]));
  const { rows } = await query.query<Row>(`SELECT index, body FROM audit_leaves WHERE index >= $1 AND index < $2${conditions.join('')} ORDER BY index LIMIT ${ROWS_PER_READ}`, values);
  return rows;
}

/** The columns found it; what it says is what counts. */
function fits(text: string, { tenantId, phase, fromMs, toMs }: EventFilter): boolean {
  const event = JSON.parse(text) as { time: number; metadata: { tenant_uid?: string }; unmapped: { novix: { phase: AuditPhase } } };
  return (tenantId === undefined || event.metadata.tenant_uid === tenantId) && (phase === undefined || event.unmapped.novix.phase === phase)
    && (fromMs === undefined || event.time >= fromMs) && (toMs === undefined || event.time < toMs);
}

/** @returns a leaf's own bytes; undefined where there is none, or it is another tenant's */
export async function readLeaf(query: Query, index: number, tenantId: string | undefined): Promise<Buffer | undefined> {
  const { rows: [row] } = await query.query<{ body: Buffer }>('SELECT body FROM audit_leaves WHERE index = $1', [index]);
  if (row === undefined) return undefined;
  return fits(row.body.toString(), { tenantId, requestId: undefined, phase: undefined, fromMs: undefined, toMs: undefined }) ? row.body : undefined;
}
