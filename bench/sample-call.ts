import { randomBytes } from 'node:crypto';
import { actorOf, type Commitment } from '../src/audit/audit-event.ts';
import type { Principal } from '../src/auth/principal.ts';
import { loadCatalogue } from '../src/catalogue/catalogue.ts';
import type { AccessDecision } from '../src/completions/access.ts';
import type { CallEnd, CallIdentity } from '../src/completions/call-record.ts';
import { candidatesFor, NO_COST, planCall, type Candidate, type Plan } from '../src/cost/plan.ts';
import { uuid } from '../src/shared/uuid.ts';

// A call as the pipeline would make it, for benches that go without HTTP and the provider.

/** What all calls have in common. */
export interface CallSetting {
  principal: Principal;
  plan: Plan;
  candidate: Candidate;
  decision: AccessDecision;
  replicaId: string;
  commitment: Commitment;
}

export function sampleSetting(tenantId: string, replicaId: string): CallSetting {
  const catalogue = loadCatalogue();
  const resolved = catalogue.resolve('grok-4.20-0309-non-reasoning')!;
  const candidates = candidatesFor(catalogue, [resolved]);
  const plan = planCall(resolved, candidates, { ...NO_COST, textBytes: 400, maxOutputTokens: 64 }, { maxTokensCap: 32_768, maxCostTicks: undefined });
  const principal: Principal = {
    tenantId, tier: 'enterprise', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.8, ceilingTicks: undefined, holds: 'bounded' }, subject: 'load@bench.example',
    roles: ['developer'], attributes: {}, clientId: undefined, issuer: 'https://issuer.bench.example', tokenId: uuid(), expiresAtMs: Date.now() + 7_200_000, mtls: false,
  };
  const decision: AccessDecision = {
    dataClass: 'internal', candidates, store: false,
    record: { id: uuid(), revision: '1', policy: 'built-in', rule: 'developers-invoke', attributes: { tenant: tenantId, roles: ['developer'], stream: false, data_class: 'internal' } },
  };
  const commitment: Commitment = { algorithm: 'HMAC-SHA256', key_id: uuid(), value: randomBytes(32).toString('hex') };
  return { principal, plan, candidate: candidates[0]!, decision, replicaId, commitment };
}

export function sampleIdentity({ principal, plan, candidate, decision }: CallSetting): CallIdentity {
  const operation = 'POST /v1/chat/completions';
  return {
    requestId: uuid(), holdId: uuid(), actor: actorOf(principal), operation, ip: '127.0.0.1', startedAtMs: Date.now(),
    context: {
      sub: principal.subject, model: plan.resolved.name, upstream_model: candidate.model.id, deployment: candidate.deployment.id, stream: false,
      decision_id: decision.record.id, operation, ip: '127.0.0.1',
    },
  };
}

/** Ended well, after 100 tokens in and 20 out. */
export function completedEnd({ commitment }: CallSetting, { requestId, context }: CallIdentity, chargeTicks: bigint): CallEnd {
  return {
    outcome: 'completed', httpStatus: 200, errorCode: undefined, usage: { inputTokens: 100, cachedInputTokens: 0, outputTokens: 20, reasoningTokens: 0 },
    charge: { ticks: chargeTicks, basis: 'provider', providerTicks: chargeTicks, computedTicks: chargeTicks, drift: false },
    attempts: [{ deployment: context.deployment, providerRequestId: requestId, zeroDataRetention: 'false', status: 200, errorCode: undefined, firstByteMs: 12, tlsGroup: 'X25519MLKEM768' }],
    answerCommitment: commitment,
  };
}
