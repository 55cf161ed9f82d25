import type { Catalogue, Deployment, Model, ModelPrice, ResolvedModel } from '../catalogue/catalogue.ts';
import { ratesFor, scaledPrice } from '../catalogue/token-price.ts';
import { GatewayError } from '../shared/gateway-error.ts';

/** Without an output limit a call gets this many tokens: the seed's default. */
const OUTPUT_TOKENS_DEFAULT = 4_000;

/** What of a request decides its cost. */
export interface CostFacts {
  /** UTF-8 bytes of text: prompt, tools, schema. */
  textBytes: number;
  /** Tokens of earlier turns that the provider keeps, and reads again. */
  storedTokens: number;
  images: number;
  /** Images to make. */
  generatedImages: number;
  /** As the caller asked, 0 for what has no output; undefined where it did not. `uncapped` where the model takes no limit: then the ceiling of all calls is assumed. */
  maxOutputTokens: number | 'uncapped' | undefined;
  choices: number;
  reasoningEffort: string | undefined;
  /** Whether priority processing, at its own price, was asked for. */
  priority: boolean;
}

/** A call that costs nothing; others say in what they differ. */
export const NO_COST: CostFacts = { textBytes: 0, storedTokens: 0, images: 0, generatedImages: 0, maxOutputTokens: 0, choices: 1, reasoningEffort: undefined, priority: false };

export interface PlanLimits {
  /** Ceiling of every call's output (`XAI_MAX_TOKENS`). */
  maxTokensCap: number;
  /** The lower of the caller's and the tenant's ceiling for this call, in ticks. */
  maxCostTicks: bigint | undefined;
  /** Whether reasoning is held for by what the model could do at all, rather than by what it is likely to. */
  strict?: boolean;
  /** Reasoning tokens that were learned to be enough; undefined where the prior says more. */
  learnedReasoning?: (model: Model, effort: string | undefined) => number | undefined;
}

/** A model on a deployment, at the price of that deployment. */
export interface Candidate {
  /** The alias or id under which it serves: the one asked for, or one that may stand in for it. */
  name: string;
  model: Model;
  deployment: Deployment;
  /** What the model is called there. */
  upstreamModel: string;
  price: ModelPrice;
  /** 0 for the model asked for; those with a higher rank serve when none of a lower one can. */
  rank: number;
}

/** What a call may use and cost at most, worked out before anything is spent. */
export interface Plan {
  resolved: ResolvedModel;
  candidates: readonly Candidate[];
  inputTokens: number;
  maxOutputTokens: number;
  reasoningTokens: number;
  choices: number;
  priority: boolean;
  /** Money to hold, in ticks, and the part of it that is certain to be used: input and reasoning. At the dearest candidate. */
  holdTicks: bigint;
  fixedTicks: bigint;
  outputRateTicks: bigint;
  /** What the call may cost at most, where somebody said so. */
  ceilingTicks?: bigint | undefined;
  /** What the optimizer sets for callers that set none. */
  temperature?: number;
}

/**
 * Plans a call: how much it may write, and how much money to hold. Pure.
 *
 * The hold is an upper estimate at the uncached price of the dearest candidate, so that any of them may serve: input (read once, however many
 * choices), and for each choice output up to the cap and a reasoning allowance; at long-context rates where the prompt may reach them, and at the
 * priority rate where it was asked for.
 *
 * @param candidates what can serve the call
 * @throws {GatewayError} `price_unavailable` for a model without a price, `request_cost_exceeded` when the caller's ceiling is too low
 */
