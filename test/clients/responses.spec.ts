import { createXai, type XaiProvider } from '@ai-sdk/xai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { APICallError, generateText, jsonSchema, streamText, tool } from 'ai';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import OpenAI from 'openai';
import { BUILT_IN_CONFIG } from '../../src/shared/config-files.ts';
import { expectBooksClosed } from '../support/calls.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { settled } from '../support/records.ts';
import { configFolder } from '../support/responses.ts';

// The packages `openai`, `ai` and `@ai-sdk/xai`, unmodified, on all endpoints but chat completions: only `baseURL` and `apiKey` are changed.
// Their `fetch` is counted, not altered.

const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const DIMENSIONS = 8;
const POLICIES = `
policies:
  - name: roles
    rules:
      - { id: developers-invoke, effect: allow, actions: [invoke], models: ["*"], when: [{ attr: principal.roles, op: in, value: [developer] }] }
      - { id: acme-keeps, effect: allow, actions: [store], models: ["*"], when: [{ attr: principal.tenant, op: eq, value: acme }] }
`;

let harness: Harness;
let folder: string;
let openai: OpenAI;
const hits: { status: number; requestId: string | null }[] = [];
beforeAll(async () => {
  const models = await readFile(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8');
  folder = await configFolder({ 'policies.yaml': POLICIES, 'models.yaml': models.replace(/( {2}- id: v1\n(?: {4}.*\n?)*)/, '$1    price: { usd_per_million: { input: "0.10" }, source: "a test", as_of: "2026-10" }\n') });
  harness = await startHarness({ emulator: { random: () => 0.5, embeddingModels: [{ id: 'v1', inputPriceTicks: 1_000, dimensions: DIMENSIONS }] }, env: { XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '100000', NOVIX_CONFIG_DIR: folder } });
  openai = await client();
});
afterAll(async () => {
  await expectBooksClosed(harness.db);
  await harness.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  harness.emulator.reset();
  hits.length = 0;
});

async function counted(url: string | URL | Request, init?: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  hits.push({ status: response.status, requestId: response.headers.get('x-request-id') });
  return response;
}

async function client(apiKey?: string): Promise<OpenAI> {
  return new OpenAI({ baseURL: `${harness.url}/v1`, apiKey: apiKey ?? (await harness.token()), maxRetries: 0, fetch: counted });
}

/** Parameters for the emulator that the packages’ types do not know; they send them as they are. */
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

/** The last of the calls was charged what the provider billed for it. */
async function expectCharged(): Promise<void> {
  const record = await settled(harness, hits.at(-1)!.requestId);
  expect(record.outcome).toBe('completed');
  expect(record.chargedTicks).toBe(harness.emulator.calls.at(-1)!.billedUsdTicks);
}

describe('responses of the openai package', () => {
  const weather: OpenAI.Responses.FunctionTool = { type: 'function', name: 'weather', description: 'The weather in a city', strict: true, parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false } };

  it('come whole', async () => {
    const { data, response } = await openai.responses.create(scripted({ model: 'grok-beta', input: 'Say hello.', instructions: 'Be brief.', store: false }, { content: 'Hello there.', reasoning_tokens: 5 })).withResponse();
    expect(data.output_text).toBe('Hello there.');
    expect(data).toMatchObject({ object: 'response', status: 'completed', usage: { output_tokens_details: { reasoning_tokens: 5 } } });
    expect(response.headers.get('x-novix-model')).toBe('grok-4.3');
    await expectCharged();
  });

  it('come as a stream of events', async () => {
    const stream = await openai.responses.create(scripted({ model: 'grok-beta', input: 'Say hello.', stream: true as const }, { content: 'Hello from a stream.', ping_every: 1 }));
    const numbers: number[] = [];
    let text = '';
    let last: OpenAI.Responses.ResponseStreamEvent | undefined;
    for await (const event of stream) {
      numbers.push(event.sequence_number);
      if (event.type === 'response.output_text.delta') text += event.delta;
      last = event;
    }
    expect(text).toBe('Hello from a stream.');
    expect(numbers).toEqual(numbers.map((_, index) => index));
    expect(last).toMatchObject({ type: 'response.completed', response: { status: 'completed' } });
    await expectCharged();
  });

  it('are put together by its own helper', async () => {
    const stream = openai.responses.stream(scripted({ model: 'grok-beta', input: 'Say hello.' }, { content: 'All of it.', reasoning_tokens: 3 }));
    const response = await stream.finalResponse();
    expect(response.output_text).toBe('All of it.');
    expect(response.output.map(({ type }) => type)).toEqual(['reasoning', 'message']);
  });

  it('call a function, and go on with its result', async () => {
    const first = await openai.responses.create({ model: 'grok-beta', input: 'The weather?', tools: [weather], tool_choice: 'required', store: false });
    const call = first.output.find((item) => item.type === 'function_call')!;
    expect(call.name).toBe('weather');
    expect(JSON.parse(call.arguments)).toEqual({ city: expect.any(String) });
    const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: 'The weather?' }, ...(first.output as OpenAI.Responses.ResponseInputItem[]), { type: 'function_call_output', call_id: call.call_id, output: 'sunny' }];
    const second = await openai.responses.create({ model: 'grok-beta', input, tools: [weather], store: false });
    expect(second.output_text).toMatch(/^This text stands in/);
    await expectCharged();
  });

  it('call a function in a stream', async () => {
    const stream = openai.responses.stream({ model: 'grok-beta', input: 'The weather?', tools: [weather], tool_choice: 'required' });
    let args = '';
    stream.on('response.function_call_arguments.delta', ({ delta }) => {
      args += delta;
    });
    const { output } = await stream.finalResponse();
    expect(output.at(-1)).toMatchObject({ type: 'function_call', name: 'weather', arguments: args });
    expect(JSON.parse(args)).toEqual({ city: expect.any(String) });
  });

  it('are parsed where a schema was given', async () => {
    const { output_parsed: parsed } = await openai.responses.parse<OpenAI.Responses.ResponseCreateParamsNonStreaming, { age: number }>({
      model: 'grok-beta', input: 'Somebody.',
      text: { format: { type: 'json_schema', name: 'person', strict: true, schema: { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'], additionalProperties: false } } },
    });
    expect(parsed).toEqual({ age: expect.any(Number) });
  });

  it('say that they are incomplete', async () => {
    const response = await openai.responses.create(scripted({ model: NO_REASONING, input: 'At length.', max_output_tokens: 4 }, { output_tokens: 40 }));
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    await expectCharged();
  });

  it('are kept, read, listed, continued and deleted', async () => {
    const first = await openai.responses.create(scripted({ model: NO_REASONING, input: 'Remember this.', store: true }, { content: 'I do.' }));
    const again = await openai.responses.retrieve(first.id);
    expect(again).toMatchObject({ id: first.id, output: first.output });
    const items: OpenAI.Responses.ResponseItem[] = [];
    for await (const item of openai.responses.inputItems.list(first.id, { limit: 1, order: 'asc' })) items.push(item);
    expect(items).toMatchObject([{ role: 'user', content: [{ text: 'Remember this.' }] }]);
    const second = await openai.responses.create({ model: NO_REASONING, input: 'What?', previous_response_id: first.id });
    expect(second.previous_response_id).toBe(first.id);
    expect(second.usage!.input_tokens).toBeGreaterThan(first.usage!.input_tokens);
    await expectCharged();
    await openai.responses.delete(first.id);
    expect(await failure(openai.responses.retrieve(first.id))).toMatchObject({ status: 404, code: 'not_found' });
  });

  it('of another tenant are NotFoundError', async () => {
    const { id } = await openai.responses.create({ model: NO_REASONING, input: 'Remember this.', store: true });
    const others = await client(await harness.token({ tenant: 'globex' }));
    const calls = [() => others.responses.retrieve(id), () => others.responses.delete(id), () => others.responses.create({ model: NO_REASONING, input: 'What?', previous_response_id: id, store: false })];
    for (const call of calls) expect((await failure(call())).constructor.name).toBe('NotFoundError');
  });

  it.each<[string, number, string, Record<string, unknown>]>([
    ['BadRequestError', 400, 'unsupported_parameter', { tools: [{ type: 'web_search' }] }],
    ['PermissionDeniedError', 403, 'policy_denied', { store: true }],
    ['NotFoundError', 404, 'model_not_found', { model: 'grok-99' }],
    ['InternalServerError', 503, 'provider_unavailable', { x_emulator: { status: 503 } }],
    ['InternalServerError', 502, 'provider_bad_response', { x_emulator: { error_frame_after: 2, output_tokens: 9 } }],
  ])('fail with %s at %d: %s', async (name, status, code, change) => {
    const others = await client(await harness.token({ tenant: 'globex' }));
    const error = await failure(others.responses.create({ model: 'grok-beta', input: 'Say hello.', ...change } as OpenAI.Responses.ResponseCreateParamsNonStreaming));
    expect(error.constructor.name).toBe(name);
    expect(error).toMatchObject({ status, code, requestID: hits[0]!.requestId });
  });

  it.each<[string, Record<string, unknown>]>([
    ['a cut', { cut_after: 4 }],
    ['an error event', { error_frame_after: 4 }],
    ['a nested error', { error_frame_after: 4, error_shape: 'nested' }],
    ['response.failed', { error_frame_after: 4, error_shape: 'failed' }],
    ['an error before any output', { error_frame_after: 0 }],
  ])('that break off are thrown out of the loop, not taken for an end: %s', async (_, script) => {
    const stream = await openai.responses.create(scripted({ model: NO_REASONING, input: 'Say hello.', stream: true as const }, { output_tokens: 12, ...script }));
    const types: string[] = [];
    const error = await failure((async () => {
      for await (const { type } of stream) types.push(type);
    })());
    expect(types[0]).toBe('response.created');
    expect(types.filter((type) => /completed|failed|incomplete|error/.test(type))).toEqual([]);
    expect(error).toMatchObject({ code: 'provider_bad_response', type: 'api_error' });
    expect(hits).toHaveLength(1);
  });

  it('that are aborted are called off upstream within a second, settled and recorded', async () => {
    const stream = await openai.responses.create(scripted({ model: 'grok-beta', input: 'At length.', stream: true as const }, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }));
    let deltas = 0;
    for await (const { type } of stream) {
      if (type === 'response.output_text.delta') deltas += 1;
      if (deltas === 3) stream.controller.abort();
    }
    expect(deltas).toBe(3);
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted', 1_000);
    const record = await settled(harness, hits[0]!.requestId);
    expect(record).toMatchObject({ outcome: 'aborted', basis: 'observed' });
    expect(record.chargedTicks).toBeGreaterThanOrEqual(harness.emulator.calls[0]!.billedUsdTicks);
    expect(record.chargedTicks).toBeLessThan(record.heldTicks);
  });

  it('whose loop is left are called off as well', async () => {
    const stream = await openai.responses.create(scripted({ model: 'grok-beta', input: 'At length.', stream: true as const }, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }));
    for await (const { type } of stream) {
      expect(type).toBe('response.created');
      break;
    }
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted', 1_000);
    expect((await settled(harness, hits[0]!.requestId)).outcome).toBe('aborted');
  });
});

