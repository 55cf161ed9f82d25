import { stringEnd } from './json-string.ts';

/** A top-level member of a JSON object, by the bytes it stands in. */
export interface JsonMember {
  key: string;
  /** From the key's quote… */
  start: number;
  /** …to after the value. */
  end: number;
}

/** What one pass over the bytes of a JSON object finds. */
export interface JsonScan {
  members: JsonMember[];
  /** Levels of objects and arrays, the outermost included. */
  depth: number;
  /** Path of the first key that stands twice in one object, anywhere. */
  duplicate: string | undefined;
  /**
   * Path of the first key, anywhere, in which an escape spells a plain letter, digit or `_`. V8 13.6 (Node 24.21) can misread such a key: it compares its
   * raw bytes with the key that an earlier object had in that place. Nobody needs to write one, and we would not see what the provider sees.
   */
  disguised: string | undefined;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** An object or array that the scan is in. */
interface Open {
  /** Keys seen; undefined in an array. A set, since an object may have a hundred thousand. */
  keys: Set<string> | undefined;
  lastKey: string;
  /** Of an array: the element that the scan is at. */
  index: number;
}

/**
 * Scans a JSON object without building it: finds its top-level members, so that some can be replaced while all others go on as the caller wrote
 * them; its depth; and keys that stand twice. Strings are skipped natively, so a long prompt costs next to nothing.
 *
 * @param json any bytes; what is found is only meaningful where `JSON.parse` accepts them as an object
 * @param depthMax the scan stops where it is exceeded
 */
export function scanJsonObject(json: Buffer, depthMax: number): JsonScan {
  const scan: JsonScan = { members: [], depth: 0, duplicate: undefined, disguised: undefined };
  const open: Open[] = [];
  let inKey = false;
  let member: JsonMember | undefined;
  const endMember = (at: number): void => {
    if (open.length !== 1 || !member) return;
    member.end = trimEnd(json, at);
    scan.members.push(member);
    member = undefined;
  };
  for (let at = 0; at < json.length; at += 1) {
    switch (json[at]) {
      case QUOTE: {
        const end = stringEnd(json, at);
        const container = open.at(-1);
        if (inKey && container?.keys) {
          const key = keyText(json, at, end);
          if (isDisguised(json, at, end)) scan.disguised ??= pathOf(open, key);
          if (container.keys.has(key)) scan.duplicate ??= pathOf(open, key);
          container.keys.add(key);
          container.lastKey = key;
          if (open.length === 1) member = { key, start: at, end };
        }
        at = end - 1;
        break;
      }
      case OPEN_BRACE:
      case OPEN_BRACKET:
        inKey = json[at] === OPEN_BRACE;
        open.push({ keys: inKey ? new Set() : undefined, lastKey: '', index: 0 });
        scan.depth = Math.max(scan.depth, open.length);
        if (scan.depth > depthMax) return scan;
        break;
      case CLOSE_BRACE:
      case CLOSE_BRACKET:
        endMember(at);
        open.pop();
        inKey = false;
        break;
      case COLON:
        inKey = false;
        break;
      case COMMA: {
        endMember(at);
        const container = open.at(-1);
        if (container) container.index += 1;
        inKey = container?.keys !== undefined;
        break;
      }
      default: // white space, numbers, literals
    }
  }
  return scan;
}

/**
 * The same object with some members replaced or added, and all others byte for byte as they were.
 *
 * @param replacements by key: JSON text, or undefined to leave the member out
 */
export function withMembers(json: Buffer, members: readonly JsonMember[], replacements: ReadonlyMap<string, string | undefined>): Buffer {
  let head = '{';
  for (const [key, text] of replacements) if (text !== undefined) head += `${head === '{' ? '' : ','}${JSON.stringify(key)}:${text}`;
  const parts: Buffer[] = [Buffer.from(head)];
  let empty = head === '{';
  const comma = Buffer.from(',');
  for (const { key, start, end } of members) {
    if (replacements.has(key)) continue;
    if (!empty) parts.push(comma);
    parts.push(json.subarray(start, end));
    empty = false;
  }
  parts.push(Buffer.from('}'));
  return Buffer.concat(parts);
}

const ESCAPE = /\\(?:u[0-9a-f]{4}|.)/gi;
const PLAIN_ESCAPE = /^\\u00(?:3\d|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9a])/i;

function isDisguised(json: Buffer, start: number, end: number): boolean {
  const escape = json.subarray(start, end).indexOf(BACKSLASH);
  if (escape === -1) return false;
  return (json.toString('latin1', start, end).match(ESCAPE) ?? []).some((one) => PLAIN_ESCAPE.test(one));
}

/** Keys are compared as JSON reads them: an escape is another spelling, not another key. */
function keyText(json: Buffer, start: number, end: number): string {
  const text = json.toString('utf8', start + 1, end - 1);
  if (!text.includes('\\')) return text;
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    return text; // no JSON at all, as the parser will find
  }
}

/** `messages[0].role`, from the containers that the scan is in. */
function pathOf(open: readonly Open[], key: string): string {
  let path = '';
  for (const { keys, lastKey, index } of open.slice(0, -1)) path += keys ? `${path === '' ? '' : '.'}${lastKey}` : `[${index}]`;
  return path === '' ? key : `${path}.${key}`;
}

function trimEnd(json: Buffer, end: number): number {
  let last = end;
  while (json[last - 1] === 0x20 || json[last - 1] === 0x0a || json[last - 1] === 0x0d || json[last - 1] === 0x09) last -= 1;
  return last;
}
