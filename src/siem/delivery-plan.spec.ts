import { describe, expect, it } from '@jest/globals';
import { nextStep, sift, untilGap, type Plan } from './delivery-plan.ts';
import type { Leaf } from './export-event.ts';
import { ACKNOWLEDGED, retry, type Outcome } from './sink.ts';

const leaf = (index: number, text = '{}'): Leaf => ({ index: BigInt(index), id: 'id', body: Buffer.from(text) });
const leaves = (from: number, to: number): Leaf[] => Array.from({ length: to - from }, (_, place) => leaf(from + place));
const PLAN: Plan = { window: 500, poison: new Map() };
const step = (batch: Leaf[], outcome: Outcome | undefined, plan = PLAN) => nextStep(plan, batch, sift(batch, plan.poison), outcome, 500);

describe('untilGap', () => {
  it.each<[number[], number[]]>([[[], []], [[5], [5]], [[5, 6, 7], [5, 6, 7]], [[5, 6, 9, 10], [5, 6]], [[5, 7], [5]]])('of %j is %j', (given, kept) => {
    expect(untilGap(given.map((index) => leaf(index))).map(({ index }) => Number(index))).toEqual(kept);
  });
});

describe('nextStep', () => {
  it('moves behind the batch when it was acknowledged, and widens the window again', () => {
    expect(step(leaves(3, 6), ACKNOWLEDGED, { ...PLAN, window: 3 })).toEqual({ kind: 'move', to: 6n, delivered: 3, parked: [], plan: { window: 6, poison: new Map() } });
    expect(step(leaves(3, 6), ACKNOWLEDGED)).toMatchObject({ plan: { window: 500 } });
  });

  it('parks poison only when the cursor passes it', () => {
    const first = step(leaves(0, 4), { kind: 'poison', place: 1, reason: 'bad' });
    expect(first).toEqual({ kind: 'again', reason: 'bad', plan: { window: 500, poison: new Map([[1n, 'bad']]) } });
    expect(step(leaves(0, 4), ACKNOWLEDGED, first.plan)).toEqual({ kind: 'move', to: 4n, delivered: 3, parked: [{ firstIndex: 1n, lastIndex: 1n, events: 1n, reason: 'bad' }], plan: PLAN });
    expect(step(leaves(0, 1), ACKNOWLEDGED, first.plan)).toMatchObject({ parked: [], plan: { poison: first.plan.poison } }); // still ahead
  });

  it('counts places of poison among what was sent', () => {
    const plan = { ...PLAN, poison: new Map([[0n, 'first']]) };
    expect(step(leaves(0, 4), { kind: 'poison', place: 1, reason: 'second' }, plan).plan.poison).toEqual(new Map([[0n, 'first'], [2n, 'second']]));
  });

  it('halves what was refused, down to one event', () => {
    let plan = PLAN;
    const sizes: number[] = [];
    for (let size = 500; plan.poison.size === 0; size = plan.window) {
      sizes.push(size);
      plan = step(leaves(0, size), { kind: 'refused', reason: 'no' }, plan).plan;
    }
    expect(sizes).toEqual([500, 250, 125, 62, 31, 15, 7, 3, 1]);
    expect(plan.poison).toEqual(new Map([[0n, 'no']]));
  });

  it('takes a place that the batch has not for a refusal without one', () => {
    expect(step(leaves(0, 4), { kind: 'poison', place: 4, reason: 'bad' })).toMatchObject({ kind: 'again', plan: { window: 2, poison: new Map() } });
  });

  it('moves at once where all of it is parked', () => {
    const batch = [leaf(0, 'no json'), leaf(1, '[]'), leaf(2, '"text"'), leaf(3, '{"a":"\ufffd"}')];
    batch[3]!.body[6] = 0xff; // no UTF-8
    expect(step(batch, undefined)).toMatchObject({ kind: 'move', to: 4n, delivered: 0, parked: [0n, 1n, 2n, 3n].map((index) => ({ firstIndex: index, lastIndex: index, events: 1n, reason: 'is no JSON object' })) });
  });

  it('parks by number what was rejected without a name, and never more than was sent', () => {
    expect(step(leaves(5, 9), { kind: 'acknowledged', rejected: 2, reason: 'too long' })).toMatchObject({ to: 9n, delivered: 2, parked: [{ firstIndex: 5n, lastIndex: 8n, events: 2n, reason: 'too long' }] });
    expect(step(leaves(5, 9), { kind: 'acknowledged', rejected: 7, reason: 'too long' })).toMatchObject({ delivered: 0, parked: [{ events: 4n }] });
  });

  it('changes nothing where the same is to be sent later', () => {
    expect(step(leaves(0, 4), retry('busy', { afterMs: 7 }))).toEqual({ kind: 'wait', reason: 'busy', afterMs: 7, slow: false, plan: PLAN });
  });
});
