import type { Deployment } from '../catalogue/catalogue.ts';
import type { NamedValue } from '../secrets/opened-secrets.ts';

/** The setting that holds the key of the provider in the environment, to whose name it is bound where it is sealed. */
export const ENVIRONMENT_KEY = 'XAI_API_KEY';

/** Names to which the secrets of a deployment are bound. */
export function apiKeyName(id: string): string {
  return `deployment/${id}/api_key`;
}

export function tlsKeyName(id: string): string {
  return `deployment/${id}/tls_key`;
}

/** What has to be open before a deployment can serve, beside the environment's own key. */
export function secretsOf({ id, sealedApiKey, tls }: Pick<Deployment, 'id' | 'sealedApiKey' | 'tls'>): NamedValue[] {
  return [
    ...(sealedApiKey === undefined ? [] : [{ name: apiKeyName(id), value: sealedApiKey }]),
    ...(tls.key === undefined ? [] : [{ name: tlsKeyName(id), value: tls.key }]),
  ];
}
