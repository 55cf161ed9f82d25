import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { adminOf, madeBy, type AdminCall } from '../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import { Pki } from '../support/pki.ts';
import { eventOf } from '../support/records.ts';
import { expectError } from '../support/wire.ts';
import { listAll } from '../support/access.ts';
import { TOKEN } from './export-bench.ts';
import { startHttpReceiver, type HttpReceiver } from './http-receiver.ts';

// `/admin/v1/siem-sinks` on the whole gateway, which exports its own log.

interface SinkView {
  id: string;
  name: string;
  type: string;
  url: string;
  enabled: boolean;
  has_token: boolean;
  ca?: string;
  cursor: number;
  lag_events: number;
  parked: number;
  last_error: string | null;
  last_delivered_at: string | null;
  created_at: string;
  updated_at: string;
}

let harness: Harness;
let collector: HttpReceiver;
let pki: Pki;
let admin: AdminCall;
beforeAll(async () => {
  [collector, pki] = await Promise.all([startHttpReceiver(), Pki.create('sinks')]);
  harness = await startHarness({ env: { EGRESS_ALLOW: `${collector.origin},tls://127.0.0.1:6514` } });
  admin = adminOf(harness, await harness.adminToken());
});
afterAll(async () => {
  await harness.close();
  await Promise.all([collector.close(), pki.remove()]);
});
afterEach(async () => {
  for (const { id } of await listAll<SinkView>(admin, '/siem-sinks')) await admin('DELETE', `/siem-sinks/${id}`);
  collector.answer(() => ({}));
});

let named = 0;
const otlp = (more: Record<string, unknown> = {}): Record<string, unknown> => ({ name: `sink ${(named += 1)}`, type: 'otlp', url: collector.origin, ...more });
const create = async (body: Record<string, unknown>): Promise<SinkView> => madeBy<SinkView>(await admin('POST', '/siem-sinks', body), 201);
const get = async (id: string): Promise<SinkView> => madeBy<SinkView>(await admin('GET', `/siem-sinks/${id}`));
const fileUrl = (...parts: string[]): string => pathToFileURL(join(harness.settings.siemDir, ...parts)).href;
const head = async (): Promise<number> => Number((await harness.db.query<{ size: string }>('SELECT size FROM audit_head')).rows[0]!.size);
/** Events as they arrived, without those of signing in. */
const arrived = (): string[] => collector.received.flatMap(({ body }) => {
  const { resourceLogs } = JSON.parse(body) as { resourceLogs: { scopeLogs: { logRecords: { body: { stringValue: string } }[] }[] }[] };
  const events = resourceLogs[0]!.scopeLogs[0]!.logRecords.map((record) => JSON.parse(record.body.stringValue) as { class_uid: number; api: { operation: string }; unmapped: { novix: { phase: string } } });
  return events.filter((event) => event.class_uid === 6003).map(({ api, unmapped }) => `${api.operation} ${unmapped.novix.phase}`);
});

