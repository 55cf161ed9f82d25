import { describe, expect, it } from '@jest/globals';
import { loadCatalogue, type Model } from '../../catalogue/catalogue.ts';
import { candidatesFor, planCall, type Plan } from '../../cost/plan.ts';
import type { CostFacts } from '../../cost/plan.ts';
import { ChatCall } from './chat-call.ts';
import { parseCompletionRequest } from './chat-request.ts';
import type { Defaults } from './model-fit.ts';

const catalogue = loadCatalogue();
const modelOf = (name: string): Model => catalogue.resolve(name)!.model;
const MESSAGES = [{ role: 'user', content: 'Hi' }];
const DEFAULTS: Defaults = { model: 'grok-beta', maxTokensCap: 32_768, temperature: undefined, topP: undefined, frequencyPenalty: undefined, presencePenalty: undefined };
const call = (body: object | string, defaults = DEFAULTS): ChatCall => new ChatCall(parseCompletionRequest(Buffer.from(typeof body === 'string' ? body : JSON.stringify({ messages: MESSAGES, ...body }))), defaults);
const facts = (body: object, model = 'grok-4.3'): CostFacts => call(body).costFacts(modelOf(model));
const unsupported = (param: string): unknown => expect.objectContaining({ code: 'unsupported_parameter', status: 400, param });

describe('the cost facts of a chat call', () => {
  it('counts every byte of the body, in UTF-8', () => {
    for (const content of ['Hi', 'Grüße', '日本語', '🙂']) {
      const body = { messages: [{ role: 'user', content }], tools: [{ type: 'function', function: { name: 'f' } }] };
      expect(facts(body).textBytes).toBe(Buffer.byteLength(JSON.stringify(body)));
    }
  });

  it('counts an image once, and not its bytes', () => {
    const image = (image_url: unknown): object => ({ messages: [{ role: 'user', content: [{ type: 'text', text: 'Look' }, { type: 'image_url', image_url }] }] });
    const url = `data:image/png;base64,${'A'.repeat(100_000)}`;
    expect(facts(image({ url }))).toMatchObject({ images: 1, textBytes: JSON.stringify(image({ url })).length - url.length });
    expect(facts(image(url))).toMatchObject({ images: 1, textBytes: JSON.stringify(image(url)).length - url.length });
    expect(facts(image(undefined))).toMatchObject({ images: 1 });
    expect(facts(image({ url: '🙂\u0001' })).textBytes).toBeGreaterThan(0);
  });

  it.each<[object, number | undefined]>([[{}, undefined], [{ max_tokens: 5 }, 5], [{ max_completion_tokens: 7 }, 7], [{ max_tokens: 5, max_completion_tokens: 7 }, 7], [{ max_tokens: 5, max_completion_tokens: null }, 5]])(
    'reads the output limit of %j', (body, limit) => {
      expect(facts(body).maxOutputTokens).toBe(limit);
    });

  it.each([['priority', true], ['fast', true], ['default', false], ['auto', false], [null, false]])('service tier %p asks for priority: %p', (service_tier, priority) => {
    expect(facts({ service_tier }).priority).toBe(priority);
  });

  it('reads choices and effort', () => {
    expect(facts({ n: 3, reasoning_effort: 'high' })).toMatchObject({ choices: 3, reasoningEffort: 'high' });
    expect(facts({ n: null, reasoning_effort: null })).toMatchObject({ choices: 1, reasoningEffort: undefined });
  });

  it.each<[string, object, string]>([
    ['presence_penalty', { presence_penalty: 0 }, 'grok-4.3'], ['frequency_penalty', { frequency_penalty: 1 }, 'grok-4.7'], ['stop', { stop: 'x' }, 'grok-4.3'],
    ['reasoning_effort', { reasoning_effort: 'low' }, 'grok-4.20-0309-reasoning'], ['reasoning_effort', { reasoning_effort: 'xhigh' }, 'grok-4.3'], ['reasoning_effort', { reasoning_effort: 'constructor' }, 'grok-4.3'],
    ['reasoning_effort', { reasoning_effort: 'none' }, 'grok-4.7'], ['deferred', { deferred: true }, 'grok-4.3'], ['tools[1].type', { tools: [{ type: 'function' }, { type: 'web_search' }] }, 'grok-4.3'],
    ['messages[0].content', { messages: [{ role: 'user', content: [{ type: 'file', file: {} }] }] }, 'grok-4.3'], ['messages[0].content', { messages: [{ role: 'user', content: [{ type: 'input_audio' }] }] }, 'grok-4.3'],
    ['model', {}, 'grok-4.20-multi-agent-0309'],
  ])('refuses %s in %j for %s: the model does not take it, or it has no price ceiling', (param, body, model) => {
    expect(() => facts(body, model)).toThrow(unsupported(param));
  });

  it('takes null for what a model refuses', () => {
    expect(() => facts({ presence_penalty: null, stop: null, deferred: false, reasoning_effort: null })).not.toThrow();
  });
});

