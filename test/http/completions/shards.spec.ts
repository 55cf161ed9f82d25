import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Gateway } from '../../../src/gateway.ts';
import { LocalSeal } from '../../../src/secrets/local-seal.ts';
import { startXaiEmulator, type XaiEmulator } from '../../../src/sandbox/xai-emulator.ts';
import { runningCalls } from '../../support/calls.ts';
import { adminOf, completeAt, deploy, madeBy, modelsFolder, movableClock, quantile, removeStored, servedBy, startReplica, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Several deployments of one model over real HTTP, judged by what each of them received and would bill.

const keyOf = (id: string): string => `xai-key-of-${id}`;
const originOf = ({ url }: XaiEmulator): string => new URL(url).origin;

/** They take so long that what the machine of the test adds tells none from another. */
const PACE = { firstTokenMs: 50, tokenIntervalMs: 0, reasoningTokenMs: 0 };

async function startEmulators<T extends string>(...ids: T[]): Promise<Record<T, XaiEmulator>> {
  const started = await Promise.all(ids.map(async (id) => [id, await startXaiEmulator({ apiKeys: [keyOf(id)], pace: PACE })] as const));
  return Object.fromEntries(started) as Record<T, XaiEmulator>;
}

/** By deployment, how many calls it has received. */
const received = (emulators: Record<string, XaiEmulator>): Record<string, number> => Object.fromEntries(Object.entries(emulators).map(([id, { calls }]) => [id, calls.length]));
const billed = (emulators: Record<string, XaiEmulator>): bigint => Object.values(emulators).reduce((sum, emulator) => sum + emulator.billedUsdTicks(), 0n);
const times = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));

const atOnce = <T>(count: number, make: (n: number) => Promise<T>): Promise<T[]> => Promise.all(times(count, make));

async function inTurn<T>(count: number, make: (n: number) => Promise<T>): Promise<T[]> {
  const made: T[] = [];
  for (let n = 0; n < count; n++) made.push(await make(n));
  return made;
}

