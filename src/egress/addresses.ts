import { lookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { isLoopback } from '../shared/loopback.ts';

/** Addresses that are never the provider's: this machine, private and link-local networks, multicast, and what is reserved. */
const NOT_PUBLIC = new BlockList();
for (const [network, bits] of [
  ['0.0.0.0', 8], ['10.0.0.0', 8], ['100.64.0.0', 10], ['127.0.0.0', 8], ['169.254.0.0', 16], ['172.16.0.0', 12], ['192.0.0.0', 24], ['192.0.2.0', 24],
  ['192.168.0.0', 16], ['192.88.99.0', 24], ['198.18.0.0', 15], ['198.51.100.0', 24], ['203.0.113.0', 24], ['224.0.0.0', 4], ['240.0.0.0', 4],
] as const) NOT_PUBLIC.addSubnet(network, bits, 'ipv4');
for (const [network, bits] of [
  ['::', 96], ['::1', 128], ['64:ff9b:1::', 48], ['100::', 64], ['100:0:0:1::', 64], ['2001:2::', 48], ['2001:20::', 28], ['2001:db8::', 32], ['3fff::', 20], ['5f00::', 16], ['fc00::', 7], ['fe80::', 10], ['fec0::', 10], ['ff00::', 8], ['2002::', 16], ['2001::', 32],
] as const) NOT_PUBLIC.addSubnet(network, bits, 'ipv6');

/**
 * Whether an address is one of the public internet.
 *
 * @see https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
 */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return !NOT_PUBLIC.check(address, 'ipv4');
  if (family !== 6) return false;
  const mapped = /^(?:::ffff:|64:ff9b::)(.+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return isIP(mapped) === 4 && isPublicAddress(mapped); // an IPv4 address in the clothes of an IPv6 one
  return !NOT_PUBLIC.check(address, 'ipv6');
}

/**
 * Why a base URL from the admin API may not be called, or undefined. Names are resolved, and their addresses looked at, at each connection.
 *
 * @param allowed exact origins that operators vouch for (`EGRESS_ALLOW`)
 */
export function egressFault(baseUrl: string, allowed: readonly string[]): string | undefined {
  if (!URL.canParse(baseUrl)) return 'is no absolute URL';
  const url = new URL(baseUrl);
  if (url.username !== '' || url.password !== '') return 'has credentials in it; they belong into api_key';
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(baseUrl)) return 'has a query or a fragment';
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'is not https';
  if (allowed.includes(url.origin)) return undefined;
  if (url.protocol !== 'https:') return 'is not https, and its origin is not in EGRESS_ALLOW';
  const host = url.hostname.replace(/^\[|\]$/g, '').replace(/\.+$/, '').toLowerCase();
  if (isLoopback(host) || host.endsWith('.localhost') || (isIP(host) !== 0 && !isPublicAddress(host))) return 'is not public, and its origin is not in EGRESS_ALLOW';
  return undefined;
}

/** Resolves names as `dns.lookup` does, and refuses those of which any address is not public: a name may be pointed anywhere after it was checked. */
export const lookupPublic: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    const refused = addresses?.find(({ address }) => !isPublicAddress(address));
    if (error !== null) callback(error, []);
    else if (refused !== undefined || addresses.length === 0) callback(new Error(`${hostname} resolves to ${refused?.address ?? 'nothing'}, which is not public, and its origin is not in EGRESS_ALLOW`), []);
    else if (options.all === true) callback(null, addresses);
    else callback(null, addresses[0]!.address, addresses[0]!.family);
  });
};
