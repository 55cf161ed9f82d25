import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { startGateway } from '../../src/gateway.ts';
import { systemClock } from '../../src/shared/clock.ts';
import { wholeDatabase } from '../support/access.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { eventOf, eventsOf } from '../support/records.ts';
import { expectError } from '../support/wire.ts';
import { auditor, call, read, recordedPayload, setStorage, stored, type ReadPayloads } from './sealed-payloads.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness.close();
});

async function rowsOf(requestId: string): Promise<string[]> {
  const { rows } = await harness.db.query<{ purpose: string }>('SELECT purpose FROM payloads WHERE request_id = $1 ORDER BY purpose DESC', [requestId]);
  return rows.map(({ purpose }) => purpose);
}

/** What the stream says, of the stored bytes of an answer. */
function saidIn(events: string): string {
  const frames = events.split('\n\n').filter((frame) => frame.startsWith('data: {')).map((frame) => JSON.parse(frame.slice(6)) as { choices: { delta: { content?: string } }[] });
  return frames.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
}

describe('payload_storage', () => {
  it('is off unless the tenant says otherwise, and then nothing is stored, and no record speaks of it', async () => {
    const tenant = (await (await harness.request('GET', '/admin/v1/tenants/acme', { token: await harness.adminToken() })).json()) as { payload_storage: string };
    expect(tenant.payload_storage).toBe('off');
    const { requestId, status } = await call(harness);
    expect(status).toBe(200);
    expect(await recordedPayload(harness, requestId)).toBeUndefined();
    expect((await harness.db.query('SELECT FROM payloads')).rowCount).toBe(0);
    expect((await harness.db.query('SELECT FROM payload_data_keys')).rowCount).toBe(0);
    await expectError(await read(harness, requestId, await auditor(harness)), 404, 'not_found');
  });

  it.each([['prompts', ['prompt']], ['answers', ['answer']], ['both', ['prompt', 'answer']]] as const)('%s stores %j, plain and streamed, by a record that says so', async (storage, purposes) => {
    await setStorage(harness, storage);
    for (const stream of [false, true]) {
      const { requestId, status } = await call(harness, { stream, text: `storing ${storage}` });
      expect(status).toBe(200);
      expect(await rowsOf(requestId)).toEqual(purposes);
      const texts = await stored(harness, requestId);
      expect(Object.keys(texts)).toEqual(purposes);
      const bytes = (text: string): object => ({ bytes: Buffer.byteLength(text) });
      const { rows: [row] } = await harness.db.query<{ data_key_id: string }>('SELECT data_key_id FROM payloads WHERE request_id = $1', [requestId]);
      expect(await recordedPayload(harness, requestId)).toEqual({ data_key_id: row!.data_key_id, ...Object.fromEntries(purposes.map((purpose) => [purpose, bytes(texts[purpose]!)])) });
    }
    await setStorage(harness, 'off');
  });

  it('takes nothing else', async () => {
    const response = await harness.request('PATCH', '/admin/v1/tenants/acme', { token: await harness.adminToken(), body: { payload_storage: 'all' } });
    expect((await expectError(response, 400, 'invalid_request')).param).toBe('payload_storage');
  });
});

