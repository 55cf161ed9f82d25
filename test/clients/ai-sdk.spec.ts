import { createXai, type XaiProvider } from '@ai-sdk/xai';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { APICallError, generateText, jsonSchema, streamText, tool } from 'ai';
import { startHarness, type Harness } from '../support/harness.ts';
import { settled } from '../support/records.ts';

// The packages `ai` and `@ai-sdk/xai`, unmodified: only `baseURL` and `apiKey` are changed. Its `fetch` is counted, not altered.

let harness: Harness;
let xai: XaiProvider;
const requestIds: (string | null)[] = [];
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_RETRY_MAX: '0' } });
  xai = provider(await harness.token());
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => {
  harness.emulator.reset();
  requestIds.length = 0;
});

function provider(apiKey: string): XaiProvider {
  return createXai({
    baseURL: `${harness.url}/v1`, apiKey,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      requestIds.push(response.headers.get('x-request-id'));
      return response;
    },
  });
}

const weather = tool({
  description: 'The weather in a city',
  inputSchema: jsonSchema<{ city: string }>({ type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false }),
});

describe('@ai-sdk/xai', () => {
  it('generates a text, with the tokens that were charged', async () => {
    const { text, finishReason, usage } = await generateText({ model: xai.chat('grok-beta'), prompt: 'Say hello.' });
    expect(text).toMatch(/^This text stands in for an answer of Grok/);
    expect(finishReason).toBe('stop');
    const upstream = harness.emulator.calls[0]!;
    expect(usage.inputTokens).toBe(upstream.promptTokens);
    expect(usage.outputTokens).toBe(upstream.completionTokens + upstream.reasoningTokens);
    expect((await settled(harness, requestIds[0]!)).chargedTicks).toBe(upstream.billedUsdTicks);
  });

  it('streams a text', async () => {
    const result = streamText({ model: xai.chat('grok-beta'), prompt: 'Say hello.' });
    let text = '';
    for await (const part of result.textStream) text += part;
    expect(text).toMatch(/^This text stands in for an answer of Grok/);
    expect(await result.finishReason).toBe('stop');
    expect((await result.usage).outputTokens).toBeGreaterThan(0);
    expect(harness.emulator.calls[0]).toMatchObject({ state: 'completed', model: 'grok-4.3' });
    expect((await settled(harness, requestIds[0]!)).outcome).toBe('completed');
  });

  it('calls a tool', async () => {
    const { toolCalls, finishReason } = await generateText({ model: xai.chat('grok-beta'), prompt: 'The weather?', tools: { weather }, toolChoice: 'required' });
    expect(finishReason).toBe('tool-calls');
    expect(toolCalls).toMatchObject([{ toolName: 'weather', input: { city: expect.any(String) } }]);
  });

  it('calls a tool in a stream', async () => {
    const result = streamText({ model: xai.chat('grok-beta'), prompt: 'The weather?', tools: { weather }, toolChoice: 'required' });
    expect(await result.toolCalls).toMatchObject([{ toolName: 'weather', input: { city: expect.any(String) } }]);
    expect(await result.finishReason).toBe('tool-calls');
  });

  it('does not retry a 402', async () => {
    await harness.request('POST', '/admin/v1/tenants', { token: await harness.adminToken(), body: { id: 'penniless', name: 'Penniless', tier: 'standard' } });
    const poor = provider(await harness.token({ tenant: 'penniless' }));
    const error: unknown = await generateText({ model: poor.chat('grok-beta'), prompt: 'Say hello.', maxRetries: 2 }).catch((reason: unknown) => reason);
    expect(APICallError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ statusCode: 402, isRetryable: false, responseBody: expect.stringContaining('"code":"budget_exceeded"') });
    expect(requestIds).toHaveLength(1);
    expect(harness.emulator.calls).toHaveLength(0);
  });
});
