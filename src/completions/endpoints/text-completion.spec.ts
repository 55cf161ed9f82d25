import { afterEach, describe, expect, it } from '@jest/globals';
import type { FastifyReply } from 'fastify';
import { cpuMs } from '../../../test/support/cpu-ms.ts';
import { loadCatalogue, type Model } from '../../catalogue/catalogue.ts';
import { candidatesFor, planCall } from '../../cost/plan.ts';
import type { CompletionAnswer } from '../completion-answer.ts';
import type { Defaults } from './model-fit.ts';
import { TextCompletionCall } from './text-completion.ts';

const catalogue = loadCatalogue();
const modelOf = (name: string): Model => catalogue.resolve(name)!.model;
const DEFAULTS: Defaults = { model: 'grok-beta', maxTokensCap: 32_768, temperature: undefined, topP: undefined, frequencyPenalty: undefined, presencePenalty: undefined };
const NAME = 'grok-4.20-0309-non-reasoning';
const call = (body: object | string): TextCompletionCall => new TextCompletionCall(Buffer.from(typeof body === 'string' ? body : JSON.stringify({ prompt: 'Hi', ...body })), DEFAULTS);
const refusal = (code: string, param: string): unknown => expect.objectContaining({ code, status: 400, param });

function sentBody(request: TextCompletionCall, name = NAME): string {
  const resolved = catalogue.resolve(name)!;
  const plan = planCall(resolved, candidatesFor(catalogue, [resolved]), request.costFacts(modelOf(name)), { maxTokensCap: 32_768, maxCostTicks: undefined });
  const upstream = request.upstream(plan, plan.candidates[0]!, undefined);
  expect(upstream).toMatchObject({ method: 'POST', path: '/chat/completions', accept: 'events' });
  return upstream.body!.toString();
}
const sent = (body: object, name = NAME): Record<string, unknown> => JSON.parse(sentBody(call(body), name)) as Record<string, unknown>;

describe('a text completion', () => {
  it.each<[object]>([[{ prompt: 'Grüße 🙂' }], [{ prompt: ['Grüße 🙂'] }]])('sends %j as one message of the user', (body) => {
    expect(sent({ ...body, model: NAME, max_tokens: 5 })).toEqual({ model: NAME, stream: true, stream_options: { include_usage: true }, max_completion_tokens: 5, messages: [{ role: 'user', content: 'Grüße 🙂' }] });
  });

  it('sends an empty prompt, too', () => {
    expect(sent({ prompt: '' })['messages']).toEqual([{ role: 'user', content: '' }]);
  });

  it('leaves out what asks for nothing, and sends all else as the caller wrote it', () => {
    const body = sentBody(call('{"prompt":"Hi","echo":false,"suffix":"","best_of":1,"logprobs":0,"logit_bias":null,"seed":12345678901234567890,"stop":["\\u00fc\\/"],"temperature":1.0,"x_new":{ "y" : 1 },"n":2}'));
    expect(body).toBe(`{"model":"${NAME}","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":4000,"messages":[{"role":"user","content":"Hi"}],"seed":12345678901234567890,"stop":["\\u00fc\\/"],"temperature":1.0,"x_new":{ "y" : 1 },"n":2}`);
  });

  it('sends none but the prompt’s message', () => {
    expect(sent({ messages: [{ role: 'system', content: 'other' }], prompt: 'Hi' })['messages']).toEqual([{ role: 'user', content: 'Hi' }]);
  });

  it('commits to the caller’s own bytes', () => {
    expect(call('{ "prompt" : ["Hi"] }').body.toString()).toBe('{ "prompt" : ["Hi"] }');
  });

  it('counts what goes upstream', () => {
    const { textBytes, choices, maxOutputTokens } = call({ prompt: '日本語', n: 3, max_tokens: 7 }).costFacts(modelOf(NAME));
    expect(textBytes).toBeGreaterThanOrEqual(Buffer.byteLength('{"messages":[{"role":"user","content":"日本語"}],"n":3,"max_tokens":7}'));
    expect([choices, maxOutputTokens]).toEqual([3, 7]);
    expect(call({ model: 'grok-pro', stream: true })).toMatchObject({ model: 'grok-pro', stream: true, storage: 'none', deployment: undefined, capabilities: ['text'] });
  });

  it.each<[string, object]>([
    ['echo', { echo: true }], ['suffix', { suffix: 'x' }], ['best_of', { best_of: 2 }], ['best_of', { best_of: 0 }], ['logprobs', { logprobs: 1 }], ['logprobs', { logprobs: true }], ['logit_bias', { logit_bias: { 50256: -100 } }],
  ])('refuses %s in %j: a chat has none', (param, body) => {
    expect(() => call(body)).toThrow(refusal('unsupported_parameter', param));
  });

  it.each<[string, object, string]>([['stop', { stop: 'x' }, 'grok-4.3'], ['frequency_penalty', { frequency_penalty: 1 }, 'grok-4.7'], ['model', {}, 'grok-4.20-multi-agent-0309'], ['tools[0].type', { tools: [{ type: 'web_search' }] }, NAME], ['deferred', { deferred: true }, NAME]])(
    'refuses %s in %j for %s, as a chat does', (param, body, model) => {
      expect(() => call(body).costFacts(modelOf(model))).toThrow(refusal('unsupported_parameter', param));
    });

  it.each<[string, object]>([
    ['prompt', { prompt: undefined }], ['prompt', { prompt: null }], ['prompt', { prompt: 7 }], ['prompt', { prompt: [] }], ['prompt', { prompt: ['a', 'b'] }], ['prompt[0]', { prompt: [1, 2, 3] }], ['prompt[0]', { prompt: [[1, 2], [3]] }],
    ['model', { model: 7 }], ['stream', { stream: 'yes' }], ['stream_options.include_usage', { stream_options: { include_usage: 1 } }], ['max_tokens', { max_tokens: 0 }], ['temperature', { temperature: 3 }], ['top_p', { top_p: 2 }], ['n', { n: 0 }], ['n', { n: 129 }],
    ['seed', { seed: 1.5 }], ['stop', { stop: Array(9).fill('x') }], ['frequency_penalty', { frequency_penalty: 3 }], ['presence_penalty', { presence_penalty: -3 }], ['echo', { echo: 'x' }], ['user', { user: 7 }],
    ['max_completion_tokens', { max_completion_tokens: 0 }], ['tools', { tools: 'x' }], // of a chat
  ])('names the field at fault: %s in %j', (param, body) => {
    expect(() => call(body)).toThrow(refusal('invalid_request', param));
  });

  it('takes null for every optional field', () => {
    const nulls = Object.fromEntries(['model', 'stream', 'stream_options', 'max_tokens', 'temperature', 'top_p', 'n', 'seed', 'stop', 'frequency_penalty', 'presence_penalty', 'echo', 'suffix', 'best_of', 'logprobs', 'logit_bias', 'user'].map((name) => [name, null]));
    expect(sent(nulls)['messages']).toEqual([{ role: 'user', content: 'Hi' }]);
  });

  it.each(['prompt', 'stop'])('refuses a long wrong list of %s fast', (name) => {
    const body = Buffer.from(JSON.stringify({ prompt: 'Hi', [name]: Array(1_000_000).fill(1) }));
    expect(cpuMs(() => expect(() => new TextCompletionCall(body, DEFAULTS)).toThrow(expect.objectContaining({ code: 'invalid_request' })))).toBeLessThan(700);
  });
});

