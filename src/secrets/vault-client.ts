import { Agent, request } from 'undici';
import { createConnector, readPem } from '../egress/connector.ts';
import { SecretUnavailable } from './secret-provider.ts';
import { verdictOf, type VaultVerdict } from './vault-answer.ts';
import type { VaultSettings } from './vault-settings.ts';

const CONNECT_TIMEOUT_MS = 2_000;
/** For the whole of a request; Vault answers within milliseconds. */
const REQUEST_TIMEOUT_MS = 3_000;
const ANSWER_BYTES_MAX = 1024 * 1024;
const CONNECTIONS_MAX = 4;

export interface VaultAnswer {
  verdict: VaultVerdict;
  body: Readonly<Record<string, unknown>>;
}

/** Asks Vault, once per call. Never follows a redirect: a token goes to the server that was named, and to no other. */
export class VaultClient {
  readonly #agent: Agent;

  /** @throws {Error} where the CA cannot be read */
  constructor(private readonly settings: Pick<VaultSettings, 'url' | 'namespace' | 'caFile'>) {
    const { caFile } = settings;
    try {
      if (caFile !== undefined) readPem(caFile);
    } catch (cause) {
      throw new Error(`VAULT_CACERT: ${caFile} cannot be read, or is no PEM file`, { cause });
    }
    // Not through HTTPS_PROXY: that is the way out of the company, and Vault is within.
    const connect = createConnector({ connectTimeoutMs: CONNECT_TIMEOUT_MS, anyAddress: true, tls: { cert: undefined, key: undefined, ca: caFile }, proxy: { url: undefined, noProxy: undefined } });
    this.#agent = new Agent({ connect, connections: CONNECTIONS_MAX, headersTimeout: REQUEST_TIMEOUT_MS, bodyTimeout: REQUEST_TIMEOUT_MS });
  }

  /** @throws {SecretUnavailable} where there is no answer */
  async ask(method: 'GET' | 'POST', path: string, token: string | undefined, body?: Readonly<Record<string, unknown>>): Promise<VaultAnswer> {
    const { url, namespace } = this.settings;
    try {
      const response = await request(`${url}/v1/${path}`, {
        method, dispatcher: this.#agent, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
        headers: {
          'x-vault-request': 'true',
          ...(token === undefined ? {} : { 'x-vault-token': token }), ...(namespace === undefined ? {} : { 'x-vault-namespace': namespace }), ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const parsed = parseObject(await readText(response.body));
      const errors = Array.isArray(parsed['errors']) ? parsed['errors'].filter((text) => typeof text === 'string') : [];
      return { verdict: verdictOf(response.statusCode, errors), body: parsed };
    } catch (cause) {
      throw new SecretUnavailable(`Vault cannot be reached (${reasonOf(cause)})`, true, { cause });
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

async function readText(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of body) {
    bytes += part.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/** What is no JSON object is an empty one: a proxy's page, or no body at all. */
function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** Short, and without anything that was sent. */
function reasonOf(error: unknown): string {
  const { name, code } = error as { name?: string; code?: string };
  return name === 'TimeoutError' || name === 'ConnectTimeoutError' ? 'no answer in time' : code ?? name ?? 'failed';
}
