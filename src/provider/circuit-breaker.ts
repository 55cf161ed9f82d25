/**
 * The state of one deployment's breaker. Pure: every transition takes the time and returns the next state.
 *
 * Calls end as a success, a failure, or neither (the caller hung up, the provider refused this one request): only the first two say anything
 * about the deployment.
 */
export type Breaker =
  | { state: 'closed'; failures: number }
  | { state: 'open'; failures: number; untilMs: number }
  /** One call, and no other, is finding out whether the deployment is back. */
  | { state: 'half_open'; failures: number };

export interface BreakerLimits {
  /** Failed attempts in a row that open it. */
  failures: number;
  recoveryMs: number;
}

/** How far the open time varies, so that replicas do not all probe at once. */
const RECOVERY_SPREAD = 0.1;

export const CLOSED: Breaker = { state: 'closed', failures: 0 };

/** What a call may do now: go on, go on as the one probe, or nothing. */
export type Admittance = 'call' | 'probe' | 'refused';

/** Looks without changing anything: whether a call would be let through. */
export function admittance(breaker: Breaker, nowMs: number): Admittance {
  if (breaker.state === 'closed') return 'call';
  return breaker.state === 'open' && nowMs >= breaker.untilMs ? 'probe' : 'refused';
}

/** The one probe begins. */
export function afterProbeBegan(breaker: Breaker): Breaker {
  return { state: 'half_open', failures: breaker.failures };
}

/**
 * The probe got the first byte of an answer. Calls flow again, on probation: until one of them succeeds as a whole, a single failure opens it anew.
 * To wait for the probe's end would keep everyone out for as long as one answer takes.
 */
export function afterProbeAnswered(breaker: Breaker, limits: BreakerLimits): Breaker {
  return breaker.state === 'half_open' ? { state: 'closed', failures: limits.failures - 1 } : breaker;
}

/** Calls that began before it opened may still succeed: that does not close it. */
export function afterSuccess(breaker: Breaker, probe: boolean): Breaker {
  return breaker.state === 'closed' || (probe && breaker.state === 'half_open') ? CLOSED : breaker;
}

/**
 * @param random from 0 up to 1
 */
export function afterFailure(breaker: Breaker, probe: boolean, limits: BreakerLimits, nowMs: number, random: number): Breaker {
  if (breaker.state === 'closed') {
    const failures = breaker.failures + 1;
    return failures < limits.failures ? { state: 'closed', failures } : opened(failures, limits, nowMs, random);
  }
  return breaker.state === 'half_open' && probe ? opened(breaker.failures + 1, limits, nowMs, random) : breaker;
}

/** A probe that came to nothing leaves its place to the next call. */
export function afterNeither(breaker: Breaker, probe: boolean, nowMs: number): Breaker {
  return breaker.state === 'half_open' && probe ? { state: 'open', failures: breaker.failures, untilMs: nowMs } : breaker;
}

/** An admin keeps it open until a reset. */
export function forcedOpen(breaker: Breaker): Breaker {
  return { state: 'open', failures: breaker.failures, untilMs: Number.POSITIVE_INFINITY };
}

/** Another replica found the deployment down: no need to find out once more. One that is open already, or being probed, is known here at first hand. */
export function afterNews(breaker: Breaker, openMs: number, nowMs: number): Breaker {
  return breaker.state === 'closed' ? { state: 'open', failures: breaker.failures, untilMs: nowMs + openMs } : breaker;
}

function opened(failures: number, limits: BreakerLimits, nowMs: number, random: number): Breaker {
  const spread = 1 + RECOVERY_SPREAD * (2 * random - 1);
  return { state: 'open', failures, untilMs: nowMs + limits.recoveryMs * spread };
}
