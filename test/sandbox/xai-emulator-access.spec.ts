import { describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import type { EmulatorOptions, XaiEmulator } from '../../src/sandbox/xai-emulator.ts';
import { createAuthority } from './certificates.ts';
import { KEY, NO_REASONING, ask, hello, jsonOf, latest, post, respond, withEmulator } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP and TLS.

const chat = (at: XaiEmulator, fields: Record<string, unknown> = {}) => post({ model: NO_REASONING, messages: hello, ...fields }, { at });
const refusal = async (answer: Promise<Response>) => {
  const response = await answer;
  return { status: response.status, retryAfter: response.headers.get('retry-after'), ...((await response.json()) as { code: string; error: string }) };
};

describe('rate limits', () => {
  it.each([
    ['kebab', 'resource-exhausted'],
    ['sentence', 'Some resource has been exhausted'],
  ] as const)('of requests, per model and minute, in the dialect %s', async (errorDialect, code) => {
    let nowMs = 1_000_000;
    await withEmulator({ nowMs: () => nowMs, errorDialect, rateLimit: { requestsPerMinute: 2 } }, async (other) => {
      expect([(await chat(other)).status, (await respond({}, { at: other })).status]).toEqual([200, 200]);
      expect(await refusal(chat(other))).toEqual({ status: 429, retryAfter: null, code, error: expect.stringMatching(/^Too many requests for team [0-9a-f-]+\./) });
      expect(latest(other)).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
      expect((await chat(other, { model: 'grok-4.3' })).status).toBe(200);
      nowMs += 60_000;
      expect((await chat(other)).status).toBe(200);
    });
  });

  it('of tokens, of prompts and of what was generated', async () => {
    await withEmulator({ rateLimit: { tokensPerMinute: 40, retryAfter: true } }, async (other) => {
      await (await chat(other)).text(); // 8 + 20
      await (await chat(other, { x_emulator: { output_tokens: 1 } })).text(); // 36, and 1
      expect(await refusal(chat(other))).toMatchObject({
        status: 429, retryAfter: expect.stringMatching(/^[1-9]\d?$/),
        error: expect.stringContaining(`and model ${NO_REASONING}. Your team's rate limit is — Tokens per Minute (actual/limit): 45/40.`),
      });
      other.reset();
      expect((await chat(other)).status).toBe(200);
    });
  });

  it('are told in headers when the switch says so', async () => {
    await withEmulator({ rateLimit: { requestsPerMinute: 2, tokensPerMinute: 1_000, headers: true } }, async (other) => {
      const headersOf = ({ headers }: Response) => ['limit-requests', 'remaining-requests', 'limit-tokens', 'remaining-tokens'].map((name) => headers.get(`x-ratelimit-${name}`));
      expect(headersOf(await chat(other))).toEqual(['2', '1', '1000', '992']);
      await chat(other);
      expect(headersOf(await chat(other)).slice(0, 2)).toEqual(['2', '0']);
      const switched = await fetch(new URL('/__emulator/switches', other.url), { method: 'PUT', body: JSON.stringify({ rate_limit: null }) });
      expect(switched.status).toBe(204);
      expect(headersOf(await chat(other))).toEqual([null, null, null, null]);
    });
  });
});

describe('the team', () => {
  it.each([[403, 'permission-denied'], [429, 'resource-exhausted']] as const)('is out of credits: %d', async (creditsExhausted, code) => {
    await withEmulator({ creditsExhausted }, async (other) => {
      expect(await refusal(chat(other))).toMatchObject({ status: creditsExhausted, code, error: expect.stringContaining('used all available credits') });
      expect((await ask('models', undefined, { at: other })).status).toBe(200);
      other.setSwitches({ creditsExhausted: false });
      expect((await chat(other)).status).toBe(200);
    });
  });

  it('has a blocked key, which can still ask about itself', async () => {
    await withEmulator({ blockedKeys: [KEY] }, async (other) => {
      expect(await refusal(chat(other))).toMatchObject({ status: 403, code: 'permission-denied' });
      expect((await ask('models', undefined, { at: other })).status).toBe(403);
      expect(await jsonOf(ask('api-key', undefined, { at: other }))).toMatchObject({ api_key_blocked: true });
      expect(await jsonOf(ask('me', undefined, { at: other }))).toMatchObject({ zdr_status: 'no_zdr', api_key: { redacted_api_key: 'xai-...b14o', blocked: true } });
    });
  });

  it.each([[{ credits_exhausted: 402 }], [{ nothing: true }], [{ rate_limit: { requests_per_minute: 'x' } }]])('cannot be switched by %j', async (body) => {
    await withEmulator({}, async (other) => {
      expect((await fetch(new URL('/__emulator/switches', other.url), { method: 'PUT', body: JSON.stringify(body) })).status).toBe(422);
    });
  });
});

describe('the US host', () => {
  it('serves two models at a tenth more, and no others', async () => {
    await withEmulator({ region: 'us' }, async (other) => {
      const { usage } = await jsonOf<{ usage: { cost_in_usd_ticks: number } }>(chat(other, { model: 'grok-4.7', x_emulator: { content: 'four', reasoning_tokens: 0 } }));
      expect(usage.cost_in_usd_ticks).toBe(8 * 22_000 + 66_000);
      for (const model of ['grok-4.5', 'grok-latest', 'grok-3', NO_REASONING]) expect(await refusal(chat(other, { model }))).toMatchObject({ status: 404, code: 'not-found' });
      const { data } = await jsonOf<{ data: { id: string; cached_prompt_text_token_price: number; completion_text_token_price_long_context: number }[] }>(ask('models', undefined, { at: other }));
      expect(data).toMatchObject([
        { id: 'grok-4.7', prompt_text_token_price: 22_000, cached_prompt_text_token_price: 5_500, completion_text_token_price_long_context: 132_000 },
        { id: 'grok-4.6' },
      ]);
    });
  });
});

describe('the mutual-TLS host', () => {
  const authority = createAuthority('Test authority');
  const stranger = createAuthority('Another authority');
  const server = authority.issue('server');
  const client = authority.issue('gateway');

  async function get(at: XaiEmulator, options: RequestOptions = {}, key = KEY): Promise<{ status: number; code?: string }> {
    const request = httpsRequest(`${at.url}/api-key`, { ca: authority.cert, headers: { authorization: `Bearer ${key}` }, agent: false, ...options }).end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    let body = '';
    for await (const part of response) body += String(part);
    return { status: response.statusCode!, ...(JSON.parse(body) as { code?: string }) };
  }
  const withTls = (tls: Partial<EmulatorOptions['tls']>, work: (other: XaiEmulator) => Promise<void>) =>
    withEmulator({ tls: { cert: server.cert, key: server.key, clientCa: authority.cert, withoutCertificate: '403', ...tls } }, work);

  it('lets in a certificate of the authority with the registered name, then asks for the key', async () => {
    await withTls({ clientCn: 'gateway' }, async (other) => {
      expect(other.url).toMatch(/^https:/);
      expect((await get(other, client)).status).toBe(200);
      expect(await get(other, client, 'xai-wrong')).toMatchObject({ status: 401, code: 'unauthenticated' });
      expect(await get(other, { ...client, headers: {} })).toMatchObject({ status: 401 });
      for (const certificate of [authority.issue('gateway-2'), stranger.issue('gateway'), {}]) {
        expect(await get(other, certificate)).toMatchObject({ status: 403, code: 'permission-denied' });
      }
    });
  });

  it('takes any name unless one is registered', async () => {
    await withTls({}, async (other) => {
      expect((await get(other, authority.issue('gateway-2'))).status).toBe(200);
    });
  });

  it('ends the connection of a caller without a certificate, where told to', async () => {
    await withTls({ withoutCertificate: 'handshake' }, async (other) => {
      await expect(get(other)).rejects.toMatchObject({ code: expect.stringMatching(/ECONNRESET|EPIPE/) });
      expect((await get(other, client)).status).toBe(200);
      expect(await get(other, stranger.issue('gateway'))).toMatchObject({ status: 403 });
    });
  });

  it('is the only one for a team that must use it', async () => {
    await withEmulator({ mtlsRequired: true }, async (other) => {
      expect(await refusal(chat(other))).toMatchObject({ status: 403, code: 'permission-denied' });
    });
    await withEmulator({ mtlsRequired: true, tls: { cert: server.cert, key: server.key, clientCa: authority.cert, withoutCertificate: '403' } }, async (other) => {
      expect((await get(other, client)).status).toBe(200);
    });
  });
});
