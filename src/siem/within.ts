/**
 * Runs work under a signal of its own, which follows another one and a deadline. Not by `AbortSignal.any`: that would leave something of each request with
 * the other signal, which lives as long as a sink is exported to.
 *
 * @param what follows "no", such as "whole answer"
 */
export async function within<T>(timeoutMs: number, what: string, outer: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const inner = new AbortController();
  const giveUp = (): void => inner.abort(outer.reason);
  const timer = setTimeout(() => inner.abort(new Error(`no ${what} within ${timeoutMs / 1000} s`)), timeoutMs);
  outer.addEventListener('abort', giveUp, { once: true });
  if (outer.aborted) giveUp();
  try {
    return await work(inner.signal);
  } catch (error) {
    throw inner.signal.aborted ? inner.signal.reason : error; // some only say that they were aborted
  } finally {
    clearTimeout(timer);
    outer.removeEventListener('abort', giveUp);
  }
}
