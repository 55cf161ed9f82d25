import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ChatStreamReader } from './chat-stream.ts';
import { GrokApiError } from './grok-errors.ts';

const ENVELOPE = { id: '5b0f6a38-90d3-4f7e-a2f5-7f6c5b1a2e10', object: 'chat.completion.chunk', created: 1_796_000_000, model: 'grok-4.3' };
const USAGE = { prompt_tokens: 600, completion_tokens: 3, total_tokens: 653, prompt_tokens_details: { cached_tokens: 512 }, completion_tokens_details: { reasoning_tokens: 50 }, cost_in_usd_ticks: 3_449_000 };
const DONE = 'data: [DONE]\n\n';

const frame = (chunk: object): string => `data: ${JSON.stringify({ ...ENVELOPE, ...chunk })}\n\n`;
const content = (text: string, index = 0, more: object = {}): string => frame({ choices: [{ index, delta: { content: text }, ...more }] });
const first = (text: string, index = 0): string => frame({ choices: [{ index, delta: { content: text, role: 'assistant' } }] });
const finish = (index = 0, reason = 'stop'): string => frame({ choices: [{ index, delta: {}, finish_reason: reason }] });
const usageFrame = (usage: object = USAGE): string => frame({ choices: [], usage });

/** Pushes the text cut at the given byte positions. */
function read(text: string, choices = 1, cuts: readonly number[] = [], withUsage = true): { reader: ChatStreamReader; forwarded: string; steps: Buffer[] } {
  const bytes = Buffer.from(text);
  const reader = new ChatStreamReader(choices, withUsage);
  const places = [0, ...[...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((left, right) => left - right), bytes.length];
  const steps = places.slice(1).map((end, at) => Buffer.from(reader.push(bytes.subarray(places[at], end))));
  return { reader, forwarded: Buffer.concat(steps).toString(), steps };
}

/** What a stream may say without anyone taking it for structure. */
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.constantFrom('usage', '"usage"', 'error', '"error":{"message":"x"}', 'finish_reason', '"finish_reason":"stop"', '[DONE]', 'data: [DONE]\n\n', '\n\n', '\r\n\r\n', 'DONE]', '', 'ünïcode 日本語 🙂'),
);
const comment = fc.constantFrom(': keep-alive\n\n', ': ping\n\n', ': "usage" "error" [DONE]\n\n', ':\n\n');

interface Sample {
  choices: number;
  /** Frames up to the first that is to be held back. */
  open: string[];
  /** Frames from the last finish reason on. */
  held: string[];
}

const sample: fc.Arbitrary<Sample> = fc.record({
  choices: fc.integer({ min: 1, max: 3 }),
  parts: fc.array(fc.oneof({ weight: 6, arbitrary: fc.record({ text, index: fc.nat(2), style: fc.constantFrom('plain', 'null', 'cumulative', 'reasoning', 'tool') }) }, { weight: 1, arbitrary: comment }), { maxLength: 14 }),
  lateComment: fc.option(comment),
  crlf: fc.boolean(),
  withUsage: fc.boolean(),
}).map(({ choices, parts, lateComment, crlf, withUsage }) => {
  const body = parts.map((part) => {
    if (typeof part === 'string') return part;
    const index = part.index % choices;
    switch (part.style) {
      case 'null': return content(part.text, index, { finish_reason: null });
      case 'cumulative': return frame({ choices: [{ index, delta: { content: part.text, role: 'assistant' } }], usage: { ...USAGE, completion_tokens: 1 } });
      case 'reasoning': return frame({ choices: [{ index, delta: { reasoning_content: part.text } }] });
      case 'tool': return frame({ choices: [{ index, delta: { tool_calls: [{ index: 0, id: 'call_40718263', type: 'function', function: { name: 'get_rate', arguments: JSON.stringify({ text: part.text }) } }] } }] });
      default: return content(part.text, index);
    }
  });
  const finishes = Array.from({ length: choices }, (_, index) => finish(index, index === 0 ? 'stop' : 'length'));
  const ends = (frames: string[]): string[] => (crlf ? frames.map((one) => one.replaceAll('\n', '\r\n')) : frames);
  return {
    choices,
    open: ends([first('Bl'), ...body, ...finishes.slice(0, -1)]),
    held: ends([finishes.at(-1)!, ...(withUsage ? [usageFrame()] : []), ...(lateComment === null ? [] : [lateComment]), DONE]),
  };
});
const cuts = fc.array(fc.nat(20_000), { maxLength: 40 });
const PROPERTY = { numRuns: 600 };

