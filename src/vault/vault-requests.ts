import { Agent, request } from 'undici';
import { createConnector } from '../egress/connector.ts';
import { VaultClient } from '../secrets/vault-client.ts';
import { VaultSession, type VaultSessionOptions } from '../secrets/vault-session.ts';
import type { VaultSettings } from '../secrets/vault-settings.ts';
import type { VaultMethod, VaultReply } from './vault-roots.ts';

const CONNECT_TIMEOUT_MS = 2_000;
const REQUEST_TIMEOUT_MS = 3_000;
const CONNECTIONS_MAX = 4;
const ANSWER_BYTES_MAX = 1024 * 1024;

/** Requests of {@link VaultRoots}, with a token that is kept alive. Not those of secrets: roots also delete, and have to know what is missing. */
export class VaultRequests {
  readonly #agent: Agent;
  readonly #client: VaultClient;
  readonly #session: VaultSession;

  constructor(private readonly settings: VaultSettings, options: VaultSessionOptions) {
    this.#client = new VaultClient(settings);
    this.#session = new VaultSession(this.#client, settings.login, options);
    const connect = createConnector({ connectTimeoutMs: CONNECT_TIMEOUT_MS, anyAddress: true, tls: { cert: undefined, key: undefined, ca: settings.caFile }, proxy: { url: undefined, noProxy: undefined } });
    this.#agent = new Agent({ connect, connections: CONNECTIONS_MAX, headersTimeout: REQUEST_TIMEOUT_MS, bodyTimeout: REQUEST_TIMEOUT_MS, maxResponseSize: ANSWER_BYTES_MAX });
  }

  async ask(method: VaultMethod, path: string, body?: Readonly<Record<string, unknown>>): Promise<VaultReply> {
    const token = await this.#session.token();
    const answer = await this.#send(method, path, token, body);
    // A token that is not accepted any more is replaced, once.
    const { status, json } = answer.status === 403 && this.#session.drop(token) ? await this.#send(method, path, await this.#session.token(), body) : answer;
    if (status >= 200 && status < 300) return { kind: 'ok', data: (json['data'] ?? {}) as Record<string, unknown> };
    const errors = Array.isArray(json['errors']) ? (json['errors'] as unknown[]) : undefined;
    // With words it is the path that Vault does not know: that a mount is missing must never pass for a key that is destroyed.
    if (status === 404 && errors?.length === 0) return { kind: 'missing' };
    if (status === 400) return { kind: 'refused' };
    throw new Error(`Vault answers ${status} to ${method} of a payload key: ${status === 403 ? 'see the policy of its token' : status === 404 ? 'see VAULT_TRANSIT_MOUNT and VAULT_NAMESPACE' : 'try again later'}`);
  }

  async close(): Promise<void> {
    this.#session.close();
    await this.#client.close();
    await this.#agent.destroy();
  }

  async #send(method: VaultMethod, path: string, token: string, body: Readonly<Record<string, unknown>> | undefined): Promise<{ status: number; json: Record<string, unknown> }> {
    const { url, namespace } = this.settings;
    const response = await request(`${url}/v1/${path}`, {
      method, dispatcher: this.#agent, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      headers: {
        'x-vault-request': 'true', 'x-vault-token': token, ...(namespace === undefined ? {} : { 'x-vault-namespace': namespace }), ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return { status: response.statusCode, json: parseObject(await response.body.text()) };
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
