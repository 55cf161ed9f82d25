import { setTimeout as sleep } from 'node:timers/promises';
import { exceedsCeiling, type Candidate, type Plan } from '../cost/plan.ts';
import type { AnswerReader } from '../provider/answer-reader.ts';
import type { UpstreamCall, UpstreamLimits, UpstreamRequest } from '../provider/grok-client.ts';
import { GrokApiError } from '../provider/grok-errors.ts';
import type { ProviderMetrics } from '../provider/provider-metrics.ts';
import { backoffMs, isRetryable, type RetryLimits } from '../provider/retry.ts';
import { attemptResult, type Lease } from '../provider/shard.ts';
import type { Shards } from '../provider/shards.ts';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { AdmittedCall } from './admission.ts';
import type { Attempt, CallEnd } from './call-record.ts';
import type { CompletionAnswer } from './completion-answer.ts';
import type { AnswerCopy } from './stored-payload.ts';

/** The caller went away, or reads too slowly to be waited for: nobody is left to be told. */
export class CallerGone extends Error {
  override readonly name = 'CallerGone';
}

/** What one attempt needs. */
export interface DispatchRequest {
  call: AdmittedCall;
  plan: Plan;
  conversation: string | undefined;
  answer: CompletionAnswer;
  /** Where the provider's bytes are stored too; undefined where they are not. */
  copy: AnswerCopy | undefined;
  limitsOf: (candidate: Candidate) => UpstreamLimits;
  reader: () => AnswerReader;
  requestTo: (candidate: Candidate) => UpstreamRequest;
  /** The candidates that the rules allow now: they may have changed since the attempt before. */
  allowed: () => readonly Candidate[];
  onHangUp: (listener: () => void) => void;
}

/** What came of the dispatch, before it is settled. */
export interface Dispatched {
  candidate: Candidate;
  reader: AnswerReader;
  attempts: Attempt[];
  /** Whether any attempt may have reached the provider. */
  sent: boolean;
  backlogged: boolean;
  failure: unknown;
  answerCommitment: CallEnd['answerCommitment'];
}

/** Step 8 of a request's life: attempts at the provider, one after another, until one succeeds or a further one makes no sense. */
export class Dispatcher {
  constructor(
    private readonly shards: Shards,
    private readonly retry: RetryLimits,
    private readonly metrics: ProviderMetrics,
    private readonly clock: Clock,
    private readonly random: () => number,
  ) {}

  /** Never rejects once a byte may have been sent: what went wrong is part of the result. */
  async run(request: DispatchRequest, flow: { call?: UpstreamCall }, first: { candidate: Candidate; lease: Lease }): Promise<Dispatched> {
    const startedMs = this.clock.monotonicMs();
    const gone = new AbortController();
    request.onHangUp(() => gone.abort());
    const attempts: Attempt[] = [];
    const tried = new Set<string>();
    let { candidate, lease } = first;
    let sent = false;
    lease.shard.retries.earn();
    for (;;) {
      const one = await this.#attempt(request, flow, candidate, lease, gone.signal, startedMs);
      attempts.push(one.attempt);
      tried.add(candidate.deployment.id);
      sent ||= one.sent;
      const dispatched = { candidate, reader: one.reader, attempts, sent, backlogged: one.backlogged, failure: one.failure, answerCommitment: one.answerCommitment };
      const { failure } = one;
      // After a byte has reached the caller there is no way back.
      const retryable = failure instanceof GrokApiError && isRetryable(failure) && !request.answer.written;
      if (!retryable || attempts.length > this.retry.max) return dispatched;
      const waitMs = failure.status === 429 && failure.retryAfterSeconds !== undefined && request.plan.candidates.length === 1
        ? failure.retryAfterSeconds * 1000
        : backoffMs(attempts.length, this.retry, this.random());
      const leftMs = request.limitsOf(candidate).totalTimeoutMs - (this.clock.monotonicMs() - startedMs);
      if (waitMs >= leftMs) return dispatched;
      if (!lease.shard.retries.spend(this.clock.monotonicMs())) {
        this.metrics.retriesRefused.inc({ deployment: candidate.deployment.id });
        return dispatched;
      }
      try {
        await sleep(waitMs, undefined, { signal: gone.signal });
      } catch {
        return { ...dispatched, failure: new CallerGone('the caller hung up between attempts') };
      }
      try {
        const wish = { conversation: request.conversation, inputTokens: request.plan.inputTokens, avoid: tried, nowOrNever: true };
        ({ candidate, lease } = this.shards.lease(request.allowed(), wish));
      } catch (error) {
        if (error instanceof GatewayError) return dispatched; // nothing to try it on, or no longer allowed: the attempt's own failure says more
        throw error;
      }
      // What may have been billed is paid for before the same is bought again.
      if (failure.mayHaveBeenBilled && !(await request.call.chargeLostAttempt())) {
        lease.end('neither');
        return dispatched;
      }
      this.metrics.retries.inc({ deployment: candidate.deployment.id });
    }
  }

