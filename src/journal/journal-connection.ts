import { Client } from 'pg';
import type { Logger } from 'pino';
import { entriesJson, PARTICIPANTS, type Operation, type Participant, type Verdict } from './operation.ts';
import { packLeaves } from './packed-leaves.ts';

/** `journal_seal($1, audit_append(ledger_apply(journal_open($2), $3), $4, $5))`: one statement, so one transaction and one round trip. */
const COMMIT_SQL = commitSql();

const CONNECT_TIMEOUT_MS = 2_000;
const STATEMENT_TIMEOUT_MS = 5_000;
const LOCK_TIMEOUT_MS = 3_000;
/** A little longer than the server's own limit, which is the better informed of the two. */
const ANSWER_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 1_000;
const RECONNECT_MS = { first: 50, most: 1_000 };

/** What became of a commit that did not succeed. */
export type CommitFailure =
  /** The database refused what was written: some operation in the batch is bad. Nothing was committed. */
  | 'poisoned'
  /** Nothing was committed, and the same batch may well succeed next time. */
  | 'transient'
  /** The connection broke: the batch may or may not have been committed. */
  | 'in-doubt';

export class CommitError extends Error {
  override readonly name = 'CommitError';
  constructor(readonly failure: CommitFailure, cause: unknown) {
    super(`journal commit failed: ${failure}`, { cause });
  }
}

/** The journal's own connection to PostgreSQL: connects again by itself, and can find out what became of a batch. */
export class JournalConnection {
  #client: Client | undefined;
  #connecting: Promise<void> | undefined;
  #closed = false;

  constructor(
    private readonly databaseUrl: string,
    private readonly logger: Logger,
    private readonly listeners: { onUp: () => void; onDown: () => void },
  ) {}

  get up(): boolean {
    return this.#client !== undefined;
  }

  /** @throws {Error} when the database cannot be reached, or would not keep what it promised to keep */
  async open(): Promise<void> {
    await this.#connect();
  }

  /**
   * Commits a batch.
   *
   * @returns one verdict per operation
   * @throws {CommitError}
   */
  async commit(batchId: string, operations: readonly Operation[]): Promise<Verdict[]> {
    const client = this.#client;
    if (!client) throw new CommitError('transient', new Error('not connected'));
    const values = [batchId, operations.length, ...PARTICIPANTS.flatMap((participant) => valuesOf(participant, operations))];
    try {
      const answer = await this.#ask<{ verdicts: string }>(client, { name: 'journal-commit', text: COMMIT_SQL, values });
      return parseVerdicts(answer.rows[0]!.verdicts);
    } catch (error) {
      const failure = classify(error);
      if (failure === 'in-doubt') this.#drop(client, error);
      throw new CommitError(failure, error);
    }
  }

