import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { request, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { allEvents, complete, expectBooksClosed, ledgerOf, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually, HELLO } from '../support/harness.ts';

// All that is heavy, in one file, so that no two of these run at once. The gateway has a process of its own; callers, attackers and the emulated
// provider share this one and two cores with it, so the latencies are upper bounds. Memory is the gateway's, as Linux counts it.

const MB = 1_000_000;
const SLOW = { frames: 4_000, frameBytes: 50_000, growthMostBytes: 150 * MB, unreadMs: 3_000 };
const ATTACK = { perSecond: 2_000, seconds: 5, sockets: 8, unansweredMost: 100, tickMs: 10 };
const GOOD = { perSecond: 20, p99MostMs: 1_000 };
const MANY = { streams: 1_000, frames: 250, intervalMs: 20, openedInMs: 1_000, bytesEachMost: 200_000 };

let rig: Rig;
let gateway: GatewayProcess;
let token: string;
beforeAll(async () => {
  rig = await startRig();
  await rig.addTenant('acme', 1_000n * USD, 'government');
  gateway = await rig.start();
  token = await rig.token();
  // What a process grows to by merely being used is not what is measured.
  for (let turn = 0; turn < 10; turn += 1) await Promise.all(Array.from({ length: 50 }, async (_, call) => (await complete(gateway.url, { token, stream: call % 2 === 0 })).text()));
});
afterAll(() => rig.close());
beforeEach(() => rig.emulator.reset());

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

/** The flood: `ATTACK.perSecond` requests a second, or as many as the machine answers. */
async function attack(url: string, forged: string): Promise<{ statuses: Map<string, number>; perSecond: number }> {
  const statuses = new Map<string, number>();
  const sockets = await Promise.all(Array.from({ length: ATTACK.sockets }, () => attackerSocket(url, statuses)));
  const whole = ATTACK.perSecond * ATTACK.seconds;
  const startedMs = performance.now();
  let sent = 0;
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const due = Math.min(whole, Math.floor(((performance.now() - startedMs) / 1_000) * ATTACK.perSecond));
      for (; sent < due && sent - total(statuses) < ATTACK.unansweredMost; sent += 1) sockets[sent % sockets.length]!.write(`GET /v1/models HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${forged}\r\n\r\n`);
      if (sent < whole) return;
      clearInterval(timer);
      resolve();
    }, ATTACK.tickMs);
  });
  await eventually(() => total(statuses) === whole, 20_000);
  for (const socket of sockets) socket.destroy();
  return { statuses, perSecond: (whole * 1_000) / (performance.now() - startedMs) };
}

async function goodCalls(url: string, token: string, seconds: number): Promise<{ status: number; ms: number }[]> {
  const calls: Promise<{ status: number; ms: number }>[] = [];
  for (let call = 0; call < GOOD.perSecond * seconds; call += 1) {
    const startedMs = performance.now();
    calls.push(complete(url, { token, stream: call % 2 === 0 }).then(async (response) => {
      await response.text();
      return { status: response.status, ms: performance.now() - startedMs };
    }));
    await new Promise((resolve) => setTimeout(resolve, 1_000 / GOOD.perSecond));
  }
  return Promise.all(calls);
}

function latencyOf(calls: readonly { ms: number }[]): { p50: number; p99: number } {
  const sorted = calls.map(({ ms }) => ms).toSorted((a, b) => a - b);
  const at = (share: number): number => Math.round(sorted[Math.ceil(sorted.length * share) - 1]!);
  return { p50: at(0.5), p99: at(0.99) };
}

it('2,000 forged tokens a second for 5 s delay no good call and cost none of their records; each refusal is recorded or counted exactly once', async () => {
  const forged = `${token.slice(0, -8)}AAAAAAAA`;
  const calm = latencyOf(await goodCalls(gateway.url, token, 2));
  const before = await ledgerOf(rig.db);
  rig.emulator.reset();
  const cpuBeforeMs = gateway.cpuMs();
  const [{ statuses, perSecond }, good] = await Promise.all([attack(gateway.url, forged), goodCalls(gateway.url, token, ATTACK.seconds)]);

  const cpuMs = gateway.cpuMs() - cpuBeforeMs;
  expect(good.filter(({ status }) => status !== 200)).toEqual([]);
  const attacked = latencyOf(good);
  process.stdout.write(`figure: good calls: p50 ${calm.p50} ms, p99 ${calm.p99} ms; under ${perSecond.toFixed(0)} refusals a second: p50 ${attacked.p50} ms, p99 ${attacked.p99} ms; ${((cpuMs * 1_000) / total(statuses)).toFixed(0)} µs of CPU a refusal\n`);
  expect(attacked.p99).toBeLessThan(Math.max(GOOD.p99MostMs, 5 * calm.p99)); // the latter where the machine is busy with other things
  expect(rig.emulator.calls).toHaveLength(good.length);
  await eventually(async () => (await rig.db.query('SELECT 1 FROM holds')).rowCount === 0);
  const sums = await expectBooksClosed(rig.db);
  expect(sums.calls - before.calls).toBe(good.length);

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

/** Samples the gateway's memory until `stop`, which gives the growth at its highest. */
function watchMemory(): { stop(): number } {
  const before = gateway.residentBytes();
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, gateway.residentBytes());
  }, 50);
  return {
    stop: () => {
      clearInterval(timer);
      return Math.max(most, gateway.residentBytes()) - before;
    },
  };
}

