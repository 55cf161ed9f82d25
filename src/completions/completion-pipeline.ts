import type { Logger } from 'pino';
import type { Alerts, AlertType } from '../alerts/alerts.ts';
import type { AccessRules } from '../auth/access-rules.ts';
import type { Principal } from '../auth/principal.ts';
import type { Catalogue, Model } from '../catalogue/catalogue.ts';
import type { TokenUsage } from '../catalogue/token-price.ts';
import type { Tiers } from '../catalogue/tiers.ts';
import { chargeFor, type Charge } from '../cost/charge.ts';
import { candidatesFor, planCall, type Candidate, type Plan, type PlanLimits } from '../cost/plan.ts';
import type { Predictor } from '../cost/predictor.ts';
import { taskKindOf } from '../cost/task-kind.ts';
import type { Env } from '../env.ts';
import type { AnswerReader } from '../provider/answer-reader.ts';
import type { UpstreamCall, UpstreamLimits } from '../provider/grok-client.ts';
import { GrokApiError } from '../provider/grok-errors.ts';
import type { Lease } from '../provider/shard.ts';
import type { Shards } from '../provider/shards.ts';
import type { CallLimits, CallPlace } from '../throttle/call-limits.ts';
import type { Clock } from '../shared/clock.ts';
import { asGatewayError, errorBody, GatewayError, invalidToken } from '../shared/gateway-error.ts';
import { formatUsd } from '../shared/usd-ticks.ts';
import { authorize, type AccessDecision } from './access.ts';
import { neverSent, type Admission, type AdmittedCall } from './admission.ts';
import type { CallEnd } from './call-record.ts';
import type { CallMetrics } from './call-metrics.ts';
import type { Caller } from './caller.ts';
import { readCallerOptions, type CallerOptions } from './caller-options.ts';
import { sendAgain, type CompletionAnswer } from './completion-answer.ts';
import { conversationId } from './conversation.ts';
import { AUTO, type Choice, type CostEngine } from './cost-engine.ts';
import type { FirstResult, Idempotency, IdempotencyClaim } from './idempotency.ts';
import { KeptAnswer } from './kept-answer.ts';
import { CallerGone, type Dispatched, type Dispatcher } from './dispatch.ts';
import type { RequestedCall } from './requested-call.ts';
import type { RunningCalls } from './running-calls.ts';
import { storesPayloads, type StoredPayload, type StoredPayloads } from './stored-payload.ts';

const FIRST_BYTE_TIMEOUT_MS = 120_000;

/**
 * START HERE: the life of a call, from top to bottom, whichever endpoint it came to.
 *
 *   1 authenticate   `auth/auth.guard.ts`                  who is calling                                  401
 *   2 throttle       `throttle/tenant-throttler.guard.ts`  requests per minute of the tier                 429
 *   3 validate       `endpoints/`                          schema; unknown fields stay                     400 404 413 415
 *   4 plan           `cost/plan.ts`                        candidates, token caps, money to hold (pure)    400 402 404
 *   5 authorize      `access.ts`                           policy over the resolved request (pure)         403
 *   6 cache          `idempotency.ts`                      a repeat gets the first answer                  409
 *   7 admit          `admission.ts`                        intent and hold, one commit                     402 503
 *                    `stored-payload.ts`                   the prompt, for tenants that want it stored         503
 *   8 dispatch       `dispatch.ts`                         shard, breaker, attempts; bytes pass through    429 502 503 504
 *   9 settle         `admission.ts`                        outcome and charge, one commit; then the end of the answer
 *
 * Steps 1 and 2 are guards, since Nest runs guards before anything has read the body. Up to step 7 an error is a refusal, recorded by the error
 * filter. From then on the call is settled and recorded exactly once, whoever hangs up.
 */
