import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { deny, makeKey, publish, removeAll } from '../../support/access.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { adminOf, madeBy, type AdminCall } from '../../support/deployments.ts';
import { HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, ticksOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// The cost engine: what it says before a call, what it does to one, and what it writes down.

const EASY = 'Say hello.';
/** Too hard for grok-beta by its wording alone. */
const HARD = 'If most of the values in a list are equal, can it be sorted faster than one in which none are?';
const HARDEST = 'Prove that if n is greater than 1 and not prime, then n has a prime divisor that is not more than its square root. When must equality hold, and would the statement be false if 1 were prime?';
/** Ticks per token. */
const BETA = { input: 12_500n, output: 25_000n };
const PRO = { input: 20_000n, output: 60_000n };
/** Of `config/models.yaml`. */
const PRIOR = { p50: 250, p90: 900 };
const BYTES_PER_TOKEN = 2.5;
const BETA_REASONING = 1_000n;
const OUTPUT_DEFAULT = 4_000;

interface Optimized {
  model: string;
  max_tokens: number;
  temperature: number;
  complexity: number;
  predicted: { input_tokens: number; output_tokens: { p50: number; p90: number }; cost_usd: { p50: string; p90: string } };
  budget_usd: string | null;
  reasons: string[];
}

let harness: Harness;
let admin: AdminCall;
beforeAll(async () => {
  harness = await startHarness();
  admin = adminOf(harness, await harness.adminToken());
});
afterAll(async () => {
  await expectBooksClosed(harness.db);
  await harness.close();
});
beforeEach(() => harness.emulator.reset());

type Options = { token?: string | null; headers?: Record<string, string> };

function ask(body: unknown, { token, headers = {} }: Options = {}): Promise<Response> {
  return harness.request('POST', '/v1/cost/optimize', { body, headers, ...(token !== undefined && { token }) });
}

async function optimized(body: unknown, options: Options = {}): Promise<Optimized> {
  return madeBy<Optimized>(await ask(body, options));
}

function inputTokens(body: object): number {
  return Math.ceil(Buffer.byteLength(JSON.stringify(body)) / BYTES_PER_TOKEN);
}

const asked = (content: string): object => ({ messages: [{ role: 'user', content }] });

function costTicks(tokens: number, output: number, rates: { input: bigint; output: bigint }): bigint {
  return BigInt(tokens) * rates.input + BigInt(output) * rates.output;
}

async function moneyMoved(): Promise<string> {
  const { rows: [row] } = await harness.db.query<{ sums: string }>(
    'SELECT concat((SELECT count(*) FROM settlements), $1::text, (SELECT count(*) FROM holds), $1, (SELECT sum(spent_ticks + held_ticks) FROM budgets)) AS sums', ['/']);
  return row!.sums;
}

async function tenantSettings(settings: Record<string, unknown>, tenant = 'acme'): Promise<void> {
  await madeBy(await admin('PATCH', `/tenants/${tenant}`, settings));
}

/** What the provider was asked for last. */
function upstreamBody(): { model: string; temperature?: number; max_completion_tokens: number } {
  return harness.emulator.calls.at(-1)!.body as ReturnType<typeof upstreamBody>;
}

const DEFAULTS = { cost_mode: 'off', target_quality: 0.5, max_request_cost_usd: null, holds: 'bounded' };

describe('POST /v1/cost/optimize', () => {
  it('answers in the shape of the contract, by its own arithmetic', async () => {
    const answer = await optimized({ prompt: EASY });
    const tokens = inputTokens(asked(EASY));
    expect(answer).toEqual({
      model: 'grok-beta', max_tokens: OUTPUT_DEFAULT, temperature: 0.8, complexity: expect.any(Number),
      predicted: { input_tokens: tokens, output_tokens: PRIOR, cost_usd: { p50: expect.any(String), p90: expect.any(String) } },
      budget_usd: null, reasons: expect.any(Array),
    });
    expect(answer.complexity).toBeGreaterThan(0);
    expect(answer.complexity).toBeLessThan(0.5);
    expect(ticksOf(answer.predicted.cost_usd.p50)).toBe(costTicks(tokens, PRIOR.p50, BETA));
    expect(ticksOf(answer.predicted.cost_usd.p90)).toBe(costTicks(tokens, PRIOR.p90, BETA));
    expect(answer.reasons.length).toBeGreaterThan(0);
    expect(answer.reasons.join(' ')).toContain('grok-beta');
  });

  it('takes a stronger model for a hard prompt, at that model’s price', async () => {
    const answer = await optimized({ prompt: HARD });
    expect(answer.model).toBe('grok-pro');
    expect(answer.complexity).toBeGreaterThan(0.5);
    expect(answer.temperature).toBe(0.8);
    expect(ticksOf(answer.predicted.cost_usd.p50)).toBe(costTicks(inputTokens(asked(HARD)), PRIOR.p50, PRO));
  });

  it('says the same of a prompt and of a conversation that consists of it', async () => {
    expect(await optimized(asked(HARD))).toEqual(await optimized({ prompt: HARD }));
  });

  it('judges a conversation by its last question, and prices all of it', async () => {
    const context = { messages: [{ role: 'system', content: HARD.repeat(20) }, { role: 'user', content: HARD }, { role: 'assistant', content: HARD }, { role: 'user', content: EASY }] };
    const answer = await optimized(context);
    expect(answer.complexity).toBe((await optimized({ prompt: EASY })).complexity);
    expect(answer.predicted.input_tokens).toBe(inputTokens(context));
  });

  it.each<[unknown, string]>([['0.05', '0.05'], [0.05, '0.05'], ['1', '1.00'], [1, '1.00'], [10, '10.00'], [0.1 + 0.2, '0.30'], ['900000000', '900000000.00'], [100, '100.00']])('takes the budget %p for %s USD', async (given, shown) => {
    expect((await optimized({ prompt: EASY, budget_usd: given })).budget_usd).toBe(shown);
  });

  it('takes a budget of null for none', async () => {
    expect(await optimized({ prompt: EASY, budget_usd: null, messages: null })).toEqual(await optimized({ prompt: EASY }));
  });

  it('shortens the answer until what would be held fits the budget, to the token', async () => {
    const fixedTicks = BigInt(inputTokens(asked(EASY))) * BETA.input + BETA_REASONING * BETA.output;
    const { max_tokens: maxTokens, model } = await optimized({ prompt: EASY, budget_usd: '0.01' });
    expect([model, maxTokens]).toEqual(['grok-beta', Number((100_000_000n - fixedTicks) / BETA.output)]);
    const call = await harness.complete({ model: 'auto', ...asked(EASY) }, { 'x-novix-max-cost-usd': '0.01' });
    expect((await settled(harness, call.headers.get('x-request-id'))).heldTicks).toBeLessThanOrEqual(100_000_000n);
  });

  it('leaves out what is too dear, and says so', async () => {
    // grok-pro holds for 8,000 reasoning tokens at the least.
    const answer = await optimized({ prompt: HARD, budget_usd: '0.02' });
    expect(answer.model).toBe('grok-beta');
    expect(answer.reasons.join(' ')).toMatch(/too dear.*grok-pro/i);
    expect((await optimized({ prompt: HARD, budget_usd: '0.50' })).model).toBe('grok-pro');
  });

  it.each<[unknown]>([['0'], [0], ['0.0001'], [0.0001], [1e-7], ['0.0000000001']])('is refused with 402 where no model is worth %p USD', async (budget) => {
    const response = await ask({ prompt: EASY, budget_usd: budget });
    await expectError(response, 402, 'request_cost_exceeded');
    expect(response.headers.get('x-should-retry')).toBe('false');
  });

  it.each<[string, unknown]>([
    ['nothing', {}], ['nulls', { prompt: null, messages: null }], ['both', { prompt: EASY, ...asked(EASY) }], ['an empty prompt', { prompt: '' }], ['a prompt that is none', { prompt: 5 }], ['no messages', { messages: [] }],
    ['messages that are none', { messages: 'Hi' }], ['a message without a role', { messages: [{ content: 'Hi' }] }], ['an unknown field', { prompt: EASY, model: 'grok-pro' }], ['a list', [EASY]], ['no JSON', '{"prompt":'], ['null', 'null'],
    ...(['-1', '1e3', '', 'abc', '0.12345678901', ' 1', '1,5', '9'.repeat(30), 'NaN', 'Infinity', -1, -0.01, true, 1e21, 1e308, 99_999_999_999, [], {}] as unknown[]).map((budget): [string, unknown] => [`a budget of ${JSON.stringify(budget)}`, { prompt: EASY, budget_usd: budget }]),
  ])('refuses %s with 400', async (_, body) => {
    expect((await expectError(await ask(body), 400, 'invalid_request')).type).toBe('invalid_request_error');
  });

  it('asks nothing of the provider, and moves no money', async () => {
    const before = await moneyMoved();
    await optimized({ prompt: EASY, budget_usd: '1' });
    await ask({ prompt: EASY, budget_usd: '0' });
    await ask({});
    expect(harness.emulator.calls).toEqual([]);
    expect(await moneyMoved()).toBe(before);
  });

  it('wants a token', async () => {
    expect((await ask({ prompt: EASY }, { token: null })).status).toBe(401);
  });

  describe('chooses only what the caller may use:', () => {
    afterEach(() => removeAll(admin, '/policies'));

    it('by the policy', async () => {
      await publish(admin, [deny('no-beta', { models: ['grok-beta'] })]);
      expect((await optimized({ prompt: EASY })).model).toBe('grok-pro');
      await publish(admin, [deny('no-pro', { models: ['grok-pro'] })]);
      expect((await optimized({ prompt: EASY })).model).toBe('grok-enterprise');
      expect((await optimized({ prompt: EASY }, { token: await harness.token({ tenant: 'globex' }) })).model).toBe('grok-beta');
    });

    it('by the class of the data', async () => {
      expect((await optimized({ prompt: EASY }, { headers: { 'x-novix-data-class': 'restricted' } })).model).toBe('grok-pro');
    });

    it('by the models of an API key', async () => {
      const { key } = await makeKey(admin, { models: ['grok-enterprise'], roles: ['developer'] });
      expect((await optimized({ prompt: EASY }, { token: key })).model).toBe('grok-enterprise');
    });

    it('by the tenant’s own ceiling for a call', async () => {
      await tenantSettings({ max_request_cost_usd: '0.02' });
      expect((await optimized({ prompt: HARD })).model).toBe('grok-beta');
      await expectError(await harness.complete({ model: 'grok-pro' }), 402, 'request_cost_exceeded');
      await tenantSettings(DEFAULTS);
      expect((await optimized({ prompt: HARD })).model).toBe('grok-pro');
    });
  });
});

describe('a call', () => {
  afterEach(() => tenantSettings(DEFAULTS));

  async function served(content: string, { body = {}, headers = {} }: { body?: Record<string, unknown>; headers?: Record<string, string> } = {}): Promise<Response> {
    const response = await harness.complete({ ...asked(content), max_tokens: 50, ...body }, headers);
    const text = await response.text();
    expect([response.status, response.status === 200 ? '' : text]).toEqual([200, '']);
    return response;
  }

  it.each<[string, string]>([[EASY, 'grok-4.3'], [HARD, 'grok-4.7']])('to the model auto about %p is served by %s', async (content, model) => {
    const response = await served(content, { body: { model: 'auto' } });
    expect(response.headers.get('x-novix-model')).toBe(model);
    expect(upstreamBody()).toMatchObject({ model, temperature: 0.8 });
    expect(response.headers.get('x-novix-advised-model')).toBeNull();
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix).toMatchObject({ model: { requested: 'auto', upstream: model } });
  });

  it('to the model auto is streamed, and answered on /v1/responses, like any other', async () => {
    const stream = await harness.complete({ ...asked(EASY), model: 'auto', stream: true, max_tokens: 20 });
    expect(await stream.text()).toContain('[DONE]');
    expect(stream.headers.get('x-novix-model')).toBe('grok-4.3');
    const response = await harness.request('POST', '/v1/responses', { body: { model: 'auto', input: HARD, store: false } });
    expect([response.status, response.headers.get('x-novix-model')]).toEqual([200, 'grok-4.7']);
    await response.text();
  });

  it('to the model auto where there is nothing to choose is 404', async () => {
    await expectError(await harness.request('POST', '/v1/images/generations', { body: { model: 'auto', prompt: 'A fox.' } }), 404, 'model_not_found');
    expect(harness.emulator.calls).toEqual([]);
  });

  it('to the model auto is refused with 402, unsent, where its ceiling bears none', async () => {
    const before = await moneyMoved();
    await expectError(await harness.complete({ model: 'auto' }, { 'x-novix-max-cost-usd': '0.0001' }), 402, 'request_cost_exceeded');
    expect(harness.emulator.calls).toEqual([]);
    expect(await moneyMoved()).toBe(before);
  });

  it.each([[0.2, 0.2], [0, 0], [2, 2], [null, 0.8]])('keeps the caller’s temperature %p', async (temperature, sent) => {
    await served(EASY, { body: { model: 'auto', temperature } });
    expect(upstreamBody().temperature).toBe(sent);
  });

  it('of great complexity gets the low temperature', async () => {
    const { complexity, model, temperature } = await optimized({ prompt: HARDEST });
    expect(complexity).toBeGreaterThan(0.9); // beyond grok-pro's reach, but not beyond a target of a half of grok-enterprise
    expect([model, temperature]).toEqual(['grok-enterprise', 0.4]);
    await served(HARDEST, { body: { model: 'auto' } });
    expect(upstreamBody()).toMatchObject({ model: 'grok-4.7', temperature: 0.4 });
  });

  it.each<[string, Record<string, unknown>, Record<string, string>]>([
    ['nobody says anything', {}, {}], ['the tenant says off', { cost_mode: 'off' }, {}], ['the caller says off, whatever the tenant says', { cost_mode: 'optimize' }, { 'x-novix-cost-mode': 'off' }],
  ])('is left as it is where %s', async (_, settings, headers) => {
    if (Object.keys(settings).length > 0) await tenantSettings(settings);
    const response = await served(EASY, { body: { model: 'grok-pro' }, headers });
    expect(response.headers.get('x-novix-model')).toBe('grok-4.7');
    expect(response.headers.get('x-novix-advised-model')).toBeNull();
    expect(response.headers.get('x-novix-advised-saving-usd')).toBeNull();
    expect(upstreamBody()).not.toHaveProperty('temperature');
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix).not.toHaveProperty('optimizer');
  });

  it.each<[string, Record<string, unknown>, Record<string, string>]>([
    ['the tenant', { cost_mode: 'advise' }, {}], ['the caller', {}, { 'x-novix-cost-mode': 'advise' }], ['the caller, against the tenant,', { cost_mode: 'optimize' }, { 'x-novix-cost-mode': 'advise' }],
  ])('is advised where %s wants it: headers say what would have been chosen, and saved', async (_, settings, headers) => {
    if (Object.keys(settings).length > 0) await tenantSettings(settings);
    const body = { messages: HELLO, model: 'grok-pro', max_tokens: 50 };
    const response = await harness.request('POST', '/v1/chat/completions', { body, headers });
    await response.text();
    const [tokens, output] = [inputTokens(body), 50]; // the caller's limit is less than what is likely
    expect(response.headers.get('x-novix-model')).toBe('grok-4.7');
    expect(response.headers.get('x-novix-advised-model')).toBe('grok-beta');
    expect(ticksOf(response.headers.get('x-novix-advised-saving-usd'))).toBe(costTicks(tokens, output, PRO) - costTicks(tokens, output, BETA));
    expect(upstreamBody()).not.toHaveProperty('temperature');
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix).toMatchObject({ model: { upstream: 'grok-4.7' }, optimizer: { chosen: 'grok-beta' } });
  });

  it('that takes the right model already is advised to keep it, and saves nothing', async () => {
    const response = await served(EASY, { headers: { 'x-novix-cost-mode': 'advise' } });
    expect([response.headers.get('x-novix-advised-model'), response.headers.get('x-novix-advised-saving-usd')]).toEqual(['grok-beta', '0.00']);
  });

  it('that no advice can be given on is served all the same', async () => {
    // What it may cost does for the model that it names, and for none that the optimizer may choose.
    const dear = await harness.complete({ model: 'grok-4.20-0309-non-reasoning', max_tokens: 20 }, { 'x-novix-cost-mode': 'advise', 'x-novix-max-cost-usd': '0.001' });
    expect([dear.status, dear.headers.get('x-novix-advised-model')]).toEqual([200, null]);
    await publish(admin, [deny('no-choice', { models: ['grok-beta', 'grok-pro', 'grok-enterprise'] })]);
    const denied = await harness.complete({ model: 'grok-4.20-0309-non-reasoning' }, { 'x-novix-cost-mode': 'advise' });
    expect([denied.status, denied.headers.get('x-novix-advised-model')]).toEqual([200, null]);
    for (const response of [await ask({ prompt: EASY }), await harness.complete({ model: 'auto' })]) {
      expect(await expectError(response, 403, 'policy_denied')).toHaveProperty('decision_id');
    }
    await removeAll(admin, '/policies');
  });

  it('that is streamed is advised before its first byte', async () => {
    const response = await harness.complete({ model: 'grok-pro', stream: true, max_tokens: 20 }, { 'x-novix-cost-mode': 'advise' });
    expect(response.headers.get('x-novix-advised-model')).toBe('grok-beta');
    expect(await response.text()).toContain('[DONE]');
  });

  it.each<[string, Record<string, unknown>, Record<string, string>]>([
    ['the tenant', { cost_mode: 'optimize' }, {}], ['the caller', {}, { 'x-novix-cost-mode': 'optimize' }], ['the caller, against the tenant,', { cost_mode: 'off' }, { 'x-novix-cost-mode': 'optimize' }],
  ])('is moved to the cheapest good model where %s wants it', async (_, settings, headers) => {
    if (Object.keys(settings).length > 0) await tenantSettings(settings);
    const response = await served(EASY, { body: { model: 'grok-pro' }, headers });
    expect(response.headers.get('x-novix-model')).toBe('grok-4.3');
    expect(upstreamBody()).toMatchObject({ model: 'grok-4.3', temperature: 0.8 });
    const hard = await served(HARD, { body: { model: 'grok-beta' }, headers });
    expect(hard.headers.get('x-novix-model')).toBe('grok-4.7');
  });

  it('whose mode is none of the three is refused', async () => {
    const error = await expectError(await harness.complete({}, { 'x-novix-cost-mode': 'cheap' }), 400, 'invalid_request');
    expect(error.param).toBe('x-novix-cost-mode');
  });

  it('is optimized by the tenant’s own target', async () => {
    await tenantSettings({ target_quality: 1 });
    const best = await optimized({ prompt: EASY });
    expect(best.model).toBe('grok-enterprise');
    expect(best.reasons.join(' ')).toMatch(/none is expected to reach/i);
    await tenantSettings({ target_quality: 0 });
    expect((await optimized({ prompt: HARD })).model).toBe('grok-beta');
    expect((await served(HARD, { body: { model: 'auto' } })).headers.get('x-novix-model')).toBe('grok-4.3');
    expect((await optimized({ prompt: HARD }, { token: await harness.token({ tenant: 'globex' }) })).model).toBe('grok-pro'); // whose target is its own
  });

  it('is optimized by the share of calls that the tenant wants to be dear', async () => {
    await tenantSettings({ target_dearer_share: 0.01 });
    expect((await optimized({ prompt: HARD })).model).toBe('grok-beta');
    await tenantSettings({ target_dearer_share: 0.99 });
    expect((await optimized({ prompt: EASY })).model).not.toBe('grok-beta');
    const half = await madeBy<{ target_quality: number }>(await admin('PATCH', '/tenants/acme', { target_dearer_share: 0.5 }));
    expect(half.target_quality).toBeCloseTo(0.5, 10); // where the cheapest reaches to the median question
    const error = await expectError(await admin('PATCH', '/tenants/acme', { target_dearer_share: 0.5, target_quality: 0.5 }), 400, 'invalid_request');
    expect(error.param).toBe('target_dearer_share');
    for (const share of [-0.1, 1.1, '0.5', null]) await expectError(await admin('PATCH', '/tenants/acme', { target_dearer_share: share }), 400, 'invalid_request');
  });

  it('is cut to the lower of the tenant’s ceiling and the caller’s', async () => {
    await tenantSettings({ max_request_cost_usd: '0.01' });
    const capOf = async (headers: Record<string, string>): Promise<number> => {
      const response = await harness.complete({ max_tokens: 4_000 }, headers);
      await response.text();
      const { heldTicks } = await settled(harness, response.headers.get('x-request-id'));
      expect(heldTicks).toBeLessThanOrEqual(headers['x-novix-max-cost-usd'] === '0.005' ? 50_000_000n : 100_000_000n);
      return upstreamBody().max_completion_tokens;
    };
    const [own, lower, higher] = [await capOf({}), await capOf({ 'x-novix-max-cost-usd': '0.005' }), await capOf({ 'x-novix-max-cost-usd': '0.50' })];
    expect(lower).toBe(own - 2_000); // 0.005 USD of output
    expect(higher).toBe(own);
    expect(own).toBeLessThan(4_000);
  });

  it('of a strict tenant holds for all the reasoning that the model could do', async () => {
    const heldBy = async (): Promise<bigint> => {
      const response = await harness.complete({ max_tokens: 100 });
      await response.text();
      return (await settled(harness, response.headers.get('x-request-id'))).heldTicks;
    };
    const bounded = await heldBy();
    await tenantSettings({ holds: 'strict' });
    expect(await heldBy()).toBe(bounded + (1_000_000n - BETA_REASONING) * BETA.output);
  });

  it('records the choice and why in its intent', async () => {
    const answer = await optimized({ prompt: HARD });
    const body = { ...asked(HARD), model: 'auto' };
    const response = await harness.request('POST', '/v1/chat/completions', { body });
    await response.text();
    const { unmapped: { novix } } = await eventOf(harness, response.headers.get('x-request-id'), 'intent');
    const tokens = inputTokens(body);
    expect(novix).toMatchObject({
      model: { requested: 'auto', alias: 'grok-pro', upstream: 'grok-4.7' },
      optimizer: {
        chosen: 'grok-pro', complexity: Number(answer.complexity.toFixed(3)), kind: 'conversational', expected_quality: expect.any(Number), reasons: answer.reasons,
        predicted: { input_tokens: tokens, output_tokens: PRIOR, cost_ticks: { p50: String(costTicks(tokens, PRIOR.p50, PRO)), p90: String(costTicks(tokens, PRIOR.p90, PRO)) } },
      },
    });
    expect(JSON.stringify(novix)).not.toContain('sorted faster'); // the prompt itself stays out
  });
});

