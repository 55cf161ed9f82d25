import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { entriesJson, PARTICIPANTS, type Operation } from './operation.ts';

const entry = fc.dictionary(fc.string({ unit: 'grapheme' }).filter((key) => key !== 'i'), fc.jsonValue(), { minKeys: 1, noNullPrototype: true });
const operation: fc.Arbitrary<Operation> = fc.record({ ledger_apply: fc.option(entry), audit_append: fc.option(entry) }).map((entries) => ({
  id: '0190a0c4-0000-7000-8000-000000000000', lane: 'outcome',
  entries: Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== null).map(([name, value]) => [name, JSON.stringify(value)])),
}));

describe('entriesJson', () => {
  it('gives each participant exactly its own entries, in order, each with its place in the batch', () => {
    fc.assert(fc.property(fc.array(operation, { maxLength: 8 }), fc.constantFrom(...PARTICIPANTS), (operations, participant) => {
      const expected = operations.flatMap(({ entries }, i) => (entries[participant] === undefined ? [] : [{ i, ...(JSON.parse(entries[participant]) as object) }]));
      expect(JSON.stringify(JSON.parse(entriesJson(operations, participant)))).toBe(JSON.stringify(expected));
    }));
  });

  it('passes an entry on byte for byte: what is hashed must not be written anew', () => {
    const text = '{"id":"x", "b" : {"amount":1.50,"name":"\\u00e9\\/"}}';
    expect(entriesJson([{ id: 'x', lane: 'refusal', entries: { audit_append: text } }], 'audit_append')).toBe(`[{"i":0,${text.slice(1)}]`);
  });

  it('is an empty list where nobody has anything for the participant', () => {
    expect(entriesJson([{ id: 'x', lane: 'refusal', entries: { audit_append: '{"id":"x"}' } }], 'ledger_apply')).toBe('[]');
    expect(entriesJson([], 'audit_append')).toBe('[]');
  });
});
