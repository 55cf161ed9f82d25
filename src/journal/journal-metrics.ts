import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** The journal's gauges and counters, each named after what it counts. */
export class JournalMetrics {
  readonly batchSize: Histogram;
  readonly flushSeconds: Histogram;
  readonly poisoned: Counter;
  readonly inDoubt: Counter;
  readonly spooled: Counter;

  constructor(private readonly registry: Registry) {
    const registers = [registry];
    this.batchSize = new Histogram({ name: 'novix_journal_batch_operations', help: 'Operations per commit', buckets: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], registers });
    this.flushSeconds = new Histogram({ name: 'novix_journal_commit_seconds', help: 'Time of one commit', buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5], registers });
    this.poisoned = new Counter({ name: 'novix_journal_poisoned_total', help: 'Operations that the database refused', registers });
    this.inDoubt = new Counter({ name: 'novix_journal_in_doubt_total', help: 'Commits whose answer was lost', registers });
    this.spooled = new Counter({ name: 'novix_journal_spooled_total', help: 'Outcomes written to the local spool', registers });
  }

  observeQueue(depth: () => number): void {
    this.registry.registerMetric(new Gauge({
      name: 'novix_journal_queue_operations', help: 'Operations waiting to be committed', registers: [],
      collect() {
        this.set(depth());
      },
    }));
  }
}
