import { describe, expect, it } from '@jest/globals';
import { parseCompletionRequest } from './chat-request.ts';
import { parseJsonObject } from './request-schema.ts';

const MESSAGES = [{ role: 'user', content: 'Hi' }];
const parse = (body: object | string): ReturnType<typeof parseCompletionRequest> => parseCompletionRequest(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)));
const refusal = (param?: string): unknown => expect.objectContaining({ code: 'invalid_request', status: 400, param: param ?? null });

describe('parseCompletionRequest', () => {
  it('keeps the bytes, and fields that it does not know, everywhere', () => {
    const body = '{ "x_new": {"deep":[1,{"y":null}]}, "messages": [{"role":"user","content":[{"type":"text","text":"Hi","x":1}],"name":"n"}], "seed": 9007199254740991 }';
    const parsed = parse(body);
    expect(parsed.body.toString()).toBe(body);
    expect(parsed.request).toEqual(JSON.parse(body));
    expect(parsed.members.map(({ key }) => key)).toEqual(['x_new', 'messages', 'seed']);
  });

  it('takes null for every optional field, as SDKs send it', () => {
    const nulls = Object.fromEntries([
      'model', 'stream', 'stream_options', 'max_completion_tokens', 'max_tokens', 'temperature', 'top_p', 'n', 'seed', 'stop', 'frequency_penalty', 'presence_penalty', 'reasoning_effort',
      'response_format', 'tools', 'parallel_tool_calls', 'service_tier', 'deferred', 'user',
    ].map((name) => [name, null]));
    expect(() => parse({ ...nulls, messages: [{ role: 'assistant', content: null, tool_calls: [] }] })).not.toThrow();
  });

  it.each<[string, unknown]>([
    ['temperature', 0], ['temperature', 2], ['top_p', 1], ['n', 128], ['max_tokens', 1], ['stop', 'x'], ['stop', ['a', 'b']], ['frequency_penalty', -2],
    ['tools', [{ type: 'function', function: { name: 'f' } }]], ['response_format', { type: 'json_schema', json_schema: {} }], ['stream_options', { include_usage: true, more: 1 }],
  ])('takes %s %j', (name, value) => {
    expect(() => parse({ messages: MESSAGES, [name]: value })).not.toThrow();
  });

  it.each<[string, object]>([
    ['messages', {}], ['messages', { messages: [] }], ['messages', { messages: 'Hi' }], ['messages', { messages: null }],
    ['messages[0].role', { messages: [{ content: 'x' }] }], ['messages[1].role', { messages: [MESSAGES[0], { role: 'robot', content: 'x' }] }],
    ['messages[0]', { messages: ['Hi'] }], ['messages[0].content', { messages: [{ role: 'user', content: 7 }] }],
    ['messages[0].content[0].type', { messages: [{ role: 'user', content: [{}] }] }],
    ['model', { model: 7, messages: MESSAGES }], ['model', { model: '', messages: MESSAGES }], ['model', { model: 'x'.repeat(257), messages: MESSAGES }],
    ['stream', { stream: 'true', messages: MESSAGES }], ['stream_options.include_usage', { stream_options: { include_usage: 1 }, messages: MESSAGES }],
    ['max_tokens', { max_tokens: 0, messages: MESSAGES }], ['max_tokens', { max_tokens: 1.5, messages: MESSAGES }], ['max_completion_tokens', { max_completion_tokens: -1, messages: MESSAGES }],
    ['temperature', { temperature: 2.1, messages: MESSAGES }], ['top_p', { top_p: -0.1, messages: MESSAGES }], ['n', { n: 0, messages: MESSAGES }], ['n', { n: 129, messages: MESSAGES }],
    ['seed', { seed: 'x', messages: MESSAGES }], ['stop', { stop: Array(9).fill('x'), messages: MESSAGES }], ['tools[0].type', { tools: [{}], messages: MESSAGES }], ['user', { user: {}, messages: MESSAGES }],
  ])('names the field at fault: %s', (param, body) => {
    expect(() => parse(body)).toThrow(refusal(param));
  });

  it.each<[string, string]>([
    ['messages', '{"messages":[],"messages":[{"role":"user","content":"Hi"}]}'],
    ['model', '{"model":"a","messages":[{"role":"user","content":"Hi"}],"\\u006dodel":"b"}'],
    ['messages[0].role', '{"messages":[{"role":"system","content":"Hi","role":"user"}]}'],
    ['tools[0].type', '{"tools":[{"type":"live_search","type":"function"}],"messages":[{"role":"user","content":"Hi"}]}'],
  ])('refuses %s given twice', (param, body) => {
    expect(() => parse(body)).toThrow(refusal(param));
  });

  // V8 13.6 compares an escaped key's raw bytes with the key it expects from an object that it read before: then "tools" would be hidden from us, not from the provider.
  it.each<[string, string]>([['tools', '"\\u0074ools":[{"type":"web_search"}]'], ['n', '"\\u006e":100'], ['service_tier', '"service\\u005ftier":"priority"'], ['x.type', '"x":{"\\u0074ype":1}'], ['x', '"\\u0078":1'], ['max_tokens', '"max\\u005Ftokens":1'], ['a1', '"a\\u0031":1']])(
    'refuses a key that spells plain letters with escapes: %s', (_, member) => {
      expect(() => parse(`{${member},"messages":[{"role":"user","content":"Hi"}]}`)).toThrow(expect.objectContaining({ code: 'invalid_request' }));
    });

  it('never hides a key, whatever it has read before', () => {
    const rest = '"messages":[{"role":"user","content":"Hi"}]}';
    for (const planted of ['\\\\u007', '\\\\u00']) expect(() => parse(`{"p":1,"${planted}":1,${rest}`)).not.toThrow();
    for (const spelled of ['\\u0074ools', 't\\u006fols', 'tools']) {
      let tools: unknown = 'refused';
      try {
        tools = parse(`{"p":1,"${spelled}":[],${rest}`).request.tools;
      } catch {
        // to refuse is as good
      }
      expect([[], 'refused']).toContainEqual(tools);
    }
  });

  it('takes escapes that clients do write, in keys as in text', () => {
    const body = '{"x":{"gr\\u00f6\\u00dfe":1,"a\\"b":2,"c\\\\u0041":3,"\\n":4},"messages":[{"role":"user","content":"\\u0041\\u00fc"}]}';
    expect(parse(body).request.messages[0]?.content).toBe('Aü');
  });

  it('refuses what is nested deeper than any tool or schema', () => {
    const nested = (levels: number): string => `{"messages":[{"role":"user","content":"Hi"}],"x":${'['.repeat(levels)}${']'.repeat(levels)}}`;
    expect(() => parse(nested(100))).not.toThrow();
    for (const levels of [129, 10_000, 1_000_000]) expect(() => parse(nested(levels))).toThrow(refusal());
  });

  it.each(['messages', 'stop', 'tools'])('refuses a long wrong list of %s as fast as it takes a right one, since it holds the whole process up', (name) => {
    const body = Buffer.from(JSON.stringify({ messages: MESSAGES, [name]: Array(1_000_000).fill(1) }));
    const startedMs = performance.now();
    expect(() => parseCompletionRequest(body)).toThrow(expect.objectContaining({ code: 'invalid_request' }));
    expect(performance.now() - startedMs).toBeLessThan(700);
  });

  it('shows no control characters of a field’s name, and none of its length', () => {
    const name = `a\u0000\u001b${'x'.repeat(5_000)}`;
    const error = ((): { message: string; param: string } => {
      try {
        return parse(`{${JSON.stringify(name)}:1,${JSON.stringify(name)}:2,"messages":[]}`) as never;
      } catch (caught) {
        return caught as { message: string; param: string };
      }
    })();
    expect(error.message).not.toMatch(/\p{Cc}/u);
    expect(error.param.length).toBeLessThanOrEqual(200);
    expect(error.message.length).toBeLessThan(300);
  });

  it.each(['\\ud800', `${'x'.repeat(199)}🙂`])('shows no half of a character, which no database stores: %p', (name) => {
    expect(() => parse(`{"${name}":1,"${name}":2,"messages":[]}`)).toThrow(expect.objectContaining({ param: expect.not.stringMatching(/[\ud800-\udfff](?![\udc00-\udfff])/u) }));
  });
});

describe('parseJsonObject', () => {
  it.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)], ['white space', Buffer.from('  ')], ['half an object', Buffer.from('{"a":')], ['a trailing comma', Buffer.from('{"a":1,}')], ['text after it', Buffer.from('{} x')],
    ['an array', Buffer.from('[]')], ['null', Buffer.from('null')], ['a string', Buffer.from('"x"')], ['a number', Buffer.from('7')], ['single quotes', Buffer.from("{'a':1}")],
    ['a byte order mark', Buffer.from('\ufeff{}')], ['UTF-16', Buffer.from('{}', 'utf16le')],
    ['a broken UTF-8 sequence', Buffer.from([0x7b, 0x22, 0xc3, 0x22, 0x3a, 0x31, 0x7d])], ['an overlong slash', Buffer.from([0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d])],
    ['a surrogate in UTF-8', Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d])], ['a raw control character', Buffer.from('{"a":"\n"}')],
  ])('refuses %s', (_, body) => {
    expect(() => parseJsonObject(body)).toThrow(refusal());
    expect(() => parseCompletionRequest(body)).toThrow(refusal());
  });
});