export class CompletionPipeline {
  constructor(
    private readonly env: Env,
    private readonly catalogue: Catalogue,
    private readonly tiers: Tiers,
    private readonly rules: AccessRules,
    private readonly running: RunningCalls,
    private readonly admission: Admission,
    private readonly idempotency: Idempotency,
    private readonly storedPayloads: StoredPayloads,
    private readonly callLimits: CallLimits,
    private readonly costEngine: CostEngine,
    private readonly predictor: Predictor,
    private readonly shards: Shards,
    private readonly dispatcher: Dispatcher,
    private readonly conversationSecret: () => Buffer | undefined,
    private readonly metrics: CallMetrics,
    private readonly alerts: Pick<Alerts, 'fire'>,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  /** @param read what the endpoint makes of the request; throws a `GatewayError` where it makes no sense */
  async run(principal: Principal, caller: Caller, read: (caller: Caller) => Promise<RequestedCall>): Promise<void> {
    const options = readCallerOptions(caller.headers, principal.dataClass);
    const requested = await read(caller);
    const { plan, choice } = this.#plan(principal, requested, options, caller);
    const decision = this.#authorize(principal, requested, plan, options, caller);
    const claim = this.idempotency.claimOf(caller.headers, principal.tenantId, caller.operation, requested.identity);
    const first = claim === undefined ? undefined : await this.idempotency.find(claim);
    if (first !== undefined) return this.#answerAgain(first, requested, principal, decision, caller);
    const conversation = conversationId(this.conversationSecret(), principal.tenantId, caller.headers, requested.opening, requested.body.length);
    const own = this.#takePlace(principal, plan, caller);
    try {
      await this.#call(principal, requested, plan, choice, decision, options, conversation, claim, caller, own);
    } finally {
      own.end(0); // where nothing was used
    }
  }

  /** Steps 7 to 9. */
  async #call(
    principal: Principal, requested: RequestedCall, plan: Plan, choice: Choice | undefined, decision: AccessDecision, options: CallerOptions, conversation: string | undefined, claim: IdempotencyClaim | undefined, caller: Caller, own: CallPlace,
  ): Promise<void> {
    // Before anything is written or held: where no deployment can take the call, that is all there is to say.
    const place = this.shards.lease(decision.candidates, { conversation, inputTokens: plan.inputTokens, avoid: new Set(), nowOrNever: false });
    const limitsOf = (candidate: Candidate): UpstreamLimits => this.#limits(candidate, options);
    const call = await this.#admit(place, principal, requested, plan, choice, decision, caller, claim, limitsOf(place.candidate).totalTimeoutMs);
    const upstream: { call?: UpstreamCall } = {};
    const advice = options.costMode === 'advise' || (options.costMode === undefined && principal.cost.mode === 'advise') ? adviceHeaders(choice, plan) : {};
    const headers = { current: { ...this.#headers(place.candidate, decision, 1), ...advice } };
    let serving = place.candidate;
    // A change of the rules, or a revocation, ends a call that would not be let in now.
    const recheck = (candidates: readonly Candidate[]): readonly Candidate[] => {
      if (this.rules.isRevoked(principal)) throw invalidToken({ reason: 'revoked' });
      return this.#authorize(principal, requested, { ...plan, candidates }, options, caller).candidates;
    };
    let cutBy: GatewayError | undefined;
    const ended = this.running.add({
      recheck: () => void recheck([serving]),
      cut: (error) => {
        cutBy = error;
        upstream.call?.abort(error);
      },
    });
    let answer: CompletionAnswer;
    let dispatched: Dispatched;
    let payload: StoredPayload | undefined;
    try {
      if (storesPayloads(principal)) payload = await this.storedPayloads.begin(principal, caller.requestId, requested.body);
      if (this.rules.revision !== decision.record.revision) recheck([serving]); // changed while the call was being admitted
      const flow = { pause: () => upstream.call?.pause(), resume: () => upstream.call?.resume(), cut: () => upstream.call?.abort(new CallerGone('the caller reads too slowly')) };
      answer = requested.answer(caller.reply, flow, () => headers.current);
      if (claim !== undefined) answer = new KeptAnswer(answer, () => requested.assembly());
      let attempts = 0;
      dispatched = await this.dispatcher.run({
        call, plan, conversation, answer, copy: payload, limitsOf,
        reader: () => requested.reader(plan),
        requestTo: (candidate) => {
          if (cutBy !== undefined) throw cutBy;
          attempts += 1;
          serving = candidate;
          headers.current = { ...this.#headers(candidate, decision, attempts), ...advice };
          return { ...requested.upstream(plan, candidate, conversation, decision.store), conversationId: conversation };
        },
        allowed: () => recheck(plan.candidates),
        onHangUp: (listener) => caller.onHangUp(listener),
      }, upstream, place);
    } catch (error) {
      place.lease.end('neither');
      await this.#settle(call, { ...neverSent(asGatewayError(error)), payload: await payload?.finish() });
      throw recorded(asGatewayError(error));
    } finally {
      ended();
    }
    await this.#settleAndAnswer(principal, call, dispatched, requested, plan, answer, headers.current, own, payload);
  }

  /**
   * What the cost engine makes of a call that is not sent.
   *
   * @throws {GatewayError} `request_cost_exceeded`, `model_not_found`, `policy_unavailable`
   */
  optimize(principal: Principal, requested: RequestedCall, caller: Pick<Caller, 'headers' | 'ip'>, budgetTicks: bigint | undefined): { choice: Choice; plan: Plan } {
    const options = { ...readCallerOptions(caller.headers, principal.dataClass), maxCostTicks: budgetTicks, costMode: 'optimize' as const };
    const { plan, choice } = this.#plan(principal, requested, options, caller);
    return { plan, choice: choice! };
  }

  /** Step 4. */
  #plan(principal: Principal, requested: RequestedCall, options: CallerOptions, caller: Pick<Caller, 'ip'>): { plan: Plan; choice: Choice | undefined } {
    const asked = requested.model ?? this.env.defaults.model;
    const mode = asked === AUTO ? 'optimize' : options.costMode ?? principal.cost.mode;
    const ceilings = [options.maxCostTicks, principal.cost.ceilingTicks].filter((ticks) => ticks !== undefined);
    const maxCostTicks = ceilings.length === 0 ? undefined : ceilings.reduce((least, ticks) => (ticks < least ? ticks : least));
    const limits: PlanLimits = {
      maxTokensCap: this.env.defaults.maxTokensCap, maxCostTicks, strict: principal.cost.holds === 'strict', learnedReasoning: (model, effort) => this.predictor.reasoningAllowance(model, effort),
    };
    const choice = mode === 'off' || requested.question === undefined ? undefined : this.#choose(principal, requested, options, caller, limits, mode);
    const name = mode === 'optimize' && choice !== undefined ? choice.selection.option.name : asked;
    const plan = this.#planFor(name, asked, requested, limits);
    return { plan: mode === 'optimize' && choice !== undefined ? { ...plan, temperature: choice.temperature } : plan, choice };
  }

  /** The cost engine's choice, of what the caller may use. Advice that cannot be given refuses nobody's call. */
  #choose(principal: Principal, requested: RequestedCall, options: CallerOptions, caller: Pick<Caller, 'ip'>, limits: PlanLimits, mode: 'advise' | 'optimize'): Choice | undefined {
    let denied: GatewayError | undefined;
    try {
      return this.costEngine.choose(principal, requested, (resolved, candidates, facts) => {
        try {
          this.#authorize(principal, requested, planCall(resolved, candidates, facts, { ...limits, maxCostTicks: undefined }), options, caller);
          planCall(resolved, candidates, facts, limits);
          return 'fits';
        } catch (error) {
          if (error instanceof GatewayError && error.code === 'request_cost_exceeded') return 'too_dear';
          if (!(error instanceof GatewayError) || (error.code !== 'policy_denied' && error.code !== 'model_not_found')) throw error;
          if (error.code === 'policy_denied') denied ??= error;
          return 'denied';
        }
      }, principal.cost.targetQuality, limits.maxCostTicks);
    } catch (error) {
      if (!(error instanceof GatewayError) || (error.code !== 'model_not_found' && error.code !== 'request_cost_exceeded')) throw error;
      if (mode === 'advise') return undefined;
      throw error.code === 'model_not_found' && denied !== undefined ? denied : error;
    }
  }

  #planFor(name: string, asked: string, requested: RequestedCall, limits: PlanLimits): Plan {
    const known = this.catalogue.resolve(name);
    // A rule on "auto" is about the calls that leave the choice to the optimizer.
    const resolved = known && (name === asked ? known : { ...known, requested: asked });
    if (!resolved) {
      throw new GatewayError('model_not_found', { publicMessage: `There is no model ${JSON.stringify(asked)} here. GET /v1/models lists those that you may use.`, param: 'model' });
    }
    const facts = requested.costFacts(resolved.model);
    const names = [resolved, ...resolved.fallbacks.flatMap((fallback) => this.catalogue.resolve(fallback) ?? [])];
    const candidates = candidatesFor(this.catalogue, names).filter(({ model, deployment }) =>
      (requested.deployment === undefined || deployment.id === requested.deployment) && (model === resolved.model || takes(requested, model)));
    if (candidates.length === 0 && requested.deployment !== undefined) {
      throw new GatewayError('not_found', { publicMessage: 'What the request refers to is kept where this model is no longer served.' });
    }
    return planCall(resolved, candidates, facts, limits);
  }

