/** A figure of the ledger that does not add up. */
export interface LedgerFault {
  check: string;
  id: string;
  expected: string;
  found: string;
}

/** Each lists what does not add up, and nothing where all does. */
const CHECKS: readonly { check: string; sql: string }[] = [
  {
    check: 'held: a budget holds what its open holds sum to',
    sql: `SELECT b.id::text AS id, coalesce(sum(h.amount_ticks), 0)::text AS expected, b.held_ticks::text AS found
      FROM budgets b LEFT JOIN holds h ON b.id = ANY (h.budget_ids) GROUP BY b.id HAVING b.held_ticks <> coalesce(sum(h.amount_ticks), 0)`,
  },
  {
    check: 'spent: a budget, its closed periods included, has spent what its settlements sum to',
    sql: `SELECT b.id::text AS id, coalesce(s.charged, 0)::text AS expected, (b.spent_ticks + coalesce(p.spent, 0))::text AS found
      FROM budgets b
        LEFT JOIN (SELECT budget_id, sum(spent_ticks) AS spent FROM budget_periods GROUP BY budget_id) p ON p.budget_id = b.id
        LEFT JOIN (SELECT budget_id, sum(charged_ticks) AS charged FROM settlements, unnest(budget_ids) AS budget_id GROUP BY budget_id) s ON s.budget_id = b.id
      WHERE b.spent_ticks + coalesce(p.spent, 0) <> coalesce(s.charged, 0)`,
  },
  {
    check: 'settled: what was released is free, and nothing is charged below zero',
    sql: `SELECT hold_id::text AS id, CASE state WHEN 'released' THEN '0' ELSE '>= 0' END AS expected, charged_ticks::text AS found
      FROM settlements WHERE charged_ticks < 0 OR (state = 'released' AND charged_ticks <> 0)`,
  },
  {
    check: 'once: no hold is both open and resolved',
    sql: "SELECT h.id::text AS id, 'one' AS expected, 'both' AS found FROM holds h JOIN settlements s ON s.hold_id = h.id",
  },
  {
    check: 'usage: the roll-ups of a tenant, model and deployment sum to its settlements',
    sql: `SELECT concat_ws(' ', tenant_id, model, deployment) AS id, coalesce(s.charged, 0)::text AS expected, coalesce(u.cost, 0)::text AS found
      FROM (SELECT tenant_id, model, deployment, sum(cost_ticks) AS cost FROM usage_minutes GROUP BY 1, 2, 3) u
        FULL JOIN (SELECT tenant_id, model, deployment, sum(charged_ticks) AS charged FROM settlements GROUP BY 1, 2, 3) s USING (tenant_id, model, deployment)
      WHERE coalesce(u.cost, 0) <> coalesce(s.charged, 0)`,
  },
];

/** Proves that the ledger adds up, to the tick, in one consistent view of it; names each row that does not. */
export async function checkLedger(query: (sql: string) => Promise<unknown[]>): Promise<{ checks: string[]; faults: LedgerFault[] }> {
  const faults: LedgerFault[] = [];
  await query('BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    for (const { check, sql } of CHECKS) {
      const rows = (await query(sql)) as Omit<LedgerFault, 'check'>[];
      faults.push(...rows.map(({ id, expected, found }) => ({ check, id, expected, found })));
    }
  } finally {
    await query('ROLLBACK');
  }
  return { checks: CHECKS.map(({ check }) => check), faults };
}
