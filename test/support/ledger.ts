import { randomUUID } from 'node:crypto';
import type { Client, Pool } from 'pg';
import { holdEntry, settlementEntry, type SettlementKind } from '../../src/cost/ledger-entry.ts';
import type { Operation } from '../../src/journal/operation.ts';

/** Whatever runs a query. */
export type Database = Pick<Client | Pool, 'query'>;

export const REPLICA = '00000000-0000-4000-8000-000000000001';
const TOTAL = 'total';

export interface BudgetState {
  limit: bigint;
  spent: bigint;
  held: bigint;
}

/** A tenant with a budget for all of it, straight in the database: for gateways that make no demo tenants. */
export async function createTenant(db: Database, id: string, limitTicks: bigint, tier = 'standard'): Promise<string> {
  await db.query('INSERT INTO tenants (id, name, tier) VALUES ($1, $1, $2)', [id, tier]);
  return createBudget(db, id, limitTicks);
}

export async function createBudget(db: Database, tenant: string, limitTicks: bigint, { scope = 'tenant', window = TOTAL }: { scope?: string; window?: string } = {}): Promise<string> {
  const id = randomUUID();
  await db.query(
    `INSERT INTO budgets (id, tenant_id, scope, time_window, limit_ticks, period_start, period_end)
     VALUES ($1, $2, $3, $4, $5, budget_period_start($4, now()), budget_period_end($4, now()))`,
    [id, tenant, scope, window, limitTicks],
  );
  return id;
}

export async function budgetState(db: Database, id: string): Promise<BudgetState> {
  const { rows } = await db.query<{ limit_ticks: string; spent_ticks: string; held_ticks: string }>('SELECT limit_ticks, spent_ticks, held_ticks FROM budgets WHERE id = $1', [id]);
  const { limit_ticks: limit, spent_ticks: spent, held_ticks: held } = rows[0]!;
  return { limit: BigInt(limit), spent: BigInt(spent), held: BigInt(held) };
}

export interface HoldRequest {
  id?: string;
  tenant: string;
  amount: bigint;
  scopes?: readonly string[];
}

/** The text of a hold's entry, as the gateway writes it. */
export function hold({ id = randomUUID(), tenant, amount, scopes = ['tenant'] }: HoldRequest): string {
  return holdEntry({
    id, requestId: randomUUID(), tenantId: tenant, scopes, amountTicks: amount, replicaId: REPLICA, expiresAtMs: Date.now() + 60_000,
    context: { sub: 'dev', model: 'grok-beta', upstream_model: 'grok-4.3', deployment: 'xai', stream: false, decision_id: randomUUID(), operation: 'POST /v1/chat/completions', ip: '127.0.0.1' },
  });
}

/** The text of the entry that resolves a hold. */
export function resolution(kind: SettlementKind, holdId: string, ticks: bigint): string {
  const basis = kind === 'release' ? 'free' : kind === 'expire' ? 'hold' : 'provider';
  return settlementEntry({
    kind, holdId, outcome: kind === 'expire' ? 'unknown' : 'completed', charge: { ticks, basis, providerTicks: ticks, computedTicks: ticks },
    usage: { inputTokens: 10, cachedInputTokens: 0, outputTokens: 5, reasoningTokens: 0 },
  });
}

/** An operation that only writes a leaf, of about the given size. */
export function leafOperation(lane: Operation['lane'], { id = randomUUID(), bytes = 40 }: { id?: string; bytes?: number } = {}): Operation {
  return { id, lane, entries: { audit_append: `{"id":"${id}"}\n{"leaf":"${'x'.repeat(bytes)}"}` } };
}

/** How often a leaf is in the log. */
export async function leafCount(db: Database, id: string): Promise<number> {
  const { rows } = await db.query<{ count: string }>('SELECT count(*) FROM audit_events WHERE id = $1', [id]);
  return Number(rows[0]!.count);
}

export async function commitCount(db: Database): Promise<number> {
  const { rows } = await db.query<{ count: string }>('SELECT count(*) FROM journal_batches WHERE verdicts IS NOT NULL');
  return Number(rows[0]!.count);
}