export function planCall(resolved: ResolvedModel, candidates: readonly Candidate[], facts: CostFacts, limits: PlanLimits): Plan {
  const first = candidates[0];
  if (first === undefined) throw priceUnavailable(resolved.requested);
  const quotes = candidates.map((candidate) => quote(candidate, facts, limits));
  const most = (read: (one: Quote) => bigint): bigint => quotes.reduce((max, one) => (read(one) > max ? read(one) : max), 0n);
  const fixedTicks = most((one) => one.fixedTicks);
  const outputRateTicks = most((one) => one.outputRateTicks);

  const wanted = facts.maxOutputTokens ?? OUTPUT_TOKENS_DEFAULT;
  let maxOutputTokens = wanted === 'uncapped' ? limits.maxTokensCap : Math.min(wanted, limits.maxTokensCap);
  if (limits.maxCostTicks !== undefined) {
    const left = limits.maxCostTicks - fixedTicks;
    const affordable = outputRateTicks === 0n ? BigInt(maxOutputTokens) : left / outputRateTicks;
    if (left < 0n || affordable < BigInt(wanted === 'uncapped' ? maxOutputTokens : Math.min(resolved.model.outputTokensLeast, maxOutputTokens))) {
      throw new GatewayError('request_cost_exceeded', {
        publicMessage: 'The call could cost more than its limit (x-novix-max-cost-usd, or the tenant’s own) even with the shortest useful answer. Raise the limit, shorten the prompt, or choose another model.',
        internal: { maxCostTicks: String(limits.maxCostTicks), fixedTicks: String(fixedTicks) },
      });
    }
    if (affordable < BigInt(maxOutputTokens)) maxOutputTokens = Number(affordable);
  }
  return {
    resolved, candidates, maxOutputTokens, choices: facts.choices, priority: facts.priority,
    inputTokens: Math.max(...quotes.map((one) => one.inputTokens)), reasoningTokens: Math.max(...quotes.map((one) => one.reasoningTokens)),
    holdTicks: fixedTicks + BigInt(maxOutputTokens) * outputRateTicks,
    fixedTicks, outputRateTicks, ceilingTicks: limits.maxCostTicks,
  };
}

/**
 * Whether a running call has gone past its ceiling, as far as can be seen. It can only where the provider writes, or thinks aloud, beyond what the plan
 * allowed for: within that, the ceiling holds by construction.
 *
 * @param outputTokens output of all choices together that is known to have been made
 */
export function exceedsCeiling({ ceilingTicks, fixedTicks, reasoningTokens, outputRateTicks, choices }: Plan, outputTokens: number): boolean {
  if (ceilingTicks === undefined) return false;
  const inputTicks = fixedTicks - BigInt(reasoningTokens) * outputRateTicks;
  return inputTicks + (BigInt(outputTokens) * outputRateTicks) / BigInt(choices) > ceilingTicks;
}

/** Everything that may serve a model name: its deployments, then those of the names that may stand in for it. */
export function candidatesFor(catalogue: Pick<Catalogue, 'modelAt'>, names: readonly ResolvedModel[]): Candidate[] {
  return names.flatMap(({ name, model: own, deployments }, rank) =>
    deployments.flatMap((deployment) => {
      const model = catalogue.modelAt(deployment, own);
      if (model.price === undefined) return [];
      return [{ name, model, deployment, upstreamModel: deployment.upstreamModel ?? model.id, price: scaledPrice(model.price, deployment.pricePercent), rank }];
    }));
}

interface Quote {
  inputTokens: number;
  reasoningTokens: number;
  fixedTicks: bigint;
  outputRateTicks: bigint;
}

function quote({ model, price }: Candidate, facts: CostFacts, limits: PlanLimits): Quote {
  const inputTokens = Math.ceil(facts.textBytes / model.bytesPerToken) + facts.storedTokens + facts.images * model.imageTokens;
  const reasoningTokens = facts.maxOutputTokens === 0 ? 0 : reasoningAllowance(model, facts.reasoningEffort, limits);
  const rates = ratesFor(price, inputTokens);
  const factor = facts.priority ? price.priorityMultiplier : 1n;
  const outputRateTicks = rates.output * factor * BigInt(facts.choices);
  const fixedTicks = BigInt(inputTokens) * rates.input * factor + BigInt(reasoningTokens) * outputRateTicks + BigInt(facts.generatedImages) * price.perImage;
  return { inputTokens, reasoningTokens, fixedTicks, outputRateTicks };
}

function priceUnavailable(name: string): GatewayError {
  return new GatewayError('price_unavailable', { publicMessage: `The model ${name} has no deployment here with a price, so it cannot be called.` });
}

function reasoningAllowance(model: Model, effort: string | undefined, { strict, learnedReasoning }: PlanLimits): number {
  if (model.reasoning === undefined) return 0;
  if (strict === true && model.contextTokens !== undefined) return model.contextTokens;
  const learned = learnedReasoning?.(model, effort);
  if (learned !== undefined) return learned;
  const { allowanceTokens, defaultEffort } = model.reasoning;
  const wanted = effort ?? defaultEffort;
  if (Object.hasOwn(allowanceTokens, wanted)) return allowanceTokens[wanted]!;
  return Math.max(0, ...Object.values(allowanceTokens)); // an effort we do not know may be the dearest
}