describe('the openai package’s other endpoints', () => {
  it('complete a prompt', async () => {
    const completion = await openai.completions.create(scripted({ model: NO_REASONING, prompt: 'Say hello.', max_tokens: 50 }, { content: 'Hello there.' }));
    expect(completion).toMatchObject({ object: 'text_completion', choices: [{ text: 'Hello there.', finish_reason: 'stop' }] });
    await expectCharged();
  });

  it('complete a prompt in a stream', async () => {
    const stream = await openai.completions.create(scripted({ model: NO_REASONING, prompt: 'Say hello.', stream: true as const }, { content: 'Hello from a stream.' }));
    let text = '';
    const finishes: string[] = [];
    for await (const { choices } of stream) {
      text += choices[0]?.text ?? '';
      if (choices[0]?.finish_reason) finishes.push(choices[0].finish_reason);
    }
    expect(text).toBe('Hello from a stream.');
    expect(finishes).toEqual(['stop']);
    await expectCharged();
  });

  it('make images', async () => {
    const { data } = await openai.images.generate({ model: 'grok-imagine-image', prompt: 'A fox.', n: 2 });
    expect(data!.map(({ url }) => URL.canParse(url!))).toEqual([true, true]);
    await expectCharged();
    const encoded = await openai.images.generate({ model: 'grok-imagine-image', prompt: 'A fox.', response_format: 'b64_json' });
    expect(Buffer.from(encoded.data![0]!.b64_json!, 'base64').subarray(1, 4).toString()).toBe('PNG');
  });

  it('make vectors, which it asks for in base64 and decodes', async () => {
    const { data, usage } = await openai.embeddings.create({ model: 'v1', input: ['One.', 'Two.'] });
    expect(harness.emulator.calls[0]!.body).toMatchObject({ encoding_format: 'base64' });
    const plain = await openai.embeddings.create({ model: 'v1', input: ['One.', 'Two.'], encoding_format: 'float' });
    expect(data.map(({ embedding }) => embedding.length)).toEqual([DIMENSIONS, DIMENSIONS]);
    data.forEach(({ embedding }, index) => embedding.forEach((value, at) => expect(value).toBeCloseTo(plain.data[index]!.embedding[at]!, 6)));
    expect(usage.prompt_tokens).toBe(harness.emulator.calls[0]!.promptTokens);
    await expectCharged();
  });
});

