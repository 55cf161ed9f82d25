import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Alerts } from '../alerts/alerts.ts';
import type { Env } from '../env.ts';
import type { Clock } from '../shared/clock.ts';
import { Leader } from '../shared/leader.ts';
import { DeliveryStore } from './delivery-store.ts';
import { EXPORT_LIMITS, type ExportLimits } from './export-limits.ts';
import { LagWatch } from './lag-watch.ts';
import { SiemMetrics } from './siem-metrics.ts';
import { SinkLoop, type LoopContext } from './sink-loop.ts';
import type { SinkSettings, TokenSeal } from './sink.ts';

/** Any number that only we use: who holds it in PostgreSQL exports. */
const EXPORTER_LOCK = 7_204_115_005;

export interface ExporterParts {
  settings: Pick<Env, 'egress' | 'siemDir'> & { databaseUrl: string };
  pool: Pool;
  seal: TokenSeal;
  alerts: Pick<Alerts, 'fire' | 'resolve'>;
  clock: Clock;
  random: () => number;
  logger: Logger;
  registry: Registry;
}

interface RunningSink {
  /** Its settings, to see a change by. */
  signature: string;
  loop: SinkLoop;
}

/**
 * Exports the audit log to wherever platform admins want it, each event at least once and in order. Of all replicas one does; each sink has a loop of its
 * own. That only one exports saves duplicates; that nothing is lost does not depend on it, since a cursor moves only from where it stands.
 */
export class SiemExporter {
  readonly #leader: Leader;
  readonly #context: LoopContext;
  readonly #lag: LagWatch;
  readonly #running = new Map<string, RunningSink>();
  #names: readonly string[] = [];

  constructor({ settings, pool, seal, alerts, clock, random, logger, registry }: ExporterParts, limits: Partial<ExportLimits> = {}) {
    const bounds = { ...EXPORT_LIMITS, ...limits };
    const store = new DeliveryStore(pool, bounds.parkedRowsMax);
    const metrics = new SiemMetrics(registry);
    this.#context = { egress: settings.egress, siemDir: settings.siemDir, clock, limits: bounds, store, seal, alerts, metrics, random, logger };
    this.#lag = new LagWatch(store, alerts, metrics, clock, bounds);
    this.#leader = new Leader({ databaseUrl: settings.databaseUrl, lock: EXPORTER_LOCK, name: 'novix-siem-exporter', electionPauseMs: bounds.electionPauseMs }, logger, (signal) => this.#lead(signal));
  }

  start(): void {
    this.#leader.start();
  }

  /** What was sent and not acknowledged yet is left to the next, which sends it again. */
  async close(): Promise<void> {
    await this.#leader.stop();
  }

  async #lead(signal: AbortSignal): Promise<void> {
    const { metrics, logger, limits } = this.#context;
    metrics.lead(true);
    try {
      while (!signal.aborted) {
        await this.#look().catch((error: unknown) => logger.warn({ err: error }, 'siem: which sinks there are could not be read'));
        await sleep(limits.reconcilePauseMs, undefined, { signal }).catch(() => {}); // the term is over
      }
    } finally {
      await Promise.all([...this.#running.keys()].map((id) => this.#stop(id)));
      this.#lag.forget();
      metrics.lead(false);
    }
  }

  async #look(): Promise<void> {
    const sinks = await this.#context.store.sinks();
    const wanted = new Map(sinks.filter(({ enabled }) => enabled).map((sink) => [sink.id, sink]));
    // Not one after the other: one that is slow to stop must not hold up a change of another.
    await Promise.all([...this.#running].filter(([id, { signature }]) => signatureOf(wanted.get(id)) !== signature).map(([id]) => this.#stop(id)));
    for (const sink of wanted.values()) if (!this.#running.has(sink.id)) this.#begin(sink);
    const names = sinks.map(({ name }) => name);
    for (const name of this.#names) if (!names.includes(name)) this.#context.metrics.forget(name);
    this.#names = names;
    await this.#lag.look();
  }

  #begin(sink: SinkSettings): void {
    this.#context.metrics.watch(sink.name);
    this.#running.set(sink.id, { signature: signatureOf(sink), loop: new SinkLoop(sink, this.#context) });
  }

  async #stop(id: string): Promise<void> {
    await this.#running.get(id)!.loop.stop();
    this.#running.delete(id);
  }
}

function signatureOf(sink: SinkSettings | undefined): string {
  return sink === undefined ? '' : JSON.stringify(sink);
}
