import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { complete, expectBooksClosed, ledgerOf, USD } from '../support/calls.ts';
import { startRig, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const STREAMS = 5;
const EXIT_MS = 20_000;

let rig: Rig;
let proxy: TcpProxy;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 100n * USD);
  proxy = await startTcpProxy(rig.databaseUrl);
});
afterAll(async () => {
  await rig.close();
  await proxy.close();
});

it('SIGTERM while PostgreSQL is away: streams end in an error, their outcomes stay in the spool, the process ends by itself, and the next start settles them', async () => {
  const token = await rig.token();
  const gateway = await rig.start({ DATABASE_URL: proxy.url });
  const script = { output_tokens: 40, token_interval_ms: 40, reasoning_tokens: 0 };
  const responses = await Promise.all(Array.from({ length: STREAMS }, () => complete(gateway.url, { token, script, stream: true })));
  proxy.sever();
  gateway.kill('SIGTERM');
  const stoppedMs = performance.now();
  for (const response of responses) expect(await response.text()).not.toContain('[DONE]');
  expect(await gateway.exited).toEqual({ code: 0, signal: null });
  expect(performance.now() - stoppedMs).toBeLessThan(EXIT_MS);
  expect(await readdir(join(rig.dir, 'spool'))).toHaveLength(1);
  expect((await ledgerOf(rig.db)).open).toBe(STREAMS);

  // It could not say that it has stopped, so its heartbeat would have to run out first; that wait has a test of its own.
  await rig.db.query('UPDATE replicas SET stopped_at = now()');
  await rig.start();
  await eventually(async () => (await readdir(join(rig.dir, 'spool'))).length === 0, 15_000);
  const sums = await expectBooksClosed(rig.db);
  expect(sums.calls).toBe(STREAMS);
  expect(sums.chargedTicks).toBe(rig.emulator.billedUsdTicks());
}, 60_000);
