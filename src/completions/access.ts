import { uuid } from '../shared/uuid.ts';
import { attributesOf, type CallAction, type CallEnvironment, type CallFacts, type CallSubject, type DataClass, type DecisionPoint, type Verdict } from '../auth/decision-point.ts';
import type { Principal } from '../auth/principal.ts';
import type { Candidate, Plan } from '../cost/plan.ts';
import type { Tiers } from '../catalogue/tiers.ts';
import type { RequestedCall } from './requested-call.ts';
import { GatewayError, type DecisionRecord } from '../shared/gateway-error.ts';
import { TICKS_PER_USD } from '../shared/usd-ticks.ts';

/** Why a call was let in, and what is left of its plan. */
export interface AccessDecision {
  /** For the audit log: the rule that decided, at which state of the rules, and all that rules could ask about. */
  record: DecisionRecord;
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

const NO_STORING = 'No rule allows the provider to keep answers (action "store"). Send store: false.';
/** A record has room for so many. */
const DEPLOYMENTS_RECORDED_MAX = 16;

/**
 * Step 5 of a request's life: filters the plan's candidates by policy.
 *
 * @throws {GatewayError} `policy_denied` when nothing is left
 */
export function authorize(decisions: DecisionPoint, tiers: Tiers, principal: Principal, plan: Plan, facts: AccessFacts, environment: CallEnvironment): AccessDecision {
  const dedicatedAllowed = tiers[principal.tier].dedicated_accelerators;
  let best: Verdict | undefined;
  let refused: Verdict | undefined = keyRefuses(principal, plan);
  const subjects: CallSubject[] = [];
  const candidates: Candidate[] = [];
  // Left to the policy, it has to be allowed wherever the call may go; asked for, the call goes only where it is.
  let store = facts.storage !== 'none';
  for (const candidate of refused === undefined ? plan.candidates : []) {
    if (candidate.deployment.accelerator === 'dedicated' && !dedicatedAllowed) continue;
    const call = callFacts(plan, candidate, facts);
    const subject = { modelNames: call.modelNames, attributes: attributesOf(principal, call, environment) };
    subjects.push(subject);
    let verdict = decisions.decide('invoke', subject);
    if (verdict.allowed && facts.storage !== 'none') {
      const storing = decisions.decide('store', subject);
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
  const record = decisionRecord(decisions.revision, best ?? refused, subjects, facts.storage === 'required' ? ['invoke', 'store'] : ['invoke']);
  if (candidates.length > 0) return { record, dataClass: facts.dataClass, candidates, store: facts.storage === 'required' || store };
  const error = new GatewayError('policy_denied', { publicMessage: `The policy does not allow this call. ${refused?.reason ?? 'No rule allows it.'}` });
  error.decision = record;
  throw error;
}

/** A key may be limited to some models, by whichever of their names. */
function keyRefuses({ models }: Principal, { resolved: { requested, name, model } }: Plan): Verdict | undefined {
  if (models === undefined || models.some((one) => one === requested || one === name || one === model.id)) return undefined;
  return { allowed: false, policy: 'api key', rule: 'models', reason: `The API key is limited to ${models.join(', ')}.` };
}

function decisionRecord(revision: string, verdict: Verdict | undefined, subjects: readonly CallSubject[], actions: readonly CallAction[]): DecisionRecord {
  const { 'deployment.region': _region, 'deployment.accelerator': _accelerator, 'deployment.zdr': _zdr, ...attributes } = subjects[0]?.attributes ?? {};
  return {
    id: uuid(), revision, policy: verdict?.policy, rule: verdict?.rule, reason: verdict?.allowed === false ? verdict.reason : undefined, shadow: verdict?.shadow,
    ...(actions.length > 1 ? { actions } : {}),
    ...(subjects.length === 0 ? {} : {
      attributes,
      deployments: subjects.slice(0, DEPLOYMENTS_RECORDED_MAX).map(({ modelNames, attributes: all }) => ({
        models: modelNames, 'deployment.region': all['deployment.region'], 'deployment.accelerator': all['deployment.accelerator'], 'deployment.zdr': all['deployment.zdr'],
      })),
    }),
  };
}

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
