import { describe, expect, it } from '@jest/globals';
import { RedactedValues } from './redacted-values.ts';

function hiding(...values: string[]): RedactedValues {
  const redacted = new RedactedValues();
  for (const value of values) redacted.add(value);
  return redacted;
}

describe('RedactedValues', () => {
  it.each([
    ['alone', 'secret-one', '[redacted]'], ['at the beginning', 'secret-one x', '[redacted] x'], ['at the end', 'x secret-one', 'x [redacted]'], ['twice', 'secret-onesecret-one, secret-one', '[redacted][redacted], [redacted]'],
    ['of several', 'secret-two and secret-one', '[redacted] and [redacted]'], ['none, but nearly', 'secret-onf secret-on', 'secret-onf secret-on'], ['in an empty text', '', ''], ['in a short one', 'secret', 'secret'],
  ])('replaces a secret %s', (_, text, expected) => {
    expect(hiding('secret-one', 'secret-two').redact(text)).toBe(expected);
  });

  it('leaves what is shorter than eight characters: it would be found everywhere', () => {
    expect(hiding('novix', '1234567').redact('novix 1234567')).toBe('novix 1234567');
    expect(hiding('12345678').redact('12345678')).toBe('[redacted]');
  });

  it('replaces the longest that fits, and all of those that overlap', () => {
    expect(hiding('abcdefgh', 'abcdefgh-ijkl').redact('abcdefgh-ijkl abcdefgh-')).toBe('[redacted] [redacted]-');
    expect(hiding('abcdefgh', 'efghijklmn').redact('xabcdefghijklmnx')).toBe('x[redacted]x');
    expect(hiding('aaaaaaaa').redact('aaaaaaaaaaa')).toBe('[redacted]');
  });

  const awkward = 'pass"word\\with\nlines\tand 世界';
  it('replaces it as it is, in JSON, and in JSON within JSON, and leaves JSON', () => {
    const redacted = hiding(awkward);
    const once = JSON.stringify({ a: `<${awkward}>`, b: 1 });
    const twice = JSON.stringify({ body: once });
    expect(redacted.redact(`<${awkward}>`)).toBe('<[redacted]>');
    expect(JSON.parse(redacted.redact(once))).toEqual({ a: '<[redacted]>', b: 1 });
    expect(JSON.parse((JSON.parse(redacted.redact(twice)) as { body: string }).body)).toEqual({ a: '<[redacted]>', b: 1 });
  });

  it('cuts no escape in two', () => {
    const line = JSON.stringify({ msg: 'a\nbcdefghi' }); // …\nbcdefghi…, in which stands nbcdefghi
    expect(hiding('nbcdefghi').redact(line)).toBe(line);
    expect(hiding('nbcdefghi').redact(JSON.stringify('a\\nbcdefghi'))).toBe('"a\\\\[redacted]"');
  });

  it('forgets the oldest beyond its size, but not those that are kept or were named again', () => {
    const redacted = new RedactedValues(3);
    redacted.add('kept-secret', true);
    for (const value of ['secret-1-a', 'secret-1-b']) redacted.add(value);
    redacted.add('secret-1-a');
    redacted.add('secret-1-c');
    expect(redacted.size).toBe(3);
    expect(redacted.redact('kept-secret secret-1-a secret-1-b secret-1-c')).toBe('[redacted] [redacted] secret-1-b [redacted]');
    for (let n = 0; n < 100; n++) redacted.add(`another-${n}`);
    expect(redacted.redact('kept-secret secret-1-a another-99 another-96')).toBe('[redacted] secret-1-a [redacted] another-96');
  });

  it('finds one of ten thousand anywhere in a long line', () => {
    const redacted = new RedactedValues();
    for (let n = 0; n < 10_000; n++) redacted.add(`nvx_live_${n.toString(36).padStart(6, '0')}`);
    const filler = 'the quick brown fox, '.repeat(200);
    for (const at of [0, 1, 777, filler.length]) expect(redacted.redact(`${filler.slice(0, at)}nvx_live_0005dx${filler.slice(at)}`)).toBe(`${filler.slice(0, at)}[redacted]${filler.slice(at)}`);
  });
});