describe('the answer of a text completion', () => {
  const open: CompletionAnswer[] = [];
  afterEach(() => {
    for (const answer of open.splice(0)) answer.abandon();
  });

  /** Collects what goes to the caller. */
  function answerTo(body: object): { answer: CompletionAnswer; text: () => string } {
    const parts: Buffer[] = [];
    const take = (bytes: Buffer): boolean => parts.push(Buffer.from(bytes)) > 0;
    const reply = { hijack: () => undefined, getHeaders: () => ({}), raw: { once: () => undefined, writeHead: () => undefined, write: take, end: take } } as unknown as FastifyReply;
    const answer = call(body).answer(reply, { pause: () => undefined, resume: () => undefined, cut: () => undefined }, () => ({}));
    open.push(answer);
    return { answer, text: () => Buffer.concat(parts).toString() };
  }
  const ENVELOPE = { id: 'c1', object: 'chat.completion.chunk', created: 1, model: NAME, system_fingerprint: 'fp_1' };
  const OLD = { ...ENVELOPE, object: 'text_completion' };
  const USAGE = { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 };
  const frame = (chunk: object): string => `data: ${JSON.stringify(chunk)}\n\n`;
  const choice = (delta: object, index = 0, finish_reason?: string): object => ({ index, delta, ...(finish_reason === undefined ? {} : { finish_reason }) });
  const old = (text: string, index = 0, finish_reason: string | null = null): object => ({ index, text, logprobs: null, finish_reason });

  it('comes in the old form, frame by frame, with comments and the end as they were', () => {
    const { answer, text } = answerTo({ stream: true });
    answer.write(Buffer.from(`${frame({ ...ENVELOPE, choices: [choice({ role: 'assistant', content: 'Grü' })] })}: keep-alive\n\n${frame({ ...ENVELOPE, choices: [choice({ content: 'ße 🙂\n\n' }, 1)] })}`));
    answer.write(Buffer.from(frame({ ...ENVELOPE, choices: [choice({ reasoning_content: 'hm' })] })));
    answer.finish(Buffer.from(`${frame({ ...ENVELOPE, choices: [choice({}, 0, 'stop'), choice({ content: null }, 1, 'length')] })}${frame({ ...ENVELOPE, choices: [], usage: USAGE })}data: [DONE]\n\n`), {}, USAGE);
    expect(text()).toBe([
      frame({ ...OLD, choices: [old('Grü')] }), ': keep-alive\n\n', frame({ ...OLD, choices: [old('ße 🙂\n\n', 1)] }), frame({ ...OLD, choices: [old('')] }), frame({ ...OLD, choices: [old('', 0, 'stop'), old('', 1, 'length')] }),
      frame({ ...OLD, choices: [], usage: USAGE }), 'data: [DONE]\n\n',
    ].join(''));
  });

  it('ends as it should where its last frame lacks the blank line', () => {
    const { answer, text } = answerTo({ stream: true });
    answer.finish(Buffer.from(`${frame({ ...ENVELOPE, choices: [choice({}, 0, 'stop')] })}data: [DONE]`), {}, undefined);
    expect(text()).toBe(`${frame({ ...OLD, choices: [old('', 0, 'stop')] })}data: [DONE]`);
  });

  it('comes as one object without a stream, with each choice’s text', () => {
    const { answer, text } = answerTo({ n: 2 });
    answer.write(Buffer.from([choice({ role: 'assistant', content: 'a' }), choice({ content: 'B' }, 1), choice({ content: 'b' }), choice({}, 0, 'stop')].map((one) => frame({ ...ENVELOPE, choices: [one] })).join('')));
    answer.finish(Buffer.from(`${frame({ ...ENVELOPE, choices: [choice({}, 1, 'length')] })}data: [DONE]\n\n`), {}, USAGE);
    expect(JSON.parse(text())).toEqual({ id: 'c1', object: 'text_completion', created: 1, model: NAME, system_fingerprint: 'fp_1', usage: USAGE, choices: [old('ab', 0, 'stop'), old('B', 1, 'length')] });
  });
});
