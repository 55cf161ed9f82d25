import type { Logger } from 'pino';
import { uuid } from '../shared/uuid.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { CommitError, JournalConnection } from './journal-connection.ts';
import type { JournalMetrics } from './journal-metrics.ts';
import type { Lane, Operation, Verdict } from './operation.ts';
import type { Spool } from './spool.ts';

export interface JournalLimits {
  /** Operations a commit takes at most. */
  batchMax: number;
  /** Of these, refusals at most: a flood of them must not delay the calls that are allowed. */
  refusalsPerBatchMax: number;
  /** Admissions that may wait; over it: 503 `overloaded`. */
  admissionsMax: number;
  refusalsMax: number;
  /** How long a commit waits for company while operations keep coming. An idle journal commits at once. */
  gatherMs: number;
  /** Operations in the last commit from which on the load is worth gathering for. */
  gatherFrom: number;
  /** How long an admission waits while the database gives no sign of life. While it answers others, the admission is only late. */
  admissionTimeoutMs: number;
  /** How long an operation waits at most before its caller is told that it did not happen. */
  outcomeTimeoutMs: number;
  attemptsMax: number;
}

export const JOURNAL_LIMITS: JournalLimits = {
  batchMax: 512,
  refusalsPerBatchMax: 64,
  admissionsMax: 8_192,
  refusalsMax: 1_024,
  gatherMs: 2,
  gatherFrom: 4,
  admissionTimeoutMs: 450,
  outcomeTimeoutMs: 5_000,
  attemptsMax: 3,
};

const PAUSE_AFTER_FAILURE_MS = 100;

interface Waiting {
  operation: Operation;
  resolve: (verdict: Verdict) => void;
  reject: (error: Error) => void;
  /** True from when the caller was told that the operation did not happen. */
  givenUp: boolean;
  timer: NodeJS.Timeout | undefined;
  /** Monotonic time at which it came. */
  sinceMs: number;
  attempts: number;
}

interface Batch {
  id: string;
  waiting: Waiting[];
}

/**
 * The group committer. Concurrent calls put operations into a queue; one flusher takes up to `batchMax` of them and commits them in one
 * transaction and one round trip, whose verdicts resolve the callers.
 *
 * - idle: the first operation is committed at once; under load a commit gathers for `gatherMs` or until it is full.
 * - poison: a batch that the database refuses is halved until the bad operation stands alone, and only that one fails.
 * - lost answers: the batch is fenced by its id on the next connection, so that it is known to have happened, or never will.
 */
export class Journal {
  readonly #connection: JournalConnection;
  readonly #queues: Record<Lane, Waiting[]> = { admission: [], outcome: [], refusal: [] };
  #inDoubt: Batch[] = [];
  #flushing = false;
  #scheduled = false;
  #lastFlushStartedMs = 0;
  #lastAnswerMs = 0;
  #closing = false;
  #idle: (() => void) | undefined;

