import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '1', XAI_RETRY_BACKOFF_MS: '20', XAI_BREAKER_FAILURES: '100000' } });
});
afterAll(async () => {
  await expectBooksClosed(harness.db);
  await harness.close();
});
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
});

function tokenize(body: Record<string, unknown> = {}, { headers = {}, token }: { headers?: Record<string, string>; token?: string | null } = {}): Promise<Response> {
  return harness.request('POST', '/v1/tokenize-text', { headers, body: { model: 'grok-beta', text: 'How many tokens, dear 🦊?', ...body }, ...(token !== undefined && { token }) });
}

describe('POST /v1/tokenize-text', () => {
  it('gives the provider’s tokens, which make up the text', async () => {
    const response = await tokenize();
    expect(response.status).toBe(200);
    const { token_ids: tokens } = (await response.json()) as { token_ids: { token_id: number; string_token: string; token_bytes: number[] }[] };
    expect(tokens.map(({ string_token: token }) => token).join('')).toBe('How many tokens, dear 🦊?');
    expect(Buffer.from(tokens.flatMap(({ token_bytes: bytes }) => bytes)).toString()).toBe('How many tokens, dear 🦊?');
    expect(harness.emulator.calls).toMatchObject([{ path: '/v1/tokenize-text', model: 'grok-4.3', body: { model: 'grok-4.3', text: 'How many tokens, dear 🦊?' } }]);
  });

  it('is free: nothing is held, charged or billed, and it is one call on record', async () => {
    const response = await tokenize({ text: 'word '.repeat(10_000) });
    await response.text();
    expect(response.headers.get('x-novix-cost-usd')).toBe('0.00');
    expect(await settled(harness, response.headers.get('x-request-id'))).toEqual({ outcome: 'completed', basis: 'provider', chargedTicks: 0n, heldTicks: 0n });
    expect(harness.emulator.billedUsdTicks()).toBe(0n);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).api.operation).toBe('POST /v1/tokenize-text');
  });

  it('fits any cap of the call’s own, and takes an empty text', async () => {
    expect((await tokenize({}, { headers: { 'x-novix-max-cost-usd': '0' } })).status).toBe(200);
    expect(await (await tokenize({ text: '' })).json()).toEqual({ token_ids: [] });
  });

  it('passes fields that the gateway does not know on, and uses the default model without one', async () => {
    expect((await tokenize({ model: null, x_new: 1.5, user: 'me' })).status).toBe(200);
    expect(harness.emulator.calls[0]!.body).toEqual({ model: 'grok-4.3', text: 'How many tokens, dear 🦊?', x_new: 1.5, user: 'me' });
  });

  it.each<[Record<string, unknown>, string]>([[{ text: undefined }, 'text'], [{ text: null }, 'text'], [{ text: 5 }, 'text'], [{ text: ['a'] }, 'text'], [{ model: 5 }, 'model'], [{ user: 5 }, 'user']])('400 for %j: %s', async (fields, param) => {
    const response = await tokenize(fields);
    expect((await expectError(response, 400, 'invalid_request')).param).toBe(param);
    await eventOf(harness, response.headers.get('x-request-id'), 'refusal');
    expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('400 for a model without tokens', async () => {
    expect((await expectError(await tokenize({ model: 'grok-imagine-image' }), 400, 'unsupported_parameter')).param).toBe('model');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('401 without a token, 403 without a role or for restricted data, 404 for a model that is not there', async () => {
    await expectError(await tokenize({}, { token: null }), 401, 'invalid_token');
    await expectError(await tokenize({}, { token: await harness.token({ roles: ['billing'] }) }), 403, 'policy_denied');
    await expectError(await tokenize({}, { headers: { 'x-novix-data-class': 'restricted' } }), 403, 'policy_denied');
    await expectError(await tokenize({ model: 'grok-99' }), 404, 'model_not_found');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each<[string, EmulatorScript, number, string]>([
    ['503', { status: 503 }, 503, 'provider_unavailable'],
    ['an overload told as 200', { ok_with_error: true }, 502, 'provider_bad_response'],
    ['a nested error told as 200', { status: 200, body: { error: { message: 'oops', type: 'server_error' } } }, 502, 'provider_bad_response'],
    ['an error without a code told as 200', { status: 200, body: { error: 'The service is currently unavailable' } }, 502, 'provider_bad_response'],
    ['a cut in the middle', { cut_after: 0 }, 502, 'provider_bad_response'],
  ])('fails as the provider does, for nothing: %s', async (_, script, status, code) => {
    const response = await tokenize({ x_emulator: script });
    await expectError(response, status, code);
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', chargedTicks: 0n });
  });

  it('is tried again', async () => {
    harness.emulator.setFaults([{ calls: 1, status: 503 }]);
    const response = await tokenize();
    expect(response.status).toBe(200);
    expect(response.headers.get('x-novix-attempts')).toBe('2');
  });
});
