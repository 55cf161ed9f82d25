import { describe, expect, it } from '@jest/globals';
import { cpuMs } from '../../../test/support/cpu-ms.ts';
import { loadCatalogue, type Model } from '../../catalogue/catalogue.ts';
import { candidatesFor, NO_COST, planCall, type Plan } from '../../cost/plan.ts';
import { EMBEDDINGS, IMAGE_GENERATIONS, JsonCall, TOKENIZE } from './json-call.ts';

const catalogue = loadCatalogue();
const modelOf = (name: string): Model => catalogue.resolve(name)!.model;
const ENDPOINTS = { embeddings: EMBEDDINGS, images: IMAGE_GENERATIONS, tokenize: TOKENIZE };
type Name = keyof typeof ENDPOINTS;
const SMALLEST = { embeddings: { input: 'Hi' }, images: { prompt: 'A cat' }, tokenize: { text: 'Hi' } };
const call = (name: Name, body: object | string): JsonCall<never> => new JsonCall(ENDPOINTS[name] as never, Buffer.from(typeof body === 'string' ? body : JSON.stringify({ ...SMALLEST[name], ...body })));
const refusal = (code: string, param: string): unknown => expect.objectContaining({ code, status: 400, param });
const planFor = (name: Name, body: object, model: string): Plan => planCall(catalogue.resolve(model)!, candidatesFor(catalogue, [catalogue.resolve(model)!]), call(name, body).costFacts(modelOf(model)), { maxTokensCap: 32_768, maxCostTicks: undefined });

describe('JsonCall', () => {
  it.each<[Name, string, string[]]>([['embeddings', '/embeddings', ['embeddings']], ['images', '/images/generations', ['image_output']], ['tokenize', '/tokenize-text', ['text']]])('of %s goes to %s and needs %j', (name, path, capabilities) => {
    const request = call(name, { model: 'grok-beta' });
    expect(request).toMatchObject({ model: 'grok-beta', stream: false, storage: 'none', deployment: undefined, opening: undefined, capabilities });
    expect(request.upstream({} as Plan, { upstreamModel: 'grok-4.3' })).toMatchObject({ method: 'POST', path, accept: 'json' });
    expect(call(name, { model: null }).model).toBeUndefined();
    expect(request.stored()).toBeUndefined();
  });

  it('replaces the model, and keeps all else byte for byte', () => {
    expect(call('embeddings', '{ "input" : ["\\u00fc\\/"], "model":"a", "x_new":1.0 }').upstream({} as Plan, { upstreamModel: 'v1' }).body!.toString()).toBe('{"model":"v1","input" : ["\\u00fc\\/"],"x_new":1.0}');
    expect(call('tokenize', '{"text":"x"}').upstream({} as Plan, { upstreamModel: 'grok-4.3' }).body!.toString()).toBe('{"model":"grok-4.3","text":"x"}');
  });

  it.each<[Name, object]>([
    ['embeddings', { input: ['a', 'b'] }], ['embeddings', { input: Array(128).fill('x') }], ['embeddings', { encoding_format: 'base64', dimensions: 1, preview: true }], ['embeddings', { model: null, encoding_format: null, dimensions: null, user: null }],
    ['images', { n: 1 }], ['images', { n: 10, response_format: 'b64_json', aspect_ratio: '16:9', resolution: '1.5k', quality: 'high' }], ['images', { model: null, n: null, response_format: null, aspect_ratio: null, deferred: null, user: null }],
    ['tokenize', { text: '' }], ['tokenize', { model: null, user: null }],
  ])('of %s takes %j', (name, body) => {
    expect(() => call(name, body)).not.toThrow();
  });

  it.each<[Name, string, object]>([
    ['embeddings', 'input', { input: undefined }], ['embeddings', 'input', { input: null }], ['embeddings', 'input', { input: '' }], ['embeddings', 'input', { input: [] }], ['embeddings', 'input', { input: 7 }], ['embeddings', 'input', { input: Array(129).fill('x') }],
    ['embeddings', 'input[1]', { input: ['a', ''] }], ['embeddings', 'input[0]', { input: [1, 2] }], ['embeddings', 'input[0]', { input: [[1, 2]] }], ['embeddings', 'dimensions', { dimensions: 0 }], ['embeddings', 'encoding_format', { encoding_format: 1 }], ['embeddings', 'model', { model: '' }],
    ['images', 'prompt', { prompt: undefined }], ['images', 'prompt', { prompt: '' }], ['images', 'prompt', { prompt: ['x'] }], ['images', 'n', { n: 0 }], ['images', 'n', { n: 11 }], ['images', 'n', { n: 1.5 }], ['images', 'n', { n: '2' }], ['images', 'response_format', { response_format: 7 }], ['images', 'deferred', { deferred: 'yes' }],
    ['tokenize', 'text', { text: undefined }], ['tokenize', 'text', { text: null }], ['tokenize', 'text', { text: ['x'] }], ['tokenize', 'model', { model: 'x'.repeat(257) }],
  ])('of %s names the field at fault: %s in %j', (name, param, body) => {
    expect(() => call(name, body)).toThrow(refusal('invalid_request', param));
  });

  it('refuses a field given twice, of which the provider might read the other', () => {
    expect(() => call('images', '{"prompt":"x","n":1,"n":10}')).toThrow(refusal('invalid_request', 'n'));
  });

  it.each<[string, string, unknown]>([['wrong', 'input[0]', 1], ['too long', 'input', 'x']])('refuses a long list fast that is %s', (_, param, entry) => {
    const body = Buffer.from(JSON.stringify({ input: Array(500_000).fill(entry) }));
    expect(cpuMs(() => expect(() => new JsonCall(EMBEDDINGS, body)).toThrow(refusal('invalid_request', param)))).toBeLessThan(700);
  });
});

