import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { loadCatalogue, type Model } from '../../catalogue/catalogue.ts';
import { candidatesFor, planCall, type Candidate, type CostFacts, type Plan } from '../../cost/plan.ts';
import type { AnswerReader } from '../../provider/answer-reader.ts';
import { ResponseStreamReader } from '../../provider/response-stream.ts';
import type { StoredResponse } from '../stored-responses.ts';
import type { Defaults } from './model-fit.ts';
import { ResponseCall } from './response-call.ts';
import { parseResponseRequest } from './response-request.ts';

const catalogue = loadCatalogue();
const modelOf = (name: string): Model => catalogue.resolve(name)!.model;
const candidatesOf = (name: string): Candidate[] => candidatesFor(catalogue, [catalogue.resolve(name)!]);
const PREVIOUS: StoredResponse = { id: 'resp-1', model: 'grok-beta', deployment: 'xai-eu', contextTokens: 5_000 };
const DEFAULTS: Defaults = { model: 'grok-beta', maxTokensCap: 32_768, temperature: undefined, topP: undefined, frequencyPenalty: undefined, presencePenalty: undefined };
const call = (body: object | string, previous?: StoredResponse, defaults: Partial<Defaults> = {}): ResponseCall =>
  new ResponseCall(parseResponseRequest(Buffer.from(typeof body === 'string' ? body : JSON.stringify({ input: 'Hi', ...body }))), previous, { ...DEFAULTS, ...defaults });
const facts = (body: object, model = 'grok-4.3', previous?: StoredResponse): CostFacts => call(body, previous).costFacts(modelOf(model));
const unsupported = (param: string): unknown => expect.objectContaining({ code: 'unsupported_parameter', status: 400, param });
const user = (...content: object[]): object => ({ input: [{ role: 'user', content }] });
const IMAGE_URL = `data:image/png;base64,${'A'.repeat(100_000)}`;

describe('a response call', () => {
  it.each<[object, string]>([[{ store: true }, 'required'], [{ store: false }, 'none'], [{ store: null }, 'if_allowed'], [{}, 'if_allowed']])('that says %j has the storage %s', (body, storage) => {
    expect(call(body).storage).toBe(storage);
  });

  it.each<[object, boolean]>([[{ stream: true }, true], [{ stream: false }, false], [{ stream: null }, false], [{}, false]])('that says %j streams: %p', (body, stream) => {
    expect(call(body).stream).toBe(stream);
  });

  it('goes where the response is that it continues, and anywhere else without one', () => {
    expect(call({}, PREVIOUS).deployment).toBe('xai-eu');
    expect(call({}).deployment).toBeUndefined();
  });

  it('names its model, or none, and keeps the caller’s bytes', () => {
    expect(call({ model: 'grok-pro' }).model).toBe('grok-pro');
    expect(call({ model: null }).model).toBeUndefined();
    expect(call('{ "input" : "Grüße" }').body.toString()).toBe('{ "input" : "Grüße" }');
  });

  it.each<[object, string[]]>([
    [{}, ['text']], [{ tools: [] }, ['text']], [{ tools: [{ type: 'function' }] }, ['text', 'function_calling']], [{ text: { format: { type: 'json_schema' } } }, ['text', 'structured_output']], [{ text: { format: { type: 'json_object' } } }, ['text', 'structured_output']],
    [{ text: { format: { type: 'text' } } }, ['text']], [{ text: { format: null } }, ['text']], [user({ type: 'input_text', text: 'x' }), ['text']], [user({ type: 'input_image', image_url: 'x' }), ['text', 'image_input']], [user({ type: 'image_url', image_url: { url: 'x' } }), ['text', 'image_input']],
    [{ input: [{ type: 'function_call_output', call_id: 'c', output: [{ type: 'input_image', image_url: 'x' }] }] }, ['text', 'image_input']],
  ])('of %j has the capabilities %j', (body, capabilities) => {
    expect(call(body).capabilities).toEqual(capabilities);
  });
});

