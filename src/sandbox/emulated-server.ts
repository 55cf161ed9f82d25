import { createServer as createPlainServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';

/** The mutual-TLS host. */
export interface EmulatorTls {
  /** Of the server; PEM. */
  cert: string;
  key: string;
  /** What client certificates must chain to; PEM. */
  clientCa: string;
  /** The common name that they must have; any, unless given. */
  clientCn?: string;
  /** What becomes of a caller who shows none: both are possible, since the documentation does not say. */
  withoutCertificate: 'handshake' | '403';
}

export interface RunningServer {
  /** https://127.0.0.1:PORT */
  readonly origin: string;
  close(): Promise<void>;
}

/** Longer than any client keeps an idle connection, so that none is closed under a request. */
const KEEP_ALIVE_MS = 10 * 60_000;
const CONNECTIONS_WAITING_MAX = 4_096;

export async function startServer(host: string, port: number, tls: EmulatorTls | undefined, serve: (request: IncomingMessage, response: ServerResponse) => void): Promise<RunningServer> {
  const server = tls === undefined ? createPlainServer({ keepAliveTimeout: KEEP_ALIVE_MS }, serve) : createMutualTlsServer(tls, serve);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port, backlog: CONNECTIONS_WAITING_MAX }, resolve);
  });
  const { port: boundPort } = server.address() as AddressInfo;
  return {
    origin: `${tls === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${boundPort}`,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** A certificate that does not fit gets through the handshake, so that the gate can answer it with 403. */
function createMutualTlsServer({ cert, key, clientCa, withoutCertificate }: EmulatorTls, serve: (request: IncomingMessage, response: ServerResponse) => void): Server {
  const server = createTlsServer({ cert, key, ca: clientCa, requestCert: true, rejectUnauthorized: false, keepAliveTimeout: KEEP_ALIVE_MS }, serve);
  if (withoutCertificate === 'handshake') {
    server.on('secureConnection', (socket) => {
      if (socket.getPeerX509Certificate() === undefined) socket.destroy();
    });
  }
  return server;
}
