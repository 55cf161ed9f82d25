import type { LocalSeal } from '../secrets/local-seal.ts';

/** Names to which the secrets of a deployment are bound. */
export function apiKeyName(id: string): string {
  return `deployment/${id}/api_key`;
}

export function tlsKeyName(id: string): string {
  return `deployment/${id}/tls_key`;
}

/** @throws {Error} where it is sealed, and does not open */
export function openedTlsKey(seal: () => LocalSeal, id: string, key: string | undefined): string | undefined {
  return key !== undefined && key.startsWith('enc:') ? seal().open(tlsKeyName(id), key) : key;
}
