import { describe, expect, it } from '@jest/globals';
import type { Pool } from 'pg';
import { storedEntry, StoredResponses } from './stored-responses.ts';

const ROW = { id: 'r-1', model: 'grok-beta', deployment: 'xai', context_tokens: '653' };

function storage(rows: object[]): { responses: StoredResponses; asked: unknown[][] } {
  const asked: unknown[][] = [];
  const query = async (_sql: string, values: unknown[]): Promise<{ rows: object[] }> => {
    asked.push(values);
    return Promise.resolve({ rows });
  };
  return { responses: new StoredResponses({ query } as unknown as Pick<Pool, 'query'>), asked };
}

describe('StoredResponses.find', () => {
  it('asks for the tenant’s own', async () => {
    const { responses, asked } = storage([ROW]);
    await expect(responses.find('acme', 'r-1')).resolves.toEqual({ id: 'r-1', model: 'grok-beta', deployment: 'xai', contextTokens: 653 });
    expect(asked).toEqual([['r-1', 'acme']]);
  });

  it('says of one that is not there which field named it', async () => {
    await expect(storage([]).responses.find('acme', 'r-1', 'previous_response_id')).rejects.toMatchObject({ code: 'not_found', status: 404, param: 'previous_response_id' });
    await expect(storage([]).responses.find('acme', 'r-1')).rejects.toMatchObject({ code: 'not_found', param: null });
  });

  it.each(['', 'a/b', '../x', 'a?b', 'a b', 'r-1\n', 'ü', '\u0000', "'", '%2e', 'x'.repeat(129)])('does not even ask for %j, which is no id', async (id) => {
    const { responses, asked } = storage([ROW]);
    await expect(responses.find('acme', id)).rejects.toMatchObject({ code: 'not_found' });
    expect(asked).toEqual([]);
  });

  it.each(['0d6b6a38-90d3-4f7e-a2f5-7f6c5b1a2e10', 'resp_68AF', 'x'.repeat(128)])('asks for %s', async (id) => {
    await expect(storage([ROW]).responses.find('acme', id)).resolves.toMatchObject({ id: 'r-1' });
  });
});

describe('storedEntry', () => {
  const NOW = Date.parse('2026-11-24T12:00:00Z');

  it('keeps a response for thirty days', () => {
    expect(JSON.parse(storedEntry('acme', { kind: 'keep', id: 'r-1', model: 'grok-beta', deployment: 'xai', contextTokens: 653 }, NOW))).toEqual({ k: 'keep', id: 'r-1', t: 'acme', m: 'grok-beta', d: 'xai', c: 653, x: '2026-12-24T12:00:00.000Z' });
  });

  it('forgets one of the tenant', () => {
    expect(JSON.parse(storedEntry('acme', { kind: 'forget', id: 'r-1' }, NOW))).toEqual({ k: 'forget', id: 'r-1', t: 'acme' });
  });
});
