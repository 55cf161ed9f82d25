import type { ModelPrice } from '../catalogue/catalogue.ts';
import { computeCostTicks, type ProviderUsage } from '../catalogue/token-price.ts';
import type { Plan } from './plan.ts';

/** Where a charge comes from: the provider's price, our own arithmetic on its counts, what was seen of the answer, the whole hold, or nothing. */
export type ChargeBasis = 'provider' | 'computed' | 'observed' | 'hold' | 'free';

export interface Charge {
  ticks: bigint;
  basis: ChargeBasis;
  /** The provider's own price, where it gave one. */
  providerTicks: bigint | undefined;
  /** Our own arithmetic on the provider's counts. */
  computedTicks: bigint | undefined;
  /** True where the two differ by more than a tick, which rounding may make: prices have drifted. */
  drift: boolean;
}

/** What is known of a call when it ends. */
export interface CallObservation {
  /** False only where no byte can have reached the provider, or the provider refused before it did any work. */
  mayHaveBeenBilled: boolean;
  usage: ProviderUsage | undefined;
  /** The answer's `service_tier`. */
  priority: boolean;
  outputTokensSeen: number;
  /** Whether bytes of the answer may lie unread between the provider and us, so that "seen" says little. */
  backlogged: boolean;
}

/** Tokens that may be under way when a stream is cut, beyond those seen. */
const IN_FLIGHT_TOKENS = 32n;

/**
 * What a call is charged. Pure.
 *
 * The provider's price counts, unless it exceeds both the hold and ten times our own arithmetic: then ours does. Without usage the charge is
 * the hold less the output that was not seen: what the provider may have billed at most for the part that came.
 */
export function chargeFor(observation: CallObservation, plan: Plan, price: ModelPrice): Charge {
  const { usage } = observation;
  if (usage !== undefined) {
    const computedTicks = computeCostTicks(usage, price, observation.priority);
    const providerTicks = usage.costTicks;
    const absurd = providerTicks !== undefined && providerTicks > plan.holdTicks && providerTicks > computedTicks * 10n;
    const trusted = providerTicks !== undefined && !absurd;
    const apart = (providerTicks ?? computedTicks) - computedTicks;
    return { ticks: trusted ? providerTicks : computedTicks, basis: trusted ? 'provider' : 'computed', providerTicks, computedTicks, drift: apart > 1n || apart < -1n };
  }
  const none = { providerTicks: undefined, computedTicks: undefined, drift: false };
  if (!observation.mayHaveBeenBilled) return { ticks: 0n, basis: 'free', ...none };
  if (observation.outputTokensSeen === 0 || observation.backlogged) return { ticks: plan.holdTicks, basis: 'hold', ...none };
  const seen = BigInt(observation.outputTokensSeen);
  // Frames of all choices are counted together, and the output rate is that of all choices together.
  const outputTicks = ((seen + seen / 8n + IN_FLIGHT_TOKENS) * plan.outputRateTicks) / BigInt(plan.choices);
  const ticks = plan.fixedTicks + outputTicks;
  return { ticks: ticks < plan.holdTicks ? ticks : plan.holdTicks, basis: 'observed', ...none };
}
