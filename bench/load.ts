import { Agent } from 'undici';
import type { Arm } from './rig.ts';

const agent = new Agent({ connections: null, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 });

export interface CallResult {
  /** Milliseconds to the end of the answer. */
  totalMs: number;
  ok: boolean;
}

/** One call, read to its end. A stream counts as good only with `[DONE]`. */
export function call(arm: Arm, body: string, stream: boolean, onData?: () => void): Promise<CallResult> {
  const url = new URL(arm.url);
  const startedMs = performance.now();
  return new Promise((resolve) => {
    let status = 0;
    let tail = '';
    agent.dispatch(
      { origin: url.origin, path: `${url.pathname}/chat/completions`, method: 'POST', body, headers: { 'content-type': 'application/json', authorization: arm.authorization } },
      {
        onRequestStart() {}, // undici takes a handler without it for one of its older kind
        onResponseStart(_controller, statusCode) {
          status = statusCode;
        },
        onResponseData(_controller, chunk) {
          if (stream) tail = chunk.subarray(-16).toString();
          onData?.();
        },
        onResponseEnd() {
          resolve({ totalMs: performance.now() - startedMs, ok: status === 200 && (!stream || tail.includes('[DONE]')) });
        },
        onResponseError() {
          resolve({ totalMs: performance.now() - startedMs, ok: false });
        },
      },
    );
  });
}

/** As many calls as `concurrency` callers make, one after another, in the time. */
export async function closedLoop(arm: Arm, body: string, stream: boolean, concurrency: number, durationMs: number): Promise<{ calls: number; failed: number }> {
  const endMs = performance.now() + durationMs;
  let calls = 0;
  let failed = 0;
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (performance.now() < endMs) {
      const { ok } = await call(arm, body, stream);
      calls += 1;
      if (!ok) failed += 1;
    }
  }));
  return { calls, failed };
}

/** Calls at a steady rate, whatever becomes of those before: latencies in milliseconds. */
export async function openLoop(arm: Arm, body: string, stream: boolean, perSecond: number, durationMs: number): Promise<{ latenciesMs: number[]; failed: number }> {
  const total = Math.round((perSecond * durationMs) / 1000);
  const startedMs = performance.now();
  const pending: Promise<CallResult>[] = [];
  for (let index = 0; index < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - startedMs) * perSecond) / 1000) + 1);
    for (; index < due; index += 1) pending.push(call(arm, body, stream));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const results = await Promise.all(pending);
  return { latenciesMs: results.map(({ totalMs }) => totalMs), failed: results.filter(({ ok }) => !ok).length };
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

export async function closeLoad(): Promise<void> {
  await agent.destroy();
}
