import { describe, expect, it } from '@jest/globals';
import { entriesJson, type Entries, type Operation } from './operation.ts';

const operation = (entries: Entries): Operation => ({ id: 'o', lane: 'outcome', entries });

describe('entriesJson', () => {
  const batch = [operation({ ledger_apply: '{"k":"hold","x":"\\"}"}', stored_responses_apply: '{"id":"1","b":{"a":[1, 2]}}' }), operation({ stored_responses_apply: '{"id":"2"}' }), operation({}), operation({ ledger_apply: '{"k":"settle"}' })];

  it('gives each participant its entries, with the operation’s place in the batch', () => {
    expect(JSON.parse(entriesJson(batch, 'stored_responses_apply'))).toEqual([{ i: 0, id: '1', b: { a: [1, 2] } }, { i: 1, id: '2' }]);
    expect(JSON.parse(entriesJson(batch, 'ledger_apply'))).toEqual([{ i: 0, k: 'hold', x: '"}' }, { i: 3, k: 'settle' }]);
  });

  it('keeps the text of an entry to the byte', () => {
    expect(entriesJson(batch, 'stored_responses_apply')).toContain('"b":{"a":[1, 2]}');
  });

  it('is an empty list where there is nothing to do', () => {
    expect(entriesJson([], 'stored_responses_apply')).toBe('[]');
    expect(entriesJson([operation({})], 'ledger_apply')).toBe('[]');
  });
});
