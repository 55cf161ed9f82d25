import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { EMULATED_MODELS } from '../../src/sandbox/emulated-models.ts';
import { costInUsdTicks, type ModelPrices } from '../../src/sandbox/emulated-price.ts';
import { minimalValue } from '../../src/sandbox/emulated-schema.ts';
import { countTokens, splitTokens } from '../../src/sandbox/emulated-tokens.ts';
import { startXaiEmulator, type EmulatedCall, type EmulatorOptions, type EmulatorScript, type XaiEmulator } from '../../src/sandbox/xai-emulator.ts';

// The emulator is real here, and is asked over HTTP.

const KEY = 'xai-test-key-b14o';
const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const hello = [{ role: 'user', content: 'Hello there, Grok.' }]; // 18 bytes: 5 tokens, and 3 for the message

interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { text_tokens: number; image_tokens: number; cached_tokens: number };
  completion_tokens_details: { reasoning_tokens: number };
  cost_in_usd_ticks: number;
}
interface ToolCall {
  id: string;
  function: { name: string; arguments: string };
}
interface Completion {
  id: string;
  model: string;
  choices: { index: number; message: { content: string; tool_calls?: ToolCall[] }; finish_reason: string }[];
  usage: Usage;
  service_tier: string;
}
interface Chunk {
  id: string;
  choices: { index: number; delta: { content?: string; role?: string; tool_calls?: ToolCall[] }; finish_reason?: string }[];
  usage?: Usage;
}

let emulator: XaiEmulator;

beforeAll(async () => {
  emulator = await startXaiEmulator({ apiKeys: [KEY], random: () => 0.5 });
});
afterAll(() => emulator.close());
afterEach(() => emulator.reset());

