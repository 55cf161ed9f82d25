import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { scanJsonObject, withMembers } from './json-members.ts';

const space = fc.stringMatching(/^[ \t\r\n]{0,3}$/);
/** Without a backslash in it: V8 13.6 misreads escaped keys once it has seen an object with such a key (see completion-request.spec.ts). */
const key = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 8 }).filter((text) => !text.includes('\\')), fc.constantFrom('model', 'stream', '__proto__', 'constructor', 'a"b', 'ключ', '🙂', '', '{', '},', 'toString'));

/** A spelling of a string as JSON allows it: some characters as escapes. */
const spelled = (text: string): fc.Arbitrary<string> =>
  fc.array(fc.boolean(), { minLength: text.length, maxLength: text.length }).map((escaped) =>
    `"${Array.from({ length: text.length }, (_, at) => (escaped[at] ? `\\u${text.charCodeAt(at).toString(16).padStart(4, '0')}` : JSON.stringify(text[at]!).slice(1, -1))).join('')}"`);

/** JSON text of any value, with white space wherever it may be. */
const value: fc.Arbitrary<string> = fc.letrec<{ any: string }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.constantFrom('null', 'true', 'false', '0', '-1.5e+10', '1E400', '12345678901234567890'),
    fc.string({ unit: 'grapheme', maxLength: 12 }).chain(spelled),
    fc.constantFrom('"}"', '"]"', '","', '"\\\\"', '"\\""', '"\\\\\\""', '"{\\"model\\":1}"', '":"'),
    fc.tuple(space, fc.array(fc.tuple(tie('any'), space), { maxLength: 4 })).map(([pad, items]) => `[${pad}${items.map(([item, after]) => `${pad}${item}${after}`).join(',')}]`),
    fc.tuple(space, fc.uniqueArray(key, { maxLength: 4 }), tie('any')).map(([pad, keys, item]) => `{${pad}${keys.map((name) => `${pad}${JSON.stringify(name)}${pad}:${pad}${item}${pad}`).join(',')}}`),
  ),
})).any;

interface Sample { json: string; members: { key: string; text: string }[] }
const object: fc.Arbitrary<Sample> = fc.tuple(space, fc.uniqueArray(key, { maxLength: 8 })).chain(([pad, keys]) =>
  fc.tuple(fc.constant(pad), fc.constant(keys), fc.tuple(...keys.map(spelled)), fc.array(value, { minLength: keys.length, maxLength: keys.length }), space),
).map(([pad, keys, spellings, values, after]) => {
  const members = keys.map((name, at) => ({ key: name, text: `${spellings[at]!}${after}:${pad}${values[at]!}` }));
  return { json: `${pad}{${pad}${members.map(({ text }) => `${pad}${text}${after}`).join(',')}${pad}}${after}`, members };
});
const replacements = fc.uniqueArray(fc.tuple(key, fc.option(value, { nil: undefined })), { selector: ([name]) => name, maxLength: 4 }).map((entries) => new Map(entries));
const PROPERTY = { numRuns: 500 };

const scan = (json: string, depthMax = 1000): ReturnType<typeof scanJsonObject> => scanJsonObject(Buffer.from(json), depthMax);
const replace = (json: string, by: ReadonlyMap<string, string | undefined>): string => withMembers(Buffer.from(json), scan(json).members, by).toString();

