import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { EmulatedCall, EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { eventually, PROVIDER_KEY, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, ticksOf } from '../../support/records.ts';
import { eventsIn, respond, textOf, type ResponseObject } from '../../support/responses.ts';
import { startRecorder, type Recorder } from '../../support/wire.ts';

// The upstream is the emulator, behind a recorder that keeps the exact bytes of each request.

const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const MULTI_AGENT = 'grok-4.20-multi-agent-0309';
const MAX_TOKENS = 6_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const WEATHER = { type: 'function', name: 'weather', description: 'The weather in a city', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } };

let harness: Harness;
let recorder: Recorder;
beforeAll(async () => {
  recorder = await startRecorder();
  harness = await startHarness({
    emulator: { random: () => 0.5 },
    env: { XAI_API_ENDPOINT: recorder.url, XAI_MODEL: NO_REASONING, XAI_MAX_TOKENS: String(MAX_TOKENS), XAI_TEMPERATURE: '0.3', XAI_TOP_P: '0.8', XAI_FREQUENCY_PENALTY: '0.5' },
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

async function answered(body: Record<string, unknown> = {}, headers: Record<string, string> = {}, token?: string): Promise<{ response: Response; body: ResponseObject }> {
  const response = await respond(harness, body, { headers, ...(token !== undefined && { token }) });
  const text = await response.text();
  expect({ status: response.status, text: response.status === 200 ? '' : text }).toEqual({ status: 200, text: '' });
  return { response, body: JSON.parse(text) as ResponseObject };
}

/** What the provider itself answers to a request. */
async function direct(body: Uint8Array | string): Promise<string> {
  const response = await fetch(`${harness.emulator.url}/responses`, { method: 'POST', headers: { authorization: `Bearer ${PROVIDER_KEY}`, 'content-type': 'application/json' }, body });
  expect(response.status).toBe(200);
  return response.text();
}

/** Ids and times differ from call to call; everything else must not. */
function timeless(text: string): string {
  return text.replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, '…').replaceAll(/"(created_at|completed_at)":\d+/g, '"$1":0');
}

describe('a plain response', () => {
  it('is the provider’s own object, field for field, though upstream it was streamed', async () => {
    const { body } = await answered({ x_emulator: { content: 'One and the same.', reasoning_tokens: 7 } });
    const upstream = JSON.parse(recorder.bodies[0]!.toString()) as Record<string, unknown>;
    expect(upstream['stream']).toBe(true);
    const plain = await direct(JSON.stringify({ ...upstream, stream: false }));
    expect(JSON.parse(timeless(JSON.stringify(body)))).toEqual(JSON.parse(timeless(plain)));
    expect(body).toMatchObject({ object: 'response', status: 'completed', model: 'grok-4.3', store: false });
    expect(body.id).toMatch(UUID);
    expect(textOf(body)).toBe('One and the same.');
  });

  it('is charged what the provider billed, to the tick, reasoning within its output among it', async () => {
    const { response, body } = await answered({ x_emulator: { content: 'Hello there.', reasoning_tokens: 41 } });
    const upstream = upstreamCall();
    expect(body.usage.output_tokens).toBe(upstream.completionTokens + 41);
    expect(body.usage.output_tokens_details.reasoning_tokens).toBe(41);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'provider', chargedTicks: upstream.billedUsdTicks });
    expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(record.chargedTicks);
    const outcome = await eventOf(harness, response.headers.get('x-request-id'), 'outcome');
    expect(outcome.api).toMatchObject({ operation: 'POST /v1/responses', response: { code: 200 } });
    // Our own arithmetic agrees only where reasoning is counted once.
    expect(outcome.unmapped.novix).toMatchObject({
      charge: { provider_ticks: String(upstream.billedUsdTicks), computed_ticks: String(upstream.billedUsdTicks) },
      usage: { input_tokens: upstream.promptTokens, output_tokens: upstream.completionTokens, reasoning_tokens: 41 },
    });
  });

  it('leaves the same in the ledger: tokens, charge, and nothing held', async () => {
    const { response } = await answered({ x_emulator: { output_tokens: 9, reasoning_tokens: 5 } });
    const { rows } = await harness.db.query<Record<string, string>>('SELECT state, outcome, charged_ticks, input_tokens, output_tokens, reasoning_tokens, model, upstream_model, stream FROM settlements WHERE request_id = $1', [response.headers.get('x-request-id')]);
    const upstream = upstreamCall();
    expect(rows).toEqual([{
      state: 'settled', outcome: 'completed', charged_ticks: String(upstream.billedUsdTicks), input_tokens: String(upstream.promptTokens), output_tokens: '9', reasoning_tokens: '5',
      model: 'grok-beta', upstream_model: 'grok-4.3', stream: false,
    }]);
  });

  it('says in its headers what happened', async () => {
    const { response } = await answered();
    const headers = Object.fromEntries(response.headers);
    expect(headers).toMatchObject({ 'content-type': 'application/json; charset=utf-8', 'x-novix-model': 'grok-4.3', 'x-novix-deployment': 'xai', 'x-novix-attempts': '1', 'x-novix-cache': 'bypass' });
    expect(headers['x-request-id']).toMatch(UUID);
    const intent = await eventOf(harness, headers['x-request-id']!, 'intent');
    expect(intent.unmapped.novix.decision).toMatchObject({ id: headers['x-novix-decision-id'], rule: 'developers-invoke' });
  });

  it('that the output limit cut is incomplete, and charged for what came', async () => {
    const { response, body } = await answered({ model: NO_REASONING, max_output_tokens: 3, x_emulator: { output_tokens: 50 } });
    expect(body).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' }, max_output_tokens: 3, usage: { output_tokens: 3 } });
    expect(body.output.at(-1)).toMatchObject({ type: 'message', status: 'incomplete' });
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'completed', basis: 'provider', chargedTicks: upstreamCall().billedUsdTicks });
  });

  it('calls a function, and goes on with its result', async () => {
    const first = await answered({ tools: [WEATHER], tool_choice: 'required' });
    const call = first.body.output.find(({ type }) => type === 'function_call')!;
    expect(call).toMatchObject({ name: 'weather', call_id: expect.stringMatching(/^call_/), status: 'completed' });
    expect(JSON.parse(String(call['arguments']))).toEqual({ city: expect.any(String) });
    expect(sentUpstream()).toMatchObject({ tools: [WEATHER], tool_choice: 'required' });
    harness.emulator.reset();
    const input = [{ role: 'user', content: 'The weather?' }, ...first.body.output, { type: 'function_call_output', call_id: call['call_id'], output: 'sunny' }];
    const second = await answered({ tools: [WEATHER], input });
    expect(second.body.output.at(-1)!.type).toBe('message');
    expect(sentUpstream()['input']).toEqual(input);
  });

  it('takes images and text parts, and holds the images’ tokens', async () => {
    const parts = (count: number): unknown => [{ role: 'user', content: [{ type: 'input_text', text: 'What is it?' }, ...Array.from({ length: count }, () => ({ type: 'input_image', image_url: 'https://example.com/a.png' }))] }];
    const one = await answered({ model: NO_REASONING, max_output_tokens: 16, input: parts(1) });
    const two = await answered({ model: NO_REASONING, max_output_tokens: 16, input: parts(2) });
    const [first, second] = [await settled(harness, one.response.headers.get('x-request-id')), await settled(harness, two.response.headers.get('x-request-id'))];
    expect(second.heldTicks - first.heldTicks).toBeGreaterThanOrEqual(1_792n * 12_500n);
  });

  it('has the JSON that its format asks for', async () => {
    const text = { format: { type: 'json_schema', name: 'person', strict: true, schema: { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'], additionalProperties: false } } };
    const { body } = await answered({ text });
    expect(JSON.parse(textOf(body))).toEqual({ age: expect.any(Number) });
    expect(sentUpstream()['text']).toEqual(text);
  });

  it('survives text that looks like the events it is read by', async () => {
    const content = 'event: response.completed data: {"type":"response.failed"} "error":1 data: [DONE] event: ping 🦊 \u2028';
    const { body } = await answered({ x_emulator: { content, chunk_bytes: 7 } });
    expect(textOf(body)).toBe(content);
  });
});

describe('a streamed response', () => {
  const scripts: [string, Record<string, unknown>, EmulatorScript][] = [
    ['text with reasoning', {}, { content: 'Byte for byte, as it came.', reasoning_tokens: 5 }],
    ['text without reasoning', { model: NO_REASONING }, { content: 'Byte for byte, as it came.' }],
    ['a function call', { tools: [WEATHER], tool_choice: 'required' }, { reasoning_tokens: 5 }],
    ['JSON', { text: { format: { type: 'json_object' } } }, {}],
    ['an answer that was cut', { model: NO_REASONING, max_output_tokens: 4 }, { output_tokens: 20 }],
    ['an empty answer', { model: NO_REASONING }, { content: '' }],
    ['CRLF frames', {}, { content: 'Another line end.', crlf: true, reasoning_tokens: 5 }],
    ['large frames', { model: NO_REASONING }, { output_tokens: 6, frame_bytes: 90_000 }],
    ['small pieces', {}, { content: 'Naïve 🦊, in pieces.', chunk_bytes: 11, reasoning_tokens: 3 }],
    ['text that looks like marks', {}, { content: '"response.completed" "error" [DONE] event: ping data: {"error":1}', reasoning_tokens: 5 }],
    ['no line end at the end', {}, { content: 'Abrupt.', no_final_newline: true, reasoning_tokens: 0 }],
  ];
  it.each(scripts)('passes the provider’s events on byte for byte: %s', async (_, fields, script) => {
    const response = await respond(harness, { stream: true, ...fields, x_emulator: script });
    expect(response.status).toBe(200);
    const text = await response.text();
    expect(timeless(text)).toBe(timeless(await direct(new Uint8Array(recorder.bodies[0]!))));
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'provider', chargedTicks: harness.emulator.calls[0]!.billedUsdTicks });
  });

  it('numbers its events without a gap, and ends with the one that has the whole response', async () => {
    const text = await (await respond(harness, { stream: true, x_emulator: { content: 'One two three.', reasoning_tokens: 3 } })).text();
    const events = eventsIn(text);
    expect(events.map(({ sequence_number: number }) => number)).toEqual(events.map((_, index) => index));
    expect(events[0]!.type).toBe('response.created');
    expect(events.at(-1)).toMatchObject({ type: 'response.completed', response: { status: 'completed', usage: { output_tokens_details: { reasoning_tokens: 3 } } } });
    expect(events.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta).join('')).toBe('One two three.');
    expect(BigInt(events.at(-1)!.response!.usage.cost_in_usd_ticks)).toBe(upstreamCall().billedUsdTicks);
  });

  it('ends with response.incomplete where the output limit cut it', async () => {
    const events = eventsIn(await (await respond(harness, { stream: true, model: NO_REASONING, max_output_tokens: 5, x_emulator: { output_tokens: 50 } })).text());
    expect(events.at(-1)).toMatchObject({ type: 'response.incomplete', response: { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } } });
    expect(events.filter(({ type }) => type === 'response.completed')).toEqual([]);
  });

  it('is an event stream that no proxy may keep or buffer, with the headers of an answer', async () => {
    const response = await respond(harness, { stream: true });
    const headers = Object.fromEntries(response.headers);
    expect(headers).toMatchObject({ 'content-type': expect.stringMatching(/^text\/event-stream\b/), 'cache-control': 'no-cache', 'x-novix-model': 'grok-4.3', 'x-novix-attempts': '1' });
    expect(headers['x-request-id']).toMatch(UUID);
    expect(headers).not.toHaveProperty('content-length');
    expect(headers).not.toHaveProperty('x-novix-cost-usd');
    await response.text();
  });

  it('ends only once the outcome is on record', async () => {
    const response = await respond(harness, { stream: true });
    const reader = response.body!.getReader();
    let text = '';
    while (!text.includes('event: response.completed')) {
      const { value } = await reader.read();
      text += new TextDecoder().decode(value);
    }
    // Asked once, without waiting.
    const { rows } = await harness.db.query<{ outcome: string }>('SELECT outcome FROM settlements WHERE request_id = $1', [response.headers.get('x-request-id')]);
    expect(rows).toEqual([{ outcome: 'completed' }]);
    await reader.cancel();
  });

  it('holds its ending event back while the outcome cannot be recorded yet', async () => {
    const lock = await harness.db.connect();
    try {
      const response = await respond(harness, { stream: true, model: NO_REASONING, x_emulator: { output_tokens: 40, first_token_ms: 0, token_interval_ms: 10 } });
      const reader = response.body!.getReader();
      const decoder = new TextDecoder();
      let text = decoder.decode((await reader.read()).value);
      await lock.query("BEGIN; LOCK TABLE settlements IN ACCESS EXCLUSIVE MODE");
      while (!text.includes('response.output_item.done')) text += decoder.decode((await reader.read()).value);
      const rest = reader.read();
      const early = await Promise.race([rest.then(() => 'the end'), eventually(() => upstreamCall().state === 'completed').then(() => new Promise((resolve) => setTimeout(resolve, 150, 'held')))]);
      expect(early).toBe('held');
      expect(text).not.toContain('event: response.completed');
      await lock.query('COMMIT');
      text += decoder.decode((await rest).value);
      expect(text).toContain('event: response.completed');
      await reader.cancel();
    } finally {
      lock.release(true); // and with it whatever it locks
    }
  });

  it('reaches the caller as it is written, not in one piece at the end', async () => {
    const response = await respond(harness, { stream: true, x_emulator: { output_tokens: 100, first_token_ms: 0, token_interval_ms: 60 } });
    const reader = response.body!.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toContain('response.created');
    expect(upstreamCall().state).toBe('running');
    await reader.cancel();
  });

  it.each([[false], [true]])('has no pings of the provider’s (with data: %p)', async (ping_data) => {
    const text = await (await respond(harness, { stream: true, model: NO_REASONING, x_emulator: { output_tokens: 9, ping_every: 1, ping_data } })).text();
    expect(text).not.toContain('ping');
    const events = eventsIn(text);
    expect(events.map(({ sequence_number: number }) => number)).toEqual(events.map((_, index) => index));
    expect(events.filter(({ type }) => type === 'response.output_text.delta')).toHaveLength(9);
  });
});

