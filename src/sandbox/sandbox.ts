import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import type { Env, SandboxParts } from '../env.ts';
import type { GatewaySettings } from '../gateway-parts.ts';
import { startEmbeddedPostgres } from './embedded-postgres.ts';
import { issuerKeyFile, LocalIssuer } from './local-issuer.ts';
import { startXaiEmulator } from './xai-emulator.ts';

/** About as fast as a small model answers. */
const PACE = { firstTokenMs: 200, tokenIntervalMs: 20, reasoningTokenMs: 2 };

/** The parts that are imitated, started, and the settings that lead to them. */
export interface Sandbox {
  settings: GatewaySettings;
  issuer: LocalIssuer | undefined;
  /** For people: what is imitated, and where it is. */
  facts: { part: string; address: string }[];
  close(): Promise<void>;
}

export function postgresDir(env: Env): string {
  return resolve(env.dataDir, 'postgres');
}

/** Starts the parts that no setting names. The database comes first and stops last. */
export async function startSandbox(env: Env, parts: SandboxParts): Promise<Sandbox> {
  const closers: (() => Promise<void>)[] = [];
  const facts: Sandbox['facts'] = [];
  let { databaseUrl, identity, provider } = env;
  let issuer: LocalIssuer | undefined;
  if (parts.database) {
    const postgres = await startEmbeddedPostgres({ dataDir: postgresDir(env), durable: true });
    closers.push(() => postgres.stop());
    databaseUrl = postgres.url;
    facts.push({ part: postgres.adopted ? 'PostgreSQL, left running by an earlier start' : 'PostgreSQL', address: postgres.url });
  }
  if (parts.provider) {
    const apiKey = `xai-sandbox-${randomBytes(12).toString('hex')}`;
    const emulator = await startXaiEmulator({ apiKeys: [apiKey], pace: PACE });
    closers.push(() => emulator.close());
    provider = { ...provider, endpoint: emulator.url, apiKey };
    facts.push({ part: 'xAI API (answers are filler text)', address: emulator.url });
  }
  if (parts.identity) {
    issuer = await LocalIssuer.open(issuerKeyFile(env.dataDir));
    const served = await issuer.serve();
    closers.push(served.close);
    identity = served.settings;
    facts.push({ part: 'identity provider', address: served.url });
  }
  return {
    settings: { ...env, databaseUrl: databaseUrl!, identity, provider: { ...provider, apiKey: provider.apiKey! } },
    issuer, facts,
    close: async () => {
      for (const close of closers.toReversed()) await close();
    },
  };
}
