import type { Pool } from 'pg';
import { uuid } from '../shared/uuid.ts';
import type { Leaf } from './export-event.ts';
import type { Parked, SinkSettings, SinkType } from './sink.ts';

interface SinkRow {
  id: string;
  name: string;
  type: SinkType;
  url: string;
  sealed_token: string | null;
  ca: string | null;
  enabled: boolean;
}

/** A sink's way through the log. */
export interface Position {
  cursor: bigint;
  /** Size of the log: index of the event that comes next. */
  head: bigint;
}

export interface Lag extends Position {
  name: string;
  enabled: boolean;
  /** The first event that is not acknowledged; undefined where there is none. */
  oldest: Leaf | undefined;
}

/** What the exporter reads of the log, and writes down of its deliveries. */
export class DeliveryStore {
  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly parkedRowsMax: number,
  ) {}

  async sinks(): Promise<SinkSettings[]> {
    const { rows } = await this.pool.query<SinkRow>('SELECT id, name, type, url, sealed_token, ca, enabled FROM siem_sinks ORDER BY id');
    return rows.map(({ sealed_token: sealedToken, ca, ...row }) => ({ ...row, sealedToken: sealedToken ?? undefined, ca: ca ?? undefined }));
  }

  /** @returns undefined where the sink is gone */
  async position(id: string): Promise<Position | undefined> {
    const { rows: [row] } = await this.pool.query<{ cursor: string; size: string }>('SELECT s.cursor, h.size FROM siem_sinks s CROSS JOIN audit_head h WHERE s.id = $1', [id]);
    return row && { cursor: BigInt(row.cursor), head: BigInt(row.size) };
  }

  /** Leaves from the cursor on, in order, as many as both bounds allow, and one at least. What is missing among them has been pruned: leaves and head come in one commit. */
  async leaves({ cursor, head }: Position, leavesMax: number, bytesMax: number): Promise<Leaf[]> {
    const { rows } = await this.pool.query<{ index: string; id: string; body: Buffer }>(
      `SELECT index, id, body FROM (
         SELECT index, id, body, sum(octet_length(body)) OVER (ORDER BY index) AS bytes, row_number() OVER (ORDER BY index) AS place
         FROM (SELECT index, id, body FROM audit_leaves WHERE index >= $1 AND index < $2 ORDER BY index LIMIT $3) AS next
       ) AS summed WHERE bytes <= $4 OR place = 1 ORDER BY index`, [String(cursor), String(head), leavesMax, bytesMax]);
    return rows.map(({ index, id, body }) => ({ index: BigInt(index), id, body }));
  }

  /**
   * Moves the cursor and keeps what is parked, in one statement: neither is there without the other.
   *
   * @returns false where the cursor is not where it was, so that another exporter has moved it, or where the sink is gone
   */
  async move(id: string, from: bigint, to: bigint, delivered: number, parked: readonly Parked[]): Promise<boolean> {
    const rows = parked.map(({ firstIndex, lastIndex, events, reason }) => ({ id: uuid(), first_index: String(firstIndex), last_index: String(lastIndex), events: String(events), reason }));
    const total = parked.reduce((sum, { events }) => sum + events, 0n);
    const { rowCount } = await this.pool.query(
      `WITH moved AS (
         UPDATE siem_sinks SET cursor = $3, parked = parked + $4, last_error = CASE WHEN $5::int > 0 THEN NULL ELSE last_error END, last_delivered_at = CASE WHEN $5::int > 0 THEN now() ELSE last_delivered_at END
         WHERE id = $1 AND cursor = $2 RETURNING id
       ), kept AS (
         INSERT INTO siem_parked (id, sink, first_index, last_index, events, reason)
         SELECT p.id, moved.id, p.first_index, p.last_index, p.events, p.reason FROM moved, jsonb_to_recordset($6) AS p (id uuid, first_index bigint, last_index bigint, events bigint, reason text)
       )
       SELECT FROM moved`, [id, String(from), String(to), String(total), delivered, JSON.stringify(rows)]);
    if (rowCount === 1 && rows.length > 0) await this.#dropOldParked(id);
    return rowCount === 1;
  }

  async noteError(id: string, text: string): Promise<void> {
    await this.pool.query('UPDATE siem_sinks SET last_error = $2 WHERE id = $1 AND last_error IS DISTINCT FROM $2', [id, text]);
  }

  /** Of all sinks. */
  async lags(): Promise<Lag[]> {
    const { rows } = await this.pool.query<{ name: string; enabled: boolean; cursor: string; size: string; index: string | null; id: string | null; body: Buffer | null }>(
      `SELECT s.name, s.enabled, s.cursor, h.size, l.index, l.id, l.body FROM siem_sinks s CROSS JOIN audit_head h
       LEFT JOIN LATERAL (SELECT index, id, body FROM audit_leaves WHERE index >= s.cursor AND index < h.size ORDER BY index LIMIT 1) AS l ON true`);
    return rows.map(({ name, enabled, cursor, size, index, id, body }) => ({
      name, enabled, cursor: BigInt(cursor), head: BigInt(size), oldest: index === null || id === null || body === null ? undefined : { index: BigInt(index), id, body },
    }));
  }

  async #dropOldParked(id: string): Promise<void> {
    await this.pool.query('DELETE FROM siem_parked WHERE sink = $1 AND id <= (SELECT id FROM siem_parked WHERE sink = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)', [id, this.parkedRowsMax]);
  }
}
