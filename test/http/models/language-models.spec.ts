import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { rm } from 'node:fs/promises';
import { EMULATED_IMAGE_MODELS } from '../../../src/sandbox/emulated-images.ts';
import { EMULATED_MODELS } from '../../../src/sandbox/emulated-models.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { configFolder } from '../../support/responses.ts';
import { expectError, rawRequest } from '../../support/wire.ts';

interface LanguageModel {
  id: string;
  aliases: string[];
  input_modalities: string[];
  output_modalities: string[];
  prompt_text_token_price: number;
  cached_prompt_text_token_price: number;
  completion_text_token_price: number;
}

let harness: Harness;
async function list(token?: string): Promise<LanguageModel[]> {
  const response = await harness.request('GET', '/v1/language-models', token === undefined ? {} : { token });
  expect(response.status).toBe(200);
  const body = (await response.json()) as { models: LanguageModel[] };
  expect(Object.keys(body)).toEqual(['models']);
  return body.models;
}

function get(id: string, token?: string): Promise<Response> {
  return harness.request('GET', `/v1/language-models/${id}`, token === undefined ? {} : { token });
}

describe('with the built-in policy', () => {
  beforeAll(async () => {
    harness = await startHarness();
  });
  afterAll(async () => {
    await harness.close();
  });

  it('lists the models that write, and none that make images', async () => {
    const ids = (await list()).map(({ id }) => id);
    expect(ids.slice(0, 3)).toEqual(['grok-beta', 'grok-pro', 'grok-enterprise']);
    expect(ids.slice(3).toSorted()).toEqual(EMULATED_MODELS.map(({ id }) => id).toSorted());
  });

  it.each(EMULATED_MODELS.map((model) => [model.id, model] as const))('%s costs what the provider says', async (id, { prices, contextTokens, aliases }) => {
    expect((await list()).find((model) => model.id === id)).toMatchObject({
      id, object: 'model', owned_by: 'xai', aliases, context_length: contextTokens, input_modalities: ['text', 'image'], output_modalities: ['text'],
      prompt_text_token_price: prices.input, cached_prompt_text_token_price: prices.cachedInput, completion_text_token_price: prices.output,
    });
  });

  it.each(['grok-beta', 'grok-pro', 'grok-4.7', 'grok-4.20-0309-non-reasoning', 'grok-4.20-multi-agent-0309'])('%s alone is what the list says of it', async (id) => {
    const response = await get(id);
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual((await list()).find((model) => model.id === id));
  });

  it('the provider’s alias is answered with its model', async () => {
    expect(((await (await get('grok-latest')).json()) as LanguageModel).id).toBe('grok-4.3');
  });

  it.each([...EMULATED_IMAGE_MODELS.map(({ id }) => id), 'v1', 'grok-99', 'GROK-BETA', '__proto__', 'constructor', 'grok-beta%20', '%2e%2e'])('%s is no language model', async (id) => {
    const answer = await rawRequest(harness.url, `/v1/language-models/${id}`, { headers: { authorization: `Bearer ${await harness.token()}` } });
    expect(answer.status).toBe(404);
    expect(JSON.parse(answer.body)).toMatchObject({ error: { code: 'model_not_found', type: 'invalid_request_error' } });
  });

  it.each(['billing', 'auditor', 'platform-admin'])('is empty for who may call none of them: %s of acme', async (role) => {
    const token = await harness.token({ roles: [role] });
    expect(await list(token)).toEqual([]);
    const [hidden, missing] = [await expectError(await get('grok-beta', token), 404, 'model_not_found'), await expectError(await get('grok-99', token), 404, 'model_not_found')];
    expect(hidden).toEqual(missing);
  });

  it.each(['/v1/language-models', '/v1/language-models/grok-beta'])('%s needs a token', async (path) => {
    const response = await harness.request('GET', path, { token: null });
    expect(response.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"');
    await expectError(response, 401, 'invalid_token');
  });

  it('costs nothing and calls nobody upstream', async () => {
    await list();
    expect(harness.emulator.calls).toHaveLength(0);
    const { rows } = await harness.db.query("SELECT index FROM audit_events WHERE event->'unmapped'->'novix'->>'phase' = 'intent'");
    expect(rows).toEqual([]);
  });
});

describe('with a policy of one’s own', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await configFolder({ 'policies.yaml': `
policies:
  - name: departments
    rules:
      - { id: research, effect: allow, actions: [invoke], models: [grok-pro, grok-4.3], when: [{ attr: principal.attrs.department, op: eq, value: research }] }
      - { id: design, effect: allow, actions: [invoke], models: ["grok-imagine-*"], when: [{ attr: principal.attrs.department, op: eq, value: design }] }
      - { id: everything, effect: allow, actions: [invoke], models: ["*"], when: [{ attr: principal.attrs.department, op: eq, value: platform }] }
      - { id: no-multi-agent, effect: deny, actions: [invoke], models: ["grok-4.20-multi-agent*"] }
      - { id: keepers, effect: allow, actions: [store], models: ["*"] }
` });
    harness = await startHarness({ env: { NOVIX_CONFIG_DIR: folder } });
  });
  afterAll(async () => {
    await harness.close();
    await rm(folder, { recursive: true });
  });
  const of = (department: string): Promise<string> => harness.token({ attributes: { department } });

  it.each([
    ['research', ['grok-beta', 'grok-pro', 'grok-4.3']], // grok-beta is grok-4.3
    ['design', []],
    ['sales', []],
    ['platform', ['grok-beta', 'grok-pro', 'grok-enterprise', ...EMULATED_MODELS.map(({ id }) => id).filter((id) => !id.includes('multi-agent'))]],
  ])('%s sees exactly what it may call', async (department, expected) => {
    const token = await of(department);
    expect((await list(token)).map(({ id }) => id).toSorted()).toEqual(expected.toSorted());
    for (const { id } of await list()) expect(id).toBe('none'); // a token without a department
    for (const id of ['grok-beta', 'grok-pro', 'grok-enterprise', 'grok-4.7', 'grok-4.20-multi-agent-0309']) {
      expect({ id, status: (await get(id, token)).status }).toEqual({ id, status: expected.includes(id) ? 200 : 404 });
    }
  });

  it('and what it lists can be called, what it does not cannot', async () => {
    const token = await of('research');
    const call = (model: string): Promise<Response> => harness.request('POST', '/v1/responses', { token, body: { model, input: 'Hi', store: false } });
    for (const { id } of await list(token)) expect({ id, status: (await call(id)).status }).toEqual({ id, status: 200 });
    for (const model of ['grok-enterprise', 'grok-4.7', 'grok-4.6']) await expectError(await call(model), 403, 'policy_denied');
  });
});
