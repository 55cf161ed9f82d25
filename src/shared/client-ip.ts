import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';

/** The caller's address: as a trusted proxy tells it, where that is an address at all; else the connection's own. */
export function clientIp(request: FastifyRequest): string {
  return isIP(request.ip) === 0 ? (request.raw.socket.remoteAddress ?? '') : request.ip;
}