describe('what goes upstream', () => {
  it('says store: false, streams, and has the gateway’s model and defaults', async () => {
    await answered();
    expect(sentUpstream()).toEqual({ model: 'grok-4.3', input: 'Say hello.', stream: true, store: false, max_output_tokens: 4_000, temperature: 0.3, top_p: 0.8 });
    expect(upstreamCall()).toMatchObject({ path: '/v1/responses', headers: { accept: 'text/event-stream', authorization: `Bearer ${PROVIDER_KEY}` } });
  });

  it.each([['absent', {}], ['null', { store: null }], ['false', { store: false }]])('says store: false where no policy allows it and the caller’s is %s', async (_, fields) => {
    const { response, body } = await answered(fields);
    expect(sentUpstream()['store']).toBe(false);
    expect(body.store).toBe(false);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix).not.toHaveProperty('store');
    const { rows } = await harness.db.query('SELECT id FROM stored_responses');
    expect(rows).toEqual([]);
  });

  it.each([
    ['nothing given: the default of 4,000', {}, 4_000],
    ['null given: the default of 4,000', { max_output_tokens: null }, 4_000],
    ['the caller’s own', { max_output_tokens: 77 }, 77],
    ['more than XAI_MAX_TOKENS: that', { max_output_tokens: 100_000 }, MAX_TOKENS],
    ['far more than XAI_MAX_TOKENS: that', { max_output_tokens: Number.MAX_SAFE_INTEGER }, MAX_TOKENS],
  ])('has one output limit: %s', async (_, fields, limit) => {
    const { response } = await answered(fields);
    expect(sentUpstream()['max_output_tokens']).toBe(limit);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix.plan).toMatchObject({ max_output_tokens: limit });
  });

  it('has a smaller output limit where x-novix-max-cost-usd affords no more, and the hold stays within it', async () => {
    const { response } = await answered({ model: NO_REASONING }, { 'x-novix-max-cost-usd': '0.001' });
    const limit = Number(sentUpstream()['max_output_tokens']);
    expect(limit).toBeGreaterThan(16);
    expect(limit).toBeLessThan(400); // 0.001 USD at 2.50 USD a million
    expect((await settled(harness, response.headers.get('x-request-id'))).heldTicks).toBeLessThanOrEqual(10_000_000n);
  });

  it('takes fields that the gateway does not know byte for byte: numbers beyond a double, escapes, spaces', async () => {
    const unknown = ['"x_big": 123456789012345678901234567890', '"x_float" : 1.10e+2', '"x_escape":"\\u00e9\\ud83d\\ude00\\/"', '"x_space": { "a" :\t[ 1 ,2 ] , "b":\n{} }', '"__proto__": {"polluted": true}', '"metadata":{"a":"b"}'];
    const input = '"input" : [ {"role":"user", "content":"Hi \\u00e9", "x_inner":1e2} ]';
    const response = await harness.request('POST', '/v1/responses', { body: `{ "model":"grok-beta", ${unknown.join(' , ')}, ${input} }` });
    expect(response.status).toBe(200);
    const sent = recorder.bodies[0]!.toString();
    for (const member of [...unknown, input]) expect(sent).toContain(member);
    expect(sentUpstream()).toMatchObject({ x_space: { a: [1, 2], b: {} }, input: [{ role: 'user', content: 'Hi é', x_inner: 100 }] });
  });

  it.each([['grok-beta', 'grok-4.3'], ['grok-pro', 'grok-4.7'], ['grok-latest', 'grok-4.3'], ['grok-4.20-multi-agent-latest', MULTI_AGENT], [null, NO_REASONING], [undefined, NO_REASONING]])('names the model behind %s', async (model, upstreamModel) => {
    const { response, body } = await answered({ model });
    expect(sentUpstream()['model']).toBe(upstreamModel);
    expect(body.model).toBe(upstreamModel);
    expect(response.headers.get('x-novix-model')).toBe(upstreamModel);
  });

  it.each([['reasoning', { reasoning: { effort: 'high' } }], ['reasoning_effort', { reasoning_effort: 'high' }]])('has the caller’s %s, which is held for', async (_, fields) => {
    const low = await answered({ reasoning: { effort: 'low' } });
    harness.emulator.reset();
    const high = await answered(fields);
    expect(sentUpstream()).toMatchObject(fields);
    const [little, much] = [await settled(harness, low.response.headers.get('x-request-id')), await settled(harness, high.response.headers.get('x-request-id'))];
    // What the bodies' few bytes differ by is nothing beside it.
    expect(much.heldTicks - little.heldTicks).toBeGreaterThan(7_000n * 25_000n - 100n * 12_500n);
    expect(much.heldTicks - little.heldTicks).toBeLessThan(7_000n * 25_000n + 100n * 12_500n);
  });

  it('is held for at the priority rate where that is asked for', async () => {
    const plain = await answered({ service_tier: 'default' });
    const fast = await answered({ service_tier: 'priority' });
    const [slow, dear] = [await settled(harness, plain.response.headers.get('x-request-id')), await settled(harness, fast.response.headers.get('x-request-id'))];
    expect(dear.heldTicks).toBeGreaterThan(slow.heldTicks * 19n / 10n);
    expect(dear.chargedTicks).toBe(harness.emulator.calls[1]!.billedUsdTicks);
    expect(dear.basis).toBe('provider');
  });
});

