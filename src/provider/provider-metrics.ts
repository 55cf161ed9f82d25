import { Counter, Gauge, type Registry } from 'prom-client';
import type { Shard } from './shard.ts';

const STATES = ['closed', 'open', 'half_open'] as const;

/** What is seen of the deployments. Labels are their ids, which operators choose, and closed unions. */
export class ProviderMetrics {
  readonly retries: Counter;
  readonly retriesRefused: Counter;
  readonly attempts: Counter;
  readonly #tlsGroups: Counter;

  constructor(private readonly registry: Registry) {
    const registers = [registry];
    this.attempts = new Counter({ name: 'novix_upstream_attempts_total', help: 'Attempts at the provider, by what they said of the deployment', labelNames: ['deployment', 'result'], registers });
    this.retries = new Counter({ name: 'novix_upstream_retries_total', help: 'Further attempts after a failed one', labelNames: ['deployment'], registers });
    this.retriesRefused = new Counter({ name: 'novix_upstream_retries_refused_total', help: 'Retries that the retry budget of a deployment did not cover', labelNames: ['deployment'], registers });
    this.#tlsGroups = new Counter({ name: 'novix_upstream_tls_connections_total', help: 'TLS connections to the provider, by key exchange group', labelNames: ['deployment', 'group'], registers });
  }

  tlsGroup(deployment: string, group: string | undefined): void {
    this.#tlsGroups.inc({ deployment, group: group ?? 'unknown' });
  }

  watch(shards: { readonly all: readonly Shard[] }, conversations: () => number): void {
    this.registry.registerMetric(new Gauge({
      name: 'novix_upstream_breaker_state', help: '1 for the state in which the breaker of a deployment is', labelNames: ['deployment', 'state'], registers: [],
      collect() {
        this.reset();
        for (const { id, breaker } of shards.all) for (const state of STATES) this.set({ deployment: id, state }, breaker.state === state ? 1 : 0);
      },
    }));
    this.registry.registerMetric(new Gauge({
      name: 'novix_upstream_calls_in_flight', help: 'Attempts under way', labelNames: ['deployment'], registers: [],
      collect() {
        this.reset();
        for (const { id, inFlight } of shards.all) this.set({ deployment: id }, inFlight);
      },
    }));
    this.registry.registerMetric(new Gauge({
      name: 'novix_conversations_placed', help: 'Conversations whose deployment is remembered; at most 10,000', registers: [],
      collect() {
        this.set(conversations());
      },
    }));
  }
}
