import type { Deployment, Model, ModelPrice, ResolvedModel } from '../catalogue/catalogue.ts';
import { ratesFor } from '../catalogue/token-price.ts';
import { GatewayError } from '../shared/gateway-error.ts';

/** Without an output limit a call gets this many tokens: the seed's default. */
const OUTPUT_TOKENS_DEFAULT = 4_000;
/** Fewer output tokens than this are of no use to anyone. */
const OUTPUT_TOKENS_LEAST = 16;

/** What of a request decides its cost. */
export interface CostFacts {
  /** UTF-8 bytes of text: prompt, tools, schema. */
  textBytes: number;
  images: number;
  /** As the caller asked; undefined where it did not. */
  maxOutputTokens: number | undefined;
  choices: number;
  reasoningEffort: string | undefined;
  /** Whether priority processing, at its own price, was asked for. */
  priority: boolean;
}

export interface PlanLimits {
  /** Ceiling of every call's output (`XAI_MAX_TOKENS`). */
  maxTokensCap: number;
  /** The caller's own ceiling for this call, in ticks. */
  maxCostTicks: bigint | undefined;
}

/** A model on a deployment, with what a call there may cost. */
export interface Candidate {
  model: Model;
  deployment: Deployment;
  price: ModelPrice;
}

/** What a call may use and cost at most, worked out before anything is spent. */
export interface Plan {
  resolved: ResolvedModel;
  /** Best first. */
  candidates: readonly Candidate[];
  inputTokens: number;
  maxOutputTokens: number;
  reasoningTokens: number;
  choices: number;
  priority: boolean;
  /** Money to hold, in ticks, and the part of it that is certain to be used: input and reasoning. */
  holdTicks: bigint;
  fixedTicks: bigint;
  outputRateTicks: bigint;
}

/**
 * Plans a call: which candidates can serve it, how much it may write, and how much money to hold. Pure.
 *
 * The hold is an upper estimate at the uncached price: input (read once, however many choices), and for each choice output up to the cap and a
 * reasoning allowance; at
 * long-context rates where the prompt may reach them, and at the priority rate where it was asked for.
 *
 * @throws {GatewayError} `price_unavailable` for a model without a price, `request_cost_exceeded` when the caller's ceiling is too low
 */
export function planCall(resolved: ResolvedModel, facts: CostFacts, limits: PlanLimits): Plan {
  const { model, deployments } = resolved;
  const { price } = model;
  if (price === undefined) throw new GatewayError('price_unavailable', { publicMessage: `The model ${resolved.requested} has no price, so it cannot be called.` });

  const inputTokens = Math.ceil(facts.textBytes / model.bytesPerToken) + facts.images * model.imageTokens;
  const reasoningTokens = reasoningAllowance(model, facts.reasoningEffort);
  const rates = ratesFor(price, inputTokens);
  const factor = facts.priority ? price.priorityMultiplier : 1n;
  const choices = BigInt(facts.choices);
  const outputRateTicks = rates.output * factor * choices;
  const fixedTicks = BigInt(inputTokens) * rates.input * factor + BigInt(reasoningTokens) * outputRateTicks;

  let maxOutputTokens = Math.min(facts.maxOutputTokens ?? OUTPUT_TOKENS_DEFAULT, limits.maxTokensCap);
  if (limits.maxCostTicks !== undefined) {
    const affordable = (limits.maxCostTicks - fixedTicks) / outputRateTicks;
    if (affordable < BigInt(Math.min(OUTPUT_TOKENS_LEAST, maxOutputTokens)) || limits.maxCostTicks < fixedTicks) {
      throw new GatewayError('request_cost_exceeded', {
        publicMessage: 'The call could cost more than its own limit (x-novix-max-cost-usd) even with the shortest useful answer. Raise the limit, shorten the prompt, or choose another model.',
        internal: { maxCostTicks: String(limits.maxCostTicks), fixedTicks: String(fixedTicks) },
      });
    }
    if (affordable < BigInt(maxOutputTokens)) maxOutputTokens = Number(affordable);
  }
  return {
    resolved,
    candidates: deployments.map((deployment) => ({ model, deployment, price })),
    inputTokens, maxOutputTokens, reasoningTokens, choices: facts.choices, priority: facts.priority,
    holdTicks: fixedTicks + BigInt(maxOutputTokens) * outputRateTicks,
    fixedTicks, outputRateTicks,
  };
}

function reasoningAllowance(model: Model, effort: string | undefined): number {
  if (model.reasoning === undefined) return 0;
  const { allowanceTokens, defaultEffort } = model.reasoning;
  const wanted = effort ?? defaultEffort;
  if (Object.hasOwn(allowanceTokens, wanted)) return allowanceTokens[wanted]!;
  return Math.max(0, ...Object.values(allowanceTokens)); // an effort we do not know may be the dearest
}
