import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'pg';
import { createDemoTenants } from '../../src/sandbox/demo-tenants.ts';
import { LocalIssuer, type TokenRequest } from '../../src/sandbox/local-issuer.ts';
import { startXaiEmulator, type EmulatorOptions, type XaiEmulator } from '../../src/sandbox/xai-emulator.ts';
import { parseEnv } from '../../src/env.ts';
import { startGateway, type Gateway } from '../../src/gateway.ts';
import type { GatewaySettings } from '../../src/gateway-parts.ts';
import { systemClock, type Clock } from '../../src/shared/clock.ts';
import { createLogger } from '../../src/shared/logger.ts';
import { createTestDatabase } from './test-database.ts';

export const PROVIDER_KEY = 'xai-test-key';
export const HELLO = [{ role: 'user', content: 'Say hello.' }];

export interface HarnessOptions {
  /** Environment variables beside those that the harness sets. */
  env?: Record<string, string>;
  emulator?: Partial<EmulatorOptions>;
  clock?: Clock;
}

/** The whole gateway in this process: real PostgreSQL, real HTTP, an emulated xAI, and an issuer of its own. Demo tenants acme, globex and initech. */
export interface Harness {
  gateway: Gateway;
  url: string;
  emulator: XaiEmulator;
  issuer: LocalIssuer;
  /** The gateway's database. */
  db: Pool;
  databaseUrl: string;
  settings: GatewaySettings;
  /** A developer's token of acme, unless said otherwise. */
  token(request?: Partial<TokenRequest>): Promise<string>;
  adminToken(): Promise<string>;
  /** JSON in, Response out; with a developer's token of acme unless `token` says otherwise (null: none). */
  request(method: string, path: string, options?: { body?: unknown; token?: string | null; headers?: Record<string, string>; signal?: AbortSignal }): Promise<Response>;
  complete(body?: Record<string, unknown>, headers?: Record<string, string>): Promise<Response>;
  close(): Promise<void>;
}

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const database = await createTestDatabase();
  const dataDir = await mkdtemp(join(tmpdir(), 'novix-test-'));
  const emulator = await startXaiEmulator({ apiKeys: [PROVIDER_KEY], ...options.emulator });
  const issuer = await LocalIssuer.open(join(dataDir, 'issuer.pem'));
  const served = await issuer.serve();
  const env = parseEnv({
    PORT: '0', DATABASE_URL: database.url, XAI_API_KEY: PROVIDER_KEY, XAI_API_ENDPOINT: emulator.url, NOVIX_DATA_DIR: dataDir, DRAIN_DELAY_MS: '0', SHUTDOWN_GRACE_MS: '2000',
    LOG_LEVEL: 'silent', AUTH_ISSUER: served.settings.issuer, AUTH_AUDIENCE: served.settings.audience, AUTH_JWKS_URI: served.url, AUTH_ALGORITHMS: 'ES256', ...options.env,
  });
  const settings: GatewaySettings = { ...env, databaseUrl: env.databaseUrl!, identity: env.identity!, provider: { ...env.provider, apiKey: env.provider.apiKey! } };
  const gateway = await startGateway(settings, createLogger('silent'), options.clock ?? systemClock);
  await createDemoTenants(gateway.parts);
  const db = new Pool({ connectionString: database.url, max: 2, allowExitOnIdle: true });
  db.on('error', () => {}); // tests that take PostgreSQL away know that they do
  const token = (request: Partial<TokenRequest> = {}): Promise<string> =>
    issuer.mint({ tenant: 'acme', subject: 'dev@acme.example', roles: ['developer'], ttlSeconds: 600, ...request });
  const developer = await token();
  const request: Harness['request'] = async (method, path, { body, token: bearer = developer, headers, signal } = {}) =>
    fetch(`${gateway.url}${path}`, {
      method, ...(signal && { signal }),
      headers: { ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }), ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
  return {
    gateway, url: gateway.url, emulator, issuer, db, databaseUrl: database.url, settings, token, request,
    adminToken: () => token({ tenant: 'platform', subject: 'root@platform.example', roles: ['platform-admin'] }),
    complete: (body = {}, headers = {}) => request('POST', '/v1/chat/completions', { body: { model: 'grok-beta', messages: HELLO, ...body }, headers }),
    close: async () => {
      await gateway.close();
      await emulator.close();
      await served.close();
      await db.end();
      await database.drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Waits for something that happens soon, asking every 20 ms. */
export async function eventually<T>(ask: () => Promise<T | undefined | false> | T | undefined | false, timeoutMs = 5_000): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > deadlineMs) throw new Error(`did not happen within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