describe('scanJsonObject', () => {
  it('finds each top-level member by its exact bytes, however it is written', () => {
    fc.assert(fc.property(object, ({ json, members }) => {
      JSON.parse(json); // the sample itself is sound
      const bytes = Buffer.from(json);
      expect(scan(json).members.map(({ key: name, start, end }) => ({ key: name, text: bytes.toString('utf8', start, end) }))).toEqual(members);
      expect(scan(json).duplicate).toBeUndefined();
    }), PROPERTY);
  });

  it('reads keys that end in a backslash or a quote', () => {
    expect(scan('{"a\\\\":1,"b\\\\\\"":2,"\\"":3,"c":"\\\\"}').members.map(({ key: name }) => name)).toEqual(['a\\', 'b\\"', '"', 'c']);
  });

  it('survives any bytes', () => {
    fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.string({ unit: fc.constantFrom('{', '}', '[', ']', '"', '\\', ',', ':', 'a', ' '), maxLength: 30 }).map((text) => Buffer.from(text))), (bytes) => {
      expect(scanJsonObject(Buffer.from(bytes), 5).depth).toBeLessThanOrEqual(6);
    }), PROPERTY);
  });

  it.each<[string, string]>([
    ['{"a":1,"a":2}', 'a'], ['{"a":1,"\\u0061":2}', 'a'], ['{"x":{"b":1,"b":1}}', 'x.b'], ['{"messages":[{},{"role":1,"role":2}]}', 'messages[1].role'],
    ['{"a":[[{"k":0}],[{"k":0,"k":0}]]}', 'a[1][0].k'], ['{"":1,"":2}', ''], ['{"\\"":1,"\\u0022":2}', '"'], ['{"__proto__":1,"__proto__":2}', '__proto__'],
  ])('finds the key that stands twice in %s', (json, path) => {
    expect(scan(json).duplicate).toBe(path);
  });

  it.each(['{"a":1,"b":{"a":1}}', '{"a":["a","a"]}', '{"a":"a"}', '{"a":[{"k":1},{"k":2}]}', '{"a":{"b":1},"b":1}', '{"A":1,"a":2}'])('finds no key twice in %s', (json) => {
    expect(scan(json).duplicate).toBeUndefined();
  });

  it('measures depth, and stops where it is exceeded', () => {
    expect(scan('{}').depth).toBe(1);
    expect(scan('{"a":[{"b":"[[[["}]}').depth).toBe(3);
    expect(scan(`{"a":${'['.repeat(1_000_000)}`, 128).depth).toBe(129);
  });

  it('takes no longer than linear for many keys, since it holds the whole process up', () => {
    const json = JSON.stringify(Object.fromEntries(Array.from({ length: 50_000 }, (_, at) => [`k${at}`, 1])));
    const startedMs = performance.now();
    expect(scan(json).members).toHaveLength(50_000);
    expect(performance.now() - startedMs).toBeLessThan(1_000);
  });
});

describe('withMembers', () => {
  it('gives the same object with the replacements, as JSON reads it', () => {
    fc.assert(fc.property(object, replacements, ({ json, members }, by) => {
      const expected = new Map(members.map(({ key: name }) => [name, JSON.stringify((JSON.parse(json) as Record<string, unknown>)[name])] as [string, string | undefined]));
      // Object.entries, since a member named __proto__ is no prototype
      for (const [name, inner] of Object.entries(JSON.parse(json) as object)) expected.set(name, JSON.stringify(inner));
      for (const [name, text] of by) expected.set(name, text === undefined ? undefined : JSON.stringify(JSON.parse(text)));
      const actual = new Map(Object.entries(JSON.parse(replace(json, by)) as object).map(([name, inner]) => [name, JSON.stringify(inner)]));
      expect(actual).toEqual(new Map([...expected].filter(([, text]) => text !== undefined)));
    }), PROPERTY);
  });

  it('keeps every byte of the members it does not replace, and their order', () => {
    fc.assert(fc.property(object, replacements, ({ json, members }, by) => {
      const kept = members.filter(({ key: name }) => !by.has(name)).map(({ text }) => text);
      expect(replace(json, by).endsWith(`${kept.join(',')}}`)).toBe(true);
    }), PROPERTY);
  });

  it('keeps numbers that JSON.parse would change', () => {
    expect(replace('{"seed":12345678901234567890,"x":1.0,"model":"a"}', new Map([['model', '"b"']]))).toBe('{"model":"b","seed":12345678901234567890,"x":1.0}');
  });

  it('replaces a member that is spelled with escapes', () => {
    expect(replace('{"m\\u006fdel":"a"}', new Map([['model', '"b"']]))).toBe('{"model":"b"}');
  });

  it('can leave all out', () => {
    expect(replace(' { "a" : 1 , "b" : 2 } ', new Map([['a', undefined], ['b', undefined]]))).toBe('{}');
  });
});
