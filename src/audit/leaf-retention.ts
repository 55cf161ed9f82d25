import type { Logger } from 'pino';
import type { DataSource, EntityManager } from 'typeorm';
import { uuid } from '../shared/uuid.ts';
import { parseNote } from './signed-note.ts';
import { parseCheckpointText } from './checkpoint.ts';
import { recordChange, type ChangeOrigin } from './record-change.ts';

const DAY_MS = 86_400_000;
/** The sequencer waits for it, and so it waits for nobody long. */
const DROP_LOCK_MS = 2_000;

interface Partition {
  low: string;
  high: string;
  name: string;
}

/**
 * Drops partitions of audit leaves whose time is over, oldest first: only those of which a signed checkpoint covers all, and which every enabled SIEM sink
 * has. The hashes stay, so that all that is kept still verifies; and a record of what was dropped is in the log.
 */
export class LeafRetention {
  readonly name = 'audit_leaves';

  /** @param retentionDays undefined: leaves are kept for ever */
  constructor(
    private readonly dataSource: DataSource,
    private readonly retentionDays: number | undefined,
    private readonly logger: Logger,
  ) {}

  async run(nowMs: number): Promise<{ leaves: number; partitions: number; commitment_keys: number; failures: number }> {
    const counts = { leaves: 0, partitions: 0, commitment_keys: 0, failures: 0 };
    if (this.retentionDays === undefined) return counts;
    const before = new Date(nowMs - this.retentionDays * DAY_MS);
    try {
      for (let dropped = await this.#dropOldest(before, nowMs); dropped > 0; dropped = await this.#dropOldest(before, nowMs)) {
        counts.leaves += dropped;
        counts.partitions += 1;
      }
      // What committed to texts that nobody has any more.
      const [, keys] = await this.dataSource.query<[unknown, number]>('DELETE FROM commitment_keys WHERE day < $1::date', [before]);
      counts.commitment_keys = keys;
    } catch (error) {
      counts.failures += 1;
      this.logger.error({ err: error }, 'retention: audit leaves could not be dropped; it will be tried again');
    }
    return counts;
  }

  /** @returns how many leaves it dropped; 0 where none is due */
  async #dropOldest(before: Date, nowMs: number): Promise<number> {
    return this.dataSource.transaction(async (manager) => {
      await manager.query(`SET LOCAL lock_timeout = ${DROP_LOCK_MS}`);
      const [partition] = await manager.query<Partition[]>(
        `SELECT p.low, p.high, p.name FROM audit_partitions p JOIN audit_head h ON p.low = h.pruned_below
         WHERE p.dropped_at IS NULL AND p.filled_at < $1 AND NOT EXISTS (SELECT FROM siem_sinks s WHERE s.enabled AND s.cursor < p.high)`, [before]);
      const [checkpoint] = await manager.query<{ note: string }[]>('SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT 1');
      if (partition === undefined || checkpoint === undefined) return 0;
      const signed = parseCheckpointText(parseNote(checkpoint.note).text);
      if (signed.size < Number(partition.high)) return 0;
      await this.#drop(manager, partition, { size: signed.size, root: signed.root.toString('base64') }, nowMs);
      return Number(partition.high) - Number(partition.low);
    });
  }

  async #drop(manager: EntityManager, { low, high, name }: Partition, checkpoint: { size: number; root: string }, nowMs: number): Promise<void> {
    const leaves = { first_index: Number(low), last_index: Number(high) - 1 };
    await recordChange(manager, { origin: origin(), timeMs: nowMs, activity: 'delete', object: { type: 'audit_partition', id: name }, before: leaves, after: { pruned_below: Number(high), checkpoint, retention_days: this.retentionDays } });
    await manager.query(`DROP TABLE ${name}`);
    await manager.query('UPDATE audit_head SET pruned_below = $1', [high]);
    await manager.query('UPDATE audit_partitions SET dropped_at = to_timestamp($2::double precision / 1000) WHERE low = $1', [low, nowMs]);
    this.logger.info({ partition: name, ...leaves }, 'retention: a partition of audit leaves was dropped');
  }
}

function origin(): ChangeOrigin {
  return { requestId: uuid(), operation: 'retention', ip: '127.0.0.1', actor: { tenant: 'platform', subject: 'system', tokenId: undefined, issuer: undefined, clientId: undefined } };
}