describe('what is stored', () => {
  it('is the caller’s body and the provider’s bytes, to the byte, and stands in plain text neither in the database nor in the log', async () => {
    await setStorage(harness, 'both');
    const lines: string[] = [];
    const second = await startGateway(harness.settings, pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) }), systemClock);
    const token = await harness.token();
    for (const stream of [false, true]) {
      const canary = `canary${randomUUID().replaceAll('-', '')}`;
      const answer = `reply${randomUUID().replaceAll('-', '')}`;
      const body = JSON.stringify({ model: 'grok-beta', stream, messages: [{ role: 'user', content: canary }], x_emulator: { content: answer, output_tokens: 400 } }, null, 3);
      const response = await fetch(`${second.url}/v1/chat/completions`, { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body });
      const told = await response.text();
      expect(told).toContain(stream ? 'data: ' : answer);
      const requestId = response.headers.get('x-request-id')!;
      const texts = await stored(harness, requestId);
      expect(texts['prompt']).toBe(body);
      expect(saidIn(texts['answer']!)).toBe(answer);
      expect(texts['answer']).toContain('[DONE]');
      await eventOf(harness, requestId, 'outcome');
      const database = await wholeDatabase(harness.db);
      expect(database).toContain(requestId);
      for (const secret of [canary, answer]) {
        for (const form of [secret, Buffer.from(secret).toString('hex'), Buffer.from(secret).toString('base64').slice(0, 20)]) expect(database.includes(form)).toBe(false);
        expect(lines.filter((line) => line.includes(secret))).toEqual([]);
      }
      expect(lines.some((line) => line.includes(requestId))).toBe(true); // the log was listened to
    }
    await second.close();
    await setStorage(harness, 'off');
  });

  it('is what came, where the answer broke in the middle', async () => {
    await setStorage(harness, 'both');
    const { requestId } = await call(harness, { stream: true, script: { cut_after: 3, output_tokens: 50 } });
    const broken = await stored(harness, requestId);
    expect(broken['answer']).toContain('data: ');
    expect(broken['answer']).not.toContain('[DONE]');
    await setStorage(harness, 'off');
  });

  it('is what came, where the caller hung up', async () => {
    await setStorage(harness, 'both');
    const hangUp = new AbortController();
    const response = await harness.request('POST', '/v1/chat/completions', { body: { model: 'grok-beta', stream: true, messages: [{ role: 'user', content: 'hello' }], x_emulator: { output_tokens: 500, token_interval_ms: 20 } }, signal: hangUp.signal });
    await response.body!.getReader().read();
    hangUp.abort();
    const requestId = response.headers.get('x-request-id')!;
    expect(await recordedPayload(harness, requestId)).toMatchObject({ prompt: {}, answer: { bytes: expect.any(Number) } });
    expect((await stored(harness, requestId))['answer']).toMatch(/^data: \{/);
    await setStorage(harness, 'off');
  });

  it('is of the last attempt alone, as the commitment is, where an earlier one failed', async () => {
    await setStorage(harness, 'both');
    harness.emulator.reset();
    harness.emulator.setFaults([{ calls: 1, error_frame_after: 0 }]);
    const { requestId, status } = await call(harness, { stream: true });
    harness.emulator.setFaults([]);
    expect([status, harness.emulator.calls.length]).toEqual([200, 2]);
    const { answer } = await stored(harness, requestId);
    expect(answer!.split('[DONE]')).toHaveLength(2);
    expect(answer).not.toContain('error');
    await setStorage(harness, 'off');
  });

  it('is the prompt alone, where the provider refused', async () => {
    await setStorage(harness, 'both');
    const { requestId, status } = await call(harness, { script: { status: 400 } });
    expect(status).toBe(400);
    expect(Object.keys(await stored(harness, requestId))).toEqual(['prompt']);
    await setStorage(harness, 'off');
  });
});

describe('a stored record', () => {
  it.each([
    ['another tenant', "tenant_id = 'globex'", 'globex'],
    ['another row', "request_id = '01890000-0000-7000-8000-000000000001'", 'acme'],
    ['another purpose', "purpose = 'prompt'", 'acme'],
    ['other bytes', 'sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1)', 'acme'],
    ['another key', 'sealed = set_byte(sealed, 10, get_byte(sealed, 10) # 1)', 'acme'],
  ])('does not open as that of %s: one text, and the text is not in it', async (_, change, tenant) => {
    await setStorage(harness, 'answers');
    const { requestId } = await call(harness);
    await harness.db.query(`UPDATE payloads SET ${change} WHERE request_id = $1`, [requestId]);
    const moved = change.startsWith('request_id') ? '01890000-0000-7000-8000-000000000001' : requestId;
    const error = await expectError(await read(harness, moved, await auditor(harness, tenant)), 500, 'internal_error');
    expect(error.message).toBe('What is stored of this request cannot be opened: it is damaged, or stands where it was not stored.');
    await harness.db.query('DELETE FROM payloads WHERE request_id = $1', [moved]);
    await setStorage(harness, 'off');
  });
});