function post(body: unknown, { at = emulator, headers = {}, signal }: { at?: XaiEmulator; headers?: Record<string, string>; signal?: AbortSignal } = {}): Promise<Response> {
  return fetch(`${at.url}/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
}

async function complete(fields: Record<string, unknown> = {}, headers?: Record<string, string>): Promise<Completion> {
  const response = await post({ model: NO_REASONING, messages: hello, ...fields }, { headers });
  const body = await response.text();
  if (response.status !== 200) throw new Error(`${response.status} ${body}`);
  return JSON.parse(body) as Completion;
}

function stream(fields: Record<string, unknown> = {}, script: EmulatorScript = {}, at = emulator): Promise<Response> {
  return post({ model: NO_REASONING, messages: hello, stream: true, ...fields, x_emulator: script }, { at });
}

async function framesOf(response: Promise<Response>): Promise<string[]> {
  const text = await (await response).text();
  return text.split('\n\n').filter((frame) => frame !== '').map((frame) => frame.replace(/^data: /, ''));
}

function chunksOf(frames: readonly string[]): Chunk[] {
  return frames.filter((frame) => frame !== '[DONE]').map((frame) => JSON.parse(frame) as Chunk);
}

async function refusalOf(fields: Record<string, unknown>): Promise<{ status: number; code?: string; error?: string }> {
  const response = await post({ model: 'grok-4.3', messages: hello, ...fields });
  return { status: response.status, ...((await response.json()) as object) };
}

function latest(at = emulator): EmulatedCall {
  return at.calls.at(-1)!;
}

async function ended(at = emulator): Promise<EmulatedCall> {
  const deadlineMs = Date.now() + 5_000;
  while (at.calls.length === 0 || latest(at).state === 'running') {
    if (Date.now() > deadlineMs) throw new Error('The call is still running');
    await sleep(2);
  }
  return latest(at);
}

async function withEmulator(options: Partial<EmulatorOptions>, work: (other: XaiEmulator) => Promise<void>): Promise<void> {
  const other = await startXaiEmulator({ apiKeys: [KEY], random: () => 0.5, ...options });
  try {
    await work(other);
  } finally {
    await other.close();
  }
}

function pricesOf(model: string): ModelPrices {
  return EMULATED_MODELS.find(({ id }) => id === model)!.prices;
}

describe('price', () => {
  const mini = { input: 3_000, cachedInput: 750, output: 5_000 };
  it.each([
    ['grok-3-mini', mini, 12, 2, 1, 228, 1_176_500n],
    ['grok-3-mini, mostly cached', mini, 291, 244, 26, 189, 1_399_000n],
    ['grok-4.20 non-reasoning', pricesOf(NO_REASONING), 719, 64, 72, 0, 10_115_500n],
    ['grok-4.3', pricesOf('grok-4.3'), 597, 576, 3, 0, 1_489_500n],
  ])('is the one recorded for %s', (_, prices, promptTokens, cachedTokens, completionTokens, reasoningTokens, ticks) => {
    expect(costInUsdTicks(prices, { promptTokens, cachedTokens, completionTokens, reasoningTokens })).toBe(ticks);
  });

  it('doubles for all tokens once the prompt has reached 200,000, cached ones included', () => {
    const cost = (promptTokens: number) =>
      costInUsdTicks(pricesOf('grok-4.7'), { promptTokens, cachedTokens: 100_000, completionTokens: 10, reasoningTokens: 5 });
    expect(cost(199_999)).toBe(99_999n * 20_000n + 100_000n * 5_000n + 15n * 60_000n);
    expect(cost(200_000)).toBe(100_000n * 40_000n + 100_000n * 10_000n + 15n * 120_000n);
  });

  it('doubles with priority, and the answer says so', async () => {
    const script = { output_tokens: 10 };
    const normal = await complete({ service_tier: 'auto', x_emulator: script });
    for (const service_tier of ['priority', 'fast']) {
      const prior = await complete({ service_tier, x_emulator: script });
      expect(prior.service_tier).toBe('priority');
      expect(prior.usage.cost_in_usd_ticks).toBe(2 * normal.usage.cost_in_usd_ticks);
    }
    expect(normal.service_tier).toBe('default');
  });
});

describe('token rule', () => {
  it.each(['', 'a', 'four', 'fives', 'Grüße aus Köln', '日本語のテキスト', '🙂🙂🙂', 'mixed 🙂 ü 日 text'])('cuts %p into as many pieces as it counts tokens', (text) => {
    const pieces = splitTokens(text);
    expect(pieces.join('')).toBe(text);
    expect(pieces).toHaveLength(countTokens(text));
    pieces.forEach((_, index) => expect(countTokens(pieces.slice(0, index + 1).join(''))).toBe(index + 1));
  });
});

describe('plain answer', () => {
  it('has the recorded shape, without keys that do not apply', async () => {
    const response = await post({ model: 'grok-4.3', messages: hello, x_emulator: { content: 'Blue.', reasoning_tokens: 50 }, unknown_field: 1 });
    const body = await response.text();
    const cost = 8 * 12_500 + 52 * 25_000;
    expect(body.replace(/"id":"[^"]*"/, '"id":""').replace(/"created":\d+/, '"created":0').replace(/fp_[0-9a-f]{10}/, 'fp_')).toBe(
      JSON.stringify({
        id: '', object: 'chat.completion', created: 0, model: 'grok-4.3',
        choices: [{ index: 0, message: { role: 'assistant', content: 'Blue.', refusal: null }, finish_reason: 'stop' }],
        usage: {
          prompt_tokens: 8, completion_tokens: 2, total_tokens: 60,
          prompt_tokens_details: { text_tokens: 8, audio_tokens: 0, image_tokens: 0, cached_tokens: 0 },
          completion_tokens_details: { reasoning_tokens: 50, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
          num_sources_used: 0, cost_in_usd_ticks: cost,
        },
        system_fingerprint: 'fp_', service_tier: 'default',
      }),
    );
    expect((JSON.parse(body) as Completion).id).toMatch(UUID);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(response.headers.get('x-request-id')).toBe(latest().requestId);
    expect(response.headers.get('x-zero-data-retention')).toBe('false');
    expect(latest()).toMatchObject({ state: 'completed', model: 'grok-4.3', stream: false, billedUsdTicks: BigInt(cost), completionTokens: 2, reasoningTokens: 50 });
  });

  it('counts reasoning apart from completion, and not at all with effort none', async () => {
    const { usage } = await complete({ model: 'grok-4.3' });
    expect(usage.completion_tokens).toBe(20);
    expect(usage.completion_tokens_details.reasoning_tokens).toBe(40);
    expect(usage.total_tokens).toBe(usage.prompt_tokens + 20 + 40);
    const { usage: without } = await complete({ model: 'grok-4.3', reasoning_effort: 'none' });
    expect(without.completion_tokens_details.reasoning_tokens).toBe(0);
    expect((await complete()).usage.completion_tokens_details.reasoning_tokens).toBe(0);
  });

  it.each(['max_completion_tokens', 'max_tokens'])('ends at %s, which limits visible tokens alone', async (limit) => {
    const { choices, usage } = await complete({ model: 'grok-4.3', [limit]: 5, x_emulator: { output_tokens: 50, reasoning_tokens: 60 } });
    expect(choices[0]).toMatchObject({ finish_reason: 'length' });
    expect(countTokens(choices[0]!.message.content)).toBe(5);
    expect(usage).toMatchObject({ completion_tokens: 5, total_tokens: usage.prompt_tokens + 65 });
    const exact = await complete({ [limit]: 50, x_emulator: { output_tokens: 50 } });
    expect(exact.choices[0]!.finish_reason).toBe('stop');
  });

  it('has n choices, which share the prompt', async () => {
    const { choices, usage } = await complete({ model: 'grok-4.3', n: 3, x_emulator: { output_tokens: 7, reasoning_tokens: 11 } });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(usage).toMatchObject({ prompt_tokens: 8, completion_tokens: 21, completion_tokens_details: { reasoning_tokens: 33 } });
  });

  it('counts images apart from text', async () => {
    const content = [{ type: 'text', text: 'What is this?' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } }];
    const { usage } = await complete({ messages: [{ role: 'user', content }] });
    expect(usage.prompt_tokens_details).toMatchObject({ text_tokens: 7, image_tokens: 256 });
    expect(usage.prompt_tokens).toBe(263);
  });

  it.each([
    ['grok-3', 'grok-4.3', 0],
    ['grok-4-0709', 'grok-4.3', 40],
    ['grok-code-fast-1', 'grok-build-0.1', 40],
    ['grok-latest', 'grok-4.3', 40],
  ])('answers %s as %s', async (name, model, reasoning) => {
    const answer = await complete({ model: name });
    expect(answer.model).toBe(model);
    expect(answer.usage.completion_tokens_details.reasoning_tokens).toBe(reasoning);
  });

  it('calls the tool that it must, with the arguments the schema requires', async () => {
    const parameters = {
      type: 'object',
      required: ['pair', 'days'],
      properties: { pair: { type: 'string', enum: ['EURUSD', 'EURJPY'] }, days: { type: 'integer', minimum: 3 }, note: { type: 'string' } },
    };
    const tools = ['get_time', 'get_rate'].map((name) => ({ type: 'function', function: { name, parameters } }));
    const { choices } = await complete({ tools, tool_choice: { type: 'function', function: { name: 'get_rate' } } });
    const { message, finish_reason: reason } = choices[0]!;
    expect(reason).toBe('tool_calls');
    expect(message.content).toBe('');
    expect(Object.keys(message.tool_calls![0]!)).toEqual(['id', 'function', 'type']);
    expect(message.tool_calls![0]!.id).toMatch(/^call_\d{8}$/);
    expect(message.tool_calls![0]!.function).toEqual({ name: 'get_rate', arguments: '{"pair":"EURUSD","days":3}' });
    expect((await complete({ tools, tool_choice: 'required' })).choices[0]!.message.tool_calls![0]!.function.name).toBe('get_time');
    expect((await complete({ tools })).choices[0]!.message.tool_calls).toBeUndefined();
  });

  it('is JSON when asked for', async () => {
    const schema = { type: 'object', required: ['ok'], properties: { ok: { type: 'boolean' } }, additionalProperties: false };
    const strict = await complete({ response_format: { type: 'json_schema', json_schema: { name: 'check', schema, strict: true } } });
    expect(JSON.parse(strict.choices[0]!.message.content)).toEqual({ ok: true });
    const free = await complete({ response_format: { type: 'json_object' } });
    expect(JSON.parse(free.choices[0]!.message.content)).toBeInstanceOf(Object);
  });
});

describe('schema values', () => {
  it.each([
    [{ $ref: '#/$defs/a', $defs: { a: { type: 'array', items: { type: 'number' }, minItems: 2 } } }, [1, 1]],
    [{ anyOf: [{ const: 7 }, { type: 'null' }] }, 7],
    [{ type: ['string', 'null'], minLength: 6 }, 'text..'],
    [{ allOf: [{ properties: { a: { type: 'null' } }, required: ['a'] }, { properties: { b: { type: 'string', format: 'date' } }, required: ['b'] }] }, { a: null, b: '2026-01-01' }],
    [{ exclusiveMinimum: 2, type: 'integer' }, 3],
    [{}, null],
  ])('%j → %j', (schema, value) => {
    expect(minimalValue(schema)).toEqual(value);
  });

  it('ends for a circular reference', () => {
    const circular = { type: 'object', required: ['child'], properties: { child: { $ref: '#' } } };
    expect(JSON.stringify(minimalValue(circular))).toMatch(/null/);
  });
});

describe('stream', () => {
  it('comes in the recorded order: role with the first token, a finish chunk of its own, usage without choices, [DONE]', async () => {
    const response = await stream({ stream_options: { include_usage: true } }, { content: 'Blue sky.' });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const frames = await framesOf(Promise.resolve(response));
    const chunks = chunksOf(frames);
    expect(chunks.map(({ choices }) => choices)).toEqual([
      [{ index: 0, delta: { content: 'Blue', role: 'assistant' } }],
      [{ index: 0, delta: { content: ' sky' } }],
      [{ index: 0, delta: { content: '.' } }],
      [{ index: 0, delta: {}, finish_reason: 'stop' }],
      [],
    ]);
    expect(frames.at(-1)).toBe('[DONE]');
    expect(chunks.filter(({ usage }) => usage !== undefined)).toEqual([chunks.at(-1)]);
    expect(chunks.at(-1)!.usage!.cost_in_usd_ticks).toBe(8 * 12_500 + 3 * 25_000);
    for (const chunk of chunks) {
      expect(chunk).toMatchObject({ id: latest().id, object: 'chat.completion.chunk', model: NO_REASONING, system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/), service_tier: 'default' });
    }
    expect(latest()).toMatchObject({ state: 'completed', framesSent: 6, billedUsdTicks: 175_000n });
  });

  it('has usage only when asked, unless the switch is on', async () => {
    expect(chunksOf(await framesOf(stream())).some(({ usage }) => usage !== undefined)).toBe(false);
    await withEmulator({ usageWithoutAsking: true }, async (other) => {
      expect(chunksOf(await framesOf(stream({}, {}, other))).at(-1)!.usage).toBeDefined();
    });
  });

  it('says the same as a plain answer', async () => {
    const plain = await complete();
    const chunks = chunksOf(await framesOf(stream()));
    expect(chunks.map(({ choices }) => choices[0]!.delta.content ?? '').join('')).toBe(plain.choices[0]!.message.content);
  });

  it('sends a tool call whole, in one chunk', async () => {
    const tools = [{ type: 'function', function: { name: 'ping', parameters: { type: 'object', properties: {} } } }];
    const chunks = chunksOf(await framesOf(stream({ tools, tool_choice: 'required' })));
    expect(chunks.map(({ choices }) => choices[0])).toEqual([
      { index: 0, delta: { content: '', role: 'assistant', tool_calls: [{ index: 0, id: expect.stringMatching(/^call_\d{8}$/), function: { name: 'ping', arguments: '{}' }, type: 'function' }] } },
      { index: 0, delta: {}, finish_reason: 'tool_calls' },
    ]);
  });

  it('lets n choices grow side by side, each beginning with its role', async () => {
    const chunks = chunksOf(await framesOf(stream({ n: 2 }, { content: 'Blue sky.' })));
    expect(chunks.map(({ choices }) => choices[0]!.index)).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
    expect(chunks.map(({ choices }) => choices[0]!.delta.role !== undefined)).toEqual([true, true, false, false, false, false, false, false]);
  });

  it('has a first chunk with the role even when there is nothing to say', async () => {
    const chunks = chunksOf(await framesOf(stream({}, { output_tokens: 0 })));
    expect(chunks.map(({ choices }) => choices[0]!.delta)).toEqual([{ content: '', role: 'assistant' }, {}]);
  });

  it('keeps the pace, silent for the reasoning before the first token', async () => {
    await withEmulator({ pace: { firstTokenMs: 30, tokenIntervalMs: 20, reasoningTokenMs: 5 } }, async (other) => {
      const startedMs = performance.now();
      const response = await stream({ model: 'grok-4.3' }, { output_tokens: 6, reasoning_tokens: 10 }, other);
      const arrivalsMs: number[] = [];
      for await (const _ of response.body!) arrivalsMs.push(performance.now() - startedMs);
      expect(arrivalsMs).toHaveLength(6); // a write per token; what ends the stream leaves with the last
      expect(arrivalsMs[0]).toBeGreaterThanOrEqual(80);
      expect(arrivalsMs.at(-1)).toBeGreaterThanOrEqual(180);
      expect(arrivalsMs.at(-1)).toBeLessThan(600);
    });
  });

  it('holds back for a slow reader, and ends whole', async () => {
    const response = await stream({ max_completion_tokens: 40_000 }, { output_tokens: 40_000, frame_bytes: 500 });
    await sleep(150);
    expect(latest().state).toBe('running');
    const frames = await framesOf(Promise.resolve(response));
    expect(frames).toHaveLength(40_002);
    expect(latest()).toMatchObject({ state: 'completed', completionTokens: 40_000, framesSent: 40_002 });
  });
});

describe('prompt cache', () => {
  const long = (ending: string) => [{ role: 'system', content: 'You are brief. '.repeat(200) }, { role: 'user', content: ending }]; // 3,000 bytes: 753 tokens with its role

  it.each([
    ['the header x-grok-conv-id', {}, { 'x-grok-conv-id': 'c1' }],
    ['prompt_cache_key', { prompt_cache_key: 'c2' }, {}],
  ])('reports the common prefix of a conversation named by %s, in blocks of 64', async (_, fields, headers) => {
    const first = await complete({ ...fields, messages: long('One?') }, headers);
    const second = await complete({ ...fields, messages: long('Two, and something more?') }, headers);
    const elsewhere = await complete({ messages: long('One?'), prompt_cache_key: 'another' });
    expect(first.usage.prompt_tokens_details.cached_tokens).toBe(0);
    expect(second.usage.prompt_tokens_details).toMatchObject({ text_tokens: second.usage.prompt_tokens, cached_tokens: 704 });
    expect(second.usage.cost_in_usd_ticks).toBe((second.usage.prompt_tokens - 704) * 12_500 + 704 * 2_000 + 20 * 25_000);
    expect(elsewhere.usage.prompt_tokens_details.cached_tokens).toBe(0);
  });

  it('never has the whole prompt', async () => {
    const messages = [{ role: 'user', content: 'x'.repeat(61 * 4) }]; // 64 tokens with its role
    for (let call = 0; call < 2; call++) {
      expect((await complete({ messages, prompt_cache_key: 'k' })).usage.prompt_tokens_details.cached_tokens).toBe(0);
    }
  });
});

describe('refusals', () => {
  it.each([
    ['a missing key', { authorization: '' }, 401, { code: 'unauthenticated:no-credentials', error: 'No credentials presented.' }],
    ['a wrong key', { authorization: 'Bearer xai-wrong' }, 400, { code: 'invalid-argument', error: 'Incorrect API key provided. You can obtain an API key from https://console.x.ai.' }],
    ['another content type', { 'content-type': 'text/plain' }, 415, { code: 'invalid-argument', error: expect.any(String) }],
  ])('%s', async (_, headers, status, body) => {
    const response = await post({ model: 'grok-4.3', messages: hello }, { headers });
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual(body);
    expect(response.headers.get('x-request-id')).toMatch(UUID);
    expect(response.headers.get('x-zero-data-retention')).toBe('false');
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('an empty body: 415; broken JSON: 400', async () => {
    expect((await post('')).status).toBe(415);
    expect((await post('{"model":')).status).toBe(400);
    expect(latest()).toMatchObject({ state: 'failed', body: '{"model":' });
  });

  it.each([
    [{ messages: undefined }, 'missing field `messages`'],
    [{ model: undefined }, 'missing field `model`'],
    [{ messages: 'Hi' }, 'messages: invalid type: string "Hi", expected a sequence'],
    [{ messages: [{ content: 'Hi' }] }, 'messages[0]: missing field `role`'],
    [{ messages: [{ role: 'user', content: 5 }] }, 'messages[0].content: invalid type: integer `5`, expected a string'],
    [{ messages: [{ role: 'boss', content: 'Hi' }] }, 'messages[0].role: unknown variant `boss`'],
    [{ messages: [{ role: 'user', content: [{ type: 'text' }] }] }, 'messages[0].content[0]: missing field `text`'],
    [{ max_tokens: -1 }, 'max_tokens: invalid type'],
    [{ stream: 'yes' }, 'stream: invalid type'],
    [{ x_emulator: { output_token: 1 } }, 'x_emulator: unknown field `output_token`'],
  ])('422 for %p', async (fields, text) => {
    const { status, code, error } = await refusalOf(fields);
    expect(status).toBe(422);
    expect(code).toBeUndefined();
    expect(error).toContain(`Failed to deserialize the JSON body into the target type: ${text}`);
  });

  it.each([
    [{ messages: [] }, 400, 'Bad data: Messages cannot be empty'],
    [{ messages: [{ role: 'user', content: [] }] }, 400, 'Invalid request content: Each message must have at least one content element.'],
    [{ presence_penalty: 0 }, 400, 'Argument not supported on this model: presencePenalty'],
    [{ model: 'grok-4.7', frequency_penalty: 0.5 }, 400, 'Argument not supported on this model: frequencyPenalty'],
    [{ model: 'grok-build-0.1', stop: ['x'] }, 400, 'Argument not supported on this model: stop'],
    [{ model: 'grok-build-0.1', reasoning_effort: 'low' }, 400, 'Model grok-build-0.1 does not support parameter reasoningEffort.'],
    [{ model: NO_REASONING, reasoning_effort: 'none' }, 400, `Model ${NO_REASONING} does not support parameter reasoningEffort.`],
    [{ model: 'grok-4.5', reasoning_effort: 'none' }, 400, 'reasoning effort none'],
    [{ model: 'grok-4.20-multi-agent' }, 400, 'Multi Agent'],
    [{ temperature: 2.5 }, 400, 'temperature'],
    [{ n: 0 }, 400, 'n: 0'],
    [{ model: 'grok-9' }, 404, 'The model grok-9 does not exist or your team'],
    [{ search_parameters: { mode: 'auto' } }, 410, 'Live search is deprecated.'],
    [{ deferred: true }, 501, 'does not imitate deferred completions'],
  ])('%j: %d', async (fields, status, text) => {
    const refusal = await refusalOf(fields);
    expect(refusal.status).toBe(status);
    expect(refusal.error).toContain(text);
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('a prompt that is longer than the context', async () => {
    const refusal = await refusalOf({ model: 'grok-build-0.1', messages: [{ role: 'user', content: 'x'.repeat(1_024_000) }] });
    expect(refusal).toMatchObject({ status: 400, error: "This model's maximum prompt length is 256000 but the request contains 256003 tokens." });
  });

  it('stream together with deferred: a bare JSON string', async () => {
    const response = await post({ model: 'grok-4.3', messages: hello, stream: true, deferred: true });
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual(expect.any(String));
  });

  it('accepts what a model does not refuse', async () => {
    await complete({ reasoning_effort: null, presence_penalty: 0.5, frequency_penalty: 0, stop: 'x', logprobs: true });
    await complete({ model: 'grok-4.3', reasoning_effort: 'none', presence_penalty: 0.5 });
    await complete({ model: 'grok-4.5', reasoning_effort: 'xhigh' });
    await complete({ model: 'grok-4.3', messages: [{ role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'a', arguments: '{}' } }] }, { role: 'tool', tool_call_id: 'call_1', content: '1' }] });
    expect(emulator.calls.every(({ state }) => state === 'completed')).toBe(true);
  });

  it('speaks the older dialect when told', async () => {
    await withEmulator({ errorDialect: 'sentence' }, async (other) => {
      const response = await post({ model: 'grok-9', messages: hello }, { at: other });
      expect(await response.json()).toMatchObject({ code: 'Some requested entity was not found' });
    });
  });
});

describe('billing of a broken call', () => {
  const outPrice = 25_000n;

  it('bills an aborted stream for prompt, reasoning and the tokens sent', async () => {
    await withEmulator({ pace: { firstTokenMs: 0, tokenIntervalMs: 10, reasoningTokenMs: 0 } }, async (other) => {
      const abort = new AbortController();
      const response = await post({ model: 'grok-4.3', messages: hello, stream: true, x_emulator: { output_tokens: 1_000, reasoning_tokens: 30 } }, { at: other, signal: abort.signal });
      const reader = response.body!.getReader();
      for (let read = 0; read < 5; read++) await reader.read();
      abort.abort();
      const call = await ended(other);
      expect(call.state).toBe('aborted');
      expect(call.completionTokens).toBeGreaterThanOrEqual(5);
      expect(call.completionTokens).toBeLessThan(50);
      expect(call.framesSent).toBe(call.completionTokens);
      expect(call.billedUsdTicks).toBe(8n * 12_500n + BigInt(30 + call.completionTokens) * outPrice);
      expect(other.billedUsdTicks()).toBe(call.billedUsdTicks);
    });
  });

  it('notices a caller who goes during silent reasoning, at once, and bills the reasoning so far', async () => {
    await withEmulator({ pace: { firstTokenMs: 0, tokenIntervalMs: 0, reasoningTokenMs: 10 } }, async (other) => {
      for (const stream of [true, false]) {
        other.reset();
        const startedMs = performance.now();
        await expect(post({ model: 'grok-4.3', messages: hello, stream, x_emulator: { reasoning_tokens: 6_000 } }, { at: other, signal: AbortSignal.timeout(100) }).then((response) => response.text())).rejects.toThrow();
        const call = await ended(other);
        expect(performance.now() - startedMs).toBeLessThan(1_000);
        expect(call).toMatchObject({ state: 'aborted', completionTokens: 0 });
        expect(call.reasoningTokens).toBeGreaterThanOrEqual(5);
        expect(call.reasoningTokens).toBeLessThan(100);
        expect(call.billedUsdTicks).toBe(8n * 12_500n + BigInt(call.reasoningTokens) * outPrice);
      }
    });
  });

  it('notices a caller who only ends its half of the connection', async () => {
    const body = JSON.stringify({ model: NO_REASONING, messages: hello, stream: true, x_emulator: { stall_before_headers: true } });
    const { hostname, port } = new URL(emulator.url);
    const socket = connect(Number(port), hostname);
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    while (emulator.calls.length === 0) await sleep(2);
    expect(latest().state).toBe('running');
    socket.end();
    expect(await ended()).toMatchObject({ state: 'aborted', billedUsdTicks: 100_000n });
  });
});

describe('scripts', () => {
  it('refuses with a status, body and retry-after, free of charge', async () => {
    const response = await stream({}, { status: 429, retry_after: 7 });
    expect(response.status).toBe(429);
    expect(response.headers.get('retry-after')).toBe('7');
    expect(await response.json()).toMatchObject({ code: 'resource-exhausted' });
    const own = await stream({}, { status: 503, body: 'plain' });
    expect([own.status, await own.json()]).toEqual([503, 'plain']);
    const page = await stream({}, { status: 522 });
    expect([page.status, page.headers.get('content-type')]).toEqual([522, 'text/html; charset=UTF-8']);
    expect(emulator.billedUsdTicks()).toBe(0n);
  });

  it('answers an error as a success', async () => {
    const response = await stream({}, { ok_with_error: true });
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json']);
    expect(await response.json()).toEqual({ code: 'The service is currently unavailable', error: expect.any(String) });
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it.each([
    ['flat', { code: 'The service is currently unavailable', error: expect.any(String) }],
    ['nested', { error: { message: expect.any(String), type: expect.any(String), code: expect.any(String) } }],
  ] as const)('sends a %s error frame in mid-stream', async (shape, body) => {
    const frames = await framesOf(stream({}, { error_frame_after: 3, error_shape: shape }));
    expect(frames).toHaveLength(4);
    expect(JSON.parse(frames[3]!)).toEqual(body);
    expect(latest()).toMatchObject({ state: 'failed', completionTokens: 3, billedUsdTicks: 100_000n + 3n * 25_000n });
    await framesOf(stream({}, { error_frame_after: 0 }));
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('cuts the connection between frames or within one, after everything before it has left', async () => {
    for (const script of [{ cut_after: 3 }, { cut_after: 3, cut_mid_frame: true }]) {
      let text = '';
      const read = async () => {
        for await (const part of (await stream({}, script)).body!) text += Buffer.from(part).toString();
      };
      await expect(read()).rejects.toThrow();
      expect(text.split('\n\n').slice(0, 3).every((frame) => JSON.parse(frame.slice(6)) !== undefined)).toBe(true);
      expect(text.split('\n\n')[3] === '').toBe(!('cut_mid_frame' in script));
      expect(await ended()).toMatchObject({ state: 'failed', framesSent: 3, billedUsdTicks: 175_000n });
    }
    await expect(complete({ x_emulator: { cut_after: 1 } })).rejects.toThrow();
  });

  it('stalls until the caller goes', async () => {
    await expect(stream({}, { stall_after: 2 }).then(async (response) => {
      const reader = response.body!.getReader();
      await reader.read();
      await Promise.race([reader.read(), sleep(100)]);
      expect(latest()).toMatchObject({ state: 'running', framesSent: 2 });
      await reader.cancel();
    })).resolves.toBeUndefined();
    expect(await ended()).toMatchObject({ state: 'aborted', billedUsdTicks: 150_000n });
  });

  it('ends without [DONE], without usage, in CRLF, with padded frames', async () => {
    const frames = await framesOf(stream({ stream_options: { include_usage: true } }, { no_done: true, no_usage: true, frame_bytes: 50 }));
    expect(frames).toHaveLength(21);
    expect(chunksOf(frames).slice(0, 20).every(({ choices }) => choices[0]!.delta.content!.length === 50)).toBe(true);
    expect(latest()).toMatchObject({ state: 'completed', completionTokens: 20 });
    const text = await (await stream({}, { crlf: true })).text();
    expect(text.split('\r\n\r\n')).toHaveLength(23);
    expect((await complete({ x_emulator: { no_usage: true } })).usage).toBeUndefined();
  });

  it('reports and bills another price or usage, and bills its own where theirs is no price', async () => {
    expect((await complete({ x_emulator: { cost_usd_ticks: 42 } })).usage.cost_in_usd_ticks).toBe(42);
    expect(latest().billedUsdTicks).toBe(42n);
    const usage = { prompt_tokens: -1, cost_in_usd_ticks: 77 };
    expect((await complete({ x_emulator: { usage } })).usage).toEqual(usage);
    expect(latest().billedUsdTicks).toBe(77n);
    await complete({ x_emulator: { usage: { cost_in_usd_ticks: 1.5 } } });
    expect(latest().billedUsdTicks).toBe(8n * 12_500n + 20n * 25_000n);
  });
});

describe('other routes', () => {
  const get = (path: string, key = KEY) => fetch(new URL(path, emulator.url), { headers: { authorization: `Bearer ${key}` } });

  it('lists models with prices that are ticks per token', async () => {
    const { object, data } = (await (await get('/v1/models')).json()) as { object: string; data: Record<string, unknown>[] };
    expect(object).toBe('list');
    expect(data).toHaveLength(8);
    expect(data.find(({ id }) => id === 'grok-4.3')).toEqual({
      id: 'grok-4.3', object: 'model', created: 1_776_384_000, owned_by: 'xai', aliases: ['grok-4.3-latest', 'grok-latest'], context_length: 1_000_000,
      prompt_text_token_price: 12_500, cached_prompt_text_token_price: 2_000, prompt_image_token_price: 12_500, completion_text_token_price: 25_000,
      prompt_text_token_price_long_context: 25_000, cached_prompt_text_token_price_long_context: 4_000, completion_text_token_price_long_context: 50_000,
      long_context_threshold: 200_000,
      capabilities: { reasoning_effort: ['none', 'low', 'medium', 'high'], default_reasoning_effort: 'low' },
    });
    expect(await (await get('/v1/models/grok-latest')).json()).toMatchObject({ id: 'grok-4.3' });
    const { models } = (await (await get('/v1/language-models')).json()) as { models: unknown[] };
    expect(models).toContainEqual(await (await get('/v1/language-models/grok-4.7')).json());
  });

  it('describes the key', async () => {
    expect(await (await get('/v1/api-key')).json()).toMatchObject({ redacted_api_key: 'xai-...b14o', api_key_blocked: false, acls: ['api-key:model:*', 'api-key:endpoint:*'] });
  });

  it.each([
    ['/v1/models', 'wrong', 400],
    ['/v1/models/grok-9', KEY, 404],
    ['/v1/models/%E0%A4%A', KEY, 404],
    ['/v1/nothing', KEY, 404],
    ['/v1/chat/completions', KEY, 405],
  ])('GET %s with key %s: %d', async (path, key, status) => {
    const response = await get(path, key);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: expect.any(String) });
    expect(response.headers.get('x-request-id')).toMatch(UUID);
  });

  it('shows its books to other processes, and keeps the totals of calls it has forgotten', async () => {
    await withEmulator({ logRequestsMax: 2 }, async (other) => {
      const control = (path: string, init?: RequestInit) => fetch(new URL(`/__emulator/${path}`, other.url), init);
      for (const content of ['a', 'b', 'c']) await post({ model: NO_REASONING, messages: hello, x_emulator: { content } }, { at: other });
      await post({ model: 'grok-9', messages: hello }, { at: other });
      expect(await (await control('bill')).json()).toEqual({ calls: 4, completed: 3, aborted: 0, failed: 1, running: 0, billed_usd_ticks: '375000' });
      expect(other.calls.map(({ model }) => model)).toEqual([NO_REASONING, 'grok-9']);
      expect(await (await control('calls?since=3')).json()).toMatchObject([{ model: 'grok-9', billedUsdTicks: '0', headers: { authorization: `Bearer ${KEY}` } }]);
      const pace = { first_token_ms: 60, token_interval_ms: 0, reasoning_token_ms: 0 };
      expect((await control('pace', { method: 'PUT', body: JSON.stringify(pace) })).status).toBe(204);
      const startedMs = performance.now();
      await (await post({ model: NO_REASONING, messages: hello }, { at: other })).text();
      expect(performance.now() - startedMs).toBeGreaterThanOrEqual(59);
      expect((await control('reset', { method: 'POST' })).status).toBe(204);
      expect(other.calls).toEqual([]);
      expect(other.billedUsdTicks()).toBe(0n);
    });
  });
});
