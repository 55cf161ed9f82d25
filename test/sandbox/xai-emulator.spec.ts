import { describe, expect, it } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import { countTokens } from '../../src/sandbox/emulated-tokens.ts';
import { KEY, NO_REASONING, UUID, type Completion, chunksOf, complete, emulator, framesOf, hello, latest, post, stream, withEmulator } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP.

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
      const fingerprint: unknown = expect.stringMatching(/^fp_[0-9a-f]{10}$/);
      expect(chunk).toMatchObject({ id: latest().id, object: 'chat.completion.chunk', model: NO_REASONING, system_fingerprint: fingerprint, service_tier: 'default' });
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
      {
        index: 0,
        delta: { content: '', role: 'assistant', tool_calls: [{ index: 0, id: expect.stringMatching(/^call_\d{8}$/), function: { name: 'ping', arguments: '{}' }, type: 'function' }] },
      },
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
      expect(arrivalsMs.length).toBeGreaterThan(2); // a write per token, some of which may be read together
      expect(arrivalsMs[0]).toBeGreaterThanOrEqual(80);
      expect(arrivalsMs.at(-1)).toBeGreaterThanOrEqual(180);
      expect(arrivalsMs.at(-1)).toBeLessThan(1_000);
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
