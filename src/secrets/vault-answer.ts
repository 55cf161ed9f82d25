/** What an answer of Vault means for who asked. */
export type VaultVerdict =
  | { kind: 'ok' }
  /** The token is not accepted, or may not do this. */
  | { kind: 'denied' }
  /** For good. */
  | { kind: 'refused'; because: 'too_old' | 'no_key' | 'other' }
  /** Not now. `soon`: trying again at once makes sense. */
  | { kind: 'unavailable'; reason: string; soon: boolean };

/**
 * Reads the status and the error texts of an answer. Pure.
 *
 * @see https://developer.hashicorp.com/vault/api-docs#http-status-codes
 */
export function verdictOf(status: number, errors: readonly string[]): VaultVerdict {
  if (status >= 200 && status < 300) return { kind: 'ok' };
  const says = (pattern: RegExp): boolean => errors.some((text) => pattern.test(text));
  if (status === 403) return { kind: 'denied' };
  if (status === 400) {
    if (says(/client token/i)) return { kind: 'denied' };
    return { kind: 'refused', because: says(/too old/i) ? 'too_old' : says(/key not found/i) ? 'no_key' : 'other' };
  }
  if (status >= 300 && status < 400) return { kind: 'unavailable', reason: 'Vault redirects elsewhere, and redirects are not followed: VAULT_ADDR has to name the active node, or what leads to it', soon: false };
  if (status === 404) return { kind: 'unavailable', reason: 'Vault knows no such path: see VAULT_TRANSIT_MOUNT, VAULT_NAMESPACE, and which login methods are enabled', soon: false };
  if (says(/sealed/i)) return { kind: 'unavailable', reason: 'Vault is sealed', soon: true };
  return { kind: 'unavailable', reason: `Vault answers ${status}`, soon: status === 412 || status === 429 || status >= 500 };
}
