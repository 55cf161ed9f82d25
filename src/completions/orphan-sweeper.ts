import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { Counter, type Registry } from 'prom-client';
import { uuid } from '../shared/uuid.ts';
import { leafEntry } from '../audit/audit-event.ts';
import { settlementEntry, type HoldContext } from '../cost/ledger-entry.ts';
import type { Journal } from '../journal/journal.ts';
import type { Clock } from '../shared/clock.ts';
import { REPLICA_DEAD_AFTER_SECONDS, type Replica } from '../shared/replica.ts';
import type { Idempotency } from './idempotency.ts';
import { aboutCall, outcomeText, type CallEnd } from './call-record.ts';

const SWEEP_MS = 5_000;
const HOLDS_PER_SWEEP = 500;

interface OrphanedHold {
  id: string;
  request_id: string;
  tenant_id: string;
  amount_ticks: string;
  context: HoldContext;
  created_at: Date;
}

/**
 * Closes the calls of processes that died: each is charged its whole hold, since the provider may have billed it, and gets the outcome `unknown`.
 * Calls of live processes are left alone, but for our own that are past every time limit. Two sweepers at once do no harm: the ledger lets a hold be
 * resolved once, and whoever comes second records nothing.
 */
export class OrphanSweeper {
  readonly #swept: Counter;
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> = Promise.resolve();

  constructor(
    private readonly pool: Pool,
    private readonly journal: Journal,
    private readonly idempotency: Pick<Idempotency, 'trim'>,
    private readonly replica: Replica,
    private readonly clock: Clock,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    this.#swept = new Counter({ name: 'novix_holds_expired_total', help: 'Holds charged because their process died', registers: [registry] });
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#sweeping = this.#sweeping.then(() => this.sweep()).catch((error: unknown) => this.logger.warn({ err: error }, 'sweeper: interrupted'));
    }, SWEEP_MS);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#sweeping;
  }

  async sweep(): Promise<void> {
    // What a dead process could still write down is better than what we would have to assume.
    await this.journal.replaySpool();
    await this.#chargeOrphans();
    await this.#trim();
    await this.idempotency.trim();
  }

  async #chargeOrphans(): Promise<void> {
    const answer = await this.pool.query<OrphanedHold>(
      `SELECT h.id, h.request_id, h.tenant_id, h.amount_ticks, h.context, h.created_at FROM holds h
       WHERE (
         (h.replica_id = $1 AND h.expires_at < now())
         OR h.replica_id IN (SELECT r.id FROM replicas r WHERE r.id <> $1
              AND (r.stopped_at IS NOT NULL OR (r.last_seen_at < now() - make_interval(secs => $2) AND $3))))
       ORDER BY h.id LIMIT $4`,
      [this.replica.id, REPLICA_DEAD_AFTER_SECONDS, this.replica.othersHadTheirChance(), HOLDS_PER_SWEEP],
    );
    if (answer.rows.length === 0) return;
    await Promise.all(answer.rows.map((hold) => this.#close(hold)));
    this.#swept.inc(answer.rows.length);
    this.logger.warn({ holds: answer.rows.length }, 'sweeper: charged the holds of calls whose process is gone');
  }

  /** Batches are asked about within seconds, if ever; replicas only while they have holds or spooled outcomes. */
  async #trim(): Promise<void> {
    await this.pool.query("DELETE FROM journal_batches WHERE id IN (SELECT id FROM journal_batches WHERE created_at < now() - interval '1 hour' LIMIT 10000)");
    await this.pool.query('DELETE FROM stored_responses WHERE id IN (SELECT id FROM stored_responses WHERE expires_at < now() LIMIT 10000)');
    await this.pool.query("DELETE FROM replicas r WHERE r.last_seen_at < now() - interval '30 days' AND NOT EXISTS (SELECT FROM holds h WHERE h.replica_id = r.id)");
  }

  async #close(hold: OrphanedHold): Promise<void> {
    const id = uuid();
    const { context } = hold;
    const end: CallEnd = {
      outcome: 'unknown', httpStatus: undefined, errorCode: 'process_died', usage: undefined, attempts: [], answerCommitment: undefined,
      charge: { ticks: BigInt(hold.amount_ticks), basis: 'hold', providerTicks: undefined, computedTicks: undefined, drift: false },
    };
    const call = {
      requestId: hold.request_id, holdId: hold.id, operation: context.operation, ip: context.ip, startedAtMs: hold.created_at.getTime(), context,
      actor: { tenant: hold.tenant_id, subject: context.sub, tokenId: undefined, issuer: undefined, clientId: undefined },
    };
    await this.journal.commit({
      id, lane: 'outcome',
      entries: {
        ledger_apply: settlementEntry({ kind: 'expire', holdId: hold.id, outcome: end.outcome, usage: undefined, charge: end.charge }),
        // A lost attempt is no call of its own: its call has, or will have, one outcome, and this only says what became of a further hold.
        audit_append: leafEntry(id, aboutCall(call), outcomeText(id, context.lost_attempt === true ? 'change' : 'outcome', call, end, this.clock.nowMs())),
      },
    });
  }
}