describe('a sink', () => {
  it('is made, read, changed and deleted, and never tells its token', async () => {
    const made = await create(otlp({ name: 'collector', token: TOKEN, ca: pki.ca, enabled: false }));
    expect(made).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/), name: 'collector', type: 'otlp', url: collector.origin, enabled: false, has_token: true, ca: pki.ca, cursor: expect.any(Number), lag_events: expect.any(Number), parked: 0,
      last_error: null, last_delivered_at: null, created_at: expect.stringMatching(/Z$/), updated_at: expect.stringMatching(/Z$/),
    });
    const { rows: [stored] } = await harness.db.query<{ sealed_token: string }>('SELECT sealed_token FROM siem_sinks WHERE id = $1', [made.id]);
    expect(stored!.sealed_token).toMatch(/^enc:v1:local:/);
    expect(stored!.sealed_token).not.toContain(TOKEN);
    const patched = await madeBy<SinkView>(await admin('PATCH', `/siem-sinks/${made.id}`, { name: 'renamed', url: `${collector.origin}/v1/logs`, token: null, ca: null }));
    expect(patched).toMatchObject({ name: 'renamed', url: `${collector.origin}/v1/logs`, has_token: false, enabled: false });
    expect(patched).not.toHaveProperty('ca');
    expect(await get(made.id)).toMatchObject({ name: 'renamed', created_at: made.created_at, cursor: made.cursor });
    expect((await admin('DELETE', `/siem-sinks/${made.id}`)).status).toBe(204);
    for (const [method, path] of [['GET', ''], ['PATCH', ''], ['DELETE', ''], ['GET', '/parked']] as const) await expectError(await admin(method, `/siem-sinks/${made.id}${path}`, method === 'PATCH' ? { enabled: true } : undefined), 404, 'not_found');
  });

  it('is listed page by page', async () => {
    const made = [];
    for (let count = 0; count < 5; count += 1) made.push(await create(otlp({ enabled: false })));
    const first = await madeBy<{ data: SinkView[]; next_cursor: string }>(await admin('GET', '/siem-sinks?limit=2'));
    expect(first.data.map(({ id }) => id)).toEqual(made.slice(0, 2).map(({ id }) => id));
    expect((await madeBy<{ data: SinkView[] }>(await admin('GET', `/siem-sinks?limit=10&cursor=${first.next_cursor}`))).data.map(({ id }) => id)).toEqual(made.slice(2).map(({ id }) => id));
    await expectError(await admin('GET', '/siem-sinks?cursor=bm9uc2Vuc2U'), 400, 'invalid_request');
  });

  it('has a name of its own', async () => {
    const [one, two] = [await create(otlp({ name: 'one', enabled: false })), await create(otlp({ name: 'two', enabled: false }))];
    await expectError(await admin('POST', '/siem-sinks', otlp({ name: 'one' })), 409, 'already_exists');
    await expectError(await admin('PATCH', `/siem-sinks/${two.id}`, { name: 'one' }), 409, 'already_exists');
    expect(await madeBy(await admin('PATCH', `/siem-sinks/${one.id}`, { name: 'one' }))).toMatchObject({ name: 'one' });
  });

  it('is the platform’s business alone', async () => {
    const { id } = await create(otlp({ enabled: false }));
    const others = [{}, { roles: ['tenant-admin'] }, { roles: ['auditor'] }, { roles: ['billing'] }, { roles: ['platform-admin'] }, { tenant: 'platform', subject: 'x', roles: ['auditor'] }, { tenant: 'platform', subject: 'x', roles: ['tenant-admin'] }];
    for (const other of others) {
      const call = adminOf(harness, await harness.token(other));
      for (const [method, path, body] of [['POST', '', otlp()], ['GET', ''], ['GET', `/${id}`], ['GET', `/${id}/parked`], ['PATCH', `/${id}`, { enabled: true }], ['DELETE', `/${id}`]] as const) {
        await expectError(await call(method, `/siem-sinks${path}`, body), 403, 'policy_denied');
      }
    }
    expect(await get(id)).toMatchObject({ enabled: false });
  });
});