describe('three deployments of one model', () => {
  let harness: Harness;
  let call: AdminCall;
  let shards: Record<'a' | 'b' | 'c', XaiEmulator>;
  const clock = movableClock();
  beforeAll(async () => {
    shards = await startEmulators('a', 'b', 'c');
    harness = await startHarness({ clock, env: { EGRESS_ALLOW: Object.values(shards).map(originOf).join(','), XAI_RETRY_BACKOFF_MS: '5', XAI_BREAKER_FAILURES: '3' } });
    call = adminOf(harness, await harness.adminToken());
  });
  beforeEach(async () => {
    await madeBy(await call('PATCH', '/deployments/xai', { weight: 0 }));
    // Each time anew, so that nothing is known of them: no breaker, no latency, no cooling.
    for (const [id, { url }] of Object.entries(shards)) await deploy(call, { id, base_url: url, api_key: keyOf(id) });
  });
  afterEach(async () => {
    await removeStored(call);
    for (const emulator of Object.values(shards)) {
      emulator.setFaults([]);
      emulator.setSwitches({ rateLimit: undefined });
      emulator.reset();
    }
    if (harness.emulator.calls.length > 0) throw new Error('the built-in deployment was called, which rests all the time');
  });
  afterAll(async () => {
    await harness.close();
    await Promise.all(Object.values(shards).map((shard) => shard.close()));
  });
  const remove = async (...ids: string[]): Promise<void> => {
    for (const id of ids) expect((await call('DELETE', `/deployments/${id}`)).status).toBe(204);
  };
  const converse = (id: string, body: Record<string, unknown> = {}): Promise<Response> => harness.complete(body, { 'x-grok-conv-id': id });
  /** A new conversation that is at home at the deployment. Each deployment has been called before, so that none is the better for being unknown. */
  const conversationAt = async (home: string): Promise<string> => {
    await atOnce(15, () => harness.complete());
    for (;;) {
      const id = randomUUID();
      if ((await servedBy(converse(id))) === home) return id;
    }
  };
  const conversationIds = (): (string | undefined)[] => Object.values(shards).flatMap(({ calls }) => calls.map(({ headers }) => headers['x-grok-conv-id']));

  describe('a conversation', () => {
    it('named by x-grok-conv-id keeps to one of them, and many are spread over all', async () => {
      const homes = await atOnce(30, (n) => servedBy(converse(`conversation-${n}`)));
      for (let turn = 1; turn < 4; turn++) expect(await atOnce(30, (n) => servedBy(converse(`conversation-${n}`)))).toEqual(homes);
      for (const count of Object.values(received(shards))) expect(count).toBeGreaterThanOrEqual(20);
    });

    it('named by prompt_cache_key keeps to one of them, in streams and plain answers', async () => {
      const homes = await atOnce(12, (n) => servedBy(harness.complete({ prompt_cache_key: `key-${n}`, stream: n % 2 === 0 })));
      expect(await atOnce(12, (n) => servedBy(harness.complete({ prompt_cache_key: `key-${n}`, stream: n % 2 === 1 })))).toEqual(homes);
      expect(new Set(homes).size).toBe(3);
    });

    it('that says nothing of itself is known by how it begins: it keeps to where its prefix is cached, and is billed so', async () => {
      const system = { role: 'system', content: 'You advise the customers of a bank. '.repeat(120) };
      const turns = (n: number, count: number): Record<string, unknown>[] => [system, ...times(count, (turn) => ({ role: turn % 2 === 0 ? 'user' : 'assistant', content: `Conversation ${n}, turn ${turn}.` }))];
      const homes = await atOnce(9, (n) => servedBy(harness.complete({ messages: turns(n, 1) })));
      expect(new Set(homes).size).toBe(3);
      for (const count of [3, 5]) {
        for (let n = 0; n < 9; n++) {
          const response = await harness.complete({ messages: turns(n, count) });
          expect(response.headers.get('x-novix-deployment')).toBe(homes[n]);
          const { usage } = (await response.json()) as { usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } } };
          expect(usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(0.5 * usage.prompt_tokens);
        }
      }
    });

    it('is named upstream by a hash that tells nothing, the same in each turn, and another for another tenant', async () => {
      const globex = await harness.token({ tenant: 'globex', subject: 'dev@globex.example' });
      for (const token of [await harness.token(), globex]) {
        for (let turn = 0; turn < 2; turn++) expect((await completeAt(harness.url, token, {}, { 'x-grok-conv-id': 'of-customer-4711' })).status).toBe(200);
      }
      const ids = conversationIds();
      expect(ids).toHaveLength(4);
      expect(new Set(ids).size).toBe(2);
      for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$/);
    });

    it('is not what a short question is: those are spread, and named nothing', async () => {
      await atOnce(60, () => servedBy(harness.complete()));
      for (const count of Object.values(received(shards))) expect(count).toBeGreaterThanOrEqual(10);
      expect(new Set(conversationIds())).toEqual(new Set([undefined]));
    });

    it('goes elsewhere while its deployment is down, and all of it to the same place', async () => {
      const id = await conversationAt('b');
      await madeBy(await call('POST', '/breakers/b:force-open'));
      const [first, ...others] = await inTurn(6, () => servedBy(converse(id)));
      expect(['a', 'c']).toContain(first);
      expect(new Set(others)).toEqual(new Set([first]));
      await madeBy(await call('POST', '/breakers/b:reset'));
    });

    it('is found at the same place by replicas that never talk to each other', async () => {
      const token = await harness.token();
      const replicas = await Promise.all([startReplica(harness), startReplica(harness, { spoolDir: `${harness.settings.spoolDir}-3` })]);
      const ids = times(12, () => randomUUID());
      const placed = await Promise.all(replicas.map(({ url }: Gateway) => inTurn(ids.length, (n) => servedBy(completeAt(url, token, {}, { 'x-grok-conv-id': ids[n]! })))));
      expect(placed[1]).toEqual(placed[0]);
      expect(new Set(placed[0]).size).toBe(3);
      await Promise.all(replicas.map((replica) => replica.close()));
    });
  });

  describe('a deployment whose rate limit is used up', () => {
    it('cools down for as long as it says, while the others serve, and nobody notices', async () => {
      const id = await conversationAt('a');
      shards.a.reset();
      shards.a.setFaults([{ calls: 1, status: 429, retry_after: 30 }]);
      const first = await converse(id);
      expect([first.status, first.headers.get('x-novix-attempts')]).toEqual([200, '2']);
      for (const by of await inTurn(20, () => servedBy(harness.complete()))) expect(['b', 'c']).toContain(by);
      expect(['b', 'c']).toContain(await servedBy(converse(id)));
      clock.advance(25_000);
      for (const by of await inTurn(10, () => servedBy(harness.complete()))) expect(['b', 'c']).toContain(by);
      expect(shards.a.calls).toHaveLength(1);
      clock.advance(6_000);
      await inTurn(30, () => servedBy(harness.complete()));
      expect(shards.a.calls.length).toBeGreaterThan(1);
    });

    it('is real: one of six a minute gets no more, and every call is served', async () => {
      shards.b.setSwitches({ rateLimit: { requestsPerMinute: 6, retryAfter: true } });
      const answers = await atOnce(45, () => harness.complete());
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      expect(shards.b.calls.filter(({ state }) => state === 'completed')).toHaveLength(6);
      const asked = shards.b.calls.length;
      for (const by of await atOnce(20, () => servedBy(harness.complete()))) expect(['a', 'c']).toContain(by);
      expect(shards.b.calls).toHaveLength(asked);
    });

    it('is the caller’s 429 where all are', async () => {
      for (const shard of Object.values(shards)) shard.setFaults([{ status: 429, retry_after: 20 }]);
      await expectError(await harness.complete(), 429, 'rate_limit_exceeded');
      for (const shard of Object.values(shards)) shard.reset();
      const response = await harness.complete();
      await expectError(response, 429, 'rate_limit_exceeded');
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThanOrEqual(15);
      expect(Number(response.headers.get('retry-after'))).toBeLessThanOrEqual(20);
      expect(received(shards)).toEqual({ a: 0, b: 0, c: 0 });
    });
  });

  describe('a deployment that fails', () => {
    it.each<[string, Record<string, unknown>, object]>([
      ['500', { status: 500 }, { status: 500 }], ['503', { status: 503 }, { status: 503 }], ['a break before the answer', { reset_before_headers: true }, {}],
    ])('with %s is not noticed: the retry goes to another one, which alone is billed for the answer', async (_, fault, attempt) => {
      const id = await conversationAt('a');
      for (const shard of Object.values(shards)) shard.reset();
      shards.a.setFaults([fault]);
      const response = await converse(id);
      const by = response.headers.get('x-novix-deployment')!;
      expect([response.status, response.headers.get('x-novix-attempts')]).toEqual([200, '2']);
      expect(['b', 'c']).toContain(by);
      expect(received(shards)).toEqual({ a: 1, b: 0, c: 0, [by]: 1 });
      const requestId = response.headers.get('x-request-id');
      expect((await eventOf(harness, requestId, 'outcome')).unmapped.novix).toMatchObject({ attempts: [{ deployment: 'a', ...attempt }, { deployment: by, status: 200 }] });
      const { chargedTicks, basis } = await settled(harness, requestId);
      expect({ basis, chargedTicks }).toEqual({ basis: 'provider', chargedTicks: shards[by as 'b' | 'c'].billedUsdTicks() });
      expect(chargedTicks).toBeGreaterThan(0n);
    });

    it('is skipped once its breaker is open; all calls are served, and billed once each', async () => {
      shards.c.setFaults([{ status: 503 }]);
      const answers = await inTurn(40, () => harness.complete());
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
      expect(shards.c.calls).toHaveLength(3);
      expect((await madeBy<{ deployment: string; state: string }[]>(await call('GET', '/breakers'))).find(({ deployment }) => deployment === 'c')).toMatchObject({ state: 'open' });
      const charges = await Promise.all(answers.map((answer) => settled(harness, answer.headers.get('x-request-id'))));
      expect(charges.reduce((sum, { chargedTicks }) => sum + chargedTicks, 0n)).toBe(billed(shards));
    });

    it('with all of them is a failure that is told, after attempts at each', async () => {
      for (const shard of Object.values(shards)) shard.setFaults([{ status: 500 }]);
      await expectError(await harness.complete(), 503, 'provider_unavailable');
      for (const count of Object.values(received(shards))) expect(count).toBeGreaterThanOrEqual(1);
      expect(Object.values(received(shards)).reduce((sum, count) => sum + count, 0)).toBe(4);
    });

    it('in mid-answer is not hidden by another one', async () => {
      const id = await conversationAt('a');
      for (const shard of Object.values(shards)) shard.reset();
      shards.a.setFaults([{ cut_after: 3, output_tokens: 9 }]);
      const text = await (await converse(id, { stream: true })).text();
      expect(text).toContain('"error"');
      expect(text).not.toContain('[DONE]');
      expect(received(shards)).toEqual({ a: 1, b: 0, c: 0 });
    });
  });

  describe('max_concurrency', () => {
    const SLOW = { x_emulator: { delay_ms: 500, output_tokens: 4 } };

    it('is how many calls one takes at once; those beyond it are refused at once, and it is free again afterwards', async () => {
      await remove('b', 'c');
      await madeBy(await call('PATCH', '/deployments/a', { max_concurrency: 3 }));
      const under = times(3, () => harness.complete(SLOW));
      await eventually(() => runningCalls(shards.a).length === 3);
      const startedMs = performance.now();
      const beyond = await Promise.all(times(5, () => harness.complete(SLOW)));
      expect(performance.now() - startedMs).toBeLessThan(300);
      for (const response of beyond) {
        await expectError(response, 503, 'overloaded');
        expect(response.headers.get('retry-after')).toBe('1');
      }
      expect((await Promise.all(under)).map(({ status }) => status)).toEqual([200, 200, 200]);
      expect(shards.a.calls).toHaveLength(3);
      expect(await servedBy(harness.complete())).toBe('a');
    });

    it('sends what one cannot take to the others, a conversation of its own too', async () => {
      await remove('c');
      const id = await conversationAt('a');
      for (const shard of Object.values(shards)) shard.reset();
      for (const shard of ['a', 'b']) await madeBy(await call('PATCH', `/deployments/${shard}`, { max_concurrency: 2 }));
      const answers = times(4, () => converse(id, SLOW));
      await eventually(() => runningCalls(shards.a).length === 2 && runningCalls(shards.b).length === 2);
      await expectError(await converse(id, SLOW), 503, 'overloaded');
      expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
      expect(received(shards)).toEqual({ a: 2, b: 2, c: 0 });
    });

    it('gives a place back however a call ends', async () => {
      await remove('b', 'c');
      await madeBy(await call('PATCH', '/deployments/a', { max_concurrency: 1 }));
      const ends: (() => Promise<unknown>)[] = [
        () => harness.complete({ x_emulator: { status: 400 } }),
        async () => (await harness.complete({ stream: true, x_emulator: { cut_after: 2, output_tokens: 9 } })).text(),
        () => harness.complete({}, { 'x-novix-max-cost-usd': '0' }),
        async () => {
          const left = new AbortController();
          const gone = harness.request('POST', '/v1/chat/completions', { body: { model: 'grok-beta', messages: HELLO, stream: true, x_emulator: { output_tokens: 500, token_interval_ms: 20 } }, signal: left.signal }).then((response) => response.text());
          await eventually(() => runningCalls(shards.a).length === 1);
          left.abort();
          await gone.catch(() => {});
          await eventually(() => runningCalls(shards.a).length === 0);
        },
      ];
      for (const end of ends) {
        await end();
        await eventually(async () => (await harness.complete()).status === 200);
      }
      expect(ends).toHaveLength(4);
    });
  });

  describe('weight', () => {
    it('is the share of the conversations', async () => {
      await madeBy(await call('PATCH', '/deployments/a', { weight: 6 }));
      const replica = await startReplica(harness); // one that remembers nothing of what was served before
      const token = await harness.token();
      const homes = await atOnce(120, (n) => servedBy(completeAt(replica.url, token, {}, { 'x-grok-conv-id': `weighted-${n}` })));
      await replica.close();
      const share = (id: string): number => homes.filter((home) => home === id).length / homes.length;
      expect(share('a')).toBeGreaterThan(0.65);
      expect(share('a')).toBeLessThan(0.85);
      expect(Math.min(share('b'), share('c'))).toBeGreaterThan(0.05);
    });
  });
});

