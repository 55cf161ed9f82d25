import type { Alerts } from '../alerts/alerts.ts';
import type { Clock } from '../shared/clock.ts';
import type { DeliveryStore, Lag } from './delivery-store.ts';
import { toExportEvent } from './export-event.ts';
import type { ExportLimits } from './export-limits.ts';
import type { SiemMetrics } from './siem-metrics.ts';

/** Caught up is a sink at a tenth of what is too much: at the very border an alert would come and go. */
const CAUGHT_UP_SHARE = 0.1;

/**
 * Whether operators have to know how far behind a sink is. Pure.
 *
 * @returns undefined between the two, where it stays as it is
 */
export function lagsBehind(lagEvents: number, ageMs: number, { lagEventsMax, lagAgeMsMax }: Pick<ExportLimits, 'lagEventsMax' | 'lagAgeMsMax'>): boolean | undefined {
  if (lagEvents > lagEventsMax || ageMs > lagAgeMsMax) return true;
  return lagEvents <= lagEventsMax * CAUGHT_UP_SHARE && ageMs <= lagAgeMsMax * CAUGHT_UP_SHARE ? false : undefined;
}

/** Measures how far behind the sinks are, and tells operators. */
export class LagWatch {
  /** By name: an alert's subject. A sink that is not here has not been judged by this replica yet; an alert of another may be firing. */
  #told = new Map<string, boolean>();

  constructor(
    private readonly store: DeliveryStore,
    private readonly alerts: Pick<Alerts, 'fire' | 'resolve'>,
    private readonly metrics: SiemMetrics,
    private readonly clock: Clock,
    private readonly limits: ExportLimits,
  ) {}

  /** What others judge meanwhile. */
  forget(): void {
    this.#told.clear();
  }

  async look(): Promise<void> {
    const lags = await this.store.lags();
    const names = new Set(lags.map(({ name }) => name));
    for (const lag of lags) this.#judge(lag);
    for (const name of [...this.#told.keys()].filter((one) => !names.has(one))) {
      this.#told.delete(name);
      this.alerts.resolve('siem_lag', name);
    }
  }

  #judge({ name, enabled, cursor, head, oldest }: Lag): void {
    const lagEvents = head > cursor ? Number(head - cursor) : 0;
    this.metrics.lag(name, lagEvents);
    const timeMs = oldest === undefined ? undefined : toExportEvent(oldest)?.timeMs;
    const ageMs = timeMs === undefined ? 0 : Math.max(0, this.clock.nowMs() - timeMs);
    const behind = enabled ? lagsBehind(lagEvents, ageMs, this.limits) : false; // one that is switched off is behind on purpose
    if (behind === undefined || behind === this.#told.get(name)) return;
    this.#told.set(name, behind);
    if (behind) this.alerts.fire({ type: 'siem_lag', tenantId: undefined, subject: name, occasion: `siem lag ${name}`, value: `${lagEvents} events not delivered, the oldest ${Math.round(ageMs / 1000)} s old` });
    else this.alerts.resolve('siem_lag', name);
  }
}
