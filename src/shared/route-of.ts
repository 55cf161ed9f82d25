import type { FastifyRequest } from 'fastify';

/** Method and route, such as `POST /admin/v1/retention:run`; undefined where the path is no route. The router writes a colon that is meant as such twice. */
export function routeOf(request: FastifyRequest): string | undefined {
  const { url } = request.routeOptions;
  return url === undefined ? undefined : `${request.method} ${url.replaceAll('::', ':')}`;
}
