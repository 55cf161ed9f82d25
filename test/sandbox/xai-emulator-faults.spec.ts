import { afterEach, describe, expect, it } from '@jest/globals';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { gunzipSync } from 'node:zlib';
import type { EmulatorScript } from '../../src/sandbox/xai-emulator.ts';
import { KEY, NO_REASONING, ask, emulator, ended, framesOf, hello, jsonOf, latest, post, respond, stream } from './emulator-client.ts';

// The emulator is real here, and is asked over HTTP.

const chat = (fields: Record<string, unknown> = {}) => post({ model: NO_REASONING, messages: hello, ...fields });
const control = (method: string, path: string, body?: unknown) => fetch(new URL(`/__emulator/${path}`, emulator.url), { method, body: body === undefined ? undefined : JSON.stringify(body) });
const statuses = async (count: number, call = () => chat()) => {
  const seen: number[] = [];
  for (let index = 0; index < count; index++) seen.push((await call()).status);
  return seen;
};

afterEach(() => emulator.setFaults([]));

describe('faults', () => {
  it('befall calls without a script, by path and model, until they are taken away', async () => {
    const faults = [{ path: '/v1/responses', model: NO_REASONING, status: 503, retry_after: 2 }, { model: 'grok-latest', status: 500 }];
    expect((await control('PUT', 'faults', { faults })).status).toBe(204);
    const refused = await respond();
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '2']);
    expect((await respond({ x_emulator: {} })).status).toBe(200);
    expect((await respond({ model: 'grok-4.3' })).status).toBe(200);
    expect((await chat()).status).toBe(200);
    expect((await chat({ model: 'grok-latest' })).status).toBe(500);
    expect((await control('DELETE', 'faults')).status).toBe(204);
    expect((await respond()).status).toBe(200);
  });

  it('are spread evenly over a share of the calls, and are spent after a number of them', async () => {
    emulator.setFaults([{ share: 0.25, status: 500 }]);
    expect(await statuses(8)).toEqual([200, 200, 200, 500, 200, 200, 200, 500]);
    emulator.setFaults([{ calls: 2, status: 500 }, { calls: 1, status: 502 }]);
    expect(await statuses(4)).toEqual([500, 500, 502, 200]);
    emulator.setFaults([{ share: 0.1, status: 500 }]);
    expect((await statuses(100)).filter((status) => status === 500)).toHaveLength(10);
  });

  it('do not befall refused calls, which therefore spend nothing', async () => {
    emulator.setFaults([{ calls: 1, status: 500 }]);
    expect((await chat({ messages: [] })).status).toBe(400);
    expect((await chat()).status).toBe(500);
  });

  it('delay an answer, headers included', async () => {
    emulator.setFaults([{ delay_ms: 80 }]);
    const startedMs = performance.now();
    const response = await chat({ stream: true });
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(79);
    await response.text();
    const gone = post({ model: NO_REASONING, messages: hello }, { signal: AbortSignal.timeout(20) });
    await expect(gone).rejects.toThrow(/abort/);
    expect(await ended()).toMatchObject({ state: 'aborted', billedUsdTicks: 0n });
  });

  it('befall look-ups only by their path', async () => {
    emulator.setFaults([{ status: 500 }]);
    expect((await ask('models')).status).toBe(200);
    emulator.setFaults([{ path: '/v1/models', status: 503 }, { path: '/v1/models/*', calls: 1, gzip: 'force', delay_ms: 5 }]);
    expect((await ask('models')).status).toBe(503);
    const response = await ask('models/grok-4.3');
    expect(response.headers.get('content-encoding')).toBe('gzip');
    expect(await response.json()).toMatchObject({ id: 'grok-4.3' });
    expect((await ask('models', undefined, { headers: { authorization: '' } })).status).toBe(401);
  });

  it.each([
    [{ faults: 'all' }, 'faults: invalid type'],
    [{ faults: [{ stats: 500 }] }, 'faults[0]: unknown field `stats`'],
    [{ faults: [{ share: 2 }] }, 'faults[0].share'],
    [{}, 'missing field `faults`'],
  ])('%j is refused', async (body, text) => {
    expect((await jsonOf(control('PUT', 'faults', body), 422))['error']).toContain(text);
  });
});

