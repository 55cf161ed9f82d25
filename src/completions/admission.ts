import type { Logger } from 'pino';
import { uuid } from '../shared/uuid.ts';
import { actorOf, auditEventText, leafEntry } from '../audit/audit-event.ts';
import type { Commitments, RequestCommitter } from '../audit/commitments.ts';
import type { Principal } from '../auth/principal.ts';
import type { ChargeBasis } from '../cost/charge.ts';
import { holdEntry, KEY_TAKEN, LEDGER_VERDICT, settlementEntry, type Hold, type SettlementKind } from '../cost/ledger-entry.ts';
import type { Candidate, Plan } from '../cost/plan.ts';
import { JOURNAL_LIMITS, type Journal } from '../journal/journal.ts';
import type { Operation } from '../journal/operation.ts';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Replica } from '../shared/replica.ts';
import type { AccessDecision } from './access.ts';
import type { Caller } from './caller.ts';
import type { Choice } from './cost-engine.ts';
import { running, type Idempotency, type IdempotencyClaim } from './idempotency.ts';
import { storedEntry } from './stored-responses.ts';
import { aboutCall, intentText, outcomeText, type CallEnd, type CallIdentity, type LostAttempt } from './call-record.ts';

/** A hold outlives the longest call by this much, before its own process takes it for forgotten. */
const EXPIRY_MARGIN_MS = 60_000;

export interface AdmissionRequest {
  requestId: string;
  principal: Principal;
  plan: Plan;
  choice: Choice | undefined;
  candidate: Candidate;
  decision: AccessDecision;
  operation: string;
  ip: string;
  stream: boolean;
  body: Buffer;
  apiVersion: string | undefined;
  totalTimeoutMs: number;
  claim: IdempotencyClaim | undefined;
}

/** Steps 7 and 9 of a request's life: the intent and the hold in one commit, the outcome and the settlement in another. */
export class Admission {
  #open = 0;

  constructor(
    private readonly journal: Journal,
    private readonly commitments: Commitments,
    private readonly idempotency: Idempotency,
    private readonly replica: Replica,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  /** Calls admitted and not yet settled. */
  get open(): number {
    return this.#open;
  }

  /**
   * @returns a call that must be settled, whatever happens to it
   * @throws {GatewayError} `budget_exceeded`, `audit_unavailable`, `overloaded`
   */
  async admit(request: AdmissionRequest): Promise<AdmittedCall> {
    const { principal, plan, candidate, decision } = request;
    if (!this.journal.available) await this.journal.commit({ id: request.requestId, lane: 'admission', entries: {} }); // says why not
    const nowMs = this.clock.nowMs();
    const committer = await this.#committer(principal.tenantId, request.requestId, nowMs);
    const identity: CallIdentity = {
      requestId: request.requestId, holdId: uuid(), actor: actorOf(principal), operation: request.operation, ip: request.ip, startedAtMs: nowMs,
      context: {
        sub: principal.subject, model: plan.resolved.name, upstream_model: candidate.model.id, deployment: candidate.deployment.id, stream: request.stream,
        decision_id: decision.record.id, operation: request.operation, ip: request.ip, ...(typeof principal.attributes['team'] === 'string' ? { team: principal.attributes['team'] } : {}),
      },
    };
    const hold: Hold = {
      id: identity.holdId, requestId: request.requestId, tenantId: principal.tenantId, scopes: budgetScopes(principal, plan), amountTicks: plan.holdTicks,
      replicaId: this.replica.id, expiresAtMs: nowMs + request.totalTimeoutMs + EXPIRY_MARGIN_MS, context: identity.context,
    };
    const leafId = uuid();
    const text = intentText(leafId, identity, principal, plan, candidate, request.choice, decision, request.apiVersion, committer.commit('prompt', request.body));
    const call = new AdmittedCall(this.journal, this.idempotency, this.clock, this.logger, identity, hold, request.claim, committer, () => {
      this.#open -= 1;
    });
    const verdict = await this.journal.commit({
      id: leafId, lane: 'admission', entries: { ledger_apply: holdEntry(hold), audit_append: leafEntry(leafId, aboutCall(identity), text), ...(request.claim && this.idempotency.claimEntries(request.claim, request.requestId, nowMs)) },
      onCommittedAfterGivingUp: () => {
        this.#open += 1;
        call.settle(neverSent()).catch((error: unknown) => this.logger.fatal({ err: error, requestId: request.requestId }, 'a hold could not be released; the sweeper will charge it'));
      },
    });
    if (verdict === KEY_TAKEN) throw running();
    if (verdict !== LEDGER_VERDICT.fine) throw budgetExceeded(verdict, plan);
    this.#open += 1;
    return call;
  }

  /** A repeat is no call, but somebody was given an answer: that goes on record first. */
  async recordReplay({ requestId, operation, ip }: Pick<Caller, 'requestId' | 'operation' | 'ip'>, principal: Principal, decision: AccessDecision, firstRequestId: string, status: number): Promise<void> {
    const id = uuid();
    const text = auditEventText({
      id, phase: 'outcome', timeMs: this.clock.nowMs(), requestId, actor: actorOf(principal), operation, ip, httpStatus: status, errorCode: undefined, activity: 'read',
      details: { outcome: 'replayed', replay_of: firstRequestId, decision: { id: decision.record.id, revision: decision.record.revision } },
    });
    await this.journal.commit({ id, lane: 'admission', entries: { audit_append: leafEntry(id, { tenant: principal.tenantId, requestId }, text) } });
  }

  async #committer(tenantId: string, requestId: string, nowMs: number): Promise<RequestCommitter> {
    try {
      const committer = this.commitments.forRequest(tenantId, requestId, nowMs);
      return committer instanceof Promise ? await within(JOURNAL_LIMITS.admissionTimeoutMs, committer) : committer;
    } catch (cause) {
      throw new GatewayError('audit_unavailable', { publicMessage: 'The audit log cannot be written at the moment, and no call is made without a record. Try again shortly.', retryAfterSeconds: 2, cause });
    }
  }
}

