import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { EmulatedCall, EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { BUILT_IN_CONFIG } from '../../../src/shared/config-files.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled, ticksOf } from '../../support/records.ts';
import { configFolder } from '../../support/responses.ts';
import { expectError } from '../../support/wire.ts';

// The provider lists no embedding model today: one is refused for want of a price, until the configuration gives it one.

const DIMENSIONS = 8;
/** 0.10 USD a million tokens. */
const PRICE_TICKS = 1_000n;
const BYTES_PER_TOKEN = 2.5;

interface Embeddings {
  object: string;
  model: string;
  data: { index: number; object: string; embedding: number[] | string }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

let harness: Harness;
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
});

function embed(body: Record<string, unknown> = {}, { headers = {}, token }: { headers?: Record<string, string>; token?: string | null } = {}): Promise<Response> {
  return harness.request('POST', '/v1/embeddings', { headers, body: { model: 'v1', input: 'A sentence to find again.', ...body }, ...(token !== undefined && { token }) });
}

describe('without a price', () => {
  beforeAll(async () => {
    harness = await startHarness({ emulator: { embeddingModels: [{ id: 'v1', inputPriceTicks: Number(PRICE_TICKS), dimensions: DIMENSIONS }] } });
  });
  afterAll(async () => {
    await harness.close();
  });

  it('an embedding is 503 price_unavailable, and nothing goes upstream', async () => {
    const response = await embed();
    const error = await expectError(response, 503, 'price_unavailable');
    expect(error.type).toBe('api_error');
    expect(harness.emulator.calls).toHaveLength(0);
    await eventOf(harness, response.headers.get('x-request-id'), 'refusal');
    expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
  });

  it('the model is not listed', async () => {
    const { data } = (await (await harness.request('GET', '/v1/models')).json()) as { data: { id: string }[] };
    expect(data.map(({ id }) => id)).not.toContain('v1');
    await expectError(await harness.request('GET', '/v1/models/v1'), 404, 'model_not_found');
  });
});