describe('ChatStreamReader, however the bytes are cut', () => {
  it('gives every byte back unchanged: what it forwarded, then the tail', () => {
    fc.assert(fc.property(sample, cuts, ({ choices, open, held }, at) => {
      const input = [...open, ...held].join('');
      const { reader, forwarded } = read(input, choices, at);
      reader.assertWhole();
      expect(forwarded + reader.tail().toString()).toBe(input);
    }), PROPERTY);
  });

  it('forwards all before the last finish reason, and nothing from there on', () => {
    fc.assert(fc.property(sample, cuts, ({ choices, open, held }, at) => {
      const { reader, forwarded } = read([...open, ...held].join(''), choices, at);
      expect(forwarded).toBe(open.join(''));
      expect(reader.finished).toBe(true);
    }), PROPERTY);
  });

  it('forwards each frame with its last byte, not later', () => {
    fc.assert(fc.property(sample, ({ choices, open }) => {
      const reader = new ChatStreamReader(choices, true);
      for (const one of open) {
        const bytes = Buffer.from(one);
        expect(reader.push(bytes.subarray(0, -1))).toHaveLength(0);
        expect(reader.push(bytes.subarray(-1)).toString()).toBe(one);
      }
    }), { numRuns: 200 });
  });

  it('finds usage and the end', () => {
    fc.assert(fc.property(sample, cuts, ({ choices, open, held }, at) => {
      const { reader } = read([...open, ...held].join(''), choices, at);
      expect(reader.done).toBe(true);
      const cumulative = open.findLast((one) => one.includes('"completion_tokens":1,')) && { ...USAGE, completion_tokens: 1 };
      expect(reader.usage).toEqual(held.some((one) => one.includes('"usage":')) ? USAGE : cumulative);
    }), PROPERTY);
  });

  it('counts the same tokens', () => {
    fc.assert(fc.property(sample, cuts, ({ choices, open, held }, at) => {
      const input = [...open, ...held].join('');
      const whole = read(input, choices).reader;
      const cut = read(input, choices, at).reader;
      expect([cut.contentFrames, cut.contentBytes, cut.outputTokensSeen]).toEqual([whole.contentFrames, whole.contentBytes, whole.outputTokensSeen]);
    }), PROPERTY);
  });
});

describe('ChatStreamReader counts', () => {
  it('one token a frame of content at least, and one per two bytes where frames are long', () => {
    const short = read([first('a'), ...Array.from({ length: 99 }, () => content('b'))].join('')).reader;
    expect(short.outputTokensSeen).toBe(100);
    const long = read([first('a'), content('x'.repeat(1000))].join('')).reader;
    expect(long.outputTokensSeen).toBeGreaterThanOrEqual(490);
    expect(long.outputTokensSeen).toBeLessThanOrEqual(510);
  });

  it('no tokens for keep-alive comments, since a silent model writes nothing', () => {
    const { reader } = read([first('a'), ...Array.from({ length: 50 }, () => ': keep-alive\n\n')].join(''));
    expect(reader.outputTokensSeen).toBe(1);
  });
});

describe('ChatStreamReader holds back', () => {
  const stream = [first('Bl'), content('ue.'), finish(), usageFrame(), DONE];

  it('the usage frame from a caller who did not ask for it', () => {
    const { reader, forwarded } = read(stream.join(''), 1, [], false);
    expect(forwarded + reader.tail().toString()).toBe(stream.filter((one) => !one.includes('usage')).join(''));
  });

  it('a usage frame that comes before the last finish reason, too', () => {
    const early = [first('Bl'), usageFrame(), finish(), DONE];
    const { reader, forwarded } = read(early.join(''), 1, [], false);
    expect(forwarded + reader.tail().toString()).toBe([early[0], early[2], early[3]].join(''));
    expect(reader.usage).toEqual(USAGE);
  });

  it('until every choice has finished, each counted once', () => {
    const repeated = [first('a', 0), finish(0), finish(0), content('b', 1)].join('');
    const { reader, forwarded } = read(repeated, 2);
    expect(reader.finished).toBe(false);
    expect(forwarded).toBe(repeated);
  });

  it('nothing of a stream that never finishes, but the part of a frame', () => {
    const { forwarded } = read(`${first('a')}${content('b')}data: {"half`);
    expect(forwarded).toBe(`${first('a')}${content('b')}`);
  });
});

describe('ChatStreamReader takes the last usage', () => {
  it('where each chunk carries it cumulatively, with the role', () => {
    const each = [1, 2, 3].map((tokens) => frame({ choices: [{ index: 0, delta: { content: 'x', role: 'assistant' } }], usage: { ...USAGE, completion_tokens: tokens } }));
    expect(read([...each, finish(), DONE].join('')).reader.usage).toEqual({ ...USAGE, completion_tokens: 3 });
  });

  it('and is not confused by a null', () => {
    expect(read([first('a'), finish(), usageFrame(), frame({ choices: [], usage: null }), DONE].join('')).reader.usage).toEqual(USAGE);
  });

  it('and the service tier of the answer', () => {
    expect(read([first('a'), frame({ service_tier: 'priority', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }), DONE].join('')).reader.serviceTier).toBe('priority');
  });
});

