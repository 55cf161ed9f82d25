import type { Charge } from './charge.ts';
import type { TokenUsage } from '../catalogue/token-price.ts';

/** What `ledger_apply` can say of an operation (see the migration that creates it). */
export const LEDGER_VERDICT = { fine: 0, noRoom: 1, noBudget: 2, late: 3, alreadyResolved: 4, unknownHold: 5 } as const;
/** Of `idempotency_claim`: somebody has the key. */
export const KEY_TAKEN = 6;

/** What an outcome needs to say of a call when the process that made it can no longer say it. */
export interface HoldContext {
  sub: string;
  model: string;
  upstream_model: string;
  deployment: string;
  stream: boolean;
  decision_id: string;
  operation: string;
  ip: string;
  /** Of the principal, where it has one: usage is shown by it. */
  team?: string;
  /** Whether the hold is for an attempt that came to nothing, beside that of its call. */
  lost_attempt?: true;
}

export interface Hold {
  id: string;
  requestId: string;
  tenantId: string;
  /** `tenant`, and `<type>:<id>` for each narrower budget that the call counts toward. */
  scopes: readonly string[];
  amountTicks: bigint;
  replicaId: string;
  expiresAtMs: number;
  context: HoldContext;
}

/** `expire` charges a hold whose process died; `correct` replaces that charge when the truth turns up. */
export type SettlementKind = 'settle' | 'release' | 'expire' | 'correct';

export interface Settlement {
  kind: SettlementKind;
  holdId: string;
  /** How the call ended, for the usage record. */
  outcome: string;
  usage: TokenUsage | undefined;
  charge: Pick<Charge, 'ticks' | 'basis' | 'providerTicks' | 'computedTicks'>;
}

/** Unit separator: in no scope, since control characters are refused in names. */
const SCOPE_SEPARATOR = '\u001f';

export function holdEntry(hold: Hold): string {
  return JSON.stringify({
    k: 'hold', id: hold.id, rq: hold.requestId, t: hold.tenantId, s: hold.scopes.join(SCOPE_SEPARATOR), a: String(hold.amountTicks), rp: hold.replicaId,
    x: new Date(hold.expiresAtMs).toISOString(), c: hold.context,
  });
}

export function settlementEntry({ kind, holdId, outcome, usage, charge }: Settlement): string {
  return JSON.stringify({
    k: kind, id: holdId, a: String(charge.ticks),
    u: {
      outcome, basis: charge.basis,
      input_tokens: usage?.inputTokens, cached_input_tokens: usage?.cachedInputTokens, output_tokens: usage?.outputTokens, reasoning_tokens: usage?.reasoningTokens,
      provider_ticks: charge.providerTicks?.toString(), computed_ticks: charge.computedTicks?.toString(),
    },
  });
}
