import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { EmulatedAnswer } from './emulated-answer.ts';
import type { EmulatorScript } from './emulated-script.ts';

/** How long the provider takes; zero everywhere: as fast as it can. */
export interface EmulatorPace {
  /** Until reasoning begins, or the first token where there is none. */
  firstTokenMs: number;
  tokenIntervalMs: number;
  /** Reasoning is silent. */
  reasoningTokenMs: number;
}

export const NO_PACE: EmulatorPace = { firstTokenMs: 0, tokenIntervalMs: 0, reasoningTokenMs: 0 };

/** When what has been generated: milliseconds since the call began. */
export class Schedule {
  readonly tokenIntervalMs: number;
  private readonly firstTokenMs: number;
  private readonly reasoningTokenMs: number;
  private readonly answer: EmulatedAnswer;

  constructor(pace: EmulatorPace, script: EmulatorScript, answer: EmulatedAnswer) {
    this.firstTokenMs = script.first_token_ms ?? pace.firstTokenMs;
    this.tokenIntervalMs = script.token_interval_ms ?? pace.tokenIntervalMs;
    this.reasoningTokenMs = pace.reasoningTokenMs;
    this.answer = answer;
  }

  /** Of the step that generates token `step`, counted from 0, of every choice. The choices reason side by side too. */
  stepMs(step: number): number {
    const reasoningSteps = this.answer.reasoningTokens / Math.max(1, this.answer.choices.length);
    return this.firstTokenMs + reasoningSteps * this.reasoningTokenMs + step * this.tokenIntervalMs;
  }

  lastStepMs(): number {
    return this.stepMs(Math.max(0, this.answer.stepCount - 1));
  }

  generatedBy(elapsedMs: number): { reasoningTokens: number; completionTokens: number } {
    const { choices, reasoningTokens } = this.answer;
    const reasoned = elapsedMs < this.firstTokenMs ? 0 : quotient(elapsedMs - this.firstTokenMs, this.reasoningTokenMs) * choices.length;
    const steps = elapsedMs < this.stepMs(0) ? 0 : quotient(elapsedMs - this.stepMs(0), this.tokenIntervalMs) + 1;
    return {
      reasoningTokens: Math.min(reasoned, reasoningTokens),
      completionTokens: choices.reduce((sum, choice) => sum + Math.min(steps, choice.completionTokens), 0),
    };
  }
}

function quotient(elapsedMs: number, eachMs: number): number {
  return eachMs === 0 ? Infinity : Math.floor(elapsedMs / eachMs);
}

const TICK_MS = 2;

/**
 * One timer for all paced streams. Whoever waits is put into the slot of the tick that follows the due time; with absolute due times a
 * stream neither drifts nor falls behind for good.
 */
export class Ticker {
  private readonly slots = new Map<number, (() => void)[]>();
  private timer: NodeJS.Timeout | undefined;
  private nextTick = 0;

  /** Calls `wake` at `dueMs` of `performance.now()`, or up to a tick later. */
  wakeAt(dueMs: number, wake: () => void): void {
    this.start();
    const tick = Math.max(this.nextTick, Math.ceil(dueMs / TICK_MS));
    const slot = this.slots.get(tick);
    if (slot === undefined) this.slots.set(tick, [wake]);
    else slot.push(wake);
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.slots.clear();
  }

  private start(): void {
    if (this.timer !== undefined) return;
    this.nextTick = Math.floor(performance.now() / TICK_MS) + 1;
    this.timer = setInterval(() => this.tick(), TICK_MS);
  }

  private tick(): void {
    const reached = Math.floor(performance.now() / TICK_MS);
    while (this.nextTick <= reached) {
      const slot = this.slots.get(this.nextTick);
      this.slots.delete(this.nextTick);
      this.nextTick += 1; // before waking: who wakes may wait again, for a later tick
      for (const wake of slot ?? []) wake();
    }
    if (this.slots.size === 0) this.stop();
  }
}

/** The caller's end of one response. Every wait ends at once when the caller goes; ask `gone` after each. */
export class Caller {
  gone: boolean;
  private readonly response: ServerResponse;
  private readonly ticker: Ticker;
  private wake: () => void = () => {};

  constructor(response: ServerResponse, ticker: Ticker) {
    this.response = response;
    this.ticker = ticker;
    this.gone = response.destroyed; // it may have closed before anyone listened
    response.once('close', () => {
      this.gone = true;
      this.wake();
    });
  }

  /** Waits for a time of `performance.now()`. */
  until(dueMs: number): Promise<void> {
    return this.waitFor((wake) => this.ticker.wakeAt(dueMs, wake));
  }

  untilDrained(): Promise<void> {
    return this.waitFor((wake) => this.response.once('drain', wake));
  }

  untilGone(): Promise<void> {
    return this.waitFor(() => {});
  }

  private waitFor(arm: (wake: () => void) => void): Promise<void> {
    if (this.gone) return Promise.resolve();
    return new Promise((resolve) => {
      this.wake = resolve;
      arm(resolve);
    });
  }
}

/** Ends the connection once everything written has left, without the proper end of the answer. */
export async function cutConnection(response: ServerResponse, lastBytes: string): Promise<void> {
  const closed = response.destroyed ? undefined : once(response, 'close');
  response.write(lastBytes, () => response.destroy());
  await closed;
}
