import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { EmulatedCall, EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled, ticksOf } from '../../support/records.ts';
import { expectError, type ErrorAnswer } from '../../support/wire.ts';

// Images cost by their number: that is held, and charged.

const IMAGE = 'grok-imagine-image';
/** 0.02 USD each. */
const PRICE_TICKS = 200_000_000n;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

interface Images {
  data: { url?: string; b64_json?: string; mime_type: string }[];
  usage: { cost_in_usd_ticks: number };
}

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '1', XAI_RETRY_BACKOFF_MS: '20', XAI_FIRST_BYTE_TIMEOUT_MS: '600', XAI_BREAKER_FAILURES: '100000' } });
});
afterAll(async () => {
  await expectBooksClosed(harness.db);
  await harness.close();
});
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
});

function draw(body: Record<string, unknown> = {}, { headers = {}, token }: { headers?: Record<string, string>; token?: string | null } = {}): Promise<Response> {
  return harness.request('POST', '/v1/images/generations', { headers, body: { model: IMAGE, prompt: 'A fox.', ...body }, ...(token !== undefined && { token }) });
}

async function drawn(body: Record<string, unknown> = {}): Promise<{ response: Response; body: Images }> {
  const response = await draw(body);
  expect(response.status).toBe(200);
  return { response, body: (await response.json()) as Images };
}

/** The one call that reached the provider. */
function upstreamCall(): EmulatedCall {
  expect(harness.emulator.calls).toHaveLength(1);
  return harness.emulator.calls[0]!;
}

async function expectRefused(response: Response, status: number, code: string): Promise<ErrorAnswer['error']> {
  const error = await expectError(response, status, code);
  expect(response.headers.get('x-should-retry')).toBe('false');
  expect(harness.emulator.calls).toHaveLength(0);
  await eventOf(harness, response.headers.get('x-request-id'), 'refusal');
  expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
  return error;
}

describe('images', () => {
  it.each<[string, number | null | undefined, bigint]>([
    [IMAGE, undefined, 200_000_000n], [IMAGE, null, 200_000_000n], [IMAGE, 1, 200_000_000n], [IMAGE, 10, 2_000_000_000n], ['grok-imagine-image-2.0', 3, 1_200_000_000n], ['grok-imagine-image-quality', 2, 1_000_000_000n],
  ])('of %s, n: %s, are held and charged %s ticks, as the provider bills them', async (model, n, ticks) => {
    const { response, body } = await drawn({ model, n });
    expect(body.data).toHaveLength(n ?? 1);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toEqual({ outcome: 'completed', basis: 'provider', chargedTicks: ticks, heldTicks: ticks });
    expect(upstreamCall()).toMatchObject({ path: '/v1/images/generations', model, billedUsdTicks: ticks, headers: { accept: 'application/json' } });
    expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(ticks);
    const outcome = await eventOf(harness, response.headers.get('x-request-id'), 'outcome');
    expect(outcome.unmapped.novix).toMatchObject({ usage: { generated_images: n ?? 1, input_tokens: 0, output_tokens: 0 }, charge: { computed_ticks: String(ticks) } });
    expect(outcome.api.operation).toBe('POST /v1/images/generations');
  });

  it('come as URLs or in base64, in the provider’s own object', async () => {
    const { body: urls } = await drawn({ n: 2 });
    for (const { url } of urls.data) expect((await fetch(url!)).headers.get('content-type')).toBe('image/png');
    const { response, body: encoded } = await drawn({ response_format: 'b64_json' });
    expect(Buffer.from(encoded.data[0]!.b64_json!, 'base64').subarray(1, 4).toString()).toBe('PNG');
    expect(response.headers.get('content-type')).toMatch(/^application\/json/);
    expect(encoded.usage).toEqual({ cost_in_usd_ticks: Number(PRICE_TICKS) });
  });

  it('take fields that the gateway does not know byte for byte, and no stream or limit of ours', async () => {
    await drawn({ aspect_ratio: '16:9', resolution: '2k', x_new: { a: [1] }, user: 'me' });
    expect(upstreamCall().body).toEqual({ model: IMAGE, prompt: 'A fox.', aspect_ratio: '16:9', resolution: '2k', x_new: { a: [1] }, user: 'me' });
  });

  it('are charged by their number where the provider tells no price, and by the hold where it tells nothing', async () => {
    const unpriced = await drawn({ n: 3, x_emulator: { no_usage: true } });
    expect(await settled(harness, unpriced.response.headers.get('x-request-id'))).toMatchObject({ basis: 'computed', chargedTicks: 3n * PRICE_TICKS });
    const odd = await drawn({ n: 3, x_emulator: { usage: { cost_in_usd_ticks: -1 } } });
    expect(await settled(harness, odd.response.headers.get('x-request-id'))).toMatchObject({ basis: 'hold', chargedTicks: 3n * PRICE_TICKS });
  });

  it('are charged at the provider’s price where that is not ours, unless it is absurd', async () => {
    const cheap = await drawn({ x_emulator: { cost_usd_ticks: 777 } });
    expect(await settled(harness, cheap.response.headers.get('x-request-id'))).toMatchObject({ basis: 'provider', chargedTicks: 777n });
    const absurd = await drawn({ x_emulator: { cost_usd_ticks: 900_000_000_000 } });
    expect(await settled(harness, absurd.response.headers.get('x-request-id'))).toMatchObject({ basis: 'computed', chargedTicks: PRICE_TICKS });
  });
});

