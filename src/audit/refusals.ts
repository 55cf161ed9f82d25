import type { Logger } from 'pino';
import { Counter, type Registry } from 'prom-client';
import { uuid } from '../shared/uuid.ts';

import type { Journal } from '../journal/journal.ts';
import { Gcra } from '../shared/gcra.ts';
import type { Clock } from '../shared/clock.ts';
import { auditEventText, leafEntry, type AuditEventFacts } from './audit-event.ts';

/** A source may have this many refusals recorded one by one: a burst, then a steady rate. What goes beyond is counted. */
const INDIVIDUAL = { perMinute: 1_200, burst: 200 };
const AGGREGATES_MAX = 1_000;
const FLUSH_MS = 1_000;
const CLOSE_MS = 3_000;
const OTHER_SOURCES = 'other sources';

interface Aggregate {
  source: string;
  errorCode: string;
  count: number;
  firstMs: number;
  lastMs: number;
}

/** What sign-ins are counted under, once there are too many to record each. */
const SIGN_IN = 'sign_in';

/**
 * Records refused requests and sign-ins, in a lane of its own. Each is an event while its source behaves; a flood is counted per source and reason, and recorded
 * as one event a second, so that an attacker can fill neither the journal's queue nor the log.
 */
export class Refusals {
  readonly #limiter: Gcra;
  readonly #recorded: Counter;
  #aggregates = new Map<string, Aggregate>();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly journal: Pick<Journal, 'commit'>,
    private readonly clock: Clock,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    this.#limiter = new Gcra(AGGREGATES_MAX * 10);
    this.#recorded = new Counter({ name: 'novix_refusals_total', help: 'Refused requests, by error code and how they were recorded', labelNames: ['code', 'recorded'], registers: [registry] });
  }

  open(): void {
    this.#timer = setInterval(() => void this.#flush(), FLUSH_MS);
    this.#timer.unref();
  }

  /** Never rejects and never waits: a refusal is answered at once, whatever becomes of its record. */
  record(facts: AuditEventFacts): void {
    const reason = facts.errorCode ?? SIGN_IN;
    const source = facts.actor.tenant ?? facts.ip;
    const { allowed } = this.#limiter.hit(source, INDIVIDUAL.perMinute, INDIVIDUAL.burst, this.clock.monotonicMs());
    if (!allowed) {
      this.#count(source, reason, facts.timeMs);
      return;
    }
    this.journal.commit({ id: facts.id, lane: 'refusal', entries: { audit_append: leafEntry(facts.id, { tenant: facts.actor.tenant, requestId: facts.requestId }, auditEventText(facts)) } }).then(
      () => this.#recorded.inc({ code: reason, recorded: 'event' }),
      () => this.#count(source, reason, facts.timeMs), // the journal is full or gone: it is counted, and recorded when it is back
    );
  }

  /** Records what was counted so far, as far as the database answers. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([this.#flush(), new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_MS);
    })]);
    clearTimeout(timer);
    if (this.#aggregates.size > 0) this.logger.warn({ refusals: [...this.#aggregates.values()] }, 'refusals: counted, but the database could not be told');
  }

  #count(source: string, errorCode: string, timeMs: number): void {
    this.#recorded.inc({ code: errorCode, recorded: 'aggregate' });
    let key = `${errorCode} ${source}`;
    if (!this.#aggregates.has(key) && this.#aggregates.size >= AGGREGATES_MAX) key = `${errorCode} ${OTHER_SOURCES}`;
    const aggregate = this.#aggregates.get(key);
    if (aggregate) {
      aggregate.count += 1;
      aggregate.lastMs = timeMs;
    } else {
      this.#aggregates.set(key, { source: key.slice(errorCode.length + 1), errorCode, count: 1, firstMs: timeMs, lastMs: timeMs });
    }
  }

  async #flush(): Promise<void> {
    const aggregates = this.#aggregates;
    this.#aggregates = new Map();
    await Promise.all([...aggregates.values()].map((aggregate) => this.#write(aggregate)));
  }

  async #write(aggregate: Aggregate): Promise<void> {
    const id = uuid();
    const signIns = aggregate.errorCode === SIGN_IN;
    const text = auditEventText({
      id, phase: signIns ? 'change' : 'refusal', timeMs: aggregate.lastMs, requestId: id, operation: 'aggregate', ip: aggregate.source, httpStatus: signIns ? 200 : undefined, errorCode: signIns ? undefined : aggregate.errorCode,
      ...(signIns || aggregate.errorCode === 'invalid_token' ? { authentication: 'unknown' } : {}),
      activity: 'create', actor: { tenant: undefined, subject: undefined, tokenId: undefined, issuer: undefined, clientId: undefined },
      details: { aggregate: { source: aggregate.source, count: aggregate.count, first: aggregate.firstMs, last: aggregate.lastMs } },
    });
    try {
      await this.journal.commit({ id, lane: 'refusal', entries: { audit_append: leafEntry(id, { tenant: undefined, requestId: id }, text) } });
    } catch (error) {
      this.logger.debug({ err: error }, 'refusals: aggregate not recorded yet');
      this.#restore(aggregate);
    }
  }

  /** Puts an aggregate back that could not be written; it is merged with what was counted meanwhile. */
  #restore(aggregate: Aggregate): void {
    const key = `${aggregate.errorCode} ${aggregate.source}`;
    const newer = this.#aggregates.get(key);
    this.#aggregates.set(key, newer ? { ...newer, count: newer.count + aggregate.count, firstMs: aggregate.firstMs } : aggregate);
  }
}
