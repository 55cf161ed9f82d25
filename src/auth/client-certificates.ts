import { BlockList, isIP } from 'node:net';
import { X509Certificate } from 'node:crypto';
import { TLSSocket } from 'node:tls';
import { SubjectAlternativeNameExtension, X509Certificate as ParsedCertificate } from '@peculiar/x509';
import type { FastifyRequest } from 'fastify';
import type { Clock } from '../shared/clock.ts';
import { invalidToken } from '../shared/gateway-error.ts';
import type { ClientCertificate } from './principal.ts';
import type { RevokedCertificates } from './revoked-certificates.ts';

const HEADER_BYTES_MAX = 16 * 1024;

/** A certificate, with what decides whether it still counts. */
interface PresentedCertificate extends ClientCertificate {
  validToMs: number;
  /** As the CRL names it; undefined where a proxy gave only the fingerprint. */
  serial: { issuer: string; number: string } | undefined;
}

/**
 * The client certificate of a request: of its TLS connection, or told by a proxy that is trusted. What a caller says of itself in the same headers
 * counts for nothing.
 */
export class ClientCertificates {
  /** A connection's certificate is read once. */
  readonly #bySocket = new WeakMap<object, PresentedCertificate>();

  constructor(
    private readonly trustedProxies: BlockList,
    private readonly revoked: RevokedCertificates,
    private readonly clock: Clock,
  ) {}

  /**
   * @returns undefined where none was presented
   * @throws {GatewayError} `invalid_token` for one that was not verified, has expired or is revoked, also on a connection that was opened before
   */
  of(request: FastifyRequest): ClientCertificate | undefined {
    const { socket } = request.raw;
    // A proxy's own certificate is not its caller's.
    const presented = this.#isTrustedProxy(socket.remoteAddress ?? '') ? this.#fromHeaders(request) : socket instanceof TLSSocket ? this.#ofSocket(socket) : undefined;
    if (presented === undefined) return undefined;
    if (presented.validToMs <= this.clock.nowMs()) throw invalidToken({ reason: 'the client certificate has expired' });
    if (presented.serial !== undefined && this.revoked.has(presented.serial.issuer, presented.serial.number)) throw invalidToken({ reason: 'the client certificate is revoked' });
    return presented;
  }

  #ofSocket(socket: TLSSocket): PresentedCertificate | undefined {
    const known = this.#bySocket.get(socket);
    if (known !== undefined) return known;
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) return undefined;
    // Where certificates are optional the handshake lets in a bad one too.
    if (!socket.authorized) throw invalidToken({ reason: `the client certificate was not verified: ${String(socket.authorizationError)}` });
    const presented = describe(certificate);
    this.#bySocket.set(socket, presented);
    return presented;
  }

  #isTrustedProxy(address: string): boolean {
    const family = isIP(address);
    return family !== 0 && this.trustedProxies.check(address, family === 4 ? 'ipv4' : 'ipv6');
  }

  /** RFC 9440 `client-cert`, or Envoy's `x-forwarded-client-cert`; where both are there they have to agree. */
  #fromHeaders(request: FastifyRequest): PresentedCertificate | undefined {
    const given = [
      single(request.headers['client-cert'], readClientCert), single(request.headers['x-forwarded-client-cert'], readForwardedClientCert),
    ].filter((one) => one !== undefined);
    if (given.length === 2 && given[0]!.fingerprint !== given[1]!.fingerprint) throw invalidToken({ reason: 'two client certificates in the headers' });
    return given[0];
  }
}

/** Networks whose members are believed when they say who called them. IPv4 in IPv6 clothes included. */
export function trustedProxyList(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits] = network.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    list.addSubnet(address, bits === undefined ? (family === 'ipv4' ? 32 : 128) : Number(bits), family);
  }
  return list;
}

function single(header: string | string[] | undefined, read: (text: string) => PresentedCertificate): PresentedCertificate | undefined {
  if (header === undefined) return undefined;
  if (typeof header !== 'string' || header.length > HEADER_BYTES_MAX) throw invalidToken({ reason: 'a client certificate header that cannot be read' });
  try {
    return read(header);
  } catch (cause) {
    throw invalidToken({ reason: 'a client certificate header that cannot be read' }, cause);
  }
}

/** `:<base64 of DER>:` */
function readClientCert(text: string): PresentedCertificate {
  const [, base64] = /^:([A-Za-z0-9+/]+=*):$/.exec(text.trim()) ?? [];
  if (base64 === undefined) throw new Error('client-cert is no byte sequence');
  return describe(new X509Certificate(Buffer.from(base64, 'base64')));
}

/** `Hash=…;Cert="…";URI=…`, of one hop: of several, nobody says which is meant. Read in one scan from end to end, so that no text can be taken in two ways. */
function readForwardedClientCert(text: string): PresentedCertificate {
  const fields = new Map<string, string[]>();
  const pair = /\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^;,"]*))\s*(;|$)/y;
  for (let end = 0; end < text.length; end = pair.lastIndex) {
    pair.lastIndex = end;
    const [, name, quoted, plain] = pair.exec(text) ?? [];
    if (name === undefined) throw new Error('x-forwarded-client-cert of several hops, or not well formed');
    fields.set(name.toLowerCase(), [...(fields.get(name.toLowerCase()) ?? []), quoted?.replaceAll(/\\(.)/g, '$1') ?? plain ?? '']);
  }
  const [hash, ...hashes] = fields.get('hash') ?? [];
  const [certificate, ...certificates] = fields.get('cert') ?? [];
  if (hashes.length > 0 || certificates.length > 0 || (hash !== undefined && !/^[0-9a-f]{64}$/i.test(hash))) throw new Error('x-forwarded-client-cert that says two things');
  const described = certificate === undefined ? undefined : describe(new X509Certificate(decodeURIComponent(certificate)));
  if (described !== undefined && hash !== undefined && described.fingerprint !== hash.toLowerCase()) throw new Error('x-forwarded-client-cert whose hash is not that of its certificate');
  if (described !== undefined) return described;
  if (hash === undefined) throw new Error('x-forwarded-client-cert without a certificate');
  return { fingerprint: hash.toLowerCase(), uris: (fields.get('uri') ?? []).map((uri) => decodeURIComponent(uri)), validToMs: Number.POSITIVE_INFINITY, serial: undefined };
}

/** By SAN and fingerprint, never by subject: a subject is text that anyone may have chosen. */
function describe(certificate: X509Certificate): PresentedCertificate {
  const parsed = new ParsedCertificate(new Uint8Array(certificate.raw));
  const names = parsed.getExtension(SubjectAlternativeNameExtension)?.names.items ?? [];
  return {
    fingerprint: certificate.fingerprint256.replaceAll(':', '').toLowerCase(), uris: names.filter(({ type }) => type === 'url').map(({ value }) => value),
    validToMs: Date.parse(certificate.validTo), serial: { issuer: parsed.issuer, number: parsed.serialNumber },
  };
}