describe('predictions', () => {
  const CALLS = 50;
  const script = { output_tokens: 40, reasoning_tokens: 0 };

  it('follow what calls of the tenant, the model and the kind have used', async () => {
    const token = await harness.token({ tenant: 'initech' });
    const [globex, before] = [await harness.token({ tenant: 'globex' }), await optimized({ prompt: EASY }, { token })];
    const body = { model: 'grok-beta', messages: HELLO, x_emulator: script };
    const call = async (): Promise<void> => {
      const response = await harness.request('POST', '/v1/chat/completions', { token, body });
      await response.text();
      expect(response.status).toBe(200);
    };
    for (let made = 0; made < CALLS - 1; made += 1) await call();
    expect((await optimized({ prompt: EASY }, { token })).predicted.output_tokens).toEqual(PRIOR);
    await call();

    const after = await optimized({ prompt: EASY }, { token });
    expect(before.predicted.output_tokens).toEqual(PRIOR);
    for (const share of ['p50', 'p90'] as const) {
      expect(after.predicted.output_tokens[share]).toBeGreaterThanOrEqual(40);
      expect(after.predicted.output_tokens[share]).toBeLessThanOrEqual(44);
    }
    expect(ticksOf(after.predicted.cost_usd.p50)).toBe(costTicks(after.predicted.input_tokens, after.predicted.output_tokens.p50, BETA));
    // Another tenant, another model and another kind have histories of their own.
    expect((await optimized({ prompt: EASY }, { token: globex })).predicted.output_tokens).toEqual(PRIOR);
    expect((await optimized({ prompt: HARD }, { token })).predicted.output_tokens).toEqual(PRIOR);
    expect((await optimized({ prompt: 'SELECT a FROM b' }, { token })).predicted.output_tokens).toEqual(PRIOR);
  });
});
