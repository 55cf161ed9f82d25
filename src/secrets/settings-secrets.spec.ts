import { expect, it } from '@jest/globals';
import { parseEnv } from '../env.ts';
import { secretsOfSettings } from './settings-secrets.ts';

const ALL = { DATABASE_URL: 'postgresql://novix:pass%40word@h/d', XAI_API_KEY: 'xai-key', AUTH_ISSUER: 'https://i', AUTH_AUDIENCE: 'a', AUTH_JWKS_URI: 'https://i/jwks' };
const VAULT = { VAULT_ADDR: 'https://v', VAULT_TRANSIT_KEY: 'k' };
const WEBHOOK_KEY = Buffer.alloc(32, 7).toString('base64');

it.each<[string, Record<string, string>, string[]]>([
  ['the key of the provider, and the database’s password in both spellings', {}, ['xai-key', 'pass%40word', 'pass@word']],
  ['no key that is sealed', { XAI_API_KEY: 'enc:v1:vault:abc', ...VAULT, VAULT_TOKEN: 'hvs.token' }, ['hvs.token', 'pass%40word', 'pass@word']],
  ['the secret id', { ...VAULT, VAULT_ROLE_ID: 'role', VAULT_SECRET_ID: 'secret-id' }, ['xai-key', 'secret-id', 'pass%40word', 'pass@word']],
  ['the proxy’s password and the webhook’s key', { HTTPS_PROXY: 'http://me:proxy-pw@proxy:3128', NOVIX_ALERT_WEBHOOK_URL: 'https://w', NOVIX_ALERT_WEBHOOK_SECRET: `whsec_${WEBHOOK_KEY}` }, ['xai-key', 'pass%40word', 'pass@word', 'proxy-pw', WEBHOOK_KEY]],
  ['nothing of URLs without passwords', { DATABASE_URL: 'postgresql://h/d', HTTPS_PROXY: 'http://proxy' }, ['xai-key']],
])('secrets of the settings: %s', (_, change, expected) => {
  expect(secretsOfSettings(parseEnv({ ...ALL, ...change }))).toEqual(expected);
});
