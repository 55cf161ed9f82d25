import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { eventually, PROVIDER_KEY, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, ticksOf, type Settled } from '../../support/records.ts';
import { expectError, framesOf, type ErrorAnswer } from '../../support/wire.ts';

// What the caller is told when the provider fails, and what the ledger charges for it. Every failure is played by the emulator over real HTTP.

const FIRST_BYTE_MS = 600;
const IDLE_MS = 500;

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness({ env: { XAI_FIRST_BYTE_TIMEOUT_MS: String(FIRST_BYTE_MS), XAI_IDLE_TIMEOUT_MS: String(IDLE_MS), XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '100000' } });
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => harness.emulator.reset());

type Basis = 'free' | 'observed' | 'hold';

/** The charge must fit its basis, and never exceed the hold. */
function expectCharge(record: Settled, basis: Basis): void {
  const { outcome, chargedTicks, heldTicks } = record;
  const fits = { free: chargedTicks === 0n, observed: chargedTicks > 0n && chargedTicks < heldTicks, hold: chargedTicks === heldTicks }[basis];
  expect({ outcome, basis: record.basis, fits, chargedTicks, heldTicks }).toEqual({ outcome: 'failed', basis, fits: true, chargedTicks, heldTicks });
}

/** Nothing of what the provider, its network or its team said reaches the caller. */
function expectOwnWords(text: string): void {
  expect(text).not.toMatch(/6f0a3d52|console\.x\.ai|DOCTYPE|Error code|credits or reached|did not respond|Incorrect API key/i);
  expect(text).not.toContain(PROVIDER_KEY);
}

/** Before the first byte: a status, in plain answers and in streams alike. */
const BEFORE_ANY_BYTE: [string, EmulatorScript, number, string, Basis][] = [
  ['a wrong key (the provider says 400)', { status: 400, body: { code: 'invalid-argument', error: 'Incorrect API key provided. You can obtain an API key from https://console.x.ai.' } }, 502, 'provider_bad_response', 'free'],
  ['no credentials (401)', { status: 401 }, 502, 'provider_bad_response', 'free'],
  ['credits used up (403)', { status: 403 }, 502, 'provider_bad_response', 'free'],
  ['500', { status: 500 }, 503, 'provider_unavailable', 'free'],
  ['502', { status: 502 }, 503, 'provider_unavailable', 'free'],
  ['503', { status: 503 }, 503, 'provider_unavailable', 'free'],
  ['503 in HTML', { status: 503, html: true }, 503, 'provider_unavailable', 'free'],
  ['503 with an empty object', { status: 503, body: {} }, 503, 'provider_unavailable', 'free'],
  ['503 with a bare string', { status: 503, body: 'overloaded' }, 503, 'provider_unavailable', 'free'],
  ['520 of the network in HTML', { html: true }, 503, 'provider_unavailable', 'free'],
  ['529', { status: 529 }, 503, 'provider_unavailable', 'free'],
  ['504', { status: 504 }, 504, 'provider_timeout', 'free'],
  ['an overload told as 200', { ok_with_error: true }, 502, 'provider_bad_response', 'free'],
  ['200 with another error', { status: 200, body: { error: { message: 'oops', type: 'server_error' } } }, 502, 'provider_bad_response', 'free'],
  ['a status that makes no sense', { status: 418 }, 502, 'provider_bad_response', 'free'],
  ['a redirect, which is not followed', { status: 302, body: {} }, 502, 'provider_bad_response', 'free'],
  ['an error frame before any output', { error_frame_after: 0 }, 502, 'provider_bad_response', 'free'],
  ['a connection cut before any output', { cut_after: 0 }, 503, 'provider_unavailable', 'hold'],
  ['silence before the headers', { stall_before_headers: true }, 504, 'provider_timeout', 'hold'],
  ['silence after the headers', { stall_after: 0 }, 504, 'provider_timeout', 'hold'],
];

