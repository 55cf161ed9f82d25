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

it('takes no token of a request with two authorization headers, whichever way they are written', () => {
  const request = (...rawHeaders: string[]): Parameters<typeof bearerToken>[0] => ({ headers: { authorization: 'Bearer abc' }, raw: { rawHeaders } });
  expect(bearerToken(request('host', 'x', 'Authorization', 'Bearer abc', 'x-authorization', 'authorization'))).toBe('abc');
  expect(bearerToken(request('Authorization', 'Bearer abc', 'host', 'x', 'authorization', 'Bearer def'))).toBeNull();
});