/** Asks by hand, to see the bytes as they are on the wire. */
async function rawChat(script: EmulatorScript, headers: Record<string, string> = {}, isStream = true): Promise<IncomingMessage> {
  const request = httpRequest(`${emulator.url}/chat/completions`, { method: 'POST', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json', ...headers } });
  request.end(JSON.stringify({ model: NO_REASONING, messages: hello, stream: isStream, x_emulator: script }));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
}

/** What came, whether it ended well, and in which pieces. */
async function bytesOf(response: IncomingMessage): Promise<{ pieces: Buffer[]; bytes: Buffer; whole: boolean }> {
  const pieces: Buffer[] = [];
  response.on('data', (piece: Buffer) => pieces.push(piece)).on('error', () => {});
  await new Promise<void>((resolve) => response.once('close', resolve));
  return { pieces, bytes: Buffer.concat(pieces), whole: response.complete };
}

describe('bytes', () => {
  it.each([0, 1, 100, 300, 4_321])('cuts a stream after exactly %d bytes, and counts whole frames', async (cutAfter) => {
    const { bytes: expected } = await bytesOf(await rawChat({ frame_bytes: 5 }));
    const { bytes, whole } = await bytesOf(await rawChat({ frame_bytes: 5, cut_after_bytes: cutAfter }));
    expect([bytes.length, whole]).toEqual([cutAfter, false]);
    expect(bytes.toString().replace(/"id":"[^"]*"|"created":\d+/g, '').slice(0, 50)).toBe(expected.subarray(0, cutAfter).toString().replace(/"id":"[^"]*"|"created":\d+/g, '').slice(0, 50));
    const framesSent = bytes.toString().split('\n\n').length - 1;
    expect(latest()).toMatchObject({ state: 'failed', framesSent });
    expect(latest().billedUsdTicks).toBe(100_000n + BigInt(latest().completionTokens) * 25_000n);
  });

  it('cuts in the closing frames too, or not at all', async () => {
    const { bytes } = await bytesOf(await rawChat({}));
    expect((await bytesOf(await rawChat({ cut_after_bytes: bytes.length - 1 }))).whole).toBe(false);
    expect(latest()).toMatchObject({ state: 'failed', completionTokens: 20, framesSent: 21 });
    expect((await bytesOf(await rawChat({ cut_after_bytes: bytes.length }))).whole).toBe(true);
    expect(latest()).toMatchObject({ state: 'completed', framesSent: 22 });
  });

  it('cuts a plain answer and a refusal', async () => {
    const plain = await bytesOf(await rawChat({ cut_after_bytes: 40 }, {}, false));
    expect([plain.bytes.length, plain.whole]).toEqual([40, false]);
    expect(latest()).toMatchObject({ state: 'failed', billedUsdTicks: 600_000n });
    const refusal = await bytesOf(await rawChat({ cut_after_bytes: 10, status: 500 }));
    expect([refusal.bytes.length, refusal.whole]).toEqual([10, false]);
  });

  it('writes in pieces whose boundaries fall anywhere', async () => {
    const script = { content: 'Grüße 🙂 日本', chunk_bytes: 3 };
    for (const isStream of [true, false]) {
      const { pieces, bytes, whole } = await bytesOf(await rawChat(script, {}, isStream));
      expect(whole).toBe(true);
      expect(pieces.every(({ length }) => length <= 3)).toBe(true);
      expect(bytes.toString()).toContain(isStream ? '🙂' : 'Grüße 🙂 日本');
      expect(pieces.some((piece) => piece.toString().includes('�'))).toBe(true);
    }
  });

  it('compresses for those who accept it, or for everyone', async () => {
    const packed = await rawChat({ gzip: true }, { 'accept-encoding': 'br, gzip' });
    expect(packed.headers['content-encoding']).toBe('gzip');
    expect(gunzipSync((await bytesOf(packed)).bytes).toString()).toMatch(/^data: .*data: \[DONE\]\n\n$/s);
    const plain = await rawChat({ gzip: true }, { 'accept-encoding': 'br' });
    expect(plain.headers['content-encoding']).toBeUndefined();
    expect((await bytesOf(plain)).bytes.toString()).toMatch(/^data: /);
    const forced = await rawChat({ gzip: 'force', chunk_bytes: 7, token_interval_ms: 1 }, {}, false);
    expect(JSON.parse(gunzipSync((await bytesOf(forced)).bytes).toString())).toMatchObject({ object: 'chat.completion' });
    const cut = await bytesOf(await rawChat({ gzip: 'force', cut_after: 3 }));
    expect([cut.whole, latest().framesSent]).toEqual([false, 3]);
  });

  it('compresses frame by frame: each can be read when it is due', async () => {
    const response = await fetch(`${emulator.url}/chat/completions`, {
      method: 'POST', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: NO_REASONING, messages: hello, stream: true, x_emulator: { gzip: true, stall_after: 2 } }),
    });
    const reader = response.body!.getReader();
    let text = '';
    while (text.split('\n\n').length < 3) text += Buffer.from((await reader.read()).value!).toString();
    expect(latest()).toMatchObject({ state: 'running', framesSent: 2 });
    await reader.cancel();
    await ended();
  });

  it('leaves out the last line end', async () => {
    expect(await (await stream({}, { no_final_newline: true })).text()).toMatch(/\n\ndata: \[DONE\]$/);
    expect(await (await stream({}, { no_final_newline: true, error_frame_after: 1 })).text()).toMatch(/\}$/);
  });

  it('sends a frame of more than a mebibyte', async () => {
    const [frame] = await framesOf(stream({}, { output_tokens: 1, frame_bytes: 1_200_000 }));
    expect(frame!.length).toBeGreaterThan(1_200_000);
  });

  it('pings, with or without data, which no count includes', async () => {
    const text = await (await stream({}, { output_tokens: 6, ping_every: 2 })).text();
    expect(text.split('event: ping\n\n')).toHaveLength(4);
    expect(latest().framesSent).toBe(8);
    const crlf = await (await stream({}, { output_tokens: 6, ping_every: 3, ping_data: true, crlf: true })).text();
    expect(crlf.split('event: ping\r\ndata: {"type":"ping"}\r\n\r\n')).toHaveLength(3);
    const events = await (await respond({ stream: true, x_emulator: { ping_every: 1 } })).text();
    const numbers = [...events.matchAll(/"sequence_number":(\d+)/g)].map(([, number]) => Number(number));
    expect(numbers).toEqual(numbers.map((_, index) => index));
  });
});

describe('connections', () => {
  it('are reset before the headers', async () => {
    await expect(rawChat({ reset_before_headers: true })).rejects.toMatchObject({ code: 'ECONNRESET' });
    expect(await ended()).toMatchObject({ state: 'failed', billedUsdTicks: 0n });
    expect((await stream()).status).toBe(200);
  });

  it('carry a second answer that nobody has asked for', async () => {
    const body = JSON.stringify({ model: NO_REASONING, messages: hello, x_emulator: { content: 'Blue.', unsolicited: true } });
    const { hostname, port } = new URL(emulator.url);
    const socket = connect(Number(port), hostname);
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    let text = '';
    for await (const part of socket) {
      text += String(part);
      if (text.includes('"unsolicited"')) break;
    }
    expect(text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
    expect(text.indexOf('Blue.')).toBeLessThan(text.indexOf('unsolicited'));
  });
});
