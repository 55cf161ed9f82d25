import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { bareExchange, expectError } from '../../support/wire.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => harness.emulator.reset());

const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const MESSAGES = JSON.stringify(HELLO);

async function post(body: Uint8Array | string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${harness.url}/v1/chat/completions`, { method: 'POST', headers: { authorization: `Bearer ${await harness.token()}`, 'content-type': 'application/json', ...headers }, body });
}

/** Refused before anything was spent: nothing upstream, no hold, and the refusal on record. */
async function expectRefused(response: Response, code: string): Promise<{ message: string; param: string | null }> {
  const error = await expectError(response, 400, code);
  expect(error.type).toBe('invalid_request_error');
  expect(response.headers.get('x-should-retry')).toBe('false');
  expect(response.headers.get('retry-after')).toBeNull();
  expect(harness.emulator.calls).toHaveLength(0);
  const requestId = response.headers.get('x-request-id');
  const refusal = await eventOf(harness, requestId, 'refusal');
  expect(refusal).toMatchObject({ status_code: code, metadata: { tenant_uid: 'acme' }, actor: { user: { uid: 'dev@acme.example' } }, api: { operation: 'POST /v1/chat/completions', response: { code: 400 } } });
  expect(await eventsOf(harness, requestId)).toHaveLength(1);
  return error;
}

describe('a body that is no JSON object in UTF-8 is refused', () => {
  const deep = (levels: number): string => `{"model":"grok-beta","messages":${MESSAGES},"x":${'['.repeat(levels)}${']'.repeat(levels)}}`;
  const bodies: [string, string | Buffer][] = [
    ['nothing', ''],
    ['white space', ' \n\t'],
    ['an array', `[{"messages":${MESSAGES}}]`],
    ['a string', '"hello"'],
    ['a number', '42'],
    ['null', 'null'],
    ['true', 'true'],
    ['an object cut off', `{"model":"grok-beta","messages":${MESSAGES}`],
    ['an object with something behind it', `{"messages":${MESSAGES}}{}`],
    ['a trailing comma', `{"messages":${MESSAGES},}`],
    ['a comment', `{"messages":${MESSAGES}/* hi */}`],
    ['single quotes', "{'messages':[]}"],
    ['NaN', `{"messages":${MESSAGES},"temperature":NaN}`],
    ['a bare control character in a string', `{"messages":[{"role":"user","content":"a\u0001b"}]}`],
    ['a form', 'model=grok-beta&messages=hello'],
    ['bytes that are no UTF-8', Buffer.concat([Buffer.from('{"messages":[{"role":"user","content":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}]}')])],
    ['an overlong encoding', Buffer.concat([Buffer.from('{"messages":[{"role":"user","content":"'), Buffer.from([0xc0, 0xaf]), Buffer.from('"}]}')])],
    ['half a surrogate pair in UTF-8', Buffer.concat([Buffer.from('{"messages":[{"role":"user","content":"'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"}]}')])],
    ['UTF-16', Buffer.from(`{"messages":${MESSAGES}}`, 'utf16le')],
    ['a byte order mark', `\uFEFF{"messages":${MESSAGES}}`],
    ['10,000 levels', deep(10_000)],
    ['1,000,000 levels', deep(1_000_000)],
  ];
  it.each(bodies)('%s', async (_, body) => {
    const error = await expectRefused(await post(typeof body === 'string' ? body : new Uint8Array(body)), 'invalid_request');
    expect(error.param).toBeNull();
  });

  it('and what the caller wrote is not repeated', async () => {
    const error = await expectRefused(await post('{"messages": "my secret diagnosis"'), 'invalid_request');
    expect(error.message).not.toContain('diagnosis');
  });
});

describe('a field given twice is refused, since two readers would see two requests', () => {
  const bodies: [string, string, string][] = [
    ['messages', `{"messages":${MESSAGES},"messages":[{"role":"user","content":"Other."}]}`, 'messages'],
    ['model', `{"model":"grok-beta","messages":${MESSAGES},"model":"grok-pro"}`, 'model'],
    ['model, once with an escape', `{"model":"grok-beta","messages":${MESSAGES},"mod\\u0065l":"grok-pro"}`, 'model'],
    ['n', `{"n":1,"messages":${MESSAGES},"n":128}`, 'n'],
    ['a field that the gateway does not know', `{"x_new":1,"messages":${MESSAGES},"x_new":2}`, 'x_new'],
    ['the type of a tool', `{"messages":${MESSAGES},"tools":[{"type":"live_search","type":"function","function":{"name":"f"}}]}`, 'tools[0].type'],
    ['the type of a content part', `{"messages":[{"role":"user","content":[{"type":"image_url","type":"text","text":"Hi","image_url":{"url":"https://example.com/a.png"}}]}]}`, 'messages[0].content[0].type'],
    ['the type of the response format', `{"messages":${MESSAGES},"response_format":{"type":"json_object","type":"text"}}`, 'response_format.type'],
  ];
  it.each(bodies)('%s', async (_, body, param) => {
    const error = await expectRefused(await post(body), 'invalid_request');
    expect(error.param).toBe(param);
    expect(error.message).toMatch(/twice/);
  });
});

describe('a body that does not fit the schema is refused, naming the field', () => {
  const bodies: [Record<string, unknown>, string][] = [
    [{ messages: undefined }, 'messages'],
    [{ messages: null }, 'messages'],
    [{ messages: [] }, 'messages'],
    [{ messages: {} }, 'messages'],
    [{ messages: 'Hello' }, 'messages'],
    [{ messages: ['Hello'] }, 'messages[0]'],
    [{ messages: [null] }, 'messages[0]'],
    [{ messages: [{ content: 'Hi' }] }, 'messages[0].role'],
    [{ messages: [...HELLO, { role: 'robot', content: 'Hi' }] }, 'messages[1].role'],
    [{ messages: [{ role: 'user', content: 5 }] }, 'messages[0].content'],
    [{ messages: [{ role: 'user', content: {} }] }, 'messages[0].content'],
    [{ messages: [{ role: 'user', content: ['Hi'] }] }, 'messages[0].content[0]'],
    [{ messages: [{ role: 'user', content: [{ text: 'Hi' }] }] }, 'messages[0].content[0].type'],
    [{ model: 5 }, 'model'],
    [{ model: '' }, 'model'],
    [{ model: ['grok-beta'] }, 'model'],
    [{ model: 'x'.repeat(300) }, 'model'],
    [{ stream: 'true' }, 'stream'],
    [{ stream: 1 }, 'stream'],
    [{ stream_options: true }, 'stream_options'],
    [{ stream_options: { include_usage: 'yes' } }, 'stream_options.include_usage'],
    [{ max_completion_tokens: 0 }, 'max_completion_tokens'],
    [{ max_completion_tokens: -1 }, 'max_completion_tokens'],
    [{ max_completion_tokens: 1.5 }, 'max_completion_tokens'],
    [{ max_completion_tokens: '100' }, 'max_completion_tokens'],
    [{ max_tokens: 0 }, 'max_tokens'],
    [{ n: 0 }, 'n'],
    [{ n: 129 }, 'n'],
    [{ n: 1.5 }, 'n'],
    [{ n: '1' }, 'n'],
    [{ temperature: 2.1 }, 'temperature'],
    [{ temperature: -0.1 }, 'temperature'],
    [{ temperature: 'hot' }, 'temperature'],
    [{ top_p: 1.1 }, 'top_p'],
    [{ top_p: -1 }, 'top_p'],
    [{ model: NO_REASONING, frequency_penalty: 3 }, 'frequency_penalty'],
    [{ model: NO_REASONING, presence_penalty: -3 }, 'presence_penalty'],
    [{ seed: 'x' }, 'seed'],
    [{ model: NO_REASONING, stop: 5 }, 'stop'],
    [{ model: NO_REASONING, stop: [5] }, 'stop[0]'],
    [{ response_format: 'json' }, 'response_format'],
    [{ response_format: {} }, 'response_format.type'],
    [{ tools: {} }, 'tools'],
    [{ tools: [{}] }, 'tools[0].type'],
    [{ tools: Array.from({ length: 351 }, () => ({ type: 'function', function: { name: 'f' } })) }, 'tools'],
    [{ reasoning_effort: 3 }, 'reasoning_effort'],
    [{ service_tier: 1 }, 'service_tier'],
    [{ parallel_tool_calls: 'no' }, 'parallel_tool_calls'],
    [{ user: 7 }, 'user'],
  ];
  it.each(bodies.map(([fields, param]) => [JSON.stringify(fields).slice(0, 70), param, fields] as const))('%s: %s', async (_, param, fields) => {
    const error = await expectRefused(await harness.complete(fields), 'invalid_request');
    expect(error.param).toBe(param);
    expect(error.message).toContain(param);
  });
});

describe('what a model or the gateway does not offer is an unsupported_parameter', () => {
  const bodies: [string, Record<string, unknown>, string][] = [
    ['presence_penalty on a reasoning model', { presence_penalty: 0 }, 'presence_penalty'],
    ['frequency_penalty on a reasoning model', { frequency_penalty: 0.5 }, 'frequency_penalty'],
    ['stop on a reasoning model', { stop: ['.'] }, 'stop'],
    ['stop on grok-pro', { model: 'grok-pro', stop: '.' }, 'stop'],
    ['reasoning_effort on a model that does not reason', { model: NO_REASONING, reasoning_effort: 'low' }, 'reasoning_effort'],
    ['reasoning_effort on a model with a fixed one', { model: 'grok-4.20-reasoning', reasoning_effort: 'low' }, 'reasoning_effort'],
    ['an effort that the model does not know', { reasoning_effort: 'xhigh' }, 'reasoning_effort'],
    ['effort none on a model that always reasons', { model: 'grok-pro', reasoning_effort: 'none' }, 'reasoning_effort'],
    ['a model of the responses endpoint', { model: 'grok-4.20-multi-agent' }, 'model'],
    ['deferred', { deferred: true }, 'deferred'],
    ['a tool that the provider runs', { tools: [{ type: 'function', function: { name: 'f' } }, { type: 'live_search' }] }, 'tools[1].type'],
    ['a file', { messages: [{ role: 'user', content: [{ type: 'file', file: { file_id: 'f' } }] }] }, 'messages[0].content'],
  ];
  it.each(bodies)('%s', async (_, fields, param) => {
    expect((await expectRefused(await harness.complete(fields), 'unsupported_parameter')).param).toBe(param);
  });

  it('null means absent, as for the provider', async () => {
    const response = await harness.complete({ presence_penalty: null, stop: null, reasoning_effort: null, deferred: null, n: null, tools: null });
    expect(response.status).toBe(200);
    await response.text();
  });
});

describe('a header of ours with a value that it does not take is refused, naming it', () => {
  const headers: [string, string[]][] = [
    ['x-novix-max-cost-usd', ['abc', '-1', '1e3', '0,5', '1.', '.5', '$1', '0.00000000001', '99999999999', '', 'Infinity']],
    ['x-novix-cost-mode', ['cheap', 'OFF', '']],
    ['x-novix-cache', ['maybe', '']],
    ['x-novix-data-class', ['secret', 'Restricted', '']],
    ['x-novix-deadline-ms', ['0', '-1', '1.5', 'soon', '86400001', '1e3', '', '0x10']],
  ];
  it.each(headers.flatMap(([name, values]) => values.map((value) => [name, value] as const)))('%s: %j', async (name, value) => {
    const error = await expectRefused(await harness.complete({}, { [name]: value }), 'invalid_request');
    expect(error.param).toBe(name);
  });

  it('and so is one given twice with two values', async () => {
    const body = JSON.stringify({ model: 'grok-beta', messages: HELLO });
    const answer = await bareExchange(harness.url, [
      'POST /v1/chat/completions HTTP/1.1', 'host: gateway', `authorization: Bearer ${await harness.token()}`, 'content-type: application/json', `content-length: ${body.length}`,
      'x-novix-data-class: restricted', 'x-novix-data-class: public', '', body,
    ].join('\r\n'));
    expect(answer.status).toBe(400);
    expect(harness.emulator.calls).toHaveLength(0);
  });
});

describe('what the provider refuses as the caller’s fault is a 400, free of charge', () => {
  it.each([
    ['400', { status: 400 }, 'invalid_request'],
    ['422', { status: 422 }, 'invalid_request'],
    ['413', { status: 413 }, 'invalid_request'],
    ['content under its usage guidelines, as 403', { status: 403, body: { code: 'permission-denied', error: 'Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO' } }, 'content_refused'],
    ['content under its usage guidelines, as 400', { status: 400, body: { code: 'Client specified an invalid argument', error: 'Content violates usage guidelines.' } }, 'content_refused'],
  ])('%s', async (_, script, code) => {
    for (const stream of [false, true]) {
      const response = await harness.complete({ stream, x_emulator: script });
      const error = await expectError(response, 400, code);
      expect(error.type).toBe('invalid_request_error');
      expect(response.headers.get('x-should-retry')).toBe('false');
      expect(error.message).not.toContain('SAFETY_CHECK');
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'free', chargedTicks: 0n });
    }
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('says what the provider said, without the ids of our team', async () => {
    const error = await expectError(await harness.complete({ x_emulator: { status: 400, body: { code: 'invalid-argument', error: 'Team 6f0a3d52-8c1e-4b7a-9d34-2e5f7a90c1b8 with key xai-abcdef: top_p is odd.' } } }), 400, 'invalid_request');
    expect(error.message).toContain('top_p is odd');
    expect(error.message).not.toMatch(/6f0a3d52|xai-abcdef/);
  });
});

describe('what is no HTTP is a 400 too', () => {
  it.each([
    ['a request line of nonsense', 'NONSENSE\r\n\r\n'],
    ['two content-lengths', 'POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello'],
    ['content-length with transfer-encoding', 'POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a header without a name', 'GET /v1/models HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n'],
  ])('%s', async (_, text) => {
    const answer = await bareExchange(harness.url, text, { untilClosed: true });
    expect(answer.status).toBe(400);
    expect(answer.text).toContain('"code":"invalid_request"');
    expect(answer.text.toLowerCase()).toContain('x-request-id: ');
  });
});
