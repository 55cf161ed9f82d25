import { GatewayError } from '../shared/gateway-error.ts';

export const BUDGET_WINDOWS = ['day', 'month', 'total'] as const;
export type BudgetWindow = (typeof BUDGET_WINDOWS)[number];
export const BUDGET_SCOPES = ['tenant', 'team', 'user', 'key', 'model'] as const;

/** @throws {GatewayError} `invalid_request` where type and id do not go together */
export function scopeKey(scope: { type: (typeof BUDGET_SCOPES)[number]; id?: string | undefined }): string {
  if ((scope.type === 'tenant') !== (scope.id === undefined)) {
    throw new GatewayError('invalid_request', { publicMessage: 'A scope of type tenant takes no id; every other type needs one.', param: 'scope.id' });
  }
  return scope.id === undefined ? scope.type : `${scope.type}:${scope.id}`;
}
