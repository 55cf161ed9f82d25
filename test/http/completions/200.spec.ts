import { afterAll, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import type { EmulatedCall, EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { eventually, PROVIDER_KEY, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, ticksOf } from '../../support/records.ts';
import { framesOf, startRecorder, type Recorder } from '../../support/wire.ts';

// The upstream is the emulator, behind a recorder that keeps the exact bytes of each request.

interface Completion {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: { index: number; message: { role: string; content: string | null; refusal: null; tool_calls?: { id: string; type: string; function: { name: string; arguments: string } }[] }; finish_reason: string }[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number; cost_in_usd_ticks: number; completion_tokens_details: { reasoning_tokens: number } };
  system_fingerprint: string;
  service_tier: string;
}

/** A number that no other clock has. */
const IDLE_MS = 29_989;
const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const WEATHER = { type: 'function', function: { name: 'weather', description: 'The weather in a city', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } };

let harness: Harness;
let recorder: Recorder;
beforeAll(async () => {
  recorder = await startRecorder();
  harness = await startHarness({
    emulator: { random: () => 0.5 },
    env: {
      XAI_API_ENDPOINT: recorder.url, XAI_API_VERSION: '2026-10-01', XAI_MODEL: NO_REASONING, XAI_MAX_TOKENS: '6000', XAI_IDLE_TIMEOUT_MS: String(IDLE_MS),
      XAI_TEMPERATURE: '0.3', XAI_TOP_P: '0.8', XAI_FREQUENCY_PENALTY: '0.5', XAI_PRESENCE_PENALTY: '-0.25',
    },
  });
  recorder.forwardTo(harness.emulator.url);
});
afterAll(async () => {
  await harness.close();
  await recorder.close();
});
beforeEach(() => {
  harness.emulator.reset();
  recorder.bodies.length = 0;
});

/** The one call that reached the provider. */
function upstreamCall(): EmulatedCall {
  expect(harness.emulator.calls).toHaveLength(1);
  return harness.emulator.calls[0]!;
}

function sentUpstream(): Record<string, unknown> {
  return upstreamCall().body as Record<string, unknown>;
}

async function completion(body: Record<string, unknown> = {}, headers: Record<string, string> = {}): Promise<{ response: Response; body: Completion }> {
  const response = await harness.complete(body, headers);
  const text = await response.text();
  expect({ status: response.status, text: response.status === 200 ? '' : text }).toEqual({ status: 200, text: '' });
  return { response, body: JSON.parse(text) as Completion };
}

/** What the provider itself answers to the request that the gateway sent last. */
async function direct(body: Buffer): Promise<string> {
  const response = await fetch(`${harness.emulator.url}/chat/completions`, { method: 'POST', headers: { authorization: `Bearer ${PROVIDER_KEY}`, 'content-type': 'application/json' }, body: new Uint8Array(body) });
  expect(response.status).toBe(200);
  return response.text();
}

/** Ids and times differ from call to call; everything else must not. */
function timeless(text: string): string {
  return text.replaceAll(/"id":"[0-9a-f-]{36}"/g, '"id":"…"').replaceAll(/"created":\d+/g, '"created":0');
}

describe('a plain completion', () => {
  it('answers whole, priced as the provider billed it, and charges the budget exactly that', async () => {
    const { response, body } = await completion({ x_emulator: { content: 'Hello there.' } });
    expect(body.choices).toEqual([{ index: 0, message: { role: 'assistant', content: 'Hello there.', refusal: null }, finish_reason: 'stop' }]);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'provider', chargedTicks: BigInt(body.usage.cost_in_usd_ticks) });
    expect(upstreamCall().billedUsdTicks).toBe(record.chargedTicks);
    expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(record.chargedTicks);
  });

  it('is the provider’s own plain answer, field for field, though upstream it was streamed', async () => {
    const { body } = await completion({ n: 2, x_emulator: { content: 'One and the same.', reasoning_tokens: 7 } });
    const upstream = JSON.parse(recorder.bodies[0]!.toString()) as Record<string, unknown>;
    expect(upstream['stream']).toBe(true);
    const plain = JSON.parse(await direct(Buffer.from(JSON.stringify({ ...upstream, stream: false, stream_options: null })))) as Completion;
    expect({ ...body, id: '', created: 0 }).toEqual({ ...plain, id: '', created: 0 });
    expect(body.id).toMatch(UUID);
  });

  it('says in its headers what happened', async () => {
    const { response } = await completion();
    const headers = Object.fromEntries(response.headers);
    expect(headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8', 'x-novix-model': 'grok-4.3', 'x-novix-deployment': 'xai', 'x-novix-attempts': '1', 'x-novix-cache': 'bypass', 'x-ratelimit-limit-requests': '10000',
    });
    expect(headers['x-request-id']).toMatch(UUID);
    expect(headers['x-novix-decision-id']).toMatch(UUID);
    expect(headers['x-ratelimit-remaining-requests']).toMatch(/^\d+$/);
    expect(headers['x-ratelimit-reset-requests']).toMatch(/^\d+(\.\d+)?(ms|s)$/);
    expect(headers).not.toHaveProperty('retry-after');
    const intent = await eventOf(harness, headers['x-request-id']!, 'intent');
    expect(intent.unmapped.novix.decision).toMatchObject({ id: headers['x-novix-decision-id'], rule: 'developers-invoke' });
  });

  it('gives every request an id of its own, whatever the caller sends', async () => {
    const own = '00000000-0000-4000-8000-000000000000';
    const { response: first } = await completion({}, { 'x-request-id': own });
    const { response: second } = await completion({}, { 'x-request-id': own });
    expect(new Set([own, first.headers.get('x-request-id'), second.headers.get('x-request-id')]).size).toBe(3);
  });

  it('passes a tool call on', async () => {
    const { body } = await completion({ tools: [WEATHER], tool_choice: 'required' });
    expect(body.choices[0]!.finish_reason).toBe('tool_calls');
    const [call] = body.choices[0]!.message.tool_calls!;
    expect(call).toMatchObject({ id: expect.stringMatching(/^call_\d{8}$/), type: 'function', function: { name: 'weather' } });
    expect(JSON.parse(call!.function.arguments)).toEqual({ city: expect.any(String) });
    expect(call).not.toHaveProperty('index');
  });

  it('passes a JSON schema on', async () => {
    const format = { type: 'json_schema', json_schema: { name: 'person', strict: true, schema: { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'], additionalProperties: false } } };
    const { body } = await completion({ response_format: format });
    expect(JSON.parse(body.choices[0]!.message.content!)).toEqual({ age: expect.any(Number) });
    expect(sentUpstream()['response_format']).toEqual(format);
  });

  it('cuts the answer where the caller’s limit is', async () => {
    const { body } = await completion({ max_completion_tokens: 3, x_emulator: { output_tokens: 50 } });
    expect(body.choices[0]!.finish_reason).toBe('length');
    expect(body.usage.completion_tokens).toBe(3);
  });

  it('puts a long answer together without breaking a character: emoji across frames, escapes, text that looks like frames', async () => {
    const content = `${'🦊 naïve "quotes" \\ \u2028 </script> data: [DONE] "usage" "error" '.repeat(3_000)}end`;
    const { body } = await completion({ x_emulator: { content }, max_tokens: 6000 });
    const answer = body.choices[0]!.message.content!;
    expect(answer.length).toBeGreaterThan(10_000);
    expect(content.startsWith(answer)).toBe(true);
  });

  it('accepts a lower-case scheme and a media type with a charset', async () => {
    const response = await harness.complete({}, { authorization: `bearer ${await harness.token()}`, 'content-type': 'Application/JSON; charset=utf-8' });
    expect(response.status).toBe(200);
  });
});

describe('a stream', () => {
  const scripts: [string, Record<string, unknown>, EmulatorScript][] = [
    ['text', {}, { content: 'Byte for byte, as it came.', reasoning_tokens: 5 }],
    ['two choices', { n: 2 }, { content: 'Side by side.', reasoning_tokens: 5 }],
    ['a tool call', { tools: [WEATHER], tool_choice: 'required' }, { reasoning_tokens: 5 }],
    ['JSON', { response_format: { type: 'json_object' } }, { reasoning_tokens: 5 }],
    ['an empty answer', {}, { content: '', reasoning_tokens: 0 }],
    ['one token', {}, { content: 'Hi', reasoning_tokens: 0 }],
    ['CRLF frames', {}, { content: 'Another line end.', crlf: true, reasoning_tokens: 5 }],
    ['large frames', {}, { content: 'Filled up to many bytes.', frame_bytes: 40_000, reasoning_tokens: 5 }],
    ['text that looks like marks', {}, { content: '"usage" "finish_reason" "error" [DONE] data: {"error":1}', reasoning_tokens: 5 }],
  ];
  it.each(scripts)('passes the provider’s frames on byte for byte: %s', async (_, fields, script) => {
    const response = await harness.complete({ stream: true, stream_options: { include_usage: true }, ...fields, x_emulator: script });
    expect(response.status).toBe(200);
    const text = await response.text();
    expect(timeless(text)).toBe(timeless(await direct(recorder.bodies[0]!)));
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
  });

  it('is an event stream that no proxy may keep or buffer, with the headers of an answer', async () => {
    const response = await harness.complete({ stream: true });
    const headers = Object.fromEntries(response.headers);
    expect(headers).toMatchObject({
      'content-type': expect.stringMatching(/^text\/event-stream\b/), 'cache-control': 'no-cache', 'x-novix-model': 'grok-4.3', 'x-novix-deployment': 'xai', 'x-novix-attempts': '1',
      'x-novix-cache': 'bypass', 'x-ratelimit-limit-requests': '10000',
    });
    expect(headers['x-request-id']).toMatch(UUID);
    expect(headers['x-novix-decision-id']).toMatch(UUID);
    expect(headers).not.toHaveProperty('content-length');
    expect(headers).not.toHaveProperty('x-novix-cost-usd');
    await response.text();
  });

  it('ends with [DONE], and only once the outcome is on record', async () => {
    const response = await harness.complete({ stream: true });
    const text = await response.text();
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    const { rows } = await harness.db.query<{ phase: string }>("SELECT event->'unmapped'->'novix'->>'phase' AS phase FROM audit_events WHERE event->'metadata'->>'correlation_uid' = $1", [response.headers.get('x-request-id')]);
    expect(rows.map(({ phase }) => phase).toSorted()).toEqual(['intent', 'outcome']); // asked once, without waiting
  });

  it.each([
    ['without stream_options', {}, false],
    ['with include_usage: false', { stream_options: { include_usage: false } }, false],
    ['with stream_options: null', { stream_options: null }, false],
    ['with include_usage: true', { stream_options: { include_usage: true } }, true],
  ])('has a usage chunk only when asked: %s', async (_, fields, expected) => {
    const response = await harness.complete({ stream: true, ...fields });
    const chunks = framesOf(await response.text()).filter((frame) => frame !== 'data: [DONE]').map((frame) => JSON.parse(frame.slice(6)) as { usage?: { cost_in_usd_ticks: number }; choices: unknown[] });
    const withUsage = chunks.filter(({ usage }) => usage !== undefined && usage !== null);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ basis: 'provider', chargedTicks: upstreamCall().billedUsdTicks });
    expect(withUsage.map(({ choices, usage }) => [choices, usage!.cost_in_usd_ticks])).toEqual(expected ? [[[], Number(record.chargedTicks)]] : []);
  });

  it('reaches the caller as it is written, not in one piece at the end', async () => {
    const response = await harness.complete({ stream: true, x_emulator: { output_tokens: 100, first_token_ms: 0, token_interval_ms: 60 } });
    const reader = response.body!.getReader();
    const first = await reader.read();
    expect(new TextDecoder().decode(first.value)).toContain('"role":"assistant"');
    expect(upstreamCall().state).toBe('running');
    await reader.cancel();
  });

  it('leaves no clock running once it has ended, however its end was held up by a slow reader', async () => {
    const set = jest.spyOn(globalThis, 'setTimeout');
    const cleared = jest.spyOn(globalThis, 'clearTimeout');
    try {
      for (let frames = 2; frames <= 60; frames += 2) {
        const response = await harness.complete({ stream: true, x_emulator: { output_tokens: frames, reasoning_tokens: 0, frame_bytes: 40_000 } });
        await eventually(() => harness.emulator.calls.at(-1)!.framesSent >= 1);
        expect((await response.text()).endsWith('data: [DONE]\n\n')).toBe(true);
      }
      const clocks = set.mock.results.filter((_, index) => set.mock.calls[index]![1] === IDLE_MS).map(({ value }) => value);
      expect(clocks.length).toBeGreaterThan(30); // some streams were paused and resumed
      const stopped = new Set<unknown>(cleared.mock.calls.map(([timer]) => timer));
      expect(clocks.filter((timer) => !stopped.has(timer)).length).toBe(0);
    } finally {
      set.mockRestore();
      cleared.mockRestore();
    }
  });

  it('keeps the caller’s own stream options', async () => {
    await (await harness.complete({ stream: true, stream_options: { include_usage: false, include_obfuscation: false } })).text();
    expect(sentUpstream()['stream_options']).toEqual({ include_usage: true, include_obfuscation: false });
  });
});