describe('a failure before the first byte of the answer has a status of its own', () => {
  it.each(BEFORE_ANY_BYTE.flatMap((row) => [[...row, false] as const, [...row, true] as const]).map(([name, ...rest]) => [`${name}, ${rest.at(-1) ? 'streamed' : 'plain'}`, ...rest] as const))('%s', async (_, script, status, code, basis, stream) => {
    const response = await harness.complete({ stream, x_emulator: script });
    const error = await expectError(response, status, code);
    expect(error).toMatchObject({ type: 'api_error', param: null });
    expectOwnWords(error.message);
    expect(response.headers.get('x-should-retry')).toBeNull();
    expect(response.headers.get('retry-after') ?? 'none').toMatch(status === 503 ? /^([1-9]|[1-5]\d|60)$/ : /^(none|[1-9]|[1-5]\d|60)$/);
    expectCharge(await settled(harness, response.headers.get('x-request-id')), basis);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it('passes the provider’s retry-after on, a minute at most', async () => {
    expect((await harness.complete({ x_emulator: { status: 503, retry_after: 9 } })).headers.get('retry-after')).toBe('9');
    expect((await harness.complete({ x_emulator: { status: 503, retry_after: 900 } })).headers.get('retry-after')).toBe('60');
  });

  it('the record knows the attempt: which deployment, which status', async () => {
    const response = await harness.complete({ x_emulator: { status: 503 } });
    const outcome = await eventOf(harness, response.headers.get('x-request-id'), 'outcome');
    expect(outcome).toMatchObject({ status_code: 'provider_unavailable', api: { response: { code: 503 } }, unmapped: { novix: { attempts: [{ deployment: 'xai', status: 503, errorCode: 'provider_unavailable' }] } } });
  });
});

/** After the first byte the stream carries the error; a plain answer has had no byte yet, so it still has a status. */
const MID_STREAM: [string, EmulatorScript, number, string][] = [
  ['an error frame, flat', { error_frame_after: 3 }, 502, 'provider_bad_response'],
  ['an error frame, nested', { error_frame_after: 3, error_shape: 'nested' }, 502, 'provider_bad_response'],
  ['the connection cut between frames', { cut_after: 3 }, 502, 'provider_bad_response'],
  ['the connection cut in the middle of a frame', { cut_after: 3, cut_mid_frame: true }, 502, 'provider_bad_response'],
  ['silence', { stall_after: 3 }, 504, 'provider_timeout'],
];

describe('a failure in the middle of the answer', () => {
  it.each(MID_STREAM)('ends a stream with an error frame, without [DONE] or a finish_reason: %s', async (_, script, __, code) => {
    const response = await harness.complete({ stream: true, stream_options: { include_usage: true }, x_emulator: { output_tokens: 12, ...script } });
    expect(response.status).toBe(200);
    const text = await response.text();
    const frames = framesOf(text);
    expect(text.endsWith('\n\n')).toBe(true);
    expect(frames).toHaveLength(4);
    for (const frame of frames.slice(0, 3)) expect(JSON.parse(frame.slice(6))).toMatchObject({ choices: [{ delta: { content: expect.any(String) } }] });
    const { error } = JSON.parse(frames[3]!.slice(6)) as ErrorAnswer;
    expect(error).toEqual({ message: expect.any(String), type: 'api_error', code, param: null });
    expectOwnWords(text);
    expect(text).not.toContain('[DONE]');
    expect(text).not.toContain('finish_reason');
    const record = await settled(harness, response.headers.get('x-request-id'));
    expectCharge(record, 'observed');
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'outcome')).status_code).toBe(code);
  });

  it.each(MID_STREAM)('is a status where the answer is plain: %s', async (_, script, status, code) => {
    const response = await harness.complete({ x_emulator: { output_tokens: 12, ...script } });
    const error = await expectError(response, status, code);
    expect(error.type).toBe('api_error');
    expectOwnWords(error.message);
    expectCharge(await settled(harness, response.headers.get('x-request-id')), 'observed');
  });

  it('never charges less than the provider bills for the part that came', async () => {
    for (const script of [{ error_frame_after: 40 }, { cut_after: 40 }, { stall_after: 40 }]) {
      harness.emulator.reset();
      const response = await harness.complete({ stream: true, x_emulator: { output_tokens: 60, ...script } });
      await response.text();
      const { chargedTicks } = await settled(harness, response.headers.get('x-request-id'));
      const billed = await eventually(() => (harness.emulator.calls[0]!.state === 'running' ? undefined : harness.emulator.calls[0]!.billedUsdTicks));
      expect(billed).toBeGreaterThan(0n);
      expect(chargedTicks).toBeGreaterThanOrEqual(billed);
    }
  });

  it('closes the connection, so that no client waits for more', async () => {
    const response = await harness.complete({ stream: true, x_emulator: { cut_after: 2 } });
    const reader = response.body!.getReader();
    const end = async (): Promise<boolean> => {
      for (;;) if ((await reader.read()).done) return true;
    };
    expect(await end()).toBe(true);
  });
});

describe('an answer that ends without [DONE]', () => {
  it('is no whole answer, streamed: the caller does not see its finish_reason', async () => {
    const response = await harness.complete({ stream: true, x_emulator: { content: 'Almost all.', no_done: true } });
    const text = await response.text();
    expect(text).not.toContain('[DONE]');
    expect(text).not.toContain('finish_reason');
    const { error } = JSON.parse(framesOf(text).at(-1)!.slice(6)) as ErrorAnswer;
    expect(error.code).toBe('provider_bad_response');
    const record = await settled(harness, response.headers.get('x-request-id'));
    expect(record.outcome).toBe('failed');
    expect(record.chargedTicks).toBe(harness.emulator.calls[0]!.billedUsdTicks); // its usage had come, so the price is known
  });

  it('is no whole answer, plain', async () => {
    const response = await harness.complete({ x_emulator: { content: 'Almost all.', no_done: true } });
    await expectError(response, 502, 'provider_bad_response');
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.calls[0]!.billedUsdTicks);
  });
});

