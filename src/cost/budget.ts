import { Column, CreateDateColumn, Entity, PrimaryColumn, UpdateDateColumn } from 'typeorm';
import { formatUsd } from '../shared/usd-ticks.ts';
import type { BudgetWindow } from './budget-scope.ts';

const ticks = { from: (value: string) => BigInt(value), to: (value: bigint) => String(value) };

/** A limit on what a tenant, or a part of one, may spend in a window of time. */
@Entity('budgets')
export class Budget {
  @PrimaryColumn('uuid')
  id: string;

  @Column('text', { name: 'tenant_id' })
  tenantId: string;

  /** `tenant`, or `<type>:<id>`. */
  @Column('text')
  scope: string;

  @Column('text', { name: 'time_window' })
  window: BudgetWindow;

  @Column('bigint', { name: 'limit_ticks', transformer: ticks })
  limitTicks: bigint;

  /** Shares of the limit at which to warn, as decimal strings. */
  @Column('text', { name: 'warn_at', array: true })
  warnAt: string[];

  @Column('timestamptz', { name: 'period_start' })
  periodStart: Date;

  @Column('timestamptz', { name: 'period_end', nullable: true })
  periodEnd: Date | null;

  @Column('bigint', { name: 'spent_ticks', transformer: ticks })
  spentTicks: bigint;

  @Column('bigint', { name: 'held_ticks', transformer: ticks })
  heldTicks: bigint;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  @UpdateDateColumn({ name: 'updated_at', type: 'timestamptz' })
  updatedAt: Date;
}

/** The first instant of the window's current period, in UTC, and that of the next. */
export function periodAt(window: BudgetWindow, nowMs: number): { start: Date; end: Date | null } {
  const now = new Date(nowMs);
  const [year, month, day] = [now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()];
  if (window === 'day') return { start: new Date(Date.UTC(year, month, day)), end: new Date(Date.UTC(year, month, day + 1)) };
  if (window === 'month') return { start: new Date(Date.UTC(year, month, 1)), end: new Date(Date.UTC(year, month + 1, 1)) };
  return { start: now, end: null };
}

/** A budget as the admin API shows it, by the rules by which calls are admitted: a period that is over counts as reset. */
export function budgetView(budget: Budget, nowMs: number): Record<string, unknown> {
  const over = budget.periodEnd !== null && budget.periodEnd.getTime() <= nowMs;
  const spentTicks = over ? 0n : budget.spentTicks;
  const remaining = budget.limitTicks - spentTicks - budget.heldTicks;
  const [type, ...id] = budget.scope.split(':');
  const resetsAt = over ? periodAt(budget.window, nowMs).end : budget.periodEnd;
  return {
    id: budget.id,
    tenant: budget.tenantId,
    scope: id.length === 0 ? { type } : { type, id: id.join(':') },
    window: budget.window,
    limit_usd: formatUsd(budget.limitTicks),
    warn_at: budget.warnAt.map(Number),
    spent_usd: formatUsd(spentTicks),
    held_usd: formatUsd(budget.heldTicks),
    remaining_usd: formatUsd(remaining > 0n ? remaining : 0n),
    resets_at: resetsAt?.toISOString() ?? null,
    created_at: budget.createdAt.toISOString(),
    updated_at: budget.updatedAt.toISOString(),
  };
}