  async #attempt(
    request: DispatchRequest, flow: { call?: UpstreamCall }, candidate: Candidate, lease: Lease, gone: AbortSignal, firstStartedMs: number,
  ): Promise<{ reader: AnswerReader; attempt: Attempt; sent: boolean; backlogged: boolean; failure: unknown; answerCommitment: CallEnd['answerCommitment'] }> {
    const { answer } = request;
    const reader = request.reader();
    answer.restart();
    request.copy?.restart();
    const committed = request.call.committer.begin('answer');
    const startedMs = this.clock.monotonicMs();
    const attempt: Attempt = { deployment: candidate.deployment.id, providerRequestId: undefined, zeroDataRetention: undefined, status: undefined, errorCode: undefined, firstByteMs: undefined, tlsGroup: undefined };
    const limits = request.limitsOf(candidate);
    const totalTimeoutMs = Math.max(1, limits.totalTimeoutMs - (startedMs - firstStartedMs));
    let failure: unknown;
    let paused = false;
    let sent = false;
    let answered = false;
    try {
      if (gone.aborted) throw new CallerGone('the caller hung up');
      const outgoing = request.requestTo(candidate);
      const exchange = lease.shard.client.send(
        outgoing,
        { ...limits, totalTimeoutMs },
        {
          onHead: (head) => {
            Object.assign(attempt, { status: 200, providerRequestId: head.requestId, zeroDataRetention: head.zeroDataRetention, tlsGroup: lease.shard.client.tlsGroup });
            if (head.quotaLeft !== undefined) lease.shard.quotaLeft = head.quotaLeft;
          },
          onBytes: (bytes) => {
            answered = true;
            committed.update(bytes);
            request.copy?.update(bytes, outgoing.accept);
            const passed = reader.push(bytes);
            if (attempt.firstByteMs === undefined && reader.begun) {
              attempt.firstByteMs = Math.round(this.clock.monotonicMs() - startedMs);
              lease.firstByte(this.clock.monotonicMs() - startedMs);
            }
            if (passed.length > 0) answer.write(passed);
            if (reader.failure) throw reader.failure;
            if (request.plan.ceilingTicks !== undefined && exceedsCeiling(request.plan, reader.outputTokensRunning)) throw beyondCeiling();
          },
          get begun() { return reader.begun; },
        },
      );
      flow.call = {
        ended: exchange.ended,
        get sent() { return exchange.sent; },
        pause: () => { paused = true; exchange.pause(); },
        resume: () => { paused = false; exchange.resume(); },
        abort: (reason) => exchange.abort(reason),
      };
      const hangUp = (): void => exchange.abort(new CallerGone('the caller hung up'));
      gone.addEventListener('abort', hangUp, { once: true });
      try {
        await exchange.ended;
        reader.assertWhole();
      } finally {
        sent = exchange.sent;
        gone.removeEventListener('abort', hangUp);
      }
    } catch (error) {
      failure = error;
      if (error instanceof GrokApiError) Object.assign(attempt, { status: error.status ?? attempt.status, errorCode: error.code, providerRequestId: error.requestId ?? attempt.providerRequestId });
    } finally {
      const result = attemptResult(failure);
      lease.end(result, failure instanceof GrokApiError ? failure.retryAfterSeconds : undefined);
      this.metrics.attempts.inc({ deployment: candidate.deployment.id, result });
    }
    return { reader, attempt, sent, backlogged: paused, failure, answerCommitment: answered ? committed.finish() : undefined };
  }
}

function beyondCeiling(): GatewayError {
  return new GatewayError('request_cost_exceeded', { publicMessage: 'The answer was cut: its cost has reached the limit of the call (x-novix-max-cost-usd, or the tenant’s own). What came is charged.' });
}
