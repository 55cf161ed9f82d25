import { describe, expect, it } from '@jest/globals';
import { burstOf, GcraStorage } from './gcra-storage.ts';

function storage(): { hit: (key?: string, limit?: number) => ReturnType<GcraStorage['increment']>; advance: (ms: number) => void } {
  let nowMs = 1_000;
  const store = new GcraStorage({ nowMs: () => 0, monotonicMs: () => nowMs });
  return { hit: (key = 'acme', limit = 10_000) => store.increment(key, 60_000, limit), advance: (ms) => { nowMs += ms; } };
}

describe('GcraStorage', () => {
  it.each([[10_000, 1_000], [100_000, 10_000], [500_000, 50_000], [9, 1], [1, 1], [15, 1]])('of %i requests a minute allows %i at once: a tenth, one at least', async (limit, burst) => {
    expect(burstOf(limit)).toBe(burst);
    const { hit } = storage();
    let allowed = 0;
    while (!(await hit('acme', limit)).isBlocked) allowed += 1;
    expect(allowed).toBe(burst);
  });

  it('lets the steady rate through for as long as it lasts', async () => {
    const { hit, advance } = storage();
    for (let requests = 0; requests < 2_000; requests += 1) {
      expect((await hit('acme', 600)).isBlocked).toBe(false);
      advance(100);
    }
  });

  it('lets no more through in a minute than the limit and one burst', async () => {
    const { hit, advance } = storage();
    let allowed = 0;
    for (let ms = 0; ms < 60_000; ms += 10) {
      if (!(await hit('acme', 600)).isBlocked) allowed += 1;
      advance(10);
    }
    expect(allowed).toBeGreaterThanOrEqual(659);
    expect(allowed).toBeLessThanOrEqual(660);
  });

  it('says in whole seconds, rounded up, when to come back', async () => {
    const { hit } = storage();
    await hit('acme', 1);
    expect(await hit('acme', 1)).toMatchObject({ isBlocked: true, timeToBlockExpire: 60, timeToExpire: 60 });
    for (let requests = 0; requests < 60; requests += 1) await hit('globex', 600);
    expect((await hit('globex', 600)).timeToBlockExpire).toBe(1);
  });

  it('throttles each tenant by itself', async () => {
    const { hit } = storage();
    await hit('acme', 1);
    expect((await hit('acme', 1)).isBlocked).toBe(true);
    expect((await hit('globex', 1)).isBlocked).toBe(false);
  });
});
