/**
 * Whether an error of Node or PostgreSQL carries one of these codes.
 *
 * Not by `instanceof Error`: under Jest the errors of Node's own modules come from another realm and are instances of another Error.
 */
export function isErrno(error: unknown, ...codes: string[]): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && codes.includes(String(error.code));
}
