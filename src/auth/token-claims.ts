import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { plainText } from '../shared/plain-text.ts';
import type { Tenant } from '../tenants/tenant.ts';
import { costSettingsOf, type Principal } from './principal.ts';

const Text = plainText(512);
const AttributeText = plainText(1024);

/** What a token must say, beyond a good signature, issuer, audience and time. */
const TokenClaims = Type.Object({
  iss: Text,
  sub: Text,
  jti: Text,
  tenant: Text,
  iat: Type.Number(),
  exp: Type.Number(),
  roles: Type.Optional(Type.Array(Text, { maxItems: 64 })),
  attrs: Type.Optional(Type.Record(Text, Type.Union([AttributeText, Type.Number(), Type.Array(AttributeText, { maxItems: 64 })]))),
  client_id: Type.Optional(Text),
  // A token that is bound to something which we cannot check is not accepted as if it were not.
  cnf: Type.Optional(Type.Object({ 'x5t#S256': Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }) }, { additionalProperties: false })),
});
export type TokenClaims = Static<typeof TokenClaims>;

const validator = Compile(TokenClaims);

/** The claims as a typed value; undefined where one is missing or mistyped. */
export function readClaims(payload: unknown): TokenClaims | undefined {
  return validator.Check(payload) ? (payload as TokenClaims) : undefined;
}

export function toPrincipal(claims: TokenClaims, tenant: Tenant): Principal {
  // The role counts only in the tenant of the platform's own operators, whatever another tenant's identity provider may issue.
  const roles = (claims.roles ?? []).filter((role) => role !== 'platform-admin' || tenant.id === 'platform');
  return {
    tenantId: tenant.id,
    tier: tenant.tier,
    dataClass: tenant.dataClass,
    cost: costSettingsOf(tenant),
    payloadStorage: tenant.payloadStorage,
    subject: claims.sub,
    roles,
    attributes: claims.attrs ?? {},
    clientId: claims.client_id,
    issuer: claims.iss,
    tokenId: claims.jti,
    expiresAtMs: claims.exp * 1000,
    mtls: false,
    boundTo: claims.cnf === undefined ? undefined : Buffer.from(claims.cnf['x5t#S256'], 'base64url').toString('hex'),
    mustBeBound: tenant.boundTokens,
  };
}