  /** Step 5. */
  #authorize(principal: Principal, { stream, capabilities, storage }: RequestedCall, plan: Plan, options: CallerOptions, caller: Pick<Caller, 'ip'>): AccessDecision {
    const facts = { stream, dataClass: options.dataClass, capabilities, storage };
    return authorize(this.rules.pointFor(principal.tenantId), this.tiers, principal, plan, facts, { ip: caller.ip, timeMs: this.clock.nowMs() });
  }

  /** The rest of step 5: tokens per minute, and calls at once. */
  #takePlace(principal: Principal, plan: Plan, caller: Caller): CallPlace {
    const { tokens_per_minute: tokensPerMinute, concurrent_calls: concurrentCalls } = this.tiers[principal.tier];
    const estimatedTokens = plan.inputTokens + (plan.maxOutputTokens + plan.reasoningTokens) * plan.choices;
    const place = this.callLimits.begin(principal.tenantId, { tokensPerMinute, concurrentCalls }, estimatedTokens);
    const { limit, remaining, resetSeconds } = place.left;
    caller.reply.headers({ 'x-ratelimit-limit-tokens': limit, 'x-ratelimit-remaining-tokens': remaining, 'x-ratelimit-reset-tokens': `${resetSeconds}s` });
    return place;
  }

  /** Step 7. */
  async #admit(place: { candidate: Candidate; lease: Lease }, principal: Principal, requested: RequestedCall, plan: Plan, choice: Choice | undefined, decision: AccessDecision, caller: Caller, claim: IdempotencyClaim | undefined, totalTimeoutMs: number): Promise<AdmittedCall> {
    try {
      return await this.admission.admit({
        requestId: caller.requestId, principal, plan, choice, candidate: place.candidate, decision, operation: caller.operation, ip: caller.ip,
        stream: requested.stream, body: requested.body, apiVersion: this.env.provider.apiVersion, totalTimeoutMs, claim,
      });
    } catch (error) {
      place.lease.end('neither');
      throw error;
    }
  }

  /** The same call under the same idempotency key: the first answer, in the form that is asked for now, at no charge. */
  async #answerAgain({ requestId, status, body }: FirstResult, requested: RequestedCall, principal: Principal, decision: AccessDecision, caller: Caller): Promise<void> {
    await this.admission.recordReplay(caller, principal, decision, requestId, status);
    const headers = { 'x-novix-cache': 'hit', 'x-novix-cost-usd': formatUsd(0n), 'x-novix-attempts': '0', 'x-novix-decision-id': decision.record.id, 'idempotent-replayed': 'true' };
    if (status !== 200 || !requested.stream) sendAgain(caller.reply, status, status === 200 ? headers : { ...headers, 'x-should-retry': 'false' }, 'application/json', body);
    else sendAgain(caller.reply, 200, headers, 'text/event-stream', requested.asStream(JSON.parse(body.toString()) as Record<string, unknown>));
  }

  /** Step 9, and the end of the answer, which waits for it. */
  async #settleAndAnswer(
    principal: Principal, call: AdmittedCall, dispatched: Dispatched, requested: RequestedCall, plan: Plan, answer: CompletionAnswer, headers: Readonly<Record<string, string>>, own: CallPlace, payload: StoredPayload | undefined,
  ): Promise<void> {
    const { reader, failure } = dispatched;
    const end = this.#end(dispatched, requested, plan, answer.begun);
    const tail = failure === undefined ? reader.tail() : undefined;
    if (answer instanceof KeptAnswer && !(failure instanceof CallerGone)) end.result = this.#resultOf(call, answer, tail, reader, failure, requested);
    own.end(end.usage === undefined ? (end.charge.basis === 'free' ? 0 : undefined) : end.usage.inputTokens + end.usage.outputTokens + end.usage.reasoningTokens);
    if (payload !== undefined) end.payload = await payload.finish();
    const inDatabase = await this.#settle(call, end);
    if (failure === undefined && end.usage !== undefined && requested.question !== undefined) this.#learn(principal, requested, dispatched.candidate, end.usage);
    if (failure instanceof CallerGone) {
      answer.abandon();
      return;
    }
    let error = failure === undefined ? undefined : recorded(toError(failure, requested));
    if (!inDatabase) error ??= recorded(unrecorded());
    if (error === undefined) {
      answer.finish(tail!, { ...headers, 'x-novix-cost-usd': formatUsd(end.charge.ticks) }, reader.usage);
    } else if (answer.begun) {
      answer.fail(error);
    } else {
      answer.abandon();
      throw error;
    }
  }

  /** What a repeat is answered with. That it cannot be put together must not keep the call from being settled: then it is not kept. */
  #resultOf(call: AdmittedCall, answer: KeptAnswer, tail: Buffer | undefined, reader: AnswerReader, failure: unknown, requested: RequestedCall): CallEnd['result'] {
    try {
      if (tail !== undefined) return { status: 200, body: answer.whole(tail, reader.usage) };
      const error = toError(failure, requested);
      return { status: error.status, body: Buffer.from(JSON.stringify(errorBody(error))) };
    } catch (error) {
      this.logger.error({ err: error, requestId: call.identity.requestId }, 'idempotency: a result could not be put together, and is not kept');
      return undefined;
    }
  }

  #learn({ tenantId }: Principal, requested: RequestedCall, { model }: Candidate, usage: TokenUsage): void {
    const { textBytes, reasoningEffort } = requested.costFacts(model);
    this.predictor.observe({ tenantId, model, kind: taskKindOf(requested.question!, requested.capabilities, requested.stream) }, reasoningEffort, textBytes, usage);
  }

  #end({ candidate, reader, attempts, sent, backlogged, failure, answerCommitment }: Dispatched, requested: RequestedCall, plan: Plan, begun: boolean): CallEnd {
    const usage = reader.billed;
    // Attempts before the last were free, or are paid for by holds of their own.
    const mayHaveBeenBilled = failure instanceof GrokApiError ? failure.mayHaveBeenBilled : sent && attempts.at(-1)?.errorCode === undefined;
    const charge = chargeFor(
      { mayHaveBeenBilled, usage, priority: reader.priority, outputTokensSeen: reader.outputTokensSeen, backlogged },
      plan, candidate.price,
    );
    this.#watchPrice(candidate, charge, reader, usage === undefined && failure === undefined);
    this.#watchOverrun(candidate, charge, plan);
    if (failure instanceof GrokApiError && (failure.status === 401 || failure.status === 403) && failure.code === 'provider_bad_response') this.#alert('provider_credentials', candidate.deployment.id, 'the provider refuses the gateway itself: see to its key or credits');
    const error = failure === undefined || failure instanceof CallerGone ? undefined : toError(failure, requested);
    const gone = failure instanceof GrokApiError && failure.status === 404;
    const outcome = failure === undefined ? 'completed' : failure instanceof CallerGone ? 'aborted' : 'failed';
    return {
      outcome: sent ? outcome : 'never_sent', charge, usage, attempts, answerCommitment,
      httpStatus: begun || failure === undefined ? 200 : (error?.status ?? 499),
      errorCode: failure instanceof CallerGone ? 'caller_gone' : error?.code,
      cutBy: failure instanceof GatewayError ? failure.decision : undefined,
      stored: failure === undefined ? requested.stored(reader, candidate) : gone ? requested.gone?.() : undefined,
    };
  }

  /** @returns whether the database has it; the spool has it otherwise, and where not even that worked, the sweeper will charge the hold */
  async #settle(call: AdmittedCall, end: CallEnd): Promise<boolean> {
    const { requestId, actor, context, startedAtMs } = call.identity;
    const nowMs = this.clock.nowMs();
    this.metrics.ended(call.identity, end, nowMs);
    this.logger.info({ requestId, tenant: actor.tenant, model: context.upstream_model, outcome: end.outcome, code: end.errorCode, costTicks: String(end.charge.ticks), ms: nowMs - startedAtMs }, 'call');
    try {
      return await call.settle(end);
    } catch (error) {
      this.logger.fatal({ err: error, requestId }, 'a call’s outcome could be recorded neither in the database nor in the spool');
      return false;
    }
  }

  #watchPrice(candidate: Candidate, charge: Charge, reader: AnswerReader, usageUnreadable: boolean): void {
    if (charge.drift) {
      this.metrics.priceDrift.inc({ model: candidate.model.id });
      this.#alert('price_drift', candidate.model.id, `the provider charged ${String(charge.providerTicks)} ticks, the price table says ${String(charge.computedTicks)}`);
      this.logger.warn({ model: candidate.model.id, providerTicks: String(charge.providerTicks), computedTicks: String(charge.computedTicks) }, 'price drift: the provider’s price is not what our table says');
    }
    if (usageUnreadable) {
      this.metrics.usageUnreadable.inc({ model: candidate.model.id });
      this.logger.warn({ model: candidate.model.id, hasUsage: reader.usage !== undefined, basis: charge.basis }, 'the provider sent no usage that can be believed; charged by what was seen');
    }
  }

  /** In bounded mode a call may think longer than was held for. It is charged all the same; that it happens must be seen. */
  #watchOverrun({ model }: Candidate, { ticks }: Charge, { holdTicks }: Plan): void {
    if (ticks <= holdTicks) return;
    this.metrics.holdOverruns.inc({ model: model.id });
    this.metrics.holdOverrunUsd.inc({ model: model.id }, Number(ticks - holdTicks) / 1e10);
    this.#alert('hold_overrun', model.id, `a call cost ${formatUsd(ticks)} USD, and ${formatUsd(holdTicks)} were held`);
  }

  /** Once an hour for each subject. */
  #alert(type: AlertType, subject: string, value: string): void {
    this.alerts.fire({ type, tenantId: undefined, subject, occasion: `${type} ${subject} ${new Date(this.clock.nowMs()).toISOString().slice(0, 13)}`, value });
  }

  #limits({ model }: Candidate, { deadlineMs }: CallerOptions): UpstreamLimits {
    const { provider } = this.env;
    const totalIsDeadline = deadlineMs !== undefined && deadlineMs < provider.totalTimeoutMs;
    return {
      firstByteTimeoutMs: provider.firstByteTimeoutMs ?? model.firstByteTimeoutMs ?? FIRST_BYTE_TIMEOUT_MS,
      idleTimeoutMs: provider.idleTimeoutMs,
      totalTimeoutMs: totalIsDeadline ? deadlineMs : provider.totalTimeoutMs,
      totalIsDeadline,
    };
  }

  #headers({ model, deployment }: Candidate, decision: AccessDecision, attempts: number): Readonly<Record<string, string>> {
    return {
      'x-novix-model': model.id,
      'x-novix-deployment': deployment.id,
      'x-novix-attempts': String(attempts),
      'x-novix-cache': 'bypass',
      'x-novix-decision-id': decision.record.id,
    };
  }
}