/** One stream on a socket of its own, read as cheaply as can be: many of them share two cores with all else. */
function readStream(): Promise<{ whole: boolean; frames: number }> {
  const { hostname, port } = new URL(gateway.url);
  const body = JSON.stringify({ model: 'grok-beta', stream: true, messages: HELLO, x_emulator: { output_tokens: MANY.frames, token_interval_ms: MANY.intervalMs, reasoning_tokens: 0 } });
  return new Promise((resolve) => {
    let [frames, tail] = [0, ''];
    const socket = connect(Number(port), hostname);
    socket.on('data', (bytes: Buffer) => {
      const text = bytes.toString('latin1');
      for (let at = text.indexOf('data: {"id"'); at !== -1; at = text.indexOf('data: {"id"', at + 1)) frames += 1;
      tail = (tail + text).slice(-64);
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve({ whole: tail.includes('data: [DONE]\n\n'), frames }));
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${token}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  });
}

it('1,000 streams at once at 50 frames a second all end whole, at no more than 200 kB of memory each', async () => {
  const memory = watchMemory();
  const startedMs = performance.now();
  const streams = await Promise.all(Array.from({ length: MANY.streams }, async (_, stream) => {
    await new Promise((resolve) => setTimeout(resolve, (stream * MANY.openedInMs) / MANY.streams));
    return readStream();
  }));
  const seconds = (performance.now() - startedMs) / 1_000;
  const bytesEach = memory.stop() / MANY.streams;
  process.stdout.write(`figure: ${MANY.streams} streams of ${MANY.frames} frames took ${seconds.toFixed(1)} s (${((MANY.frames * MANY.intervalMs) / 1_000).toFixed(1)} s at the provider's pace), ${(bytesEach / 1_000).toFixed(0)} kB of gateway memory each\n`);

  expect(streams.filter(({ whole }) => !whole)).toEqual([]);
  expect(streams.every(({ frames }) => frames === MANY.frames + 1)).toBe(true); // and the frame with the finish reason
  expect(bytesEach).toBeLessThanOrEqual(MANY.bytesEachMost);
  expect((await ledgerOf(rig.db)).open).toBe(0);
  await eventually(async () => (await expectBooksClosed(rig.db)).calls > MANY.streams);
}, 60_000);

function openUnread(body: unknown): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const call = request(`${gateway.url}/v1/chat/completions`, { method: 'POST', agent: false, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' } }, resolve);
    call.on('error', reject);
    call.end(JSON.stringify(body));
  });
}

it('a caller who reads nothing of a fast 200 MB answer makes the provider wait, not the gateway’s memory grow, and then gets all of it', async () => {
  const memory = watchMemory();
  const response = await openUnread({ model: 'grok-beta', stream: true, messages: HELLO, x_emulator: { output_tokens: SLOW.frames, frame_bytes: SLOW.frameBytes, reasoning_tokens: 0 } });
  expect(response.statusCode).toBe(200);
  await new Promise((resolve) => setTimeout(resolve, SLOW.unreadMs)); // as long as it takes to fill every buffer there is
  const [call] = rig.emulator.calls;
  const sentUnread = call!.framesSent;
  expect(call!.state).toBe('running');
  expect(sentUnread).toBeLessThan(SLOW.frames / 2);

  let [bytes, frames, tail] = [0, 0, ''];
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length;
    const text = tail.slice(-1) + part.toString('latin1');
    frames += text.split('\n\n').length - 1;
    tail = (tail + part.toString('latin1')).slice(-64);
  }
  const growth = memory.stop();
  process.stdout.write(`figure: unread stream: ${sentUnread} of ${SLOW.frames} frames left the provider, gateway grew by ${(growth / MB).toFixed(0)} MB\n`);
  expect(growth).toBeLessThan(SLOW.growthMostBytes);
  expect(bytes).toBeGreaterThan(SLOW.frames * SLOW.frameBytes);
  expect(frames).toBe(call!.framesSent - 1); // all but the usage frame, which was not asked for
  expect(tail.endsWith('data: [DONE]\n\n')).toBe(true);
  await expectBooksClosed(rig.db);
});