describe('the conversation’s name', () => {
  it('is a keyed hash of the caller’s prompt_cache_key: the same for the same tenant, another for another, and never what was said', async () => {
    const key = 'my-thread-of-thursday';
    await answered({ prompt_cache_key: key });
    await answered({ prompt_cache_key: key });
    await answered({ prompt_cache_key: 'another' });
    await answered({ prompt_cache_key: key }, {}, await harness.token({ tenant: 'globex' }));
    const names = harness.emulator.calls.map(({ body }) => (body as Record<string, unknown>)['prompt_cache_key']);
    for (const name of names) expect(name).toMatch(UUID);
    expect(names[1]).toBe(names[0]);
    expect(new Set(names).size).toBe(3);
    expect(harness.emulator.calls.map(({ headers }) => headers['x-grok-conv-id'])).toEqual(names);
    expect(Buffer.concat(recorder.bodies).toString()).not.toContain(key);
  });

  it('is made of how a long conversation begins where the caller gave none, and there is none for a short one', async () => {
    const document = 'A clause of the contract. '.repeat(120);
    await answered({ instructions: document, input: 'What does it say?' });
    await answered({ instructions: document, input: [{ role: 'user', content: 'What does it say?' }, { role: 'assistant', content: 'Much.' }, { role: 'user', content: 'More.' }] });
    await answered({ instructions: document, input: 'What else?' });
    await answered();
    const names = harness.emulator.calls.map(({ body }) => (body as Record<string, unknown>)['prompt_cache_key']);
    expect(names[0]).toMatch(UUID);
    expect(names[1]).toBe(names[0]);
    expect(names[2]).not.toBe(names[0]);
    expect(names[3]).toBeUndefined();
  });

  it('lets the provider cache: what was cached is charged as cached', async () => {
    const body = { model: NO_REASONING, instructions: 'A clause of the contract. '.repeat(400), prompt_cache_key: 'cached' };
    const first = await answered(body);
    const second = await answered(body);
    const [full, less] = [await settled(harness, first.response.headers.get('x-request-id')), await settled(harness, second.response.headers.get('x-request-id'))];
    expect([full.chargedTicks, less.chargedTicks]).toEqual(harness.emulator.calls.map(({ billedUsdTicks }) => billedUsdTicks));
    expect(less.chargedTicks).toBeLessThan(full.chargedTicks);
    expect((await eventOf(harness, second.response.headers.get('x-request-id'), 'outcome')).unmapped.novix).toMatchObject({ charge: { computed_ticks: String(less.chargedTicks) } });
  });
});

