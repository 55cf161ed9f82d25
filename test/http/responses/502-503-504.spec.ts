import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { EmulatorScript } from '../../../src/sandbox/xai-emulator.ts';
import { expectBooksClosed } from '../../support/calls.ts';
import { eventually, PROVIDER_KEY, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, settled, type Settled } from '../../support/records.ts';
import { eventsIn, respond, textOf, type ResponseEvent, type ResponseObject } from '../../support/responses.ts';
import { expectError } from '../../support/wire.ts';

// What the caller is told when the provider fails, and what the ledger charges for it. Failures are played by the emulator over real HTTP.

const FIRST_BYTE_MS = 1_200;
const IDLE_MS = 400;
const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const ENDINGS = ['response.completed', 'response.incomplete', 'response.failed', 'error'];

let harness: Harness;
const withRetries = (retries: number): void => {
  beforeAll(async () => {
    harness = await startHarness({
      emulator: { random: () => 0.5 },
      env: { XAI_FIRST_BYTE_TIMEOUT_MS: String(FIRST_BYTE_MS), XAI_IDLE_TIMEOUT_MS: String(IDLE_MS), XAI_RETRY_MAX: String(retries), XAI_RETRY_BACKOFF_MS: '20', XAI_BREAKER_FAILURES: '100000' },
    });
  });
  afterAll(async () => {
    await expectBooksClosed(harness.db);
    await harness.close();
  });
  afterEach(() => {
    harness.emulator.setFaults([]);
    harness.emulator.reset();
  });
};

type Basis = 'free' | 'observed' | 'hold';

/** The charge must fit its basis, never exceed the hold, and never be less than what the provider bills. */
async function expectCharge(requestId: string | null, basis: Basis): Promise<Settled> {
  const record = await settled(harness, requestId);
  const { outcome, chargedTicks, heldTicks } = record;
  const fits = { free: chargedTicks === 0n, observed: chargedTicks > 0n && chargedTicks < heldTicks, hold: chargedTicks === heldTicks }[basis];
  expect({ outcome, basis: record.basis, fits, chargedTicks, heldTicks }).toEqual({ outcome: 'failed', basis, fits: true, chargedTicks, heldTicks });
  await eventually(() => harness.emulator.calls.every(({ state }) => state !== 'running'));
  expect(chargedTicks).toBeGreaterThanOrEqual(harness.emulator.billedUsdTicks());
  return record;
}

/** Nothing of what the provider, its network or its team said reaches the caller. */
function expectOwnWords(text: string): void {
  expect(text).not.toMatch(/6f0a3d52|console\.x\.ai|DOCTYPE|Error code|credits or reached|did not respond|temporarily unavailable|Incorrect API key/i);
  expect(text).not.toContain(PROVIDER_KEY);
}

/** A stream that began and then failed: our error is its last frame, and nothing before it says that the response is over. */
async function expectBroken(response: Response, code: string): Promise<ResponseEvent[]> {
  expect(response.status).toBe(200);
  const text = await response.text();
  expect(text.endsWith('\n\n')).toBe(true);
  expect(text).not.toContain('[DONE]');
  expectOwnWords(text);
  const events = eventsIn(text);
  const last = events.pop()!;
  expect(last).toEqual({ error: { message: expect.any(String), type: 'api_error', code, param: null } });
  expect(events.filter(({ type }) => ENDINGS.includes(type))).toEqual([]);
  expect(events.map(({ sequence_number: number }) => number)).toEqual(events.map((_, index) => index));
  expect(events[0]!.type).toBe('response.created');
  return events;
}

