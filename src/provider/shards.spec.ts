import { afterEach, describe, expect, it } from '@jest/globals';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import type { Deployment } from '../catalogue/catalogue.ts';
import { parseEnv } from '../env.ts';
import { LocalSeal } from '../secrets/local-seal.ts';
import { OpenedSecrets } from '../secrets/opened-secrets.ts';
import { createLogger } from '../shared/logger.ts';
import { secretsOf } from './deployment-secrets.ts';
import { ProviderMetrics } from './provider-metrics.ts';
import type { AttemptResult } from './shard.ts';
import { Shards, type Option, type ShardWish } from './shards.ts';

const dir = mkdtempSync(join(tmpdir(), 'novix-test-'));
const seal = LocalSeal.open(join(dir, 'secret.key'), true);
const clock = { monotonic: 1_000, nowMs: () => 0, monotonicMs: () => clock.monotonic };
const env = parseEnv({ XAI_API_KEY: 'k', DATABASE_URL: 'postgresql://x', AUTH_ISSUER: 'https://i', AUTH_AUDIENCE: 'a', AUTH_JWKS_URI: 'https://i/jwks' });
const deployment = (id: string, change: Partial<Deployment> = {}): Deployment => ({
  id, baseUrl: 'http://127.0.0.1:9/v1', models: ['*'], upstreamModel: undefined, region: 'eu', accelerator: 'shared', zdr: undefined, weight: 1, maxConcurrency: 10, pricePercent: 100n,
  sealedApiKey: undefined, tls: { cert: undefined, key: undefined, ca: undefined }, anyAddress: true, ...change,
});
const WISH: ShardWish = { conversation: undefined, inputTokens: 100, avoid: new Set(), nowOrNever: false };
let shards: Shards;
const opened = new OpenedSecrets({ open: async (name, sealed) => seal.open(name, sealed) }, [], Math.random, createLogger('silent'));
let secrets: Pick<OpenedSecrets, 'read' | 'current'> = opened;
function open(...deployments: Deployment[]): Option[] {
  const settings = { ...env, provider: { ...env.provider, apiKey: 'k' } };
  shards = new Shards(settings, secrets, new ProviderMetrics(new Registry()), clock, Math.random, createLogger('silent'), deployments, () => {});
  return deployments.map((one) => ({ deployment: one, rank: 0 }));
}
const take = (options: readonly Option[], wish: Partial<ShardWish> = {}): string => shards.lease(options, { ...WISH, ...wish }).candidate.deployment.id;
/** Ends so many attempts at one deployment in this way. */
function end(option: Option, times: number, result: AttemptResult, retryAfterSeconds?: number): void {
  for (let n = 0; n < times; n++) shards.lease([option], { ...WISH, nowOrNever: true }).lease.end(result, retryAfterSeconds);
}
afterEach(() => shards.close());
process.once('exit', () => rmSync(dir, { recursive: true, force: true }));

describe('Shards.lease', () => {
  it('keeps a conversation on one deployment, and spreads many over all', () => {
    const options = open(deployment('a'), deployment('b'), deployment('c'));
    const place = (conversation: string): string => {
      const { candidate, lease } = shards.lease(options, { ...WISH, conversation });
      lease.end('success');
      return candidate.deployment.id;
    };
    const ids = Array.from({ length: 30 }, (_, n) => place(`c${n}`));
    expect(new Set(ids)).toEqual(new Set(['a', 'b', 'c']));
    ids.forEach((id, n) => expect(place(`c${n}`)).toBe(id));
  });

  it('takes the less loaded where no conversation asks for more', () => {
    const options = open(deployment('a'), deployment('b'));
    const ids = Array.from({ length: 10 }, () => take(options));
    expect(ids.filter((id) => id === 'a')).toHaveLength(5);
  });

  it('skips a deployment whose breaker is open, whose places are taken, that is cooling, or that has no weight', () => {
    const options = open(deployment('broken'), deployment('full', { maxConcurrency: 1 }), deployment('cooling'), deployment('off', { weight: 0 }), deployment('good', { maxConcurrency: 100 }));
    end(options[0]!, 5, 'failure');
    take([options[1]!]);
    end(options[2]!, 1, 'rate_limited', 30);
    expect(new Set(Array.from({ length: 20 }, (_, n) => take(options, { conversation: `c${n}` })))).toEqual(new Set(['good']));
    clock.monotonic += 30_000;
    expect(take([options[2]!])).toBe('cooling');
  });

  it('says why nothing can take the call: breaker, places, or the provider’s rate limit', () => {
    const [broken, full, cooling] = open(deployment('broken'), deployment('full', { maxConcurrency: 1 }), deployment('cooling'));
    end(broken!, 5, 'failure');
    expect(() => take([broken!])).toThrow(expect.objectContaining({ code: 'breaker_open', status: 503 }));
    take([full!]);
    expect(() => take([full!])).toThrow(expect.objectContaining({ code: 'overloaded', status: 503 }));
    end(cooling!, 1, 'rate_limited', 30);
    expect(() => take([cooling!])).toThrow(expect.objectContaining({ code: 'rate_limit_exceeded', status: 429, retryAfterSeconds: 30 }));
  });

  it('goes elsewhere with a further attempt, and to what may stand in only when there is nothing else', () => {
    const [a, b] = open(deployment('a'), deployment('b')) as [Option, Option];
    for (let n = 0; n < 10; n++) expect(take([a, b], { avoid: new Set(['a']) })).toBe('b');
    expect(take([a], { avoid: new Set(['a']) })).toBe('a');
    const standIn = { ...b, rank: 1 };
    expect(take([standIn, a])).toBe('a');
  });

  it('uses a stand-in when the breaker of the first choice is open', () => {
    const [a, b] = open(deployment('a'), deployment('b')) as [Option, Option];
    end(a, 5, 'failure');
    expect(take([a, { ...b, rank: 1 }])).toBe('b');
  });

  it('opens a sealed key only under the name of its deployment', async () => {
    const sealed = seal.seal('deployment/a/api_key', 'xai-secret');
    const [own, others, damaged] = [deployment('a', { sealedApiKey: sealed }), deployment('b', { sealedApiKey: sealed }), deployment('a', { sealedApiKey: `${sealed.slice(0, -2)}AA` })];
    await opened.need([own, others, damaged].flatMap(secretsOf));
    expect(() => open(own)).not.toThrow();
    expect(() => open(others)).toThrow(/deployment\/b\/api_key: cannot be opened/);
    expect(() => open(damaged)).toThrow(/cannot be opened/);
  });

  it('sends nothing to a deployment whose key is not open yet, serves by the others, and takes it in once it opens', async () => {
    const waiting = deployment('locked', { sealedApiKey: 'enc:v1:vault:dmF1bHQ' });
    const keys = new Map<string, string>();
    secrets = { read: (name) => keys.get(name), current: (name) => keys.get(name) };
    const [locked, good] = open(waiting, deployment('good')) as [Option, Option];
    secrets = opened;
    expect(() => take([locked])).toThrow(expect.objectContaining({ code: 'provider_unavailable', status: 503, retryAfterSeconds: 5 }));
    for (let n = 0; n < 10; n++) expect(take([locked, good])).toBe('good');
    keys.set('deployment/locked/api_key', 'xai-secret');
    shards.use([waiting, good.deployment]);
    expect(take([locked])).toBe('locked');
  });
});
