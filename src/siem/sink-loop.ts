import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Alerts } from '../alerts/alerts.ts';
import { nextStep, PRUNED, sift, untilGap, type Plan, type Step } from './delivery-plan.ts';
import type { DeliveryStore, Position } from './delivery-store.ts';
import type { Leaf } from './export-event.ts';
import { waitMs } from './retry-after.ts';
import { createSender, type Sender, type SenderContext } from './sender.ts';
import { faultText, shownText } from './shown-text.ts';
import type { SiemMetrics } from './siem-metrics.ts';
import { sinkUrlFault } from './sink-url.ts';
import { retry, tokenName, type Outcome, type Parked, type SinkSettings, type TokenSeal } from './sink.ts';

export interface LoopContext extends SenderContext {
  store: DeliveryStore;
  seal: TokenSeal;
  alerts: Pick<Alerts, 'fire'>;
  metrics: SiemMetrics;
  random: () => number;
  logger: Logger;
}

/** Delivers the log to one sink, from where its cursor stands, until it is stopped: at its own pace, so that a slow sink holds up no other. */
export class SinkLoop {
  readonly #stopped = new AbortController();
  readonly #running: Promise<void>;
  #sender: Sender | undefined;
  #opening: Promise<Sender> | undefined;
  #token: string | undefined;
  #plan: Plan;
  #failures = 0;

  constructor(
    private readonly sink: SinkSettings,
    private readonly context: LoopContext,
  ) {
    this.#plan = { window: context.limits.batchEventsMax, poison: new Map() };
    this.#running = this.#run();
  }

