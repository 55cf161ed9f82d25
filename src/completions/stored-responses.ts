import type { Pool } from 'pg';
import { GatewayError } from '../shared/gateway-error.ts';

/** The provider keeps a response for so long. */
const KEPT_DAYS = 30;
/** Ids are the provider's; nothing else can be one. */
const RESPONSE_ID = /^[\w-]{1,128}$/;

/** A response that the provider keeps, and whose it is: the provider itself knows only the gateway. */
export interface StoredResponse {
  id: string;
  /** Alias or id under which the model was asked for. */
  model: string;
  /** The deployment that keeps it; no other knows it. */
  deployment: string;
  /** Tokens of the conversation up to and with it, which a continuation pays for again. */
  contextTokens: number;
}

/** What a call changes, for the commit of its outcome. */
export type StoredChange = ({ kind: 'keep' } & StoredResponse) | { kind: 'forget'; id: string };

/** Knows which responses the provider keeps for which tenant. */
export class StoredResponses {
  constructor(private readonly pool: Pick<Pool, 'query'>) {}

  /**
   * @param param the field that named it
   * @throws {GatewayError} `not_found`, whether it does not exist, is over, or is another tenant's
   */
  async find(tenantId: string, id: string, param?: string): Promise<StoredResponse> {
    const { rows: [row] } = RESPONSE_ID.test(id)
      ? await this.pool.query<{ id: string; model: string; deployment: string; context_tokens: string }>(
          'SELECT id, model, deployment, context_tokens FROM stored_responses WHERE id = $1 AND tenant_id = $2 AND expires_at > now()', [id, tenantId])
      : { rows: [] };
    if (row === undefined) {
      throw new GatewayError('not_found', { publicMessage: 'There is no such stored response. Responses are kept only where a policy allows it, for 30 days.', ...(param === undefined ? {} : { param }) });
    }
    return { id: row.id, model: row.model, deployment: row.deployment, contextTokens: Number(row.context_tokens) };
  }
}

/** An entry of `stored_responses_apply` (see the migration that creates it). */
export function storedEntry(tenantId: string, change: StoredChange, nowMs: number): string {
  if (change.kind === 'forget') return JSON.stringify({ k: 'forget', id: change.id, t: tenantId });
  return JSON.stringify({
    k: 'keep', id: change.id, t: tenantId, m: change.model, d: change.deployment, c: change.contextTokens, x: new Date(nowMs + KEPT_DAYS * 86_400_000).toISOString(),
  });
}