describe('is refused:', () => {
  it.each<[string, Record<string, unknown>, string | null]>([
    ['no name', { name: undefined }, null], ['an empty name', { name: '' }, 'name'], ['a name with a line break', { name: 'a\nb' }, 'name'], ['an unknown field', { colour: 'red' }, 'colour'], ['an unknown type', { type: 'kafka' }, 'type'], ['a cursor', { cursor: 0 }, 'cursor'],
    ['http', { url: 'http://collector.example' }, 'url'], ['loopback', { url: 'https://127.0.0.1:1' }, 'url'], ['a private address', { url: 'https://10.0.0.1/v1/logs' }, 'url'], ['metadata', { url: 'https://169.254.169.254/' }, 'url'], ['another port of an allowed origin', { url: 'http://127.0.0.1:1' }, 'url'],
    ['credentials in the URL', { url: 'https://user:secret@collector.example/' }, 'url'], ['a query', { url: 'https://collector.example/?a' }, 'url'], ['no URL', { url: 'collector' }, 'url'], ['a file as otlp', { url: 'file:///tmp/x' }, 'url'], ['tls as otlp', { url: 'tls://127.0.0.1:6514' }, 'url'],
    ['a token with a space', { token: 'a b' }, 'token'], ['a token with a line break', { token: 'a\r\nx: y' }, 'token'], ['a CA that is none', { ca: '-----BEGIN CERTIFICATE-----\nnonsense' }, 'ca'], ['an index beyond the log', { from_index: 1_000_000_000 }, 'from_index'], ['a negative index', { from_index: -1 }, 'from_index'],
    ['a HEC without a token', { type: 'hec' }, 'token'],
    ['syslog by https', { type: 'syslog', url: 'https://syslog.example' }, 'url'], ['syslog with a path', { type: 'syslog', url: 'tls://syslog.example:6514/x' }, 'url'], ['syslog with a user', { type: 'syslog', url: 'tls://user@syslog.example' }, 'url'], ['syslog on loopback', { type: 'syslog', url: 'tls://127.0.0.1:6515' }, 'url'],
    ['syslog on loopback in other words', { type: 'syslog', url: 'tls://2130706433:6515' }, 'url'], ['syslog on localhost', { type: 'syslog', url: 'tls://localhost:6514' }, 'url'], ['syslog on IPv6 loopback', { type: 'syslog', url: 'tls://[::1]:6514' }, 'url'], ['syslog on a port that there is not', { type: 'syslog', url: 'tls://syslog.example:0' }, 'url'],
    ['syslog with a token', { type: 'syslog', url: 'tls://127.0.0.1:6514', token: TOKEN }, 'token'],
    ['a file elsewhere', { type: 'file', url: 'file:///etc/passwd' }, 'url'], ['a file of another host', { type: 'file', url: 'file://host/tmp/x' }, 'url'], ['a relative file', { type: 'file', url: 'file:audit.jsonl' }, 'url'], ['https as a file', { type: 'file', url: 'https://collector.example/x' }, 'url'],
  ])('%s', async (_, fields, param) => {
    const error = await expectError(await admin('POST', '/siem-sinks', otlp(fields)), 400, 'invalid_request');
    expect(error.param).toBe(param);
    expect(error.message).not.toContain('secret');
    expect(await listAll(admin, '/siem-sinks')).toEqual([]);
  });

  it('files that leave NOVIX_SIEM_DIR in whatever way', async () => {
    await mkdir(join(harness.settings.siemDir, 'inside'), { recursive: true });
    await symlink('/tmp', join(harness.settings.siemDir, 'out'));
    await create({ name: 'inside', type: 'file', url: fileUrl('inside', 'audit.jsonl'), enabled: false });
    await create({ name: 'also inside', type: 'file', url: fileUrl('inside', '..', 'audit.jsonl'), enabled: false });
    const base = fileUrl('');
    const urls = [fileUrl('out', 'x'), fileUrl('..', 'x'), `${base}/%2e%2e/x`, `${base}/inside/..%2f..%2fx`, fileUrl('no-such-folder', 'x'), `${base}/`, `${base}/a%00b`, `${base}/x?y`, `${base}-other/x`];
    for (const url of urls) expect([url, (await expectError(await admin('POST', '/siem-sinks', { name: 'bad', type: 'file', url }), 400, 'invalid_request')).param]).toEqual([url, 'url']);
  });

  it('by PATCH what is refused by POST', async () => {
    const { id } = await create(otlp({ enabled: false }));
    for (const change of [{}, { type: 'hec' }, { from_index: 0 }, { url: 'http://collector.example' }, { url: 'tls://127.0.0.1:6514' }, { token: '' }, { ca: 'x' }, { name: null }, { enabled: 'yes' }]) await expectError(await admin('PATCH', `/siem-sinks/${id}`, change), 400, 'invalid_request');
    const hec = await create({ name: 'hec', type: 'hec', url: collector.origin, token: TOKEN, enabled: false });
    expect((await expectError(await admin('PATCH', `/siem-sinks/${hec.id}`, { token: null }), 400, 'invalid_request')).param).toBe('token');
    expect(await get(hec.id)).toMatchObject({ has_token: true });
  });
});

it('allows syslog where EGRESS_ALLOW has it, in any spelling of the same, and public receivers', async () => {
  for (const url of ['tls://127.0.0.1:6514', 'tls://127.0.0.1', 'tls://127.1:6514', 'TLS://2130706433', 'tls://syslog.example:6514', 'tls://8.8.8.8:10514', 'tls://[2606:4700:4700::1111]']) expect(await create({ name: url, type: 'syslog', url, enabled: false })).toMatchObject({ url });
});

describe('the record of a change', () => {
  it('has what was and what is, without the token', async () => {
    const response = await admin('POST', '/siem-sinks', otlp({ name: 'recorded', token: TOKEN, ca: pki.ca, enabled: false }));
    const { id, cursor } = await madeBy<SinkView>(response, 201);
    const after = { name: 'recorded', type: 'otlp', url: collector.origin, enabled: false, has_token: true, cursor, ca: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) };
    const created = await eventOf(harness, response.headers.get('x-request-id'), 'change');
    expect(created.unmapped.novix).toMatchObject({ object: { type: 'siem-sink', id }, before: null, after });
    const patched = await admin('PATCH', `/siem-sinks/${id}`, { token: `${TOKEN}-2`, url: `${collector.origin}/v1/logs` });
    const changed = await eventOf(harness, patched.headers.get('x-request-id'), 'change');
    expect(changed).toMatchObject({ api: { operation: 'PATCH /admin/v1/siem-sinks/:id' }, unmapped: { novix: { before: after, after: { ...after, url: `${collector.origin}/v1/logs` } } } });
    const removed = await eventOf(harness, (await admin('DELETE', `/siem-sinks/${id}`)).headers.get('x-request-id'), 'change');
    expect(removed.unmapped.novix).toMatchObject({ before: { ...after, url: `${collector.origin}/v1/logs` }, after: null });
    expect((await harness.db.query("SELECT FROM audit_events WHERE event::text LIKE $1", [`%${TOKEN}%`])).rowCount).toBe(0);
  });

  it('is not there where the change is not', async () => {
    await create(otlp({ name: 'taken', enabled: false }));
    const refused = await admin('POST', '/siem-sinks', otlp({ name: 'taken' }));
    expect(refused.status).toBe(409);
    const { rowCount } = await harness.db.query("SELECT FROM audit_events WHERE event->'metadata'->>'correlation_uid' = $1 AND event->'unmapped'->'novix'->>'phase' = 'change'", [refused.headers.get('x-request-id')]);
    expect(rowCount).toBe(0);
  });
});

