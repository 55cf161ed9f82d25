import { describe, expect, it } from '@jest/globals';
import { readPage, toPage } from './paging.ts';

const rows = (count: number): { id: string }[] => Array.from({ length: count }, (_, index) => ({ id: `ten änt-${index}` }));
const view = (row: { id: string }): string => row.id;

describe('paging', () => {
  it('shows fifty unless told otherwise', () => {
    expect(readPage({})).toEqual({ limit: 50, after: undefined });
    expect(readPage({ limit: '1' }).limit).toBe(1);
    expect(readPage({ limit: '200' }).limit).toBe(200);
  });

  it.each(['0', '201', '-1', '1.5', '1e1', 'ten', '', ' 5', 5, ['5', '6'], null])('refuses the limit %p', (limit) => {
    expect(() => readPage({ limit })).toThrow(expect.objectContaining({ code: 'invalid_request', param: 'limit' }));
  });

  it.each(['', '!', 'a', 'AA==', 'abc def', '_w', ['YQ'], 7, null, Buffer.from('\u0000').toString('base64url')])('refuses the cursor %p, which it never gave out', (cursor) => {
    expect(() => readPage({ cursor })).toThrow(expect.objectContaining({ code: 'invalid_request', param: 'cursor' }));
  });

  it('walks a list to its end, each row once', () => {
    const all = rows(7);
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const { limit, after }: { limit: number; after: string | undefined } = readPage({ limit: '3', ...(cursor === null ? {} : { cursor }) });
      const from = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
      const page: { data: string[]; next_cursor: string | null } = toPage(all.slice(from, from + limit + 1), limit, view);
      seen.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor !== null);
    expect(seen).toEqual(all.map(view));
  });

  it.each([[0, false], [2, false], [3, false], [4, true]])('of %i rows with a limit of three, says whether more follow: %p', (count, more) => {
    const page = toPage(rows(count), 3, view);
    expect(page.data).toHaveLength(Math.min(3, count));
    expect(page.next_cursor !== null).toBe(more);
  });
});
