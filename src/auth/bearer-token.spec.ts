import { expect, it } from '@jest/globals';
import { bearerToken } from './bearer-token.ts';

const read = (authorization?: string): string | null => bearerToken({ headers: { authorization } });

it.each(['Bearer', 'bearer', 'BEARER'])('takes the token after %s', (scheme) => {
  expect(read(`${scheme} abc.def-_~+/=`)).toBe('abc.def-_~+/=');
});

it.each([undefined, '', 'Bearer', 'Bearer ', 'Basic abc', 'abc', 'Bearer  abc', 'Bearer abc def', 'Bearer abc,Bearer def', 'Bearer abc, Bearer def', ' Bearer abc', 'Bearer abc ', 'Bearer\tabc', 'Bearerabc'])(
  'takes no token from %p', (header) => {
    expect(read(header)).toBeNull();
  });
