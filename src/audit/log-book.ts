import type { Logger } from 'pino';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Alerts } from '../alerts/alerts.ts';
import type { Clock } from '../shared/clock.ts';
import type { CheckpointFile } from './checkpoint-file.ts';
import { openCheckpoint, signCheckpoint, verifierKeys, type Checkpoint } from './checkpoint.ts';
import { GrowingTree } from './growing-tree.ts';
import { HASH_BYTES } from './merkle.ts';
import type { SigningKeys } from './signing-keys.ts';
import { splitHashes } from './tlog-tiles.ts';
import { ContradictionError, latestCheckpoint, readHead, readLeafHashes, readRoots, readTiles, type Query } from './transparency-log.ts';

const LEAVES_PER_STEP = 8_192;
/** Of checkpoints older than this, the last of each hour is kept. */
const EVERY_CHECKPOINT_FOR = '1 hour';
const THIN_OUT_MS = 600_000;
/** Somebody may have moved a file away, or brought a database back. */
const COMPARE_AGAIN_MS = 10_000;

/**
 * Keeps the Merkle tree over the leaves, and signs it. Used by the leading replica alone, but for {@link follow}.
 *
 * A checkpoint that was signed is never contradicted: before the first signature, what this replica has on its own disk is compared with the tree.
 * Where the database has lost leaves that were signed, or has others in their place, nothing is signed any more, and an alert says so.
 */
export class LogBook {
  #tree: GrowingTree | undefined;
  #origin = '';
  #compared = false;
  #compareAgainAtMs = Number.NEGATIVE_INFINITY;
  #thinnedOutAtMs = Number.NEGATIVE_INFINITY;
  readonly #size: Gauge;
  readonly #contradicted: Gauge;
  readonly #leaves: Counter;
  readonly #signing: Histogram;
  signedSize = 0;

  /** @param keys undefined: the tree grows, and nobody signs it */
  constructor(
    private readonly keys: SigningKeys | undefined,
    private readonly outside: CheckpointFile,
    private readonly alerts: Pick<Alerts, 'fire' | 'resolve'>,
    private readonly clock: Clock,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    const registers = [registry];
    this.#size = new Gauge({ name: 'novix_audit_log_size', help: 'Leaves that the last checkpoint of this replica covers', registers });
    this.#contradicted = new Gauge({ name: 'novix_audit_log_contradicted', help: '1 where the log is not what was signed before, so that nothing is signed any more', registers });
    this.#leaves = new Counter({ name: 'novix_audit_leaves_total', help: 'Leaves that this replica put into the tree', registers });
    this.#signing = new Histogram({ name: 'novix_audit_checkpoint_seconds', help: 'Time to sign a checkpoint and to have it on both disks', buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1], registers });
  }

  /** Takes up the tree where the last leader left it. */
  async open(query: Query): Promise<void> {
    const { origin, treeSize } = await readHead(query);
    this.#origin = origin;
    this.#tree = undefined;
    this.#compared = false;
    this.signedSize = (await latestCheckpoint(query))?.size ?? 0;
    try {
      this.#tree = GrowingTree.load(treeSize, await readTiles(query, GrowingTree.edgeTiles(treeSize), treeSize));
    } catch (error) {
      this.#contradiction(error);
    }
  }

  /**
   * Puts into the tree what has been sequenced. Where leaves or tiles are missing it does not grow, and is looked at again later: leaves go on being
   * sequenced meanwhile.
   *
   * @returns the size of what there is to sign
   */
  async grow(query: Query): Promise<number> {
    if (this.#tree === undefined) {
      if (performance.now() < this.#compareAgainAtMs) return this.signedSize;
      await this.open(query);
    }
    try {
      return this.#tree === undefined ? this.signedSize : await this.#growTo((await readHead(query)).size, this.#tree, query);
    } catch (error) {
      this.#contradiction(error);
      return this.signedSize;
    }
  }

  async #growTo(size: number, tree: GrowingTree, query: Query): Promise<number> {
    // Dropped until all is stored: a tree in memory that is ahead of the one in the database must not go on.
    this.#tree = undefined;
    while (tree.size < size) {
      const start = tree.size;
      const end = Math.min(size, start + LEAVES_PER_STEP);
      const hashes = await readLeafHashes(query, { start, end });
      if (hashes.length !== (end - start) * HASH_BYTES) throw new ContradictionError(`the audit log has not all leaves from ${start} to ${end - 1}`);
      const grown = tree.append(splitHashes(hashes));
      const { rowCount } = await query.query(
        `WITH tiles AS (
           INSERT INTO audit_tiles (level, index, hashes) SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])
           ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes)
         UPDATE audit_head SET tree_size = $4 WHERE tree_size = $5`,
        [grown.map(({ level }) => level), grown.map(({ index }) => index), grown.map((tile) => tile.hashes), end, start]);
      if (rowCount !== 1) throw new Error('another leader has grown the tree');
      this.#leaves.inc(end - start);
    }
    this.#tree = tree;
    return tree.size;
  }

