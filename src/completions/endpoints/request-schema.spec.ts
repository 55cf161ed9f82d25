import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { Type } from 'typebox';
import { cpuMs } from '../../../test/support/cpu-ms.ts';
import { Nullable, OPEN } from './open-schema.ts';
import { RequestSchema } from './request-schema.ts';

const Part = Type.Object({ type: Type.String({ minLength: 1 }) }, OPEN);
const Item = Type.Object({ role: Type.String(), content: Nullable(Type.Union([Type.String(), Type.Array(Part)])) }, OPEN);
const schema = new RequestSchema(
  Type.Object({ name: Type.String(), size: Nullable(Type.Integer({ minimum: 1 })), items: Nullable(Type.Array(Item)), few: Nullable(Type.Array(Type.String(), { maxItems: 3 })) }, OPEN),
  [{ key: 'few', entry: Type.String(), max: 3 }, { key: 'items', entry: Item, within: [{ key: 'content', entry: Part }] }],
);
const parse = (body: object | string): ReturnType<typeof schema.parse> => schema.parse(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)));
const refusal = (param: string | null, message: RegExp = /./): unknown => expect.objectContaining({ name: 'GatewayError', code: 'invalid_request', status: 400, param, message: expect.stringMatching(message) });

describe('RequestSchema', () => {
  it('keeps the bytes, and finds the members in them', () => {
    const body = '{ "x": {"y":[1.0,null]}, "name":"\\u00fc", "size" : 12 }';
    const parsed = parse(body);
    expect(parsed.body.toString()).toBe(body);
    expect(parsed.request).toEqual(JSON.parse(body));
    expect(parsed.members.map(({ key, start, end }) => [key, body.slice(start, end)])).toEqual([['x', '"x": {"y":[1.0,null]}'], ['name', '"name":"\\u00fc"'], ['size', '"size" : 12']]);
  });

  it.each<[string | null, object | string, RegExp]>([
    ['name', {}, /^name is required\.$/], ['name', { name: 7 }, /^name must be string/], ['name', { name: null }, /^name must be string/], ['size', { name: 'x', size: 0 }, /^size must be >= 1/], ['size', { name: 'x', size: 1.5 }, /^size must be integer/],
    ['items', { name: 'x', items: {} }, /^items must be array/], ['items[0].role', { name: 'x', items: [{}] }, /^items\[0\]\.role is required\.$/], ['items[2].role', { name: 'x', items: [{ role: 'a' }, { role: 'a' }, { content: 'x' }] }, /required/],
    ['items[1].content[2].type', { name: 'x', items: [{ role: 'a' }, { role: 'b', content: [{ type: 'a' }, { type: 'a' }, {}] }] }, /required/], ['items[1]', { name: 'x', items: [{ role: 'a' }, 7] }, /must be object/],
    ['few[1]', { name: 'x', few: ['a', 7] }, /must be string/], ['few', { name: 'x', few: ['a', 'b', 'c', 'd'] }, /^few has more entries than it may have\.$/],
    ['name', '{"name":"a","name":"b"}', /given twice/], ['a.b', '{"name":"a","a":{"b":1,"b":2}}', /given twice/], ['name', '{"n\\u0061me":"a"}', /escapes/],
    [null, '[]', /must be a JSON object/], [null, '', /no body/], [null, '{"name":', /not valid JSON/], [null, `{"name":"x","a":${'['.repeat(128)}${']'.repeat(128)}}`, /nested more than 128 levels/],
  ])('names the fault: %p in %j', (param, body, message) => {
    expect(() => parse(body)).toThrow(refusal(param, message));
  });

  it.each<[object]>([[{ name: 'x', items: [] }], [{ name: 'x', few: ['a', 'b', 'c'] }], [{ name: 'x', size: null, items: null, few: null }], [{ name: 'x', items: [{ role: 'a', content: null }, { role: 'b', content: [] }] }], [{ name: 'x', unknown: { few: [1, 2, 3, 4] } }]])('takes %j', (body) => {
    expect(parse(body).request).toEqual(body);
  });

  it('tells of the first faulty entry, wherever it stands', () => {
    fc.assert(fc.property(fc.nat(50), fc.nat(50), fc.nat(20), fc.nat(20), (before, after, innerBefore, innerAfter) => {
      const good = { role: 'a', content: [{ type: 't' }] };
      const faulty = { role: 'a', content: [...Array<object>(innerBefore).fill({ type: 't' }), { type: '' }, ...Array<object>(innerAfter).fill({})] };
      expect(() => parse({ name: 'x', items: [...Array<object>(before).fill(good), faulty, ...Array<object>(after).fill({})] })).toThrow(refusal(`items[${before}].content[${innerBefore}].type`));
    }), { numRuns: 200 });
  });

  it.each<[string, object]>([
    ['of wrong entries', { items: Array(500_000).fill(1) }], ['too long', { few: Array(500_000).fill('x') }], ['too long and wrong', { few: Array(500_000).fill(1) }],
    ['in an entry', { items: [{ role: 'a', content: Array(500_000).fill(1) }] }], ['in each entry', { items: Array(1_000).fill({ role: 'a', content: Array(100).fill({}) }) }],
    ['right, beside a fault', { name: 7, items: Array(40_000).fill({ role: 'a', content: [{ type: 't' }] }) }],
  ])('refuses a long list %s without listing its faults', (_, change) => {
    const body = Buffer.from(JSON.stringify({ name: 'x', ...change }));
    expect(cpuMs(() => expect(() => schema.parse(body)).toThrow(expect.objectContaining({ code: 'invalid_request' })))).toBeLessThan(700);
  });
});
