import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { GrokApiError } from './grok-errors.ts';
import { readEmbeddingUsage } from './grok-usage.ts';
import { JsonAnswerReader } from './json-answer.ts';

const ANSWER = '{ "object": "list",\n "data": [{"embedding":[0.10, 1e-3]}], "text": "ünïcode 日本語 🙂 \\u00fc\\/", "usage": {"prompt_tokens": 7, "total_tokens": 7} }\n';

/** A good answer of this kind has data. */
const isWhole = ({ data }: Record<string, unknown>): boolean => data !== undefined;

function read(body: string | Buffer, cuts: readonly number[] = []): JsonAnswerReader {
  const bytes = Buffer.from(body);
  const reader = new JsonAnswerReader(isWhole, readEmbeddingUsage);
  const places = [0, ...[...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((left, right) => left - right), bytes.length];
  for (const [at, end] of places.slice(1).entries()) expect(reader.push(bytes.subarray(places[at], end))).toHaveLength(0);
  return reader;
}

function thrownBy(run: () => unknown): GrokApiError {
  try {
    run();
  } catch (error) {
    if (error instanceof GrokApiError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('JsonAnswerReader', () => {
  it('holds everything back, and gives it unchanged however it was cut', () => {
    fc.assert(fc.property(fc.oneof(fc.constant(ANSWER), fc.dictionary(fc.string(), fc.jsonValue()).map((value) => JSON.stringify({ ...value, data: [] }))), fc.array(fc.nat(5_000), { maxLength: 20 }), (body, cuts) => {
      const reader = read(body, cuts);
      reader.assertWhole();
      expect(reader.tail().toString()).toBe(body);
      expect(reader.usage).toEqual((JSON.parse(body) as { usage?: unknown }).usage);
    }), { numRuns: 300 });
  });

  it('reads what the answer says of its cost, once it is whole', () => {
    const reader = read(ANSWER);
    expect([reader.usage, reader.billed]).toEqual([undefined, undefined]);
    reader.assertWhole();
    expect(reader.usage).toEqual({ prompt_tokens: 7, total_tokens: 7 });
    expect(reader.billed).toEqual({ inputTokens: 7, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, costTicks: undefined });
  });

  it('has begun with its first byte', () => {
    expect(new JsonAnswerReader(isWhole, readEmbeddingUsage).begun).toBe(false);
    expect(read('').begun).toBe(false);
    expect(read('{').begun).toBe(true);
  });

  it('is never kept by the provider, nor served with priority, and shows nothing of itself on the way', () => {
    const reader = read('{"store":true,"id":"x","service_tier":"priority","data":[]}');
    reader.assertWhole();
    expect([reader.storedId, reader.priority, reader.failure, reader.outputTokensSeen]).toEqual([undefined, false, undefined, 0]);
  });

  it.each([
    ['nothing', ''], ['white space', ' \n'], ['half an object', '{"data":['], ['text after it', '{} x'], ['HTML', '<html></html>'], ['a list', '[{}]'], ['null', 'null'], ['a text', '"boom"'], ['a number', '7'], ['an empty object', '{}'], ['what lacks its data', '{"object":"list","error":null}'],
  ])('takes %s for no answer', (_, body) => {
    expect(thrownBy(() => read(body).assertWhole())).toMatchObject({ code: 'provider_bad_response', phase: 'mid-stream', retryable: false, mayHaveBeenBilled: true });
  });

  it('takes no part of an answer for it', () => {
    for (let end = 0; end < ANSWER.trimEnd().length; end += 1) expect(thrownBy(() => read(ANSWER.slice(0, end)).assertWhole()).mayHaveBeenBilled).toBe(true);
  });

  it.each([
    ['flat', '{"code":"The service is currently unavailable","error":"at capacity"}', 'The service is currently unavailable'], ['with a number for a code', '{"code":14,"error":"at capacity"}', '14'],
    ['without a code', '{"error":"at capacity"}', undefined], ['nested', '{"error":{"message":"boom","type":"server_error","code":"internal"}}', 'internal'], ['nested, without a code', '{"error":{"message":"boom"}}', undefined],
    ['nested, with a code beside it', '{"code":"internal","error":{"message":"boom"}}', 'internal'],
  ])('tells an error that came as a success, %s: it is free, and may be tried again', (_, body, providerCode) => {
    expect(thrownBy(() => read(body).assertWhole())).toMatchObject({ code: 'provider_bad_response', phase: 'answer', retryable: true, mayHaveBeenBilled: false, providerCode });
  });

  it('takes what is whole for an answer, whatever error it tells of itself', () => {
    for (const error of ['null', '"boom"', '{"code":"server_error","message":"boom"}']) {
      const body = `{"data":[],"code":"x","error":${error}}`;
      const reader = read(body);
      reader.assertWhole();
      expect(reader.tail().toString()).toBe(body);
    }
  });

  it('takes ten images, and refuses what is too long in bounded memory', () => {
    const chunk = Buffer.alloc(16 * 1024 * 1024, 0x78);
    const reader = new JsonAnswerReader(isWhole, readEmbeddingUsage);
    for (let pushed = 0; pushed < 8; pushed += 1) expect(reader.push(chunk)).toHaveLength(0);
    expect(thrownBy(() => reader.push(Buffer.from('x')))).toMatchObject({ message: expect.stringContaining('too long'), mayHaveBeenBilled: true });
  });
});
