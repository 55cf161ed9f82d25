import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Principal } from './principal.ts';
import { Revoked, REVOCATION_TYPES, type ActiveRevocation } from './revoked.ts';

const FINGERPRINT = 'ab'.repeat(32);
const PRINCIPAL: Principal = {
  tenantId: 'acme', tier: 'standard', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, subject: 'ada', roles: [], attributes: {}, clientId: undefined, issuer: 'i', tokenId: 'jti-1', expiresAtMs: 1e15, mtls: true, keyId: 'key-1', certificate: { fingerprint: FINGERPRINT, uris: ['spiffe://acme/app'] },
};
const revocation = (change: Partial<ActiveRevocation>): ActiveRevocation => ({ type: 'sub', value: 'ada', tenantId: 'acme', expiresAtMs: undefined, ...change });
const has = (revocations: Partial<ActiveRevocation>[], principal: Principal = PRINCIPAL, nowMs = 1_000): boolean => new Revoked(revocations.map(revocation)).has(principal, nowMs);

describe('Revoked', () => {
  it('knows nobody where nothing is revoked', () => {
    expect(has([])).toBe(false);
  });

  it.each<[Partial<ActiveRevocation>]>([[{ type: 'jti', value: 'jti-1' }], [{ type: 'sub', value: 'ada' }], [{ type: 'key', value: 'key-1' }], [{ type: 'certificate', value: FINGERPRINT }]])('knows a principal by %j, of its tenant and of all tenants, and not of another', (one) => {
    expect([has([{ ...one, tenantId: 'acme' }]), has([{ ...one, tenantId: undefined }]), has([{ ...one, tenantId: 'globex' }])]).toEqual([true, true, false]);
  });

  it.each<[Partial<ActiveRevocation>]>([
    [{ type: 'jti', value: 'ada' }], [{ type: 'sub', value: 'jti-1' }], [{ type: 'key', value: 'ada' }], [{ type: 'certificate', value: 'spiffe://acme/app' }], [{ type: 'certificate', value: FINGERPRINT.toUpperCase() }], [{ value: 'Ada' }], [{ value: 'ada ' }], [{ value: 'ad' }], [{ value: '' }],
  ])('does not know it by %j', (one) => {
    expect(has([one])).toBe(false);
  });

  it('does not take what a principal lacks for a value', () => {
    const bare: Principal = { ...PRINCIPAL, keyId: undefined, certificate: undefined };
    expect(has([{ type: 'key', value: 'undefined' }, { type: 'key', value: '' }, { type: 'certificate', value: 'undefined' }, { type: 'certificate', value: '' }, { type: 'key', value: 'key-1' }, { type: 'certificate', value: FINGERPRINT }], bare)).toBe(false);
  });

  it('counts until the millisecond in which it expires', () => {
    const one = { expiresAtMs: 1_000 };
    expect([has([one], PRINCIPAL, 999), has([one], PRINCIPAL, 1_000), has([one], PRINCIPAL, 1_001), has([{ expiresAtMs: undefined }], PRINCIPAL, Number.MAX_SAFE_INTEGER)]).toEqual([true, false, false, true]);
  });

  it('lets no expired revocation hide one that counts', () => {
    expect(has([{ expiresAtMs: 1 }, { tenantId: undefined }])).toBe(true);
    expect(has([{ tenantId: undefined, expiresAtMs: 1 }, {}])).toBe(true);
    expect(has([{ type: 'jti', value: 'jti-1', expiresAtMs: 1 }, { type: 'key', value: 'key-1' }])).toBe(true);
  });

  it('answers as going through the whole list does, whatever is on it', () => {
    const word = fc.constantFrom('a', 'b', 'acme', 'a:b', 'jti', 'ünï');
    const some = fc.array(fc.record({ type: fc.constantFrom(...REVOCATION_TYPES), value: word, tenantId: fc.option(word, { nil: undefined }), expiresAtMs: fc.option(fc.integer({ min: 990, max: 1_010 }), { nil: undefined }) }), { maxLength: 8 })
      .map((all) => all.filter((one, at) => all.findIndex(({ type, value, tenantId }) => type === one.type && value === one.value && tenantId === one.tenantId) === at));
    const who = fc.record({ tenantId: word, subject: word, tokenId: word, keyId: fc.option(word, { nil: undefined }), fingerprint: fc.option(word, { nil: undefined }) });
    fc.assert(fc.property(some, who, (revocations, { fingerprint, ...names }) => {
      const principal: Principal = { ...PRINCIPAL, ...names, certificate: fingerprint === undefined ? undefined : { fingerprint, uris: [] } };
      const named = { jti: principal.tokenId, sub: principal.subject, key: principal.keyId, certificate: fingerprint };
      const expected = revocations.some(({ type, value, tenantId, expiresAtMs = Infinity }) => named[type] === value && (tenantId === undefined || tenantId === principal.tenantId) && expiresAtMs > 1_000);
      expect(new Revoked(revocations).has(principal, 1_000)).toBe(expected);
    }), { numRuns: 10_000 });
  });
});
