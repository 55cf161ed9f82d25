import { egressFault } from '../egress/addresses.ts';
import { bypassesProxy } from '../egress/proxy-bypass.ts';
import type { Env } from '../env.ts';
import { pathOfFileUrl } from './file-place.ts';
import type { SinkType } from './sink.ts';
import { parseTlsOrigin } from './tls-origin.ts';

/** Why events may not be sent to a URL of the admin API, or undefined. Pure: names are resolved at each connection, and links of a file at each batch. */
export function sinkUrlFault(type: SinkType, url: string, egress: Env['egress']): string | undefined {
  if (type === 'file') return pathOfFileUrl(url) === undefined ? 'is no file:///path of a file' : undefined;
  if (type === 'syslog') return syslogFault(url, egress.allowedOrigins);
  if (URL.canParse(url) && new URL(url).username + new URL(url).password !== '') return 'has credentials in it; they belong into token';
  return egressFault(url, egress.allowedOrigins) ?? proxyFault(new URL(url), egress);
}

function syslogFault(url: string, allowedOrigins: readonly string[]): string | undefined {
  const parsed = parseTlsOrigin(url);
  if (parsed === undefined) return 'is no tls://host:port';
  if (allowedOrigins.includes(parsed.origin)) return undefined;
  return egressFault(`https:${parsed.origin.slice('tls:'.length)}`, []);
}

/** The proxy resolves the name, so that nobody here sees where it leads. */
function proxyFault(url: URL, { proxyUrl, noProxy, allowedOrigins }: Env['egress']): string | undefined {
  const proxied = proxyUrl !== undefined && url.protocol === 'https:' && !bypassesProxy(url, noProxy);
  return proxied && !allowedOrigins.includes(url.origin) ? 'goes through HTTPS_PROXY, so its origin must stand in EGRESS_ALLOW' : undefined;
}
