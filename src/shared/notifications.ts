import { Client, type Pool } from 'pg';
import type { Logger } from 'pino';

const CHANNEL = 'novix';
const RECONNECT_MS = 1_000;
const CONNECT_TIMEOUT_MS = 2_000;

/**
 * What replicas tell each other, through PostgreSQL's LISTEN and NOTIFY: written by changes, never on the request path. A notification may be lost, so
 * whoever depends on one also looks for itself now and then.
 */
export class Notifications {
  readonly #listeners = new Map<string, ((payload: string) => void)[]>();
  #client: Client | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(
    private readonly databaseUrl: string,
    private readonly logger: Logger,
  ) {}

  /** Listens, and keeps on listening: a connection that breaks is opened again. */
  async open(): Promise<void> {
    const client = new Client({ connectionString: this.databaseUrl, application_name: 'novix-listen', connectionTimeoutMillis: CONNECT_TIMEOUT_MS, keepAlive: true });
    client.on('error', (error) => this.logger.warn({ err: error }, 'notifications: the connection broke'));
    client.on('end', () => this.#reopen());
    client.on('notification', ({ payload = '' }) => {
      const [topic = ''] = payload.split(' ', 1);
      this.#tell(topic, payload.slice(topic.length + 1));
    });
    try {
      await client.connect();
      await client.query(`LISTEN ${CHANNEL}`);
      this.#client = client;
      // Whatever was said meanwhile was not heard.
      for (const topic of this.#listeners.keys()) this.#tell(topic, '');
    } catch (error) {
      this.logger.warn({ err: error }, 'notifications: cannot listen; changes of other replicas are seen by looking');
      await client.end().catch(() => this.#reopen());
    }
  }

  /** @param listener gets the payload; an empty one says that something may have been missed */
  on(topic: string, listener: (payload: string) => void): void {
    this.#listeners.set(topic, [...(this.#listeners.get(topic) ?? []), listener]);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#client?.end();
  }

  #tell(topic: string, payload: string): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener(payload);
  }

  #reopen(): void {
    this.#client = undefined;
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.open(), RECONNECT_MS);
  }
}

/** Tells all replicas, this one included; inside a transaction, when that commits. */
export async function notify(connection: Pick<Pool, 'query'> | { query(sql: string, values: unknown[]): Promise<unknown> }, topic: string, payload = ''): Promise<void> {
  await connection.query('SELECT pg_notify($1, $2)', [CHANNEL, `${topic} ${payload}`]);
}
