import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { admittedCalls, allEvents, complete, expectBooksClosed, ledgerOf, runningCalls, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

// Two deaths at once, since the next process may take the dead ones' calls for orphans only after their heartbeats have been missing for 30 s.

const STREAMS = 100;
const SPOOLED = 10;

let rig: Rig;
let proxy: TcpProxy;
beforeAll(async () => {
  rig = await startRig();
  proxy = await startTcpProxy(rig.databaseUrl);
  await rig.addTenant('acme', 100n * USD);
  await rig.addTenant('globex', 100n * USD);
});
afterAll(async () => {
  await rig.close();
  await proxy.close();
});

async function spoolFiles(): Promise<string[]> {
  return readdir(join(rig.dir, 'spool'));
}

/** Dies by kill -9 in the middle of 100 streams of acme. */
async function dieStreaming(gateway: GatewayProcess, token: string): Promise<void> {
  await (await complete(gateway.url, { token })).text(); // one that has ended before
  const script = { output_tokens: 400, token_interval_ms: 50, reasoning_tokens: 0 };
  const streams = Array.from({ length: STREAMS }, () => complete(gateway.url, { token, script, stream: true }).then((response) => response.text()).then(() => 'ended', () => 'broken'));
  await eventually(() => runningCalls(rig.emulator).filter(({ framesSent }) => framesSent > 3).length === STREAMS, 10_000);
  gateway.kill('SIGKILL');
  expect(await gateway.exited).toEqual({ code: null, signal: 'SIGKILL' });
  expect(await Promise.all(streams)).toEqual(Array.from({ length: STREAMS }, () => 'broken'));
  await eventually(() => runningCalls(rig.emulator).length === 0);
}

/** Loses its database, finishes 10 streams of globex into its spool, and dies by kill -9 before the database is back. */
async function dieCutOff(gateway: GatewayProcess, token: string): Promise<bigint> {
  const billedBefore = rig.emulator.billedUsdTicks();
  const script = { output_tokens: 40, token_interval_ms: 40, reasoning_tokens: 0 };
  const responses = await Promise.all(Array.from({ length: SPOOLED }, () => complete(gateway.url, { token, script, stream: true })));
  proxy.sever();
  for (const response of responses) expect(await response.text()).not.toContain('[DONE]');
  gateway.kill('SIGKILL');
  await gateway.exited;
  expect(await spoolFiles()).toHaveLength(1);
  return rig.emulator.billedUsdTicks() - billedBefore;
}

it('kill -9 in the middle of 100 streams leaves each upstream call with one intent and one outcome; spooled outcomes are adopted; within 90 s no hold is open', async () => {
  const [streaming, cutOff] = await Promise.all([rig.start(), rig.start({ DATABASE_URL: proxy.url })]);
  const [acme, globex] = await Promise.all([rig.token(), rig.token({ tenant: 'globex' })]);
  await dieStreaming(streaming, acme);
  const globexBill = await dieCutOff(cutOff, globex);
  const acmeBill = rig.emulator.billedUsdTicks() - globexBill;
  const deadMs = performance.now();
  expect((await ledgerOf(rig.db, 'acme')).open).toBe(STREAMS);
  expect((await ledgerOf(rig.db, 'globex')).open).toBe(SPOOLED);

  const next = await rig.start();
  const living = new AbortController();
  const stream = await complete(next.url, { token: acme, script: { output_tokens: 400, token_interval_ms: 200 }, stream: true, signal: living.signal });
  await eventually(async () => (await ledgerOf(rig.db, 'acme')).open === 1 && (await ledgerOf(rig.db, 'globex')).open === 0, 90_000);
  process.stdout.write(`figure: calls of killed processes closed after ${((performance.now() - deadMs) / 1000).toFixed(1)} s\n`);
  await eventually(async () => (await spoolFiles()).length === 0);
  living.abort(); // a call of the living was left alone
  await expect(stream.text()).rejects.toThrow('aborted');
  await eventually(async () => (await ledgerOf(rig.db, 'acme')).open === 0);

  const calls = await admittedCalls(rig.db);
  expect(calls.size).toBe(rig.emulator.calls.length);
  const acmeSums = await expectBooksClosed(rig.db, 'acme');
  expect(acmeSums.chargedTicks).toBeGreaterThanOrEqual(acmeBill); // what the provider may have billed is paid for
  const globexSums = await expectBooksClosed(rig.db, 'globex');
  expect(globexSums.chargedTicks).toBe(globexBill); // the truth was in the spool

  const unknown = (await allEvents(rig.db)).filter(({ metadata, unmapped: { novix } }) => metadata.tenant_uid === 'acme' && novix.outcome === 'unknown');
  expect(unknown.map(({ unmapped: { novix } }) => novix.charge!.basis)).toEqual(Array.from({ length: STREAMS }, () => 'hold'));
  const { rows } = await rig.db.query<{ state: string; calls: number }>('SELECT state, count(*)::int AS calls FROM settlements GROUP BY state ORDER BY state');
  expect(rows).toEqual([{ state: 'expired_charged', calls: STREAMS }, { state: 'settled', calls: SPOOLED + 2 }]);
}, 150_000);
