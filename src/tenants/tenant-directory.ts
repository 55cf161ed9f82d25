import type { Logger } from 'pino';
import type { DataSource } from 'typeorm';
import { GatewayError } from '../shared/gateway-error.ts';
import { Tenant } from './tenant.ts';

const POLL_MS = 1_000;
/** A name that is missing asks the database again at most this often. */
const RELOAD_MS = 250;

/** All tenants, in memory, so that no request waits for the database to learn who its caller is. Follows changes within a second. */
export class TenantDirectory {
  #tenants = new Map<string, Tenant>();
  #signature = '';
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  #loading: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #listeners: (() => void)[] = [];

  constructor(
    private readonly dataSource: DataSource,
    private readonly logger: Logger,
  ) {}

  async open(): Promise<void> {
    await this.#load();
    this.#timer = setInterval(() => {
      this.#load().catch((error: unknown) => this.logger.debug({ err: error }, 'tenants: not refreshed'));
    }, POLL_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Reads all tenants again: after a change of our own, which shall hold for the next request. */
  refresh(): Promise<void> {
    return this.#loadAll();
  }

  /** Called whenever a tenant was added, changed or removed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /**
   * @returns undefined when there is no such tenant
   * @throws {GatewayError} `identity_unavailable` when a tenant is not known here and the database cannot be asked
   */
  async find(id: string): Promise<Tenant | undefined> {
    const known = this.#tenants.get(id);
    if (known !== undefined) return known;
    try {
      // It may have been made a moment ago, by another replica. Its first caller waits a little, rather than being refused.
      const waitMs = this.#loadedAtMs + RELOAD_MS - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
      await this.#load();
    } catch (error) {
      throw new GatewayError('identity_unavailable', { publicMessage: 'The tenant of the token cannot be looked up at the moment. Try again shortly.', cause: error });
    }
    return this.#tenants.get(id);
  }

  #load(): Promise<void> {
    this.#loading ??= this.#loadAll().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #loadAll(): Promise<void> {
    const tenants = await this.dataSource.getRepository(Tenant).find({ order: { id: 'ASC' } });
    this.#loadedAtMs = performance.now();
    const signature = JSON.stringify(tenants, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#tenants = new Map(tenants.map((tenant) => [tenant.id, tenant]));
    for (const listener of this.#listeners) listener();
  }
}