describe('with no retries,', () => {
  withRetries(0);

  /** Before the first byte: a status, in plain answers and in streams alike. */
  const BEFORE_ANY_BYTE: [string, EmulatorScript, number, string, Basis][] = [
    ['a wrong key (the provider says 400)', { status: 400, body: { code: 'invalid-argument', error: 'Incorrect API key provided. You can obtain an API key from https://console.x.ai.' } }, 502, 'provider_bad_response', 'free'],
    ['no credentials (401)', { status: 401 }, 502, 'provider_bad_response', 'free'],
    ['credits used up (403)', { status: 403 }, 502, 'provider_bad_response', 'free'],
    ['500', { status: 500 }, 503, 'provider_unavailable', 'free'],
    ['503', { status: 503 }, 503, 'provider_unavailable', 'free'],
    ['503 in HTML', { status: 503, html: true }, 503, 'provider_unavailable', 'free'],
    ['520 of the network in HTML', { html: true }, 503, 'provider_unavailable', 'free'],
    ['504', { status: 504 }, 504, 'provider_timeout', 'free'],
    ['an overload told as 200', { ok_with_error: true }, 502, 'provider_bad_response', 'free'],
    ['200 with another error', { status: 200, body: { error: { message: 'oops', type: 'server_error' } } }, 502, 'provider_bad_response', 'free'],
    ['a reset before the headers', { reset_before_headers: true }, 503, 'provider_unavailable', 'hold'],
    ['silence before the headers', { stall_before_headers: true }, 504, 'provider_timeout', 'hold'],
  ];
  const BOTH = BEFORE_ANY_BYTE.flatMap((row) => [[...row, false] as const, [...row, true] as const]).map(([name, ...rest]) => [`${name}, ${rest.at(-1) ? 'streamed' : 'plain'}`, ...rest] as const);
  it.each(BOTH)('a failure before the first byte has a status of its own: %s', async (_, script, status, code, basis, stream) => {
    const response = await respond(harness, { stream, x_emulator: script });
    const error = await expectError(response, status, code);
    expect(error).toMatchObject({ type: 'api_error', param: null });
    expectOwnWords(error.message);
    expect(response.headers.get('retry-after') ?? 'none').toMatch(status === 503 ? /^([1-9]|[1-5]\d|60)$/ : /^(none|[1-9]|[1-5]\d|60)$/);
    await expectCharge(response.headers.get('x-request-id'), basis);
    expect(harness.emulator.calls).toHaveLength(1);
  });

  it.each([[false], [true]])('a compressed answer, which nobody asked for, reaches the caller as it was meant (stream: %p)', async (stream) => {
    const response = await respond(harness, { stream, x_emulator: { content: 'Read all the same.', gzip: 'force' } });
    expect([response.status, response.headers.get('content-encoding')]).toEqual([200, null]);
    const text = await response.text();
    expect(textOf(stream ? eventsIn(text).at(-1)!.response! : (JSON.parse(text) as ResponseObject))).toBe('Read all the same.');
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.calls[0]!.billedUsdTicks);
  });

  it.each([[false], [true]])('a model that thinks in silence, longer than an answer may pause, is waited for (stream: %p)', async (stream) => {
    const response = await respond(harness, { stream, x_emulator: { content: 'Thought about.', first_token_ms: 2 * IDLE_MS } });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain('Thought about.');
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.calls[0]!.billedUsdTicks);
  });

  /** response.created has come, but no output. */
  const BEFORE_OUTPUT: [string, EmulatorScript, number, string, Basis][] = [
    ['an error event', { error_frame_after: 0 }, 502, 'provider_bad_response', 'free'],
    ['a nested error', { error_frame_after: 0, error_shape: 'nested' }, 502, 'provider_bad_response', 'free'],
    ['response.failed', { error_frame_after: 0, error_shape: 'failed' }, 502, 'provider_bad_response', 'free'],
    ['a cut', { cut_after: 0 }, 503, 'provider_unavailable', 'hold'],
    ['silence', { stall_after: 0 }, 504, 'provider_timeout', 'hold'],
  ];
  const AFTER_OUTPUT: [string, EmulatorScript, number, string, Basis][] = [
    ['an error event', { error_frame_after: 3 }, 502, 'provider_bad_response', 'observed'],
    ['a nested error', { error_frame_after: 3, error_shape: 'nested' }, 502, 'provider_bad_response', 'observed'],
    ['response.failed', { error_frame_after: 3, error_shape: 'failed' }, 502, 'provider_bad_response', 'observed'],
    ['a cut between events', { cut_after: 3 }, 502, 'provider_bad_response', 'observed'],
    ['a cut in the middle of an event', { cut_after: 3, cut_mid_frame: true }, 502, 'provider_bad_response', 'observed'],
    ['silence', { stall_after: 3 }, 504, 'provider_timeout', 'observed'],
  ];
  it.each(BEFORE_OUTPUT)('before any output a stream ends with an error frame: %s', async (_, script, __, code, basis) => {
    const response = await respond(harness, { stream: true, x_emulator: { output_tokens: 12, ...script } });
    const events = await expectBroken(response, code);
    expect(events.map(({ type }) => type)).toEqual(['response.created', 'response.in_progress']);
    await expectCharge(response.headers.get('x-request-id'), basis);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'outcome')).status_code).toBe(code);
  });

  it.each(BEFORE_OUTPUT)('before any output a plain answer has a status: %s', async (_, script, status, code, basis) => {
    const response = await respond(harness, { x_emulator: { output_tokens: 12, ...script } });
    const error = await expectError(response, status, code);
    expect(error.type).toBe('api_error');
    expectOwnWords(error.message);
    await expectCharge(response.headers.get('x-request-id'), basis);
  });

  it.each(AFTER_OUTPUT)('in the middle a stream ends with an error frame: %s', async (_, script, __, code, basis) => {
    const response = await respond(harness, { stream: true, model: NO_REASONING, x_emulator: { output_tokens: 12, ...script } });
    const events = await expectBroken(response, code);
    expect(events.filter(({ type }) => type === 'response.output_text.delta')).toHaveLength(3);
    await expectCharge(response.headers.get('x-request-id'), basis);
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'outcome')).status_code).toBe(code);
  });

  it.each(AFTER_OUTPUT)('in the middle a plain answer has a status: %s', async (_, script, status, code, basis) => {
    const response = await respond(harness, { model: NO_REASONING, x_emulator: { output_tokens: 12, ...script } });
    const error = await expectError(response, status, code);
    expect(error.type).toBe('api_error');
    expectOwnWords(error.message);
    await expectCharge(response.headers.get('x-request-id'), basis);
  });

  it('never charges less than the provider bills for the part that came, reasoning among it', async () => {
    for (const script of [{ error_frame_after: 40 }, { cut_after: 40 }, { stall_after: 40 }]) {
      harness.emulator.reset();
      const response = await respond(harness, { stream: true, x_emulator: { output_tokens: 60, reasoning_tokens: 200, ...script } });
      await response.text();
      await expectCharge(response.headers.get('x-request-id'), 'observed');
      expect(harness.emulator.billedUsdTicks()).toBeGreaterThan(0n);
    }
  });

  it('closes the connection after an error, so that no client waits for more', async () => {
    const response = await respond(harness, { stream: true, x_emulator: { cut_after: 2 } });
    const reader = response.body!.getReader();
    const end = async (): Promise<boolean> => {
      for (;;) if ((await reader.read()).done) return true;
    };
    expect(await end()).toBe(true);
  });

  it('an ending event without [DONE] behind it is a whole answer all the same', async () => {
    const streamed = await respond(harness, { stream: true, x_emulator: { content: 'All of it.', no_done: true } });
    expect(eventsIn(await streamed.text()).at(-1)!.type).toBe('response.completed');
    const plain = await respond(harness, { x_emulator: { content: 'All of it.', no_done: true } });
    expect(textOf((await plain.json()) as ResponseObject)).toBe('All of it.');
    for (const [index, response] of [streamed, plain].entries()) {
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'completed', chargedTicks: harness.emulator.calls[index]!.billedUsdTicks });
    }
  });

  const deadline = { 'x-novix-deadline-ms': '250' };
  it.each<[string, boolean, EmulatorScript, Basis]>([
    ['before the answer, plain', false, { stall_before_headers: true }, 'hold'],
    ['before the answer, streamed', true, { stall_before_headers: true }, 'hold'],
    ['in the middle of a plain answer', false, { output_tokens: 12, stall_after: 3 }, 'observed'],
  ])('the caller’s own deadline %s is 504', async (_, stream, script, basis) => {
    const response = await respond(harness, { stream, x_emulator: script }, { headers: deadline });
    await expectError(response, 504, 'deadline_exceeded');
    await expectCharge(response.headers.get('x-request-id'), basis);
    expect(harness.emulator.calls[0]!.state).toBe('aborted');
  });

  it('the caller’s own deadline in the middle of a stream is an error frame', async () => {
    const response = await respond(harness, { stream: true, model: NO_REASONING, x_emulator: { output_tokens: 100, token_interval_ms: 20, first_token_ms: 0 } }, { headers: deadline });
    await expectBroken(response, 'deadline_exceeded');
    await expectCharge(response.headers.get('x-request-id'), 'observed');
    expect(harness.emulator.calls[0]!.state).toBe('aborted');
  });

  it.each<[string, boolean, EmulatorScript, Basis]>([
    ['in the middle of a stream', true, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }, 'observed'],
    ['before the first output of a stream', true, { stall_after: 0 }, 'hold'],
    ['before the first byte', true, { stall_before_headers: true }, 'hold'],
    ['while a plain answer is under way', false, { output_tokens: 2_000, first_token_ms: 0, token_interval_ms: 20 }, 'observed'],
  ])('a caller who hangs up %s: the provider is called off within a second, and the call is settled and recorded', async (_, stream, script, basis) => {
    const subject = `leaver-${crypto.randomUUID()}`;
    const aborter = new AbortController();
    const asked = harness.request('POST', '/v1/responses', { token: await harness.token({ subject }), signal: aborter.signal, body: { model: 'grok-beta', input: 'Hi', stream, max_output_tokens: 4_000, x_emulator: script } });
    asked.catch(() => {}); // it is aborted
    if (basis === 'hold') await eventually(() => harness.emulator.calls.length === 1);
    else await eventually(() => (harness.emulator.calls[0]?.completionTokens ?? 0) >= 3);
    aborter.abort();
    await eventually(() => harness.emulator.calls[0]!.state === 'aborted', 1_000);
    const { id } = await eventually(async () => {
      const { rows } = await harness.db.query<{ id: string }>("SELECT event->'metadata'->>'correlation_uid' AS id FROM audit_events WHERE event->'actor'->'user'->>'uid' = $1 AND event->'unmapped'->'novix'->>'phase' = 'outcome'", [subject]);
      return rows[0];
    });
    const record = await settled(harness, id);
    expect(record).toMatchObject({ outcome: 'aborted', basis });
    expect(record.chargedTicks).toBeGreaterThanOrEqual(harness.emulator.calls[0]!.billedUsdTicks);
    expect(record.chargedTicks).toBeLessThanOrEqual(record.heldTicks);
  });
});

