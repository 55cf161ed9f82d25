import type { IncomingMessage } from 'node:http';
import { GatewayError } from './gateway-error.ts';

/**
 * Reads a JSON body, after the caller has been authenticated: before that not a byte of it is taken.
 *
 * @throws {GatewayError} `unsupported_media_type`, `payload_too_large`, or `invalid_request` when the caller breaks off
 */
export async function readJsonBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const mediaType = (request.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase();
  if (mediaType !== 'application/json') throw new GatewayError('unsupported_media_type', { publicMessage: 'Send the body as "content-type: application/json".' });
  if (request.headers['content-encoding'] !== undefined && request.headers['content-encoding'] !== 'identity') {
    throw new GatewayError('unsupported_media_type', { publicMessage: 'Send the body without content-encoding.' });
  }
  if (Number(request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge(bytesMax);
  if (request.destroyed) throw brokenOff(); // gone while its token was being checked: its events have been
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes <= bytesMax) {
        parts.push(part);
        return;
      }
      request.removeAllListeners('data');
      request.pause();
      reject(tooLarge(bytesMax));
    });
    request.on('end', () => resolve(parts.length === 1 ? parts[0]! : Buffer.concat(parts, bytes)));
    request.on('error', (cause) => reject(brokenOff(cause)));
    request.on('close', () => {
      if (!request.complete) reject(brokenOff());
    });
  });
}

function brokenOff(cause?: unknown): GatewayError {
  return new GatewayError('invalid_request', { publicMessage: 'The body ended before it was complete.', cause });
}

function tooLarge(bytesMax: number): GatewayError {
  return new GatewayError('payload_too_large', { publicMessage: `The body is larger than the ${bytesMax} bytes that the gateway takes.` });
}
