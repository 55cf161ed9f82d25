/** A top-level member of a JSON object, by the bytes it stands in. */
export interface JsonMember {
  key: string;
  /** From the key's quote… */
  start: number;
  /** …to after the value. */
  end: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/**
 * Finds the top-level members of a JSON object in its bytes, so that some can be replaced while all others go on as the caller wrote them.
 *
 * @param json bytes that `JSON.parse` has accepted as an object
 */
export function jsonMembers(json: Buffer): JsonMember[] {
  const members: JsonMember[] = [];
  let at = skipSpace(json, json.indexOf(OPEN_BRACE) + 1);
  while (json[at] !== CLOSE_BRACE) {
    const start = at;
    const keyEnd = stringEnd(json, at);
    const key = JSON.parse(json.toString('utf8', start, keyEnd)) as string;
    at = skipSpace(json, keyEnd);
    if (json[at] !== COLON) throw new Error('not a JSON object');
    const end = valueEnd(json, skipSpace(json, at + 1));
    members.push({ key, start, end });
    at = skipSpace(json, end);
    if (json[at] === COMMA) at = skipSpace(json, at + 1);
  }
  return members;
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

function skipSpace(json: Buffer, at: number): number {
  let next = at;
  while (json[next] === 0x20 || json[next] === 0x0a || json[next] === 0x0d || json[next] === 0x09) next += 1;
  if (next >= json.length) throw new Error('not a JSON object');
  return next;
}

/** Index after the closing quote: the first quote with an even number of backslashes before it. */
function stringEnd(json: Buffer, start: number): number {
  for (let quote = json.indexOf(QUOTE, start + 1); quote !== -1; quote = json.indexOf(QUOTE, quote + 1)) {
    let backslashes = 0;
    while (json[quote - 1 - backslashes] === BACKSLASH) backslashes += 1;
    if (backslashes % 2 === 0) return quote + 1;
  }
  throw new Error('not a JSON object');
}

function valueEnd(json: Buffer, start: number): number {
  let depth = 0;
  for (let at = start; at < json.length; at += 1) {
    const byte = json[at];
    if (byte === QUOTE) {
      at = stringEnd(json, at) - 1;
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      depth += 1;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      if (depth === 0) return trimEnd(json, at);
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (byte === COMMA && depth === 0) {
      return trimEnd(json, at);
    }
    if (depth === 0 && byte === QUOTE) return at + 1;
  }
  throw new Error('not a JSON object');
}

function trimEnd(json: Buffer, end: number): number {
  let last = end;
  while (json[last - 1] === 0x20 || json[last - 1] === 0x0a || json[last - 1] === 0x0d || json[last - 1] === 0x09) last -= 1;
  return last;
}
