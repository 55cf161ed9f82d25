import { Counter, Gauge, type Registry } from 'prom-client';

/** How the export goes, by sink, as the replica sees it that exports. Labels are names that platform admins gave, of which there are few. */
export class SiemMetrics {
  readonly #lag: Gauge;
  readonly #delivered: Counter;
  readonly #parked: Counter;
  readonly #failures: Counter;
  readonly #leading: Gauge;

  constructor(registry: Registry) {
    const labels = { labelNames: ['sink'], registers: [registry] };
    this.#lag = new Gauge({ name: 'novix_siem_sink_lag_events', help: 'Audit events that the sink has not acknowledged yet', ...labels });
    this.#delivered = new Counter({ name: 'novix_siem_events_delivered_total', help: 'Audit events that the sink has acknowledged', ...labels });
    this.#parked = new Counter({ name: 'novix_siem_events_parked_total', help: 'Audit events that the sink will not get: rejected for good, or pruned before delivery', ...labels });
    this.#failures = new Counter({ name: 'novix_siem_delivery_failures_total', help: 'Batches that the sink did not acknowledge', ...labels });
    this.#leading = new Gauge({ name: 'novix_siem_exporter_leader', help: '1 where this replica exports the audit log', registers: [registry] });
  }

  lead(leads: boolean): void {
    this.#leading.set(leads ? 1 : 0);
    if (!leads) this.#lag.reset(); // what another replica measures now
  }

  /** Counters begin at zero, so that the first increase is one. */
  watch(sink: string): void {
    for (const counter of [this.#delivered, this.#parked, this.#failures]) counter.inc({ sink }, 0);
  }

  forget(sink: string): void {
    for (const metric of [this.#delivered, this.#parked, this.#failures, this.#lag]) metric.remove({ sink });
  }

  lag(sink: string, events: number): void {
    this.#lag.set({ sink }, events);
  }

  delivered(sink: string, events: number): void {
    this.#delivered.inc({ sink }, events);
  }

  parked(sink: string, events: number): void {
    this.#parked.inc({ sink }, events);
  }

  failed(sink: string): void {
    this.#failures.inc({ sink });
  }
}
