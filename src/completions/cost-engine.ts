import type { Principal } from '../auth/principal.ts';
import type { Catalogue, ResolvedModel } from '../catalogue/catalogue.ts';
import { ratesFor } from '../catalogue/token-price.ts';
import { complexityOf, type ComplexityWeights } from '../cost/complexity.ts';
import type { Quantiles } from '../cost/output-history.ts';
import { candidatesFor, type Candidate, type CostFacts } from '../cost/plan.ts';
import type { Predictor } from '../cost/predictor.ts';
import { selectModel, temperatureFor, type ModelOption, type Selection } from '../cost/selector.ts';
import { taskKindOf, type TaskKind } from '../cost/task-kind.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { RequestedCall } from './requested-call.ts';

/** The name by which a caller leaves the choice to the optimizer. */
export const AUTO = 'auto';

/** Says of a model whether the caller may use it, and whether the budget bears it. */
export type Ask = (model: ResolvedModel, candidates: readonly Candidate[], facts: CostFacts) => 'denied' | 'too_dear' | 'fits';

/** What the cost engine makes of a call. */
export interface Choice {
  selection: Selection;
  complexity: number;
  kind: TaskKind;
  temperature: number;
  inputTokens: number;
  outputTokens: Quantiles;
  costTicks: { p50: bigint; p90: bigint };
  /** All that could take the call. */
  options: readonly ModelOption[];
}

/**
 * Request → analyzer → prediction → budget → selector. Analyzer, prediction and selector are pure; what they go by, the weights, the history and the
 * catalogue, is given to them here.
 */
export class CostEngine {
  constructor(
    private readonly catalogue: Catalogue,
    private readonly predictor: Predictor,
    private readonly weights: ComplexityWeights,
  ) {}

  /**
   * Chooses a model by name, of those that can and may take the call.
   *
   * @param ask whether the rules let the caller use one of these candidates, and what it would hold is within the budget
   * @param budgetTicks most that the call may cost; undefined for no limit
   * @throws {GatewayError} `request_cost_exceeded` where none is affordable, `model_not_found` where none is allowed or able
   */
  choose(principal: Principal, requested: RequestedCall, ask: Ask, targetQuality: number, budgetTicks: bigint | undefined): Choice {
    const question = requested.question ?? '';
    const complexity = complexityOf(question, this.weights);
    const kind = taskKindOf(question, requested.capabilities, requested.stream);
    const options = this.catalogue.optimizable.flatMap((model) => this.#option(principal, requested, model, kind, ask));
    if (options.length === 0) throw new GatewayError('model_not_found', { publicMessage: 'None of the models that the optimizer may choose can take this call, or you may use none of them. Name a model; GET /v1/models lists yours.', param: 'model' });
    const selection = selectModel(options.map(({ option }) => option), complexity, targetQuality, budgetTicks);
    if (selection === undefined) {
      throw new GatewayError('request_cost_exceeded', { publicMessage: 'The call is likely to cost more than its budget with any model. Raise the budget, or shorten the prompt.' });
    }
    const chosen = options.find(({ option }) => option === selection.option)!;
    return {
      selection, complexity, kind, temperature: temperatureFor(complexity), inputTokens: chosen.inputTokens, outputTokens: selection.option.outputTokens, costTicks: selection.option.costTicks,
      options: options.map(({ option }) => option),
    };
  }

  #option(
    principal: Principal, requested: RequestedCall, resolved: ResolvedModel, kind: TaskKind, ask: Ask,
  ): { option: ModelOption; inputTokens: number }[] {
    let facts: CostFacts;
    try {
      facts = requested.costFacts(resolved.model);
    } catch (error) {
      if (error instanceof GatewayError) return []; // it does not take what the caller sent
      throw error;
    }
    const [candidate, ...others] = candidatesFor(this.catalogue, [resolved]);
    const answer = candidate === undefined ? 'denied' : ask(resolved, [candidate, ...others], facts);
    if (candidate === undefined || answer === 'denied') return [];
    const { model, price } = candidate;
    const inputTokens = this.predictor.inputTokens(model, facts.textBytes) + facts.storedTokens + facts.images * model.imageTokens;
    const cap = typeof facts.maxOutputTokens === 'number' ? facts.maxOutputTokens : Number.POSITIVE_INFINITY;
    const likely = this.predictor.outputTokens({ tenantId: principal.tenantId, model, kind });
    const outputTokens = { p50: Math.min(likely.p50, cap), p90: Math.min(likely.p90, cap) };
    const rates = ratesFor(price, inputTokens);
    const costOf = (tokens: number): bigint => BigInt(inputTokens) * rates.input + BigInt(tokens * facts.choices) * rates.output;
    return [{ option: { name: resolved.name, reach: resolved.reach!, fits: answer === 'fits', outputTokens, costTicks: { p50: costOf(outputTokens.p50), p90: costOf(outputTokens.p90) } }, inputTokens }];
  }
}
