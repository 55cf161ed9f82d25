import type { Logger } from 'pino';
import type { Deployment } from '../catalogue/catalogue.ts';
import type { Env } from '../env.ts';
import type { OpenedSecrets } from '../secrets/opened-secrets.ts';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { ConnectorOptions } from '../egress/connector.ts';
import { ConversationPlacement } from './conversation-placement.ts';
import { GrokClient, type UpstreamTarget } from './grok-client.ts';
import { apiKeyName, ENVIRONMENT_KEY, tlsKeyName } from './deployment-secrets.ts';
import type { ProviderMetrics } from './provider-metrics.ts';
import { Shard, type Lease } from './shard.ts';
import { lessLoadedOfTwo, withoutStragglers } from './shard-choice.ts';

/** Callers come back after so long where the provider's key is not open; it is tried again at least as often. */
const LOCKED_RETRY_SECONDS = 5;

export interface ShardSettings {
  provider: Env['provider'] & { apiKey: string };
  egress: Env['egress'];
}

/** What can serve a call: a deployment, and how welcome it is. */
export interface Option {
  deployment: Deployment;
  rank: number;
}

export interface ShardWish {
  /** Names the conversation, where the call belongs to one. */
  conversation: string | undefined;
  inputTokens: number;
  /** Deployments that have failed this call already: only where there is nothing else. */
  avoid: ReadonlySet<string>;
  /** A further attempt, which has waited its time: a cooling of our own guess does not hold it up. */
  nowOrNever: boolean;
}

/** All deployments at work, and the choice between them. */
export class Shards {
  readonly #shards = new Map<string, Shard>();
  /** Deployments that would serve, if their secrets were open. */
  readonly #locked = new Set<string>();
  readonly placement = new ConversationPlacement();

  constructor(
    private readonly settings: ShardSettings,
    private readonly secrets: Pick<OpenedSecrets, 'read' | 'current'>,
    private readonly metrics: ProviderMetrics,
    private readonly clock: Clock,
    private readonly random: () => number,
    private readonly logger: Logger,
    deployments: readonly Deployment[],
    /** Called when a breaker opens, for other replicas to know. */
    private readonly onOpened: (deploymentId: string, openMs: number) => void,
    /** Called when a breaker closes again. */
    private readonly onClosed: (deploymentId: string) => void = () => {},
  ) {
    for (const deployment of deployments) this.#place(deployment, undefined);
    metrics.watch(this, () => this.placement.size);
  }

