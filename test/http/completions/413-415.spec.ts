import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf } from '../../support/records.ts';
import { bareExchange, expectError, rawRequest, type ErrorAnswer } from '../../support/wire.ts';

const LIMIT = 4_096;

let harness: Harness;
let token: string;
beforeAll(async () => {
  harness = await startHarness({ env: { BODY_LIMIT_BYTES: String(LIMIT) } });
  token = await harness.token();
});
afterAll(async () => {
  await harness.close();
});
afterEach(() => harness.emulator.reset());

/** A good request of exactly so many bytes. */
function bodyOf(bytes: number): string {
  const [head, tail] = ['{"model":"grok-beta","messages":[{"role":"user","content":"', '"}]}'];
  return head + 'x'.repeat(bytes - head.length - tail.length) + tail;
}

function head(headers: Record<string, string>, path = '/v1/chat/completions'): string {
  return [`POST ${path} HTTP/1.1`, 'host: gateway', ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), '', ''].join('\r\n');
}

function chunked(body: string, bytes = 1_000): string {
  const parts = Array.from({ length: Math.ceil(body.length / bytes) }, (_, index) => body.slice(index * bytes, (index + 1) * bytes));
  return `${parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')}0\r\n\r\n`;
}

function errorIn(text: string): ErrorAnswer['error'] {
  return (JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1)) as ErrorAnswer).error;
}

