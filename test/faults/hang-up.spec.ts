import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { connect, type Socket } from 'node:net';
import type { EmulatedCall } from '../../src/sandbox/xai-emulator.ts';
import { complete, expectBooksClosed, ledgerOf, runningCalls } from '../support/calls.ts';
import { eventually, HELLO, startHarness, type Harness } from '../support/harness.ts';
import { settled } from '../support/records.ts';

// The gateway in this process, the caller's socket closed by hand. The emulator notices when its own socket is closed.

const UPSTREAM_CLOSED_MS = 1_000;

let harness: Harness;
let token: string;
beforeAll(async () => {
  harness = await startHarness();
  token = await harness.token();
});
afterAll(() => harness.close());
beforeEach(() => harness.emulator.reset());
afterEach(() => expectBooksClosed(harness.db));

/** A call on a socket of its own, that a caller may drop without a word. */
function callOnSocket(body: Record<string, unknown>): Socket {
  const { hostname, port } = new URL(harness.url);
  const text = JSON.stringify({ model: 'grok-beta', messages: HELLO, ...body });
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  socket.resume();
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  return socket;
}

async function requestIdOf(): Promise<string> {
  const { rows: [row] } = await harness.db.query<{ id: string }>(
    "SELECT event->'metadata'->>'correlation_uid' AS id FROM audit_events WHERE event->'unmapped'->'novix'->>'phase' = 'intent' ORDER BY (event->>'time')::bigint DESC LIMIT 1");
  return row!.id;
}

/** Hangs up and waits until the provider has noticed. */
async function hangUp(socket: Socket): Promise<EmulatedCall> {
  const [call] = runningCalls(harness.emulator);
  const hungUpMs = performance.now();
  socket.destroy();
  await eventually(() => call!.state === 'aborted', UPSTREAM_CLOSED_MS);
  expect(performance.now() - hungUpMs).toBeLessThan(UPSTREAM_CLOSED_MS);
  return call!;
}

/** Waits until no call is under way anywhere. */
async function quiet(): Promise<void> {
  await eventually(async () => runningCalls(harness.emulator).length === 0 && harness.gateway.parts.admission.open === 0 && (await ledgerOf(harness.db)).open === 0);
}

it('a caller who hangs up in mid-stream ends the upstream call within a second, and is charged for what was seen, no less than the provider bills', async () => {
  const socket = callOnSocket({ stream: true, x_emulator: { output_tokens: 400, token_interval_ms: 20, reasoning_tokens: 0 } });
  await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 10));
  const call = await hangUp(socket);
  const record = await settled(harness, await requestIdOf());
  expect(record).toMatchObject({ outcome: 'aborted', basis: 'observed' });
  expect(record.chargedTicks).toBeGreaterThanOrEqual(call.billedUsdTicks);
  expect(record.chargedTicks).toBeLessThan(record.heldTicks);
});

it('a caller who hangs up before the first token is charged the hold, since what the provider thought meanwhile is unknown', async () => {
  const socket = callOnSocket({ stream: true, x_emulator: { first_token_ms: 20_000 } });
  await eventually(() => runningCalls(harness.emulator).length === 1);
  const call = await hangUp(socket);
  const record = await settled(harness, await requestIdOf());
  expect(record).toMatchObject({ outcome: 'aborted', basis: 'hold', chargedTicks: record.heldTicks });
  expect(record.chargedTicks).toBeGreaterThanOrEqual(call.billedUsdTicks);
});

it('a caller who hangs up while a plain answer is being collected ends the upstream call too', async () => {
  const socket = callOnSocket({ x_emulator: { output_tokens: 400, token_interval_ms: 20, reasoning_tokens: 0 } });
  await eventually(() => runningCalls(harness.emulator).some(({ framesSent }) => framesSent > 10));
  const call = await hangUp(socket);
  const record = await settled(harness, await requestIdOf());
  expect(record).toMatchObject({ outcome: 'aborted', basis: 'observed' });
  expect(record.chargedTicks).toBeGreaterThanOrEqual(call.billedUsdTicks);
});

it.each([0, 1, 2, 3, 5, 8])('a caller who is gone %i ms after the last byte of the request leaves no call open, whatever had been sent by then', async (waitMs) => {
  const socket = callOnSocket({ stream: true, x_emulator: { output_tokens: 400, token_interval_ms: 20 } });
  await new Promise<void>((resolve) => {
    socket.once('connect', () => setTimeout(resolve, waitMs));
  });
  const before = await ledgerOf(harness.db);
  socket.destroy();
  await (await complete(harness.url, { token })).text(); // what came before it has been admitted by now, or never is
  await quiet();
  const after = await ledgerOf(harness.db);
  expect(after.chargedTicks - before.chargedTicks).toBeGreaterThanOrEqual(harness.emulator.billedUsdTicks());
});

it('many callers who hang up at random moments leave the books closed, and cost their tenant no less than the provider bills', async () => {
  const before = await ledgerOf(harness.db);
  const outcomes = await Promise.all(Array.from({ length: 200 }, async (_, call) => {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), call % 5 === 0 ? 20_000 : (call * 7) % 600);
    try {
      const response = await complete(harness.url, { token, stream: call % 3 !== 0, script: { output_tokens: 20, token_interval_ms: 8, reasoning_tokens: call % 4 }, signal: controller.signal });
      await response.text();
      return 'whole';
    } catch {
      return 'hung up';
    } finally {
      clearTimeout(timer);
    }
  }));
  expect(outcomes).toContain('whole');
  expect(outcomes).toContain('hung up');
  await quiet();
  const sums = await expectBooksClosed(harness.db);
  expect(sums.chargedTicks - before.chargedTicks).toBeGreaterThanOrEqual(harness.emulator.billedUsdTicks());
});
