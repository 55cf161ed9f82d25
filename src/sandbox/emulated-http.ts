import type { IncomingMessage, ServerResponse } from 'node:http';
import { bodyTooLarge, type EmulatedRefusal, type ErrorDialect } from './emulated-errors.ts';

const BODY_BYTES_MAX = 64 * 1024 * 1024;

/** The whole body of a request. Rejects with the refusal 413 when it is too large, and when the caller goes before its end. */
export function readBody(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes <= BODY_BYTES_MAX) parts.push(part); // what is too much is read all the same, so that the caller can read the refusal
    });
    request.once('end', () => (bytes > BODY_BYTES_MAX ? reject(bodyTooLarge()) : resolve(parts.length === 1 ? parts[0]! : Buffer.concat(parts))));
    request.once('error', reject);
  });
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? inner.toString() : inner));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

export function sendRefusal(response: ServerResponse, refusal: EmulatedRefusal, dialect: ErrorDialect): void {
  sendJson(response, refusal.status, refusal.body(dialect));
}
