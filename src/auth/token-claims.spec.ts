import { describe, expect, it } from '@jest/globals';
import type { Tenant } from '../tenants/tenant.ts';
import { readClaims, toPrincipal, type TokenClaims } from './token-claims.ts';

const CLAIMS: TokenClaims = { iss: 'https://idp.example', sub: 'dev@acme.example', jti: 'j-1', tenant: 'acme', iat: 1_796_000_000, exp: 1_796_000_600 };
const tenant = (id: string): Tenant => ({ id, name: id, tier: 'enterprise', dataClass: 'internal', boundTokens: false, costMode: 'off', targetQuality: 0.5, requestCeilingTicks: null, holds: 'bounded', payloadStorage: 'off', createdAt: new Date(0), updatedAt: new Date(0) });

describe('readClaims', () => {
  it('takes the required claims alone, and further ones of any kind', () => {
    expect(readClaims(CLAIMS)).toEqual(CLAIMS);
    expect(readClaims({ ...CLAIMS, aud: ['novix'], nonce: { any: 'thing' } })).toBeDefined();
    expect(readClaims({ ...CLAIMS, roles: [], attrs: { department: 'bi', clearance: 3, region: ['eu'] }, client_id: 'app' })).toBeDefined();
  });

  it.each(['iss', 'sub', 'jti', 'tenant', 'iat', 'exp'])('refuses a token without %s, or with one mistyped', (name) => {
    for (const value of [undefined, null, '', {}, [], true]) expect(readClaims({ ...CLAIMS, [name]: value })).toBeUndefined();
  });

  it.each<[string, object]>([
    ['roles that are no list', { roles: 'developer' }], ['a role that is no text', { roles: [1] }], ['an empty role', { roles: [''] }], ['too many roles', { roles: Array(65).fill('r') }],
    ['attributes that are no object', { attrs: ['x'] }], ['a nested attribute', { attrs: { a: { b: 1 } } }], ['a null attribute', { attrs: { a: null } }], ['a boolean attribute', { attrs: { a: true } }], ['a list of numbers', { attrs: { a: [1] } }],
    ['an endless attribute', { attrs: { a: 'x'.repeat(1025) } }], ['an infinite attribute', { attrs: { a: Number.POSITIVE_INFINITY } }], ['a long subject', { sub: 'x'.repeat(513) }], ['a NUL in the subject', { sub: 'a\u0000b' }], ['a line break in the tenant', { tenant: 'acme\n' }],
    ['half of a character in the subject', { sub: 'a\ud800' }], ['half of a character in an attribute', { attrs: { a: '\udc00' } }],
    ['a client id that is no text', { client_id: 7 }], ['time as text', { exp: '1796000600' }],
  ])('refuses %s', (_, change) => {
    expect(readClaims({ ...CLAIMS, ...change })).toBeUndefined();
  });

  it.each([null, undefined, 'x', 7, []])('refuses %p', (payload) => {
    expect(readClaims(payload)).toBeUndefined();
  });
});

describe('toPrincipal', () => {
  it('takes identity from the token, and tier from the tenant', () => {
    expect(toPrincipal({ ...CLAIMS, roles: ['developer'], attrs: { department: 'bi' }, client_id: 'app' }, tenant('acme'))).toEqual({
      tenantId: 'acme', tier: 'enterprise', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, payloadStorage: 'off', subject: 'dev@acme.example', roles: ['developer'], attributes: { department: 'bi' }, clientId: 'app', issuer: 'https://idp.example', tokenId: 'j-1', expiresAtMs: 1_796_000_600_000, mtls: false, boundTo: undefined, mustBeBound: false,
    });
  });

  it('gives no roles and no attributes that the token does not name', () => {
    expect(toPrincipal(CLAIMS, tenant('acme'))).toMatchObject({ roles: [], attributes: {}, clientId: undefined });
  });

  it('counts the role platform-admin in the tenant platform alone', () => {
    const roles = ['platform-admin', 'developer'];
    expect(toPrincipal({ ...CLAIMS, roles }, tenant('acme')).roles).toEqual(['developer']);
    expect(toPrincipal({ ...CLAIMS, roles }, tenant('platform')).roles).toEqual(roles);
  });
});
