import type { BudgetWindow } from './budget-scope.ts';
import { describe, expect, it } from '@jest/globals';
import { Budget, budgetView, periodAt } from './budget.ts';

const at = (iso: string): number => Date.parse(iso);

describe('periodAt', () => {
  it.each<[BudgetWindow, string, string, string]>([
    ['day', '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z', '2026-11-25T00:00:00.000Z'],
    ['day', '2026-11-24T23:59:59.999Z', '2026-11-24T00:00:00.000Z', '2026-11-25T00:00:00.000Z'],
    ['day', '2026-12-31T12:00:00.000Z', '2026-12-31T00:00:00.000Z', '2027-01-01T00:00:00.000Z'],
    ['day', '2028-02-28T12:00:00.000Z', '2028-02-28T00:00:00.000Z', '2028-02-29T00:00:00.000Z'],
    ['day', '2026-03-29T01:30:00.000Z', '2026-03-29T00:00:00.000Z', '2026-03-30T00:00:00.000Z'], // daylight saving moves no period
    ['month', '2026-11-01T00:00:00.000Z', '2026-11-01T00:00:00.000Z', '2026-12-01T00:00:00.000Z'],
    ['month', '2026-10-31T23:59:59.999Z', '2026-10-01T00:00:00.000Z', '2026-11-01T00:00:00.000Z'],
    ['month', '2026-12-15T00:00:00.000Z', '2026-12-01T00:00:00.000Z', '2027-01-01T00:00:00.000Z'],
    ['month', '2026-01-31T00:00:00.000Z', '2026-01-01T00:00:00.000Z', '2026-02-01T00:00:00.000Z'],
  ])('the %s of %s begins and ends in UTC', (window, now, start, end) => {
    expect(periodAt(window, at(now))).toEqual({ start: new Date(start), end: new Date(end) });
  });

  it.each<BudgetWindow>(['day', 'month'])('the next %s begins where this one ends', (window) => {
    const { end } = periodAt(window, at('2026-11-24T12:00:00Z'));
    expect(periodAt(window, end!.getTime()).start).toEqual(end);
    expect(periodAt(window, end!.getTime() - 1).end).toEqual(end);
  });

  it('a total has no end', () => {
    expect(periodAt('total', 7)).toEqual({ start: new Date(7), end: null });
  });
});

describe('budgetView', () => {
  const now = at('2026-11-24T12:00:00Z');
  const budget = (more: Partial<Budget> = {}): Budget => Object.assign(new Budget(), {
    id: 'b-1', tenantId: 'acme', scope: 'tenant', window: 'month', limitTicks: 1_000_000_000_000n, warnAt: ['0.5', '0.8'], periodStart: new Date('2026-11-01T00:00:00Z'), periodEnd: new Date('2026-12-01T00:00:00Z'),
    spentTicks: 255_000_000_000n, heldTicks: 5_000_000_000n, createdAt: new Date(0), updatedAt: new Date(0), ...more,
  } satisfies Partial<Budget>);

  it('shows money as decimal strings and time in UTC', () => {
    expect(budgetView(budget(), now)).toEqual({
      id: 'b-1', tenant: 'acme', scope: { type: 'tenant' }, window: 'month', limit_usd: '100.00', warn_at: [0.5, 0.8], spent_usd: '25.50', held_usd: '0.50', remaining_usd: '74.00',
      resets_at: '2026-12-01T00:00:00.000Z', created_at: '1970-01-01T00:00:00.000Z', updated_at: '1970-01-01T00:00:00.000Z',
    });
  });

  it('counts a period that is over as reset, to the millisecond; what is held stays', () => {
    const old = budget({ periodEnd: new Date(now) });
    expect(budgetView(old, now)).toMatchObject({ spent_usd: '0.00', held_usd: '0.50', remaining_usd: '99.50', resets_at: '2026-12-01T00:00:00.000Z' });
    expect(budgetView(old, now - 1)).toMatchObject({ spent_usd: '25.50' });
  });

  it('shows nothing left where more was spent than the limit', () => {
    expect(budgetView(budget({ spentTicks: 2_000_000_000_000n }), now)).toMatchObject({ spent_usd: '200.00', remaining_usd: '0.00' });
  });

  it.each([['team:bi', { type: 'team', id: 'bi' }], ['user:dev@acme.example', { type: 'user', id: 'dev@acme.example' }], ['user:auth0|a:b', { type: 'user', id: 'auth0|a:b' }]])('shows the scope %s', (scope, shown) => {
    expect(budgetView(budget({ scope }), now)).toMatchObject({ scope: shown });
  });

  it('never resets a total', () => {
    expect(budgetView(budget({ window: 'total', periodEnd: null }), now)).toMatchObject({ spent_usd: '25.50', resets_at: null });
  });
});