describe('400', () => {
  const bodies: [Record<string, unknown>, string][] = [
    [{ prompt: undefined }, 'prompt'], [{ prompt: '' }, 'prompt'], [{ prompt: ['A fox.'] }, 'prompt'], [{ n: 0 }, 'n'], [{ n: 11 }, 'n'], [{ n: -1 }, 'n'], [{ n: 1.5 }, 'n'], [{ n: '2' }, 'n'], [{ n: 1e9 }, 'n'],
    [{ response_format: 5 }, 'response_format'], [{ deferred: 'yes' }, 'deferred'], [{ model: 5 }, 'model'], [{ user: 5 }, 'user'],
  ];
  it.each(bodies.map(([fields, param]) => [JSON.stringify(fields), param, fields] as const))('a body that does not fit: %s: %s', async (_, param, fields) => {
    expect((await expectRefused(await draw(fields), 400, 'invalid_request')).param).toBe(param);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['a model that writes', { model: 'grok-beta' }, 'model'],
    ['the default model, which writes', { model: undefined }, 'model'],
    ['deferred images', { deferred: true }, 'deferred'],
  ])('what is not offered: %s', async (_, fields, param) => {
    expect((await expectRefused(await draw(fields), 400, 'unsupported_parameter')).param).toBe(param);
  });

  it.each([['/v1/chat/completions', { messages: [{ role: 'user', content: 'A fox.' }] }], ['/v1/responses', { input: 'A fox.' }], ['/v1/completions', { prompt: 'A fox.' }], ['/v1/embeddings', { input: 'A fox.' }]])('an image model on %s', async (path, fields) => {
    expect((await expectRefused(await harness.request('POST', path, { body: { model: IMAGE, ...fields } }), 400, 'unsupported_parameter')).param).toBe('model');
  });
});

