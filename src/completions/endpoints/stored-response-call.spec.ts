import { describe, expect, it } from '@jest/globals';
import { NO_COST } from '../../cost/plan.ts';
import { StoredResponseCall } from './stored-response-call.ts';

const STORED = { id: 'r-1', model: 'grok-beta', deployment: 'xai-eu', contextTokens: 5_000 };
const get = new StoredResponseCall(STORED, { method: 'GET', path: '/responses/r-1/input_items?limit=2' });
const remove = new StoredResponseCall(STORED, { method: 'DELETE', path: '/responses/r-1' });

describe('StoredResponseCall', () => {
  it('goes where the response is, without a body, and for nothing', () => {
    for (const call of [get, remove]) {
      expect(call).toMatchObject({ model: 'grok-beta', deployment: 'xai-eu', stream: false, storage: 'none', opening: undefined });
      expect(call.body).toHaveLength(0);
      expect(call.costFacts()).toEqual(NO_COST);
    }
    expect(get.upstream()).toEqual({ method: 'GET', path: '/responses/r-1/input_items?limit=2', body: undefined, accept: 'json' });
    expect(remove.upstream()).toEqual({ method: 'DELETE', path: '/responses/r-1', body: undefined, accept: 'json' });
  });

  it('costs nothing, whatever the usage in the answer says: that was paid for when it was made', () => {
    const reader = get.reader();
    reader.push(Buffer.from('{"object":"response","error":null,"usage":{"input_tokens":600,"output_tokens":53,"cost_in_usd_ticks":3449000}}'));
    reader.assertWhole();
    expect(reader.billed).toEqual({ inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, costTicks: 0n });
    expect(reader.storedId).toBeUndefined();
  });

  it('forgets what was deleted, and only that', () => {
    expect(remove.stored()).toEqual({ kind: 'forget', id: 'r-1' });
    expect(get.stored()).toBeUndefined();
  });

  it('forgets what is gone at the provider, whoever asks', () => {
    for (const call of [get, remove]) expect(call.gone()).toEqual({ kind: 'forget', id: 'r-1' });
  });

  it.each([['a failed response', '{"object":"response","error":{"code":"server_error","message":"boom"}}'], ['a list of items', '{"object":"list","data":[]}'], ['a deletion', '{"id":"r-1","object":"response","deleted":true}']])('takes %s for an answer', (_, body) => {
    const reader = get.reader();
    reader.push(Buffer.from(body));
    reader.assertWhole();
    expect(reader.tail().toString()).toBe(body);
  });

  it.each([['an error', '{"error":"at capacity"}', true], ['a nested error', '{"error":{"message":"boom"}}', true], ['an error that is an object', '{"object":"error","error":{"message":"boom"}}', true], ['nothing', '{}', false]])('takes %s for none', (_, body, free) => {
    const reader = remove.reader();
    reader.push(Buffer.from(body));
    expect(() => reader.assertWhole()).toThrow(expect.objectContaining({ code: 'provider_bad_response', mayHaveBeenBilled: !free }));
  });
});
