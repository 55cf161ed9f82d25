import type { Model } from '../catalogue/catalogue.ts';
import type { TokenUsage } from '../catalogue/token-price.ts';
import { TokenHistory, type Quantiles } from './output-history.ts';
import type { TaskKind } from './task-kind.ts';

/** A history this short says less than the prior. */
const OUTPUT_CALLS_MIN = 50;
const REASONING_CALLS_MIN = 200;
/** Money is held for all but one call in a hundred; what that one uses beyond is charged, and counted as an overrun. */
const REASONING_SHARE = 0.99;
const RATIO_SHARE = 0.02;
const RATIO_CALLS_MIN = 20;
const MODELS_MAX = 1_000;

/** What is known of a call when it is planned, as far as its tokens depend on it. */
export interface Route {
  tenantId: string;
  model: Model;
  kind: TaskKind;
}

/** Learns from what calls have used, what the next ones will use. In this process alone: replicas learn the same from their own calls. */
export class Predictor {
  readonly #outputs = new TokenHistory();
  readonly #reasoning = new TokenHistory();
  /** By model: UTF-8 bytes of a request per input token, the mean of late. */
  readonly #bytesPerToken = new Map<string, { mean: number; calls: number }>();

  observe(route: Route, effort: string | undefined, textBytes: number, usage: TokenUsage): void {
    this.#outputs.observe(outputRoute(route), usage.outputTokens);
    if (route.model.reasoning !== undefined) this.#reasoning.observe(reasoningRoute(route.model, effort), usage.reasoningTokens);
    if (usage.inputTokens > 0 && textBytes > 0) this.#observeRatio(route.model.id, textBytes / usage.inputTokens);
  }

  /** Output tokens that a call is likely to use, reasoning left out. */
  outputTokens(route: Route): Quantiles {
    const [p50, p90] = [0.5, 0.9].map((share) => this.#outputs.quantile(outputRoute(route), share, OUTPUT_CALLS_MIN));
    return p50 === undefined || p90 === undefined ? route.model.outputPrior : { p50, p90 };
  }

  /** Reasoning tokens to hold money for; undefined while the prior says more. */
  reasoningAllowance(model: Model, effort: string | undefined): number | undefined {
    return this.#reasoning.quantile(reasoningRoute(model, effort), REASONING_SHARE, REASONING_CALLS_MIN);
  }

  /** Input tokens that a request is likely to have; holds are made by a more careful ratio. */
  inputTokens(model: Model, textBytes: number): number {
    const known = this.#bytesPerToken.get(model.id);
    return Math.ceil(textBytes / (known !== undefined && known.calls >= RATIO_CALLS_MIN ? known.mean : model.bytesPerToken));
  }

  #observeRatio(modelId: string, ratio: number): void {
    const known = this.#bytesPerToken.get(modelId);
    if (known === undefined && this.#bytesPerToken.size >= MODELS_MAX) return;
    const share = Math.max(RATIO_SHARE, 1 / ((known?.calls ?? 0) + 1));
    this.#bytesPerToken.set(modelId, { mean: (known?.mean ?? 0) * (1 - share) + ratio * share, calls: (known?.calls ?? 0) + 1 });
  }
}

function outputRoute({ tenantId, model, kind }: Route): string {
  return `${tenantId} ${model.id} ${kind}`;
}

function reasoningRoute(model: Model, effort: string | undefined): string {
  return `${model.id} ${effort ?? model.reasoning?.defaultEffort ?? ''}`;
}
