import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Notifications } from '../shared/notifications.ts';
import { ACCESS_TOPIC } from './access-revision.ts';
import { DecisionPoint, type Policy } from './decision-point.ts';
import type { Rule } from './policy.ts';
import type { Principal } from './principal.ts';
import { Revoked, type ActiveRevocation, type RevocationType } from './revoked.ts';

const POLL_MS = 1_000;
/** Rules that have not been confirmed for so long may have been changed by anyone: nothing is allowed by them. */
const FRESH_MS = 5_000;

interface StoredPolicy extends Policy {
  id: string;
  tenantId: string | undefined;
}

/**
 * The rules in force, and what has been revoked, in memory: no request waits for the database to be decided. Changes of any replica act within a
 * second: they are notified, and looked for besides. Where they cannot be looked for, after a while nothing is allowed any more.
 */
export class AccessRules {
  #number = '';
  #policies: readonly StoredPolicy[] = [];
  #revoked = new Revoked([]);
  /** By tenant, compiled when first asked for. */
  #points = new Map<string, DecisionPoint>();
  /** Of this machine's own clock, which no test moves. */
  #confirmedAtMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #loading: Promise<void> | undefined;
  readonly #listeners: (() => void)[] = [];

  /**
   * @param builtIn the reviewed policies, which hold for every tenant
   * @param builtInRevision names their state
   */
  constructor(
    private readonly pool: Pick<Pool, 'query'>,
    private readonly builtIn: readonly Policy[],
    private readonly builtInRevision: string,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  async open(notifications: Notifications): Promise<void> {
    await this.refresh();
    const look = (): void => {
      this.refresh().catch((error: unknown) => this.logger.debug({ err: error }, 'access: rules not confirmed'));
    };
    notifications.on(ACCESS_TOPIC, look);
    this.#timer = setInterval(look, POLL_MS);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Names the state of all rules together. */
  get revision(): string {
    return `${this.#number}-${this.builtInRevision}`;
  }

  get fresh(): boolean {
    return performance.now() - this.#confirmedAtMs <= FRESH_MS;
  }

  /** @throws {GatewayError} `policy_unavailable` */
  assertFresh(): void {
    if (!this.fresh) throw new GatewayError('policy_unavailable', { publicMessage: 'The access rules cannot be confirmed at the moment, so nothing is allowed. Try again shortly.', retryAfterSeconds: 5 });
  }

  /**
   * @returns what decides calls of a tenant: the reviewed rules, the platform's and its own
   * @throws {GatewayError} `policy_unavailable`
   */
  pointFor(tenantId: string): DecisionPoint {
    this.assertFresh();
    let point = this.#points.get(tenantId);
    if (point === undefined) {
      point = this.#compile(tenantId, this.#policies);
      this.#points.set(tenantId, point);
    }
    return point;
  }

  /** The same with a policy that is only tried, in place of the one it would replace. */
  pointWith(tenantId: string, id: string | undefined, candidate: Policy): DecisionPoint {
    return this.#compile(tenantId, [...this.#policies.filter((policy) => policy.id !== id), { ...candidate, id: id ?? '', tenantId }]);
  }

  isRevoked(principal: Principal): boolean {
    return this.#revoked.has(principal, this.clock.nowMs());
  }

  /** Called whenever anything has changed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** After a change of our own, so that it holds for the next request. It has been made, whatever becomes of this: then the next look finds it. */
  async changed(): Promise<void> {
    try {
      await this.refresh();
    } catch (error) {
      this.logger.warn({ err: error }, 'access: a change of our own is not seen yet');
    }
  }

  /** Looks for changes. */
  refresh(): Promise<void> {
    // One at a time, and never one that began before the change it is to see.
    const next = (this.#loading ?? Promise.resolve()).catch(() => {}).then(() => this.#load());
    this.#loading = next;
    return next;
  }

  #compile(tenantId: string, policies: readonly StoredPolicy[]): DecisionPoint {
    return new DecisionPoint(this.revision, [...this.builtIn, ...policies.filter((policy) => policy.tenantId === undefined || policy.tenantId === tenantId)]);
  }

  async #load(): Promise<void> {
    const askedAtMs = performance.now();
    const { rows: [revision] } = await this.pool.query<{ number: string }>('SELECT number FROM access_revision');
    if (revision!.number !== this.#number) {
      const { number, policies, revocations } = await this.#read();
      this.#policies = policies;
      this.#revoked = new Revoked(revocations);
      this.#points = new Map();
      this.#number = number;
      this.#confirmedAtMs = askedAtMs;
      for (const listener of this.#listeners) listener();
    }
    this.#confirmedAtMs = askedAtMs;
  }

  /** In one statement, so that the number names exactly these. */
  async #read(): Promise<{ number: string; policies: StoredPolicy[]; revocations: ActiveRevocation[] }> {
    const { rows: [row] } = await this.pool.query<{ number: string; policies: PolicyRow[]; revocations: RevocationRow[] }>(
      `SELECT number,
         (SELECT coalesce(json_agg(p), '[]') FROM (SELECT id, tenant_id, name, status, rules FROM policies ORDER BY id) p) AS policies,
         (SELECT coalesce(json_agg(r), '[]') FROM (SELECT type, value, tenant_id, extract(epoch FROM expires_at) * 1000 AS expires_at_ms FROM revocations WHERE expires_at IS NULL OR expires_at > now()) r) AS revocations
       FROM access_revision`);
    return {
      number: row!.number,
      policies: row!.policies.map(({ tenant_id: tenantId, ...policy }) => ({ ...policy, tenantId: tenantId ?? undefined })),
      revocations: row!.revocations.map(({ type, value, tenant_id: tenantId, expires_at_ms: expiresAtMs }) => ({ type, value, tenantId: tenantId ?? undefined, expiresAtMs: expiresAtMs ?? undefined })),
    };
  }
}

interface PolicyRow {
  id: string;
  tenant_id: string | null;
  name: string;
  status: 'enforced' | 'shadow';
  rules: Rule[];
}

interface RevocationRow {
  type: RevocationType;
  value: string;
  tenant_id: string | null;
  expires_at_ms: number | null;
}
