import { createHash, createHmac } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** Of what the user says first, so much tells conversations apart: two that share a document and then ask differently still share its cached prefix. */
const FIRST_MESSAGE_CHARS = 2_048;
/** A prompt shorter than a block of the provider's prefix cache gains nothing from going where its prefix is. */
const PROMPT_BYTES_MIN = 2_048;

/** How a conversation begins, as far as it names it. */
export interface Opening {
  /** The caller's own name for it (`prompt_cache_key`), of whatever type. */
  key: unknown;
  /** Instructions, then what the user said first. Asked for only where nothing else names the conversation. */
  parts: () => { instructions: readonly unknown[]; first: unknown };
}

/**
 * Names the conversation that a call continues, so that it goes where its prefix is cached: by the caller's own id where it gave one, else by how
 * the conversation begins. The name is a keyed hash over the tenant too, so that no two tenants ever share a cache, and it tells the provider nothing.
 *
 * @param secret known to every replica; undefined where it is not known yet
 * @param promptBytes size of the request
 * @returns in the shape of a UUID; undefined for a short prompt without an id
 */
export function conversationId(secret: Buffer | undefined, tenantId: string, headers: IncomingHttpHeaders, opening: Opening | undefined, promptBytes: number): string | undefined {
  if (opening === undefined || secret === undefined) return undefined;
  const given = headers['x-grok-conv-id'] ?? opening.key;
  if (typeof given === 'string' && given !== '') return hashed(secret, [tenantId, 'id', given]);
  if (promptBytes < PROMPT_BYTES_MIN) return undefined;
  const { instructions, first } = opening.parts();
  return hashed(secret, [tenantId, 'opening', ...instructions.map(textOf), textOf(first).slice(0, FIRST_MESSAGE_CHARS)]);
}

/**
 * The same on every replica, and known to nobody else: from the provider's key.
 *
 * @param apiKey undefined as long as the key is not open
 * @returns undefined until then: conversations have no name yet, and are kept together by nothing
 */
export function conversationSecret(apiKey: () => string | undefined): () => Buffer | undefined {
  let secret: Buffer | undefined;
  return () => {
    if (secret !== undefined) return secret;
    const key = apiKey();
    if (key !== undefined) secret = createHash('sha256').update('novix conversation ids\0').update(key).digest();
    return secret;
  };
}

function textOf(content: unknown): string {
  return typeof content === 'string' ? content : JSON.stringify(content ?? null).slice(0, 16 * FIRST_MESSAGE_CHARS);
}

/** Lengths stand before the parts, so that no two lists of parts read alike. */
function hashed(secret: Buffer, parts: readonly string[]): string {
  const hmac = createHmac('sha256', secret);
  for (const part of parts) hmac.update(`${part.length}:`).update(part);
  const hex = hmac.digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
