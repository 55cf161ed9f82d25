import type { DataSource, EntityManager } from 'typeorm';
import { MoreThan, QueryFailedError } from 'typeorm';
import { uuid } from '../shared/uuid.ts';
import { assertUuid, isUuid } from '../shared/uuid-text.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Page } from '../shared/paging.ts';
import { Tenant } from '../tenants/tenant.ts';
import type { BudgetWindow } from './budget-scope.ts';
import { Budget, periodAt } from './budget.ts';

const UNIQUE_VIOLATION = '23505';

export interface NewBudget {
  tenantId: string;
  scope: string;
  window: BudgetWindow;
  limitTicks: bigint;
  warnAt: string[];
}

/** Reads and writes budgets for the admin API. What is spent and held is the ledger's business alone. */
export class Budgets {
  constructor(private readonly dataSource: DataSource) {}

  /**
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `not_found` without the tenant, `invalid_request` for a key that it has not, `already_exists` for a second budget of the same scope and window
   */
  async create(budget: NewBudget, nowMs: number, alongside: (manager: EntityManager, created: Budget) => Promise<void>): Promise<Budget> {
    try {
      return await this.dataSource.transaction(async (manager) => {
        if (!(await manager.existsBy(Tenant, { id: budget.tenantId }))) throw noTenant(budget.tenantId);
        await assertKeyExists(manager, budget);
        const { start, end } = periodAt(budget.window, nowMs);
        const id = uuid();
        await manager.insert(Budget, { ...budget, id, periodStart: start, periodEnd: end, spentTicks: 0n, heldTicks: 0n });
        const created = await manager.findOneByOrFail(Budget, { id });
        await alongside(manager, created);
        return created;
      });
    } catch (error) {
      if (error instanceof QueryFailedError && (error.driverError as { code?: string }).code === UNIQUE_VIOLATION) {
        throw new GatewayError('already_exists', { publicMessage: `The tenant has a budget of this scope and window already. Change its limit instead.`, cause: error });
      }
      throw error;
    }
  }

  async find(id: string, tenantId: string | undefined): Promise<Budget> {
    const budget = isUuid(id) ? await this.dataSource.getRepository(Budget).findOneBy({ id, ...(tenantId === undefined ? {} : { tenantId }) }) : null;
    if (!budget) throw notFound();
    return budget;
  }

  list(page: Page, tenantId: string | undefined): Promise<Budget[]> {
    return this.dataSource.getRepository(Budget).find({
      where: { ...(tenantId === undefined ? {} : { tenantId }), ...(page.after === undefined ? {} : { id: MoreThan(assertUuid(page.after)) }) },
      order: { id: 'ASC' }, take: page.limit + 1,
    });
  }

  /**
   * Only where nothing is held: what a call holds it has to be able to give back.
   *
   * @throws {GatewayError} `invalid_request` while calls hold some of it
   */
  async remove(id: string, alongside: (manager: EntityManager, before: Budget) => Promise<void>): Promise<void> {
    await this.dataSource.transaction(async (manager) => {
      const before = await lockOne(manager, id);
      if (before.heldTicks > 0n || (await manager.query<unknown[]>('SELECT FROM holds WHERE $1 = ANY (budget_ids) LIMIT 1', [id])).length > 0) throw inUse();
      // A charge that may still be corrected must not look for a budget that is gone.
      await manager.query("UPDATE settlements SET budget_ids = array_remove(budget_ids, $1::uuid) WHERE state = 'expired_charged' AND $1 = ANY (budget_ids)", [id]);
      await manager.query('DELETE FROM budget_periods WHERE budget_id = $1', [id]);
      await manager.delete(Budget, { id });
      await alongside(manager, before);
    });
  }

  /** Lowering a limit below what is spent is allowed, and stops further calls. */
  async update(id: string, change: { limitTicks?: bigint; warnAt?: string[] }, alongside: (manager: EntityManager, before: Budget, after: Budget) => Promise<void>): Promise<Budget> {
    return this.dataSource.transaction(async (manager) => {
      const before = await lockOne(manager, id);
      await manager.update(Budget, { id }, change);
      const after = await manager.findOneByOrFail(Budget, { id });
      await alongside(manager, before, after);
      return after;
    });
  }
}

/** Keys are made here, so that a budget for one that is not there can never match. Teams and users are the identity provider's. */
async function assertKeyExists(manager: EntityManager, { tenantId, scope }: NewBudget): Promise<void> {
  if (!scope.startsWith('key:')) return;
  const id = scope.slice('key:'.length);
  const known = isUuid(id) ? await manager.query<unknown[]>('SELECT FROM api_keys WHERE id = $1 AND tenant_id = $2', [id, tenantId]) : [];
  if (known.length === 0) throw new GatewayError('invalid_request', { publicMessage: 'The tenant has no API key of this id, so no call would count toward the budget. GET /admin/v1/api-keys lists them.', param: 'scope.id' });
}

function inUse(): GatewayError {
  return new GatewayError('invalid_request', { publicMessage: 'Calls under way hold money of this budget. Set limit_usd to "0" so that no more begin, and delete it when they have ended.' });
}

function notFound(): GatewayError {
  return new GatewayError('not_found', { publicMessage: 'There is no such budget.' });
}

export function noTenant(id: string): GatewayError {
  return new GatewayError('not_found', { publicMessage: `There is no tenant ${JSON.stringify(id)}. Create it first.`, param: 'tenant' });
}

async function lockOne(manager: EntityManager, id: string): Promise<Budget> {
  const budget = isUuid(id) ? await manager.findOne(Budget, { where: { id }, lock: { mode: 'pessimistic_write' } }) : null;
  if (!budget) throw notFound();
  return budget;
}
