import { Client } from 'pg';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';
import { LogBook } from './log-book.ts';

/** Any number that only we use: who holds it in PostgreSQL is the leader. */
const LEADER_LOCK = 7_204_115_002;
const PAUSE_MS = 200;
const ELECTION_MS = 1_000;
const LEAVES_PER_TURN = 4_096;
/** While leaves come faster than turns, a checkpoint is signed this often. */
const CHECKPOINT_MS = 1_000;

/**
 * Gives committed leaves their place in the log, grows the tree over them, and has it signed. Of all replicas one leads, by an advisory lock on a
 * connection of its own; when it dies, PostgreSQL frees the lock, and another takes over. Nothing on the request path waits for this.
 */
export class Sequencer {
  #client: Client | undefined;
  #leading = false;
  #stopping = false;
  #running: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #signedAtMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly databaseUrl: string,
    private readonly book: LogBook,
    private readonly logger: Logger,
    registry: Registry,
  ) {
    const leading = (): number => Number(this.#leading);
    registry.registerMetric(new Gauge({
      name: 'novix_audit_sequencer_leader', help: '1 where this replica sequences the audit log', registers: [],
      collect() {
        this.set(leading());
      },
    }));
  }

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wake?.();
    await this.#running;
    await this.#client?.end();
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      try {
        if (!this.#leading) this.#leading = await this.#lead();
        // A turn that moved a full load is followed by the next at once.
        const moved = this.#leading ? await this.#turn() : await this.#follow();
        if (moved < LEAVES_PER_TURN) await this.#pause(this.#leading ? PAUSE_MS : ELECTION_MS);
      } catch (error) {
        this.#leading = false;
        this.logger.warn({ err: error }, 'audit: sequencing interrupted');
        await this.#pause(ELECTION_MS);
      }
    }
    if (this.#leading) await this.#turn(true).catch((error: unknown) => this.logger.warn({ err: error }, 'audit: last leaves are left to another replica'));
  }

  async #lead(): Promise<boolean> {
    if (!this.#client) {
      const client = new Client({ connectionString: this.databaseUrl, application_name: 'novix-sequencer', connectionTimeoutMillis: 2_000, statement_timeout: 30_000 });
      client.on('error', () => this.#lost(client));
      client.on('end', () => this.#lost(client));
      await client.connect();
      this.#client = client;
    }
    const answer = await this.#client.query<{ leads: boolean }>('SELECT pg_try_advisory_lock($1) AS leads', [LEADER_LOCK]);
    const { leads } = answer.rows[0]!;
    if (leads) await this.book.open(this.#client);
    return leads;
  }

  /** What is sequenced is committed before it is signed, so that no checkpoint says what the database could still forget. */
  async #turn(last = false): Promise<number> {
    if (!this.#client) throw new Error('the leader’s connection is gone');
    const answer = await this.#client.query<{ moved: number }>('SELECT audit_sequence($1) AS moved', [LEAVES_PER_TURN]);
    const { moved } = answer.rows[0]!;
    const size = await this.book.grow(this.#client);
    if (size !== this.book.signedSize && (last || moved < LEAVES_PER_TURN || performance.now() - this.#signedAtMs >= CHECKPOINT_MS)) {
      await this.book.sign(this.#client);
      this.#signedAtMs = performance.now();
    }
    return moved;
  }

  async #follow(): Promise<number> {
    if (this.#client) await this.book.follow(this.#client);
    return 0;
  }

  #lost(client: Client): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    this.#leading = false;
  }

  async #pause(ms: number): Promise<void> {
    if (this.#stopping) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