/** A call whose intent is on record and whose money is held. */
export class AdmittedCall {
  /** Attempts charged for themselves, for the record. */
  readonly lostAttempts: LostAttempt[] = [];

  constructor(
    private readonly journal: Journal,
    private readonly idempotency: Idempotency,
    private readonly clock: Clock,
    private readonly logger: Logger,
    readonly identity: CallIdentity,
    private readonly hold: Hold,
    private readonly claim: IdempotencyClaim | undefined,
    readonly committer: RequestCommitter,
    private readonly onSettled: () => void,
  ) {}

  /**
   * Charges an attempt that may have been billed and whose answer will never be known, by a hold of its own, so that a further attempt has the first
   * one's. Its process may die in between: then the sweeper charges it all the same.
   *
   * @returns false where no budget has room for it, or the database cannot be asked: then there must be no further attempt
   */
  async chargeLostAttempt(): Promise<boolean> {
    const hold: Hold = { ...this.hold, id: uuid(), context: { ...this.hold.context, lost_attempt: true } };
    const settle = (kind: SettlementKind, ticks: bigint, basis: ChargeBasis): Promise<unknown> => {
      const settlement = { kind, holdId: hold.id, outcome: 'lost', usage: undefined, charge: { ticks, basis, providerTicks: undefined, computedTicks: undefined } };
      return this.journal.commitOrSpool({ id: uuid(), lane: 'outcome', entries: { ledger_apply: settlementEntry(settlement) } });
    };
    try {
      const verdict = await this.journal.commit({
        id: hold.id, lane: 'admission', entries: { ledger_apply: holdEntry(hold) },
        onCommittedAfterGivingUp: () => {
          settle('release', 0n, 'free').catch((error: unknown) => this.logger.fatal({ err: error, holdId: hold.id }, 'a hold could not be released; the sweeper will charge it'));
        },
      });
      if (verdict !== LEDGER_VERDICT.fine) return false;
    } catch (error) {
      if (error instanceof GatewayError) return false;
      throw error;
    }
    await settle('settle', hold.amountTicks, 'hold');
    this.lostAttempts.push({ hold_id: hold.id, ticks: String(hold.amountTicks) });
    return true;
  }