describe('the cost of a JSON call', () => {
  it('is that of every byte for embeddings, and of no output', () => {
    const body = { input: ['日本語', 'Grüße'] };
    expect(call('embeddings', body).costFacts(modelOf('v1'))).toEqual({ ...NO_COST, textBytes: Buffer.byteLength(JSON.stringify(body)) });
  });

  it.each<[object, number]>([[{}, 1], [{ n: null }, 1], [{ n: 3 }, 3], [{ n: 10 }, 10]])('is that of the images of %j: %p', (body, generatedImages) => {
    expect(call('images', body).costFacts(modelOf('grok-imagine-image'))).toEqual({ ...NO_COST, generatedImages });
    expect(planFor('images', body, 'grok-imagine-image')).toMatchObject({ holdTicks: BigInt(generatedImages) * 200_000_000n, inputTokens: 0, maxOutputTokens: 0, reasoningTokens: 0 });
  });

  it('is nothing for tokens', () => {
    expect(planFor('tokenize', { text: 'x'.repeat(100_000) }, 'grok-4.7').holdTicks).toBe(0n);
  });

  it.each<[Name, string, object, string]>([
    ['embeddings', 'model', {}, 'grok-4.3'], ['images', 'model', {}, 'grok-4.3'], ['images', 'model', {}, 'v1'], ['embeddings', 'model', {}, 'grok-imagine-image'], ['images', 'deferred', { deferred: true }, 'grok-imagine-image'],
    ['tokenize', 'model', {}, 'grok-imagine-image'], ['tokenize', 'model', {}, 'v1'],
  ])('of %s is refused for %s in %j with %s', (name, param, body, model) => {
    expect(() => call(name, body).costFacts(modelOf(model))).toThrow(refusal('unsupported_parameter', param));
  });

  it('is refused for what no price is known of', () => {
    expect(() => planFor('embeddings', {}, 'v1')).toThrow(expect.objectContaining({ code: 'price_unavailable' }));
  });
});

describe('the answer of a JSON call', () => {
  const NONE = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, costTicks: undefined };

  it.each<[Name, object, boolean]>([
    ['embeddings', { code: 'x', error: 'at capacity' }, true], ['images', { error: { message: 'boom', code: 'x' } }, true], ['images', { error: 'at capacity' }, true], ['tokenize', { error: { message: 'boom' } }, true],
    ['images', { usage: {} }, false], ['tokenize', { data: [] }, false], ['embeddings', { data: {} }, false], ['embeddings', { token_ids: [] }, false],
  ])('of %s is not %j; that it says why makes it free: %p', (name, answer, free) => {
    const reader = call(name, {}).reader();
    reader.push(Buffer.from(JSON.stringify(answer)));
    expect(() => reader.assertWhole()).toThrow(expect.objectContaining({ code: 'provider_bad_response', mayHaveBeenBilled: !free, retryable: free }));
  });

  it.each<[Name, object, object | undefined]>([
    ['embeddings', { data: [], usage: { prompt_tokens: 7, total_tokens: 7 } }, { ...NONE, inputTokens: 7 }], ['embeddings', { data: [] }, undefined],
    ['images', { data: [{ url: 'a' }, { url: 'b' }], usage: { cost_in_usd_ticks: 400_000_000 } }, { ...NONE, generatedImages: 2, costTicks: 400_000_000n }], ['images', { data: [{}], usage: { cost_in_usd_ticks: -1 } }, undefined],
    ['images', { data: [{}] }, { ...NONE, generatedImages: 1 }], ['tokenize', { token_ids: [] }, { ...NONE, costTicks: 0n }],
  ])('of %s that says %j bills %j', (name, answer, billed) => {
    const reader = call(name, {}).reader();
    reader.push(Buffer.from(JSON.stringify(answer)));
    reader.assertWhole();
    expect(reader.billed).toEqual(billed);
    expect(reader.tail().toString()).toBe(JSON.stringify(answer));
  });
});