describe('responses of @ai-sdk/xai', () => {
  let xai: XaiProvider;
  beforeAll(async () => {
    xai = createXai({ baseURL: `${harness.url}/v1`, apiKey: await harness.token(), fetch: counted });
  });
  const weather = tool({
    description: 'The weather in a city',
    inputSchema: jsonSchema<{ city: string }>({ type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false }),
  });

  it('give a text, with the tokens that were charged', async () => {
    const { text, finishReason, usage } = await generateText({ model: xai.responses('grok-beta'), prompt: 'Say hello.' });
    expect(text).toMatch(/^This text stands in for an answer of Grok/);
    expect(finishReason).toBe('stop');
    const upstream = harness.emulator.calls[0]!;
    expect(upstream.path).toBe('/v1/responses');
    expect(usage.inputTokens).toBe(upstream.promptTokens);
    expect(usage.outputTokens).toBe(upstream.completionTokens + upstream.reasoningTokens);
    await expectCharged();
  });

  it('stream a text', async () => {
    const result = streamText({ model: xai.responses('grok-beta'), prompt: 'Say hello.' });
    let text = '';
    for await (const part of result.textStream) text += part;
    expect(text).toMatch(/^This text stands in for an answer of Grok/);
    expect(await result.finishReason).toBe('stop');
    const upstream = harness.emulator.calls[0]!;
    expect((await result.usage).outputTokens).toBe(upstream.completionTokens + upstream.reasoningTokens);
    await expectCharged();
  });

  it('call a tool, and go on with its result, reasoning among what is sent back', async () => {
    const messages = [{ role: 'user' as const, content: 'The weather?' }];
    const first = await generateText({ model: xai.responses('grok-beta'), messages, tools: { weather }, toolChoice: 'required', providerOptions: { xai: { store: false } } });
    expect(first.finishReason).toBe('tool-calls');
    const [call] = first.toolCalls;
    expect(call).toMatchObject({ toolName: 'weather', input: { city: expect.any(String) } });
    const second = await generateText({
      model: xai.responses('grok-beta'), tools: { weather }, providerOptions: { xai: { store: false } },
      messages: [...messages, ...first.response.messages, { role: 'tool', content: [{ type: 'tool-result', toolCallId: call!.toolCallId, toolName: 'weather', output: { type: 'text', value: 'sunny' } }] }],
    });
    expect(second.finishReason).toBe('stop');
    const { input } = harness.emulator.calls[1]!.body as { input: { type?: string }[] };
    expect(input.map(({ type }) => type)).toEqual(expect.arrayContaining(['reasoning', 'function_call', 'function_call_output']));
    await expectCharged();
  });

  it('call a tool in a stream', async () => {
    const result = streamText({ model: xai.responses('grok-beta'), prompt: 'The weather?', tools: { weather }, toolChoice: 'required' });
    expect(await result.toolCalls).toMatchObject([{ toolName: 'weather', input: { city: expect.any(String) } }]);
    expect(await result.finishReason).toBe('tool-calls');
  });

  it('continue a stored one', async () => {
    const first = await generateText({ model: xai.responses(NO_REASONING), prompt: 'Remember this.' });
    const previousResponseId = first.response.id!;
    const second = await generateText({ model: xai.responses(NO_REASONING), prompt: 'What?', providerOptions: { xai: { previousResponseId } } });
    expect(second.usage.inputTokens).toBeGreaterThan(first.usage.inputTokens!);
    expect(harness.emulator.calls[1]!.body).toMatchObject({ previous_response_id: previousResponseId });
    await expectCharged();
  });

  it('are not retried at 402', async () => {
    await harness.request('POST', '/admin/v1/tenants', { token: await harness.adminToken(), body: { id: 'penniless', name: 'Penniless', tier: 'standard' } });
    const poor = createXai({ baseURL: `${harness.url}/v1`, apiKey: await harness.token({ tenant: 'penniless' }), fetch: counted });
    const error: unknown = await generateText({ model: poor.responses('grok-beta'), prompt: 'Say hello.', maxRetries: 2 }).catch((reason: unknown) => reason);
    expect(APICallError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ statusCode: 402, isRetryable: false, responseBody: expect.stringContaining('"code":"budget_exceeded"') });
    expect(hits).toHaveLength(1);
    expect(harness.emulator.calls).toHaveLength(0);
  });
});
