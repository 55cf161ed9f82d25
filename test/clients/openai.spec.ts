import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { settled } from '../support/records.ts';

// The `openai` package, unmodified: only `baseURL` and `apiKey` are changed. Its `fetch` is counted, not altered.

interface Hit {
  url: string;
  status: number;
  requestId: string | null;
}

const MESSAGES = [{ role: 'user' as const, content: 'Say hello.' }];

let harness: Harness;
let hits: Hit[];
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '0' } });
  hits = [];
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => {
  harness.emulator.reset();
  hits.length = 0;
});

async function client(apiKey?: string): Promise<OpenAI> {
  return new OpenAI({
    baseURL: `${harness.url}/v1`, apiKey: apiKey ?? (await harness.token()), maxRetries: 2,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      hits.push({ url: String(url instanceof Request ? url.url : url), status: response.status, requestId: response.headers.get('x-request-id') });
      return response;
    },
  });
}

/** Parameters for the emulator that the package's types do not know; it sends them as they are. */
function scripted<T extends object>(parameters: T, script: Record<string, unknown>): T {
  return { ...parameters, x_emulator: script };
}

async function failure(call: Promise<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> {
  try {
    await call;
  } catch (error) {
    if (error instanceof OpenAI.APIError) return error;
    throw error;
  }
  throw new Error('the call went well');
}

describe('the openai package', () => {
  it('lists the models and gets one', async () => {
    const openai = await client();
    const ids: string[] = [];
    for await (const model of openai.models.list()) ids.push(model.id);
    expect(ids).toEqual(expect.arrayContaining(['grok-beta', 'grok-pro', 'grok-enterprise', 'grok-4.7']));
    expect(await openai.models.retrieve('grok-beta')).toMatchObject({ id: 'grok-beta', object: 'model' });
  });

  it('completes', async () => {
    const openai = await client();
    const { data, response } = await openai.chat.completions.create(scripted({ model: 'grok-beta', messages: MESSAGES }, { content: 'Hello there.' })).withResponse();
    expect(data).toMatchObject({ object: 'chat.completion', choices: [{ message: { role: 'assistant', content: 'Hello there.' }, finish_reason: 'stop' }] });
    expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
    expect(data.usage!.total_tokens).toBeGreaterThan(0);
    expect(hits).toHaveLength(1);
  });

  it('streams', async () => {
    const openai = await client();
    const stream = await openai.chat.completions.create(scripted({ model: 'grok-beta', messages: MESSAGES, stream: true as const }, { content: 'Hello from a stream.' }));
    let text = '';
    const finishes: string[] = [];
    for await (const chunk of stream) {
      expect(chunk.usage ?? undefined).toBeUndefined();
      text += chunk.choices[0]?.delta.content ?? '';
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
    }
    expect(text).toBe('Hello from a stream.');
    expect(finishes).toEqual(['stop']);
  });

  it('streams with usage, which is what was charged', async () => {
    const openai = await client();
    const stream = await openai.chat.completions.create({ model: 'grok-beta', messages: MESSAGES, stream: true, stream_options: { include_usage: true } });
    const usages: OpenAI.CompletionUsage[] = [];
    for await (const chunk of stream) if (chunk.usage) usages.push(chunk.usage);
    expect(usages).toHaveLength(1);
    const { chargedTicks } = await settled(harness, hits[0]!.requestId);
    expect(BigInt((usages[0] as OpenAI.CompletionUsage & { cost_in_usd_ticks: number }).cost_in_usd_ticks)).toBe(chargedTicks);
  });

  it('collects a stream with its own helper', async () => {
    const openai = await client();
    const runner = openai.chat.completions.stream(scripted({ model: 'grok-beta', messages: MESSAGES }, { content: 'All of it.' }));
    expect((await runner.finalChatCompletion()).choices[0]!.message.content).toBe('All of it.');
  });

  const weather: OpenAI.ChatCompletionTool = { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } };
  it('calls a tool, and goes on with its result', async () => {
    const openai = await client();
    const first = await openai.chat.completions.create({ model: 'grok-beta', messages: MESSAGES, tools: [weather], tool_choice: 'required' });
    const { message, finish_reason: reason } = first.choices[0]!;
    expect(reason).toBe('tool_calls');
    const call = message.tool_calls![0]!;
    if (call.type !== 'function') throw new Error('not a function');
    expect(call.function.name).toBe('weather');
    expect(JSON.parse(call.function.arguments)).toEqual({ city: expect.any(String) });
    const second = await openai.chat.completions.create({ model: 'grok-beta', messages: [...MESSAGES, message, { role: 'tool', tool_call_id: call.id, content: 'sunny' }], tools: [weather] });
    expect(second.choices[0]!.finish_reason).toBe('stop');
  });

  it('calls a tool in a stream', async () => {
    const openai = await client();
    const runner = openai.chat.completions.stream({ model: 'grok-beta', messages: MESSAGES, tools: [weather], tool_choice: 'required' });
    const { choices } = await runner.finalChatCompletion();
    expect(choices[0]!.message.tool_calls![0]).toMatchObject({ type: 'function', function: { name: 'weather' } });
  });

  it('parses a structured answer', async () => {
    const openai = await client();
    const completion = await openai.chat.completions.parse({
      model: 'grok-beta', messages: MESSAGES,
      response_format: { type: 'json_schema', json_schema: { name: 'person', strict: true, schema: { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'], additionalProperties: false } } },
    });
    expect(JSON.parse(completion.choices[0]!.message.content!)).toEqual({ age: expect.any(Number) });
  });
});

describe('refusals, as the openai package sees them', () => {
  it('a 402 is an error with our code, and not retried', async () => {
    await harness.request('POST', '/admin/v1/tenants', { token: await harness.adminToken(), body: { id: 'penniless', name: 'Penniless', tier: 'standard' } });
    const openai = await client(await harness.token({ tenant: 'penniless' }));
    const error = await failure(openai.chat.completions.create({ model: 'grok-beta', messages: MESSAGES }));
    expect(error).toMatchObject({ status: 402, code: 'budget_exceeded', type: 'insufficient_quota' });
    expect(error.requestID).toBe(hits[0]!.requestId);
    expect(hits.map(({ status }) => status)).toEqual([402]);
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each<[string, number, Record<string, unknown>, string | undefined]>([
    ['AuthenticationError', 401, {}, 'not-a-token'],
    ['PermissionDeniedError', 403, { headers: { 'x-novix-data-class': 'restricted' } }, undefined],
    ['NotFoundError', 404, { model: 'grok-99' }, undefined],
    ['BadRequestError', 400, { stop: ['.'] }, undefined],
  ])('%s is what it throws at %d, once', async (name, status, { headers, ...change }, apiKey) => {
    const openai = await client(apiKey);
    const error = await failure(openai.chat.completions.create({ model: 'grok-beta', messages: MESSAGES, ...change }, { headers: (headers ?? {}) as Record<string, string> }));
    expect(error.constructor.name).toBe(name);
    expect(error.status).toBe(status);
    expect(hits.map((hit) => hit.status)).toEqual([status]);
  });

  it('a 429 is retried after retry-after, and throws in the end', async () => {
    const openai = await client();
    const startedMs = performance.now();
    const error = await failure(openai.chat.completions.create(scripted({ model: 'grok-beta', messages: MESSAGES }, { status: 429, retry_after: 1 }), { maxRetries: 1 }));
    expect(error).toMatchObject({ status: 429, code: 'rate_limit_exceeded', type: 'rate_limit_error' });
    expect(hits.map(({ status }) => status)).toEqual([429, 429]);
    expect(harness.emulator.calls).toHaveLength(2);
    expect(performance.now() - startedMs).toBeGreaterThan(900);
    await new Promise((resolve) => setTimeout(resolve, 1_000)); // so long the provider wants to be left alone
  });

  it('an error in mid-stream is thrown out of the loop, not taken for an end', async () => {
    const openai = await client();
    const stream = await openai.chat.completions.create(scripted({ model: 'grok-beta', messages: MESSAGES, stream: true as const }, { output_tokens: 12, cut_after: 4 }));
    let text = '';
    const error = await failure((async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    })());
    expect(text.length).toBeGreaterThan(0);
    expect(error).toMatchObject({ code: 'provider_bad_response', type: 'api_error' });
    expect(hits).toHaveLength(1);
  });
});

describe('an openai stream that is aborted', () => {
  it('is called off upstream within a second, settled and recorded', async () => {
    const openai = await client();
    const stream = await openai.chat.completions.create(scripted({ model: 'grok-beta', messages: MESSAGES, stream: true as const }, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }));
    let chunks = 0;
    for await (const chunk of stream) {
      expect(chunk.object).toBe('chat.completion.chunk');
      chunks += 1;
      if (chunks === 3) stream.controller.abort();
    }
    expect(chunks).toBe(3);
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted', 1_000);
    const record = await settled(harness, hits[0]!.requestId);
    expect(record).toMatchObject({ outcome: 'aborted', basis: 'observed' });
    expect(record.chargedTicks).toBeGreaterThanOrEqual(harness.emulator.calls[0]!.billedUsdTicks);
    expect(record.chargedTicks).toBeLessThan(record.heldTicks);
  });

  it('by leaving the loop is called off as well', async () => {
    const openai = await client();
    const stream = await openai.chat.completions.create(scripted({ model: 'grok-beta', messages: MESSAGES, stream: true as const }, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }));
    for await (const chunk of stream) {
      expect(chunk.choices).toHaveLength(1);
      break;
    }
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted', 1_000);
    expect((await settled(harness, hits[0]!.requestId)).outcome).toBe('aborted');
  });
});