describe('with a price of the configuration’s', () => {
  let folder: string;
  beforeAll(async () => {
    const models = await readFile(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8');
    folder = await configFolder({ 'models.yaml': models.replace(/( {2}- id: v1\n(?: {4}.*\n?)*)/, '$1    price: { usd_per_million: { input: "0.10" }, source: "a test", as_of: "2026-10" }\n') });
    harness = await startHarness({
      emulator: { embeddingModels: [{ id: 'v1', inputPriceTicks: Number(PRICE_TICKS), dimensions: DIMENSIONS }] },
      env: { NOVIX_CONFIG_DIR: folder, XAI_RETRY_MAX: '1', XAI_RETRY_BACKOFF_MS: '20', XAI_BREAKER_FAILURES: '100000' },
    });
  });
  afterAll(async () => {
    await expectBooksClosed(harness.db);
    await harness.close();
    await rm(folder, { recursive: true });
  });

  /** The one call that reached the provider. */
  function upstreamCall(): EmulatedCall {
    expect(harness.emulator.calls).toHaveLength(1);
    return harness.emulator.calls[0]!;
  }

  async function embedded(body: Record<string, unknown> = {}): Promise<{ response: Response; body: Embeddings }> {
    const response = await embed(body);
    expect(response.status).toBe(200);
    return { response, body: (await response.json()) as Embeddings };
  }

  it('gives vectors, charged by the input as the provider bills it', async () => {
    const { response, body } = await embedded();
    expect(body).toMatchObject({ object: 'list', model: 'v1', data: [{ index: 0, object: 'embedding' }], usage: { prompt_tokens: upstreamCall().promptTokens } });
    const vector = body.data[0]!.embedding as number[];
    expect(vector).toHaveLength(DIMENSIONS);
    expect(Math.hypot(...vector)).toBeCloseTo(1, 5);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'computed', chargedTicks: BigInt(body.usage.prompt_tokens) * PRICE_TICKS });
    expect(record.chargedTicks).toBe(upstreamCall().billedUsdTicks);
    expect(record.chargedTicks).toBeGreaterThan(0n);
    expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(record.chargedTicks);
    expect(upstreamCall()).toMatchObject({ path: '/v1/embeddings', headers: { accept: 'application/json' } });
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).api.operation).toBe('POST /v1/embeddings');
  });

  it('holds for the bytes of the body, and for no output', async () => {
    const request = { model: 'v1', input: 'word '.repeat(1_000) };
    const { response } = await embedded(request);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record.heldTicks).toBe(BigInt(Math.ceil(JSON.stringify(request).length / BYTES_PER_TOKEN)) * PRICE_TICKS);
    expect(record.chargedTicks).toBeLessThanOrEqual(record.heldTicks);
    expect(record.chargedTicks).toBe(upstreamCall().billedUsdTicks);
  });

  it('takes up to 128 texts, in their order', async () => {
    const input = Array.from({ length: 128 }, (_, index) => `Text ${index}`);
    const { response, body } = await embedded({ input });
    expect(body.data.map(({ index }) => index)).toEqual(input.map((_, index) => index));
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(upstreamCall().billedUsdTicks);
    const { body: alone } = await embedded({ input: 'Text 7' });
    expect(body.data[7]!.embedding).toEqual(alone.data[0]!.embedding);
  });

  it('passes base64, dimensions and fields that it does not know on', async () => {
    const { body } = await embedded({ encoding_format: 'base64', dimensions: 4, user: 'me', x_new: { a: [1] } });
    expect(Buffer.from(body.data[0]!.embedding as string, 'base64')).toHaveLength(4 * 4);
    expect(upstreamCall().body).toEqual({ model: 'v1', input: 'A sentence to find again.', encoding_format: 'base64', dimensions: 4, user: 'me', x_new: { a: [1] } });
  });

  it('is listed among the models, but not among those that write', async () => {
    const { data } = (await (await harness.request('GET', '/v1/models')).json()) as { data: { id: string }[] };
    expect(data.find(({ id }) => id === 'v1')).toMatchObject({ prompt_text_token_price: Number(PRICE_TICKS) });
    const { models } = (await (await harness.request('GET', '/v1/language-models')).json()) as { models: { id: string }[] };
    expect(models.map(({ id }) => id)).not.toContain('v1');
  });

  const bodies: [Record<string, unknown>, string][] = [
    [{ input: undefined }, 'input'], [{ input: null }, 'input'], [{ input: '' }, 'input'], [{ input: [] }, 'input'], [{ input: [''] }, 'input[0]'], [{ input: ['a', 5] }, 'input[1]'],
    [{ input: 5 }, 'input'], [{ input: Array.from({ length: 129 }, () => 'x') }, 'input'], [{ dimensions: 0 }, 'dimensions'], [{ dimensions: 1.5 }, 'dimensions'],
    [{ encoding_format: 5 }, 'encoding_format'], [{ model: 5 }, 'model'], [{ user: {} }, 'user'],
  ];
  it.each(bodies.map(([fields, param]) => [JSON.stringify(fields).slice(0, 60), param, fields] as const))('400 for a body that does not fit: %s: %s', async (_, param, fields) => {
    expect((await expectError(await embed(fields), 400, 'invalid_request')).param).toBe(param);
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each(['grok-beta', 'grok-imagine-image', undefined])('400 for a model that makes no vectors: %s', async (model) => {
    expect((await expectError(await embed({ model }), 400, 'unsupported_parameter')).param).toBe('model');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each([['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }] }], ['/v1/responses', { input: 'Hi' }], ['/v1/completions', { prompt: 'Hi' }], ['/v1/images/generations', { prompt: 'Hi' }]])('400 for the model on %s', async (path, fields) => {
    expect((await expectError(await harness.request('POST', path, { body: { model: 'v1', ...fields } }), 400, 'unsupported_parameter')).param).toBe('model');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('401 without a token, 402 beyond the call’s own cap, 403 without a role, 404 for a model that is not there', async () => {
    await expectError(await embed({}, { token: null }), 401, 'invalid_token');
    await expectError(await embed({ input: 'word '.repeat(1_000) }, { headers: { 'x-novix-max-cost-usd': '0.0001' } }), 402, 'request_cost_exceeded');
    await expectError(await embed({}, { token: await harness.token({ roles: ['billing'] }) }), 403, 'policy_denied');
    await expectError(await embed({ model: 'v99' }), 404, 'model_not_found');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each<[string, EmulatorScript, number, string]>([
    ['503', { status: 503 }, 503, 'provider_unavailable'],
    ['an overload told as 200', { ok_with_error: true }, 502, 'provider_bad_response'],
    ['a nested error told as 200', { status: 200, body: { error: { message: 'oops', type: 'server_error' } } }, 502, 'provider_bad_response'],
    ['an error without a code told as 200', { status: 200, body: { error: 'The service is currently unavailable' } }, 502, 'provider_bad_response'],
    ['an HTML page', { html: true }, 503, 'provider_unavailable'],
    ['a wrong key', { status: 401 }, 502, 'provider_bad_response'],
  ])('what the provider refuses is free: %s', async (_, script, status, code) => {
    const response = await embed({ x_emulator: script });
    await expectError(response, status, code);
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
  });

  it('is tried again where it was refused once, and billed once', async () => {
    harness.emulator.setFaults([{ calls: 1, status: 503 }]);
    const { response } = await embedded();
    expect(response.headers.get('x-novix-attempts')).toBe('2');
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.billedUsdTicks());
  });

  it.each<[string, EmulatorScript]>([['cut in the middle', { cut_after: 0 }], ['cut after a few bytes', { cut_after_bytes: 40 }]])('an answer %s is a bad one, not tried again, and charged the hold, since it may have been billed', async (_, script) => {
    const response = await embed({ x_emulator: script });
    await expectError(response, 502, 'provider_bad_response');
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'failed', basis: 'hold', chargedTicks: record.heldTicks });
    expect(record.chargedTicks).toBeGreaterThanOrEqual(upstreamCall().billedUsdTicks);
  });

  it.each<[string, EmulatorScript]>([['no usage', { no_usage: true }], ['a usage that makes no sense', { usage: { prompt_tokens: -1 } }], ['no count', { usage: { total_tokens: 5 } }]])('an answer with %s is charged the hold, and reaches the caller', async (_, script) => {
    const { response } = await embedded({ x_emulator: script });
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'hold', chargedTicks: record.heldTicks });
  });
});
