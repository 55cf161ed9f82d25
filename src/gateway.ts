import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import type { Server } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import { isIP, type AddressInfo, type Socket } from 'node:net';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { uuid } from './shared/uuid.ts';
import { AppModule } from './app.module.ts';
import { openGatewayParts, type GatewayParts, type GatewaySettings } from './gateway-parts.ts';
import { OperationsModule } from './health/operations.module.ts';
import { serveOpenApi } from './openapi/openapi.ts';
import { systemClock, type Clock } from './shared/clock.ts';
import { errorBody, errorHeaders, GatewayError } from './shared/gateway-error.ts';
import { translate } from './shared/error.filter.ts';
import { nestLogger } from './shared/logger.ts';

const KEEP_ALIVE_MS = 67_000;
const HEADERS_TIMEOUT_MS = 30_000;
/** For the request alone, headers and body; answers take as long as they take. */
const REQUEST_TIMEOUT_MS = 300_000;
const HEADER_BYTES_MAX = 32 * 1024;
const CLOSE_IDLE_EVERY_MS = 100;

/** A gateway that serves. */
export interface Gateway {
  readonly url: string;
  readonly managementUrl: string | undefined;
  readonly parts: GatewayParts;
  readonly app: NestFastifyApplication;
  /**
   * Stops in order: readiness fails at once, new requests are served for `drainDelayMs`, streams may finish for `shutdownGraceMs`, everything is
   * recorded, then all connections close.
   */
  close(): Promise<void>;
  /** Cuts a close short that is under way: no more waiting for streams. */
  hurry(): void;
}

export async function startGateway(settings: GatewaySettings, logger: Logger, clock: Clock = systemClock): Promise<Gateway> {
  const parts = await openGatewayParts(settings, logger, clock);
  const app = await createApp(parts);
  serveOpenApi(app);
  await app.listen({ host: settings.http.host, port: settings.http.port });
  const management = settings.http.managementPort === undefined ? undefined : await startManagement(parts, settings.http.host, settings.http.managementPort);
  parts.health.started = true;
  await parts.verifier.ready();

  const server = app.getHttpServer() as Server;
  parts.tls?.watch(server as TlsServer);
  let hurried!: () => void;
  const hurry = new Promise<void>((resolve) => {
    hurried = resolve;
  });
  return {
    url: urlOf(server, settings.http.host, parts.tls === undefined ? 'http' : 'https'),
    managementUrl: management && urlOf(management.getHttpServer() as Server, settings.http.host),
    parts, app,
    hurry: () => hurried(),
    close: async () => {
      parts.health.draining = true;
      await Promise.race([delay(settings.drainDelayMs), hurry]);
      await closeServer(server, settings.shutdownGraceMs, hurry);
      await parts.close();
      await app.close();
      await management?.close();
    },
  };
}

async function createApp(parts: GatewayParts): Promise<NestFastifyApplication> {
  const { http } = parts.settings;
  const serverOptions = { headersTimeout: HEADERS_TIMEOUT_MS, maxHeaderSize: HEADER_BYTES_MAX };
  const adapter = new FastifyAdapter({
    bodyLimit: http.bodyLimitBytes, keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: REQUEST_TIMEOUT_MS, genReqId: () => uuid(),
    ...(parts.tls === undefined ? { http: serverOptions } : { https: { ...serverOptions, ...parts.tls.options() } }),
    // Who called a proxy is believed of those that are named, and of nobody else.
    trustProxy: (address: string) => isIP(address) !== 0 && parts.trustedProxies.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6'),
    routerOptions: { caseSensitive: true, ignoreTrailingSlash: false, ignoreDuplicateSlashes: false },
    frameworkErrors: (error: Error, request: FastifyRequest, reply: FastifyReply) => {
      const failure = translate(error);
      void reply.code(failure.status).headers({ ...errorHeaders(failure), 'x-request-id': request.id }).send(errorBody(failure));
    },
    clientErrorHandler: (error: NodeJS.ErrnoException, socket: Socket) => {
      // Not even a request: answered on the bare socket. A caller that has gone already gets nothing.
      if (error.code === 'ECONNRESET' || !socket.writable) return;
      const [status, failure] = error.code === 'HPE_HEADER_OVERFLOW'
        ? ['431 Request Header Fields Too Large', new GatewayError('headers_too_large', { publicMessage: `The headers are larger than the ${HEADER_BYTES_MAX} bytes that the gateway takes.` })] as const
        : ['400 Bad Request', new GatewayError('invalid_request', { publicMessage: 'The request is not well-formed HTTP.' })] as const;
      const body = JSON.stringify(errorBody(failure));
      socket.end(`HTTP/1.1 ${status}\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(body)}\r\nx-request-id: ${uuid()}\r\nconnection: close\r\n\r\n${body}`);
    },
  });
  // Bodies are read by the route that wants them, once the caller is known: nobody makes the gateway buffer what it may not send.
  const fastify = adapter.getInstance();
  fastify.removeAllContentTypeParsers();
  fastify.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  fastify.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id);
    done();
  });
  const app = await NestFactory.create<NestFastifyApplication>(AppModule.forRoot(parts), adapter, { logger: nestLogger(parts.logger), bodyParser: false, abortOnError: false });
  return app;
}

/** Probes and metrics on a port of their own. */
async function startManagement(parts: GatewayParts, host: string, port: number): Promise<NestFastifyApplication> {
  const app = await NestFactory.create<NestFastifyApplication>(OperationsModule.forRoot(parts.health, parts.registry), new FastifyAdapter(), { logger: nestLogger(parts.logger), abortOnError: false });
  await app.listen({ host, port });
  return app;
}

/** Takes no more connections, and waits for the answers under way; at the end of the grace period they are cut. */
async function closeServer(server: Server, graceMs: number, hurry: Promise<void>): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  // A keep-alive connection whose stream has just ended would otherwise hold the process for its whole timeout.
  const idle = setInterval(() => server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS);
  server.closeIdleConnections();
  await Promise.race([closed, delay(graceMs), hurry]);
  clearInterval(idle);
  server.closeAllConnections();
  await closed;
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}

function urlOf(server: Server, host: string, scheme = 'http'): string {
  const { port } = server.address() as AddressInfo;
  return `${scheme}://${host.includes(':') ? `[${host}]` : host === '0.0.0.0' ? '127.0.0.1' : host}:${port}`;
}
