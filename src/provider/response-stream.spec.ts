import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { GrokApiError } from './grok-errors.ts';
import { ResponseAssembly, ResponseStreamReader } from './response-stream.ts';

const ID = '0d6b6a38-90d3-4f7e-a2f5-7f6c5b1a2e10';
const USAGE = { input_tokens: 600, input_tokens_details: { cached_tokens: 512 }, output_tokens: 53, output_tokens_details: { reasoning_tokens: 50 }, total_tokens: 653, num_sources_used: 0, cost_in_usd_ticks: 3_449_000 };
const RESPONSE = { id: ID, object: 'response', model: 'grok-4.3', status: 'in_progress', output: [] as object[], store: false, service_tier: 'default', error: null };
const DONE = 'data: [DONE]\n\n';
const NAMED_PING = 'event: ping\ndata: {"type":"ping","sequence_number":4}\n\n';

const event = (type: string, more: object = {}): string => `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: 7, ...more })}\n\n`;
const delta = (text: string, type = 'response.output_text.delta'): string => event(type, { item_id: `msg_${ID}`, output_index: 0, content_index: 0, delta: text, logprobs: [] });
const short = (text: string, type = 'response.output_text.delta'): string => `data: ${JSON.stringify({ type, delta: text })}\n\n`;
const created = event('response.created', { response: RESPONSE });
const whole = (text = 'Blue.', more: object = {}): object => ({
  ...RESPONSE, status: 'completed', output: [{ id: `msg_${ID}`, type: 'message', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text, logprobs: [], annotations: [] }] }], usage: USAGE, ...more,
});
const ending = (more: object = {}, type = 'response.completed', text = 'Blue.'): string => event(type, { response: whole(text, more) });

/** Pushes the text cut at the given byte positions. */
function read(text: string, cuts: readonly number[] = []): { reader: ResponseStreamReader; forwarded: string; steps: Buffer[]; seen: number[] } {
  const bytes = Buffer.from(text);
  const reader = new ResponseStreamReader();
  const places = [0, ...[...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((left, right) => left - right), bytes.length];
  const seen: number[] = [];
  const steps = places.slice(1).map((end, at) => {
    const step = Buffer.from(reader.push(bytes.subarray(places[at], end)));
    seen.push(reader.outputTokensSeen);
    return step;
  });
  return { reader, forwarded: Buffer.concat(steps).toString(), steps, seen };
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

/** What a stream may say without anyone taking it for structure. */
const SAYINGS = [
  'response.completed', '"type":"response.completed"', 'event: response.failed', 'event: response.incomplete\ndata: {}\n\n', 'error', '"type":"error"', '{"error":"x"}', 'error"', '[DONE]', 'DONE]', 'data: [DONE]\n\n',
  'event: ping', ': ping', ':ping', '{"type":"ping"}', '\n\n', '\r\n\r\n', '.delta', '.delta"', '', 'ünïcode 日本語 🙂',
];
const text = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 40 }), fc.constantFrom(...SAYINGS));
const comment = fc.constantFrom(': keep-alive\n\n', ': ping\n\n', ':ping\n\n', ': "response.completed" error" DONE] x.delta"\n\n', ':\n\n');
const STYLES = ['text', 'unnamed', 'reasoning', 'arguments', 'text done', 'item done', 'in progress', 'unknown', 'ping', 'short ping', 'unnamed ping'] as const;

function styled(style: (typeof STYLES)[number], said: string): string {
  switch (style) {
    case 'unnamed': return delta(said).slice(delta(said).indexOf('data:'));
    case 'reasoning': return delta(said, 'response.reasoning_summary_text.delta');
    case 'arguments': return delta(JSON.stringify({ said }), 'response.function_call_arguments.delta');
    case 'text done': return event('response.output_text.done', { text: said });
    case 'item done': return event('response.output_item.done', { item: (whole(said) as { output: object[] }).output[0] });
    case 'in progress': return event('response.in_progress', { response: { ...RESPONSE, instructions: said } });
    case 'unknown': return event('response.doom_loop_check', { error: null, response: said, usage: null });
    case 'ping': return NAMED_PING;
    case 'unnamed ping': return 'data: {"type":"ping","sequence_number":4}\n\n';
    case 'short ping': return 'event:ping\ndata: {}\n\n';
    default: return delta(said);
  }
}

