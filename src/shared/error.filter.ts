import { Catch, HttpException, Inject, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { clientIp } from './client-ip.ts';
import type { Logger } from 'pino';
import { uuid } from './uuid.ts';
import { actorOf } from '../audit/audit-event.ts';
import { Refusals } from '../audit/refusals.ts';
import { CLOCK, type Clock } from './clock.ts';
import { asGatewayError, errorBody, errorHeaders, GatewayError } from './gateway-error.ts';
import { LOGGER } from './logger.ts';
import { routeOf } from './route-of.ts';

/** The one place where an error becomes an answer, and a refusal becomes a record. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(
    @Inject(Refusals) private readonly refusals: Refusals,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  catch(exception: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const request = http.getRequest<FastifyRequest>();
    const reply = http.getResponse<FastifyReply>();
    const error = translate(exception);
    this.#log(error, request);
    if (!error.recorded) this.#record(error, request);
    if (reply.raw.headersSent || reply.raw.destroyed) {
      reply.raw.destroy();
      return;
    }
    // What is left of a body that nobody will read must not be taken for the next request.
    if (!request.raw.complete) reply.header('connection', 'close');
    reply.code(error.status).headers(errorHeaders(error)).send(errorBody(error));
  }

  #log(error: GatewayError, request: FastifyRequest): void {
    const facts = { requestId: request.id, code: error.code, status: error.status, tenant: request.principal?.tenantId, ...error.internal };
    if (error.code === 'internal_error') this.logger.error({ ...facts, err: error.cause ?? error }, 'request failed');
    else this.logger.debug(facts, 'request refused');
  }

  #record(error: GatewayError, request: FastifyRequest): void {
    this.refusals.record({
      id: uuid(), phase: 'refusal', timeMs: this.clock.nowMs(), requestId: request.id, actor: actorOf(request.principal),
      // A path that is no route may hold anything; it is not repeated.
      operation: routeOf(request) ?? `${request.method} (no route)`,
      ip: clientIp(request), httpStatus: error.status, errorCode: error.code, activity: 'create', ...(error.code === 'invalid_token' ? { authentication: 'unknown' } : {}),
      details: { decision: error.decision, param: error.param ?? undefined },
    });
  }
}

/** Nest and Fastify report what they refuse in shapes of their own. */
export function translate(exception: unknown): GatewayError {
  if (exception instanceof GatewayError) return exception;
  const status = exception instanceof HttpException ? exception.getStatus() : (exception as { statusCode?: unknown } | null)?.statusCode;
  switch (status) {
    case 404:
    case 405:
    case 414: // a name too long to be one
      return new GatewayError('not_found', { publicMessage: 'There is nothing at this path. GET /openapi.json lists what there is.' });
    case 413:
      return new GatewayError('payload_too_large', { publicMessage: 'The body is larger than the gateway takes.', cause: exception });
    case 400:
      return new GatewayError('invalid_request', { publicMessage: 'The request is not well formed.', cause: exception });
    case 415:
      return new GatewayError('unsupported_media_type', { publicMessage: 'Send the body as "content-type: application/json".', cause: exception });
    default:
      return asGatewayError(exception);
  }
}
