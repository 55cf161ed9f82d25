import { describe, expect, it } from '@jest/globals';
import { ChatAssembly } from './chat-assembly.ts';

const ENVELOPE = { id: 'c1', object: 'chat.completion.chunk', created: 1, model: 'grok-4.3', system_fingerprint: 'fp_8f21c0aa17' };
const USAGE = { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 };

function assemble(choices: object[], usage?: unknown): Record<string, unknown> {
  const assembly = new ChatAssembly();
  for (const choice of choices) assembly.push(Buffer.from(`data: ${JSON.stringify({ ...ENVELOPE, choices: [choice] })}\n\n`));
  assembly.push(Buffer.from(`: comment\n\ndata: ${JSON.stringify({ ...ENVELOPE, choices: [], usage: { prompt_tokens: 9 } })}\n\ndata: [DONE]\n\n`));
  return assembly.finish(usage);
}
const delta = (value: object, index = 0): object => ({ index, delta: value });
const finish = (reason = 'stop', index = 0): object => ({ index, delta: {}, finish_reason: reason });
const messageOf = (...choices: object[]): unknown => (assemble(choices)['choices'] as { message: unknown }[])[0]!.message;

describe('ChatAssembly', () => {
  it('makes the answer that the provider would have given without a stream', () => {
    expect(assemble([delta({ role: 'assistant', content: 'Bl' }), delta({ content: 'ue.' }), finish()], USAGE)).toEqual({
      id: 'c1', object: 'chat.completion', created: 1, model: 'grok-4.3', system_fingerprint: 'fp_8f21c0aa17', usage: USAGE,
      choices: [{ index: 0, message: { role: 'assistant', content: 'Blue.', refusal: null }, finish_reason: 'stop' }],
    });
  });

  it('does not depend on how many frames come at once', () => {
    const frames = ['Bl', 'ue', '. 🙂'].map((content) => `data: ${JSON.stringify({ ...ENVELOPE, choices: [delta({ content })] })}\n\n`);
    const [one, each] = [new ChatAssembly(), new ChatAssembly()];
    one.push(Buffer.from(frames.join('')));
    for (const frame of frames) each.push(Buffer.from(frame));
    expect(one.finish(USAGE)).toEqual(each.finish(USAGE));
  });

  it('leaves out what the provider left out', () => {
    const answer = assemble([delta({ content: 'x' }), finish()]);
    expect(Object.keys(answer)).not.toContain('usage');
    expect(Object.keys((answer['choices'] as object[])[0]!)).toEqual(['index', 'message', 'finish_reason']);
    expect(messageOf(delta({ content: 'x', tool_calls: null, reasoning_content: null }))).toEqual({ role: 'assistant', content: 'x', refusal: null });
  });

  it('puts reasoning together beside the content', () => {
    expect(messageOf(delta({ role: 'assistant', reasoning_content: 'First' }), delta({ reasoning_content: ', think.' }), delta({ content: 'Blue.' })))
      .toEqual({ role: 'assistant', reasoning_content: 'First, think.', content: 'Blue.', refusal: null });
  });

  it('keeps n choices apart and in order, however they are mixed', () => {
    const answer = assemble([delta({ content: 'b' }, 1), delta({ content: 'a' }, 0), finish('length', 1), delta({ content: 'A' }, 0), finish('stop', 0)]);
    expect(answer['choices']).toMatchObject([{ index: 0, message: { content: 'aA' }, finish_reason: 'stop' }, { index: 1, message: { content: 'b' }, finish_reason: 'length' }]);
  });

  it('takes a last finish_reason and no null', () => {
    expect(assemble([{ ...delta({ content: 'x' }), finish_reason: null }, finish('tool_calls')])['choices']).toMatchObject([{ finish_reason: 'tool_calls' }]);
  });

  it('joins log probabilities', () => {
    const answer = assemble([{ ...delta({ content: 'a' }), logprobs: { content: [{ token: 'a' }] } }, { ...delta({ content: 'b' }), logprobs: { content: [{ token: 'b' }] } }, finish()]);
    expect(answer['choices']).toMatchObject([{ logprobs: { content: [{ token: 'a' }, { token: 'b' }] } }]);
  });
});

describe('ChatAssembly of tool calls', () => {
  const call = { id: 'call_40718263', type: 'function', function: { name: 'get_rate', arguments: '{"pair":"EURUSD"}' } };
  const parts = (...tool_calls: object[]): object => delta({ tool_calls });

  it('takes calls that come whole, with empty content', () => {
    const second = { ...call, id: 'call_2' };
    expect(messageOf(parts({ index: 0, ...call }), parts({ index: 1, ...second }), finish('tool_calls')))
      .toEqual({ role: 'assistant', content: '', tool_calls: [call, second], refusal: null });
  });

  it.each([
    ['bare', {}], ['with an empty rest', { id: '', type: 'function' }], ['with nulls', { id: null, type: null }],
  ])('joins arguments that come in pieces, the later ones %s', (_, rest) => {
    const name = 'id' in rest ? { name: rest.id } : {};
    expect(messageOf(
      parts({ index: 0, ...call, function: { name: 'get_rate', arguments: '' } }),
      parts({ index: 0, ...rest, function: { ...name, arguments: '{"pair"' } }),
      parts({ index: 0, ...rest, function: { ...name, arguments: ':"EURUSD"}' } }),
      parts({ index: 0, ...rest, function: { ...name, arguments: null } }),
    )).toMatchObject({ tool_calls: [call] });
  });

  it('cannot be made to touch anything but the call', () => {
    for (const index of ['__proto__', 'constructor', 'length', -1, 1.5, 1e9]) {
      const assembly = new ChatAssembly();
      const frame = Buffer.from(`data: ${JSON.stringify({ ...ENVELOPE, choices: [parts({ index, polluted: 'yes' })] })}\n\n`);
      try {
        assembly.push(frame);
      } catch {
        // to refuse is as good
      }
      expect(([] as unknown as { polluted?: string }).polluted).toBeUndefined();
      expect(JSON.stringify(assembly.finish(undefined)).length).toBeLessThan(1000);
    }
  });
});
