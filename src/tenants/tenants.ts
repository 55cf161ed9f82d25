import { MoreThan, type DataSource, type EntityManager } from 'typeorm';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Page } from '../shared/paging.ts';
import { formatUsd } from '../shared/usd-ticks.ts';
import { Tenant, TENANT_ID_PATTERN } from './tenant.ts';

const TENANT_ID = new RegExp(TENANT_ID_PATTERN);

export type TenantFields = Pick<Tenant, 'id' | 'name' | 'tier'> & Partial<TenantSettings>;
/** What has a default. */
export type TenantSettings = Pick<Tenant, 'dataClass' | 'boundTokens' | 'costMode' | 'targetQuality' | 'requestCeilingTicks' | 'holds' | 'payloadStorage'>;

/** Reads and writes tenants for the admin API. */
export class Tenants {
  constructor(private readonly dataSource: DataSource) {}

  /**
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `already_exists`
   */
  create(fields: TenantFields, alongside: (manager: EntityManager, created: Tenant) => Promise<void>): Promise<Tenant> {
    return this.dataSource.transaction(async (manager) => {
      const inserted = await manager.createQueryBuilder().insert().into(Tenant).values(fields).orIgnore().returning('id').execute();
      if ((inserted.raw as unknown[]).length === 0) throw new GatewayError('already_exists', { publicMessage: `There is a tenant ${JSON.stringify(fields.id)} already.`, param: 'id' });
      const created = await manager.findOneByOrFail(Tenant, { id: fields.id });
      await alongside(manager, created);
      return created;
    });
  }

  async find(id: string): Promise<Tenant> {
    const tenant = TENANT_ID.test(id) ? await this.dataSource.getRepository(Tenant).findOneBy({ id }) : null;
    if (!tenant) throw notFound();
    return tenant;
  }

  list(page: Page): Promise<Tenant[]> {
    return this.dataSource.getRepository(Tenant).find({ where: page.after === undefined ? {} : { id: MoreThan(page.after) }, order: { id: 'ASC' }, take: page.limit + 1 });
  }

  async update(id: string, change: Partial<Pick<Tenant, 'name' | 'tier'> & TenantSettings>, alongside: (manager: EntityManager, before: Tenant, after: Tenant) => Promise<void>): Promise<Tenant> {
    return this.dataSource.transaction(async (manager) => {
      const before = TENANT_ID.test(id) ? await manager.findOne(Tenant, { where: { id }, lock: { mode: 'pessimistic_write' } }) : null;
      if (!before) throw notFound();
      await manager.update(Tenant, { id }, change);
      const after = await manager.findOneByOrFail(Tenant, { id });
      await alongside(manager, before, after);
      return after;
    });
  }
}

export function tenantView(tenant: Tenant): Record<string, unknown> {
  return { id: tenant.id, name: tenant.name, tier: tenant.tier, data_class: tenant.dataClass, bound_tokens: tenant.boundTokens, cost_mode: tenant.costMode, target_quality: tenant.targetQuality,
    max_request_cost_usd: tenant.requestCeilingTicks === null ? null : formatUsd(tenant.requestCeilingTicks), holds: tenant.holds, payload_storage: tenant.payloadStorage, created_at: tenant.createdAt.toISOString(), updated_at: tenant.updatedAt.toISOString() };
}

function notFound(): GatewayError {
  return new GatewayError('not_found', { publicMessage: 'There is no such tenant.' });
}
