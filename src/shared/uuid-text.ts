import { GatewayError } from './gateway-error.ts';

export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}

/** @throws {GatewayError} `invalid_request` for a cursor that holds none */
export function assertUuid(text: string): string {
  if (!isUuid(text)) throw new GatewayError('invalid_request', { publicMessage: 'The cursor is not one that this list gave out.', param: 'cursor' });
  return text;
}