describe('what goes upstream', () => {
  it('takes fields that the gateway does not know byte for byte: numbers beyond a double, escapes, spaces', async () => {
    const unknown = ['"x_big": 123456789012345678901234567890', '"x_float" : 1.10e+2', '"x_escape":"\\u00e9\\ud83d\\ude00\\/"', '"x_space": { "a" :\t[ 1 ,2 ] , "b":\n{} }', '"__proto__": {"polluted": true}', '"x_é": "ü"'];
    const response = await harness.request('POST', '/v1/chat/completions', { body: `{ "model":"grok-beta", ${unknown.join(' , ')}, "messages" : [ {"role":"user", "content":"Hi \\u00e9", "x_inner":1e2} ] }` });
    expect(response.status).toBe(200);
    const sent = recorder.bodies[0]!.toString();
    for (const member of [...unknown, '"messages" : [ {"role":"user", "content":"Hi \\u00e9", "x_inner":1e2} ]']) expect(sent).toContain(member);
    expect(sentUpstream()).toMatchObject({ x_space: { a: [1, 2], b: {} }, messages: [{ role: 'user', content: 'Hi é', x_inner: 100 }] });
  });

  it('carries the provider’s key and API version, and nothing of the caller’s credentials or headers', async () => {
    const token = await harness.token();
    await completion({}, { authorization: `Bearer ${token}`, 'x-novix-data-class': 'confidential', cookie: 'session=1', 'x-forwarded-for': '10.1.2.3', 'x-api-key': 'mine' });
    const { headers } = upstreamCall();
    expect(headers).toMatchObject({ authorization: `Bearer ${PROVIDER_KEY}`, 'x-api-version': '2026-10-01', 'content-type': 'application/json' });
    expect(JSON.stringify(headers)).not.toContain(token);
    for (const name of ['x-novix-data-class', 'cookie', 'x-forwarded-for', 'x-api-key']) expect(headers).not.toHaveProperty(name);
  });

  it.each([
    ['nothing given: the default of 4,000', {}, 4_000],
    ['null given: the default of 4,000', { max_completion_tokens: null, max_tokens: null }, 4_000],
    ['max_completion_tokens', { max_completion_tokens: 77 }, 77],
    ['the older max_tokens', { max_tokens: 88 }, 88],
    ['both: the newer', { max_completion_tokens: 77, max_tokens: 88 }, 77],
    ['more than XAI_MAX_TOKENS: that', { max_completion_tokens: 100_000 }, 6_000],
    ['far more than XAI_MAX_TOKENS: that', { max_tokens: Number.MAX_SAFE_INTEGER }, 6_000],
  ])('has one output limit: %s', async (_, fields, limit) => {
    await completion(fields);
    expect(sentUpstream()).toMatchObject({ max_completion_tokens: limit });
    expect(sentUpstream()).not.toHaveProperty('max_tokens');
  });

  it('has the configured defaults where the caller gave none', async () => {
    await completion({ model: NO_REASONING, temperature: null });
    expect(sentUpstream()).toMatchObject({ temperature: 0.3, top_p: 0.8, frequency_penalty: 0.5, presence_penalty: -0.25 });
  });

  it('has the caller’s own values, zero among them, and no default over them', async () => {
    await completion({ model: NO_REASONING, temperature: 0, top_p: 1, frequency_penalty: 0, presence_penalty: 2 });
    expect(sentUpstream()).toMatchObject({ temperature: 0, top_p: 1, frequency_penalty: 0, presence_penalty: 2 });
  });

  it('lacks defaults that the model refuses', async () => {
    await completion({ model: 'grok-beta' });
    expect(sentUpstream()).toMatchObject({ temperature: 0.3, top_p: 0.8 });
    expect(sentUpstream()).not.toHaveProperty('frequency_penalty');
    expect(sentUpstream()).not.toHaveProperty('presence_penalty');
  });

  it.each([
    ['grok-beta', 'grok-4.3'], ['grok-pro', 'grok-4.7'], ['grok-enterprise', 'grok-4.7'], ['grok-4.6', 'grok-4.6'], ['grok-latest', 'grok-4.3'],
    ['grok-4.20-non-reasoning-latest', NO_REASONING], [null, NO_REASONING], [undefined, NO_REASONING],
  ])('names the model behind %s', async (model, upstreamModel) => {
    const { response, body } = await completion({ model });
    expect(sentUpstream()['model']).toBe(upstreamModel);
    expect(body.model).toBe(upstreamModel);
    expect(response.headers.get('x-novix-model')).toBe(upstreamModel);
  });

  it('is priced for every choice of n: the hold of two choices covers two answers', async () => {
    const one = await completion({ max_tokens: 100 });
    const two = await completion({ max_tokens: 100, n: 2 });
    expect(two.body.choices.map(({ index }) => index)).toEqual([0, 1]);
    const [first, second] = [await settled(harness, one.response.headers.get('x-request-id')), await settled(harness, two.response.headers.get('x-request-id'))];
    expect(second.heldTicks).toBeGreaterThan(first.heldTicks * 19n / 10n);
    expect(second.chargedTicks).toBe(BigInt(two.body.usage.cost_in_usd_ticks));
  });

  it('has a smaller output limit where x-novix-max-cost-usd affords no more, and the hold stays within it', async () => {
    const { response } = await completion({ model: NO_REASONING }, { 'x-novix-max-cost-usd': '0.001' });
    const limit = Number(sentUpstream()['max_completion_tokens']);
    expect(limit).toBeGreaterThan(16);
    expect(limit).toBeLessThan(400); // 0.001 USD at 2.50 USD a million
    expect((await settled(harness, response.headers.get('x-request-id'))).heldTicks).toBeLessThanOrEqual(10_000_000n);
  });
});

