interface HeaderSource {
  headers: { authorization?: string | undefined };
  /** Names and values as they came, of an HTTP request. */
  raw?: { rawHeaders: readonly string[] };
}

/**
 * The token of an `authorization: Bearer …` header. Null when there is none, when it has another form, and when there are two: Node would show us
 * the first, and whatever stands before us may have read the last.
 */
export function bearerToken(request: HeaderSource): string | null {
  const match = /^Bearer ([^\s,]+)$/i.exec(request.headers.authorization ?? '');
  if (!match || (request.raw && isRepeated(request.raw.rawHeaders))) return null;
  return match[1]!;
}

function isRepeated(rawHeaders: readonly string[]): boolean {
  let seen = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!;
    if (name.length === 13 && name.toLowerCase() === 'authorization') seen += 1;
  }
  return seen > 1;
}
