import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { GatewayError } from './gateway-error.ts';
import { readPage, toPage } from './paging.ts';

function fault(query: Record<string, unknown>): GatewayError {
  try {
    readPage(query);
  } catch (error) {
    if (error instanceof GatewayError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('readPage', () => {
  it.each([[{}, 50], [{ limit: '1' }, 1], [{ limit: '200' }, 200], [{ limit: '007' }, 7]])('of %p takes the limit %p', (query, limit) => {
    expect(readPage(query)).toEqual({ limit, after: undefined });
  });

  it.each(['0', '201', '-1', '1.5', '', ' 1', '1e2', 'all', '99999', ['1', '2'], 5, null])('refuses the limit %p', (limit) => {
    expect(fault({ limit })).toMatchObject({ code: 'invalid_request', param: 'limit' });
  });

  it.each(['', 'a', '!!', 'YQ==', 'YR', 'a b', '_-_-+', ['YQ', 'YQ'], 7, Buffer.from([0xff, 0xfe]).toString('base64url'), Buffer.from('a\0b').toString('base64url')])('refuses the cursor %p, which no list gave out', (cursor) => {
    expect(fault({ cursor })).toMatchObject({ code: 'invalid_request', param: 'cursor' });
  });
});

describe('toPage', () => {
  const rows = ['a', 'b', 'c'].map((id) => ({ id }));

  it('shows no more than the limit, and leads on where there is more', () => {
    expect(toPage(rows, 2, ({ id }) => id)).toEqual({ data: ['a', 'b'], next_cursor: 'Yg' });
    expect(toPage(rows, 3, ({ id }) => id)).toEqual({ data: ['a', 'b', 'c'], next_cursor: null });
    expect(toPage([], 3, ({ id }: { id: string }) => id)).toEqual({ data: [], next_cursor: null });
  });

  it('gives cursors that lead back to the last id shown, whatever ids look like', () => {
    fc.assert(fc.property(fc.string({ unit: 'grapheme', minLength: 1 }).filter((id) => !id.includes('\0')), (id) => {
      const { next_cursor: cursor } = toPage([{ id }, { id: 'next' }], 1, (row) => row);
      expect(readPage({ cursor }).after).toBe(id);
    }));
  });
});