describe('413: a body over BODY_LIMIT_BYTES', () => {
  it('of one byte more is refused, and recorded', async () => {
    const response = await harness.request('POST', '/v1/chat/completions', { body: bodyOf(LIMIT + 1) });
    const error = await expectError(response, 413, 'payload_too_large');
    expect(error).toMatchObject({ type: 'invalid_request_error', param: null });
    expect(error.message).toContain(String(LIMIT));
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).toMatchObject({ status_code: 'payload_too_large', metadata: { tenant_uid: 'acme' } });
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('is refused by its content-length alone: the answer comes though no byte of the body does', async () => {
    const answer = await bareExchange(harness.url, head({ authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-length': '1000000000' }));
    expect(answer.status).toBe(413);
    expect(errorIn(answer.text).code).toBe('payload_too_large');
    expect(answer.text.toLowerCase()).toContain('connection: close');
  });

  it('in chunks is refused where it passes the limit, before its end', async () => {
    const unending = chunked(bodyOf(LIMIT + 500)).replace(/0\r\n\r\n$/, ''); // the last chunk never comes
    const answer = await bareExchange(harness.url, `${head({ authorization: `Bearer ${token}`, 'content-type': 'application/json', 'transfer-encoding': 'chunked' })}${unending}`);
    expect(answer.status).toBe(413);
    expect(errorIn(answer.text).code).toBe('payload_too_large');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('leaves nothing behind that could be taken for the next request', async () => {
    const smuggled = `GET /v1/models HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${token}\r\n\r\n`;
    const body = smuggled + 'x'.repeat(LIMIT + 1);
    const answer = await bareExchange(harness.url, `${head({ authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-length': String(body.length) })}${body}`, { untilClosed: true });
    expect(answer.text.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(answer.status).toBe(413);
  });

  it('of exactly the limit is served, whole and in chunks', async () => {
    const whole = await harness.request('POST', '/v1/chat/completions', { body: bodyOf(LIMIT) });
    expect(whole.status).toBe(200);
    await whole.text();
    const answer = await bareExchange(harness.url, `${head({ authorization: `Bearer ${token}`, 'content-type': 'application/json', 'transfer-encoding': 'chunked' })}${chunked(bodyOf(LIMIT))}`);
    expect(answer.status).toBe(200);
    expect(harness.emulator.calls).toHaveLength(2);
  });

  it('cut off before its end goes nowhere, and the refusal is recorded', async () => {
    const text = head({ authorization: `Bearer ${await harness.token({ subject: 'half' })}`, 'content-type': 'application/json', 'content-length': '500' });
    const { hostname, port } = new URL(harness.url);
    const socket = connect(Number(port), hostname, () => socket.write(`${text}${bodyOf(400)}`, () => socket.destroy()));
    await eventually(async () => {
      const { rows } = await harness.db.query("SELECT 1 FROM audit_events WHERE event->'actor'->'user'->>'uid' = 'half' AND event->>'status_code' = 'invalid_request'");
      return rows.length === 1;
    });
    expect(harness.emulator.calls).toHaveLength(0);
  });
});

describe('401 comes before 413: nobody makes the gateway read what it may not send', () => {
  it.each<[string, Record<string, string>]>([
    ['by content-length', { 'content-length': '1000000000' }],
    ['in chunks', { 'transfer-encoding': 'chunked' }],
    ['within the limit', { 'content-length': '2000' }],
  ])('an unknown caller is refused without a byte of the body being read: %s', async (_, headers) => {
    const answer = await bareExchange(harness.url, head({ 'content-type': 'application/json', ...headers }));
    expect(answer.status).toBe(401);
    expect(errorIn(answer.text).code).toBe('invalid_token');
    expect(answer.text.toLowerCase()).toContain('connection: close');
  });

  it('a caller without the role for an admin route too', async () => {
    const answer = await bareExchange(harness.url, head({ authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-length': '1000000000' }, '/admin/v1/tenants'));
    expect(answer.status).toBe(403);
  });
});

describe('413: an admin body', () => {
  it('over a megabyte is refused by its content-length', async () => {
    const answer = await bareExchange(harness.url, head({ authorization: `Bearer ${await harness.adminToken()}`, 'content-type': 'application/json', 'content-length': '2000000' }, '/admin/v1/tenants'));
    expect(answer.status).toBe(413);
  });
});

describe('415: a body that is not said to be JSON', () => {
  const body = JSON.stringify({ model: 'grok-beta', messages: HELLO });
  it.each(['text/plain', 'application/jsonp', 'application/json-seq', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/xml', 'text/json', '', 'json', 'application/json, text/plain', 'application/problem+json'])('content-type %j', async (contentType) => {
    const answer = await rawRequest(harness.url, '/v1/chat/completions', { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': contentType, 'content-length': String(body.length) }, body });
    expect(answer.status).toBe(415);
    expect(errorIn(answer.body)).toMatchObject({ code: 'unsupported_media_type', type: 'invalid_request_error', param: null });
    expect(await eventOf(harness, String(answer.headers['x-request-id']), 'refusal')).toMatchObject({ status_code: 'unsupported_media_type' });
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it('no content-type', async () => {
    const answer = await rawRequest(harness.url, '/v1/chat/completions', { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-length': String(body.length) }, body });
    expect(answer.status).toBe(415);
    expect(errorIn(answer.body).code).toBe('unsupported_media_type');
  });

  it.each(['gzip', 'br', 'deflate', 'identity, gzip'])('content-encoding %s: no bomb is unpacked here', async (encoding) => {
    const packed = gzipSync(body);
    const answer = await rawRequest(harness.url, '/v1/chat/completions', {
      method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-encoding': encoding, 'content-length': String(packed.length) }, body: packed,
    });
    expect(answer.status).toBe(415);
    expect(errorIn(answer.body).code).toBe('unsupported_media_type');
    expect(harness.emulator.calls).toHaveLength(0);
  });

  it.each(['application/json', 'APPLICATION/JSON', 'application/json;charset=utf-8', 'application/json ; charset="utf-8"'])('%s is served', async (contentType) => {
    const answer = await rawRequest(harness.url, '/v1/chat/completions', { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': contentType, 'content-length': String(body.length) }, body });
    expect(answer.status).toBe(200);
  });

  it('an admin body without it is refused too', async () => {
    const response = await harness.request('POST', '/admin/v1/tenants', { token: await harness.adminToken(), body: '{}', headers: { 'content-type': 'text/plain' } });
    const error = await expectError(response, 415, 'unsupported_media_type');
    expect(error.message).toContain('application/json');
  });
});

describe('431: headers', () => {
  it('over 32 kB are refused, and the caller learns why', async () => {
    const answer = await bareExchange(harness.url, head({ authorization: `Bearer ${token}`, 'x-long': 'x'.repeat(40_000) }), { untilClosed: true });
    expect(answer.status).toBe(431);
    expect(errorIn(answer.text).code).toBe('headers_too_large');
  });
});
