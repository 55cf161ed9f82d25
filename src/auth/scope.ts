import { GatewayError } from '../shared/gateway-error.ts';
import type { Principal } from './principal.ts';

export function isPlatformAdmin({ roles }: Principal): boolean {
  return roles.includes('platform-admin');
}

/** The tenant whose objects a principal sees; undefined for all of them. */
export function visibleTenant(principal: Principal): string | undefined {
  return isPlatformAdmin(principal) ? undefined : principal.tenantId;
}

/** @throws {GatewayError} `not_found`: another tenant's objects look like what is not there */
export function assertOwnTenant(principal: Principal, tenantId: string | null | undefined): void {
  if (isPlatformAdmin(principal) || tenantId === principal.tenantId) return;
  throw new GatewayError('not_found', { publicMessage: 'There is no such tenant.', param: 'tenant' });
}