describe('the gateway', () => {
  it('exports what is recorded from the making of a sink on, its own making first', async () => {
    await (await harness.complete()).text();
    await eventually(async () => (await harness.db.query('SELECT FROM audit_pending')).rowCount === 0);
    collector.received.length = 0;
    const size = await head();
    const { id, cursor } = await create(otlp({ token: TOKEN }));
    expect(cursor).toBe(size);
    const completion = await harness.complete();
    await completion.text();
    await eventually(() => arrived().length >= 3);
    expect(arrived()).toEqual(['POST /admin/v1/siem-sinks change', 'POST /v1/chat/completions intent', 'POST /v1/chat/completions outcome']);
    expect(collector.received[0]!.headers.authorization).toBe(`Bearer ${TOKEN}`);
    await eventually(async () => (await get(id)).lag_events === 0);
    const { name, cursor: reached, ...rest } = await get(id);
    expect(reached).toBeGreaterThanOrEqual(size + 3);
    expect(rest).toMatchObject({ parked: 0, last_error: null, last_delivered_at: expect.stringMatching(/Z$/) });
    const metrics = await eventually(async () => {
      const text = await (await fetch(`${harness.url}/metrics`)).text();
      return text.includes(`novix_siem_sink_lag_events{sink="${name}"} 0\n`) && text;
    });
    expect(metrics).toContain(`novix_siem_events_delivered_total{sink="${name}"} ${reached - size}\n`);
    for (const counter of ['events_parked', 'delivery_failures']) expect(metrics).toContain(`novix_siem_${counter}_total{sink="${name}"} 0\n`);
  });

  it('exports from where from_index says', async () => {
    await (await harness.complete()).text();
    await eventually(async () => (await head()) >= 2);
    const { id, cursor } = await create(otlp({ from_index: 1, enabled: false }));
    expect(cursor).toBe(1);
    const { lag_events: lag } = await get(id);
    expect(lag).toBeGreaterThanOrEqual((await head()) - 1);
    await madeBy(await admin('PATCH', `/siem-sinks/${id}`, { enabled: true }));
    await eventually(async () => (await get(id)).lag_events === 0);
  });

  it('goes on within a second of a change, and shows what was parked', async () => {
    collector.answer(({ headers }) => (headers.authorization === `Bearer ${TOKEN}` ? { body: { partialSuccess: { rejectedLogRecords: 1, errorMessage: 'no' } } } : { status: 401 }));
    const { id } = await create(otlp({ token: 'wrong' }));
    await eventually(async () => (await get(id)).last_error === 'the collector answered 401: {}');
    expect(await get(id)).toMatchObject({ parked: 0 });
    await madeBy(await admin('PATCH', `/siem-sinks/${id}`, { token: TOKEN }));
    const changedMs = performance.now();
    await eventually(async () => (await get(id)).parked > 0);
    expect(performance.now() - changedMs).toBeLessThan(1_500);
    const [parked] = await listAll<Record<string, unknown>>(admin, `/siem-sinks/${id}/parked`);
    expect(parked).toEqual({ id: expect.any(String), first_index: expect.any(Number), last_index: expect.any(Number), events: 1, reason: 'the collector rejected 1: no', at: expect.stringMatching(/Z$/) });
    const alerts = await eventually(async () => {
      const found = (await listAll<{ type: string; subject: string }>(admin, '/alerts')).filter(({ type }) => type === 'siem_parked');
      return found.length > 0 && found;
    });
    expect(alerts.at(-1)).toMatchObject({ subject: (await get(id)).name, state: 'firing' });
  });
});
