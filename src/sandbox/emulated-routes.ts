import type { IncomingMessage, ServerResponse } from 'node:http';
import { unknownPath, wrongMethod } from './emulated-errors.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse, path: string, query: URLSearchParams) => void | Promise<void>;

/** By path, where a star stands for one part of it, and by method. */
export type Routes = Readonly<Record<string, Readonly<Record<string, Handler>>>>;

/** @throws EmulatedRefusal 404, 405 */
export function findHandler(routes: Routes, path: string, method = ''): Handler {
  const route = routes[path] ?? routes[path.replace(/[^/]+$/, '*')] ?? routes[path.replace(/[^/]+(?=\/[^/]+$)/, '*')];
  if (route === undefined) throw unknownPath(path);
  const handler = route[method];
  if (handler === undefined) throw wrongMethod(method);
  return handler;
}

/** The part that a star has stood for, which is always the third, or the fourth under a path of two. */
export function namedIn(path: string): string {
  const parts = path.split('/');
  return (parts[2] === 'chat' ? parts[4] : parts[3])!;
}
