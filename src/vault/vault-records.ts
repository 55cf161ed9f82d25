import type { EntityManager } from 'typeorm';
import { recordChange, type ConfigurationChange } from '../audit/record-change.ts';
import { uuid } from '../shared/uuid.ts';

/** A receipt for what the vault does of itself, in the transaction that does it; the tenant finds it among its own records. */
export async function recordVaultChange(
  manager: EntityManager, tenantId: string, timeMs: number, activity: ConfigurationChange['activity'], object: ConfigurationChange['object'], before: unknown, after: unknown,
): Promise<void> {
  const actor = { tenant: tenantId, subject: 'system', tokenId: undefined, issuer: undefined, clientId: undefined };
  await recordChange(manager, { origin: { requestId: uuid(), actor, operation: 'retention', ip: '127.0.0.1' }, timeMs, activity, object, before, after });
}
