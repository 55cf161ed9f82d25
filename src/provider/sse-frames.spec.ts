import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { cpuMs } from '../../test/support/cpu-ms.ts';
import { frameData, frameEnd, isPing, MarkedFrames, parseFrameData, WholeFrames } from './sse-frames.ts';

const frame = fc.tuple(fc.constantFrom('data: {"a":"x"}', ': comment', 'event: ping\ndata: {}', 'data:1\ndata:2', 'id: 7', 'data: ünïcode 日本語 🙂', 'data: error"'), fc.constantFrom('\n', '\r\n')).map(([lines, end]) => `${lines.replaceAll('\n', end)}${end}${end}`);
const frames = fc.array(frame, { maxLength: 12 });
const cuts = fc.array(fc.nat(500), { maxLength: 20 });
const PROPERTY = { numRuns: 500 };

/** Each frame of the buffer. */
function split(buffer: Buffer): string[] {
  const all: string[] = [];
  for (let start = 0; start < buffer.length; ) {
    const end = frameEnd(buffer, start);
    all.push(buffer.toString('utf8', start, end));
    start = end;
  }
  return all;
}

describe('WholeFrames', () => {
  it('gives whole frames, each with its last byte, and loses none', () => {
    fc.assert(fc.property(frames, fc.constantFrom('', 'data: {"ha', ': ', 'data: x\n', 'data: x\r\n\r'), cuts, (given, rest, at) => {
      const bytes = Buffer.from(given.join('') + rest);
      const whole = new WholeFrames(10_000);
      const ends = [...new Set([...at.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((left, right) => left - right);
      let [from, out] = [0, ''];
      for (const end of ends) {
        out += whole.push(bytes.subarray(from, end)).toString();
        from = end;
        const closed = given.filter((_, index) => Buffer.byteLength(given.slice(0, index + 1).join('')) <= end);
        expect(out).toBe(closed.join(''));
      }
      expect(whole.rest.toString()).toBe(rest);
    }), PROPERTY);
  });

  it('takes a long frame in as many pieces as it comes in, without putting it together with each of them', () => {
    const whole = new WholeFrames(48 * 1024 * 1024);
    const piece = Buffer.alloc(1_024, 0x78);
    const spentMs = cpuMs(() => {
      for (let pushed = 0; pushed < 40_000; pushed += 1) whole.push(piece);
      expect(whole.push(Buffer.from('\n\n'))).toHaveLength(40_000 * 1_024 + 2);
    });
    expect(spentMs).toBeLessThan(2_000);
  });

  it('bounds what it keeps', () => {
    const tooLong = expect.objectContaining({ code: 'provider_bad_response', mayHaveBeenBilled: true });
    for (const more of ['x', '\n', 'x\nx', '\nx\n']) {
      const whole = new WholeFrames(1_000);
      for (let pushed = 0; pushed < 10; pushed += 1) expect(whole.push(Buffer.alloc(100, 0x78))).toHaveLength(0);
      expect(() => whole.push(Buffer.from(more))).toThrow(tooLong);
    }
    expect(() => new WholeFrames(1_000).push(Buffer.from(`data: x\n\n${'x'.repeat(1_001)}`))).toThrow(tooLong);
    expect(new WholeFrames(1_000).push(Buffer.from('data: x\n\n'.repeat(1_000)))).toHaveLength(9_000);
  });
});

describe('frameEnd', () => {
  it('cuts a buffer where its frames were joined', () => {
    fc.assert(fc.property(frames, (given) => {
      expect(split(Buffer.from(given.join('')))).toEqual(given);
    }), PROPERTY);
  });

  it.each([['data: x', ['data: x']], ['data: x\n', ['data: x\n']], ['data: x\n\ndata: y', ['data: x\n\n', 'data: y']], ['a\n\n\nb\n\n', ['a\n\n', '\nb\n\n']], ['a\n\r\nb', ['a\n\r\n', 'b']], ['a\rb', ['a\rb']]])('cuts %j into %j', (given, expected) => {
    expect(split(Buffer.from(given))).toEqual(expected);
  });
});

describe('MarkedFrames', () => {
  it('finds where the first frame with a mark begins, as looking through them one by one does', () => {
    const marks = ['error"', ': comment', 'ping'].map((mark) => Buffer.from(mark));
    fc.assert(fc.property(frames, fc.nat(12), (given, skipped) => {
      const start = Buffer.byteLength(given.slice(0, skipped).join(''));
      const at = given.findIndex((one, index) => index >= skipped && marks.some((mark) => one.includes(mark.toString())));
      const buffer = Buffer.from(given.join(''));
      expect(new MarkedFrames(buffer, marks).from(start)).toBe(at === -1 ? buffer.length : Buffer.byteLength(given.slice(0, at).join('')));
    }), PROPERTY);
  });
});

describe('frameData', () => {
  it.each([
    ['data: {"a":1}\n\n', '{"a":1}'], ['data:{"a":1}\n\n', '{"a":1}'], ['data: {"a":1}\r\n\r\n', '{"a":1}'], ['data: {"a":1}', '{"a":1}'], ['data: {"a":1}\n', '{"a":1}'],
    ['event: x\ndata: 1\n\n', '1'], ['event: x\r\ndata: 1\r\n\r\n', '1'], ['data: 1\ndata: 2\n\n', '1\n2'], ['data: 1\nid: 7\ndata:2\n\n', '1\n2'], ['data:  1\n\n', ' 1'],
    [': data: 1\n\n', ''], ['event: ping\n\n', ''], ['\n\n', ''], ['', ''], ['date: 1\n\n', ''], ['\ndata: 1\n\n', '1'],
  ])('of %j is %j', (given, data) => {
    expect(frameData(Buffer.from(given))).toBe(data);
  });
});

describe('isPing', () => {
  it.each([
    ['event: ping\ndata: {}\n\n', true], ['event:ping\n\n', true], ['event: ping\r\ndata: {}\r\n\r\n', true], ['event: ping', true],
    ['event: pinged\n\n', false], ['event: x\ndata: event: ping\n\n', false], ['data: {"type":"ping"}\n\n', false], [': ping\n\n', false], ['e', false], ['', false],
  ])('of %j is %p', (given, ping) => {
    expect(isPing(Buffer.from(given))).toBe(ping);
  });
});

describe('parseFrameData', () => {
  it.each(['', 'x', '{', '[]', '[{}]', 'null', '7', '"x"', 'true'])('refuses %j, which is no object', (data) => {
    expect(() => parseFrameData(data)).toThrow(expect.objectContaining({ name: 'GrokApiError', code: 'provider_bad_response', phase: 'mid-stream', retryable: false }));
  });

  it('takes an object', () => {
    expect(parseFrameData('{"type":"x","n":[1]}')).toEqual({ type: 'x', n: [1] });
  });
});
