import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { connect, type Socket } from 'node:net';
import { allEvents, complete, expectBooksClosed, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually } from '../support/harness.ts';

// The gateway in a process of its own; attacker and callers share this one with the emulated provider, so the latencies are upper bounds.

const ATTACK = { perSecond: 2_000, seconds: 5, sockets: 8 };
const TICK_MS = 10;
const GOOD_PER_SECOND = 20;
const P99_MOST_MS = 250;

let rig: Rig;
let gateway: GatewayProcess;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 100n * USD);
  gateway = await rig.start();
  await (await complete(gateway.url, { token: await rig.token() })).text();
});
afterAll(() => rig.close());

/** An attacker's socket: sends forged tokens one after another, and counts the answers by status. */
function attackerSocket(url: string, statuses: Map<string, number>): Promise<Socket> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => resolve(socket));
    socket.on('error', reject);
    let rest = '';
    socket.on('data', (bytes: Buffer) => {
      const text = rest + bytes.toString('latin1');
      for (const [, status] of text.matchAll(/HTTP\/1\.1 (\d{3}) /g)) statuses.set(status!, (statuses.get(status!) ?? 0) + 1);
      rest = text.slice(text.lastIndexOf('HTTP/1.1') + 'HTTP/1.1 000 '.length).slice(-12);
    });
  });
}

function total(statuses: ReadonlyMap<string, number>): number {
  return [...statuses.values()].reduce((sum, count) => sum + count, 0);
}

/** The flood: `ATTACK.perSecond` requests a second, caught up with where the loop was late. */
async function attack(url: string, forged: string): Promise<Map<string, number>> {
  const statuses = new Map<string, number>();
  const sockets = await Promise.all(Array.from({ length: ATTACK.sockets }, () => attackerSocket(url, statuses)));
  const whole = ATTACK.perSecond * ATTACK.seconds;
  const startedMs = performance.now();
  let sent = 0;
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const due = Math.min(whole, Math.floor(((performance.now() - startedMs) / 1_000) * ATTACK.perSecond));
      for (; sent < due; sent += 1) sockets[sent % sockets.length]!.write(`GET /v1/models HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${forged}\r\n\r\n`);
      if (sent < whole) return;
      clearInterval(timer);
      resolve();
    }, TICK_MS);
  });
  await eventually(() => total(statuses) === whole, 20_000);
  for (const socket of sockets) socket.destroy();
  return statuses;
}

async function goodCalls(url: string, token: string): Promise<{ status: number; ms: number }[]> {
  const calls: Promise<{ status: number; ms: number }>[] = [];
  for (let call = 0; call < GOOD_PER_SECOND * ATTACK.seconds; call += 1) {
    const startedMs = performance.now();
    calls.push(complete(url, { token, stream: call % 2 === 0 }).then(async (response) => {
      await response.text();
      return { status: response.status, ms: performance.now() - startedMs };
    }));
    await new Promise((resolve) => setTimeout(resolve, 1_000 / GOOD_PER_SECOND));
  }
  return Promise.all(calls);
}

it('2,000 forged tokens a second for 5 s delay no good call and cost none of their records; each refusal is recorded or counted exactly once', async () => {
  const token = await rig.token();
  rig.emulator.reset();
  const forged = `${token.slice(0, -8)}AAAAAAAA`;
  const [statuses, good] = await Promise.all([attack(gateway.url, forged), goodCalls(gateway.url, token)]);

  expect(good.filter(({ status }) => status !== 200)).toEqual([]);
  const latencies = good.map(({ ms }) => ms).toSorted((a, b) => a - b);
  const p99 = latencies[Math.ceil(latencies.length * 0.99) - 1]!;
  process.stdout.write(`figure: good calls during the attack: p50 ${latencies[latencies.length >> 1]!.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms\n`);
  expect(p99).toBeLessThan(P99_MOST_MS);
  expect(rig.emulator.calls).toHaveLength(good.length);
  await eventually(async () => (await rig.db.query('SELECT 1 FROM holds')).rowCount === 0);
  const sums = await expectBooksClosed(rig.db);
  expect(sums.calls).toBe(good.length + 1); // and the one of the warm-up

  expect([...statuses.keys()].toSorted()).toEqual(['401', '429']);
  const recorded = await eventually(async () => {
    const refusals = (await allEvents(rig.db)).filter(({ unmapped: { novix } }) => novix.phase === 'refusal');
    const aggregates = refusals.filter(({ unmapped: { novix } }) => novix.aggregate !== undefined);
    const byCode = new Map<string, number>();
    for (const { status_code: code, unmapped: { novix } } of refusals) byCode.set(code!, (byCode.get(code!) ?? 0) + (novix.aggregate?.count ?? 1));
    return total(byCode) >= total(statuses) && { byCode, single: refusals.length - aggregates.length, aggregates: aggregates.length };
  });
  expect(Object.fromEntries(recorded.byCode)).toEqual({ invalid_token: statuses.get('401'), rate_limit_exceeded: statuses.get('429') });
  expect(recorded.single).toBeLessThan(1_000); // an attacker cannot fill the log
  expect(recorded.aggregates).toBeLessThan(50);
});
