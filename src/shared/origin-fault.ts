import { isLoopback } from './loopback.ts';

/** Why a URL of the settings may not be called, or undefined: https only, but for loopback, and no credentials in it. */
export function originFault(value: string): string | undefined {
  if (!URL.canParse(value)) return 'expected an absolute URL';
  const url = new URL(value);
  if (url.username !== '' || url.password !== '') return 'credentials do not belong in the URL';
  if (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname))) return undefined;
  return 'expected https; plain http is for loopback only';
}
