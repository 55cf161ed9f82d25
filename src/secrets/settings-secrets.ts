import type { Env } from '../env.ts';
import { isSealed } from './secret-provider.ts';

/** What is secret among the settings, in each spelling in which it may turn up. Pure. */
export function secretsOfSettings({ provider, vault, databaseUrl, alertWebhook, egress }: Pick<Env, 'provider' | 'vault' | 'databaseUrl' | 'alertWebhook' | 'egress'>): string[] {
  const login = vault?.login;
  return [
    ...(provider.apiKey === undefined || isSealed(provider.apiKey) ? [] : [provider.apiKey]),
    ...(login?.type === 'token' ? [login.token] : login?.type === 'approle' ? [login.secretId] : []),
    ...passwordsOf(databaseUrl), ...passwordsOf(egress.proxyUrl),
    ...(alertWebhook === undefined ? [] : [alertWebhook.secret]),
  ];
}

function passwordsOf(url: string | undefined): string[] {
  if (url === undefined || !URL.canParse(url)) return [];
  const { password } = new URL(url);
  if (password === '') return [];
  try {
    return [...new Set([password, decodeURIComponent(password)])];
  } catch {
    return [password]; // a percent sign that encodes nothing
  }
}
