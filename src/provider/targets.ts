import type { Deployment } from '../catalogue/catalogue.ts';
import type { Env } from '../env.ts';
import type { UpstreamTarget } from './grok-client.ts';

/** Where a deployment's calls go, with which credential. */
export class Targets {
  readonly #environment: UpstreamTarget;

  constructor(provider: Env['provider'] & { apiKey: string }) {
    this.#environment = { baseUrl: provider.endpoint, apiKey: provider.apiKey, apiVersion: provider.apiVersion };
  }

  /** @throws {Error} for a deployment that brings an endpoint of its own but no key */
  of(deployment: Deployment): UpstreamTarget {
    if (deployment.baseUrl !== undefined) throw new Error(`config/models.yaml: deployment ${deployment.id}: only base_url "env" has a key`);
    return this.#environment;
  }
}