describe('a model of many agents, which takes no output limit', () => {
  it('gets none, and is held for at XAI_MAX_TOKENS', async () => {
    const { response } = await answered({ model: MULTI_AGENT });
    expect(sentUpstream()).not.toHaveProperty('max_output_tokens');
    const record = await settled(harness, response.headers.get('x-request-id'));
    const intent = await eventOf(harness, response.headers.get('x-request-id'), 'intent');
    const { input_tokens: input, max_output_tokens: output, reasoning_tokens: reasoning } = intent.unmapped.novix.plan as { input_tokens: number; max_output_tokens: number; reasoning_tokens: number };
    expect(output).toBe(MAX_TOKENS);
    expect(record.heldTicks).toBe(BigInt(input) * 12_500n + BigInt(MAX_TOKENS + reasoning) * 25_000n);
    expect(record.chargedTicks).toBe(upstreamCall().billedUsdTicks);
  });

  it('is refused 402 where the call’s own cap does not cover that, and not cut', async () => {
    const response = await respond(harness, { model: MULTI_AGENT }, { headers: { 'x-novix-max-cost-usd': '0.02' } });
    expect(response.status).toBe(402);
    expect(await response.json()).toMatchObject({ error: { code: 'request_cost_exceeded' } });
    expect(harness.emulator.calls).toHaveLength(0);
  });
});