  constructor(
    databaseUrl: string,
    private readonly spool: Spool,
    private readonly metrics: JournalMetrics,
    private readonly logger: Logger,
    private readonly limits: JournalLimits = JOURNAL_LIMITS,
  ) {
    this.#connection = new JournalConnection(databaseUrl, logger, { onUp: () => this.#onUp(), onDown: () => this.#onDown() });
    metrics.observeQueue(() => this.#queues.admission.length + this.#queues.outcome.length + this.#queues.refusal.length);
  }

  async open(): Promise<void> {
    await this.#connection.open();
  }

  /** Whether the database answers. */
  get available(): boolean {
    return this.#connection.up && !this.#closing;
  }

  /**
   * Commits an operation together with what else is waiting.
   *
   * @returns the participants' verdict; resolved only once the operation is durable
   * @throws {GatewayError} `audit_unavailable` when it could not be made durable in time, `overloaded` when too many wait,
   *   `internal_error` when the database refused this very operation
   */
  commit(operation: Operation): Promise<Verdict> {
    const queue = this.#queues[operation.lane];
    if (operation.lane !== 'outcome') {
      // Outcomes are waited for, and have the spool behind them; the others fail fast.
      if (!this.available) return Promise.reject(unavailable());
      if (queue.length >= (operation.lane === 'admission' ? this.limits.admissionsMax : this.limits.refusalsMax)) return Promise.reject(overloaded());
    } else if (!this.#connection.up) {
      return Promise.reject(unavailable());
    }
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { operation, resolve, reject, givenUp: false, attempts: 0, sinceMs: performance.now(), timer: undefined };
      // Nobody waits for a refusal's record, so it can wait until it is certain whether it was made, and is never counted twice.
      if (operation.lane !== 'refusal') this.#watch(waiting, operation.lane === 'admission' ? this.limits.admissionTimeoutMs : this.limits.outcomeTimeoutMs);
      queue.push(waiting);
      this.#schedule();
    });
  }

  /**
   * Makes an outcome durable: in the database, or else in the local spool, from where it is replayed.
   *
   * @returns the verdict, or `spooled`
   * @throws {Error} when not even the spool could be written
   */
  async commitOrSpool(operation: Operation): Promise<Verdict | 'spooled'> {
    try {
      return await this.#commitEither(operation);
    } catch (error) {
      this.logger.warn({ err: error, operationId: operation.id }, 'journal: outcome goes to the local spool');
      const { entries, otherwise } = operation;
      await this.spool.append({ entries, ...(otherwise && { otherwise: { verdict: otherwise.verdict, entries: otherwise.entries() } }) });
      this.metrics.spooled.inc();
      // The database may have come back between the failure and the write.
      if (this.available) this.#replaySoon();
      return 'spooled';
    }
  }

  /** Commits what is waiting, then closes. Every operation has a time limit, after which it waits no longer, so this ends. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#busy()) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.#connection.close();
  }

  /** Whether anything can still be done about something. Without a connection nothing can. */
  #busy(): boolean {
    if (this.#flushing) return true;
    return this.#connection.up && (this.#inDoubt.length > 0 || Object.values(this.#queues).some((queue) => queue.length > 0));
  }

  #schedule(): void {
    if (this.#flushing || this.#scheduled) return;
    this.#scheduled = true;
    // One turn of the loop lets operations of the same moment join; it costs an idle journal nothing.
    setImmediate(() => {
      this.#scheduled = false;
      void this.#flushAll();
    });
  }

  async #flushAll(): Promise<void> {
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      while (this.#connection.up) {
        await this.#resolveInDoubt();
        const waiting = this.#take();
        if (waiting.length === 0) break;
        this.#lastFlushStartedMs = performance.now();
        await this.#flush(waiting);
        await this.#gather(waiting.length);
      }
    } catch (error) {
      this.logger.error({ err: error }, 'journal: flush failed');
      await new Promise((resolve) => setTimeout(resolve, PAUSE_AFTER_FAILURE_MS));
    } finally {
      this.#flushing = false;
      if (!this.#busy()) this.#idle?.();
      else this.#schedule();
    }
  }

  /**
   * Under load, waits until `gatherMs` after the last flush began, unless a full batch is waiting already. Where batches are small, company is not worth
   * waiting for: what came during a commit is committed at once after it.
   */
  async #gather(lastBatch: number): Promise<void> {
    if (lastBatch < this.limits.gatherFrom) return;
    const queued = this.#queues.admission.length + this.#queues.outcome.length;
    if (queued === 0 || queued >= this.limits.batchMax) return;
    const waitMs = this.#lastFlushStartedMs + this.limits.gatherMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
  }

  #take(): Waiting[] {
    const { admission, outcome, refusal } = this.#queues;
    const taken = outcome.splice(0, this.limits.batchMax);
    taken.push(...admission.splice(0, this.limits.batchMax - taken.length));
    taken.push(...refusal.splice(0, Math.min(this.limits.refusalsPerBatchMax, this.limits.batchMax - taken.length)));
    return taken.filter((waiting) => !waiting.givenUp);
  }

  async #flush(waiting: Waiting[]): Promise<void> {
    const batch: Batch = { id: uuid(), waiting };
    const started = performance.now();
    try {
      const verdicts = await this.#connection.commit(batch.id, waiting.map(({ operation }) => operation));
      this.metrics.batchSize.observe(waiting.length);
      this.metrics.flushSeconds.observe((performance.now() - started) / 1000);
      this.#conclude(batch, verdicts);
    } catch (error) {
      await this.#afterFailure(batch, error);
    }
  }

  async #afterFailure(batch: Batch, error: unknown): Promise<void> {
    const failure = error instanceof CommitError ? error.failure : 'in-doubt';
    if (failure === 'in-doubt') {
      this.#inDoubt.push(batch);
      this.metrics.inDoubt.inc();
      return;
    }
    if (failure === 'poisoned') {
      if (batch.waiting.length > 1) {
        const middle = batch.waiting.length >> 1;
        await this.#flush(batch.waiting.slice(0, middle));
        await this.#flush(batch.waiting.slice(middle));
        return;
      }
      const [bad] = batch.waiting;
      this.metrics.poisoned.inc();
      this.logger.error({ err: error, operationId: bad!.operation.id }, 'journal: the database refused an operation');
      this.#giveUp(bad!, new GatewayError('internal_error', { publicMessage: 'The request could not be recorded, so it was not carried out.', cause: error }));
      return;
    }
    for (const waiting of batch.waiting) {
      waiting.attempts += 1;
      if (waiting.attempts >= this.limits.attemptsMax) this.#giveUp(waiting, unavailable(error));
    }
    this.#requeue(batch.waiting);
  }

  #requeue(waiting: Waiting[]): void {
    for (const lane of ['admission', 'outcome', 'refusal'] as const) {
      this.#queues[lane].unshift(...waiting.filter((one) => !one.givenUp && one.operation.lane === lane));
    }
  }

  #conclude(batch: Batch, verdicts: readonly Verdict[]): void {
    this.#lastAnswerMs = performance.now();
    batch.waiting.forEach((waiting, index) => {
      clearTimeout(waiting.timer);
      waiting.timer = undefined;
      const verdict = verdicts[index]!;
      if (!waiting.givenUp) waiting.resolve(verdict);
      else if (verdict === 0) waiting.operation.onCommittedAfterGivingUp?.();
    });
  }

  /** Asks what became of batches whose answers were lost; those that never happened are queued again. */
  async #resolveInDoubt(): Promise<void> {
    while (this.#inDoubt.length > 0) {
      const batch = this.#inDoubt[0]!;
      const verdicts = await this.#connection.fence(batch.id);
      this.#inDoubt.shift();
      if (verdicts === undefined) this.#requeue(batch.waiting);
      else this.#conclude(batch, verdicts);
    }
  }

  #watch(waiting: Waiting, ms: number): void {
    // The check comes after this turn's input: where the whole process stood still, the answer may be lying there.
    waiting.timer = setTimeout(() => setImmediate(() => this.#giveUpOrWait(waiting)), ms);
  }

  #giveUpOrWait(waiting: Waiting): void {
    if (waiting.timer === undefined) return; // answered meanwhile
    const nowMs = performance.now();
    const leftMs = waiting.operation.lane === 'admission'
      ? Math.min(this.#lastAnswerMs + this.limits.admissionTimeoutMs, waiting.sinceMs + this.limits.outcomeTimeoutMs) - nowMs
      : 0;
    if (leftMs > 0) this.#watch(waiting, leftMs);
    else this.#giveUp(waiting, unavailable());
  }

  #giveUp(waiting: Waiting, error: GatewayError): void {
    if (waiting.givenUp) return;
    waiting.givenUp = true;
    clearTimeout(waiting.timer);
    waiting.reject(error);
  }

  #onUp(): void {
    this.#schedule();
    this.#replaySoon();
  }

  /** Nobody waits for a database that is known to be gone. Batches in doubt keep their own clocks: the answer may come in time. */
  #onDown(): void {
    for (const queue of Object.values(this.#queues)) for (const waiting of queue.splice(0)) this.#giveUp(waiting, unavailable());
    if (!this.#busy()) this.#idle?.();
  }

  async #commitEither(operation: Operation): Promise<Verdict> {
    const verdict = await this.commit(operation);
    const { otherwise } = operation;
    return verdict === otherwise?.verdict ? this.commit({ ...operation, entries: otherwise.entries() }) : verdict;
  }

  /** Commits what the spool holds of this process, and of dead ones. */
  async replaySpool(): Promise<void> {
    if (!this.available) return;
    await this.spool.replay(({ entries, otherwise }) => this.#commitEither({
      id: uuid(), lane: 'outcome', entries, ...(otherwise && { otherwise: { verdict: otherwise.verdict, entries: () => otherwise.entries } }),
    }));
  }

  #replaySoon(): void {
    this.replaySpool().catch((error: unknown) => this.logger.warn({ err: error }, 'journal: the spool could not be replayed yet; the sweeper will ask again'));
  }
}

function unavailable(cause?: unknown): GatewayError {
  return new GatewayError('audit_unavailable', {
    publicMessage: 'The audit log cannot be written at the moment, and no call is made without a record. Try again shortly.',
    retryAfterSeconds: 2,
    cause,
  });
}

function overloaded(): GatewayError {
  return new GatewayError('overloaded', { publicMessage: 'The gateway has more calls waiting than it can record. Try again shortly.', retryAfterSeconds: 1 });
}