describe('GET /admin/v1/payloads/{request_id}', () => {
  let requestId: string;
  beforeAll(async () => {
    await setStorage(harness, 'both');
    ({ requestId } = await call(harness, { text: 'who may read this' }));
  });
  afterAll(() => setStorage(harness, 'off'));

  it('answers an auditor of the tenant, whose reason is on record', async () => {
    const response = await read(harness, requestId, await auditor(harness), 'ticket 17: complaint of the works council');
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe('no-store');
    const answer = (await response.json()) as ReadPayloads;
    expect(answer).toMatchObject({ request_id: requestId, tenant: 'acme', payloads: [{ purpose: 'prompt', content_type: 'application/json' }, { purpose: 'answer', content_type: 'text/event-stream' }] });
    for (const { bytes, text, stored_at: at } of answer.payloads) {
      expect(bytes).toBe(Buffer.byteLength(text!));
      expect(Math.abs(Date.now() - Date.parse(at))).toBeLessThan(60_000);
    }
    // Committed by the time that the text is here: not a moment later.
    const [event] = await eventsOf(harness, response.headers.get('x-request-id'));
    expect(event).toMatchObject({
      activity_id: 2, actor: { user: { uid: 'eve@acme.example' } }, api: { operation: 'GET /admin/v1/payloads/:request_id', response: { code: 200 } },
      unmapped: { novix: { phase: 'change', object: { type: 'payload', id: requestId }, after: { reason: 'ticket 17: complaint of the works council', tenant: 'acme', purposes: ['prompt', 'answer'] } } },
    });
    expect(JSON.stringify(event)).not.toContain('who may read this');
  });

  it('gives no text where the reading cannot be put on record', async () => {
    await harness.db.query('ALTER TABLE audit_pending RENAME TO audit_pending_away');
    try {
      const response = await read(harness, requestId, await auditor(harness));
      expect(response.status).toBe(500);
      expect(await response.text()).not.toContain('who may read this');
    } finally {
      await harness.db.query('ALTER TABLE audit_pending_away RENAME TO audit_pending');
    }
  });

  it.each([['none', null], ['an empty one', ''], ['one of 501 characters', 'x'.repeat(501)], ['one with a line break', 'a\nb']])('refuses %s for a reason: 400', async (_, reason) => {
    const error = await expectError(await read(harness, requestId, await auditor(harness), reason), 400, 'invalid_request');
    expect(error.param).toBe('reason');
  });

  it.each([
    ['a developer', 'acme', ['developer']], ['a tenant-admin', 'acme', ['tenant-admin']], ['billing', 'acme', ['billing']], ['a platform-admin who is no auditor', 'platform', ['platform-admin']],
  ])('is closed to %s: 403', async (_, tenant, roles) => {
    const error = await expectError(await read(harness, requestId, await auditor(harness, tenant, roles)), 403, 'policy_denied');
    expect(error.message).toMatch(/auditor/);
  });

  it('knows nothing of another tenant’s: 404, as for what never was', async () => {
    const strange = await expectError(await read(harness, requestId, await auditor(harness, 'globex')), 404, 'not_found');
    const never = await expectError(await read(harness, randomUUID(), await auditor(harness, 'globex')), 404, 'not_found');
    const nonsense = await expectError(await read(harness, 'nonsense', await auditor(harness, 'globex')), 404, 'not_found');
    expect(strange.message).toBe(never.message);
    expect(nonsense.message).toBe(never.message);
  });

  it('answers the platform’s auditors for every tenant', async () => {
    for (const roles of [['auditor'], ['platform-admin', 'auditor']]) {
      const response = await read(harness, requestId, await auditor(harness, 'platform', roles));
      expect([response.status, ((await response.json()) as ReadPayloads).tenant]).toEqual([200, 'acme']);
    }
  });
});

describe('where it cannot be stored', () => {
  it('a prompt keeps the call from being made: 503, nothing sent, nothing charged', async () => {
    await setStorage(harness, 'both');
    await call(harness); // has made its data key
    const before = harness.emulator.calls.length;
    await harness.db.query('ALTER TABLE payloads RENAME TO payloads_away');
    try {
      const response = await harness.complete();
      const requestId = response.headers.get('x-request-id')!;
      await expectError(response, 503, 'audit_unavailable');
      expect(harness.emulator.calls).toHaveLength(before);
      expect((await eventOf(harness, requestId, 'outcome')).unmapped.novix).toMatchObject({ outcome: 'never_sent', charge: { ticks: '0' } });
      expect(await eventsOf(harness, requestId)).toHaveLength(2);
    } finally {
      await harness.db.query('ALTER TABLE payloads_away RENAME TO payloads');
    }
    await setStorage(harness, 'off');
  });

  it('an answer fails no call: its record says so, and a metric counts', async () => {
    await setStorage(harness, 'answers');
    const token = await harness.token();
    await harness.db.query('ALTER TABLE payloads RENAME TO payloads_away');
    try {
      const { requestId, status, body } = await call(harness);
      expect(status).toBe(200);
      expect(body).toContain('chat.completion');
      expect(await recordedPayload(harness, requestId)).toMatchObject({ answer: 'not_stored' });
    } finally {
      await harness.db.query('ALTER TABLE payloads_away RENAME TO payloads');
    }
    const metrics = await (await harness.request('GET', '/metrics', { token })).text();
    expect(metrics).toMatch(/novix_payloads_not_stored_total\{purpose="answer",reason="failed"\} 1\n/);
    expect(metrics).toMatch(/novix_payload_copies_bytes 0\n/);
    await setStorage(harness, 'off');
  });

  it('an answer beyond 16 MiB is passed on whole, and not stored, and its copy is let go', async () => {
    await setStorage(harness, 'answers');
    const frameBytes = 50_000;
    const { requestId, status, body } = await call(harness, { stream: true, script: { output_tokens: 400, frame_bytes: frameBytes } });
    expect(status).toBe(200);
    expect(body.length).toBeGreaterThan(16 * 1024 * 1024);
    expect(await recordedPayload(harness, requestId)).toMatchObject({ answer: 'not_stored' });
    expect(await rowsOf(requestId)).toEqual([]);
    const metrics = await eventually(async () => (await harness.request('GET', '/metrics')).text());
    expect(metrics).toMatch(/novix_payloads_not_stored_total\{purpose="answer",reason="too_long"\} 1\n/);
    expect(metrics).toMatch(/novix_payload_copies_bytes 0\n/);
    await setStorage(harness, 'off');
  });
});