describe('charging by what can be believed (DESIGN 3.9)', () => {
  const usage = { input_tokens: 10, input_tokens_details: { cached_tokens: 0 }, output_tokens: 5, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: 15 };
  const untrusted: [string, EmulatorScript][] = [
    ['missing', { no_usage: true }],
    ['negative', { usage: { ...usage, output_tokens: -5 } }],
    ['fractional', { usage: { ...usage, input_tokens: 1.5 } }],
    ['mistyped', { usage: { ...usage, input_tokens: '10' } }],
    ['without a count', { usage: { input_tokens: 10 } }],
    ['of a chat', { usage: { prompt_tokens: 10, completion_tokens: 5 } }],
    ['more reasoning than output', { usage: { ...usage, output_tokens_details: { reasoning_tokens: 6 } } }],
    ['more cached than sent', { usage: { ...usage, input_tokens_details: { cached_tokens: 11 } } }],
    ['a negative price', { usage: { ...usage, cost_in_usd_ticks: -1 } }],
  ];
  it.each(untrusted)('a whole answer with usage %s is charged by what was seen, never free and never above the hold', async (_, script) => {
    const { response } = await answered({ model: NO_REASONING, max_output_tokens: 500, x_emulator: { content: 'A few words.', ...script } });
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record).toMatchObject({ outcome: 'completed', basis: 'observed' });
    expect(record.chargedTicks).toBeGreaterThan(0n);
    expect(record.chargedTicks).toBeLessThan(record.heldTicks);
    expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(record.chargedTicks);
  });

  it('a price above both the hold and ten times our own computation is replaced by ours, reasoning counted once', async () => {
    const { response } = await answered({ model: NO_REASONING, max_output_tokens: 500, x_emulator: { usage: { ...usage, output_tokens_details: { reasoning_tokens: 2 }, cost_in_usd_ticks: 900_000_000_000 } } });
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ basis: 'computed', chargedTicks: 10n * 12_500n + 5n * 25_000n });
  });

  it('a price of the provider’s that is merely not ours is the one that counts', async () => {
    const { response } = await answered({ model: NO_REASONING, x_emulator: { cost_usd_ticks: 777 } });
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ basis: 'provider', chargedTicks: 777n });
  });
});

describe('the books', () => {
  it('have one intent and one outcome of every call, the sum of all charges, and nothing held', async () => {
    await expectBooksClosed(harness.db, 'globex');
    const sums = await expectBooksClosed(harness.db);
    expect(sums.calls).toBeGreaterThan(40);
    expect(sums.chargedTicks).toBeGreaterThan(0n);
  });
});
