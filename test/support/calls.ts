import { expect } from '@jest/globals';
import type { Pool } from 'pg';
import type { EmulatedCall, EmulatorScript, XaiEmulator } from '../../src/sandbox/xai-emulator.ts';
import { HELLO } from './harness.ts';
import type { AuditEvent } from './records.ts';

// Completions as tests of faults make them, and the books that must agree afterwards.

export const USD = 10_000_000_000n;

export interface CompletionOptions {
  token: string;
  stream?: boolean;
  script?: EmulatorScript;
  body?: Record<string, unknown>;
  signal?: AbortSignal;
}

/** One completion of grok-beta; how it goes is up to the script. */
export function complete(url: string, { token, stream = false, script, body, signal }: CompletionOptions): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST', ...(signal && { signal }),
    // A stream may be cut, and then its connection closes: one that is used again at that very moment fails, which is no fault of the gateway's.
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...(stream && { connection: 'close' }) },
    body: JSON.stringify({ model: 'grok-beta', messages: HELLO, stream, ...(script && { x_emulator: script }), ...body }),
  });
}

export interface LedgerSums {
  calls: number;
  chargedTicks: bigint;
  open: number;
  spentTicks: bigint;
  heldTicks: bigint;
  limitTicks: bigint;
}

/** What the ledger says of a tenant. */
export async function ledgerOf(db: Pool, tenant = 'acme'): Promise<LedgerSums> {
  const { rows: [row] } = await db.query<Record<string, string>>(
    `SELECT (SELECT count(*) FROM settlements WHERE tenant_id = $1) AS calls, (SELECT coalesce(sum(charged_ticks), 0) FROM settlements WHERE tenant_id = $1) AS charged,
       (SELECT count(*) FROM holds WHERE tenant_id = $1) AS open, b.spent_ticks AS spent, b.held_ticks AS held, b.limit_ticks AS "limit"
     FROM budgets b WHERE b.tenant_id = $1 AND b.scope = 'tenant'`, [tenant]);
  return {
    calls: Number(row!['calls']), chargedTicks: BigInt(row!['charged']!), open: Number(row!['open']),
    spentTicks: BigInt(row!['spent']!), heldTicks: BigInt(row!['held']!), limitTicks: BigInt(row!['limit']!),
  };
}

export async function allEvents(db: Pool): Promise<AuditEvent[]> {
  const { rows } = await db.query<{ event: AuditEvent }>('SELECT event FROM audit_events ORDER BY index NULLS LAST');
  return rows.map(({ event }) => event);
}

/** By request: the phases and outcomes on record, of calls that were admitted. */
export async function admittedCalls(db: Pool): Promise<Map<string, { intents: number; outcomes: string[] }>> {
  const calls = new Map<string, { intents: number; outcomes: string[] }>();
  for (const { metadata, unmapped: { novix } } of await allEvents(db)) {
    if (novix.phase !== 'intent' && novix.phase !== 'outcome') continue;
    const call = calls.get(metadata.correlation_uid) ?? { intents: 0, outcomes: [] };
    calls.set(metadata.correlation_uid, call);
    if (novix.phase === 'intent') call.intents += 1;
    else call.outcomes.push(novix.outcome!);
  }
  return calls;
}

/** No money lost or made up, and nothing left open: budget, ledger and audit log tell the same story. */
export async function expectBooksClosed(db: Pool, tenant = 'acme'): Promise<LedgerSums> {
  const sums = await ledgerOf(db, tenant);
  expect({ open: sums.open, heldTicks: sums.heldTicks, spentTicks: sums.spentTicks }).toEqual({ open: 0, heldTicks: 0n, spentTicks: sums.chargedTicks });
  const calls = [...(await admittedCalls(db)).values()];
  expect(calls.filter(({ intents, outcomes }) => intents !== 1 || outcomes.length !== 1)).toEqual([]);
  return sums;
}

export function runningCalls(emulator: XaiEmulator): EmulatedCall[] {
  return emulator.calls.filter(({ state }) => state === 'running');
}