describe('the cost facts of a response call', () => {
  it('counts every byte of the body, in UTF-8', () => {
    fc.assert(fc.property(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), (input, instructions) => {
      expect(facts({ input, instructions })).toMatchObject({ textBytes: Buffer.byteLength(JSON.stringify({ input, instructions })), images: 0, storedTokens: 0, generatedImages: 0, choices: 1 });
    }), { numRuns: 200 });
  });

  it('counts images wherever they stand, and not their bytes', () => {
    const parts = [{ type: 'input_text', text: 'Look' }, { type: 'input_image', image_url: IMAGE_URL, detail: 'high' }];
    for (const body of [user(...parts), user({ type: 'image_url', image_url: { url: IMAGE_URL } }), { input: [{ type: 'function_call_output', call_id: 'c', output: parts }] }]) {
      expect(facts(body)).toMatchObject({ images: 1, textBytes: JSON.stringify(body).length - IMAGE_URL.length });
    }
    expect(facts(user(parts[1]!, parts[0]!, parts[1]!)).images).toBe(2);
    expect(facts(user({ type: 'input_image', image_url: 'x', file_id: null })).images).toBe(1);
  });

  it('never counts fewer bytes than none', () => {
    const url = fc.oneof(fc.string({ unit: 'binary' }), fc.record({ url: fc.oneof(fc.string({ unit: 'binary' }), fc.constant(null), fc.nat()) }), fc.constant(null), fc.nat());
    fc.assert(fc.property(fc.array(url, { minLength: 1 }), (urls) => {
      const { textBytes, images } = facts(user(...urls.map((image_url) => ({ type: 'input_image', image_url }))));
      expect(textBytes).toBeGreaterThan(0);
      expect(images).toBe(urls.length);
    }), { numRuns: 300 });
  });

  it.each<[object, number | undefined]>([[{}, undefined], [{ max_output_tokens: 5 }, 5], [{ max_output_tokens: null }, undefined], [{ max_tokens: 5 }, undefined]])('reads the output limit of %j', (body, limit) => {
    expect(facts(body).maxOutputTokens).toBe(limit);
  });

  it('knows of no limit for a model that takes none', () => {
    expect(facts({}, 'grok-4.20-multi-agent-0309').maxOutputTokens).toBe('uncapped');
    expect(() => facts({ max_output_tokens: 5 }, 'grok-4.20-multi-agent-0309')).toThrow(unsupported('max_output_tokens'));
  });

  it.each<[object, string | undefined]>([
    [{ reasoning: { effort: 'high' } }, 'high'], [{ reasoning_effort: 'low' }, 'low'], [{ reasoning: { effort: 'high' }, reasoning_effort: 'low' }, 'high'], [{ reasoning: null, reasoning_effort: 'low' }, 'low'], [{}, undefined],
    [{ reasoning: {}, reasoning_effort: 'low' }, undefined], [{ reasoning: { effort: null } }, undefined],
  ])('reads the effort of %j, as the provider does: the old field only without the new', (body, effort) => {
    expect(facts(body).reasoningEffort).toBe(effort);
  });

  it('pays again for what it continues', () => {
    expect(facts({}, 'grok-4.3', PREVIOUS).storedTokens).toBe(5_000);
  });

  it.each([['priority', true], ['fast', true], ['default', false], ['auto', false], [null, false]])('service tier %p asks for priority: %p', (service_tier, priority) => {
    expect(facts({ service_tier }).priority).toBe(priority);
  });

  it.each<[string, object, string]>([
    ['tools[0].type', { tools: [{ type: 'web_search' }] }, 'grok-4.3'], ['tools[1].type', { tools: [{ type: 'function' }, { type: 'mcp' }] }, 'grok-4.3'], ['tools[0].type', { tools: [{ type: 'Function' }] }, 'grok-4.3'],
    ['reasoning.effort', { reasoning: { effort: 'xhigh' } }, 'grok-4.3'], ['reasoning_effort', { reasoning_effort: 'xhigh' }, 'grok-4.3'], ['reasoning_effort', { reasoning_effort: 'low' }, 'grok-4.20-0309-non-reasoning'],
    ['reasoning.effort', { reasoning: { effort: 'low' } }, 'grok-4.20-0309-non-reasoning'], ['reasoning.effort', { reasoning: { effort: 'toString' } }, 'grok-4.3'],
    ['stop', { stop: 'x' }, 'grok-4.3'], ['presence_penalty', { presence_penalty: 0 }, 'grok-4.7'],
    ['input[0].content', user({ type: 'input_file', file_id: 'f' }), 'grok-4.3'], ['input[1].content', { input: [{ role: 'user', content: 'x' }, { role: 'user', content: [{ type: 'input_text' }, { type: 'input_audio' }] }] }, 'grok-4.3'],
    ['input[0].content', { input: [{ type: 'function_call_output', output: [{ type: 'input_file' }] }] }, 'grok-4.3'],
    ['input[0].type', { input: [{ type: 'item_reference', id: 'x' }] }, 'grok-4.3'], ['input[1].type', { input: [{ role: 'user' }, { type: 'web_search_call' }] }, 'grok-4.3'], ['input[0].type', { input: [{ type: 'compaction' }] }, 'grok-4.3'], ['input[0].type', { input: [{ id: 'short-form-of-a-reference' }] }, 'grok-4.3'],
    ['input[0].content', user({ type: 'input_image', file_id: 'f' }), 'grok-4.3'], ['input[0].content', user({ type: 'input_image', image_url: 'x', file_id: 'f' }), 'grok-4.3'],
    ['model', {}, 'grok-imagine-image'], ['model', {}, 'v1'],
  ])('refuses %s in %j for %s: the model does not take it, or it has no price ceiling', (param, body, model) => {
    expect(() => facts(body, model)).toThrow(unsupported(param));
  });

  it('takes all that is text, and null for what a model refuses', () => {
    const input = [
      { role: 'system', content: 'x' }, { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'x' }, { type: 'refusal' }, { type: 'text' }] }, { type: 'reasoning', summary: [{ type: 'summary_text' }], content: [{ type: 'reasoning_text' }, { type: 'summary_text' }] },
      { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' }, { type: 'function_call_output', call_id: 'c', output: 'x' },
    ];
    expect(facts({ input, stop: null, presence_penalty: null, reasoning_effort: null, tools: null }).images).toBe(0);
  });
});

