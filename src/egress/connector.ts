import { readFileSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { request as requestOverTls } from 'node:https';
import { isIP, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { buildConnector } from 'undici';
import { isPublicAddress, lookupPublic } from './addresses.ts';
import { bypassesProxy } from './proxy-bypass.ts';

/** Upstream mutual TLS and a private CA: PEM itself, or the paths of PEM files, which are read again when they change. */
export interface TlsFiles {
  cert: string | undefined;
  key: string | undefined;
  ca: string | undefined;
}

export interface ConnectorOptions {
  connectTimeoutMs: number;
  /** Whether operators vouch for the origin, wherever it is; else only public addresses are connected to. */
  anyAddress: boolean;
  tls: TlsFiles;
  /** The company's way out, where there is no other; then the proxy resolves names, and answers for their addresses. */
  proxy: { url: string | undefined; noProxy: string | undefined };
  /** Called with the key exchange group of each TLS connection, such as `X25519MLKEM768`; undefined where Node does not say. */
  onTlsGroup?: (group: string | undefined) => void;
}

const PEM_BYTES_MAX = 1024 * 1024;

export class ConnectTimeoutError extends Error {
  override readonly name = 'ConnectTimeoutError';
}

type Connect = (target: buildConnector.Options, callback: buildConnector.Callback) => Socket;

/**
 * Opens upstream sockets under a timer of our own: undici's fires up to half a second late.
 * The limit covers name resolution, the proxy, TCP and TLS together.
 */
export function createConnector(options: ConnectorOptions): buildConnector.connector {
  const secureContext = new ReloadedConnect(options);
  return (target, callback) => {
    let socket: Socket | undefined;
    let over = false;
    const finish = (error: Error | null, connected: Socket | null): void => {
      if (over) {
        connected?.destroy();
        return;
      }
      over = true;
      clearTimeout(timer);
      if (error) {
        socket?.destroy();
        callback(error, null);
        return;
      }
      if (options.onTlsGroup && 'getEphemeralKeyInfo' in connected!) options.onTlsGroup(tlsGroup(connected as TLSSocket));
      callback(null, connected as TLSSocket);
    };
    const timer = setTimeout(() => finish(new ConnectTimeoutError(`no connection within ${options.connectTimeoutMs} ms`), null), options.connectTimeoutMs);
    let connect: Connect;
    try {
      connect = secureContext.current();
    } catch (error) {
      finish(new Error('a certificate file of the upstream cannot be read', { cause: error }), null);
      return;
    }
    const connectOver = (httpSocket?: Socket): void => {
      // undici returns the socket at once, though its types do not say so.
      const opened = connect(httpSocket === undefined ? target : { ...target, httpSocket }, (error, connected) => finish(error, connected));
      socket = opened;
      if (over) opened.destroy();
    };
    const host = target.hostname.replace(/^\[|\]$/g, '');
    if (!options.anyAddress && isIP(host) !== 0 && !isPublicAddress(host)) {
      finish(new Error(`${host} is not public, and its origin is not in EGRESS_ALLOW`), null); // a literal is never looked up
      return;
    }
    const url = new URL(`${target.protocol}//${target.host ?? target.hostname}`);
    const { url: proxyUrl, noProxy } = options.proxy;
    if (proxyUrl === undefined || target.protocol !== 'https:' || bypassesProxy(url, noProxy)) {
      connectOver();
      return;
    }
    tunnel(new URL(proxyUrl), `${target.hostname}:${target.port || '443'}`, (error, tunnelSocket) => {
      if (error) finish(error, null);
      else if (over) tunnelSocket!.destroy();
      else connectOver(tunnelSocket!);
    });
  };
}

/** An undici connector whose certificates are those that the files hold now. A renewed file that is unreadable fails connections, rather than start to use an old one silently. */
class ReloadedConnect {
  #connect: Connect | undefined;
  #version = '';

  constructor(private readonly options: ConnectorOptions) {}

  current(): Connect {
    const { tls } = this.options;
    const version = [tls.cert, tls.key, tls.ca].map((value) => (value === undefined || isPem(value) ? '' : statSync(value).mtimeMs)).join();
    if (this.#connect === undefined || version !== this.#version) {
      this.#connect = this.#build();
      this.#version = version;
    }
    return this.#connect;
  }

  #build(): Connect {
    const { tls, anyAddress } = this.options;
    const read = (value: string | undefined): string | Buffer | undefined => (value === undefined ? undefined : readPem(value));
    const material = Object.fromEntries(Object.entries({ cert: read(tls.cert), key: read(tls.key), ca: read(tls.ca) }).filter(([, value]) => value !== undefined));
    return buildConnector({ timeout: 0, allowH2: false, ...material, ...(anyAddress ? {} : { lookup: lookupPublic }) }) as unknown as Connect;
  }
}

/** Asks a proxy for a connection to `authority`. */
function tunnel(proxy: URL, authority: string, callback: (error: Error | undefined, socket: Socket | undefined) => void): void {
  const credentials = proxy.username === '' ? undefined : Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString('base64');
  const asking = (proxy.protocol === 'https:' ? requestOverTls : request)({
    host: proxy.hostname.replace(/^\[|\]$/g, ''), port: proxy.port || (proxy.protocol === 'https:' ? 443 : 80), method: 'CONNECT', path: authority, agent: false,
    headers: { host: authority, ...(credentials === undefined ? {} : { 'proxy-authorization': `Basic ${credentials}` }) },
  });
  asking.once('connect', (response, socket, head) => {
    if (response.statusCode === 200 && head.length === 0) {
      callback(undefined, socket);
      return;
    }
    socket.destroy();
    callback(new Error(`the proxy answered ${response.statusCode} to CONNECT`), undefined);
  });
  asking.once('error', (error) => callback(error, undefined));
  asking.end();
}

export function isPem(value: string): boolean {
  return value.includes('-----BEGIN');
}

/**
 * @param value PEM, or the path of a file with it
 * @throws {Error} for what is no file, or much too large for one
 */
export function readPem(value: string): string | Buffer {
  if (isPem(value)) return value;
  const stat = statSync(value);
  if (!stat.isFile() || stat.size > PEM_BYTES_MAX) throw new Error(`${value} is no PEM file`);
  return readFileSync(value);
}

function tlsGroup(socket: TLSSocket): string | undefined {
  const info = socket.getEphemeralKeyInfo();
  return info !== null && 'name' in info ? info.name : undefined;
}
