import { Client } from 'pg';
import type { Logger } from 'pino';
import { setTimeout as sleep } from 'node:timers/promises';

const CONNECT_TIMEOUT_MS = 2_000;
/** How often to ask whether the connection, and with it the lock, is still there; and how long the answer may take. */
const BEAT_MS = 1_000;
const QUERY_TIMEOUT_MS = 5_000;

export interface Election {
  databaseUrl: string;
  /** Any number that only this election uses. */
  lock: number;
  /** As PostgreSQL lists the connection. */
  name: string;
  electionPauseMs: number;
}

/**
 * One of all replicas, elected by an advisory lock of PostgreSQL on a connection of its own: when it dies, the lock is free, and another takes over. For a
 * moment there may be two, where one has not seen yet that its connection is gone; what it leads to must bear that.
 */
export class Leader {
  readonly #stopped = new AbortController();
  #client: Client | undefined;
  #term: AbortController | undefined;
  #running: Promise<void> | undefined;

  /** @param lead what the leader does until the signal says that its term is over */
  constructor(
    private readonly election: Election,
    private readonly logger: Logger,
    private readonly lead: (signal: AbortSignal) => Promise<void>,
  ) {}

  start(): void {
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#term?.abort();
    await this.#running;
    await this.#client?.end();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        const client = this.#client ?? await this.#connect();
        const { rows } = await client.query<{ leads: boolean }>('SELECT pg_try_advisory_lock($1) AS leads', [this.election.lock]);
        if (rows[0]!.leads) await this.#serve(client);
      } catch (error) {
        this.logger.warn({ err: error, election: this.election.name }, 'leader: the election was interrupted');
        this.#lost(this.#client);
      }
      await sleep(this.election.electionPauseMs, undefined, { signal }).catch(() => {}); // woken by the stop
    }
  }

  async #serve(client: Client): Promise<void> {
    const term = new AbortController();
    this.#term = term;
    // Both may have come while the lock was on its way.
    if (this.#stopped.signal.aborted || this.#client !== client) term.abort();
    const beat = setInterval(() => {
      client.query('SELECT').catch(() => this.#lost(client));
    }, BEAT_MS);
    try {
      await this.lead(term.signal);
    } finally {
      clearInterval(beat);
      this.#term = undefined;
      // A stop ends the connection, and the lock with it.
      if (this.#client === client && !this.#stopped.signal.aborted) await client.query('SELECT pg_advisory_unlock($1)', [this.election.lock]);
    }
  }

  async #connect(): Promise<Client> {
    const { databaseUrl, name } = this.election;
    const client = new Client({ connectionString: databaseUrl, application_name: name, connectionTimeoutMillis: CONNECT_TIMEOUT_MS, query_timeout: QUERY_TIMEOUT_MS, keepAlive: true });
    client.on('error', () => this.#lost(client));
    client.on('end', () => this.#lost(client));
    await client.connect();
    this.#client = client;
    return client;
  }

  #lost(client: Client | undefined): void {
    if (client === undefined || this.#client !== client) return;
    this.#client = undefined;
    this.#term?.abort();
    client.end().catch(() => {}); // it may be half there, and must not keep the lock
  }
}