  /**
   * From now on, these serve. Those that stay keep their connections and breakers; those that go finish what they have begun.
   *
   * @returns those that can, or could once their secrets are open: one whose secrets never will is left out, and logged
   */
  use(deployments: readonly Deployment[]): Deployment[] {
    const usable: Deployment[] = [];
    const before = new Map(this.#shards);
    this.#shards.clear();
    this.#locked.clear();
    for (const deployment of deployments) {
      try {
        this.#place(deployment, before.get(deployment.id));
        usable.push(deployment);
      } catch (error) {
        this.logger.error({ err: error, deployment: deployment.id }, 'deployments: one cannot be used, so it is out of service');
      }
    }
    for (const shard of before.values()) if (this.#shards.get(shard.id) !== shard) void shard.retire();
    return usable;
  }

  /** Whether the environment's key is open, and any deployment can serve. */
  get unlocked(): boolean {
    return this.secrets.current(ENVIRONMENT_KEY, this.settings.provider.apiKey) !== undefined && (this.#locked.size === 0 || this.#shards.size > 0);
  }

  find(id: string): Shard | undefined {
    return this.#shards.get(id);
  }

  /** Every shard, by id. */
  get all(): readonly Shard[] {
    return [...this.#shards.values()];
  }

  /**
   * Picks the shard for an attempt and takes a place there: the conversation's own, else the less loaded of two; of the lowest rank that can serve.
   *
   * @throws {GatewayError} `breaker_open`, `rate_limit_exceeded`, `overloaded` when none can
   */
  lease<T extends Option>(options: readonly T[], wish: ShardWish): { candidate: T; lease: Lease } {
    const ranks = [...new Set(options.map(({ rank }) => rank))].sort((left, right) => left - right);
    for (const rank of ranks) {
      const open = options.filter((option) => option.rank === rank && this.#canTake(option, wish.nowOrNever));
      if (open.length === 0) continue;
      const candidate = open.length === 1 ? open[0]! : this.#choose(open, wish);
      return { candidate, lease: this.#shards.get(candidate.deployment.id)!.begin() };
    }
    throw this.#nothingOpen(options);
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((shard) => shard.client.close()));
  }

  #choose<T extends Option>(options: readonly T[], { conversation, inputTokens, avoid }: ShardWish): T {
    const untried = options.filter(({ deployment }) => !avoid.has(deployment.id));
    const cool = (untried.length > 0 ? untried : options).filter(({ deployment }) => this.#shards.get(deployment.id)!.cooling.ms === 0);
    const pool = cool.length > 0 ? cool : untried.length > 0 ? untried : options;
    const loads = pool.map(({ deployment }) => this.#shards.get(deployment.id)!.load());
    // Without weight, a deployment is kept for those who can go nowhere else.
    const weighted = loads.some(({ weight }) => weight > 0) ? loads.filter(({ weight }) => weight > 0) : loads.map((load) => ({ ...load, weight: 1 }));
    const chosen = conversation === undefined
      ? lessLoadedOfTwo(weighted, this.random)!
      : this.placement.place(conversation, withoutStragglers(weighted), inputTokens, this.clock.monotonicMs());
    return pool.find(({ deployment }) => deployment.id === chosen.id)!;
  }

  #canTake({ deployment }: Option, nowOrNever: boolean): boolean {
    const shard = this.#shards.get(deployment.id);
    if (shard === undefined || shard.full || shard.admittance === 'refused' || deployment.weight === 0) return false;
    const { ms, byOrder } = shard.cooling;
    return ms === 0 || !byOrder || nowOrNever;
  }

  #nothingOpen(options: readonly Option[]): GatewayError {
    const shards = options.flatMap(({ deployment }) => this.#shards.get(deployment.id) ?? []).filter(({ deployment }) => deployment.weight > 0);
    const reachable = shards.filter(({ admittance }) => admittance !== 'refused');
    const cooling = reachable.filter(({ cooling: { ms } }) => ms > 0);
    if (cooling.length > 0 && cooling.length === reachable.length) {
      const waitMs = Math.min(...cooling.map(({ cooling: { ms } }) => ms));
      return new GatewayError('rate_limit_exceeded', { publicMessage: 'The provider limits the rate of requests. Try again after the time in retry-after.', retryAfterSeconds: waitMs / 1000 });
    }
    if (reachable.length > 0) {
      return new GatewayError('overloaded', { publicMessage: 'All places at the provider are taken. Try again shortly.', retryAfterSeconds: 1 });
    }
    if (shards.length === 0 && options.some(({ deployment }) => this.#locked.has(deployment.id))) {
      return new GatewayError('provider_unavailable', { publicMessage: 'The gateway’s key for the provider is not open yet, so calls are not sent. Try again after the time in retry-after.', retryAfterSeconds: LOCKED_RETRY_SECONDS });
    }
    const openMs = shards.flatMap(({ openMs: ms }) => ms ?? []);
    return new GatewayError('breaker_open', {
      publicMessage: shards.length === 0 ? 'No deployment of this model is in service. The platform team has to see to it.' : 'The provider has been failing, so calls are not sent for a while. Try again after the time in retry-after.',
      retryAfterSeconds: openMs.length === 0 ? 60 : Math.min(...openMs) / 1000,
    });
  }

  /** @throws {Error} where a secret will never open */
  #place(deployment: Deployment, kept: Shard | undefined): void {
    const shard = kept !== undefined && sameUpstream(kept.deployment, deployment) ? kept : this.#open(deployment);
    if (shard === undefined) {
      this.#locked.add(deployment.id);
      return;
    }
    shard.deployment = deployment;
    if (kept?.openMs === Number.POSITIVE_INFINITY) shard.setBreaker(kept.breaker); // an admin's word holds, whatever else changes
    this.#shards.set(deployment.id, shard);
  }

  /** Undefined as long as its secrets are not open. */
  #open(deployment: Deployment): Shard | undefined {
    const upstream = this.#upstreamOf(deployment);
    if (upstream === undefined) return undefined;
    const { target, connector } = upstream;
    const client = new GrokClient(target, { ...connector, onTlsGroup: (group) => this.metrics.tlsGroup(deployment.id, group) });
    const { breakerFailures, breakerRecoveryMs } = this.settings.provider;
    return new Shard(deployment, client, { failures: breakerFailures, recoveryMs: breakerRecoveryMs }, this.clock, this.random, (shard, before) => {
      this.logger.warn({ deployment: shard.id, from: before.state, to: shard.breaker.state }, 'breaker');
      if (shard.breaker.state === 'closed') this.onClosed(shard.id);
    }, (shard, openMs) => this.onOpened(shard.id, openMs));
  }

  #upstreamOf(deployment: Deployment): { target: UpstreamTarget; connector: ConnectorOptions } | undefined {
    const { provider, egress } = this.settings;
    const common = { connectTimeoutMs: provider.connectTimeoutMs, anyAddress: deployment.anyAddress, proxy: { url: egress.proxyUrl, noProxy: egress.noProxy } };
    if (deployment.baseUrl === undefined) {
      const environmentKey = this.secrets.read(ENVIRONMENT_KEY, provider.apiKey);
      return environmentKey === undefined ? undefined : {
        target: { baseUrl: provider.endpoint, apiKey: environmentKey, apiVersion: provider.apiVersion },
        connector: { ...common, tls: { cert: provider.clientCertFile, key: provider.clientKeyFile, ca: provider.caFile } },
      };
    }
    const { id, sealedApiKey, tls } = deployment;
    const apiKey = sealedApiKey === undefined ? undefined : this.secrets.read(apiKeyName(id), sealedApiKey);
    const key = tls.key === undefined ? undefined : this.secrets.read(tlsKeyName(id), tls.key);
    if ((sealedApiKey !== undefined && apiKey === undefined) || (tls.key !== undefined && key === undefined)) return undefined;
    return {
      target: { baseUrl: deployment.baseUrl, apiKey, apiVersion: provider.apiVersion },
      connector: { ...common, tls: { ...tls, key } },
    };
  }
}

/** Whether two of one id are reached in the same way. */
function sameUpstream(left: Deployment, right: Deployment): boolean {
  const reach = ({ baseUrl, sealedApiKey, tls, anyAddress }: Deployment): string => JSON.stringify([baseUrl, sealedApiKey, tls, anyAddress]);
  return reach(left) === reach(right);
}
