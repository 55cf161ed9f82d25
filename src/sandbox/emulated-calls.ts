/** What the provider knows of one call that may be billed, refused ones included. */
export interface EmulatedCall {
  /** Of the completion or response, as in the answer's `id`. */
  id: string;
  /** Of the answer's header `x-request-id`. */
  requestId: string;
  /** As asked for: /v1/chat/completions */
  path: string;
  /** The model that serves the call; the name asked for, where the call was refused. */
  model: string;
  stream: boolean;
  /** As parsed; the text, where it is no JSON. */
  body: unknown;
  headers: Record<string, string>;
  startedAtMs: number;
  state: 'running' | 'completed' | 'aborted' | 'failed';
  promptTokens: number;
  /** Generated so far, sent or not; without reasoning. */
  completionTokens: number;
  reasoningTokens: number;
  billedUsdTicks: bigint;
  /** `data:` frames written whole, [DONE] included. */
  framesSent: number;
  endedAtMs?: number;
}

export type EndState = Exclude<EmulatedCall['state'], 'running'>;

export interface CallTotals {
  calls: number;
  completed: number;
  aborted: number;
  failed: number;
  running: number;
  billedUsdTicks: bigint;
}

/** The provider's books: exact totals of all calls, and the latest calls themselves. A call has ended when it is in the totals. */
export class CallLedger {
  private readonly ring: EmulatedCall[] = [];
  private readonly callsMax: number;
  private readonly sums: CallTotals = { calls: 0, completed: 0, aborted: 0, failed: 0, running: 0, billedUsdTicks: 0n };

  constructor(callsMax: number) {
    this.callsMax = callsMax;
  }

  open(call: EmulatedCall): void {
    this.ring[this.sums.calls % this.callsMax] = call;
    this.sums.calls += 1;
    this.sums.running += 1;
  }

  close(call: EmulatedCall, state: EndState, billedUsdTicks: bigint, nowMs: number): void {
    if (call.state !== 'running') return; // a caller who goes after the last byte changes nothing
    call.state = state;
    call.billedUsdTicks = billedUsdTicks;
    call.endedAtMs = nowMs;
    this.sums.running -= 1;
    this.sums[state] += 1;
    this.sums.billedUsdTicks += billedUsdTicks;
  }

  totals(): Readonly<CallTotals> {
    return this.sums;
  }

  /** Oldest first, from call number `since` (counted from the last reset, beginning with 0), as far as they are still kept. */
  list(since = 0): EmulatedCall[] {
    const oldest = Math.max(since, this.sums.calls - this.ring.length);
    return Array.from({ length: Math.max(0, this.sums.calls - oldest) }, (_, index) => this.ring[(oldest + index) % this.callsMax]!);
  }
}
