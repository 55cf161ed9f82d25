import type { InputItem } from './emulated-response-items.ts';

/** A response as it is kept, with all that a following one needs. */
export interface StoredResponse {
  readonly id: string;
  readonly createdAtMs: number;
  readonly response: Record<string, unknown>;
  /** Of this response alone. */
  readonly inputItems: readonly InputItem[];
  /** The whole conversation, the answer included. */
  readonly context: readonly InputItem[];
  /** The first response of the conversation. */
  readonly rootId: string;
}

const KEPT_MS = 30 * 24 * 60 * 60_000;
const KEPT_MAX = 10_000;

/** Responses belong to the team, whichever of its keys has asked. Above a number the oldest go early. */
export class ResponseStore {
  private readonly kept = new Map<string, StoredResponse>();
  private readonly nowMs: () => number;

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  keep(stored: StoredResponse): void {
    this.kept.set(stored.id, stored);
    if (this.kept.size > KEPT_MAX) this.kept.delete(this.kept.keys().next().value!);
  }

  find(id: string): StoredResponse | undefined {
    const stored = this.kept.get(id);
    return stored !== undefined && this.nowMs() - stored.createdAtMs < KEPT_MS ? stored : undefined;
  }

  delete(id: string): boolean {
    return this.find(id) !== undefined && this.kept.delete(id);
  }

  clear(): void {
    this.kept.clear();
  }
}
