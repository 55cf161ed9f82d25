import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import OpenAI from 'openai';
import { checkLedger } from '../../../src/cost/ledger-check.ts';
import { BUILT_IN_CONFIG } from '../../../src/shared/config-files.ts';
import { deny, publish, removeAll, wallClock, wholeDatabase } from '../../support/access.ts';
import { ledgerOf, runningCalls } from '../../support/calls.ts';
import { adminOf, completeAt, startReplica, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled, ticksOf } from '../../support/records.ts';
import { configFolder, eventsIn, textOf, type ResponseObject } from '../../support/responses.ts';
import { expectError, framesOf, rawRequest, type ErrorAnswer } from '../../support/wire.ts';

// One call under one key: judged by what the provider received and billed, and by what the ledger says.

const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const IMAGE = 'grok-imagine-image';
const DAY_MS = 86_400_000;
/** DESIGN 3.1: `retry-after` in whole seconds, 60 at most. */
const RETRY_AFTER = /^([1-9]|[1-5]\d|60)$/;
const TEXT = 'The kept answer.';

interface Chunk {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: { index: number; delta: { role?: string; content?: string | null; tool_calls?: unknown[] }; text?: string; finish_reason?: string | null }[];
  usage?: { cost_in_usd_ticks: number };
}
interface Completion {
  id: string;
  object: string;
  created: number;
  model: string;
  choices: { index: number; message: { role: string; content: string }; text?: string; finish_reason: string }[];
  usage: { cost_in_usd_ticks: number };
}
interface Replay {
  outcome: string;
  replay_of: string;
}

