import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { buildConnector } from 'undici';

export interface ConnectorOptions {
  connectTimeoutMs: number;
  /** PEM files of upstream mutual TLS, and of a private CA. */
  clientCertFile: string | undefined;
  clientKeyFile: string | undefined;
  caFile: string | undefined;
}

export class ConnectTimeoutError extends Error {
  override readonly name = 'ConnectTimeoutError';
}

/**
 * Opens upstream sockets under a timer of our own: undici's fires up to half a second late.
 * The limit covers name resolution, TCP and TLS together.
 */
export function createConnector(options: ConnectorOptions): buildConnector.connector {
  const read = (path: string | undefined): Buffer | undefined => (path === undefined ? undefined : readFileSync(path));
  const tls = { cert: read(options.clientCertFile), key: read(options.clientKeyFile), ca: read(options.caFile) };
  const connect = buildConnector({
    timeout: 0,
    allowH2: false,
    ...Object.fromEntries(Object.entries(tls).filter(([, value]) => value !== undefined)),
  });
  return (target, callback) => {
    let socket: Socket | undefined;
    let over = false;
    const timer = setTimeout(() => {
      over = true;
      socket?.destroy();
      callback(new ConnectTimeoutError(`no connection within ${options.connectTimeoutMs} ms`), null);
    }, options.connectTimeoutMs);
    // undici returns the socket at once, though its types do not say so.
    socket = (connect as unknown as (target: buildConnector.Options, callback: buildConnector.Callback) => Socket)(target, (error, connected) => {
      if (over) {
        connected?.destroy();
        return;
      }
      over = true;
      clearTimeout(timer);
      if (error) callback(error, null);
      else callback(null, connected);
    });
  };
}
