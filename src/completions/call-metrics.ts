import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { CallEnd, CallIdentity } from './call-record.ts';

/** Counters of calls by model and outcome. Labels come from the catalogue and closed unions, so their number is bounded. */
export class CallMetrics {
  readonly priceDrift: Counter;
  readonly usageUnreadable: Counter;
  readonly holdOverruns: Counter;
  readonly holdOverrunUsd: Counter;
  readonly #calls: Counter;
  readonly #seconds: Histogram;
  readonly #firstByteSeconds: Histogram;
  readonly #tokens: Counter;
  readonly #costUsd: Counter;
  readonly #byModel = new Map<string, ModelCounters>();

  constructor(registry: Registry, open: () => number) {
    const registers = [registry];
    const labelNames = ['model'];
    this.#calls = new Counter({ name: 'novix_calls_total', help: 'Calls that were admitted, by outcome', labelNames: ['model', 'outcome'], registers });
    this.#seconds = new Histogram({ name: 'novix_call_seconds', help: 'From admission to the end of the answer', labelNames, buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900], registers });
    this.#firstByteSeconds = new Histogram({ name: 'novix_upstream_first_byte_seconds', help: 'From dispatch to the first byte of the body', labelNames, buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900], registers });
    this.#tokens = new Counter({ name: 'novix_tokens_total', help: 'Tokens billed, by kind', labelNames: ['model', 'kind'], registers });
    this.#costUsd = new Counter({ name: 'novix_charged_usd_total', help: 'Charges, rounded to floats for display; the ledger has the exact figures', labelNames, registers });
    this.priceDrift = new Counter({ name: 'novix_price_drift_total', help: 'Answers whose price was not what the price table says', labelNames, registers });
    this.usageUnreadable = new Counter({ name: 'novix_usage_unreadable_total', help: 'Whole answers without believable usage', labelNames, registers });
    this.holdOverruns = new Counter({ name: 'novix_hold_overruns_total', help: 'Calls that cost more than was held for them', labelNames, registers });
    this.holdOverrunUsd = new Counter({ name: 'novix_hold_overrun_usd_total', help: 'What they cost beyond it; a budget is overrun by so much at most', labelNames, registers });
    registry.registerMetric(new Gauge({
      name: 'novix_calls_in_flight', help: 'Calls admitted and not yet settled', registers: [],
      collect() {
        this.set(open());
      },
    }));
  }

  ended({ context, startedAtMs }: CallIdentity, end: CallEnd, nowMs: number): void {
    const model = this.#of(context.upstream_model);
    this.#calls.inc({ model: context.upstream_model, outcome: end.outcome });
    model.seconds.observe(Math.max(0, nowMs - startedAtMs) / 1000);
    const firstByteMs = end.attempts.at(-1)?.firstByteMs;
    if (firstByteMs !== undefined) model.firstByteSeconds.observe(firstByteMs / 1000);
    model.costUsd.inc(Number(end.charge.ticks) / 1e10);
    if (end.usage === undefined) return;
    model.input.inc(end.usage.inputTokens);
    model.cachedInput.inc(end.usage.cachedInputTokens);
    model.output.inc(end.usage.outputTokens);
    model.reasoning.inc(end.usage.reasoningTokens);
  }

  /** A model's own counters, looked up once: to hash labels on every call costs more than to count. */
  #of(model: string): ModelCounters {
    let counters = this.#byModel.get(model);
    if (!counters) {
      const tokens = (kind: string) => this.#tokens.labels({ model, kind });
      counters = {
        seconds: this.#seconds.labels({ model }), firstByteSeconds: this.#firstByteSeconds.labels({ model }), costUsd: this.#costUsd.labels({ model }),
        input: tokens('input'), cachedInput: tokens('cached_input'), output: tokens('output'), reasoning: tokens('reasoning'),
      };
      this.#byModel.set(model, counters);
    }
    return counters;
  }
}

interface ModelCounters {
  seconds: { observe(value: number): void };
  firstByteSeconds: { observe(value: number): void };
  costUsd: { inc(value: number): void };
  input: { inc(value: number): void };
  cachedInput: { inc(value: number): void };
  output: { inc(value: number): void };
  reasoning: { inc(value: number): void };
}
