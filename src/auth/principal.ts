import type { TierName } from '../catalogue/tiers.ts';

/** Attributes of a principal, from the token's `attrs`. */
export type PrincipalAttributes = Readonly<Record<string, string | number | readonly string[]>>;

/** Who is calling, established by a verified credential. */
export interface Principal {
  tenantId: string;
  tier: TierName;
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
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the auth guard on every route that is not public. */
    principal?: Principal;
  }
}