function thrownBy(run: () => unknown): GrokApiError {
  try {
    run();
  } catch (error) {
    if (error instanceof GrokApiError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('ChatStreamReader reports', () => {
  const errors: [string, string, string][] = [
    ['flat', '{"code":"The service is currently unavailable","error":"at capacity"}', 'provider_bad_response'],
    ['flat, kebab code', '{"code":"resource-exhausted","error":"Too many requests for team x."}', 'provider_bad_response'],
    ['nested', '{"error":{"message":"boom","type":"server_error","code":"internal"}}', 'provider_bad_response'],
    ['without a code', '{"error":"boom"}', 'provider_bad_response'],
    ['with choices null', '{"error":{"message":"boom"},"choices":null}', 'provider_bad_response'],
    ['with empty choices', '{"error":{"message":"boom"},"choices":[]}', 'provider_bad_response'],
  ];

  it.each(errors)('an error frame after output, %s: it may be billed and is not tried again', (_, data, code) => {
    const { failure } = read(`${first('a')}${content('b')}data: ${data}\n\n`).reader;
    expect(failure).toMatchObject({ code, phase: 'mid-stream', mayHaveBeenBilled: true, retryable: false });
  });

  it.each(errors)('an error frame before any output, %s: it is free', (_, data, code) => {
    const { reader, forwarded } = read(`data: ${data}\n\n`);
    expect(reader.failure).toMatchObject({ code, mayHaveBeenBilled: false });
    expect(forwarded).toBe('');
  });

  it('an error frame wherever the bytes are cut, having forwarded all before it and nothing after', () => {
    const before = [first('a'), content('b'), ': keep-alive\n\n', content('c')].join('');
    const input = `${before}data: {"code":"x","error":"boom"}\n\n${content('late')}${finish()}${DONE}`;
    fc.assert(fc.property(cuts, (at) => {
      const { reader, forwarded } = read(input, 1, at);
      expect(forwarded).toBe(before);
      expect(reader.failure?.code).toBe('provider_bad_response');
      expect(reader.tail()).toHaveLength(0);
    }), { numRuns: 200 });
  });

  it.each(['an error', '"error"', '{"error":"x"}', 'error":"x'])('no error in text that says %p', (said) => {
    const { reader, forwarded } = read(`${first('a')}${content(said)}`);
    expect(reader.failure).toBeUndefined();
    expect(forwarded).toBe(`${first('a')}${content(said)}`);
  });
});

describe('ChatStreamReader refuses', () => {
  it.each([
    ['no JSON', 'nonsense "error"'], ['half of an object', '{"usage":'], ['a bare string', '"usage"'], ['null choices', '{"choices":[null],"usage":null}'],
    ['choices that are no list', '{"choices":7,"usage":null}'], ['an array', '["usage"]'],
  ])('a frame that makes no sense: %s', (_, data) => {
    expect(thrownBy(() => read(`${first('a')}data: ${data}\n\n`)).code).toBe('provider_bad_response');
  });

  it('a frame without end, in bounded memory', () => {
    const reader = new ChatStreamReader(1, true);
    const chunk = Buffer.alloc(1024 * 1024, 0x78);
    expect(thrownBy(() => { for (let pushed = 0; pushed < 6; pushed += 1) reader.push(chunk); }).message).toContain('too long');
  });
});

describe('ChatStreamReader.assertWhole', () => {
  const whole = [first('Bl'), content('ue.'), finish(), usageFrame(), DONE].join('');

  it('takes a whole stream, with and without the last newlines', () => {
    for (const end of ['\n\n', '\n', '', '\r\n', '\r\n\r\n']) {
      const { reader, forwarded } = read(`${whole.trimEnd()}${end}`);
      reader.assertWhole();
      expect(reader.done).toBe(true);
      expect(forwarded + reader.tail().toString()).toBe(`${whole.trimEnd()}${end}`);
    }
  });

  it('takes a last [DONE] without a space before it', () => {
    expect(() => read(`${whole.slice(0, -DONE.length)}data:[DONE]`).reader.assertWhole()).not.toThrow();
  });

  it('rejects a stream cut anywhere before [DONE]', () => {
    const bytes = Buffer.from(whole);
    for (let end = 0; end < bytes.length - DONE.length + 'data: [DONE'.length; end += 1) {
      const reader = new ChatStreamReader(1, true);
      reader.push(bytes.subarray(0, end));
      expect(thrownBy(() => reader.assertWhole())).toMatchObject({ code: 'provider_bad_response', phase: 'mid-stream', mayHaveBeenBilled: true });
    }
  });

  it('rejects [DONE] without all finish reasons', () => {
    const error = thrownBy(() => read([first('Bl'), content('ue.'), DONE].join('')).reader.assertWhole());
    expect(error.code).toBe('provider_bad_response');
    expect(() => read([first('a', 0), first('b', 1), finish(0), DONE].join(''), 2).reader.assertWhole()).toThrow(/complete/);
  });

  it('rejects an empty stream', () => {
    expect(() => new ChatStreamReader(1, true).assertWhole()).toThrow(/complete/);
  });
});
