import type { Logger } from 'pino';
import type { DecisionPoint } from '../auth/decision-point.ts';
import type { Principal } from '../auth/principal.ts';
import type { Catalogue } from '../catalogue/catalogue.ts';
import type { Tiers } from '../catalogue/tiers.ts';
import { chargeFor, type Charge } from '../cost/charge.ts';
import { planCall, type Candidate, type Plan } from '../cost/plan.ts';
import type { Env } from '../env.ts';
import { ChatStreamReader } from '../provider/chat-stream.ts';
import type { GrokClient, UpstreamCall, UpstreamLimits } from '../provider/grok-client.ts';
import { GrokApiError } from '../provider/grok-errors.ts';
import { readChatUsage } from '../provider/grok-usage.ts';
import type { Targets } from '../provider/targets.ts';
import type { Clock } from '../shared/clock.ts';
import { asGatewayError, GatewayError } from '../shared/gateway-error.ts';
import { formatUsd } from '../shared/usd-ticks.ts';
import { authorize, type AccessDecision } from './access.ts';
import { neverSent, type Admission, type AdmittedCall } from './admission.ts';
import type { Attempt, CallEnd } from './call-record.ts';
import type { CallMetrics } from './call-metrics.ts';
import type { Caller } from './caller.ts';
import { readCallerOptions, type CallerOptions } from './caller-options.ts';
import { PlainAnswer, StreamedAnswer, type CompletionAnswer } from './completion-answer.ts';
import { parseCompletionRequest, type ParsedRequest } from './completion-request.ts';
import { costFacts, requestedCapabilities, upstreamBody } from './upstream-request.ts';

const FIRST_BYTE_TIMEOUT_MS = 120_000;

/** The caller went away, or reads too slowly to be waited for: nobody is left to be told. */
class CallerGone extends Error {
  override readonly name = 'CallerGone';
}

/** What came of the dispatch, before it is settled. */
interface Dispatched {
  reader: ChatStreamReader;
  attempt: Attempt;
  sent: boolean;
  backlogged: boolean;
  failure: unknown;
  answerCommitment: CallEnd['answerCommitment'];
}

