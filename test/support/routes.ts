export interface Route {
  method: string;
  path: string;
}

/** Fastify prints a route that ends in a wildcard without what stands before it. */
export const WILDCARDS = ['/audit/v1/tile/*'];

interface Router {
  printRoutes(options: object): string;
  findRoute(route: { method: string; url: string }): { params: Record<string, unknown> } | null;
}

/** Every route of a running gateway; a path is written as callers write it. */
export function routesOf(app: { getHttpAdapter(): { getInstance(): unknown } }): Route[] {
  const router = app.getHttpAdapter().getInstance() as Router;
  return parseRoutes(router.printRoutes({ commonPrefix: false })).flatMap(({ method, path }) => {
    if (path === '*') return WILDCARDS.map((wildcard) => ({ method, path: wildcard }));
    // Where routes of several methods name a parameter differently, `:id|:order` is printed for all of them.
    const alternatives = /:\w+(?:\|:\w+)+/.exec(path)?.[0];
    const written = alternatives === undefined ? [path] : alternatives.split('|').map((name) => path.replace(alternatives, name)).filter((url) => Object.keys(router.findRoute({ method, url })?.params ?? {}).some((name) => url.endsWith(`:${name}`)));
    return written.map((one) => ({ method, path: one.replaceAll('::', ':') }));
  });
}

/** Fastify prints its routes as a tree: what a line adds to the path of the lines above it, and its methods. */
export function parseRoutes(tree: string): Route[] {
  const above: string[] = [];
  return tree.split('\n').flatMap((line) => {
    const match = /^([\s│]*)[├└]── (\S*)(?: \(([A-Z, ]+)\))?/.exec(line);
    if (!match) return [];
    const depth = match[1]!.length / 4;
    above.length = depth;
    const path = above.join('') + match[2]!;
    above.push(match[2]!);
    return (match[3] ?? '').split(', ').filter((method) => method !== '').map((method) => ({ method, path }));
  });
}
