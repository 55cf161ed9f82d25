import { describe, expect, it } from '@jest/globals';
import { cpuMs } from '../../../test/support/cpu-ms.ts';
import { parseResponseRequest } from './response-request.ts';

const parse = (body: object | string): ReturnType<typeof parseResponseRequest> => parseResponseRequest(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)));
const refusal = (param?: string): unknown => expect.objectContaining({ code: 'invalid_request', status: 400, param: param ?? null });

describe('parseResponseRequest', () => {
  it('keeps the bytes, and fields that it does not know, everywhere', () => {
    const body = '{ "x_new": {"deep":[1,{"y":null}]}, "input": [{"role":"user","content":[{"type":"input_text","text":"Hi","x":1}],"id":"m"}], "include": ["reasoning.encrypted_content"] }';
    const parsed = parse(body);
    expect(parsed.body.toString()).toBe(body);
    expect(parsed.request).toEqual(JSON.parse(body));
    expect(parsed.members.map(({ key }) => key)).toEqual(['x_new', 'input', 'include']);
  });

  it('takes null for every optional field, as SDKs send it', () => {
    const nulls = Object.fromEntries([
      'model', 'instructions', 'previous_response_id', 'store', 'stream', 'max_output_tokens', 'temperature', 'top_p', 'reasoning', 'reasoning_effort', 'text', 'tools', 'tool_choice', 'parallel_tool_calls', 'service_tier',
      'prompt_cache_key', 'user', 'metadata', 'include',
    ].map((name) => [name, null]));
    expect(() => parse({ ...nulls, input: [{ role: 'user', content: null, output: null }] })).not.toThrow();
    expect(() => parse({ input: 'Hi', reasoning: { effort: null, summary: null }, text: { format: null } })).not.toThrow();
  });

  it.each<[string, unknown]>([
    ['input', ''], ['input', [{ role: 'user', content: 'Hi' }]], ['input', [{ type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'x', annotations: [] }] }]], ['input', [{ type: 'reasoning', id: 'rs_1', summary: [] }]],
    ['input', [{ type: 'function_call_output', call_id: 'c', output: 'x' }]], ['input', [{ type: 'function_call_output', call_id: 'c', output: [{ type: 'input_image', image_url: 'x' }] }]],
    ['instructions', 'Be kind.'], ['previous_response_id', 'x'], ['store', true], ['store', false], ['max_output_tokens', 1], ['temperature', 2], ['top_p', 0], ['reasoning', { effort: 'high', summary: 'auto' }], ['reasoning', {}],
    ['text', { format: { type: 'json_schema', name: 'n', schema: {}, strict: true } }], ['text', { verbosity: 'low' }], ['tools', []], ['tools', Array(350).fill({ type: 'function' })], ['tool_choice', { type: 'function', name: 'f' }], ['tool_choice', 'auto'],
  ])('takes %s %j', (name, value) => {
    expect(() => parse({ input: 'Hi', [name]: value })).not.toThrow();
  });

  it.each<[string, object]>([
    ['input', {}], ['input', { input: null }], ['input', { input: [] }], ['input', { input: 7 }], ['input', { input: { role: 'user' } }], ['input', { messages: [{ role: 'user', content: 'Hi' }] }],
    ['input[0]', { input: ['Hi'] }], ['input[1].content', { input: [{ content: 'x' }, { content: 7 }] }], ['input[0].content[0].type', { input: [{ content: [{}] }] }], ['input[0].content[1]', { input: [{ content: [{ type: 'input_text' }, 'x'] }] }],
    ['input[0].type', { input: [{ type: '' }] }], ['input[0].type', { input: [{ type: 7 }] }], ['input[0].role', { input: [{ role: null }] }], ['input[0].output', { input: [{ output: {} }] }], ['input[0].output[0].type', { input: [{ output: [{ type: '' }] }] }],
    ['model', { model: 7 }], ['model', { model: '' }], ['model', { model: 'x'.repeat(257) }], ['instructions', { instructions: ['x'] }], ['previous_response_id', { previous_response_id: 7 }], ['store', { store: 'true' }], ['store', { store: 1 }],
    ['stream', { stream: 'true' }], ['max_output_tokens', { max_output_tokens: 0 }], ['max_output_tokens', { max_output_tokens: 1.5 }], ['max_output_tokens', { max_output_tokens: '5' }], ['temperature', { temperature: 2.1 }], ['top_p', { top_p: -0.1 }],
    ['reasoning', { reasoning: 'high' }], ['reasoning.effort', { reasoning: { effort: 7 } }], ['reasoning_effort', { reasoning_effort: {} }], ['text', { text: 'x' }], ['text.format', { text: { format: 'json' } }], ['text.format.type', { text: { format: {} } }],
    ['tools', { tools: {} }], ['tools[1].type', { tools: [{ type: 'function' }, {}] }], ['tools', { tools: Array(351).fill({ type: 'function' }) }], ['parallel_tool_calls', { parallel_tool_calls: 1 }], ['service_tier', { service_tier: 1 }],
    ['prompt_cache_key', { prompt_cache_key: {} }], ['user', { user: 7 }],
  ])('names the field at fault: %s', (param, change) => {
    const body = param.startsWith('input') ? change : { input: 'Hi', ...change };
    expect(() => parse(body)).toThrow(refusal(param));
  });

  it.each<[string, string]>([
    ['store', '{"input":"Hi","store":false,"store":true}'], ['input[0].type', '{"input":[{"type":"message","type":"item_reference"}]}'], ['tools[0].type', '{"input":"Hi","tools":[{"type":"function","type":"web_search"}]}'],
  ])('refuses %s given twice', (param, body) => {
    expect(() => parse(body)).toThrow(refusal(param));
  });

  it('refuses a field whose name is disguised', () => {
    expect(() => parse('{"input":"Hi","\\u0073tore":true}')).toThrow(refusal('store'));
  });

  it.each<[string, object]>([
    ['input', { input: Array(500_000).fill(1) }], ['tools', { input: 'Hi', tools: Array(500_000).fill(1) }], ['content', { input: [{ content: Array(500_000).fill(1) }] }], ['output', { input: [{ output: Array(500_000).fill({}) }] }],
    ['right tools', { input: 'Hi', tools: Array(200_000).fill({ type: 'function' }) }],
  ])('refuses a long wrong list of %s fast', (_, change) => {
    const body = Buffer.from(JSON.stringify(change));
    // The least of three: what else the process does meanwhile, collecting garbage say, is not the parser's.
    const tries = [1, 2, 3].map(() => cpuMs(() => expect(() => parseResponseRequest(body)).toThrow(expect.objectContaining({ code: 'invalid_request' }))));
    expect(Math.min(...tries)).toBeLessThan(700);
  });
});
