import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { admittedCalls, allEvents, complete, expectBooksClosed, ledgerOf, runningCalls, USD } from '../support/calls.ts';
import { startRig, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';

const STREAMS = 100;
const TOKENS = 400;

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 100n * USD);
});
afterAll(() => rig.close());

// The next process may take the dead one's calls for orphans only after its heartbeat has been missing for 30 s; hence the length of this test.
it('kill -9 in the middle of 100 streams leaves each upstream call with one intent and one outcome, and within 90 s no hold is open', async () => {
  const first = await rig.start();
  const token = await rig.token();
  const done = await complete(first.url, { token }); // one that has ended before
  await done.text();
  const script = { output_tokens: TOKENS, token_interval_ms: 50, reasoning_tokens: 0 };
  const streams = Array.from({ length: STREAMS }, () => complete(first.url, { token, script, stream: true }).then((response) => response.text()).then(() => 'ended', () => 'broken'));
  await eventually(() => runningCalls(rig.emulator).filter(({ framesSent }) => framesSent > 3).length === STREAMS, 10_000);

  first.kill('SIGKILL');
  const killedMs = performance.now();
  expect(await first.exited).toEqual({ code: null, signal: 'SIGKILL' });
  expect(await Promise.all(streams)).toEqual(Array.from({ length: STREAMS }, () => 'broken'));
  await eventually(() => runningCalls(rig.emulator).length === 0);
  expect((await ledgerOf(rig.db)).open).toBe(STREAMS);

  const second = await rig.start();
  const fresh = await complete(second.url, { token, script: { output_tokens: TOKENS, token_interval_ms: 100 }, stream: true }); // the living are left alone
  await eventually(async () => (await ledgerOf(rig.db)).open === 1, 90_000);
  process.stdout.write(`figure: orphaned holds of a killed process closed after ${((performance.now() - killedMs) / 1000).toFixed(1)} s\n`);
  expect(await fresh.text()).toContain('[DONE]');

  const calls = await admittedCalls(rig.db);
  expect(calls.size).toBe(rig.emulator.calls.length);
  const outcomes = [...calls.values()].map(({ outcomes: [outcome] }) => outcome).toSorted();
  expect(outcomes).toEqual([...Array.from({ length: 2 }, () => 'completed'), ...Array.from({ length: STREAMS }, () => 'unknown')]);
  const sums = await expectBooksClosed(rig.db);
  expect(sums.chargedTicks).toBeGreaterThanOrEqual(rig.emulator.billedUsdTicks()); // what the provider may have billed is paid for
  const unknown = (await allEvents(rig.db)).filter(({ unmapped: { novix } }) => novix.outcome === 'unknown');
  expect(new Set(unknown.map(({ unmapped: { novix } }) => novix.charge!.basis))).toEqual(new Set(['hold']));
}, 120_000);