describe('401, 402, 403 and 404', () => {
  it('without a token', async () => {
    await expectError(await draw({}, { token: null }), 401, 'invalid_token');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('of which the budget covers fewer than are asked for', async () => {
    const admin = await harness.adminToken();
    await harness.request('POST', '/admin/v1/tenants', { token: admin, body: { id: 'painter', name: 'Painter', tier: 'standard' } });
    const token = await harness.token({ tenant: 'painter' });
    expect((await expectRefused(await draw({}, { token }), 402, 'budget_exceeded')).type).toBe('insufficient_quota');
    await harness.request('POST', '/admin/v1/budgets', { token: admin, body: { tenant: 'painter', scope: { type: 'tenant' }, window: 'total', limit_usd: '0.05' } });
    await expectRefused(await draw({ n: 3 }, { token }), 402, 'budget_exceeded');
    expect((await draw({ n: 2 }, { token })).status).toBe(200);
    harness.emulator.reset();
    await expectRefused(await draw({}, { token }), 402, 'budget_exceeded'); // 0.01 USD is left
    await expectBooksClosed(harness.db, 'painter');
  });

  it('beyond the call’s own cap', async () => {
    await expectRefused(await draw({ n: 3 }, { headers: { 'x-novix-max-cost-usd': '0.0599999999' } }), 402, 'request_cost_exceeded');
    expect((await draw({ n: 3 }, { headers: { 'x-novix-max-cost-usd': '0.06' } })).status).toBe(200);
  });

  it('by the policy', async () => {
    const error = await expectRefused(await draw({}, { token: await harness.token({ roles: ['billing'] }) }), 403, 'policy_denied');
    expect(error.decision_id).toMatch(UUID);
  });

  it('of a model that is not there', async () => {
    expect((await expectRefused(await draw({ model: 'grok-imagine-image-99' }), 404, 'model_not_found')).param).toBe('model');
  });
});

describe('when the provider fails', () => {
  it.each<[string, EmulatorScript, number, string]>([
    ['503', { status: 503 }, 503, 'provider_unavailable'],
    ['an overload told as 200', { ok_with_error: true }, 502, 'provider_bad_response'],
    ['a nested error told as 200', { status: 200, body: { error: { message: 'oops', type: 'server_error' } } }, 502, 'provider_bad_response'],
    ['an error without a code told as 200', { status: 200, body: { error: 'The service is currently unavailable' } }, 502, 'provider_bad_response'],
    ['an HTML page', { html: true }, 503, 'provider_unavailable'],
    ['a wrong key', { status: 401 }, 502, 'provider_bad_response'],
    ['content under its usage guidelines', { status: 400, body: { code: 'invalid-argument', error: 'Content violates usage guidelines.' } }, 400, 'content_refused'],
  ])('%s is free', async (_, script, status, code) => {
    const response = await draw({ x_emulator: script });
    await expectError(response, status, code);
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
  });

  it.each([[{}], [{ data: 'x' }], [{ images: [] }]])('%j is no answer, and charged the hold, since images may have been made', async (body) => {
    const response = await draw({ n: 2, x_emulator: { status: 200, body } });
    await expectError(response, 502, 'provider_bad_response');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'hold', chargedTicks: 2n * PRICE_TICKS });
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('a refusal is tried again, and the images are billed once', async () => {
    harness.emulator.setFaults([{ calls: 1, status: 503 }]);
    const { response } = await drawn({ n: 4 });
    expect(response.headers.get('x-novix-attempts')).toBe('2');
    expect(harness.emulator.billedUsdTicks()).toBe(4n * PRICE_TICKS);
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(4n * PRICE_TICKS);
  });

  it.each<[string, EmulatorScript, number, string]>([
    ['cut in the middle', { cut_after: 0 }, 502, 'provider_bad_response'],
    ['silence', { stall_before_headers: true }, 504, 'provider_timeout'],
  ])('%s is charged in full, since the images were made, and not bought twice', async (_, script, status, code) => {
    const response = await draw({ n: 2, x_emulator: script });
    await expectError(response, status, code);
    await eventually(() => upstreamCall().state !== 'running');
    expect(await settled(harness, response.headers.get('x-request-id'))).toEqual({ outcome: 'failed', basis: 'hold', chargedTicks: 2n * PRICE_TICKS, heldTicks: 2n * PRICE_TICKS });
    expect(upstreamCall().billedUsdTicks).toBe(2n * PRICE_TICKS);
  });

  it('a caller who hangs up is noticed upstream within a second, and charged', async () => {
    const subject = `leaver-${crypto.randomUUID()}`;
    const aborter = new AbortController();
    const asked = harness.request('POST', '/v1/images/generations', { token: await harness.token({ subject }), signal: aborter.signal, body: { model: IMAGE, prompt: 'A fox.', n: 2, x_emulator: { stall_before_headers: true } } });
    asked.catch(() => {}); // it is aborted
    await eventually(() => harness.emulator.calls.length === 1);
    aborter.abort();
    await eventually(() => upstreamCall().state === 'aborted', 500);
    const row = await eventually(async () => {
      const { rows } = await harness.db.query<{ outcome: string; charged_ticks: string }>('SELECT outcome, charged_ticks FROM settlements WHERE subject = $1', [subject]);
      return rows[0];
    });
    expect(row).toEqual({ outcome: 'aborted', charged_ticks: String(2n * PRICE_TICKS) });
    expect(upstreamCall().billedUsdTicks).toBe(2n * PRICE_TICKS);
  });
});