interface Sample {
  /** Frames up to the event that ends the response. */
  open: string[];
  /** That event and what follows. */
  held: string[];
}
const isPing = (frame: string): boolean => /^(event: ?ping|data: \{"type":"ping")/.test(frame);

const sample: fc.Arbitrary<Sample> = fc.record({
  parts: fc.array(fc.oneof({ weight: 6, arbitrary: fc.record({ text, style: fc.constantFrom(...STYLES) }) }, { weight: 1, arbitrary: comment }), { maxLength: 14 }),
  last: text,
  type: fc.constantFrom('response.completed', 'response.incomplete'),
  late: fc.array(fc.oneof(comment, fc.constant(NAMED_PING)), { maxLength: 2 }),
  done: fc.boolean(),
  crlf: fc.boolean(),
}).map(({ parts, last, type, late, done, crlf }) => {
  const ends = (frames: string[]): string[] => (crlf ? frames.map((one) => one.replaceAll('\n', '\r\n')) : frames);
  return {
    open: ends([created, ...parts.map((part) => (typeof part === 'string' ? part : styled(part.style, part.text)))]),
    held: ends([ending({}, type, last), ...late, ...(done ? [DONE] : [])]),
  };
});
const passing = (frames: string[]): string => frames.filter((one) => !isPing(one)).join('');
const cuts = fc.array(fc.nat(20_000), { maxLength: 40 });
const PROPERTY = { numRuns: 600 };

describe('ResponseStreamReader, however the bytes are cut', () => {
  it('gives every byte back unchanged but for pings: what it forwarded, then the tail', () => {
    fc.assert(fc.property(sample, cuts, ({ open, held }, at) => {
      const { reader, forwarded } = read([...open, ...held].join(''), at);
      reader.assertWhole();
      expect(forwarded + reader.tail().toString()).toBe(passing([...open, ...held]));
    }), PROPERTY);
  });

  it('forwards all before the event that ends the response, and nothing from there on', () => {
    fc.assert(fc.property(sample, cuts, ({ open, held }, at) => {
      const { reader, forwarded } = read([...open, ...held].join(''), at);
      expect(forwarded).toBe(passing(open));
      expect(reader.failure).toBeUndefined();
    }), PROPERTY);
  });

  it('forwards each frame with its last byte, not later', () => {
    fc.assert(fc.property(sample, ({ open }) => {
      const reader = new ResponseStreamReader();
      for (const one of open) {
        const bytes = Buffer.from(one);
        expect(reader.push(bytes.subarray(0, -1))).toHaveLength(0);
        expect(reader.push(bytes.subarray(-1)).toString()).toBe(passing([one]));
      }
    }), { numRuns: 200 });
  });

  it('finds the usage, which stands in the last event alone', () => {
    fc.assert(fc.property(sample, cuts, ({ open, held }, at) => {
      expect(read(open.join(''), at).reader.usage).toBeUndefined();
      const { reader } = read([...open, ...held].join(''), at);
      expect(reader.usage).toEqual(USAGE);
      expect(reader.billed).toEqual({ inputTokens: 600, cachedInputTokens: 512, outputTokens: 3, reasoningTokens: 50, costTicks: 3_449_000n });
    }), PROPERTY);
  });

  it('counts the same tokens, and never fewer than before', () => {
    fc.assert(fc.property(sample, cuts, ({ open, held }, at) => {
      const input = [...open, ...held].join('');
      const { reader, seen } = read(input, at);
      expect(reader.outputTokensSeen).toBe(read(input).reader.outputTokensSeen);
      expect(seen).toEqual(seen.toSorted((left, right) => left - right));
      expect(reader.outputTokensSeen).toBeGreaterThanOrEqual(open.filter((one) => /^data: \{"type":"[\w.]+\.delta"/m.test(one)).length);
    }), PROPERTY);
  });

  it('takes no stream for whole that lacks its last event', () => {
    fc.assert(fc.property(sample, cuts, fc.boolean(), ({ open }, at, done) => {
      const { reader, forwarded } = read(`${open.join('')}${done ? DONE : ''}`, at);
      expect(forwarded).toBe(passing(open));
      expect(thrownBy(() => reader.assertWhole())).toMatchObject({ code: 'provider_bad_response', phase: 'mid-stream', mayHaveBeenBilled: true, retryable: false });
    }), PROPERTY);
  });
});

describe('ResponseStreamReader counts', () => {
  it('one token an event with a piece of output at least, and one per two bytes where pieces are long', () => {
    expect(read(created + short('b').repeat(100)).reader.outputTokensSeen).toBe(100);
    expect(read(created + delta('b').repeat(100)).reader.outputTokensSeen).toBe(100);
    expect(read(created + delta('x'.repeat(1_000))).reader.outputTokensSeen).toBe(500);
    expect(read(created + delta('日本語"\n\\').repeat(10)).reader.outputTokensSeen).toBe(Math.ceil((10 * Buffer.byteLength('日本語\\"\\n\\\\')) / 2));
  });

  it.each(['response.output_text.delta', 'response.reasoning_summary_text.delta', 'response.reasoning_text.delta', 'response.function_call_arguments.delta', 'response.refusal.delta', 'response.custom_tool_call_input.delta'])('a piece of output in %s', (type) => {
    for (const one of [short('x', type), delta('x', type), delta('x', type).replaceAll('":', '": ').replaceAll('\n', '\r\n')]) expect(read(one).reader.outputTokensSeen).toBe(1);
  });

  it('pieces that hold what looks like structure', () => {
    for (const said of SAYINGS) expect(read(created + delta(said)).reader.outputTokensSeen).toBe(Math.max(1, Math.ceil((Buffer.byteLength(JSON.stringify(said)) - 2) / 2)));
  });

  it('no tokens for comments and pings, nor for events without a piece of output, since a silent model writes nothing', () => {
    const silent = [created, event('response.in_progress', { response: RESPONSE }), ...Array.from({ length: 50 }, () => `: keep-alive\n\n${NAMED_PING}: x.delta"\n\n`)];
    expect(read(silent.join('')).reader.outputTokensSeen).toBe(0);
  });
});

describe('ResponseStreamReader has begun', () => {
  it('with the first piece of output, and neither with what was announced nor with keep-alives', () => {
    expect(new ResponseStreamReader().begun).toBe(false);
    expect(read(`${created}${event('response.in_progress', { response: RESPONSE })}${NAMED_PING}: output_item. "delta": x\n\n`).reader.begun).toBe(false);
    expect(read(created + delta('x')).reader.begun).toBe(true);
    expect(read(created + delta('x', 'response.reasoning_summary_text.delta')).reader.begun).toBe(true);
    expect(read(created + event('response.output_item.added', { item: {} })).reader.begun).toBe(true);
  });
});

describe('ResponseStreamReader of the last event', () => {
  it.each(['response.completed', 'response.incomplete'])('takes a stream that ends with %s for whole, with [DONE] or without', (type) => {
    for (const after of [DONE, '', 'data:[DONE]\n\n', 'data: [DONE]', 'data: [DO', 'da', `${NAMED_PING}${DONE}`, NAMED_PING]) {
      const { reader, forwarded } = read(`${created}${ending({}, type)}${after}`);
      reader.assertWhole();
      expect(forwarded).toBe(created);
      expect(reader.tail().toString()).toBe(`${ending({}, type)}${after.replace(NAMED_PING, '')}`);
    }
  });

  it('does not need its blank line', () => {
    for (const end of ['\n', '', '\r\n']) {
      const { reader, forwarded } = read(`${created}${ending().trimEnd()}${end}`);
      reader.assertWhole();
      expect(forwarded + reader.tail().toString()).toBe(`${created}${ending().trimEnd()}${end}`);
      expect(reader.usage).toEqual(USAGE);
    }
  });

  it('rejects a stream cut anywhere before its end', () => {
    const bytes = Buffer.from(`${created}${delta('Blue.')}${ending().trimEnd()}`);
    for (let end = 0; end < bytes.length; end += 1) {
      const reader = new ResponseStreamReader();
      reader.push(bytes.subarray(0, end));
      expect(thrownBy(() => reader.assertWhole())).toMatchObject({ code: 'provider_bad_response', phase: 'mid-stream', mayHaveBeenBilled: true });
    }
  });

  it('rejects an empty stream, and one of comments', () => {
    for (const input of ['', '\n\n', ': keep-alive\n\n', NAMED_PING, NAMED_PING.trimEnd(), ': x']) expect(thrownBy(() => read(input).reader.assertWhole()).message).toMatch(/complete|middle/);
  });

  it('knows under which id the provider keeps the answer, where it says that it does', () => {
    expect(read(ending({ store: true })).reader.storedId).toBe(ID);
    expect(read(ending({ store: true }, 'response.incomplete')).reader.storedId).toBe(ID);
    for (const kept of [{ store: false }, { store: undefined }, { store: null }, { store: 'true' }, { store: 1 }, { store: true, id: 7 }, { store: true, id: null }]) expect(read(ending(kept)).reader.storedId).toBeUndefined();
  });

  it('takes no answer for kept before it has ended, nor one that failed', () => {
    expect(read(event('response.created', { response: { ...RESPONSE, store: true } })).reader.storedId).toBeUndefined();
    expect(read(ending({ store: true }, 'response.failed')).reader.storedId).toBeUndefined();
  });

  it.each([['priority', true], ['default', false], ['auto', false], [null, false], [undefined, false], [7, false]])('prices a service tier of %p as priority: %p', (service_tier, priority) => {
    const { reader } = read(event('response.created', { response: { ...RESPONSE, service_tier: 'priority' } }) + ending({ service_tier }));
    expect(reader.priority).toBe(priority);
  });

  it.each([undefined, null])('has no usage where it says %p', (usage) => {
    const { reader } = read(ending({ usage }));
    reader.assertWhole();
    expect(reader.usage).toBeUndefined();
    expect(reader.billed).toBeUndefined();
  });

  it('keeps a usage that cannot be believed, and bills nothing by it', () => {
    const { reader } = read(ending({ usage: { ...USAGE, output_tokens: 49 } }));
    expect(reader.usage).toEqual({ ...USAGE, output_tokens: 49 });
    expect(reader.billed).toBeUndefined();
  });
});

describe('ResponseStreamReader drops', () => {
  it.each(['event: ping\ndata: {"type":"ping"}\n\n', 'event:ping\ndata: {}\n\n', 'event: ping\n\n', 'event: ping\r\ndata: {"type":"ping"}\r\n\r\n', 'data: {"type":"ping","sequence_number":3}\n\n', 'data: {"type": "ping"}\r\n\r\n', 'data:{"sequence_number":3,"type":"ping"}\n\n'])('a ping, which makes clients throw: %j', (ping) => {
    const { reader, forwarded } = read(`${created}${ping}${delta('x')}${ping}${ending()}${ping}${DONE}`);
    reader.assertWhole();
    expect(forwarded).toBe(`${created}${delta('x')}`);
    expect(reader.tail().toString()).toBe(`${ending()}${DONE}`);
  });

  it('no other event, whatever its name ends or begins with', () => {
    for (const name of ['pinged', 'ping.x', 'xping', 'response.ping']) {
      const frame = `event: ${name}\ndata: {"type":"${name}","note":": ping"}\n\n`;
      expect(read(frame).forwarded).toBe(frame);
    }
  });
});

describe('ResponseStreamReader reports', () => {
  const errors: [string, string, string | undefined][] = [
    ['an error event', event('error', { code: 'resource-exhausted', message: 'at capacity', param: null }), 'resource-exhausted'],
    ['an error event without a name', 'data: {"type":"error","code":"internal","message":"boom"}\n\n', 'internal'],
    ['an error event with a nested error', event('error', { status: 404, error: { type: 'x', code: 'previous_response_not_found', message: 'm' } }), 'previous_response_not_found'],
    ['an error event without a code', event('error', { message: 'boom' }), undefined],
    ['a flat error', 'data: {"code":"The service is currently unavailable","error":"at capacity"}\n\n', 'The service is currently unavailable'],
    ['a flat error without a code', 'data: {"error":"boom"}\n\n', undefined],
    ['a nested error', 'data: {"error":{"message":"boom","type":"server_error","code":"internal"}}\n\n', 'internal'],
    ['a failed response', event('response.failed', { response: { ...RESPONSE, status: 'failed', error: { code: 'server_error', message: 'boom' } } }), 'server_error'],
    ['a failed response that says nothing', event('response.failed', { response: { ...RESPONSE, status: 'failed', error: null } }), undefined],
    ['a failed response with CRLF', event('response.failed', { response: { ...RESPONSE, status: 'failed', error: { code: 'server_error' } } }).replaceAll('\n', '\r\n'), 'server_error'],
  ];

  it.each(errors)('%s after output: it may be billed and is not tried again', (_, frame, providerCode) => {
    const { reader, forwarded } = read(`${created}${delta('Bl')}${frame}${delta('late')}`);
    expect(reader.failure).toMatchObject({ code: 'provider_bad_response', phase: 'mid-stream', mayHaveBeenBilled: true, retryable: false, providerCode });
    expect(forwarded).toBe(`${created}${delta('Bl')}`);
  });

  it.each(errors)('%s before any output: it is free, and may be tried again', (_, frame, providerCode) => {
    for (const before of ['', created, `${created}${NAMED_PING}: keep-alive\n\n`]) {
      const { reader, forwarded } = read(`${before}${frame}`);
      expect(reader.failure).toMatchObject({ code: 'provider_bad_response', phase: 'answer', mayHaveBeenBilled: false, retryable: true, providerCode });
      expect(forwarded).toBe(before.replace(NAMED_PING, ''));
    }
  });

  it.each(errors)('%s that lacks its blank line', (_, frame) => {
    const { reader } = read(`${created}${frame.trimEnd()}`);
    expect(thrownBy(() => reader.assertWhole())).toBe(reader.failure);
    expect(reader.failure).toMatchObject({ code: 'provider_bad_response', mayHaveBeenBilled: false });
  });

  it('a failed response with a usage as one that was billed, and bills it', () => {
    const { reader } = read(`${created}${ending({ status: 'failed', error: { code: 'server_error', message: 'boom' } }, 'response.failed')}`);
    expect(reader.failure).toMatchObject({ phase: 'mid-stream', mayHaveBeenBilled: true, retryable: false });
    expect(reader.billed).toMatchObject({ inputTokens: 600, reasoningTokens: 50 });
  });

  it.each(['response.output_item.added', 'response.output_item.done'])('an error after %s, which is output too, as one that may be billed', (type) => {
    const { reader } = read(`${created}${event(type, { item: { type: 'function_call', name: 'f', arguments: '{}' } })}${errors[0]![1]}`);
    expect(reader).toMatchObject({ begun: true, outputTokensSeen: 0, failure: { phase: 'mid-stream', mayHaveBeenBilled: true, retryable: false } });
  });

  it('no failure where an event says that there is none', () => {
    const frame = 'data: {"error":null,"x":1}\n\n';
    expect(read(frame).forwarded).toBe(frame);
    expect(read(frame).reader.failure).toBeUndefined();
  });

  it('an error wherever the bytes are cut, having forwarded all before it and nothing after', () => {
    fc.assert(fc.property(sample, fc.constantFrom(...errors.map(([, frame]) => frame)), cuts, ({ open, held }, frame, at) => {
      const { reader, forwarded } = read([...open, frame, ...held].join(''), at);
      expect(forwarded).toBe(passing(open));
      expect(reader.failure?.mayHaveBeenBilled).toBe(open.some((one) => /"type":"response\.(\w+\.delta|output_item\.done)"/.test(one)));
      expect(reader.tail()).toHaveLength(0);
      expect(reader.push(Buffer.from(delta('more')))).toHaveLength(0);
    }), { numRuns: 300 });
  });

  it.each(SAYINGS)('no error, and no end, in text that says %j', (said) => {
    const input = `${created}${delta(said)}${event('response.output_text.done', { text: said })}`;
    const { reader, forwarded } = read(input);
    expect(reader.failure).toBeUndefined();
    expect(forwarded).toBe(input);
    expect(reader.tail()).toHaveLength(0);
    expect(thrownBy(() => reader.assertWhole()).message).toContain('complete');
  });
});

describe('ResponseStreamReader refuses', () => {
  it.each([
    ['no JSON', 'nonsense response.completed'], ['half of an object', '{"type":"response.completed",'], ['a bare string', '"an error"'], ['an array', '["response.failed"]'], ['null', 'null, or error"'],
    ['an end without a response', '{"type":"response.completed"}'], ['an end with null for a response', '{"type":"response.completed","response":null}'],
    ['an end with a list for a response', '{"type":"response.incomplete","response":[]}'], ['a failure with a text for a response', '{"type":"response.failed","response":"x"}'],
  ])('an event that makes no sense: %s', (_, data) => {
    expect(thrownBy(() => read(`${created}data: ${data}\n\n`))).toMatchObject({ code: 'provider_bad_response', phase: 'mid-stream', mayHaveBeenBilled: true, retryable: false });
  });

  it('an event without end, in bounded memory', () => {
    const reader = new ResponseStreamReader();
    const chunk = Buffer.alloc(1024 * 1024, 0x78);
    for (let pushed = 0; pushed < 48; pushed += 1) expect(reader.push(chunk)).toHaveLength(0);
    expect(thrownBy(() => reader.push(Buffer.from('x')))).toMatchObject({ message: expect.stringContaining('too long'), mayHaveBeenBilled: true });
  });

  it('no event that repeats all of a long request', () => {
    const first = event('response.created', { response: { ...RESPONSE, instructions: 'x'.repeat(33 * 1024 * 1024) } });
    const { reader, forwarded } = read(`${first}${ending()}`, [1024 * 1024, 20 * 1024 * 1024, first.length - 1]);
    reader.assertWhole();
    expect(forwarded === first).toBe(true);
    expect(reader.tail().toString()).toBe(ending());
  });
});

describe('ResponseAssembly', () => {
  it('finds the response as the provider gave it, however the bytes were cut, and whatever is said in it', () => {
    fc.assert(fc.property(sample, cuts, ({ open, held }, at) => {
      const { reader, steps } = read([...open, ...held].join(''), at);
      const assembly = new ResponseAssembly();
      for (const step of steps) assembly.push(step);
      assembly.push(reader.tail());
      const last = held[0]!;
      const { response } = JSON.parse(last.slice(last.indexOf('data: ') + 6)) as { response: object };
      expect(assembly.finish()).toEqual(response);
    }), { numRuns: 300 });
  });

  it('takes an end without a blank line', () => {
    const assembly = new ResponseAssembly();
    assembly.push(Buffer.from(created));
    assembly.push(Buffer.from(ending().trimEnd()));
    expect(assembly.finish()).toEqual(whole());
  });

  it.each([['nothing', ''], ['what only began', `${created}${delta('response.completed')}${DONE}`], ['comments', ': response.completed\n\n']])('makes no answer of %s', (_, frames) => {
    const assembly = new ResponseAssembly();
    assembly.push(Buffer.from(frames));
    expect(thrownBy(() => assembly.finish()).code).toBe('provider_bad_response');
  });
});