describe('with retries,', () => {
  withRetries(3);

  it.each([[500], [503], [429], [520]])('%i, twice, is not noticed by the caller, streamed or plain; it is billed once, and every attempt is on record', async (status) => {
    for (const stream of [false, true]) {
      harness.emulator.reset();
      harness.emulator.setFaults([{ calls: 2, status }]);
      const response = await respond(harness, { stream });
      expect(response.status).toBe(200);
      await response.text();
      expect(harness.emulator.calls).toHaveLength(3);
      expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.billedUsdTicks());
      expect((await eventOf(harness, response.headers.get('x-request-id'), 'outcome')).unmapped.novix).toMatchObject({ outcome: 'completed', attempts: [{ status }, { status }, { status: 200 }] });
    }
  });

  it.each<[string, EmulatorScript]>([
    ['an error event', { error_frame_after: 0 }],
    ['a nested error', { error_frame_after: 0, error_shape: 'nested' }],
    ['response.failed', { error_frame_after: 0, error_shape: 'failed' }],
    ['an overload told as 200', { ok_with_error: true }],
  ])('before any output, %s is tried again for a plain caller, billed once, and nothing of it is in the answer', async (_, script) => {
    harness.emulator.setFaults([{ calls: 1, ...script }]);
    const response = await respond(harness);
    expect(response.status).toBe(200);
    expect(response.headers.get('x-novix-attempts')).toBe('2');
    const body = (await response.json()) as ResponseObject;
    expect(harness.emulator.calls.map(({ state }) => state)).toEqual(['failed', 'completed']);
    expect(body).toMatchObject({ id: harness.emulator.calls[1]!.id, status: 'completed', error: null });
    expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBe(harness.emulator.calls[1]!.billedUsdTicks);
    expect(harness.emulator.billedUsdTicks()).toBe(harness.emulator.calls[1]!.billedUsdTicks);
  });

  it('for a streaming caller it is not, since the response’s id has gone out', async () => {
    harness.emulator.setFaults([{ calls: 1, error_frame_after: 0 }]);
    const response = await respond(harness, { stream: true });
    await expectBroken(response, 'provider_bad_response');
    expect(harness.emulator.calls).toHaveLength(1);
    await expectCharge(response.headers.get('x-request-id'), 'free');
  });

  it.each<[string, EmulatorScript, number]>([
    ['a refusal', { status: 400 }, 400],
    ['a wrong key', { status: 401 }, 502],
    ['silence that may have been billed', { cut_after: 0 }, 503],
    ['an error after some output', { error_frame_after: 3, output_tokens: 9 }, 502],
    ['response.failed after some output', { error_frame_after: 3, error_shape: 'failed', output_tokens: 9 }, 502],
    ['a break after some output', { cut_after: 3, output_tokens: 9 }, 502],
  ])('%s is not tried again', async (_, fault, status) => {
    harness.emulator.setFaults([fault]);
    expect((await respond(harness)).status).toBe(status);
    expect(harness.emulator.calls).toHaveLength(1);
  });
});

