import { GatewayError } from '../shared/gateway-error.ts';
import { uuid } from '../shared/uuid.ts';

/** A refusal for want of a role: a decision like any other, with an id that the caller sees and the audit log holds. */
export function roleDenied(publicMessage: string, internal: Record<string, unknown> = {}): GatewayError {
  const error = new GatewayError('policy_denied', { publicMessage, internal });
  error.decision = { id: uuid(), revision: 'roles' };
  return error;
}