const clock = wallClock();
let harness: Harness;
let folder: string;
let root: AdminCall;
let acme: string;
let globex: string;
let key: string;
beforeAll(async () => {
  const models = await readFile(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8');
  folder = await configFolder({ 'models.yaml': models.replace(/( {2}- id: v1\n(?: {4}.*\n?)*)/, '$1    price: { usd_per_million: { input: "0.10" }, source: "a test", as_of: "2026-10" }\n') });
  harness = await startHarness({
    clock, emulator: { random: () => 0.5, embeddingModels: [{ id: 'v1', inputPriceTicks: 1_000, dimensions: 8 }] },
    env: { NOVIX_CONFIG_DIR: folder, XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '100000' },
  });
  root = adminOf(harness, await harness.adminToken());
  acme = await harness.token();
  globex = await harness.token({ tenant: 'globex', subject: 'dev@globex.example' });
});
afterAll(async () => {
  await harness.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  harness.emulator.setFaults([]);
  harness.emulator.reset();
  key = randomUUID();
});
afterEach(() => expectBooksWithReplays());

/** Whatever a test did: every call has one intent and one outcome, a replay has an outcome alone, nothing is held, and the ledger adds up. */
async function expectBooksWithReplays(): Promise<void> {
  await eventually(async () => harness.gateway.parts.admission.open === 0 && (await ledgerOf(harness.db)).open === 0);
  const { rows } = await harness.db.query<{ intents: number; outcomes: number; replays: number }>(
    `SELECT count(*) FILTER (WHERE phase = 'intent')::int AS intents, count(*) FILTER (WHERE phase = 'outcome' AND outcome <> 'replayed')::int AS outcomes, count(*) FILTER (WHERE phase = 'outcome' AND outcome = 'replayed')::int AS replays
     FROM (SELECT event->'metadata'->>'correlation_uid' AS id, event->'unmapped'->'novix'->>'phase' AS phase, event->'unmapped'->'novix'->>'outcome' AS outcome FROM audit_events) e
     WHERE phase IN ('intent', 'outcome') GROUP BY id`);
  expect(rows.filter(({ intents, outcomes, replays }) => !(intents === 1 && outcomes === 1 && replays === 0) && !(intents === 0 && outcomes === 0 && replays === 1))).toEqual([]);
  const client = await harness.db.connect();
  try {
    expect((await checkLedger(async (sql) => (await client.query(sql)).rows)).faults).toEqual([]);
  } finally {
    client.release();
  }
}

interface SendOptions {
  under?: string;
  token?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

function send(path: string, body: unknown, { under = key, token = acme, headers = {}, signal }: SendOptions = {}): Promise<Response> {
  return harness.request('POST', path, { body, token, headers: { 'idempotency-key': under, ...headers }, ...(signal && { signal }) });
}
const chat = (body: Record<string, unknown> = {}, options: SendOptions = {}): Promise<Response> => send('/v1/chat/completions', { model: 'grok-beta', messages: HELLO, ...body }, options);
const idOf = (response: Response): string => response.headers.get('x-request-id')!;

/** The body of an answer that is the first of its kind. */
async function firstText(answer: Promise<Response> | Response): Promise<string> {
  const response = await answer;
  const text = await response.text();
  expect({ status: response.status, text: response.status === 200 ? '' : text }).toEqual({ status: 200, text: '' });
  expect(response.headers.get('idempotent-replayed')).toBeNull();
  return text;
}

/** The body of an answer that is a repeat's. */
async function repeatedText(answer: Promise<Response> | Response, status = 200): Promise<string> {
  const response = await answer;
  const text = await response.text();
  expect({ status: response.status, text: response.status === status ? '' : text }).toEqual({ status, text: '' });
  expect(response.headers.get('idempotent-replayed')).toBe('true');
  expect(response.headers.get('x-novix-cache')).toBe('hit');
  expect(ticksOf(response.headers.get('x-novix-cost-usd'))).toBe(0n);
  expect(response.headers.get('x-novix-attempts')).toBe('0');
  expect(response.headers.get('x-novix-decision-id')).toMatch(/^[0-9a-f-]{36}$/);
  return text;
}

/** What `work` added to a tenant's bill. */
async function charges(work: () => Promise<unknown>, tenant = 'acme'): Promise<{ calls: number; ticks: bigint }> {
  const before = await ledgerOf(harness.db, tenant);
  await work();
  await eventually(() => harness.gateway.parts.admission.open === 0);
  const after = await ledgerOf(harness.db, tenant);
  return { calls: after.calls - before.calls, ticks: after.chargedTicks - before.chargedTicks };
}

function chunksIn(text: string): Chunk[] {
  const frames = framesOf(text);
  expect(frames.at(-1)).toBe('data: [DONE]');
  return frames.slice(0, -1).map((frame) => JSON.parse(frame.replace(/^data: /, '')) as Chunk);
}
const said = (chunks: readonly Chunk[], index = 0): string => chunks.flatMap(({ choices }) => choices).filter((choice) => choice.index === index).map(({ delta }) => delta.content ?? '').join('');
const finishes = (chunks: readonly Chunk[]): (string | null | undefined)[] => chunks.flatMap(({ choices }) => choices).map(({ finish_reason: reason }) => reason).filter((reason) => typeof reason === 'string');

async function claims(tenant = 'acme', under = key): Promise<{ status: number | null; result: Buffer | null; request_id: string; expires_at: Date }[]> {
  const { rows } = await harness.db.query<{ status: number | null; result: Buffer | null; request_id: string; expires_at: Date }>(
    'SELECT status, result, request_id, expires_at FROM idempotency_keys WHERE tenant_id = $1 AND key_hash = $2', [tenant, hashOf(under)]);
  return rows;
}
const hashOf = (under: string): Buffer => createHash('sha256').update(under).digest();

/** Makes a key's 24 hours be over. */
async function expire(under = key): Promise<void> {
  expect((await harness.db.query("UPDATE idempotency_keys SET expires_at = now() - interval '1 second' WHERE key_hash = $1", [hashOf(under)])).rowCount).toBe(1);
}

describe('a repeat', () => {
  it.each<[string, string, Record<string, unknown>]>([
    ['a chat', '/v1/chat/completions', { model: 'grok-beta', messages: HELLO }],
    ['a chat with two choices', '/v1/chat/completions', { model: 'grok-beta', messages: HELLO, n: 2 }],
    ['a text completion', '/v1/completions', { model: NO_REASONING, prompt: 'Say hello.' }],
    ['a response', '/v1/responses', { model: 'grok-beta', input: 'Say hello.' }],
    ['embeddings', '/v1/embeddings', { model: 'v1', input: ['One sentence.', 'Another one.'] }],
    ['an image', '/v1/images/generations', { model: IMAGE, prompt: 'A fox.' }],
    ['tokens', '/v1/tokenize-text', { model: 'grok-beta', text: 'Say hello.' }],
  ])('of %s is answered as the first was, without a second call or charge', async (_, path, body) => {
    const first = await charges(async () => {
      const text = await firstText(send(path, body));
      const repeats = await charges(async () => {
        for (let repeat = 0; repeat < 3; repeat += 1) expect(JSON.parse(await repeatedText(send(path, body)))).toEqual(JSON.parse(text));
      });
      expect(repeats).toEqual({ calls: 0, ticks: 0n });
    });
    expect(harness.emulator.calls).toHaveLength(1);
    expect(first).toEqual({ calls: 1, ticks: harness.emulator.billedUsdTicks() });
  });

  it('of a plain chat has the very bytes of the first', async () => {
    const text = await firstText(chat());
    const response = await chat();
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(await repeatedText(response)).toBe(text);
  });

  it('under another key, or without one, is another call', async () => {
    await firstText(chat());
    await firstText(chat({}, { under: `${key}-` }));
    await firstText(chat({}, { under: key.toUpperCase() }));
    await firstText(harness.complete());
    expect(harness.emulator.calls).toHaveLength(4);
  });

  it('is not told of the first call’s rate limits or attempts, and has a request id and a decision of its own', async () => {
    const first = await chat();
    const repeat = await chat();
    expect(idOf(repeat)).not.toBe(idOf(first));
    expect(repeat.headers.get('x-novix-decision-id')).not.toBe(first.headers.get('x-novix-decision-id'));
    await Promise.all([first.text(), repeatedText(repeat)]);
  });

  it('costs nothing of what the tenant may still spend: with an empty budget it is answered all the same', async () => {
    const text = await firstText(chat());
    await withoutMoney(async () => {
      await expectError(await chat({}, { under: `${key}-new` }), 402, 'budget_exceeded');
      expect(await repeatedText(chat())).toBe(text);
    });
  });

  it('of an answer from the stream of a tool call has the call', async () => {
    const weather = { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } };
    const body = { tools: [weather], tool_choice: 'required' };
    const first = JSON.parse(await firstText(chat(body))) as { choices: { message: { tool_calls: unknown[] }; finish_reason: string }[] };
    expect(first.choices).toMatchObject([{ message: { tool_calls: [{ type: 'function', function: { name: 'weather' } }] }, finish_reason: 'tool_calls' }]);
    expect(JSON.parse(await repeatedText(chat(body)))).toEqual(first);
  });
});

describe('the form of a repeat', () => {
  it('of a plain chat is a stream where it asks for one', async () => {
    const whole = JSON.parse(await firstText(chat({ x_emulator: { content: TEXT } }))) as Completion;
    const response = await chat({ stream: true, x_emulator: { content: TEXT } });
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const chunks = chunksIn(await repeatedText(response));
    expect(said(chunks)).toBe(TEXT);
    expect(finishes(chunks)).toEqual(['stop']);
    expect(chunks[0]!.choices[0]!.delta.role).toBe('assistant');
    expect(new Set(chunks.map(({ id, object, created, model }) => JSON.stringify([id, object, created, model])))).toEqual(new Set([JSON.stringify([whole.id, 'chat.completion.chunk', whole.created, whole.model])]));
    expect(chunks.filter((chunk) => chunk.usage !== undefined)).toEqual([]);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('of a plain chat streams the usage where that is asked for', async () => {
    const whole = JSON.parse(await firstText(chat())) as Completion;
    const chunks = chunksIn(await repeatedText(chat({ stream: true, stream_options: { include_usage: true } })));
    expect(chunks.filter(({ usage }) => usage !== undefined)).toMatchObject([{ choices: [], usage: whole.usage }]);
    expect(chunks.at(-1)!.usage).toEqual(whole.usage);
    expect(whole.usage.cost_in_usd_ticks).toBeGreaterThan(0);
  });

  it('of a plain chat with two choices streams both', async () => {
    const whole = JSON.parse(await firstText(chat({ n: 2 }))) as Completion;
    const chunks = chunksIn(await repeatedText(chat({ n: 2, stream: true })));
    expect(whole.choices.map(({ index }) => said(chunks, index))).toEqual(whole.choices.map(({ message }) => message.content));
    expect(whole.choices).toHaveLength(2);
    expect(finishes(chunks)).toEqual(['stop', 'stop']);
  });

  it('of a streamed chat is plain where it does not ask for a stream; the usage is in it', async () => {
    const chunks = chunksIn(await firstText(chat({ stream: true, x_emulator: { content: TEXT } })));
    const whole = JSON.parse(await repeatedText(chat({ x_emulator: { content: TEXT } }))) as Completion;
    expect(whole).toMatchObject({ id: chunks[0]!.id, object: 'chat.completion', created: chunks[0]!.created, model: chunks[0]!.model, choices: [{ index: 0, message: { role: 'assistant', content: TEXT }, finish_reason: 'stop' }] });
    expect(BigInt(whole.usage.cost_in_usd_ticks)).toBe(harness.emulator.billedUsdTicks());
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('of a streamed chat is the same answer in a stream', async () => {
    const first = chunksIn(await firstText(chat({ stream: true, stream_options: { include_usage: true }, x_emulator: { output_tokens: 30, reasoning_tokens: 7 } })));
    const again = chunksIn(await repeatedText(chat({ stream: true, stream_options: { include_usage: true }, x_emulator: { output_tokens: 30, reasoning_tokens: 7 } })));
    expect(said(again)).toBe(said(first));
    expect(said(first).length).toBeGreaterThan(10);
    expect([again[0]!.id, finishes(again), again.at(-1)!.usage]).toEqual([first[0]!.id, finishes(first), first.at(-1)!.usage]);
  });

  it.each([
    ['first', `{"stream":true,"model":"grok-beta","messages":${JSON.stringify(HELLO)}}`],
    ['in the middle', `{"model":"grok-beta","stream":true,"messages":${JSON.stringify(HELLO)}}`],
    ['last', `{"model":"grok-beta","messages":${JSON.stringify(HELLO)},"stream":true}`],
    ['as a no', `{"model":"grok-beta","messages":${JSON.stringify(HELLO)},"stream":false}`],
    ['with options', `{"model":"grok-beta","stream":true,"messages":${JSON.stringify(HELLO)},"stream_options":{"include_usage":true}}`],
  ])('is no part of what is compared, wherever `stream` stands: %s', async (_, body) => {
    await firstText(send('/v1/chat/completions', `{"model":"grok-beta","messages":${JSON.stringify(HELLO)}}`));
    await repeatedText(send('/v1/chat/completions', body));
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('of a text completion goes both ways', async () => {
    const body = { model: NO_REASONING, prompt: 'Say hello.', x_emulator: { content: TEXT } };
    const plain = JSON.parse(await firstText(send('/v1/completions', body))) as Completion;
    const chunks = chunksIn(await repeatedText(send('/v1/completions', { ...body, stream: true, stream_options: { include_usage: true } })));
    expect(plain.choices[0]!.text).toBe(TEXT);
    expect(chunks.flatMap(({ choices }) => choices).map(({ text }) => text ?? '').join('')).toBe(TEXT);
    expect(finishes(chunks)).toEqual(['stop']);
    expect(new Set(chunks.map(({ object, id }) => `${object} ${id}`))).toEqual(new Set([`text_completion ${plain.id}`]));
    expect(chunks.at(-1)!.usage).toEqual(plain.usage);

    const streamed = chunksIn(await firstText(send('/v1/completions', { ...body, stream: true }, { under: `${key}-2` })));
    expect(JSON.parse(await repeatedText(send('/v1/completions', body, { under: `${key}-2` })))).toMatchObject({ id: streamed[0]!.id, object: 'text_completion', choices: [{ index: 0, text: TEXT, finish_reason: 'stop' }] });
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('of a response goes both ways', async () => {
    const body = { model: 'grok-beta', input: 'Say hello.', x_emulator: { content: TEXT, reasoning_tokens: 4 } };
    const plain = JSON.parse(await firstText(send('/v1/responses', body))) as ResponseObject;
    const events = eventsIn(await repeatedText(send('/v1/responses', { ...body, stream: true })));
    expect(events.at(-1)).toMatchObject({ type: 'response.completed', response: plain });
    expect(events.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta).join('')).toBe(TEXT);

    const streamed = eventsIn(await firstText(send('/v1/responses', { ...body, stream: true }, { under: `${key}-2` })));
    const again = JSON.parse(await repeatedText(send('/v1/responses', body, { under: `${key}-2` }))) as ResponseObject;
    expect(again).toEqual(streamed.at(-1)!.response);
    expect(textOf(again)).toBe(TEXT);
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('of a response that ran into its limit is still incomplete', async () => {
    const body = { model: NO_REASONING, input: 'Say hello.', max_output_tokens: 5, x_emulator: { output_tokens: 50 } };
    const plain = JSON.parse(await firstText(send('/v1/responses', body))) as ResponseObject;
    expect(plain.status).toBe('incomplete');
    expect(eventsIn(await repeatedText(send('/v1/responses', { ...body, stream: true }))).at(-1)).toMatchObject({ type: 'response.incomplete', response: plain });
  });
});

describe('the openai package', () => {
  const openai = (): OpenAI => new OpenAI({ baseURL: `${harness.url}/v1`, apiKey: acme, maxRetries: 0 });
  const under = (): { headers: Record<string, string> } => ({ headers: { 'idempotency-key': key } });
  const messages = [{ role: 'user' as const, content: 'Say hello.' }];
  const scripted = <T extends object>(parameters: T): T => ({ ...parameters, x_emulator: { content: TEXT } });

  it('reads a replayed stream of a chat, by hand and with its helper', async () => {
    const whole = await openai().chat.completions.create(scripted({ model: 'grok-beta', messages }), under());
    const { data: stream, response } = await openai().chat.completions.create(scripted({ model: 'grok-beta', messages, stream: true as const }), under()).withResponse();
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    expect([text, response.headers.get('idempotent-replayed')]).toEqual([TEXT, 'true']);
    const collected = await openai().chat.completions.stream(scripted({ model: 'grok-beta', messages }), under()).finalChatCompletion();
    expect(collected).toMatchObject({ id: whole.id, choices: [{ message: { role: 'assistant', content: TEXT }, finish_reason: 'stop' }] });
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('reads a replayed stream of a chat that calls tools', async () => {
    const tools = [{ type: 'function' as const, function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } }];
    const parameters = { model: 'grok-beta', messages, tools, tool_choice: 'required' as const };
    const whole = await openai().chat.completions.create(parameters, under());
    const collected = await openai().chat.completions.stream(parameters, under()).finalChatCompletion();
    const callsIn = (choices: { message: { tool_calls?: { id: string; function?: { name: string; arguments: string } }[] | null } }[]): unknown[] =>
      choices[0]!.message.tool_calls!.map((call) => [call.id, call.function!.name, call.function!.arguments]);
    expect(callsIn(collected.choices as never)).toEqual(callsIn(whole.choices as never));
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('reads a plain answer to a chat that was streamed', async () => {
    const stream = await openai().chat.completions.create(scripted({ model: 'grok-beta', messages, stream: true as const }), under());
    const ids = new Set<string>();
    for await (const chunk of stream) ids.add(chunk.id);
    const whole = await openai().chat.completions.create(scripted({ model: 'grok-beta', messages }), under());
    expect([whole.choices[0]!.message.content, new Set([whole.id])]).toEqual([TEXT, ids]);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('reads a replayed stream of a response', async () => {
    const parameters = { model: 'grok-beta', input: 'Say hello.', store: false };
    const whole = await openai().responses.create(scripted(parameters), under());
    const final = await openai().responses.stream(scripted(parameters), under()).finalResponse();
    expect([final.id, final.output_text, final.usage]).toEqual([whole.id, TEXT, whole.usage]);
    const stream = await openai().responses.create(scripted({ ...parameters, stream: true as const }), under());
    let text = '';
    for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta;
    expect(text).toBe(TEXT);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('reads a replayed stream of a response that calls a tool', async () => {
    const weather = { type: 'function' as const, name: 'weather', strict: false, parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } };
    const parameters = { model: 'grok-beta', input: 'The weather?', tools: [weather], tool_choice: 'required' as const, store: false };
    const whole = await openai().responses.create(parameters, under());
    const final = await openai().responses.stream(parameters, under()).finalResponse();
    const callIn = (response: { output: { type: string }[] }): unknown => response.output.find(({ type }) => type === 'function_call');
    expect(callIn(final)).toMatchObject(callIn(whole) as object);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('is told at once that a key is taken by another request, without retries', async () => {
    await openai().chat.completions.create(scripted({ model: 'grok-beta', messages }), under());
    const statuses: number[] = [];
    const client = new OpenAI({
      baseURL: `${harness.url}/v1`, apiKey: acme, maxRetries: 2,
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        statuses.push(response.status);
        return response;
      },
    });
    await expect(client.chat.completions.create({ model: 'grok-beta', messages }, under())).rejects.toMatchObject({ status: 409, code: 'idempotency_conflict' });
    expect(statuses).toEqual([409]);
  });

  it('waits for a call that is under way, and gets its answer', async () => {
    const parameters = { model: 'grok-beta', messages, x_emulator: { content: TEXT, first_token_ms: 700 } };
    const first = openai().chat.completions.create(parameters, under());
    await eventually(() => runningCalls(harness.emulator).length === 1);
    const repeat = await new OpenAI({ baseURL: `${harness.url}/v1`, apiKey: acme, maxRetries: 3 }).chat.completions.create(parameters, under());
    expect(repeat).toEqual(await first);
    expect(harness.emulator.calls).toHaveLength(1);
  });
});

describe('repeats at once', () => {
  it.each([[false, 0], [true, 0], [false, 250]])('fifty of them are one call and one charge (stream: %p, the provider takes %i ms)', async (stream, delay) => {
    const body = { x_emulator: { content: TEXT, delay_ms: delay } };
    const answers: { status: number; retryAfter: string | null; text: string }[] = [];
    const bill = await charges(async () => {
      await Promise.all(Array.from({ length: 50 }, async () => {
        const response = await chat({ ...body, stream });
        answers.push({ status: response.status, retryAfter: response.headers.get('retry-after'), text: await response.text() });
      }));
    });
    const good = answers.filter(({ status }) => status === 200);
    expect(good.length).toBeGreaterThan(0);
    expect(good.map(({ text }) => (stream ? said(chunksIn(text)) : (JSON.parse(text) as Completion).choices[0]!.message.content))).toEqual(good.map(() => TEXT));
    const refused = answers.filter(({ status }) => status !== 200);
    expect(refused.map(({ status, text }) => [status, (JSON.parse(text) as ErrorAnswer).error.code])).toEqual(refused.map(() => [409, 'idempotency_conflict']));
    expect(refused.filter(({ retryAfter }) => !RETRY_AFTER.test(retryAfter ?? ''))).toEqual([]);
    expect(harness.emulator.calls).toHaveLength(1);
    expect(bill).toEqual({ calls: 1, ticks: harness.emulator.billedUsdTicks() });
    expect(await repeatedText(chat(body))).toContain(TEXT);
  });

  it('fifty keys at once, each sent twice, are fifty calls', async () => {
    const bill = await charges(async () => {
      const statuses = await Promise.all(Array.from({ length: 100 }, async (_, index) => {
        const response = await chat({}, { under: `${key}-${index % 50}` });
        await response.arrayBuffer();
        return response.status;
      }));
      expect(statuses.filter((status) => status !== 200 && status !== 409)).toEqual([]);
    });
    expect(harness.emulator.calls).toHaveLength(50);
    expect(bill).toEqual({ calls: 50, ticks: harness.emulator.billedUsdTicks() });
  });

  it('while the first is under way: 409 with retry-after for the same body, without for another; afterwards its answer', async () => {
    const script = { x_emulator: { content: TEXT, first_token_ms: 600 } };
    const first = chat(script);
    await eventually(() => runningCalls(harness.emulator).length === 1);
    const same = await chat(script);
    expect(same.headers.get('retry-after')).toMatch(RETRY_AFTER);
    expect(same.headers.get('x-should-retry')).not.toBe('false');
    const streamed = await chat({ ...script, stream: true });
    expect(streamed.headers.get('retry-after')).toMatch(RETRY_AFTER);
    const other = await chat({ ...script, max_tokens: 50 });
    expect([other.headers.get('retry-after'), other.headers.get('x-should-retry')]).toEqual([null, 'false']);
    for (const response of [same, streamed, other]) await expectError(response, 409, 'idempotency_conflict');
    const text = await firstText(first);
    expect(await repeatedText(chat(script))).toBe(text);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('a stream that has begun to arrive is under way until it is settled', async () => {
    const script = { x_emulator: { output_tokens: 60, reasoning_tokens: 0, token_interval_ms: 20 } };
    const first = await chat({ ...script, stream: true });
    expect(first.status).toBe(200);
    const running = await chat(script);
    expect(running.headers.get('retry-after')).toMatch(RETRY_AFTER);
    await expectError(running, 409, 'idempotency_conflict');
    const text = said(chunksIn(await first.text()));
    expect((JSON.parse(await repeatedText(chat(script))) as Completion).choices[0]!.message.content).toBe(text);
  });
});

describe('a key that was used for something else', () => {
  it.each<[string, Record<string, unknown>]>([
    ['another message', { messages: [{ role: 'user', content: 'Say goodbye.' }] }],
    ['another model', { model: 'grok-4.7' }],
    ['another limit', { max_tokens: 17 }],
    ['a stream of another message', { stream: true, messages: [{ role: 'user', content: 'Say goodbye.' }] }],
    ['an unknown member', { something: 1 }],
  ])('is 409 for %s, and stays good for the first request', async (_, change) => {
    const text = await firstText(chat());
    const refused = await chat(change);
    expect([refused.headers.get('retry-after'), refused.headers.get('x-should-retry'), refused.headers.get('idempotent-replayed')]).toEqual([null, 'false', null]);
    const error = await expectError(refused, 409, 'idempotency_conflict');
    expect(error.type).toBe('invalid_request_error');
    expect(harness.emulator.calls).toHaveLength(1);
    expect(await repeatedText(chat())).toBe(text);
    await eventOf(harness, idOf(refused), 'refusal');
  });

  it('is 409 for another endpoint with the very same body', async () => {
    const body = JSON.stringify({ model: 'grok-beta', messages: HELLO, input: 'Say hello.' });
    await firstText(send('/v1/chat/completions', body));
    await expectError(await send('/v1/responses', body), 409, 'idempotency_conflict');
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('is another tenant’s own: both call and pay, and neither gets the other’s answer', async () => {
    const ours = await firstText(chat());
    const theirs = await firstText(chat({}, { token: globex }));
    expect(harness.emulator.calls).toHaveLength(2);
    expect((JSON.parse(theirs) as Completion).id).not.toBe((JSON.parse(ours) as Completion).id);
    expect(await repeatedText(chat({}, { token: globex }))).toBe(theirs);
    expect(await repeatedText(chat())).toBe(ours);
    await expectError(await chat({ max_tokens: 9 }, { token: globex }), 409, 'idempotency_conflict');
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('is shared by the principals of one tenant: the record says who was given the answer', async () => {
    const first = await chat();
    const text = await firstText(first);
    const colleague = await chat({}, { token: await harness.token({ subject: 'colleague@acme.example' }) });
    expect(await repeatedText(colleague)).toBe(text);
    const event = await eventOf(harness, idOf(colleague), 'outcome');
    expect([event.actor.user.uid, (event.unmapped.novix as unknown as Replay).replay_of]).toEqual(['colleague@acme.example', idOf(first)]);
  });
});

/** Leaves nothing of acme's budget while `work` runs. */
async function withoutMoney(work: () => Promise<void>): Promise<void> {
  const { rows: [budget] } = await harness.db.query<{ id: string; limit: string }>("SELECT id, limit_ticks AS limit FROM budgets WHERE tenant_id = 'acme' AND scope = 'tenant'");
  await harness.db.query('UPDATE budgets SET limit_ticks = spent_ticks WHERE id = $1', [budget!.id]);
  try {
    await work();
  } finally {
    await harness.db.query('UPDATE budgets SET limit_ticks = $2 WHERE id = $1', [budget!.id, budget!.limit]);
  }
}

describe('a call that is refused leaves no claim', () => {
  afterEach(async () => {
    await removeAll(root, '/policies');
  });

  it('402: with money again, the key is good', async () => {
    await withoutMoney(async () => {
      await expectError(await chat(), 402, 'budget_exceeded');
      expect(await claims()).toEqual([]);
      await Promise.all(Array.from({ length: 10 }, async () => expect([402, 409]).toContain((await chat()).status)));
      expect(await claims()).toEqual([]);
    });
    expect(harness.emulator.calls).toHaveLength(0);
    await firstText(chat({ max_tokens: 30 }));
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('403: without the policy, the key is good', async () => {
    await publish(root, [deny('closed')]);
    await expectError(await chat(), 403, 'policy_denied');
    expect(await claims()).toEqual([]);
    await removeAll(root, '/policies');
    await firstText(chat({ max_tokens: 30 }));
  });

  it.each<[string, unknown, number]>([['no JSON', '{"model":', 400], ['a wrong type', { model: 'grok-beta', messages: 7 }, 400], ['no such model', { model: 'grok-99', messages: HELLO }, 404]])('%s: another body may use the key', async (_, body, status) => {
    const response = await send('/v1/chat/completions', body);
    expect([response.status, await claims()]).toEqual([status, []]);
    await response.arrayBuffer();
    await firstText(chat());
  });

  it('401: a key without a caller is nobody’s', async () => {
    await expectError(await chat({}, { token: 'not-a-token' }), 401, 'invalid_token');
    const { rows } = await harness.db.query('SELECT 1 FROM idempotency_keys WHERE key_hash = $1', [hashOf(key)]);
    expect(rows).toEqual([]);
  });
});

describe('a policy', () => {
  afterEach(async () => {
    await removeAll(root, '/policies');
  });

  it.each([[false], [true]])('made since forbids the repeat too, and allows it again when it is gone (stream: %p)', async (stream) => {
    const text = await firstText(chat());
    await publish(root, [deny('closed')]);
    const refused = await chat({ stream });
    expect((await expectError(refused, 403, 'policy_denied')).decision_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(refused.headers.get('idempotent-replayed')).toBeNull();
    await removeAll(root, '/policies');
    expect(await repeatedText(chat())).toBe(text);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('is asked about the repeat’s own principal', async () => {
    const text = await firstText(chat());
    await publish(root, [deny('not-him', { when: [{ attr: 'principal.sub', op: 'eq', value: 'intern@acme.example' }] })]);
    await expectError(await chat({}, { token: await harness.token({ subject: 'intern@acme.example' }) }), 403, 'policy_denied');
    expect(await repeatedText(chat())).toBe(text);
  });
});

describe('a call that fails', () => {
  it.each([[503, 'provider_unavailable'], [429, 'rate_limit_exceeded'], [400, 'invalid_request']])('with %i, free of charge, may be made again under its key', async (status, code) => {
    harness.emulator.setFaults([{ calls: 1, status }]);
    const failed = await charges(async () => expectError(await chat(), status, code));
    expect(failed.ticks).toBe(0n);
    expect(await claims()).toEqual([]);
    await firstText(chat());
    expect(harness.emulator.calls).toHaveLength(2);
    await repeatedText(chat());
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('after it was billed is answered with its failure again, and is not charged again', async () => {
    harness.emulator.setFaults([{ calls: 1, cut_after: 3, output_tokens: 9 }]);
    const bill = await charges(async () => {
      const failed = await chat();
      expect(failed.status).toBe(502);
      const text = await failed.text();
      const repeat = await chat();
      expect(repeat.headers.get('x-should-retry')).toBe('false');
      expect(await repeatedText(repeat, 502)).toBe(text);
      expect(JSON.parse(text)).toMatchObject({ error: { code: 'provider_bad_response' } });
      // As a stream too: nothing has begun, so the status can say it.
      expect(JSON.parse(await repeatedText(chat({ stream: true }), 502))).toMatchObject({ error: { code: 'provider_bad_response' } });
    });
    expect(bill.calls).toBe(1);
    expect(bill.ticks).toBeGreaterThan(0n);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it.each<[string, Record<string, unknown>]>([
    ['/v1/chat/completions', { model: 'grok-beta', messages: HELLO }], ['/v1/completions', { model: 'grok-beta', prompt: 'Hello.' }], ['/v1/responses', { model: 'grok-beta', input: 'Hello.' }],
  ])('in the middle of a stream of %s is that error for a repeat, with its own status, in either form', async (path, body) => {
    harness.emulator.setFaults([{ calls: 1, cut_after: 3, output_tokens: 9 }]);
    const bill = await charges(async () => {
      const first = await send(path, { ...body, stream: true });
      expect([first.status, await first.text()]).toEqual([200, expect.stringContaining('provider_bad_response')]);
      for (const stream of [true, false]) {
        const text = await repeatedText(send(path, { ...body, stream }), 502);
        expect(JSON.parse(text)).toMatchObject({ error: { code: 'provider_bad_response' } });
      }
    });
    expect(bill.calls).toBe(1);
  });

  it('because the caller hung up is not made again: a clear 409, and nothing more to pay', async () => {
    const gone = new AbortController();
    const script = { x_emulator: { output_tokens: 400, reasoning_tokens: 0, token_interval_ms: 20 } };
    const bill = await charges(async () => {
      const first = await chat({ ...script, stream: true }, { signal: gone.signal });
      await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 5));
      gone.abort();
      expect((await settled(harness, idOf(first))).outcome).toBe('aborted');
      const repeat = await chat(script);
      expect([repeat.headers.get('retry-after'), repeat.headers.get('x-should-retry')]).toEqual([null, 'false']);
      await expectError(repeat, 409, 'idempotency_conflict');
    });
    expect(bill.calls).toBe(1);
    expect(bill.ticks).toBeGreaterThan(0n);
    expect(harness.emulator.calls).toHaveLength(1);
    expect(await claims()).toMatchObject([{ result: null }]);
  });
});

describe('a result', () => {
  it('is kept for 24 hours of the gateway’s clock', async () => {
    const atMs = Date.now() + 3_600_000;
    const later = await harness.token({ ttlSeconds: 2 * 3_600 });
    await clock.at(atMs, async () => firstText(chat({}, { token: later })));
    const [claim] = await claims();
    expect(claim!.expires_at.getTime() - atMs).toBeGreaterThanOrEqual(DAY_MS);
    expect(claim!.expires_at.getTime() - atMs).toBeLessThan(DAY_MS + 10_000);
    await repeatedText(chat());
  });

  it('that has expired is forgotten: the same body is a new call, and another one too', async () => {
    const first = await firstText(chat());
    await expire();
    const second = await firstText(chat());
    expect((JSON.parse(second) as Completion).id).not.toBe((JSON.parse(first) as Completion).id);
    expect(await repeatedText(chat())).toBe(second);
    await expire();
    await firstText(chat({ max_tokens: 30 }));
    expect(harness.emulator.calls).toHaveLength(3);
    expect(await claims()).toHaveLength(1);
  });

  it('that has expired is one new call for fifty repeats at once', async () => {
    await firstText(chat());
    await expire();
    harness.emulator.reset();
    await Promise.all(Array.from({ length: 50 }, async () => {
      const response = await chat();
      expect([200, 409]).toContain(response.status);
      await response.arrayBuffer();
    }));
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('is removed by the sweeper once it has expired', async () => {
    await firstText(chat());
    await expire();
    await eventually(async () => (await claims()).length === 0, 15_000);
    expect(await claims()).toEqual([]);
  });

  it('that is too long is not kept, which a repeat is told; it is not charged again', async () => {
    const script = { x_emulator: { output_tokens: 50, reasoning_tokens: 0, frame_bytes: 100_000 } };
    const bill = await charges(async () => {
      expect((await firstText(chat(script))).length).toBeGreaterThan(4 * 1024 * 1024);
      for (const stream of [false, true]) {
        const repeat = await chat({ ...script, stream });
        expect([repeat.headers.get('retry-after'), repeat.headers.get('x-should-retry')]).toEqual([null, 'false']);
        expect((await expectError(repeat, 409, 'idempotency_conflict')).message).toContain('not kept');
      }
    });
    expect(bill.calls).toBe(1);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('that is just short enough is kept', async () => {
    const script = { x_emulator: { output_tokens: 41, reasoning_tokens: 0, frame_bytes: 100_000 } };
    const text = await firstText(chat(script));
    expect(text.length).toBeGreaterThan(4_000_000);
    expect(text.length).toBeLessThan(4 * 1024 * 1024);
    expect(await repeatedText(chat(script))).toBe(text);
  });
});

describe('bad keys', () => {
  it.each([
    ['an empty one', ''], ['one that is too long', 'k'.repeat(256)], ['one with a space', 'two words'], ['one of Latin-1', 'schlüssel'], ['one with a tab', 'a\tb'],
  ])('%s is 400, and nothing goes upstream', async (_, bad) => {
    const answer = await rawRequest(harness.url, '/v1/chat/completions', {
      method: 'POST', headers: { authorization: `Bearer ${acme}`, 'content-type': 'application/json', 'idempotency-key': bad }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO }),
    });
    expect([answer.status, JSON.parse(answer.body)]).toMatchObject([400, { error: { code: 'invalid_request', param: 'idempotency-key' } }]);
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('two of them are 400', async () => {
    const answer = await rawRequest(harness.url, '/v1/chat/completions', {
      method: 'POST', headers: { authorization: `Bearer ${acme}`, 'content-type': 'application/json', 'idempotency-key': [key, key] }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO }),
    });
    expect([answer.status, JSON.parse(answer.body)]).toMatchObject([400, { error: { code: 'invalid_request', param: 'idempotency-key' } }]);
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each([['the longest', (): string => randomBytes(127).toString('hex').padEnd(255, 'x')], ['the strangest', (): string => `!"#$%&'()*+,-./:;<=>?@[\\]^_\`{|}~${randomBytes(4).toString('hex')}`]])('%s that is allowed works', async (_, make) => {
    const under = make();
    const text = await firstText(chat({}, { under }));
    expect(await repeatedText(chat({}, { under }))).toBe(text);
  });
});

describe('the audit log', () => {
  it.each([[false], [true]])('has a replay as an outcome of its own, that says of which call, and no second intent (stream: %p)', async (stream) => {
    const first = await chat();
    await firstText(first);
    const repeat = await chat({ stream });
    await repeatedText(repeat);
    const events = await eventsOf(harness, idOf(repeat));
    expect(events).toMatchObject([{
      actor: { user: { uid: 'dev@acme.example' } }, metadata: { tenant_uid: 'acme' }, api: { operation: 'POST /v1/chat/completions', response: { code: 200 } },
      unmapped: { novix: { phase: 'outcome', outcome: 'replayed', replay_of: idOf(first), decision: { id: repeat.headers.get('x-novix-decision-id') } } },
    }]);
    expect(events[0]!.unmapped.novix.charge).toBeUndefined();
    expect((await eventsOf(harness, idOf(first))).map(({ unmapped: { novix } }) => novix.phase)).toEqual(['intent', 'outcome']);
  });

  it('has a repeat that was refused as a refusal', async () => {
    await firstText(chat());
    const refused = await chat({ max_tokens: 9 });
    await expectError(refused, 409, 'idempotency_conflict');
    await eventOf(harness, idOf(refused), 'refusal');
    expect((await eventsOf(harness, idOf(refused))).map(({ api, unmapped: { novix } }) => [novix.phase, api.response])).toMatchObject([['refusal', { code: 409 }]]);
  });
});

describe('the database', () => {
  const encodings = (secret: string): string[] => [secret, Buffer.from(secret).toString('hex'), Buffer.from(secret).toString('base64').slice(0, -4)];

  it('has no word of prompt, answer or key that could be read', async () => {
    const [prompt, answer] = [`prompt-${randomBytes(9).toString('hex')}`, `answer-${randomBytes(9).toString('hex')}`];
    const body = { messages: [{ role: 'user', content: prompt }], x_emulator: { content: answer } };
    expect(await firstText(chat(body))).toContain(answer);
    expect(await repeatedText(chat({ ...body, stream: true }))).toContain(answer);
    expect((await chat({ ...body, x_emulator: { content: answer, cut_after: 2 } }, { under: `${key}-failed` })).status).toBe(502);
    const everything = await wholeDatabase(harness.db);
    expect(everything).toContain(hashOf(key).toString('hex')); // so it does look where the results are
    for (const secret of [prompt, answer, key]) for (const form of encodings(secret)) expect(everything).not.toContain(form);
    const result = (await claims())[0]!.result!;
    expect(result.length).toBeGreaterThan(answer.length);
    expect(result.includes(answer)).toBe(false);
  });

  it('has equal answers sealed differently', async () => {
    await firstText(chat({ x_emulator: { content: TEXT } }));
    await firstText(chat({ x_emulator: { content: TEXT } }, { under: `${key}-2` }));
    const [one, two] = [...(await claims()), ...(await claims('acme', `${key}-2`))];
    expect(one!.result!.subarray(12, 40).equals(two!.result!.subarray(12, 40))).toBe(false);
    expect(one!.result!.subarray(0, 12).equals(two!.result!.subarray(0, 12))).toBe(false);
  });

  it('cannot pass off one call’s result as another’s', async () => {
    await firstText(chat({ x_emulator: { content: 'Of the first.' } }));
    await firstText(chat({ x_emulator: { content: 'Of the second.' } }, { under: `${key}-2` }));
    await harness.db.query('UPDATE idempotency_keys SET result = (SELECT result FROM idempotency_keys WHERE key_hash = $2) WHERE key_hash = $1', [hashOf(key), hashOf(`${key}-2`)]);
    const moved = await chat({ x_emulator: { content: 'Of the first.' } });
    const text = await moved.text();
    expect(moved.status).toBe(500);
    expect(text).not.toContain('Of the');
    expect(JSON.parse(text)).toMatchObject({ error: { code: 'internal_error' } });
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('cannot pass a result on to another tenant, nor open one that was changed', async () => {
    const body = { x_emulator: { content: 'Only for acme.' } };
    await firstText(chat(body));
    await firstText(chat({}, { token: globex, under: `${key}-g` })); // so that globex has a key of the day
    await harness.db.query("INSERT INTO idempotency_keys SELECT 'globex', key_hash, request_id, body_hash, status, result, expires_at FROM idempotency_keys WHERE tenant_id = 'acme' AND key_hash = $1", [hashOf(key)]);
    const moved = await chat(body, { token: globex });
    expect([moved.status, await moved.text()]).toEqual([500, expect.not.stringContaining('Only for acme')]);
    await harness.db.query("UPDATE idempotency_keys SET result = set_byte(result, 20, get_byte(result, 20) # 1) WHERE tenant_id = 'acme' AND key_hash = $1", [hashOf(key)]);
    const changed = await chat(body);
    expect([changed.status, await changed.text()]).toEqual([500, expect.not.stringContaining('Only for acme')]);
  });

  it('has lost its results when the key of the day is another', async () => {
    const body = { x_emulator: { content: 'Sealed.' } };
    await firstText(chat(body));
    const { rows: [known] } = await harness.db.query<{ key: Buffer }>("SELECT key FROM replay_keys WHERE tenant_id = 'acme'");
    await harness.db.query("UPDATE replay_keys SET key = $1 WHERE tenant_id = 'acme'", [randomBytes(32)]);
    const replica = await startReplica(harness); // which has no copy of the key yet
    try {
      const repeat = await completeAt(replica.url, acme, body, { 'idempotency-key': key });
      expect([repeat.status, await repeat.text()]).toEqual([500, expect.not.stringContaining('Sealed.')]);
      expect(harness.emulator.calls).toHaveLength(1);
    } finally {
      await replica.close();
      await harness.db.query("UPDATE replay_keys SET key = $1 WHERE tenant_id = 'acme'", [known!.key]);
    }
  });
});

describe('two replicas', () => {
  it('make one call of fifty repeats that come to both, also where the key was used and has expired; either answers again', async () => {
    const replica = await startReplica(harness);
    try {
      const urls = [harness.url, replica.url];
      const body = { x_emulator: { content: TEXT } };
      for (const round of ['first', 'after it has expired']) {
        harness.emulator.reset();
        const bill = await charges(async () => {
          await Promise.all(Array.from({ length: 50 }, async (_, index) => {
            const response = await completeAt(urls[index % 2]!, acme, body, { 'idempotency-key': key });
            expect([200, 409]).toContain(response.status);
            await response.arrayBuffer();
          }));
          await eventually(() => replica.parts.admission.open === 0);
        });
        expect([round, harness.emulator.calls.length, bill]).toEqual([round, 1, { calls: 1, ticks: harness.emulator.billedUsdTicks() }]);
        const texts = await Promise.all(urls.map(async (url) => repeatedText(completeAt(url, acme, body, { 'idempotency-key': key }))));
        expect(texts[1]).toBe(texts[0]);
        await expire();
      }
    } finally {
      await replica.close();
    }
  });
});
