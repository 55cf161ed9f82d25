import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EMULATED_IMAGE_MODELS } from '../../../src/sandbox/emulated-images.ts';
import { EMULATED_MODELS } from '../../../src/sandbox/emulated-models.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { expectError, rawRequest } from '../../support/wire.ts';

interface Model {
  id: string;
  object: string;
  created: number;
  owned_by: string;
  aliases: string[];
  context_length: number;
  prompt_text_token_price: number;
  cached_prompt_text_token_price: number;
  completion_text_token_price: number;
}

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness.close();
});

async function list(token?: string): Promise<Model[]> {
  const response = await harness.request('GET', '/v1/models', token === undefined ? {} : { token });
  expect(response.status).toBe(200);
  const body = (await response.json()) as { object: string; data: Model[] };
  expect(Object.keys(body).toSorted()).toEqual(['data', 'object']);
  expect(body.object).toBe('list');
  return body.data;
}

async function get(id: string, token?: string): Promise<Response> {
  return harness.request('GET', `/v1/models/${id}`, token === undefined ? {} : { token });
}

describe('GET /v1/models', () => {
  it('lists the gateway’s own names first, then every model of the provider', async () => {
    const ids = (await list()).map(({ id }) => id);
    expect(ids.slice(0, 3)).toEqual(['grok-beta', 'grok-pro', 'grok-enterprise']);
    expect(ids.slice(3).toSorted()).toEqual([...EMULATED_MODELS, ...EMULATED_IMAGE_MODELS].map(({ id }) => id).toSorted());
  });

  it('has the shape that OpenAI’s clients know, with xAI’s prices', async () => {
    const images = EMULATED_IMAGE_MODELS.map(({ id }) => id);
    for (const model of (await list()).filter(({ id }) => !images.includes(id))) {
      expect(model).toEqual({
        id: expect.stringMatching(/^grok-/), object: 'model', created: expect.any(Number), owned_by: expect.stringMatching(/^(xai|novix)$/), aliases: expect.any(Array), context_length: expect.any(Number),
        prompt_text_token_price: expect.any(Number), cached_prompt_text_token_price: expect.any(Number), completion_text_token_price: expect.any(Number),
        prompt_text_token_price_long_context: expect.any(Number), cached_prompt_text_token_price_long_context: expect.any(Number), completion_text_token_price_long_context: expect.any(Number),
        long_context_threshold: 200_000,
      });
      expect(Number.isInteger(model.prompt_text_token_price) && model.prompt_text_token_price > 0).toBe(true);
    }
  });

  it.each(EMULATED_MODELS.map((model) => [model.id, model] as const))('%s costs what the provider says', async (id, { prices, contextTokens, aliases }) => {
    expect((await list()).find((model) => model.id === id)).toMatchObject({
      prompt_text_token_price: prices.input, cached_prompt_text_token_price: prices.cachedInput, completion_text_token_price: prices.output, context_length: contextTokens, aliases: [...aliases], owned_by: 'xai',
    });
  });

  it.each(EMULATED_IMAGE_MODELS.map(({ id, priceTicks }) => [id, priceTicks] as const))('%s costs %i ticks an image', async (id, priceTicks) => {
    expect((await list()).find((model) => model.id === id)).toEqual({ id, object: 'model', created: 0, owned_by: 'xai', aliases: [], image_price: priceTicks });
  });

  it.each([['billing'], ['auditor'], ['platform-admin']])('is empty for who may call none of them: %s of acme', async (role) => {
    expect(await list(await harness.token({ roles: [role] }))).toEqual([]);
  });

  it('costs nothing, calls nobody upstream, and counts toward the rate limit', async () => {
    const response = await harness.request('GET', '/v1/models');
    expect(response.headers.get('x-ratelimit-limit-requests')).toBe('10000');
    expect(harness.emulator.calls).toHaveLength(0);
    const { rows } = await harness.db.query<{ count: string }>("SELECT count(*) FROM audit_events WHERE event->'unmapped'->'novix'->>'phase' = 'intent'");
    expect(rows[0]!.count).toBe('0');
  });
});

describe('GET /v1/models/{id}', () => {
  it.each(['grok-beta', 'grok-pro', 'grok-enterprise', 'grok-4.7', 'grok-4.20-0309-non-reasoning'])('%s is what the list says of it', async (id) => {
    const response = await get(id);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual((await list()).find((model) => model.id === id));
  });

  it.each([['grok-latest', 'grok-4.3'], ['grok-code-fast-1', 'grok-build-0.1']])('the provider’s alias %s is answered with its model', async (alias, id) => {
    expect(((await (await get(alias)).json()) as Model).id).toBe(id);
  });

  it.each(['grok-99', 'GROK-BETA', '__proto__', 'constructor', 'grok-beta%20', 'grok-beta%2F', '%2e%2e', 'grok-beta%00'])('%s is not there', async (id) => {
    const answer = await rawRequest(harness.url, `/v1/models/${id}`, { headers: { authorization: `Bearer ${await harness.token()}` } });
    expect(answer.status).toBe(404);
    expect(JSON.parse(answer.body)).toMatchObject({ error: { code: expect.stringMatching(/^(model_not_found|not_found)$/), type: 'invalid_request_error' } });
  });

  it('an id longer than any model’s is not looked up', async () => {
    const error = await expectError(await get('x'.repeat(5_000)), 404, 'not_found');
    expect(error.message).not.toContain('xxx');
  });

  it('what one may not call looks like what is not there', async () => {
    const token = await harness.token({ roles: ['billing'] });
    const [hidden, missing] = [await expectError(await get('grok-beta', token), 404, 'model_not_found'), await expectError(await get('grok-99', token), 404, 'model_not_found')];
    expect(hidden).toEqual(missing);
  });

  it.each(['/v1/models', '/v1/models/grok-beta'])('%s needs a token', async (path) => {
    const response = await harness.request('GET', path, { token: null });
    expect(response.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"');
    await expectError(response, 401, 'invalid_token');
  });
});
