const PORT_DEFAULT = 6514;

/** Where a syslog receiver listens. */
export interface TlsOrigin {
  /** Without the brackets of an IPv6 address. */
  host: string;
  port: number;
  /** `tls://host:port`, in one spelling, as it stands in `EGRESS_ALLOW`. */
  origin: string;
}

/** @returns undefined for what is no `tls://host[:port]`; 6514 is the port that RFC 5425 has */
export function parseTlsOrigin(url: string): TlsOrigin | undefined {
  const [, name, digits] = /^tls:\/\/(\[[0-9a-f:.]+\]|[^\s:/?#@[\]\\]+)(?::(\d{1,5}))?\/?$/i.exec(url) ?? [];
  if (name === undefined || !URL.canParse(`https://${name}/`)) return undefined;
  const { hostname } = new URL(`https://${name}/`); // other spellings of an address become one here, as they do in https
  const port = digits === undefined ? PORT_DEFAULT : Number(digits);
  if (port < 1 || port > 65_535) return undefined;
  return { host: hostname.replace(/^\[|\]$/g, ''), port, origin: `tls://${hostname}:${port}` };
}
