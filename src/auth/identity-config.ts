import { Type, type Static } from 'typebox';
import { readConfigFile } from '../shared/config-files.ts';
import { isLoopback } from '../shared/loopback.ts';
import { oneOf } from '../shared/one-of.ts';
import { TENANT_ID_PATTERN } from '../tenants/tenant.ts';

export const SIGNATURE_ALGORITHMS = ['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512', 'EdDSA', 'Ed25519'] as const;
const ALGORITHMS_DEFAULT = ['ES256', 'PS256', 'RS256', 'EdDSA'];
const JWKS_GRACE_SECONDS = 86_400;

const CLOSED = { additionalProperties: false };
const Claim = Type.String({ minLength: 1, maxLength: 256 });
const TenantId = Type.String({ pattern: TENANT_ID_PATTERN });
const ClaimsMapping = Type.Object({
  tenant: Type.Optional(Type.Union([Type.Object({ value: TenantId }, CLOSED), Type.Object({ claim: Claim, map: Type.Optional(Type.Record(Type.String(), TenantId)) }, CLOSED)])),
  subject: Type.Optional(Claim),
  token_id: Type.Optional(Claim),
  client_id: Type.Optional(Claim),
  roles: Type.Optional(Type.Object({ claim: Claim, map: Type.Optional(Type.Record(Type.String(), Type.String())) }, CLOSED)),
  attrs: Type.Optional(Type.Union([Claim, Type.Record(Type.String(), Claim)])),
}, CLOSED);
const IdentityFile = Type.Object({
  issuers: Type.Array(Type.Object({
    issuer: Type.String({ minLength: 1 }), audience: Type.String({ minLength: 1 }), jwks_uri: Type.Optional(Type.String()), jwks_file: Type.Optional(Type.String()),
    algorithms: Type.Optional(Type.Array(oneOf(SIGNATURE_ALGORITHMS), { minItems: 1 })), jwks_grace_seconds: Type.Optional(Type.Integer({ minimum: 0 })), claims: Type.Optional(ClaimsMapping),
  }, CLOSED)),
}, CLOSED);

export type ClaimsMapping = Static<typeof ClaimsMapping>;

/** An identity provider, and how its tokens say what we want to know. */
export interface IssuerSettings {
  issuer: string;
  audience: string;
  jwksUri: string | undefined;
  jwksFile: string | undefined;
  algorithms: readonly string[];
  /** For how long the last good key set serves while it cannot be fetched. */
  jwksGraceSeconds?: number;
  /** Undefined: our own names, as DESIGN 3.2 has them. */
  claims?: ClaimsMapping;
}

/**
 * Reads `config/identity.yaml`.
 *
 * @throws {Error} naming the issuer and what is wrong with it
 */
export function loadIssuers(folder?: string): IssuerSettings[] {
  const { issuers } = readConfigFile('identity.yaml', IdentityFile, folder);
  return issuers.map(({ issuer, audience, jwks_uri: jwksUri, jwks_file: jwksFile, algorithms, jwks_grace_seconds: grace, claims }) => {
    if ((jwksUri === undefined) === (jwksFile === undefined)) throw new Error(`config/identity.yaml: ${issuer}: give one of jwks_uri and jwks_file`);
    if (jwksUri !== undefined && !mayBeFetched(jwksUri)) throw new Error(`config/identity.yaml: ${issuer}: jwks_uri has to be https (http on loopback only), without credentials`);
    return { issuer, audience, jwksUri, jwksFile, algorithms: algorithms ?? ALGORITHMS_DEFAULT, jwksGraceSeconds: grace ?? JWKS_GRACE_SECONDS, ...(claims === undefined ? {} : { claims }) };
  });
}

function mayBeFetched(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username, password } = new URL(text);
  return username === '' && password === '' && (protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname)));
}