describe('rules on deployments', () => {
  const POLICIES = `policies:
  - name: roles
    rules:
      - { id: developers-invoke, effect: allow, actions: [invoke], models: ["*"], when: [{ attr: principal.roles, op: in, value: [developer] }] }
      - { id: confidential-stays-in-eu, effect: deny, actions: [invoke], models: ["*"], when: [{ attr: request.data_class, op: in, value: [confidential] }, { attr: deployment.region, op: ne, value: eu }], reason: Confidential data stays in the EU. }
      - { id: restricted-is-not-kept, effect: deny, actions: [invoke], models: ["*"], when: [{ attr: request.data_class, op: in, value: [restricted] }, { attr: deployment.zdr, op: ne, value: true }] }
      - { id: streams-spare-dedicated, effect: deny, actions: [invoke], models: ["*"], when: [{ attr: request.stream, op: eq, value: true }, { attr: deployment.accelerator, op: eq, value: dedicated }] }
`;
  let harness: Harness;
  let call: AdminCall;
  let shards: Record<'eu' | 'us' | 'quiet' | 'own', XaiEmulator>;
  let folder: string;
  let globex: string;
  beforeAll(async () => {
    shards = await startEmulators('eu', 'us', 'quiet', 'own');
    folder = await modelsFolder('  - { id: xai, base_url: env, models: ["*"], region: global, accelerator: shared, weight: 0 }', { policies: POLICIES });
    harness = await startHarness({ env: { NOVIX_CONFIG_DIR: folder, EGRESS_ALLOW: Object.values(shards).map(originOf).join(','), XAI_RETRY_BACKOFF_MS: '5', XAI_BREAKER_FAILURES: '1000' } });
    call = adminOf(harness, await harness.adminToken());
    globex = await harness.token({ tenant: 'globex', subject: 'dev@globex.example' });
    const facts = { eu: { region: 'eu', zdr: false }, us: { region: 'us' }, quiet: { region: 'us', zdr: true }, own: { region: 'us', accelerator: 'dedicated' } };
    for (const [id, more] of Object.entries(facts)) await deploy(call, { id, base_url: shards[id as keyof typeof shards].url, api_key: keyOf(id), ...more });
  });
  afterEach(() => {
    for (const shard of Object.values(shards)) {
      shard.setFaults([]);
      shard.reset();
    }
  });
  afterAll(async () => {
    await harness.close();
    await Promise.all(Object.values(shards).map((shard) => shard.close()));
    await rm(folder, { recursive: true });
  });
  const classed = (dataClass: string, token = globex, stream = false): Promise<Response> => completeAt(harness.url, token, { stream }, { 'x-novix-data-class': dataClass });
  const places = async (dataClass: string, token?: string, stream?: boolean): Promise<string[]> => [...new Set(await atOnce(40, () => servedBy(classed(dataClass, token, stream))))].toSorted();

  it('let a call go only where they allow it: by region, by what is kept (where nobody has said, it is), by accelerator', async () => {
    expect(await places('internal')).toEqual(['eu', 'own', 'quiet', 'us']);
    expect(await places('confidential')).toEqual(['eu']);
    expect(await places('restricted')).toEqual(['quiet']);
    expect(await places('internal', globex, true)).toEqual(['eu', 'quiet', 'us']);
  });

  it('hold for further attempts too', async () => {
    shards.eu.setFaults([{ calls: 2, status: 503 }]);
    const response = await classed('confidential');
    expect([response.status, response.headers.get('x-novix-attempts'), response.headers.get('x-novix-deployment')]).toEqual([200, '3', 'eu']);
    expect(received(shards)).toEqual({ eu: 3, us: 0, quiet: 0, own: 0 });
    shards.eu.setFaults([{ status: 503 }]);
    await expectError(await classed('confidential'), 503, 'provider_unavailable');
    expect(received(shards)).toEqual({ eu: 7, us: 0, quiet: 0, own: 0 });
  });

  it('hold for the deployment as it is now: a call goes nowhere rather than where it may not', async () => {
    await madeBy(await call('PATCH', '/deployments/eu', { region: 'ch' }));
    const response = await classed('confidential');
    const error = await expectError(response, 403, 'policy_denied');
    expect(error.message).toContain('Confidential data stays in the EU.');
    await madeBy(await call('PATCH', '/deployments/us', { region: 'eu' }));
    expect(await places('confidential')).toEqual(['us']);
    await madeBy(await call('PATCH', '/deployments/us', { region: 'us' }));
    await madeBy(await call('PATCH', '/deployments/eu', { region: 'eu' }));
    expect(await places('confidential')).toEqual(['eu']);
  });

  it('of tiers: dedicated accelerators are not for tier standard, not even when there is nothing else', async () => {
    const acme = await harness.token();
    expect(await places('internal', acme)).toEqual(['eu', 'quiet', 'us']);
    for (const id of ['eu', 'us', 'quiet']) await madeBy(await call('POST', `/breakers/${id}:force-open`));
    await expectError(await classed('internal', acme), 503, 'breaker_open');
    expect(shards.own.calls).toHaveLength(0);
    expect(await places('internal')).toEqual(['own']);
    for (const id of ['eu', 'us', 'quiet']) await madeBy(await call('POST', `/breakers/${id}:reset`));
    const retried = await inTurn(10, async () => {
      shards.eu.setFaults([{ calls: 1, status: 500 }]);
      return servedBy(classed('internal', acme));
    });
    expect(retried).not.toContain('own');
  });
});