  /**
   * Records how the call ended and charges it.
   *
   * @returns whether the database has it; otherwise the local spool does
   * @throws when not even the spool could be written: then the sweeper charges the hold
   */
  async settle(end: CallEnd): Promise<boolean> {
    const nowMs = this.clock.nowMs();
    const leafId = uuid();
    const stored = end.stored === undefined ? {} : { stored_responses_apply: storedEntry(this.identity.actor.tenant!, end.stored, nowMs) };
    try {
      const finished = this.claim === undefined ? {} : { idempotency_finish: await this.#finishEntry(this.claim, end) };
      const verdict = await this.journal.commitOrSpool({
        id: leafId, lane: 'outcome',
        entries: {
          ledger_apply: this.#settlement(end.outcome === 'never_sent' ? 'release' : 'settle', end),
          audit_append: leafEntry(leafId, aboutCall(this.identity), outcomeText(leafId, 'outcome', this.identity, end, nowMs, this.lostAttempts)),
          ...stored, ...finished,
        },
        otherwise: this.#correction(leafId, end, nowMs),
      });
      return verdict !== 'spooled' && verdict !== LEDGER_VERDICT.unknownHold;
    } finally {
      this.onSettled();
    }
  }

  /** What was free may be tried again under the same key. Where the result cannot be kept, the call is settled all the same, and a repeat is told so. */
  async #finishEntry(claim: IdempotencyClaim, { outcome, charge, httpStatus, result }: CallEnd): Promise<string> {
    const { requestId, startedAtMs } = this.identity;
    if (outcome !== 'completed' && charge.ticks === 0n) return this.idempotency.finishEntry(claim, requestId, undefined);
    if (result !== undefined) {
      try {
        await this.idempotency.keep(claim, requestId, startedAtMs, result);
      } catch (error) {
        this.logger.warn({ err: error, requestId }, 'idempotency: a result could not be kept');
      }
    }
    return this.idempotency.finishEntry(claim, requestId, result?.status ?? httpStatus ?? 500);
  }

  /** Where the sweeper took this process for dead and charged the hold, the outcome becomes a correction. Built only when asked for. */
  #correction(leafId: string, end: CallEnd, nowMs: number): NonNullable<Operation['otherwise']> {
    return {
      verdict: LEDGER_VERDICT.late,
      entries: () => ({ ledger_apply: this.#settlement('correct', end), audit_append: leafEntry(leafId, aboutCall(this.identity), outcomeText(leafId, 'change', this.identity, end, nowMs, this.lostAttempts)) }),
    };
  }

  #settlement(kind: SettlementKind, end: CallEnd): string {
    return settlementEntry({ kind, holdId: this.identity.holdId, outcome: end.outcome, usage: end.usage, charge: end.charge });
  }
}

/** A tenant's first call of the day asks the database for its key, and waits no longer than for its admission. */
async function within<T>(timeoutMs: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([promise, new Promise<never>((_, reject) => {
      // After this turn's input, as in the journal: where the whole process stood still, the key may be lying there.
      timer = setTimeout(() => setImmediate(() => reject(new Error(`no key within ${timeoutMs} ms`))), timeoutMs);
    })]);
  } finally {
    clearTimeout(timer);
  }
}

/** The end of a call of which no byte went upstream: it is free. */
export function neverSent(error?: GatewayError): CallEnd {
  return {
    outcome: 'never_sent', httpStatus: error?.status, errorCode: error?.code ?? 'audit_unavailable', usage: undefined,
    charge: { ticks: 0n, basis: 'free', providerTicks: undefined, computedTicks: undefined, drift: false }, attempts: [], answerCommitment: undefined,
  };
}

function budgetScopes(principal: Principal, plan: Plan): string[] {
  const scopes = ['tenant', `user:${principal.subject}`, `model:${plan.resolved.name}`];
  const { team } = principal.attributes;
  if (typeof team === 'string') scopes.push(`team:${team}`);
  if (principal.keyId !== undefined) scopes.push(`key:${principal.keyId}`);
  return scopes;
}

function budgetExceeded(verdict: number, plan: Plan): GatewayError {
  return new GatewayError('budget_exceeded', {
    publicMessage: verdict === LEDGER_VERDICT.noBudget
      ? 'The tenant has no budget, so it may spend nothing. Ask the platform team for one.'
      : 'What is left of a budget does not cover what this call may cost. Lower max_completion_tokens, or ask the owner of the budget to raise it.',
    internal: { verdict, holdTicks: String(plan.holdTicks) },
  });
}
