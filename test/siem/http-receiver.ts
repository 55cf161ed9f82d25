import { createServer as createPlainServer, type IncomingHttpHeaders } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { IssuedCertificate } from '../support/pki.ts';

export interface Received {
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
  atMs: number;
}

export interface Reply {
  status?: number;
  headers?: Record<string, string>;
  body?: unknown;
}

/** A real server that answers as a test says. */
export interface HttpReceiver {
  origin: string;
  received: Received[];
  /** How each request is answered, from now on. */
  answer(how: (request: Received) => Reply | Promise<Reply>): void;
  close(): Promise<void>;
}

/** @param certificate for https; plain http without */
export async function startHttpReceiver(certificate?: IssuedCertificate): Promise<HttpReceiver> {
  let how: (request: Received) => Reply | Promise<Reply> = () => ({});
  const received: Received[] = [];
  const server = certificate === undefined ? createPlainServer() : createServer({ cert: certificate.cert, key: certificate.key });
  server.on('request', (request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const one: Received = { path: request.url!, headers: request.headers, body: Buffer.concat(parts).toString(), atMs: performance.now() };
      received.push(one);
      void (async () => {
        const { status = 200, headers = {}, body = {} } = await how(one);
        response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(typeof body === 'string' ? body : JSON.stringify(body));
      })();
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    origin: `${certificate === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    received,
    answer: (next) => {
      how = next;
    },
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}