/**
 * START HERE: the life of a completion, from top to bottom.
 *
 *   1 authenticate   `auth/auth.guard.ts`                  who is calling                                  401
 *   2 throttle       `throttle/tenant-throttler.guard.ts`  requests per minute of the tier                 429
 *   3 validate       `completion-request.ts`               schema; unknown fields stay                     400 413 415
 *   4 plan           `cost/plan.ts`                        candidates, token caps, money to hold (pure)    400 402 404
 *   5 authorize      `access.ts`                           policy over the resolved request (pure)         403
 *   6 cache          (a later issue)
 *   7 admit          `admission.ts`                        intent and hold, one commit                     402 503
 *   8 dispatch       `provider/grok-client.ts`             bytes pass through                              502 503 504
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
    private readonly decisions: DecisionPoint,
    private readonly admission: Admission,
    private readonly grok: GrokClient,
    private readonly targets: Targets,
    private readonly metrics: CallMetrics,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  async run(principal: Principal, caller: Caller): Promise<void> {
    const options = readCallerOptions(caller.headers, 'internal');
    const parsed = parseCompletionRequest(await caller.readBody());
    const plan = this.#plan(parsed, options);
    const decision = this.#authorize(principal, parsed, plan, options, caller);
    const candidate = decision.candidates[0]!;
    const limits = this.#limits(candidate, options);
    const call = await this.admission.admit({
      requestId: caller.requestId, principal, plan, candidate, decision, operation: caller.operation, ip: caller.ip,
      stream: parsed.request.stream === true, body: parsed.body, apiVersion: this.env.provider.apiVersion, totalTimeoutMs: limits.totalTimeoutMs,
    });
    const headers = this.#headers(candidate, decision);
    let answer: CompletionAnswer | undefined;
    let dispatched: Dispatched;
    try {
      const upstream: { call?: UpstreamCall } = {};
      const flow = { pause: () => upstream.call?.pause(), resume: () => upstream.call?.resume(), cut: () => upstream.call?.abort(new CallerGone('the caller reads too slowly')) };
      answer = parsed.request.stream === true ? new StreamedAnswer(caller.reply, flow, headers) : new PlainAnswer(caller.reply);
      dispatched = await this.#dispatch(call, upstream, parsed, plan, candidate, limits, caller, answer);
    } catch (error) {
      await this.#settle(call, neverSent(asGatewayError(error)));
      throw recorded(asGatewayError(error));
    }
    await this.#settleAndAnswer(call, dispatched, plan, candidate, answer, headers, parsed.request.stream_options?.include_usage === true);
  }

  /** Step 4. */
  #plan(parsed: ParsedRequest, options: CallerOptions): Plan {
    const name = parsed.request.model ?? this.env.defaults.model;
    const resolved = this.catalogue.resolve(name);
    if (!resolved) {
      throw new GatewayError('model_not_found', { publicMessage: `There is no model ${JSON.stringify(name)} here. GET /v1/models lists those that you may use.`, param: 'model' });
    }
    return planCall(resolved, costFacts(parsed, resolved.model), { maxTokensCap: this.env.defaults.maxTokensCap, maxCostTicks: options.maxCostTicks });
  }

  /** Step 5. */
  #authorize(principal: Principal, { request }: ParsedRequest, plan: Plan, options: CallerOptions, caller: Caller): AccessDecision {
    const facts = { stream: request.stream === true, dataClass: options.dataClass, capabilities: requestedCapabilities(request) };
    return authorize(this.decisions, this.tiers, principal, plan, facts, { ip: caller.ip, timeMs: this.clock.nowMs() });
  }

  /** Step 8. Never rejects once a byte may have been sent: what went wrong is part of the result. */
  async #dispatch(
    call: AdmittedCall, upstream: { call?: UpstreamCall }, parsed: ParsedRequest, plan: Plan, candidate: Candidate, limits: UpstreamLimits, caller: Caller, answer: CompletionAnswer,
  ): Promise<Dispatched> {
    const reader = new ChatStreamReader(plan.choices);
    const committed = call.committer.begin('answer');
    const startedMs = this.clock.monotonicMs();
    const attempt: Attempt = { deployment: candidate.deployment.id, providerRequestId: undefined, zeroDataRetention: undefined, status: undefined, errorCode: undefined, firstByteMs: undefined };
    const body = upstreamBody(parsed, plan, candidate.model, this.env.defaults);
    let paused = false;
    const exchange = this.grok.stream(this.targets.of(candidate.deployment), '/chat/completions', body, limits, {
      onHead: (head) => {
        Object.assign(attempt, { status: 200, providerRequestId: head.requestId, zeroDataRetention: head.zeroDataRetention });
      },
      onBytes: (bytes) => {
        attempt.firstByteMs ??= Math.round(this.clock.monotonicMs() - startedMs);
        committed.update(bytes);
        const passed = reader.push(bytes);
        if (passed.length > 0) answer.write(passed);
        if (reader.failure) throw reader.failure;
      },
    });
    upstream.call = {
      ended: exchange.ended,
      get sent() { return exchange.sent; },
      pause: () => { paused = true; exchange.pause(); },
      resume: () => { paused = false; exchange.resume(); },
      abort: (reason) => exchange.abort(reason),
    };
    caller.onHangUp(() => exchange.abort(new CallerGone('the caller hung up')));
    let failure: unknown;
    try {
      await exchange.ended;
      reader.assertWhole();
    } catch (error) {
      failure = error;
      if (error instanceof GrokApiError) Object.assign(attempt, { status: error.status ?? attempt.status, errorCode: error.code, providerRequestId: error.requestId ?? attempt.providerRequestId });
    }
    return { reader, attempt, sent: exchange.sent, backlogged: paused, failure, answerCommitment: attempt.firstByteMs === undefined ? undefined : committed.finish() };
  }

  /** Step 9, and the end of the answer, which waits for it. */
  async #settleAndAnswer(
    call: AdmittedCall, dispatched: Dispatched, plan: Plan, candidate: Candidate, answer: CompletionAnswer, headers: Readonly<Record<string, string>>, withUsage: boolean,
  ): Promise<void> {
    const { reader, failure } = dispatched;
    const end = this.#end(dispatched, plan, candidate, answer.begun);
    const inDatabase = await this.#settle(call, end);
    if (failure instanceof CallerGone) {
      if (answer instanceof StreamedAnswer) answer.abandon();
      return;
    }
    let error = failure === undefined ? undefined : recorded(failure instanceof GrokApiError ? failure.toGatewayError() : asGatewayError(failure));
    if (!inDatabase) error ??= recorded(unrecorded());
    if (error === undefined) {
      answer.finish(reader.tail(withUsage), { ...headers, 'x-novix-cost-usd': formatUsd(end.charge.ticks) }, reader.usage);
    } else if (answer.begun) {
      answer.fail(error);
    } else {
      if (answer instanceof StreamedAnswer) answer.abandon();
      throw error;
    }
  }

  #end({ reader, attempt, sent, backlogged, failure, answerCommitment }: Dispatched, plan: Plan, candidate: Candidate, begun: boolean): CallEnd {
    const usage = reader.usage === undefined ? undefined : readChatUsage(reader.usage);
    const mayHaveBeenBilled = failure instanceof GrokApiError ? failure.mayHaveBeenBilled : sent;
    const charge = chargeFor(
      { mayHaveBeenBilled, usage, priority: reader.serviceTier === 'priority', outputTokensSeen: reader.outputTokensSeen, backlogged },
      plan, candidate.price,
    );
    this.#watchPrice(candidate, charge, reader, usage === undefined && failure === undefined);
    const error = failure === undefined || failure instanceof CallerGone ? undefined : failure instanceof GrokApiError ? failure.toGatewayError() : asGatewayError(failure);
    const outcome = failure === undefined ? 'completed' : failure instanceof CallerGone ? 'aborted' : 'failed';
    return {
      outcome: sent ? outcome : 'never_sent', charge, usage, attempts: [attempt], answerCommitment,
      httpStatus: begun || failure === undefined ? 200 : (error?.status ?? 499),
      errorCode: failure instanceof CallerGone ? 'caller_gone' : error?.code,
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

  #watchPrice(candidate: Candidate, charge: Charge, reader: ChatStreamReader, usageUnreadable: boolean): void {
    if (charge.drift) {
      this.metrics.priceDrift.inc({ model: candidate.model.id });
      this.logger.warn({ model: candidate.model.id, providerTicks: String(charge.providerTicks), computedTicks: String(charge.computedTicks) }, 'price drift: the provider’s price is not what our table says');
    }
    if (usageUnreadable) {
      this.metrics.usageUnreadable.inc({ model: candidate.model.id });
      this.logger.warn({ model: candidate.model.id, hasUsage: reader.usage !== undefined, basis: charge.basis }, 'the provider sent no usage that can be believed; charged by what was seen');
    }
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

  #headers({ model, deployment }: Candidate, decision: AccessDecision): Readonly<Record<string, string>> {
    return {
      'x-novix-model': model.id,
      'x-novix-deployment': deployment.id,
      'x-novix-attempts': '1',
      'x-novix-cache': 'bypass',
      'x-novix-decision-id': decision.id,
    };
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
