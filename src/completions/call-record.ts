import type { Principal } from '../auth/principal.ts';
import { actorOf, auditEventText, type AuditActor, type Commitment } from '../audit/audit-event.ts';
import type { TokenUsage } from '../catalogue/token-price.ts';
import type { Charge } from '../cost/charge.ts';
import type { HoldContext } from '../cost/ledger-entry.ts';
import type { Candidate, Plan } from '../cost/plan.ts';
import type { DecisionRecord } from '../shared/gateway-error.ts';
import type { AccessDecision } from './access.ts';
import type { Choice } from './cost-engine.ts';
import type { PayloadRecord } from './stored-payload.ts';
import type { StoredChange } from './stored-responses.ts';

/** How an admitted call ended. */
export type CallOutcome = 'completed' | 'failed' | 'aborted' | 'never_sent' | 'unknown';

export interface CallIdentity {
  requestId: string;
  holdId: string;
  actor: AuditActor;
  operation: string;
  ip: string;
  /** Epoch milliseconds of admission. */
  startedAtMs: number;
  context: HoldContext;
}

/** By which the records of a call are found. */
export function aboutCall({ actor, requestId }: CallIdentity): { tenant: string | undefined; requestId: string } {
  return { tenant: actor.tenant, requestId };
}

/** One attempt at the provider, for the record. */
export interface Attempt {
  deployment: string;
  providerRequestId: string | undefined;
  zeroDataRetention: string | undefined;
  status: number | undefined;
  errorCode: string | undefined;
  firstByteMs: number | undefined;
  /** Key exchange group of the connection; undefined without TLS. */
  tlsGroup: string | undefined;
}

/** An attempt that may have been billed without anyone ever knowing, charged by its whole hold. */
export interface LostAttempt {
  hold_id: string;
  ticks: string;
}

export interface CallEnd {
  outcome: CallOutcome;
  httpStatus: number | undefined;
  errorCode: string | undefined;
  usage: TokenUsage | undefined;
  charge: Charge;
  attempts: readonly Attempt[];
  answerCommitment: Commitment | undefined;
  /** What it changes of what the provider keeps. */
  stored?: StoredChange | undefined;
  /** What of its text the tenant has stored here. */
  payload?: PayloadRecord | undefined;
  /** The decision that ended it under way. */
  cutBy?: DecisionRecord | undefined;
  /** What a repeat under the same idempotency key is answered with: an error that came after the first byte has a status of its own here. */
  result?: { status: number; body: Buffer } | undefined;
}

/** The record made before a call: who, what, by which rules, and for how much. */
export function intentText(id: string, call: CallIdentity, principal: Principal, plan: Plan, candidate: Candidate, choice: Choice | undefined, decision: AccessDecision, apiVersion: string | undefined, prompt: Commitment): string {
  return auditEventText({
    id, phase: 'intent', timeMs: call.startedAtMs, requestId: call.requestId, actor: actorOf(principal), operation: call.operation, ip: call.ip,
    httpStatus: undefined, errorCode: undefined, activity: 'create',
    details: {
      hold_id: call.holdId,
      decision: decision.record,
      model: { requested: plan.resolved.requested, alias: plan.resolved.name, upstream: candidate.model.id },
      deployment: candidate.deployment.id,
      api_version: apiVersion,
      plan: { input_tokens: plan.inputTokens, max_output_tokens: plan.maxOutputTokens, reasoning_tokens: plan.reasoningTokens, choices: plan.choices, priority: plan.priority },
      optimizer: choice && {
        chosen: choice.selection.option.name, complexity: Number(choice.complexity.toFixed(3)), kind: choice.kind, expected_quality: Number(choice.selection.expectedQuality.toFixed(3)),
        predicted: { input_tokens: choice.inputTokens, output_tokens: choice.outputTokens, cost_ticks: { p50: String(choice.costTicks.p50), p90: String(choice.costTicks.p90) } }, reasons: choice.selection.reasons,
      },
      hold_ticks: String(plan.holdTicks),
      price: { input: String(candidate.price.base.input), cached_input: String(candidate.price.base.cachedInput), output: String(candidate.price.base.output), as_of: candidate.price.asOf, revision: candidate.price.revision },
      data_class: decision.dataClass,
      client_certificate: principal.certificate && { sha256: principal.certificate.fingerprint, uris: principal.certificate.uris },
      stream: call.context.stream,
      store: decision.store || undefined,
      prompt_commitment: prompt,
    },
  });
}

/**
 * The record made after a call.
 *
 * @param phase `change` where the sweeper had recorded an outcome before: then this corrects it
 */
export function outcomeText(id: string, phase: 'outcome' | 'change', call: CallIdentity, end: CallEnd, nowMs: number, lostAttempts: readonly LostAttempt[] = []): string {
  return auditEventText({
    id, phase, timeMs: nowMs, requestId: call.requestId, actor: call.actor, operation: call.operation, ip: call.ip,
    httpStatus: end.httpStatus, errorCode: end.errorCode, activity: phase === 'change' ? 'update' : 'create',
    details: {
      hold_id: call.holdId,
      ...(phase === 'change' ? { change: call.context.lost_attempt === true ? 'lost_attempt' : 'settlement_correction' } : {}),
      outcome: end.outcome,
      decision: { id: call.context.decision_id },
      cut_by: end.cutBy,
      model: { requested: call.context.model, upstream: call.context.upstream_model },
      deployment: call.context.deployment,
      attempts: end.attempts,
      lost_attempts: lostAttempts.length === 0 ? undefined : lostAttempts,
      usage: end.usage && {
        generated_images: end.usage.generatedImages, input_tokens: end.usage.inputTokens, cached_input_tokens: end.usage.cachedInputTokens, output_tokens: end.usage.outputTokens, reasoning_tokens: end.usage.reasoningTokens,
      },
      charge: {
        ticks: String(end.charge.ticks), basis: end.charge.basis, provider_ticks: end.charge.providerTicks?.toString(), computed_ticks: end.charge.computedTicks?.toString(),
      },
      duration_ms: Math.max(0, Math.round(nowMs - call.startedAtMs)),
      answer_commitment: end.answerCommitment,
      stored_response: end.stored && { change: end.stored.kind, id: end.stored.id },
      payload: end.payload,
    },
  });
}
