import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { complete, expectBooksClosed, ledgerOf, USD } from '../support/calls.ts';
import { startRig, type GatewayProcess, type Rig } from '../support/gateway-process.ts';
import { eventually, HELLO } from '../support/harness.ts';

// Memory of the gateway, in a process of its own, as Linux counts it.

const MB = 1_000_000;
const SLOW = { frames: 4_000, frameBytes: 50_000, growthMostBytes: 150 * MB, unreadMs: 3_000 };
const MANY = { streams: 1_000, frames: 250, intervalMs: 20, bytesEachMost: 200_000 };

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
      if (tail.endsWith('0\r\n\r\n')) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve({ whole: tail.includes('data: [DONE]\n\n'), frames }));
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  });
}

it('1,000 streams at once at 50 frames a second all end whole, at no more than 200 kB of memory each', async () => {
  const memory = watchMemory();
  const startedMs = performance.now();
  const streams = await Promise.all(Array.from({ length: MANY.streams }, () => readStream()));
  const seconds = (performance.now() - startedMs) / 1_000;
  const bytesEach = memory.stop() / MANY.streams;
  process.stdout.write(`figure: ${MANY.streams} streams of ${MANY.frames} frames took ${seconds.toFixed(1)} s (${((MANY.frames * MANY.intervalMs) / 1_000).toFixed(1)} s at the provider's pace), ${(bytesEach / 1_000).toFixed(0)} kB of gateway memory each\n`);

  expect(streams.filter(({ whole }) => !whole)).toEqual([]);
  expect(streams.every(({ frames }) => frames === MANY.frames + 1)).toBe(true); // and the frame with the finish reason
  expect(bytesEach).toBeLessThanOrEqual(MANY.bytesEachMost);
  expect((await ledgerOf(rig.db)).open).toBe(0);
  await eventually(async () => (await expectBooksClosed(rig.db)).calls > MANY.streams);
}, 60_000);