/** What the optimizer would have chosen, and what that would have saved. */
function adviceHeaders(choice: Choice | undefined, plan: Plan): Record<string, string> {
  if (choice === undefined) return {};
  const { name, costTicks } = choice.selection.option;
  const own = choice.options.find((option) => option.name === plan.resolved.name)?.costTicks.p50 ?? costTicks.p50;
  return { 'x-novix-advised-model': name, 'x-novix-advised-saving-usd': formatUsd(own > costTicks.p50 ? own - costTicks.p50 : 0n) };
}

/** What the caller is told of a failure. */
function toError(failure: unknown, { deployment }: RequestedCall): GatewayError {
  if (!(failure instanceof GrokApiError)) return asGatewayError(failure);
  // A call that is bound to one place refers to something there, and that is what is missing.
  if (failure.status !== 404 || deployment === undefined) return failure.toGatewayError();
  return new GatewayError('not_found', { publicMessage: 'The provider no longer has the stored response that the request refers to.', cause: failure });
}

/** Whether a model that may stand in takes the request as it is. */
function takes(requested: RequestedCall, model: Model): boolean {
  try {
    requested.costFacts(model);
    return true;
  } catch (error) {
    if (error instanceof GatewayError) return false;
    throw error;
  }
}

/** The call's outcome has it, so the error filter must not record it as a refusal too. */
function recorded(error: GatewayError): GatewayError {
  error.recorded = true;
  return error;
}

function unrecorded(): GatewayError {
  return new GatewayError('audit_unavailable', {
    publicMessage: 'The answer came, but its record could not be completed in the audit log, so it does not count as delivered. It is charged, and will be recorded.', retryAfterSeconds: 5,
  });
}
