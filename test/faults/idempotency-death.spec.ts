import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { ledgerOf, runningCalls, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually, HELLO } from '../support/harness.ts';
import { expectError } from '../support/wire.ts';

// A process that dies has claimed keys that nobody will finish. Its calls may have been billed, so they must not be made again under these keys.

const CALLS = 20;
const SCRIPT = { output_tokens: 400, token_interval_ms: 50, reasoning_tokens: 0 };

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 100n * USD);
});
afterAll(async () => {
  await rig.close();
});

function call(gateway: GatewayProcess, token: string, key: string, body: Record<string, unknown> = {}): Promise<Response> {
  return fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'idempotency-key': key }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO, x_emulator: SCRIPT, ...body }),
  });
}

it('kill -9 in the middle of calls with a key: a repeat is told that they run, after the sweep that their result is lost, and is never a second call or charge', async () => {
  const token = await rig.token();
  const dying = await rig.start();
  const short = { x_emulator: { content: 'Before the end.' } };
  const ended = await (await call(dying, token, 'ended', short)).text();
  expect(ended).toContain('Before the end.');
  const keys = Array.from({ length: CALLS }, (_, index) => `key-${index}`);
  const streams = keys.map((key, index) => call(dying, token, key, { stream: index % 2 === 0 }).then((response) => response.text()).then(() => 'ended', () => 'broken'));
  await eventually(() => runningCalls(rig.emulator).filter(({ framesSent }) => framesSent > 3).length === CALLS, 10_000);
  dying.kill('SIGKILL');
  expect(await dying.exited).toEqual({ code: null, signal: 'SIGKILL' });
  expect(await Promise.all(streams)).toEqual(keys.map(() => 'broken'));
  await eventually(() => runningCalls(rig.emulator).length === 0);
  const bill = rig.emulator.billedUsdTicks();
  expect(rig.emulator.calls).toHaveLength(CALLS + 1);

  const next = await rig.start();
  // What had ended is answered by a process that never saw it.
  const again = await call(next, token, 'ended', short);
  expect([again.status, again.headers.get('idempotent-replayed'), await again.text()]).toEqual([200, 'true', ended]);
  // Whether the other process is dead is not yet known.
  const early = await call(next, token, keys[0]!);
  expect(early.headers.get('retry-after')).toMatch(/^\d+$/);
  await expectError(early, 409, 'idempotency_conflict');
  expect((await ledgerOf(rig.db)).open).toBe(CALLS);

  await eventually(async () => (await ledgerOf(rig.db)).open === 0, 90_000);
  const charged = await ledgerOf(rig.db);
  expect(charged.calls).toBe(CALLS + 1);
  for (const [index, key] of keys.entries()) {
    for (const stream of [index % 2 === 0, index % 2 !== 0]) {
      const repeat = await call(next, token, key, { stream });
      expect([repeat.headers.get('retry-after'), repeat.headers.get('x-should-retry'), repeat.headers.get('idempotent-replayed')]).toEqual([null, 'false', null]);
      expect((await expectError(repeat, 409, 'idempotency_conflict')).message).toContain('Use a new key');
    }
    await expectError(await call(next, token, key, { max_tokens: 5 }), 409, 'idempotency_conflict');
  }
  expect(rig.emulator.calls).toHaveLength(CALLS + 1);
  expect(rig.emulator.billedUsdTicks()).toBe(bill);
  const after = await ledgerOf(rig.db);
  expect(after).toEqual(charged);
  expect(after.chargedTicks).toBeGreaterThanOrEqual(bill);
  const { rows } = await rig.db.query<{ state: string; calls: number }>('SELECT state, count(*)::int AS calls FROM settlements GROUP BY state ORDER BY state');
  expect(rows).toEqual([{ state: 'expired_charged', calls: CALLS }, { state: 'settled', calls: 1 }]);

  // A new key makes the call; and the dead process' keys were the only ones it held.
  expect(await (await call(next, token, 'new', short)).text()).toContain('Before the end.');
  expect(rig.emulator.calls).toHaveLength(CALLS + 2);
  await eventually(async () => (await ledgerOf(rig.db)).open === 0);
  const sums = await ledgerOf(rig.db);
  expect([sums.heldTicks, sums.spentTicks]).toEqual([0n, sums.chargedTicks]);
}, 150_000);