describe('the capabilities of a chat call', () => {
  it.each<[object, string[]]>([
    [{}, ['text']], [{ tools: [] }, ['text']], [{ tools: [{ type: 'function' }] }, ['text', 'function_calling']],
    [{ response_format: { type: 'json_schema' } }, ['text', 'structured_output']], [{ response_format: { type: 'text' } }, ['text']],
    [{ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: 'x' }] }] }, ['text', 'image_input']],
  ])('of %j are %j', (body, capabilities) => {
    expect(call(body).capabilities).toEqual(capabilities);
  });
});

describe('what a chat call sends upstream', () => {
  const CONVERSATION = '0b3a6f0e-1111-8222-8333-444455556666';
  const planFor = (body: object, name: string): Plan => planCall(catalogue.resolve(name)!, candidatesFor(catalogue, [catalogue.resolve(name)!]), facts(body, name), { maxTokensCap: 32_768, maxCostTicks: undefined });
  const sent = (body: object, defaults: Partial<typeof DEFAULTS> | Record<string, number> = {}, name = 'grok-beta'): Record<string, unknown> =>
    JSON.parse(call(body, { ...DEFAULTS, ...defaults }).upstream(planFor(body, name), { model: modelOf(name), upstreamModel: modelOf(name).id }, CONVERSATION).body!.toString()) as Record<string, unknown>;

  it('decides the model, the stream and the output cap, and leaves all else', () => {
    expect(sent({ model: 'grok-beta', max_tokens: 5, x_new: { y: 1 } })).toEqual({
      model: 'grok-4.3', stream: true, stream_options: { include_usage: true }, max_completion_tokens: 5, messages: MESSAGES, x_new: { y: 1 },
    });
  });

  it('never sends a caller’s own cache key, which another tenant might have chosen too', () => {
    expect(sent({ prompt_cache_key: 'mine' })['prompt_cache_key']).toBe(CONVERSATION);
    expect(sent({})).not.toHaveProperty('prompt_cache_key');
  });

  it('caps an answer that the caller did not limit', () => {
    expect(sent({})['max_completion_tokens']).toBe(4_000);
  });

  it('asks for usage whatever the caller says, and keeps other stream options', () => {
    expect(sent({ stream: false, stream_options: { include_usage: false, other: 1 } })).toMatchObject({ stream: true, stream_options: { include_usage: true, other: 1 } });
    expect(sent({ stream_options: null })).toMatchObject({ stream_options: { include_usage: true } });
  });

  it('adds our defaults where the caller sent none', () => {
    const defaults = { temperature: 0.7, topP: 0.9, frequencyPenalty: 0.1, presencePenalty: 0.2 };
    expect(sent({ temperature: null }, defaults, 'grok-4.20-0309-non-reasoning')).toMatchObject({ temperature: 0.7, top_p: 0.9, frequency_penalty: 0.1, presence_penalty: 0.2 });
    expect(sent({ temperature: 0, top_p: 0 }, defaults)).toMatchObject({ temperature: 0, top_p: 0 });
  });

  it('drops our defaults for models that refuse them', () => {
    const body = sent({}, { frequencyPenalty: 0.1, presencePenalty: 0.2, temperature: 1 }, 'grok-4.3');
    expect(Object.keys(body)).not.toContain('frequency_penalty');
    expect(Object.keys(body)).not.toContain('presence_penalty');
    expect(body['temperature']).toBe(1);
  });

  it('keeps the caller’s text to the byte', () => {
    const json = '{"messages":[{"role":"user","content":"\\u00fc\\/ 1.0"}],"seed":12345678901234567890,"model":"grok-beta"}';
    const request = call(json);
    const plan = planCall(catalogue.resolve('grok-beta')!, candidatesFor(catalogue, [catalogue.resolve('grok-beta')!]), request.costFacts(modelOf('grok-beta')), { maxTokensCap: 32_768, maxCostTicks: undefined });
    expect(request.upstream(plan, plan.candidates[0]!, undefined).body!.toString()).toContain('"messages":[{"role":"user","content":"\\u00fc\\/ 1.0"}],"seed":12345678901234567890');
  });
});
