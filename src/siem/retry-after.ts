/** Longest pause between two attempts, whoever asks for it. */
export const RETRY_MS_MAX = 300_000;

/**
 * What a `Retry-After` header asks for. Pure.
 *
 * @param header seconds, or a date of HTTP
 * @returns milliseconds from 0 to five minutes; 0 for what is neither
 * @see https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
 */
export function retryAfterMs(header: string | string[] | undefined, nowMs: number): number {
  const value = (Array.isArray(header) ? header[0] : header)?.trim() ?? '';
  const askedMs = /^\d+$/.test(value) ? Number(value) * 1000 : /^[A-Za-z]{3,9},? .*GMT$|^[A-Za-z]{3} [A-Za-z]{3} .*\d{4}$/.test(value) ? dateMs(value) - nowMs : 0;
  return Number.isNaN(askedMs) ? 0 : Math.min(RETRY_MS_MAX, Math.max(0, askedMs));
}

/** The form of `asctime` does not name its zone, which is UTC. */
function dateMs(value: string): number {
  return Date.parse(value.endsWith('GMT') ? value : `${value} GMT`);
}

/**
 * How long to wait before the next attempt: exponential with full jitter, at least what the receiver asked for, at most five minutes. Pure.
 *
 * @param failures in a row, 1 or more
 * @param random from 0 up to 1
 */
export function waitMs(failures: number, baseMs: number, afterMs: number, random: number): number {
  const ceilingMs = Math.min(RETRY_MS_MAX, baseMs * 2 ** Math.min(failures - 1, 30));
  return Math.min(RETRY_MS_MAX, Math.max(afterMs, ceilingMs * random));
}