  /** What was sent and is not acknowledged yet will be sent again. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      const pauseMs = await this.#turn().catch((error: unknown) => this.#interrupted(error));
      await sleep(pauseMs, undefined, { signal }).catch(() => {}); // woken by the stop
    }
    await this.#sender?.close();
  }

  /** The database cannot be read or written: whatever was acknowledged meanwhile will be sent again. */
  #interrupted(error: unknown): number {
    const { limits, logger, random } = this.context;
    this.#failures += 1;
    if (!this.#stopped.signal.aborted) logger.warn({ err: error, sink: this.sink.name }, 'siem: delivery interrupted');
    return waitMs(this.#failures, limits.backoffBaseMs, 0, random());
  }

  /** @returns how long to wait until the next */
  async #turn(): Promise<number> {
    const { store, limits } = this.context;
    const position = await store.position(this.sink.id);
    if (position === undefined || position.cursor >= position.head) return limits.idlePauseMs; // gone: whoever looks after the sinks ends this loop
    const batches = await this.#read(position);
    const firstIndex = batches[0]?.[0]!.index ?? position.head;
    if (firstIndex > position.cursor) return this.#skipPruned(position.cursor, firstIndex);
    const sifted = batches.map((batch) => sift(batch, this.#plan.poison));
    const outcomes = await Promise.all(sifted.map(async ({ events }) => (events.length === 0 ? undefined : this.#send(events))));
    let { cursor } = position;
    for (const [place, batch] of batches.entries()) {
      const outcome = outcomes[place];
      if (this.#stopped.signal.aborted && outcome !== undefined && outcome.kind !== 'acknowledged') return 0;
      const step = nextStep(this.#plan, batch, sifted[place]!, outcome, limits.batchEventsMax);
      this.#plan = step.plan;
      // Those behind it are sent again, also where they were taken: the cursor knows no islands.
      if (step.kind !== 'move') return this.#failed(step);
      if (!(await this.#move(cursor, step))) return 0;
      cursor = step.to;
    }
    return 0;
  }

  /** One batch; of a receiver that takes its time to acknowledge, several, unless an event at fault is being looked for. */
  async #read({ cursor, head }: Position): Promise<Leaf[][]> {
    const { store, limits } = this.context;
    const { window, poison } = this.#plan;
    const batchesMax = this.sink.type === 'hec' && window === limits.batchEventsMax && poison.size === 0 ? limits.hecBatchesInFlight : 1;
    const batches: Leaf[][] = [];
    for (let next = cursor; batches.length < batchesMax && next < head;) {
      const batch = untilGap(await store.leaves({ cursor: next, head }, window, limits.batchBytesMax));
      if (batch.length === 0 || (batches.length > 0 && batch[0]!.index !== next)) break;
      batches.push(batch);
      next = batch.at(-1)!.index + 1n;
    }
    return batches;
  }

  async #send(events: Parameters<Sender['send']>[0]): Promise<Outcome> {
    try {
      this.#sender ??= await this.#open();
      return await this.#sender.send(events, this.#stopped.signal);
    } catch (error) {
      return retry(faultText(error));
    }
  }

  /** Once for all batches that wait for it; anew where it failed, since whoever keeps the token may answer again. */
  #open(): Promise<Sender> {
    this.#opening ??= this.#openedSender().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #openedSender(): Promise<Sender> {
    const { sealedToken, id, type, url } = this.sink;
    const fault = sinkUrlFault(type, url, this.context.egress); // settings may have changed since it was stored
    if (fault !== undefined) throw new Error(`url ${fault}`);
    this.#token = sealedToken === undefined ? undefined : await this.context.seal.open(tokenName(id), sealedToken);
    return createSender(this.sink, this.#token, this.context);
  }

  async #skipPruned(cursor: bigint, to: bigint): Promise<number> {
    await this.#move(cursor, { to, delivered: 0, parked: [{ firstIndex: cursor, lastIndex: to - 1n, events: to - cursor, reason: PRUNED }] });
    return 0;
  }

  async #move(cursor: bigint, { to, delivered, parked }: Pick<Extract<Step, { kind: 'move' }>, 'to' | 'delivered' | 'parked'>): Promise<boolean> {
    const { store, metrics, logger } = this.context;
    const shown = parked.map((one) => ({ ...one, reason: shownText(one.reason, this.#token) }));
    if (!(await store.move(this.sink.id, cursor, to, delivered, shown))) {
      logger.info({ sink: this.sink.name }, 'siem: another exporter has moved the cursor, or the sink is gone');
      return false;
    }
    this.#failures = 0;
    if (delivered > 0) metrics.delivered(this.sink.name, delivered);
    for (const one of shown) this.#reportParked(one);
    return true;
  }

  #reportParked({ firstIndex, lastIndex, events, reason }: Parked): void {
    const { name, id } = this.sink;
    const { metrics, alerts, clock, logger } = this.context;
    metrics.parked(name, Number(events));
    logger.warn({ sink: name, firstIndex: String(firstIndex), lastIndex: String(lastIndex), events: String(events), reason }, 'siem: events parked');
    const hour = new Date(clock.nowMs()).toISOString().slice(0, 13);
    alerts.fire({ type: 'siem_parked', tenantId: undefined, subject: name, occasion: `siem parked ${id} ${hour}`, value: `${events} of the events ${firstIndex} to ${lastIndex}: ${reason}` });
  }

  async #failed(step: Exclude<Step, { kind: 'move' }>): Promise<number> {
    const { store, metrics, limits, logger, random } = this.context;
    const reason = shownText(step.reason, this.#token);
    metrics.failed(this.sink.name);
    await store.noteError(this.sink.id, reason);
    if (step.kind === 'again') return 0; // each time with fewer events, until one is parked
    this.#failures += 1;
    const pauseMs = waitMs(this.#failures, limits.backoffBaseMs, Math.max(step.afterMs, step.slow ? limits.slowRetryMs : 0), random());
    logger.warn({ sink: this.sink.name, reason, failures: this.#failures, waitMs: Math.round(pauseMs) }, 'siem: a batch was not acknowledged; it will be sent again');
    return pauseMs;
  }
}