  /** Signs the tree as it is: first outside PostgreSQL, then for everybody. */
  async sign(query: Query): Promise<void> {
    const tree = this.#tree;
    if (this.keys === undefined || tree === undefined || tree.size === 0 || performance.now() < this.#compareAgainAtMs) return;
    const stop = this.#signing.startTimer();
    try {
      if (!this.#compared) await this.#compare(query, this.keys);
    } catch (error) {
      this.#contradiction(error);
      return;
    }
    const nowMs = this.clock.nowMs();
    const note = signCheckpoint({ origin: this.#origin, size: tree.size, root: tree.root() }, this.keys, nowMs);
    await this.outside.write(note);
    await query.query('INSERT INTO audit_checkpoints (size, note, signed_at) VALUES ($1, $2, $3) ON CONFLICT (size) DO NOTHING', [tree.size, note, new Date(nowMs)]);
    this.signedSize = tree.size;
    this.#size.set(tree.size);
    stop();
    await this.#thinOut(query);
  }

  /** A replica that does not lead keeps the last checkpoint on its own disk too, once it is seen to go on from the one before. */
  async follow(query: Query): Promise<void> {
    const latest = this.keys && await latestCheckpoint(query);
    if (latest === undefined || latest.size <= this.signedSize || performance.now() < this.#compareAgainAtMs) return;
    try {
      this.#origin = (await readHead(query)).origin;
      await this.#compare(query, this.keys!);
      await this.outside.write(latest.note);
      this.signedSize = latest.size;
      this.#size.set(latest.size);
    } catch (error) {
      this.#contradiction(error);
    }
  }

  /** @throws {ContradictionError} where the database is not what was signed */
  async #compare(query: Query, keys: SigningKeys): Promise<void> {
    const { treeSize } = await readHead(query);
    for (const [place, note] of [[this.outside.path, await this.outside.read()], ['the database', (await latestCheckpoint(query))?.note]] as const) {
      if (note === undefined) continue;
      const signed = this.#opened(note, keys, place);
      if (signed.size > treeSize) throw new ContradictionError(`the checkpoint in ${place} covers ${signed.size} leaves, and the log has ${treeSize}: leaves that were signed are lost`);
      const [root] = signed.size === 0 ? [signed.root] : await readRoots(query, [{ start: 0, end: signed.size }], treeSize);
      if (!root!.equals(signed.root)) throw new ContradictionError(`the first ${signed.size} leaves of the log are not those that the checkpoint in ${place} covers`);
    }
    this.#compared = true;
    this.#contradicted.set(0);
    this.alerts.resolve('audit_contradicted', this.#origin);
  }

  #opened(note: string, keys: SigningKeys, place: string): Checkpoint {
    try {
      return openCheckpoint(note, verifierKeys(this.#origin, keys));
    } catch (cause) {
      throw new ContradictionError(`the checkpoint in ${place} is not one of this log, or was signed by other keys; where the log or the keys are meant to be new, move the file away`, { cause });
    }
  }

  #contradiction(error: unknown): void {
    if (!(error instanceof ContradictionError)) throw error;
    this.#compareAgainAtMs = performance.now() + COMPARE_AGAIN_MS;
    this.#contradicted.set(1);
    this.logger.fatal({ err: error }, 'audit: the log is not signed any more');
    this.alerts.fire({ type: 'audit_contradicted', tenantId: undefined, subject: this.#origin, occasion: `audit ${this.#origin}`, value: error.message });
  }

  async #thinOut(query: Query): Promise<void> {
    if (performance.now() - this.#thinnedOutAtMs < THIN_OUT_MS) return;
    this.#thinnedOutAtMs = performance.now();
    await query.query(
      `DELETE FROM audit_checkpoints c WHERE signed_at < now() - interval '${EVERY_CHECKPOINT_FOR}'
         AND EXISTS (SELECT FROM audit_checkpoints later WHERE later.signed_at > c.signed_at AND date_trunc('hour', later.signed_at) = date_trunc('hour', c.signed_at))`);
  }
}
