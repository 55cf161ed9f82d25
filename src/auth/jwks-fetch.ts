import { Agent, request } from 'undici';
import { createConnector } from '../egress/connector.ts';
import type { Env } from '../env.ts';
import type { FetchText } from './issuer-keys.ts';

const TIMEOUT_MS = 5_000;
const JWKS_BYTES_MAX = 1024 * 1024;

/** Fetches key sets from exactly where the settings say: no redirect is followed, and no answer is longer than a key set can be. */
export function jwksFetch({ proxyUrl, noProxy }: Env['egress']): FetchText {
  const agent = new Agent({ connect: createConnector({ connectTimeoutMs: TIMEOUT_MS, anyAddress: true, tls: { cert: undefined, key: undefined, ca: undefined }, proxy: { url: proxyUrl, noProxy } }) });
  return async (url) => {
    const { statusCode, body } = await request(url, { dispatcher: agent, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS, signal: AbortSignal.timeout(TIMEOUT_MS), headers: { accept: 'application/jwk-set+json, application/json' } });
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of body as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > JWKS_BYTES_MAX) throw new Error('the key set is too long');
      parts.push(part);
    }
    if (statusCode !== 200) throw new Error(`the key set was answered with ${statusCode}`);
    return Buffer.concat(parts).toString();
  };
}
