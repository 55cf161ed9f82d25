import { randomUUID } from 'node:crypto';
import { sendWhole } from './emulated-body.ts';
import type { Delivery } from './emulated-delivery.ts';
import { unknownDeferred } from './emulated-errors.ts';
import type { Ticker } from './emulated-pace.ts';

interface Deferred {
  readonly startedAtMs: number;
  /** JSON, once it is done. */
  text?: string;
}

const KEPT_MS = 24 * 60 * 60_000;

/** Answers that are fetched later, once each. */
export class DeferredStore {
  private readonly kept = new Map<string, Deferred>();
  private readonly nowMs: () => number;

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  begin(): { requestId: string; finish: (text: string) => void } {
    const requestId = randomUUID();
    const deferred: Deferred = { startedAtMs: this.nowMs() };
    this.kept.set(requestId, deferred);
    return { requestId, finish: (text) => void (deferred.text = text) };
  }

  /** @returns undefined as long as it is not done. @throws EmulatedRefusal 404 for an answer that is unknown, too old, or already read */
  take(requestId: string): unknown {
    const deferred = this.kept.get(requestId);
    if (deferred === undefined || this.nowMs() - deferred.startedAtMs >= KEPT_MS) throw unknownDeferred(requestId);
    if (deferred.text === undefined) return undefined;
    this.kept.delete(requestId);
    return JSON.parse(deferred.text);
  }

  clear(): void {
    this.kept.clear();
  }
}

/** Promises an answer, and generates it whether or not the caller stays. A script that stalls keeps it from ever being done. */
export async function deliverDeferred(delivery: Delivery, store: DeferredStore, ticker: Ticker, textOf: () => string): Promise<void> {
  const { script, answer, schedule, call, body, startedMs, close } = delivery;
  const { requestId, finish } = store.begin();
  if (!script.stall_before_headers) {
    ticker.wakeAt(startedMs + schedule.lastStepMs(), () => {
      call.reasoningTokens = answer.reasoningTokens;
      call.completionTokens = answer.completionTokens;
      finish(textOf());
      close('completed');
    });
  }
  await sendWhole(body, 200, 'application/json', JSON.stringify({ request_id: requestId }));
}