describe('charging by what can be believed (DESIGN 3.9)', () => {
  const usage = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15, prompt_tokens_details: { cached_tokens: 0 }, completion_tokens_details: { reasoning_tokens: 0 } };
  const untrusted: [string, EmulatorScript][] = [
    ['missing', { no_usage: true }],
    ['negative', { usage: { ...usage, completion_tokens: -5 } }],
    ['fractional', { usage: { ...usage, prompt_tokens: 1.5 } }],
    ['mistyped', { usage: { ...usage, prompt_tokens: '10' } }],
    ['without a count', { usage: { prompt_tokens: 10 } }],
    ['more cached than sent', { usage: { ...usage, prompt_tokens_details: { cached_tokens: 11 } } }],
    ['a negative price', { usage: { ...usage, cost_in_usd_ticks: -1 } }],
    ['a fractional price', { usage: { ...usage, cost_in_usd_ticks: 0.5 } }],
    ['a price beyond a safe integer', { usage: { ...usage, cost_in_usd_ticks: 1e300 } }],
  ];
  it.each(untrusted)('a whole answer with usage %s is charged by what was seen, never free and never above the hold', async (_, script) => {
    const { response } = await completion({ model: NO_REASONING, max_tokens: 500, x_emulator: { content: 'A few words.', ...script } });
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'observed' });
    expect(record.chargedTicks).toBeGreaterThan(0n);
    expect(record.chargedTicks).toBeLessThan(record.heldTicks);
    expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(record.chargedTicks);
  });

  it('a price above both the hold and ten times our own computation is replaced by ours', async () => {
    const { response } = await completion({ model: NO_REASONING, max_tokens: 500, x_emulator: { usage: { ...usage, cost_in_usd_ticks: 900_000_000_000 } } });
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ basis: 'computed', chargedTicks: 10n * 12_500n + 5n * 25_000n });
  });

  it('a price of the provider’s that is merely not ours is the one that counts, zero among them', async () => {
    const dear = await completion({ model: NO_REASONING, x_emulator: { cost_usd_ticks: 777 } });
    const free = await completion({ model: NO_REASONING, x_emulator: { cost_usd_ticks: 0 } });
    expect(await settled(harness, dear.response.headers.get('x-request-id'))).toMatchObject({ basis: 'provider', chargedTicks: 777n });
    expect(await settled(harness, free.response.headers.get('x-request-id'))).toMatchObject({ basis: 'provider', chargedTicks: 0n });
    expect(free.response.headers.get('x-novix-cost-usd')).toBe('0.00');
  });
});

describe('the books', () => {
  it('hold the sum of all that was charged, and nothing held once all is over', async () => {
    const { rows } = await harness.db.query<{ ticks: string }>("SELECT coalesce(sum((event->'unmapped'->'novix'->'charge'->>'ticks')::bigint), 0)::text AS ticks FROM audit_events WHERE event->'unmapped'->'novix'->>'phase' = 'outcome'");
    const token = await harness.adminToken();
    const { data } = (await (await harness.request('GET', '/admin/v1/budgets', { token })).json()) as { data: { tenant: string; spent_usd: string; held_usd: string; limit_usd: string; remaining_usd: string }[] };
    const budget = data.find(({ tenant }) => tenant === 'acme')!;
    expect(ticksOf(budget.spent_usd)).toBe(BigInt(rows[0]!.ticks));
    expect(ticksOf(budget.spent_usd)).toBeGreaterThan(0n);
    expect(budget.held_usd).toBe('0.00');
    expect(ticksOf(budget.remaining_usd)).toBe(ticksOf(budget.limit_usd) - ticksOf(budget.spent_usd));
  });
});

