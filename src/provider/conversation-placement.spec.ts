import { describe, expect, it } from '@jest/globals';
import { ConversationPlacement, rendezvousOrder } from './conversation-placement.ts';

const shards = (count: number): { id: string; weight: number }[] => Array.from({ length: count }, (_, index) => ({ id: `shard-${index}`, weight: 1 }));

describe('rendezvousOrder', () => {
  it('moves only the conversations of the shard that goes', () => {
    const all = shards(8);
    for (let n = 0; n < 500; n++) {
      const [first, second] = rendezvousOrder(all, `c${n}`);
      expect(rendezvousOrder(all.filter(({ id }) => id !== first!.id), `c${n}`)[0]).toBe(second);
    }
  });

  it('gives a shard of double weight about twice as many', () => {
    const [light, heavy] = [{ id: 'light', weight: 1 }, { id: 'heavy', weight: 2 }];
    const atHeavy = Array.from({ length: 3_000 }, (_, n) => rendezvousOrder([light, heavy], `c${n}`)[0]).filter((shard) => shard === heavy).length;
    expect(atHeavy / 3_000).toBeCloseTo(2 / 3, 1);
  });
});

describe('ConversationPlacement', () => {
  it('keeps a conversation where it is, and spreads new ones evenly', () => {
    const placement = new ConversationPlacement();
    const counts = new Map<string, number>();
    for (let n = 0; n < 4_000; n++) {
      const conversation = `c${n % 1_000}`;
      const { id } = placement.place(conversation, shards(8), 1_000, n);
      counts.set(id, (counts.get(id) ?? 0) + 1);
      expect(placement.place(conversation, shards(8), 1_000, n).id).toBe(id);
    }
    expect(Math.max(...counts.values())).toBeLessThanOrEqual((4_000 / 8) * 1.1);
  });

  it('moves a conversation that would fill its shard alone', () => {
    const placement = new ConversationPlacement();
    const used = new Set(Array.from({ length: 2_000 }, (_, n) => placement.place('hot', shards(4), 1_000, n).id));
    expect(used.size).toBeGreaterThan(1);
  });

  it('remembers a bounded number of conversations', () => {
    const placement = new ConversationPlacement();
    for (let n = 0; n < 10_500; n++) placement.place(`c${n}`, shards(2), 1, n);
    expect(placement.size).toBe(10_000);
  });
});