describe('the opening of a response call', () => {
  it('is that of a text, of items, and of instructions alone', () => {
    expect(call({ instructions: 'Be kind.', prompt_cache_key: 'k' }).opening).toMatchObject({ key: 'k' });
    expect(call({ instructions: 'Be kind.' }).opening!.parts()).toEqual({ instructions: ['Be kind.'], first: 'Hi' });
    const [system, developer, first] = [{ role: 'system', content: 'S' }, { role: 'developer', content: [{ type: 'input_text', text: 'D' }] }, { role: 'user', content: 'U' }];
    expect(call({ input: [system, developer, first, { role: 'user', content: 'later' }] }).opening!.parts()).toEqual({ instructions: [undefined, 'S', developer.content], first: 'U' });
    expect(call({ input: [system, developer] }).opening!.parts()).toEqual({ instructions: [undefined, 'S', developer.content], first: '' });
    expect(call({ input: [{ type: 'function_call_output', output: 'x' }] }).opening!.parts()).toEqual({ instructions: [undefined], first: undefined });
  });

  it('is unknown where it continues a stored response', () => {
    expect(call({ prompt_cache_key: 'k' }, PREVIOUS).opening).toBeUndefined();
  });
});

describe('what a response call sends upstream', () => {
  const CONVERSATION = '0b3a6f0e-1111-8222-8333-444455556666';
  const planFor = (body: object, name: string): Plan => planCall(catalogue.resolve(name)!, candidatesOf(name), facts(body, name), { maxTokensCap: 32_768, maxCostTicks: undefined });
  const sent = (body: object, { store = false, conversation = CONVERSATION as string | null, name = 'grok-beta', defaults = {} as Partial<Defaults> } = {}): Record<string, unknown> =>
    JSON.parse(call(body, undefined, defaults).upstream(planFor(body, name), candidatesOf(name)[0]!, conversation ?? undefined, store).body!.toString()) as Record<string, unknown>;

  it('goes to the responses, for events', () => {
    expect(call({}).upstream(planFor({}, 'grok-beta'), candidatesOf('grok-beta')[0]!, undefined, false)).toMatchObject({ method: 'POST', path: '/responses', accept: 'events' });
  });

  it('decides model, stream, storage, cap and cache key, and leaves all else', () => {
    expect(sent({ model: 'grok-beta', max_output_tokens: 5, x_new: { y: 1 } })).toEqual({ model: 'grok-4.3', stream: true, store: false, max_output_tokens: 5, prompt_cache_key: CONVERSATION, input: 'Hi', x_new: { y: 1 } });
  });

  it.each([[true, undefined], [true, true], [true, null], [false, true], [false, undefined], [false, null], [false, false]])('says store: %p whatever the caller did (%p), since the provider keeps answers unless told otherwise', (store, asked) => {
    expect(sent({ store: asked }, { store })['store']).toBe(store);
  });

  it('never sends a caller’s own cache key, which another tenant might have chosen too', () => {
    expect(sent({ prompt_cache_key: 'mine' })['prompt_cache_key']).toBe(CONVERSATION);
    expect(sent({ prompt_cache_key: 'mine' }, { conversation: null })).not.toHaveProperty('prompt_cache_key');
  });

  it('caps an answer that the caller did not limit, or limits too high', () => {
    expect(sent({})['max_output_tokens']).toBe(4_000);
    expect(sent({ max_output_tokens: 1_000_000 })['max_output_tokens']).toBe(32_768);
    expect(sent({ max_output_tokens: null })['max_output_tokens']).toBe(4_000);
  });

  it('sends no cap to a model that refuses one', () => {
    expect(sent({ max_output_tokens: null }, { name: 'grok-4.20-multi-agent-0309' })).not.toHaveProperty('max_output_tokens');
  });

  it('adds our defaults where the caller sent none, and the endpoint has them', () => {
    const defaults = { temperature: 0.7, topP: 0.9, frequencyPenalty: 0.1, presencePenalty: 0.2 };
    expect(sent({ temperature: null }, { defaults, name: 'grok-4.20-0309-non-reasoning' })).toMatchObject({ temperature: 0.7, top_p: 0.9 });
    expect(sent({ temperature: 0, top_p: 0 }, { defaults })).toMatchObject({ temperature: 0, top_p: 0 });
    expect(Object.keys(sent({}, { defaults })).filter((name) => name.includes('penalty'))).toEqual([]);
  });

  it('keeps the caller’s text to the byte', () => {
    const rest = '"input":[{"role":"user","content":"\\u00fc\\/ 1.0"}],"metadata":{ "n" : 12345678901234567890 },"top_k":1.0';
    const request = call(`{"stream":false,${rest},"model":"grok-beta","store":null}`);
    const body = request.upstream(planFor({}, 'grok-beta'), candidatesOf('grok-beta')[0]!, undefined, false).body!.toString();
    expect(body).toBe(`{"model":"grok-4.3","stream":true,"store":false,"max_output_tokens":4000,${rest}}`);
  });

  it('keeps every member that it does not decide, byte for byte and in order', () => {
    const decided = ['model', 'stream', 'store', 'max_output_tokens', 'prompt_cache_key'];
    const name = fc.string({ unit: 'grapheme', maxLength: 8 }).filter((key) => !['input', 'instructions', 'previous_response_id', 'temperature', 'top_p', 'reasoning', 'reasoning_effort', 'text', 'tools', 'parallel_tool_calls', 'service_tier', 'user', 'stop', '__proto__', ...decided].includes(key));
    fc.assert(fc.property(fc.dictionary(name, fc.jsonValue({ maxDepth: 3 }), { maxKeys: 6 }), (more) => {
      const rest = Object.entries({ input: 'Hi', ...more }).map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(' , ').replaceAll(' , ', ',');
      const body = call(`{"model":null,${rest}}`).upstream(planFor({}, 'grok-beta'), candidatesOf('grok-beta')[0]!, undefined, false).body!.toString();
      expect(body).toBe(`{"model":"grok-4.3","stream":true,"store":false,"max_output_tokens":4000,${rest}}`);
    }), { numRuns: 200 });
  });
});

