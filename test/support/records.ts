import { expect } from '@jest/globals';
import { eventually, type Harness } from './harness.ts';

/** An event of the audit log, as far as tests look at it. */
export interface AuditEvent {
  status_code?: string;
  metadata: { uid: string; correlation_uid: string; tenant_uid?: string };
  actor: { user: { uid: string } };
  api: { operation: string; request: { uid: string }; response?: { code: number; error?: string } };
  unmapped: {
    novix: {
      phase: 'intent' | 'outcome' | 'refusal' | 'change';
      outcome?: string;
      hold_ticks?: string;
      charge?: { ticks: string; basis: string };
      decision?: { id: string; rule?: string };
      plan?: { max_output_tokens: number };
      object?: { type: string; id: string };
      before?: unknown;
      after?: unknown;
      aggregate?: { count: number };
    };
  };
}

/** What the gateway recorded under a request id, in the order of the log; what has no index yet comes last, by phase. */
export async function eventsOf(harness: Pick<Harness, 'db'>, requestId: string | null): Promise<AuditEvent[]> {
  const { rows } = await harness.db.query<{ event: AuditEvent }>("SELECT event FROM audit_events WHERE event->'metadata'->>'correlation_uid' = $1 ORDER BY index NULLS LAST, event->'unmapped'->'novix'->>'phase'", [requestId]);
  return rows.map(({ event }) => event);
}

export async function eventOf(harness: Pick<Harness, 'db'>, requestId: string | null, phase: AuditEvent['unmapped']['novix']['phase']): Promise<AuditEvent> {
  return eventually(async () => (await eventsOf(harness, requestId)).find((event) => event.unmapped.novix.phase === phase));
}

export interface Settled {
  outcome: string;
  basis: string;
  chargedTicks: bigint;
  heldTicks: bigint;
}

/** How an admitted call ended and what it was charged, once that is on record; by its intent and its one outcome. */
export async function settled(harness: Pick<Harness, 'db'>, requestId: string | null): Promise<Settled> {
  const outcome = await eventOf(harness, requestId, 'outcome');
  const events = await eventsOf(harness, requestId);
  expect(events.map((event) => event.unmapped.novix.phase)).toEqual(['intent', 'outcome']);
  const { hold_ticks: hold } = events[0]!.unmapped.novix;
  const { charge, outcome: ending } = outcome.unmapped.novix;
  return { outcome: ending!, basis: charge!.basis, chargedTicks: BigInt(charge!.ticks), heldTicks: BigInt(hold!) };
}

/** A decimal string of USD as ticks; fails for anything else. */
export function ticksOf(usd: string | null | undefined): bigint {
  const match = /^(\d+)\.(\d{2,10})$/.exec(usd ?? '');
  if (!match) throw new Error(`${usd} is no decimal string of USD`);
  return BigInt(match[1]!) * 10_000_000_000n + BigInt(match[2]!.padEnd(10, '0'));
}