describe('an upstream that speaks oddly', () => {
  let upstream: Server;
  let frames: string[];
  beforeAll(async () => {
    upstream = createServer((request, answer) => {
      request.resume();
      answer.writeHead(200, { 'content-type': 'text/event-stream' }).end(frames.join(''));
    });
    await new Promise<void>((resolve) => {
      upstream.listen(0, '127.0.0.1', resolve);
    });
    harness = await startHarness({ env: { XAI_API_ENDPOINT: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/v1`, XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '100000' } });
  });
  afterAll(async () => {
    await expectBooksClosed(harness.db);
    await harness.close();
    upstream.closeAllConnections();
    await new Promise((resolve) => {
      upstream.close(resolve);
    });
  });

  const whole = { id: '0d6b6a38-90d3-4f7e-a2f5-7f6c5b1a2e10', object: 'response', model: 'grok-4.3', status: 'completed', store: false, output: [], usage: { input_tokens: 7, output_tokens: 2, cost_in_usd_ticks: 4_242 } };
  const data = (event: Record<string, unknown>): string => `data: ${JSON.stringify(event)}\n\n`;
  const created = data({ type: 'response.created', sequence_number: 0, response: { ...whole, status: 'in_progress', usage: undefined } });
  const delta = data({ type: 'response.output_text.delta', sequence_number: 1, delta: 'Hi' });
  const completed = data({ type: 'response.completed', sequence_number: 2, response: whole });

  it('without event: lines and without [DONE] is understood', async () => {
    frames = [created, delta, completed];
    const streamed = await respond(harness, { stream: true });
    expect(await streamed.text()).toBe(frames.join(''));
    expect(await settled(harness, streamed.headers.get('x-request-id'))).toMatchObject({ outcome: 'completed', basis: 'provider', chargedTicks: 4_242n });
    const plain = await respond(harness);
    expect(await plain.json()).toEqual(whole);
  });

  it('with pings that have no event: line is understood, and they are not passed on', async () => {
    frames = [created, data({ type: 'ping' }), delta, 'data: {"type": "ping"}\n\n', completed];
    expect(await (await respond(harness, { stream: true })).text()).toBe([created, delta, completed].join(''));
    expect(await (await respond(harness)).json()).toEqual(whole);
  });

  it('with the last event lacking its blank line is understood', async () => {
    frames = [created, delta, completed.trimEnd()];
    expect(await (await respond(harness)).json()).toEqual(whole);
  });

  it.each<[string, string[]]>([
    ['ends cleanly without the ending event', [created, delta]],
    ['ends cleanly without the ending event, but with [DONE]', [created, delta, 'data: [DONE]\n\n']],
    ['ends in the middle of the ending event', [created, delta, completed.slice(0, completed.length / 2)]],
    ['fails at last, after all of its output', [created, delta, data({ type: 'response.failed', sequence_number: 2, response: { ...whole, status: 'failed', usage: undefined, error: { code: 'server_error', message: 'did not respond' } } })]],
  ])('that %s gave no whole answer', async (_, sent) => {
    frames = sent;
    const streamed = await respond(harness, { stream: true });
    const text = await streamed.text();
    expectOwnWords(text);
    const events = eventsIn(text);
    expect(events.map(({ type }) => type)).toEqual(['response.created', 'response.output_text.delta', undefined]);
    expect(events.at(-1)!.error).toMatchObject({ code: 'provider_bad_response', type: 'api_error' });
    expect(text).not.toContain('[DONE]');
    const plain = await respond(harness);
    await expectError(plain, 502, 'provider_bad_response');
    for (const response of [streamed, plain]) {
      const record = await settled(harness, response.headers.get('x-request-id'));
      expect(record).toMatchObject({ outcome: 'failed', basis: 'observed' });
      expect(record.chargedTicks).toBeGreaterThan(0n);
    }
  });

  it.each<[string, string]>([
    ['without a response', data({ type: 'response.completed', sequence_number: 2 })],
    ['that is no JSON', 'data: {"type":"response.completed",\n\n'],
  ])('that has an ending event %s gave no whole answer', async (_, ending) => {
    frames = [created, delta, ending];
    for (const stream of [false, true]) {
      const response = await respond(harness, { stream });
      const text = await response.text();
      expect(text).toContain('"code":"provider_bad_response"');
      expect(text).not.toMatch(/response\.completed|DONE/);
      expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed' });
    }
  });

  it('that failed with its usage told is charged by that', async () => {
    frames = [created, delta, data({ type: 'response.failed', sequence_number: 2, response: { ...whole, status: 'failed', error: { code: 'server_error', message: 'x' } } })];
    const response = await respond(harness);
    await expectError(response, 502, 'provider_bad_response');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'provider', chargedTicks: 4_242n });
  });
});
