const CHARS_MAX = 500;

/**
 * What a receiver or the system said, fit for a table, a log and people: one line, not long, and without the sink's token.
 *
 * @param token as it may stand in the text; undefined where there is none
 */
export function shownText(text: string, token: string | undefined): string {
  const safe = token === undefined ? text : text.replaceAll(token, '…');
  const line = safe.replaceAll(/[\p{Cc}\p{Cs}\u2028\u2029]+/gu, ' ').trim();
  return line.length > CHARS_MAX ? `${line.slice(0, CHARS_MAX - 1)}…` : line;
}

/** What went wrong, in words. Where several addresses of a name were tried in vain, the error has only a code. */
export function faultText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message === '' ? (error as NodeJS.ErrnoException).code ?? error.name : error.message;
}
