import { beforeAll, describe, expect, it } from '@jest/globals';
import { errors, exportJWK, generateKeyPair, type CryptoKey, type FlattenedJWSInput, type JWK } from 'jose';
import type { Logger } from 'pino';
import { IssuerKeys } from './issuer-keys.ts';

const FRESH_MS = 600_000;
const COOLDOWN_MS = 5_000;
const GRACE_SECONDS = 100;

let jwk: JWK;
let renewed: JWK;
beforeAll(async () => {
  [jwk, renewed] = await Promise.all(['one', 'two'].map(async (kid) => ({ ...(await exportJWK((await generateKeyPair('ES256')).publicKey)), kid, alg: 'ES256' }))) as [JWK, JWK];
});

/** Keys over a network and a clock that the test holds. */
function make({ graceSeconds = GRACE_SECONDS as number | undefined } = {}): { keys: IssuerKeys; state: { answer: () => Promise<string> | string; fetches: string[]; nowMs: number; warnings: number }; find: (kid: string) => Promise<unknown> } {
  const state = { answer: (): Promise<string> | string => JSON.stringify({ keys: [jwk] }), fetches: [] as string[], nowMs: 1_000_000, warnings: 0 };
  const keys = new IssuerKeys(
    { issuer: 'https://idp.example', audience: 'novix', jwksUri: 'https://idp.example/keys', jwksFile: undefined, algorithms: ['ES256'], ...(graceSeconds !== undefined && { jwksGraceSeconds: graceSeconds }) },
    async (url) => {
      state.fetches.push(url);
      return state.answer();
    },
    () => state.nowMs, { warn: () => void (state.warnings += 1) } as unknown as Logger,
  );
  const find = async (kid: string): Promise<unknown> => {
    try {
      return ((await keys.find({ alg: 'ES256', kid }, {} as FlattenedJWSInput)) as CryptoKey).type;
    } catch (error) {
      return (error as { code?: string }).code;
    }
  };
  return { keys, state, find };
}

const down = (): never => {
  throw new Error('no route');
};
const UNKNOWN = errors.JWKSNoMatchingKey.code;

describe('IssuerKeys', () => {
  it('asks exactly where it was told to, when a key is first needed', async () => {
    const { keys, state, find } = make();
    expect([keys.present, state.fetches]).toEqual([false, []]);
    expect(await find('one')).toBe('public');
    expect([keys.present, state.fetches]).toEqual([true, ['https://idp.example/keys']]);
  });

  it('asks once for all who wait, and again for those who come after a failure', async () => {
    const { state, find } = make();
    let fail!: (error: Error) => void;
    state.answer = () => new Promise((_, reject) => {
      fail = reject;
    });
    const waiting = Array.from({ length: 50 }, () => find('one'));
    await new Promise(setImmediate);
    fail(new Error('no route'));
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['identity_unavailable']));
    expect([state.fetches.length, state.warnings]).toEqual([1, 1]);
    state.answer = () => JSON.stringify({ keys: [jwk] });
    state.nowMs += COOLDOWN_MS;
    expect(await find('one')).toBe('public');
    expect(state.fetches).toHaveLength(2);
  });

  it('keeps a set for ten minutes, to the millisecond', async () => {
    const { state, find } = make();
    await find('one');
    state.nowMs += FRESH_MS;
    await find('one');
    expect(state.fetches).toHaveLength(1);
    state.nowMs += 1;
    await find('one');
    expect(state.fetches).toHaveLength(2);
  });

  it('asks for an unknown key no sooner than five seconds after it last asked', async () => {
    const { state, find } = make();
    await find('one');
    state.nowMs += COOLDOWN_MS - 1;
    expect(await find('x')).toBe(UNKNOWN);
    expect(state.fetches).toHaveLength(1);
    state.nowMs += 1;
    expect(await find('x')).toBe(UNKNOWN);
    expect(await find('y')).toBe(UNKNOWN);
    expect(state.fetches).toHaveLength(2);
    state.answer = () => JSON.stringify({ keys: [renewed] });
    state.nowMs += COOLDOWN_MS;
    expect([await find('two'), await find('one')]).toEqual(['public', UNKNOWN]);
    expect(state.fetches).toHaveLength(3);
  });

  it('serves the last set on for exactly the grace, asking now and then', async () => {
    const { state, find } = make();
    await find('one');
    state.answer = down;
    state.nowMs += FRESH_MS + 1;
    expect(await find('one')).toBe('public');
    expect(await find('one')).toBe('public');
    expect(state.fetches).toHaveLength(2);
    state.nowMs += COOLDOWN_MS;
    expect(await find('one')).toBe('public');
    expect(state.fetches).toHaveLength(3);
    state.nowMs += GRACE_SECONDS * 1_000 - COOLDOWN_MS - 2;
    expect(await find('one')).toBe('public');
    state.nowMs += 1;
    expect(await find('one')).toBe('identity_unavailable');
    state.answer = () => JSON.stringify({ keys: [jwk] });
    state.nowMs += COOLDOWN_MS;
    expect(await find('one')).toBe('public');
  });

  it('has a day of grace unless told otherwise, and none where told so', async () => {
    for (const [graceSeconds, expected] of [[undefined, ['public', 'identity_unavailable']], [0, ['identity_unavailable', 'identity_unavailable']]] as const) {
      const { state, find } = make({ graceSeconds });
      await find('one');
      state.answer = down;
      const seen: unknown[] = [];
      for (const afterMs of [FRESH_MS + 1, 86_400_000]) {
        state.nowMs += afterMs;
        seen.push(await find('one'));
      }
      expect(seen).toEqual(expected);
    }
  });

  it('cannot say that an unknown key is bad while nobody can be asked', async () => {
    const { state, find } = make();
    await find('one');
    state.answer = down;
    state.nowMs += COOLDOWN_MS;
    expect(await find('two')).toBe('identity_unavailable');
    expect(await find('one')).toBe('public');
  });

  it.each(['', 'null', '[]', '{}', '{"keys":{}}', '{"keys":["x"]}', '{"keys":', '<html>'])('takes %j for no key set, and keeps the one it has', async (text) => {
    const { keys, state, find } = make();
    state.answer = () => text;
    await expect(keys.load()).rejects.toThrow(Error);
    expect(keys.present).toBe(false);
    state.answer = () => JSON.stringify({ keys: [jwk] });
    state.nowMs += COOLDOWN_MS;
    await find('one');
    state.answer = () => text;
    state.nowMs += FRESH_MS + 1;
    expect(await find('one')).toBe('public');
  });

  it('fetches beforehand only where there is nothing, and never rejects', async () => {
    const { keys, state } = make();
    state.answer = down;
    await keys.prefetch();
    expect(keys.present).toBe(false);
    state.answer = () => JSON.stringify({ keys: [jwk] });
    state.nowMs += COOLDOWN_MS;
    await keys.prefetch();
    await keys.prefetch();
    expect([keys.present, state.fetches.length]).toEqual([true, 2]);
  });
});