  /**
   * Finds out what became of a batch whose answer was lost. If it has not been committed, it never will be: its id is taken by this question,
   * and where the old transaction is still running, the unique key makes this wait for its end.
   *
   * @returns its verdicts, or undefined when it was not committed
   * @throws {CommitError} when the database cannot be asked
   */
  async fence(batchId: string): Promise<Verdict[] | undefined> {
    const client = this.#client;
    if (!client) throw new CommitError('transient', new Error('not connected'));
    try {
      await this.#ask(client, { text: 'INSERT INTO journal_batches (id, verdicts) VALUES ($1, NULL) ON CONFLICT (id) DO NOTHING', values: [batchId] });
      const answer = await this.#ask<{ verdicts: string | null }>(client, { text: 'SELECT verdicts FROM journal_batches WHERE id = $1', values: [batchId] });
      const verdicts = answer.rows[0]?.verdicts ?? null;
      return verdicts === null ? undefined : parseVerdicts(verdicts);
    } catch (error) {
      const failure = classify(error);
      if (failure === 'in-doubt') this.#drop(client, error);
      throw new CommitError(failure, error);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const client = this.#client;
    this.#client = undefined;
    await this.#connecting?.catch(() => undefined); // a connection that never came up needs no closing
    await client?.end();
  }

  /** Asks with a limit of our own, since a stopped server answers nothing, not even an error. */
  async #ask<Row extends object>(client: Client, query: { name?: string; text: string; values: unknown[] }): Promise<{ rows: Row[] }> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await Promise.race([
        client.query<Row>(query),
        new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject(new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`)), ANSWER_TIMEOUT_MS);
        }),
      ]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #connect(): Promise<void> {
    const client = new Client({
      connectionString: this.databaseUrl,
      application_name: 'novix-journal',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      lock_timeout: LOCK_TIMEOUT_MS,
      idle_in_transaction_session_timeout: STATEMENT_TIMEOUT_MS,
      keepAlive: true,
    });
    client.on('error', (error) => this.#drop(client, error));
    client.on('end', () => this.#drop(client, new Error('connection ended')));
    await client.connect();
    const question = { text: "SELECT current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync", values: [] };
    const answer = await this.#ask<{ synchronous_commit: string; fsync: string }>(client, question).catch((error: unknown) => {
      destroy(client); // a server that hangs right now must not keep us from trying again
      throw error;
    });
    const { synchronous_commit: synchronousCommit, fsync } = answer.rows[0]!;
    if (synchronousCommit === 'off') {
      await client.end();
      throw new Error('PostgreSQL has synchronous_commit off: a committed record could be lost. Turn it on for this role and database');
    }
    if (fsync === 'off') this.logger.warn('PostgreSQL runs with fsync off: records do not survive a power failure');
    if (this.#closed) {
      await client.end();
      return;
    }
    this.#client = client;
    this.listeners.onUp();
  }

  #drop(client: Client, cause: unknown): void {
    if (this.#client !== client) return;
    this.#client = undefined;
    if (this.#closed) return;
    this.logger.error({ err: cause }, 'journal: lost the connection to PostgreSQL');
    // Ends a query that hangs too; what it did is asked about on the next connection.
    destroy(client);
    this.listeners.onDown();
    this.#connecting ??= this.#reconnect().finally(() => {
      this.#connecting = undefined;
    });
  }

  async #reconnect(): Promise<void> {
    for (let delayMs = RECONNECT_MS.first; !this.#closed; delayMs = Math.min(delayMs * 2, RECONNECT_MS.most)) {
      try {
        await this.#connect();
        this.logger.info('journal: connected to PostgreSQL again');
        return;
      } catch (error) {
        this.logger.debug({ err: error }, 'journal: PostgreSQL still cannot be reached');
        await new Promise((resolve) => setTimeout(resolve, delayMs));
      }
    }
  }
}

function commitSql(): string {
  let next = 3;
  const call = PARTICIPANTS.reduce((inner, name) => `${name}(${inner}, ${name === 'audit_append' ? `$${next++}, ` : ''}$${next++})`, 'journal_open($2)');
  return `SELECT journal_seal($1, ${call}) AS verdicts`;
}

function valuesOf(participant: Participant, operations: readonly Operation[]): unknown[] {
  if (participant !== 'audit_append') return [entriesJson(operations, participant)];
  const { heads, bodies } = packLeaves(operations.map(({ entries }) => entries.audit_append));
  return [heads, bodies];
}

/** Closes the socket at once, whatever the client is waiting for. */
function destroy(client: Client): void {
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

function parseVerdicts(text: string): Verdict[] {
  return Array.from(text, Number);
}

/** @see https://www.postgresql.org/docs/current/errcodes-appendix.html */
function classify(error: unknown): CommitFailure {
  // PostgreSQL's own errors have a severity; a socket's code (EPIPE, say) may look like one of its codes.
  const { code, severity } = error as { code?: unknown; severity?: unknown };
  if (typeof code !== 'string' || typeof severity !== 'string') return 'in-doubt';
  const errorClass = code.slice(0, 2);
  if (errorClass === '08' || code.startsWith('57P')) return 'in-doubt'; // connection lost, server shutting down
  if (['22', '23', 'P0', '42'].includes(errorClass)) return 'poisoned'; // data, constraint, raised, or undefined
  return 'transient'; // deadlock, lock or statement timeout, out of resources
}
