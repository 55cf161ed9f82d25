import { uuid } from '../shared/uuid.ts';
import type { CallEnvironment, CallFacts, DataClass, DecisionPoint, Verdict } from '../auth/decision-point.ts';
import type { Principal } from '../auth/principal.ts';
import type { Candidate, Plan } from '../cost/plan.ts';
import type { Tiers } from '../catalogue/tiers.ts';
import type { RequestedCall } from './requested-call.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { TICKS_PER_USD } from '../shared/usd-ticks.ts';

/** Why a call was let in: the rule that decided, at which state of the rules. */
export interface AccessDecision {
  id: string;
  revision: string;
  policy: string | undefined;
  rule: string | undefined;
  dataClass: DataClass;
  /** What is left of the plan's candidates. */
  candidates: readonly Candidate[];
  /** Whether the provider may keep the answer. */
  store: boolean;
}

export interface AccessFacts {
  stream: boolean;
  dataClass: DataClass;
  capabilities: readonly string[];
  storage: RequestedCall['storage'];
}

/**
 * Step 5 of a request's life: filters the plan's candidates by policy.
 *
 * @throws {GatewayError} `policy_denied` when nothing is left
 */
export function authorize(decisions: DecisionPoint, tiers: Tiers, principal: Principal, plan: Plan, facts: AccessFacts, environment: CallEnvironment): AccessDecision {
  const id = uuid();
  const dedicatedAllowed = tiers[principal.tier].dedicated_accelerators;
  let best: Verdict | undefined;
  let refused: Verdict | undefined;
  const candidates: Candidate[] = [];
  // Left to the policy, it has to be allowed wherever the call may go; asked for, the call goes only where it is.
  let store = facts.storage !== 'none';
  for (const candidate of plan.candidates) {
    if (candidate.deployment.accelerator === 'dedicated' && !dedicatedAllowed) continue;
    const call = callFacts(plan, candidate, facts);
    let verdict = decisions.decide('invoke', principal, call, environment);
    if (verdict.allowed && facts.storage !== 'none') {
      const storing = decisions.decide('store', principal, call, environment);
      if (facts.storage === 'required') verdict = storing.allowed ? verdict : { ...storing, reason: storing.reason ?? NO_STORING };
      store &&= storing.allowed;
    }
    if (verdict.allowed) {
      candidates.push(candidate);
      best ??= verdict;
    } else {
      refused = verdict;
    }
  }
  if (candidates.length > 0) {
    return { id, revision: decisions.revision, policy: best?.policy, rule: best?.rule, dataClass: facts.dataClass, candidates, store: facts.storage === 'required' || store };
  }
  const error = new GatewayError('policy_denied', {
    publicMessage: `The policy does not allow this call. ${refused?.reason ?? 'No rule allows it.'}`,
    internal: { decisionId: id, revision: decisions.revision, policy: refused?.policy, rule: refused?.rule },
  });
  error.decisionId = id;
  throw error;
}

const NO_STORING = 'No rule allows the provider to keep answers (action "store"). Send store: false.';

function callFacts(plan: Plan, candidate: Candidate, facts: AccessFacts): CallFacts {
  const { requested, name, model } = plan.resolved;
  return {
    // A stand-in answers to its own names too: a rule on any of them applies.
    modelNames: [...new Set([requested, name, model.id, candidate.name, candidate.model.id, candidate.upstreamModel])],
    model: name,
    stream: facts.stream,
    dataClass: facts.dataClass,
    maxTokens: plan.maxOutputTokens,
    // A rule compares it with a limit someone typed; whole ticks matter only where money moves.
    estimatedCostUsd: Number(plan.holdTicks) / Number(TICKS_PER_USD),
    capabilities: facts.capabilities,
    deployment: { region: candidate.deployment.region, accelerator: candidate.deployment.accelerator, zdr: candidate.deployment.zdr },
  };
}
