import { describe, expect, it } from '@jest/globals';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { KEY, NO_REASONING, chunksOf, complete, emulator, ended, framesOf, hello, latest, post, stream, withEmulator } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP.

describe('billing of a broken call', () => {
  const outPrice = 25_000n;

  it('bills an aborted stream for prompt, reasoning and the tokens sent', async () => {
    await withEmulator({ pace: { firstTokenMs: 0, tokenIntervalMs: 10, reasoningTokenMs: 0 } }, async (other) => {
      const abort = new AbortController();
      const body = { model: 'grok-4.3', messages: hello, stream: true, x_emulator: { output_tokens: 1_000, reasoning_tokens: 30 } };
      const response = await post(body, { at: other, signal: abort.signal });
      const reader = response.body!.getReader();
      for (let read = 0; read < 5; read++) await reader.read();
      abort.abort();
      const call = await ended(other);
      expect(call.state).toBe('aborted');
      expect(call.completionTokens).toBeGreaterThanOrEqual(5);
      expect(call.completionTokens).toBeLessThan(50);
      expect(call.framesSent).toBe(call.completionTokens);
      expect(call.billedUsdTicks).toBe(8n * 12_500n + BigInt(30 + call.completionTokens) * outPrice);
      expect(other.billedUsdTicks()).toBe(call.billedUsdTicks);
    });
  });

  it('notices a caller who goes during silent reasoning, at once, and bills the reasoning so far', async () => {
    await withEmulator({ pace: { firstTokenMs: 0, tokenIntervalMs: 0, reasoningTokenMs: 10 } }, async (other) => {
      for (const stream of [true, false]) {
        other.reset();
        const startedMs = performance.now();
        const body = { model: 'grok-4.3', messages: hello, stream, x_emulator: { reasoning_tokens: 6_000 } };
        const read = async () => (await post(body, { at: other, signal: AbortSignal.timeout(100) })).text();
        await expect(read()).rejects.toThrow(/abort/);
        const call = await ended(other);
        expect(performance.now() - startedMs).toBeLessThan(1_000);
        expect(call).toMatchObject({ state: 'aborted', completionTokens: 0 });
        expect(call.reasoningTokens).toBeGreaterThanOrEqual(5);
        expect(call.reasoningTokens).toBeLessThan(100);
        expect(call.billedUsdTicks).toBe(8n * 12_500n + BigInt(call.reasoningTokens) * outPrice);
      }
    });
  });

  it('notices a caller who only ends its half of the connection', async () => {
    const body = JSON.stringify({ model: NO_REASONING, messages: hello, stream: true, x_emulator: { stall_before_headers: true } });
    const { hostname, port } = new URL(emulator.url);
    const socket = connect(Number(port), hostname);
    const head = `host: x\r\nauthorization: Bearer ${KEY}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\n${head}\r\n\r\n${body}`);
    while (emulator.calls.length === 0) await sleep(2);
    expect(latest().state).toBe('running');
    socket.end();
    expect(await ended()).toMatchObject({ state: 'aborted', billedUsdTicks: 100_000n });
  });
});

describe('scripts', () => {
  it('refuses with a status, body and retry-after, free of charge', async () => {
    const response = await stream({}, { status: 429, retry_after: 7 });
    expect(response.status).toBe(429);
    expect(response.headers.get('retry-after')).toBe('7');
    expect(await response.json()).toMatchObject({ code: 'resource-exhausted' });
    const own = await stream({}, { status: 503, body: 'plain' });
    expect([own.status, await own.json()]).toEqual([503, 'plain']);
    const page = await stream({}, { status: 522 });
    expect([page.status, page.headers.get('content-type')]).toEqual([522, 'text/html; charset=UTF-8']);
    expect(emulator.billedUsdTicks()).toBe(0n);
  });

  it('answers an error as a success', async () => {
    const response = await stream({}, { ok_with_error: true });
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json']);
    expect(await response.json()).toEqual({ code: 'The service is currently unavailable', error: expect.any(String) });
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it.each([
    ['flat', { code: 'The service is currently unavailable', error: expect.any(String) }],
    ['nested', { error: { message: expect.any(String), type: expect.any(String), code: expect.any(String) } }],
  ] as const)('sends a %s error frame in mid-stream', async (shape, body) => {
    const frames = await framesOf(stream({}, { error_frame_after: 3, error_shape: shape }));
    expect(frames).toHaveLength(4);
    expect(JSON.parse(frames[3]!)).toEqual(body);
    expect(latest()).toMatchObject({ state: 'failed', completionTokens: 3, billedUsdTicks: 100_000n + 3n * 25_000n });
    await framesOf(stream({}, { error_frame_after: 0 }));
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
  });

  it('cuts the connection between frames or within one, after everything before it has left', async () => {
    for (const script of [{ cut_after: 3 }, { cut_after: 3, cut_mid_frame: true }]) {
      let text = '';
      const read = async () => {
        for await (const part of (await stream({}, script)).body!) text += Buffer.from(part).toString();
      };
      await expect(read()).rejects.toThrow('terminated');
      expect(text.split('\n\n').slice(0, 3).every((frame) => JSON.parse(frame.slice(6)) !== undefined)).toBe(true);
      expect(text.split('\n\n')[3] === '').toBe(!('cut_mid_frame' in script));
      expect(await ended()).toMatchObject({ state: 'failed', framesSent: 3, billedUsdTicks: 175_000n });
    }
    await expect(complete({ x_emulator: { cut_after: 1 } })).rejects.toThrow('terminated');
  });

  it('stalls until the caller goes', async () => {
    await expect(stream({}, { stall_after: 2 }).then(async (response) => {
      const reader = response.body!.getReader();
      await reader.read();
      await Promise.race([reader.read(), sleep(100)]);
      expect(latest()).toMatchObject({ state: 'running', framesSent: 2 });
      await reader.cancel();
    })).resolves.toBeUndefined();
    expect(await ended()).toMatchObject({ state: 'aborted', billedUsdTicks: 150_000n });
  });

  it('ends without [DONE], without usage, in CRLF, with padded frames', async () => {
    const frames = await framesOf(stream({ stream_options: { include_usage: true } }, { no_done: true, no_usage: true, frame_bytes: 50 }));
    expect(frames).toHaveLength(21);
    expect(chunksOf(frames).slice(0, 20).every(({ choices }) => choices[0]!.delta.content!.length === 50)).toBe(true);
    expect(latest()).toMatchObject({ state: 'completed', completionTokens: 20 });
    const text = await (await stream({}, { crlf: true })).text();
    expect(text.split('\r\n\r\n')).toHaveLength(23);
    expect((await complete({ x_emulator: { no_usage: true } })).usage).toBeUndefined();
  });

  it('reports and bills another price or usage, and bills its own where theirs is no price', async () => {
    expect((await complete({ x_emulator: { cost_usd_ticks: 42 } })).usage.cost_in_usd_ticks).toBe(42);
    expect(latest().billedUsdTicks).toBe(42n);
    const usage = { prompt_tokens: -1, cost_in_usd_ticks: 77 };
    expect((await complete({ x_emulator: { usage } })).usage).toEqual(usage);
    expect(latest().billedUsdTicks).toBe(77n);
    await complete({ x_emulator: { usage: { cost_in_usd_ticks: 1.5 } } });
    expect(latest().billedUsdTicks).toBe(8n * 12_500n + 20n * 25_000n);
  });
});
