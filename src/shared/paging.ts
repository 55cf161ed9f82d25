import { GatewayError } from './gateway-error.ts';

export interface Page {
  limit: number;
  /** The last id of the page before; undefined for the first page. */
  after: string | undefined;
}

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 200;

/** @throws {GatewayError} `invalid_request` */
export function readPage(query: Record<string, unknown>): Page {
  const { limit, cursor } = query;
  if (limit !== undefined && !(typeof limit === 'string' && /^\d{1,4}$/.test(limit) && Number(limit) >= 1 && Number(limit) <= LIMIT_MAX)) {
    throw new GatewayError('invalid_request', { publicMessage: `limit takes a number from 1 to ${LIMIT_MAX}.`, param: 'limit' });
  }
  if (cursor !== undefined && (typeof cursor !== 'string' || cursor === '')) throw invalidCursor();
  const after = cursor === undefined ? undefined : Buffer.from(cursor, 'base64url').toString();
  if (after !== undefined && (Buffer.from(after).toString('base64url') !== cursor || /\p{Cc}/u.test(after))) throw invalidCursor();
  return { limit: limit === undefined ? LIMIT_DEFAULT : Number(limit), after };
}

/** @param rows one more than the limit, where there is one more */
export function toPage<T extends { id: string }, V>(rows: readonly T[], limit: number, view: (row: T) => V): { data: V[]; next_cursor: string | null } {
  const shown = rows.slice(0, limit);
  return { data: shown.map(view), next_cursor: rows.length > limit ? Buffer.from(shown.at(-1)!.id).toString('base64url') : null };
}

function invalidCursor(): GatewayError {
  return new GatewayError('invalid_request', { publicMessage: 'The cursor is not one that this list gave out.', param: 'cursor' });
}
