import type { DataSource, EntityManager } from 'typeorm';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Page } from '../shared/paging.ts';
import { assertUuid, isUuid } from '../shared/uuid-text.ts';

/** Charges that rest on no word of the provider's. */
const UNCERTAIN = "state = 'expired_charged' OR (state = 'settled' AND basis IN ('observed', 'hold'))";
const RECONCILABLE = `${UNCERTAIN} OR (state = 'settled' AND basis IN ('computed', 'reconciled'))`;
const COLUMNS = 'hold_id AS id, request_id, tenant_id, state, basis, outcome, model, deployment, held_ticks, charged_ticks, started_at, finished_at';

export interface SettlementRow {
  /** Of the hold that it settled. */
  id: string;
  request_id: string;
  tenant_id: string;
  state: string;
  basis: string;
  outcome: string;
  model: string;
  deployment: string;
  held_ticks: string;
  charged_ticks: string;
  started_at: Date;
  finished_at: Date;
}

/**
 * What finished calls were charged without the provider's word for it: by what was seen of an answer, or by the whole hold. Finance compares them with
 * the provider's invoice, and puts them right.
 */
export class Settlements {
  constructor(private readonly dataSource: DataSource) {}

  listUncertain({ limit, after }: Page, tenantId: string | undefined): Promise<SettlementRow[]> {
    return this.dataSource.query(
      `SELECT ${COLUMNS} FROM settlements WHERE (${UNCERTAIN}) AND ($1::text IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR hold_id > $2) ORDER BY hold_id LIMIT $3`,
      [tenantId ?? null, after === undefined ? null : assertUuid(after), limit + 1]);
  }

  /**
   * Replaces a charge by what the call did cost. The difference is booked where the charge was: in the period of each budget in which the call ended,
   * and in the usage of that minute.
   *
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `not_found`, `invalid_request` for a charge that is the provider's own word
   */
  async reconcile(id: string, chargedTicks: bigint, alongside: (manager: EntityManager, before: SettlementRow, after: SettlementRow) => Promise<void>): Promise<SettlementRow> {
    return this.dataSource.transaction(async (manager) => {
      // The budgets first, in the order of their ids, as every batch of the ledger locks them: whoever has them has what they paid for.
      if (isUuid(id)) await manager.query('SELECT FROM budgets WHERE id IN (SELECT unnest(budget_ids) FROM settlements WHERE hold_id = $1) ORDER BY id FOR UPDATE', [id]);
      const [before] = isUuid(id) ? await manager.query<SettlementRow[]>(`SELECT ${COLUMNS} FROM settlements WHERE hold_id = $1 FOR UPDATE`, [id]) : [];
      if (before === undefined) throw new GatewayError('not_found', { publicMessage: 'There is no such settlement.' });
      const [[after]] = await manager.query<[SettlementRow[], number]>(
        `UPDATE settlements SET state = 'settled', basis = 'reconciled', charged_ticks = $2 WHERE hold_id = $1 AND (${RECONCILABLE}) RETURNING ${COLUMNS}`, [id, String(chargedTicks)]);
      if (after === undefined) throw new GatewayError('invalid_request', { publicMessage: `This call was ${before.state === 'released' ? 'never sent, and is free' : 'charged at the provider’s own price'}: there is nothing to reconcile.` });
      const booked = [id, String(chargedTicks - BigInt(before.charged_ticks))];
      await manager.query(
        `UPDATE budgets b SET spent_ticks = b.spent_ticks + $2, updated_at = now() FROM settlements s
         WHERE s.hold_id = $1 AND b.id = ANY (s.budget_ids) AND b.period_start <= s.finished_at`, booked);
      await manager.query(
        `UPDATE budget_periods p SET spent_ticks = p.spent_ticks + $2 FROM settlements s
         WHERE s.hold_id = $1 AND p.budget_id = ANY (s.budget_ids) AND p.period_start <= s.finished_at AND s.finished_at < p.period_end`, booked);
      await alongside(manager, before, after);
      return after;
    });
  }
}
