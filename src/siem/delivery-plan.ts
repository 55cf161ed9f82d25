import { toExportEvent, type ExportEvent, type Leaf } from './export-event.ts';
import type { Outcome, Parked } from './sink.ts';

/** What a sink's loop knows beside its cursor. Nothing of it has to outlive the process: it would be found out again. */
export interface Plan {
  /** How many leaves the next batch may hold. */
  window: number;
  /** Why events before long will be parked, by index: when the cursor passes them, so that what stands before them is acknowledged first. */
  poison: ReadonlyMap<bigint, string>;
}

/** What to do after a batch: move the cursor, or try the same leaves in another way, or later. */
export type Step =
  | { kind: 'move'; to: bigint; delivered: number; parked: Parked[]; plan: Plan }
  | { kind: 'again'; reason: string; plan: Plan }
  | { kind: 'wait'; reason: string; afterMs: number; slow: boolean; plan: Plan };

export const NOT_JSON = 'is no JSON object';
export const PRUNED = 'pruned before delivery';

/** The leaves up to the first gap: what is missing is seen when the cursor stands at it. */
export function untilGap(leaves: readonly Leaf[]): Leaf[] {
  const gap = leaves.findIndex(({ index }, place) => place > 0 && index !== leaves[place - 1]!.index + 1n);
  return gap === -1 ? [...leaves] : leaves.slice(0, gap);
}

/** Which of a batch are sent, and which are parked unsent. */
export function sift(batch: readonly Leaf[], poison: Plan['poison']): { events: ExportEvent[]; parked: Parked[] } {
  const events: ExportEvent[] = [];
  const parked: Parked[] = [];
  for (const leaf of batch) {
    const event = poison.has(leaf.index) ? undefined : toExportEvent(leaf);
    if (event === undefined) parked.push({ firstIndex: leaf.index, lastIndex: leaf.index, events: 1n, reason: poison.get(leaf.index) ?? NOT_JSON });
    else events.push(event);
  }
  return { events, parked };
}

/**
 * What follows from how a batch fared. Pure. A refusal that names no event halves the batch, down to the one event that is at fault.
 *
 * @param batch as it was read, not empty
 * @param sifted of it
 * @param outcome undefined where all of it is parked, so that nothing was sent
 */
export function nextStep(plan: Plan, batch: readonly Leaf[], { events, parked }: { events: readonly ExportEvent[]; parked: readonly Parked[] }, outcome: Outcome | undefined, windowMax: number): Step {
  const last = batch.at(-1)!.index;
  if (outcome === undefined || outcome.kind === 'acknowledged') {
    const rejected = Math.min(outcome?.rejected ?? 0, events.length);
    const unnamed: Parked[] = rejected === 0 ? [] : [{ firstIndex: events[0]!.index, lastIndex: events.at(-1)!.index, events: BigInt(rejected), reason: outcome!.reason }];
    const poison = new Map([...plan.poison].filter(([index]) => index > last));
    return { kind: 'move', to: last + 1n, delivered: events.length - rejected, parked: [...parked, ...unnamed], plan: { window: Math.min(windowMax, plan.window * 2), poison } };
  }
  const { reason } = outcome;
  if (outcome.kind === 'retry') return { kind: 'wait', reason, afterMs: outcome.afterMs, slow: outcome.slow, plan };
  const guilty = outcome.kind === 'poison' ? events[outcome.place] : events.length === 1 ? events[0] : undefined;
  if (guilty !== undefined) return { kind: 'again', reason, plan: { ...plan, poison: new Map([...plan.poison, [guilty.index, reason]]) } };
  return { kind: 'again', reason, plan: { ...plan, window: Math.max(1, Math.floor(batch.length / 2)) } };
}
