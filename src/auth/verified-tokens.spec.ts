import { describe, expect, it } from '@jest/globals';
import type { Principal } from './principal.ts';
import { VerifiedTokens } from './verified-tokens.ts';

const principal = (subject: string, expiresAtMs = 1_000): Principal =>
  ({ tenantId: 'acme', tier: 'standard', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, subject, roles: [], attributes: {}, clientId: undefined, issuer: 'i', tokenId: 'j', expiresAtMs, mtls: false });

describe('VerifiedTokens', () => {
  it('knows a token again, and no other', () => {
    const tokens = new VerifiedTokens(10);
    const one = principal('one');
    tokens.remember('token-1', one);
    expect(tokens.find('token-1', 0)).toBe(one);
    for (const other of ['token-2', 'token-1 ', 'TOKEN-1', '', 'token-']) expect(tokens.find(other, 0)).toBeUndefined();
  });

  it('forgets a token at the very millisecond in which it expires', () => {
    const tokens = new VerifiedTokens(10);
    tokens.remember('token', principal('one', 1_000));
    expect(tokens.find('token', 999)).toBeDefined();
    expect(tokens.find('token', 1_000)).toBeUndefined();
    expect(tokens.size).toBe(0);
    expect(tokens.find('token', 0)).toBeUndefined();
  });

  it('never holds more than it may; the oldest leaves', () => {
    const tokens = new VerifiedTokens(3);
    for (let at = 0; at < 100; at += 1) {
      tokens.remember(`token-${at}`, principal(String(at)));
      expect(tokens.size).toBeLessThanOrEqual(3);
    }
    expect([96, 97, 98, 99].map((at) => tokens.find(`token-${at}`, 0)?.subject)).toEqual([undefined, '97', '98', '99']);
  });

  it('drops no other token when one that it knows is verified once more', () => {
    const tokens = new VerifiedTokens(2);
    tokens.remember('a', principal('a'));
    tokens.remember('b', principal('b'));
    tokens.remember('b', principal('b2'));
    expect([tokens.find('a', 0)?.subject, tokens.find('b', 0)?.subject]).toEqual(['a', 'b2']);
  });

  it('forgets all when a tenant changes', () => {
    const tokens = new VerifiedTokens(3);
    tokens.remember('a', principal('a'));
    tokens.clear();
    expect(tokens.find('a', 0)).toBeUndefined();
  });
});
