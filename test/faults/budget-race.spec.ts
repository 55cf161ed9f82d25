import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { complete, expectBooksClosed, ledgerOf, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';

// Real processes, real PostgreSQL. The provider prices every call at one cent.

const CALLS = 400;
const CENT = 100_000_000;
const LIMIT = USD;

let rig: Rig;
let gateways: GatewayProcess[];
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('one', LIMIT);
  await rig.addTenant('two', LIMIT);
  gateways = await Promise.all([rig.start(), rig.start()]);
});
afterAll(() => rig.close());

async function race(tenant: string, urls: readonly string[]): Promise<Response[]> {
  rig.emulator.reset();
  const token = await rig.token({ tenant, subject: `dev@${tenant}.example` });
  // Answers take a moment, so that all calls are under way at once and none is paid before the others ask.
  const script = { cost_usd_ticks: CENT, output_tokens: 4, reasoning_tokens: 0, first_token_ms: 300 };
  return Promise.all(Array.from({ length: CALLS }, (_, call) => complete(urls[call % urls.length]!, { token, script, stream: call % 2 === 0 }).then(async (response) => {
    await response.text();
    return response;
  })));
}

it.each([['one', 1], ['two', 2]])('400 calls of a cent at once cost tenant %s, with %i gateway process(es), no more than its budget of a dollar; the rest get 402', async (tenant, processes) => {
  const answers = await race(tenant, gateways.slice(0, processes).map(({ url }) => url));

  const statuses = answers.map(({ status }) => status);
  const served = statuses.filter((status) => status === 200).length;
  expect(statuses.filter((status) => status !== 200 && status !== 402)).toEqual([]);
  expect(served).toBeGreaterThanOrEqual(50); // a hold is dearer than a cent, but not twice as dear
  expect(served).toBeLessThanOrEqual(100);
  expect(rig.emulator.calls).toHaveLength(served);

  const sums = await eventually(async () => {
    const now = await ledgerOf(rig.db, tenant);
    return now.open === 0 && now;
  });
  await expectBooksClosed(rig.db, tenant);
  expect(sums.calls).toBe(served);
  expect(sums.spentTicks).toBeLessThanOrEqual(LIMIT);
  expect(sums.chargedTicks).toBe(rig.emulator.billedUsdTicks());
});
