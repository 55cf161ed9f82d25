import type { ClaimsMapping } from './identity-config.ts';

type Claims = Readonly<Record<string, unknown>>;

/** Claims of an issuer, under the names that we know them by. Pure; what is missing stays missing, and is found out by whoever reads the claims. */
export function mapClaims(payload: Claims, mapping: ClaimsMapping): Record<string, unknown> {
  const { iss, exp, iat, cnf } = payload;
  const { tenant, subject, token_id: tokenId, client_id: clientId, roles, attrs } = mapping;
  return withoutUndefined({
    iss, exp, iat, cnf,
    tenant: tenant === undefined ? payload['tenant'] : 'value' in tenant ? tenant.value : mapped(at(payload, tenant.claim), tenant.map),
    sub: at(payload, subject ?? 'sub'),
    jti: at(payload, tokenId ?? 'jti'),
    client_id: at(payload, clientId ?? 'client_id'),
    roles: roles === undefined ? payload['roles'] : rolesOf(at(payload, roles.claim), roles.map),
    attrs: attrs === undefined ? payload['attrs'] : typeof attrs === 'string' ? at(payload, attrs) : attributesOf(payload, attrs),
  });
}

/** A claim by its name, or by a path into it. Names may have dots themselves, so the name comes first. */
function at(payload: Claims, path: string): unknown {
  if (Object.hasOwn(payload, path)) return payload[path];
  let value: unknown = payload;
  for (const part of path.split('.')) {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, part)) return undefined;
    value = (value as Claims)[part];
  }
  return value;
}

function mapped(value: unknown, map: Readonly<Record<string, string>> | undefined): unknown {
  if (map === undefined) return value;
  return typeof value === 'string' && Object.hasOwn(map, value) ? map[value] : undefined;
}

/** Providers hold a lone role as text, or several as one text with spaces. */
function rolesOf(value: unknown, map: Readonly<Record<string, string>> | undefined): unknown {
  const list = typeof value === 'string' ? value.split(/\s+/).filter((role) => role !== '') : value;
  if (map === undefined || !Array.isArray(list)) return list;
  return [...new Set(list.flatMap((role) => (typeof role === 'string' && Object.hasOwn(map, role) ? [map[role]!] : [])))];
}

function attributesOf(payload: Claims, names: Readonly<Record<string, string>>): Record<string, unknown> {
  return withoutUndefined(Object.fromEntries(Object.entries(names).map(([ours, theirs]) => [ours, at(payload, theirs) ?? undefined])));
}

function withoutUndefined(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
