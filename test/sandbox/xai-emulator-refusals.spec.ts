import { describe, expect, it } from '@jest/globals';
import { NO_REASONING, UUID, complete, emulator, hello, latest, post, refusalOf, withEmulator } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP.

describe('refusals', () => {
  it.each([
    ['a missing key', { authorization: '' }, 401, { code: 'unauthenticated:no-credentials', error: 'No credentials presented.' }],
    ['a wrong key', { authorization: 'Bearer xai-wrong' }, 400, { code: 'invalid-argument', error: 'Incorrect API key provided. You can obtain an API key from https://console.x.ai.' }],
    ['another content type', { 'content-type': 'text/plain' }, 415, { code: 'invalid-argument', error: expect.any(String) }],
  ])('%s', async (_, headers, status, body) => {
    const response = await post({ model: 'grok-4.3', messages: hello }, { headers });
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual(body);
    expect(response.headers.get('x-request-id')).toMatch(UUID);
    expect(response.headers.get('x-zero-data-retention')).toBe('false');
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('an empty body: 415; broken JSON: 400', async () => {
    expect((await post('')).status).toBe(415);
    expect((await post('{"model":')).status).toBe(400);
    expect(latest()).toMatchObject({ state: 'failed', body: '{"model":' });
  });

  it.each([
    [{ messages: undefined }, 'missing field `messages`'],
    [{ model: undefined }, 'missing field `model`'],
    [{ messages: 'Hi' }, 'messages: invalid type: string "Hi", expected a sequence'],
    [{ messages: [{ content: 'Hi' }] }, 'messages[0]: missing field `role`'],
    [{ messages: [{ role: 'user', content: 5 }] }, 'messages[0].content: invalid type: integer `5`, expected a string'],
    [{ messages: [{ role: 'boss', content: 'Hi' }] }, 'messages[0].role: unknown variant `boss`'],
    [{ messages: [{ role: 'user', content: [{ type: 'text' }] }] }, 'messages[0].content[0]: missing field `text`'],
    [{ max_tokens: -1 }, 'max_tokens: invalid type'],
    [{ stream: 'yes' }, 'stream: invalid type'],
    [{ x_emulator: { output_token: 1 } }, 'x_emulator: unknown field `output_token`'],
  ])('422 for %p', async (fields, text) => {
    const { status, code, error } = await refusalOf(fields);
    expect(status).toBe(422);
    expect(code).toBeUndefined();
    expect(error).toContain(`Failed to deserialize the JSON body into the target type: ${text}`);
  });

  it.each([
    [{ messages: [] }, 400, 'Bad data: Messages cannot be empty'],
    [{ messages: [{ role: 'user', content: [] }] }, 400, 'Invalid request content: Each message must have at least one content element.'],
    [{ presence_penalty: 0 }, 400, 'Argument not supported on this model: presencePenalty'],
    [{ model: 'grok-4.7', frequency_penalty: 0.5 }, 400, 'Argument not supported on this model: frequencyPenalty'],
    [{ model: 'grok-build-0.1', stop: ['x'] }, 400, 'Argument not supported on this model: stop'],
    [{ model: 'grok-build-0.1', reasoning_effort: 'low' }, 400, 'Model grok-build-0.1 does not support parameter reasoningEffort.'],
    [{ model: NO_REASONING, reasoning_effort: 'none' }, 400, `Model ${NO_REASONING} does not support parameter reasoningEffort.`],
    [{ model: 'grok-4.5', reasoning_effort: 'none' }, 400, 'reasoning effort none'],
    [{ model: 'grok-4.20-multi-agent' }, 400, 'Multi Agent'],
    [{ temperature: 2.5 }, 400, 'temperature'],
    [{ n: 0 }, 400, 'n: 0'],
    [{ model: 'grok-9' }, 404, 'The model grok-9 does not exist or your team'],
    [{ search_parameters: { mode: 'auto' } }, 410, 'Live search is deprecated.'],
  ])('%j: %d', async (fields, status, text) => {
    const refusal = await refusalOf(fields);
    expect(refusal.status).toBe(status);
    expect(refusal.error).toContain(text);
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('a prompt that is longer than the context', async () => {
    const refusal = await refusalOf({ model: 'grok-build-0.1', messages: [{ role: 'user', content: 'x'.repeat(1_024_000) }] });
    expect(refusal).toMatchObject({ status: 400, error: "This model's maximum prompt length is 256000 but the request contains 256003 tokens." });
  });

  it('stream together with deferred: a bare JSON string', async () => {
    const response = await post({ model: 'grok-4.3', messages: hello, stream: true, deferred: true });
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual(expect.any(String));
  });

  it('accepts what a model does not refuse', async () => {
    await complete({ reasoning_effort: null, presence_penalty: 0.5, frequency_penalty: 0, stop: 'x', logprobs: true });
    await complete({ model: 'grok-4.3', reasoning_effort: 'none', presence_penalty: 0.5 });
    await complete({ model: 'grok-4.5', reasoning_effort: 'xhigh' });
    const call = { id: 'call_1', type: 'function', function: { name: 'a', arguments: '{}' } };
    const messages = [{ role: 'assistant', content: null, tool_calls: [call] }, { role: 'tool', tool_call_id: call.id, content: '1' }];
    await complete({ model: 'grok-4.3', messages });
    expect(emulator.calls.every(({ state }) => state === 'completed')).toBe(true);
  });

  it('speaks the older dialect when told', async () => {
    await withEmulator({ errorDialect: 'sentence' }, async (other) => {
      const response = await post({ model: 'grok-9', messages: hello }, { at: other });
      expect(await response.json()).toMatchObject({ code: 'Some requested entity was not found' });
    });
  });
});