describe('what a response call leaves stored', () => {
  const candidate = { ...candidatesOf('grok-beta')[0]!, name: 'grok-beta' };
  const readerWith = (facts: Partial<AnswerReader>): AnswerReader => Object.assign(Object.create(null) as AnswerReader, facts);
  const BILLED = { inputTokens: 600, cachedInputTokens: 512, outputTokens: 3, reasoningTokens: 50, costTicks: undefined };

  it('is the answer that the provider keeps, with all that a continuation pays for again', () => {
    expect(call({}).stored(readerWith({ storedId: 'r-1', billed: BILLED }), candidate)).toEqual({ kind: 'keep', id: 'r-1', model: 'grok-beta', deployment: 'xai', contextTokens: 653 });
  });

  it('is guessed by size where the provider’s count cannot be believed', () => {
    const request = call({ input: 'x'.repeat(1_000) });
    expect(request.stored(readerWith({ storedId: 'r-1', billed: undefined, outputTokensSeen: 0 }), candidate)!).toMatchObject({ kind: 'keep', contextTokens: request.body.length });
    const further = call({ input: 'x' }, PREVIOUS);
    expect(further.stored(readerWith({ storedId: 'r-1', billed: undefined, outputTokensSeen: 70 }), candidate)!).toMatchObject({ contextTokens: 5_000 + further.body.length + 70 });
  });

  it('is nothing where the provider keeps nothing', () => {
    expect(call({ store: true }).stored(readerWith({ storedId: undefined, billed: BILLED }), candidate)).toBeUndefined();
  });

  it('comes of the stream that its reader reads', () => {
    const request = call({ store: true });
    const reader = request.reader();
    expect(reader).toBeInstanceOf(ResponseStreamReader);
    reader.push(Buffer.from(`data: ${JSON.stringify({ type: 'response.completed', response: { id: 'r-2', store: true, usage: { input_tokens: 10, output_tokens: 5 } } })}\n\n`));
    expect(request.stored(reader, candidate)).toMatchObject({ id: 'r-2', contextTokens: 15 });
  });
});
