import { createHash } from 'node:crypto';
import { BYTES_PER_TOKEN, countTokens } from './emulated-tokens.ts';
import { isObject } from './emulated-shape.ts';

/** One stretch of the prompt, as it is counted and cached. */
export interface PromptSegment {
  readonly role: string;
  readonly text: string;
}

export interface PromptTokens {
  /** Text and images. */
  readonly total: number;
  readonly image: number;
}

/** What each segment costs besides its text. */
const TOKENS_PER_SEGMENT = 3;
/** A picture counts the same whatever its size; the provider counts its tiles. */
const TOKENS_PER_IMAGE = 256;
const CACHE_BLOCK_TOKENS = 64;
const CONVERSATIONS_MAX = 4_096;

/** The tool definitions are counted like one more message, in front. */
export function promptSegments(messages: readonly Record<string, unknown>[], tools: unknown): PromptSegment[] {
  const segments = messages.map((message) => ({ role: String(message['role']), text: messageText(message) }));
  return Array.isArray(tools) && tools.length > 0 ? [{ role: 'tools', text: JSON.stringify(tools) }, ...segments] : segments;
}

export function countPrompt(segments: readonly PromptSegment[], messages: readonly Record<string, unknown>[]): PromptTokens {
  const textTokens = segments.reduce((sum, segment) => sum + TOKENS_PER_SEGMENT + countTokens(segment.text), 0);
  const image = messages.reduce((sum, { content }) => sum + (Array.isArray(content) ? content.filter(isImage).length : 0), 0) * TOKENS_PER_IMAGE;
  return { total: textTokens + image, image };
}

function messageText({ content, reasoning_content: reasoning, tool_calls: calls }: Record<string, unknown>): string {
  const said = Array.isArray(content) ? content.map(partText).join('') : typeof content === 'string' ? content : '';
  return said + (typeof reasoning === 'string' ? reasoning : '') + (Array.isArray(calls) ? JSON.stringify(calls) : '');
}

function partText(part: unknown): string {
  return isObject(part) && typeof part['text'] === 'string' ? part['text'] : '';
}

function isImage(part: unknown): boolean {
  return isObject(part) && (part['type'] === 'image_url' || part['type'] === 'input_image');
}

/**
 * The provider's prompt cache: a prompt that begins like the conversation's previous one has its common blocks cached. The recorded
 * counts are multiples of 64 tokens, and at least one token is always new. The longest unused conversation is forgotten first.
 */
export class PromptCache {
  private readonly blocksOf = new Map<string, readonly string[]>();

  /** Remembers the prompt; returns how many of its tokens were in the cache. */
  take(conversation: string, segments: readonly PromptSegment[]): number {
    const blocks = blockHashes(segments);
    const known = this.blocksOf.get(conversation) ?? [];
    this.blocksOf.delete(conversation); // set anew below, so that the map's order is the order of use
    this.blocksOf.set(conversation, blocks.hashes);
    if (this.blocksOf.size > CONVERSATIONS_MAX) this.blocksOf.delete(this.blocksOf.keys().next().value!);
    const differing = blocks.hashes.findIndex((hash, index) => hash !== known[index]);
    const common = differing === -1 ? blocks.hashes.length : differing;
    const commonMax = Math.floor((blocks.tokens - 1) / CACHE_BLOCK_TOKENS);
    return Math.min(common, commonMax) * CACHE_BLOCK_TOKENS;
  }

  clear(): void {
    this.blocksOf.clear();
  }
}

/** A hash per block of the prompt's text, each over everything up to its end: equal hashes mean equal beginnings. */
function blockHashes(segments: readonly PromptSegment[]): { tokens: number; hashes: string[] } {
  const bytes = Buffer.concat(segments.map(segmentBytes));
  const blockBytes = CACHE_BLOCK_TOKENS * BYTES_PER_TOKEN;
  const running = createHash('sha1');
  const hashes: string[] = [];
  for (let end = blockBytes; end <= bytes.length; end += blockBytes) {
    running.update(bytes.subarray(end - blockBytes, end));
    hashes.push(running.copy().digest('base64'));
  }
  return { tokens: bytes.length / BYTES_PER_TOKEN, hashes };
}

/** A segment laid out so that its bytes are four to a token, its own three tokens holding the role. */
function segmentBytes({ role, text }: PromptSegment): Buffer {
  const body = Buffer.from(role.padEnd(TOKENS_PER_SEGMENT * BYTES_PER_TOKEN).slice(0, TOKENS_PER_SEGMENT * BYTES_PER_TOKEN) + text);
  return Buffer.concat([body], Math.ceil(body.length / BYTES_PER_TOKEN) * BYTES_PER_TOKEN);
}
