import type { TierName } from '../catalogue/tiers.ts';
import type { Tenant } from '../tenants/tenant.ts';
import type { DataClass } from './decision-point.ts';

/** Attributes of a principal, from the token's `attrs`. */
export type PrincipalAttributes = Readonly<Record<string, string | number | readonly string[]>>;

/** Who is calling, established by a verified credential. */
export interface Principal {
  tenantId: string;
  tier: TierName;
  /** What its data is at least. */
  dataClass: DataClass;
  /** How its tenant's money is to be spent. */
  cost: CostSettings;
  /** What of its calls is stored, sealed; undefined for nothing. */
  payloadStorage?: Tenant['payloadStorage'] | undefined;
  subject: string;
  roles: readonly string[];
  attributes: PrincipalAttributes;
  clientId: string | undefined;
  issuer: string;
  /** `jti` of the token. */
  tokenId: string;
  /** Epoch milliseconds from which the credential no longer counts. */
  expiresAtMs: number;
  /** Whether a client certificate was presented and verified. */
  mtls: boolean;
  /** That certificate. */
  certificate?: ClientCertificate | undefined;
  /** Of an API key: its id, and the models that it is limited to, undefined for all. */
  keyId?: string | undefined;
  keyEndsAtMs?: number | undefined;
  models?: readonly string[] | undefined;
  /** The certificate that the token is bound to (RFC 8705 `cnf.x5t#S256`), as hex. */
  boundTo?: string | undefined;
  /** Whether its tenant takes bound credentials only. */
  mustBeBound?: boolean;
}

/** A tenant's own word on what calls may cost. */
export interface CostSettings {
  mode: 'off' | 'advise' | 'optimize';
  targetQuality: number;
  /** Most that one call may cost, in ticks; undefined for no limit of its own. */
  ceilingTicks: bigint | undefined;
  holds: 'bounded' | 'strict';
}

/** As a tenant's row has it. */
export function costSettingsOf({ costMode, targetQuality, requestCeilingTicks, holds }: Pick<Tenant, 'costMode' | 'targetQuality' | 'requestCeilingTicks' | 'holds'>): CostSettings {
  return { mode: costMode, targetQuality, ceilingTicks: requestCeilingTicks ?? undefined, holds };
}

/** A client certificate that was verified in the handshake, or by a proxy that is trusted. */
export interface ClientCertificate {
  /** SHA-256 of the certificate, hex in lower case. */
  fingerprint: string;
  /** Its URIs (SAN), such as SPIFFE ids. */
  uris: readonly string[];
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the auth guard on every route that is not public. */
    principal?: Principal;
  }
}
