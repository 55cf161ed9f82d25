/**
 * Whether a host is called directly although there is a proxy.
 *
 * @param noProxy comma-separated hosts, domains (`.example.com` or `example.com`, with what is below), `host:port`, or `*`
 */
export function bypassesProxy(url: URL, noProxy: string | undefined): boolean {
  const host = url.hostname.toLowerCase();
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return (noProxy ?? '').toLowerCase().split(',').map((entry) => entry.trim()).filter((entry) => entry !== '').some((entry) => {
    if (entry === '*') return true;
    const [, name = entry, entryPort] = /^(.*?):(\d+)$/.exec(entry) ?? [];
    if (entryPort !== undefined && entryPort !== port) return false;
    const bare = name.replace(/^\*?\./, '');
    return host === bare || host.endsWith(`.${bare}`);
  });
}