describe('another alias', () => {
  let harness: Harness;
  let call: AdminCall;
  let shards: Record<'pro' | 'beta', XaiEmulator>;
  let folder: string;
  let keys: string;
  beforeAll(async () => {
    shards = await startEmulators('pro', 'beta');
    keys = await mkdtemp(join(tmpdir(), 'novix-test-keys-'));
    const seal = LocalSeal.open(join(keys, 'key'), true);
    const deployment = (id: 'pro' | 'beta', models: string): string =>
      `  - { id: ${id}, base_url: "${shards[id].url}", models: [${models}], region: global, accelerator: shared, api_key: "${seal.seal(`deployment/${id}/api_key`, keyOf(id))}" }`;
    folder = await modelsFolder([deployment('pro', 'grok-pro, grok-enterprise'), deployment('beta', 'grok-beta')].join('\n'), {
      aliases: '  grok-beta: { model: grok-4.3 }\n  grok-pro: { model: grok-4.7, fallbacks: [grok-beta] }\n  grok-enterprise: { model: grok-4.7 }',
    });
    harness = await startHarness({ env: { NOVIX_CONFIG_DIR: folder, NOVIX_KEY_FILE: join(keys, 'key'), XAI_RETRY_BACKOFF_MS: '5', XAI_BREAKER_FAILURES: '4' } });
    call = adminOf(harness, await harness.adminToken());
  });
  afterEach(async () => {
    for (const id of ['pro', 'beta']) await madeBy(await call('POST', `/breakers/${id}:reset`));
    for (const shard of Object.values(shards)) {
      shard.setFaults([]);
      shard.reset();
    }
  });
  afterAll(async () => {
    await harness.close();
    await Promise.all(Object.values(shards).map((shard) => shard.close()));
    await Promise.all([folder, keys].map((one) => rm(one, { recursive: true })));
  });

  it('is not used as long as the one asked for can serve', async () => {
    expect(await inTurn(20, () => servedBy(harness.complete({ model: 'grok-pro' })))).toEqual(times(20, () => 'pro'));
    expect(shards.beta.calls).toHaveLength(0);
  });

  it('serves where the file says so and nothing else can, under its own name and at its own price', async () => {
    await madeBy(await call('POST', '/breakers/pro:force-open'));
    const response = await harness.complete({ model: 'grok-pro' });
    expect([response.status, response.headers.get('x-novix-deployment'), response.headers.get('x-novix-model')]).toEqual([200, 'beta', 'grok-4.3']);
    expect((shards.beta.calls[0]!.body as { model: string }).model).toBe('grok-4.3');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'completed', basis: 'provider', chargedTicks: shards.beta.billedUsdTicks() });
  });

  it('does not serve where the file does not say so, nor the other way round', async () => {
    await madeBy(await call('POST', '/breakers/pro:force-open'));
    await expectError(await harness.complete({ model: 'grok-enterprise' }), 503, 'breaker_open');
    expect(shards.beta.calls).toHaveLength(0);
    await madeBy(await call('POST', '/breakers/pro:reset'));
    await madeBy(await call('POST', '/breakers/beta:force-open'));
    await expectError(await harness.complete(), 503, 'breaker_open');
    expect(shards.pro.calls).toHaveLength(0);
  });

  it('does not serve what a rule keeps away from it', async () => {
    expect((await harness.complete({ model: 'grok-pro' }, { 'x-novix-data-class': 'restricted' })).status).toBe(200);
    await madeBy(await call('POST', '/breakers/pro:force-open'));
    await expectError(await harness.complete({ model: 'grok-pro' }, { 'x-novix-data-class': 'restricted' }), 503, 'breaker_open');
    expect(shards.beta.calls).toHaveLength(0);
    expect((await harness.complete({ model: 'grok-pro' }, { 'x-novix-data-class': 'confidential' })).status).toBe(200);
  });

  it('takes over when the failures of the one asked for have opened its breaker', async () => {
    shards.pro.setFaults([{ status: 503 }]);
    const answers = await inTurn(3, () => harness.complete({ model: 'grok-pro' }));
    expect(answers.at(-1)!.status).toBe(200);
    expect(answers.at(-1)!.headers.get('x-novix-deployment')).toBe('beta');
    expect(shards.pro.calls).toHaveLength(4);
    for (const answer of answers.filter(({ status }) => status === 200)) await settled(harness, answer.headers.get('x-request-id'));
    expect(shards.pro.billedUsdTicks()).toBe(0n);
  });
});

