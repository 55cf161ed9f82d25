import { recordChange, type ChangeOrigin } from '../audit/record-change.ts';
import type { TierName } from '../catalogue/tiers.ts';
import { budgetView } from '../cost/budget.ts';
import { Budgets } from '../cost/budgets.ts';
import type { GatewayParts } from '../gateway-parts.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { parseUsd } from '../shared/usd-ticks.ts';
import { Tenants, tenantView } from '../tenants/tenants.ts';

const DEMO_TENANTS: readonly { id: string; name: string; tier: TierName; monthlyUsd: string }[] = [
  { id: 'acme', name: 'Acme', tier: 'standard', monthlyUsd: '100.00' },
  { id: 'globex', name: 'Globex', tier: 'enterprise', monthlyUsd: '1000.00' },
  { id: 'initech', name: 'Initech', tier: 'government', monthlyUsd: '1000.00' },
];
const ORIGIN: ChangeOrigin = {
  requestId: '00000000-0000-0000-0000-000000000000', operation: 'sandbox', ip: '127.0.0.1',
  actor: { tenant: 'platform', subject: 'sandbox', tokenId: undefined, issuer: undefined, clientId: undefined },
};

/** Makes the sandbox's tenants, each with a budget, where they are not there yet. */
export async function createDemoTenants({ dataSource, clock }: GatewayParts): Promise<string[]> {
  const tenants = new Tenants(dataSource);
  const budgets = new Budgets(dataSource);
  for (const { id, name, tier, monthlyUsd } of DEMO_TENANTS) {
    const nowMs = clock.nowMs();
    await unlessThere(() => tenants.create({ id, name, tier }, (manager, tenant) =>
      recordChange(manager, { origin: ORIGIN, timeMs: nowMs, activity: 'create', object: { type: 'tenant', id }, before: null, after: tenantView(tenant) })));
    await unlessThere(() => budgets.create({ tenantId: id, scope: 'tenant', window: 'month', limitTicks: parseUsd(monthlyUsd)!, warnAt: ['0.8'] }, nowMs, (manager, budget) =>
      recordChange(manager, { origin: ORIGIN, timeMs: nowMs, activity: 'create', object: { type: 'budget', id: budget.id }, before: null, after: budgetView(budget, nowMs) })));
  }
  return DEMO_TENANTS.map(({ id, tier }) => `${id} (${tier})`);
}

async function unlessThere(create: () => Promise<unknown>): Promise<void> {
  try {
    await create();
  } catch (error) {
    if (!(error instanceof GatewayError) || error.code !== 'already_exists') throw error;
  }
}
