import type { Principal } from './principal.ts';

export const REVOCATION_TYPES = ['jti', 'sub', 'key', 'certificate'] as const;
export type RevocationType = (typeof REVOCATION_TYPES)[number];

export interface ActiveRevocation {
  type: RevocationType;
  value: string;
  /** Undefined: for every tenant. */
  tenantId: string | undefined;
  /** Epoch milliseconds; undefined: until it is removed. */
  expiresAtMs: number | undefined;
}

/** What has been revoked, ready to be asked on every request. */
export class Revoked {
  readonly #expiries = new Map<string, number>();

  constructor(revocations: readonly ActiveRevocation[]) {
    for (const { type, value, tenantId, expiresAtMs } of revocations) this.#expiries.set(keyOf(type, value, tenantId), expiresAtMs ?? Number.POSITIVE_INFINITY);
  }

  has(principal: Principal, nowMs: number): boolean {
    if (this.#expiries.size === 0) return false;
    const { tenantId, tokenId, subject, keyId, certificate } = principal;
    return this.#is('jti', tokenId, tenantId, nowMs) || this.#is('sub', subject, tenantId, nowMs)
      || (keyId !== undefined && this.#is('key', keyId, tenantId, nowMs)) || (certificate !== undefined && this.#is('certificate', certificate.fingerprint, tenantId, nowMs));
  }

  #is(type: RevocationType, value: string, tenantId: string, nowMs: number): boolean {
    return (this.#expiries.get(keyOf(type, value, tenantId)) ?? 0) > nowMs || (this.#expiries.get(keyOf(type, value, undefined)) ?? 0) > nowMs;
  }
}

/** A control character parts the fields: in none of them, since they are refused there. */
function keyOf(type: RevocationType, value: string, tenantId: string | undefined): string {
  return `${type}\u001f${tenantId ?? ''}\u001f${value}`;
}