describe('one of four deployments, slowed tenfold', () => {
  const HEALTHY_MS = 40;
  const CALLS_PER_SECOND = 80;
  const MEASURED_MS = 3_000;
  const SETTLE_MS = 5_000;

  it('is hardly called any more after five seconds, and the median of all calls is as before', async () => {
    const shards = await startEmulators('a', 'b', 'c', 'd');
    const harness = await startHarness({ env: { EGRESS_ALLOW: Object.values(shards).map(originOf).join(','), XAI_BREAKER_FAILURES: '1000' } });
    const call = adminOf(harness, await harness.adminToken());
    await madeBy(await call('PATCH', '/deployments/xai', { weight: 0 }));
    for (const [id, { url }] of Object.entries(shards)) await deploy(call, { id, base_url: url, api_key: keyOf(id) });
    for (const shard of Object.values(shards)) shard.setFaults([{ first_token_ms: HEALTHY_MS, output_tokens: 4, reasoning_tokens: 0 }]);

    /** At a steady rate, whatever comes back; every other call belongs to one of forty conversations. */
    const run = async (ms: number): Promise<{ ms: number; by: string }[]> => {
      const calls: Promise<{ ms: number; by: string }>[] = [];
      const startedMs = performance.now();
      for (let n = 0; n < (ms * CALLS_PER_SECOND) / 1000; n++) {
        const dueMs = startedMs + (n * 1000) / CALLS_PER_SECOND;
        while (performance.now() < dueMs) await new Promise((resolve) => setTimeout(resolve, Math.max(1, dueMs - performance.now())));
        const sentMs = performance.now();
        calls.push(servedBy(harness.complete({}, n % 2 === 0 ? { 'x-grok-conv-id': `conversation-${n % 80}` } : {})).then((by) => ({ ms: performance.now() - sentMs, by })));
      }
      return Promise.all(calls);
    };
    await run(1_000);
    const before = await run(MEASURED_MS);
    shards.b.setFaults([{ first_token_ms: 10 * HEALTHY_MS, output_tokens: 4, reasoning_tokens: 0 }]);
    await run(SETTLE_MS);
    const after = await run(MEASURED_MS);

    const median = (calls: { ms: number }[]): number => quantile(calls.map(({ ms }) => ms), 0.5);
    const slowShare = (calls: { by: string }[]): number => calls.filter(({ by }) => by === 'b').length / calls.length;
    await harness.close();
    await Promise.all(Object.values(shards).map((shard) => shard.close()));
    expect(slowShare(before)).toBeGreaterThan(0.1);
    expect(slowShare(after)).toBeLessThan(0.05);
    expect(median(after)).toBeLessThanOrEqual(1.5 * median(before));
  }, 60_000);
});