describe('the caller’s own deadline', () => {
  const deadline = { 'x-novix-deadline-ms': '250' };
  it.each<[string, boolean, EmulatorScript, Basis]>([
    ['before the answer, plain', false, { stall_before_headers: true }, 'hold'],
    ['before the answer, streamed', true, { stall_before_headers: true }, 'hold'],
    ['in the middle of a plain answer', false, { output_tokens: 12, stall_after: 3 }, 'observed'],
  ])('%s is 504', async (_, stream, script, basis) => {
    const response = await harness.complete({ stream, x_emulator: script }, deadline);
    const error = await expectError(response, 504, 'deadline_exceeded');
    expect(error.type).toBe('api_error');
    expectCharge(await settled(harness, response.headers.get('x-request-id')), basis);
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted');
  });

  it('in the middle of a stream is an error frame', async () => {
    const response = await harness.complete({ stream: true, x_emulator: { output_tokens: 100, token_interval_ms: 20, first_token_ms: 0 } }, deadline);
    const text = await response.text();
    expect((JSON.parse(framesOf(text).at(-1)!.slice(6)) as ErrorAnswer).error).toMatchObject({ code: 'deadline_exceeded', type: 'api_error' });
    expect(text).not.toContain('[DONE]');
    expectCharge(await settled(harness, response.headers.get('x-request-id')), 'observed');
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted');
  });

  it('that is long enough changes nothing', async () => {
    const response = await harness.complete({}, { 'x-novix-deadline-ms': '60000' });
    expect(response.status).toBe(200);
    await response.text();
  });
});

describe('a caller who hangs up', () => {
  it.each<[string, boolean, EmulatorScript, Basis]>([
    ['in the middle of a stream', true, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }, 'observed'],
    ['before the first byte of a stream', true, { stall_before_headers: true }, 'hold'],
    ['while a plain answer is under way', false, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }, 'observed'],
  ])('%s: the provider is called off within a second, and the call is settled and recorded', async (_, stream, script, basis) => {
    const subject = `leaver-${crypto.randomUUID()}`;
    const token = await harness.token({ subject });
    const aborter = new AbortController();
    const asked = harness.request('POST', '/v1/chat/completions', { token, signal: aborter.signal, body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Hi' }], stream, max_tokens: 4_000, x_emulator: script } });
    asked.catch(() => {}); // it is aborted
    if (basis === 'hold') await eventually(() => harness.emulator.calls.length === 1);
    else await eventually(() => (harness.emulator.calls[0]?.completionTokens ?? 0) >= 3);
    const leftMs = performance.now();
    aborter.abort();
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted', 1_000);
    expect(performance.now() - leftMs).toBeLessThan(1_000);
    const outcome = await eventually(async () => {
      const { rows } = await harness.db.query<{ id: string }>("SELECT event->'metadata'->>'correlation_uid' AS id FROM audit_events WHERE event->'actor'->'user'->>'uid' = $1 AND event->'unmapped'->'novix'->>'phase' = 'outcome'", [subject]);
      return rows[0];
    });
    const record = await settled(harness, outcome.id);
    expect(record).toMatchObject({ outcome: 'aborted', basis });
    expect(record.chargedTicks).toBeGreaterThanOrEqual(harness.emulator.calls[0]!.billedUsdTicks);
    expect(record.chargedTicks).toBeLessThanOrEqual(record.heldTicks);
  });
});

describe('a provider that is not there', () => {
  it('is 503, free, and the budget ends with nothing held and exactly the sum of all charges', async () => {
    await harness.emulator.close();
    for (const stream of [false, true]) {
      const response = await harness.complete({ stream });
      await expectError(response, 503, 'provider_unavailable');
      expect(response.headers.get('retry-after')).toMatch(/^([1-9]|[1-5]\d|60)$/);
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'never_sent', basis: 'free', chargedTicks: 0n });
    }
    const { rows } = await harness.db.query<{ ticks: string }>("SELECT sum((event->'unmapped'->'novix'->'charge'->>'ticks')::bigint)::text AS ticks FROM audit_events WHERE event->'unmapped'->'novix'->>'phase' = 'outcome'");
    const { data } = (await (await harness.request('GET', '/admin/v1/budgets', { token: await harness.adminToken() })).json()) as { data: { tenant: string; spent_usd: string; held_usd: string }[] };
    const budget = data.find(({ tenant }) => tenant === 'acme')!;
    expect(budget.held_usd).toBe('0.00');
    expect(ticksOf(budget.spent_usd)).toBe(BigInt(rows[0]!.ticks));
  });
});
