import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { decodeJwt } from 'jose';
import { expectCut, listAll, LONG_STREAM, makeKey, removeAll, running, wallClock } from '../../support/access.ts';
import { adminOf, completeAt, madeBy, type AdminCall } from '../../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Credentials that no longer count, judged by what they still open.

interface RevocationView {
  id: string;
  type: string;
  value: string;
  tenant: string | null;
  created_at: string;
  expires_at: string | null;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const DAY_MS = 86_400_000;
const FINGERPRINT = 'ab'.repeat(32);

const clock = wallClock();
let harness: Harness;
let root: AdminCall;
let admin: AdminCall;
beforeAll(async () => {
  harness = await startHarness({ clock, env: { XAI_RETRY_MAX: '0', AUTH_FAILURES_PER_MINUTE: '1000000' } });
  root = adminOf(harness, await harness.adminToken());
  admin = adminOf(harness, await harness.token({ subject: 'admin@acme.example', roles: ['tenant-admin'] }));
});
afterEach(async () => {
  await removeAll(root, '/revocations');
  harness.emulator.reset();
});
afterAll(async () => {
  await harness.close();
});

const jtiOf = (token: string): string => decodeJwt(token).jti!;
const revoke = async (fields: Record<string, unknown>, call = admin): Promise<RevocationView> => madeBy<RevocationView>(await call('POST', '/revocations', fields), 201);
const statusAt = async (token: string, path = '/v1/models'): Promise<number> => {
  const response = await harness.request('GET', path, { token });
  await response.text();
  return response.status;
};
const use = (token: string, body: Record<string, unknown> = {}): Promise<Response> => completeAt(harness.url, token, body);

describe('POST /admin/v1/revocations', () => {
  it('revokes one token at once, though it has just been used, and no other of its subject; and records it', async () => {
    const [token, another] = [await harness.token(), await harness.token()];
    expect([await statusAt(token), await statusAt(another)]).toEqual([200, 200]);
    const response = await admin('POST', '/revocations', { type: 'jti', value: jtiOf(token) });
    const made = await madeBy<RevocationView>(response, 201);
    expect(made).toEqual({ id: expect.stringMatching(UUID), type: 'jti', value: jtiOf(token), tenant: 'acme', created_at: expect.stringMatching(RFC3339), expires_at: expect.stringMatching(RFC3339) });
    expect(Math.abs(Date.parse(made.expires_at!) - Date.now() - 90 * DAY_MS)).toBeLessThan(60_000);
    for (let n = 0; n < 5; n += 1) expect([await statusAt(token), await statusAt(another)]).toEqual([401, 200]); // nothing that is remembered revives it
    expect(await madeBy(await admin('GET', `/revocations/${made.id}`))).toEqual(made);
    expect(await listAll(admin, '/revocations')).toEqual([made]);
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({
      metadata: { tenant_uid: 'acme' }, actor: { user: { uid: 'admin@acme.example' } }, api: { operation: 'POST /admin/v1/revocations', response: { code: 201 } },
      unmapped: { novix: { object: { type: 'revocation', id: made.id }, before: null, after: made } },
    });
    expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
  });

  it('of a subject ends every token of it, those yet to be issued included, and its keys', async () => {
    const mine = { subject: 'mallory@acme.example' };
    const [one, two] = [await harness.token(mine), await harness.token({ ...mine, roles: ['tenant-admin'] })];
    const { key } = await makeKey(admin, { sub: mine.subject });
    const made = await revoke({ type: 'sub', value: mine.subject });
    expect(made.expires_at).toBeNull();
    expect([await statusAt(one), await statusAt(two, '/admin/v1/policies'), await statusAt(key), await statusAt(await harness.token(mine)), await statusAt(await harness.token())]).toEqual([401, 401, 401, 401, 200]);
    const later = await clock.at(Date.now() + 300_000, async () => statusAt(await harness.token({ ...mine, ttlSeconds: 3_600 })));
    expect(later).toBe(401);
  });

  it('of a key, by its id, ends that key', async () => {
    const [one, two] = [await makeKey(admin), await makeKey(admin)];
    expect([await statusAt(one.key), await statusAt(two.key)]).toEqual([200, 200]);
    await revoke({ type: 'key', value: one.id });
    expect([await statusAt(one.key), await statusAt(two.key)]).toEqual([401, 200]);
  });

  it.each([FINGERPRINT, FINGERPRINT.toUpperCase(), FINGERPRINT.replaceAll(/(..)(?=.)/g, '$1:')])('takes the certificate %s, and keeps it in one spelling', async (value) => {
    expect(await revoke({ type: 'certificate', value })).toMatchObject({ type: 'certificate', value: FINGERPRINT, expires_at: null });
    await expectError(await admin('POST', '/revocations', { type: 'certificate', value: FINGERPRINT }), 409, 'already_exists');
  });

  it('refuses with the one text of all failures, without a word of revocation', async () => {
    const token = await harness.token();
    const none = await expectError(await harness.request('GET', '/v1/models', { token: null }), 401, 'invalid_token');
    await revoke({ type: 'jti', value: jtiOf(token) });
    for (const response of [await harness.request('GET', '/v1/models', { token }), await use(token), await harness.request('GET', '/admin/v1/budgets', { token })]) {
      expect(await expectError(response, 401, 'invalid_token')).toEqual(none);
      expect(response.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"');
    }
    expect(harness.emulator.calls).toEqual([]);
  });

  it('of a type that does not fit the value ends nothing', async () => {
    const token = await harness.token({ subject: 'eve' });
    for (const fields of [{ type: 'jti', value: 'eve' }, { type: 'sub', value: jtiOf(token) }, { type: 'key', value: jtiOf(token) }, { type: 'sub', value: 'ev' }, { type: 'sub', value: 'Eve' }, { type: 'sub', value: 'eve ' }]) await revoke(fields);
    expect(await statusAt(token)).toBe(200);
  });

  it('of the same a second time is 409, also of many at once', async () => {
    const value = randomUUID();
    const answers = await Promise.all(Array.from({ length: 6 }, () => admin('POST', '/revocations', { type: 'jti', value })));
    expect(answers.map(({ status }) => String(status)).toSorted().join(' ')).toBe('201 409 409 409 409 409');
    expect((await expectError(answers.find(({ status }) => status === 409)!, 409, 'already_exists')).param).toBe('value');
    await revoke({ type: 'sub', value }); // of another type it is another
    await revoke({ type: 'jti', value, tenant: 'globex' }, root);
    await revoke({ type: 'jti', value, tenant: null }, root);
    await expectError(await root('POST', '/revocations', { type: 'jti', value, tenant: null }), 409, 'already_exists');
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['an id', { id: randomUUID() }, 'id'], ['a time of making', { created_at: '2026-01-01T00:00:00Z' }, 'created_at'], ['an unknown field', { colour: 'red' }, 'colour'], ['an unknown type', { type: 'tenant' }, 'type'], ['no type', { type: undefined }, 'type'],
    ['no value', { value: undefined }, 'value'], ['an empty value', { value: '' }, 'value'], ['a number', { value: 7 }, 'value'], ['a value with a control character', { value: 'a\u001fb' }, 'value'], ['a value of 513 letters', { value: 'x'.repeat(513) }, 'value'],
    ['an expiry that is none', { expires_at: 'soon' }, 'expires_at'], ['an expiry that is over', { expires_at: '2020-01-01T00:00:00Z' }, 'expires_at'], ['null as expiry', { expires_at: null }, 'expires_at'],
    ['a short fingerprint', { type: 'certificate', value: 'ab'.repeat(20) }, 'value'], ['a fingerprint that is no hex', { type: 'certificate', value: 'xy'.repeat(32) }, 'value'], ['a name in the place of a fingerprint', { type: 'certificate', value: 'CN=app' }, 'value'],
  ])('refuses %s with 400', async (_, change, field) => {
    const error = await expectError(await admin('POST', '/revocations', { type: 'sub', value: 'x', ...change }), 400, 'invalid_request');
    expect(`${error.param} ${error.message}`).toContain(field);
    expect(await listAll(root, '/revocations')).toEqual([]);
  });

  it('for a tenant that is not there is 404', async () => {
    for (const call of [root, admin]) expect((await expectError(await call('POST', '/revocations', { type: 'sub', value: 'x', tenant: 'nobody' }), 404, 'not_found')).param).toBe('tenant');
  });
});

describe('a revocation', () => {
  it('counts for its tenant alone', async () => {
    const [ours, theirs] = [await harness.token({ subject: 'ada' }), await harness.token({ tenant: 'globex', subject: 'ada' })];
    await revoke({ type: 'sub', value: 'ada' });
    expect([await statusAt(ours), await statusAt(theirs)]).toEqual([401, 200]);
    await revoke({ type: 'jti', value: jtiOf(theirs) }); // said by acme, of a token of globex
    expect(await statusAt(theirs)).toBe(200);
  });

  it('without a tenant counts for all of them', async () => {
    const tokens = [await harness.token({ subject: 'ada' }), await harness.token({ tenant: 'globex', subject: 'ada' }), await harness.token({ tenant: 'platform', subject: 'ada', roles: ['platform-admin'] })];
    expect(await revoke({ type: 'sub', value: 'ada', tenant: null }, root)).toMatchObject({ tenant: null });
    expect([await statusAt(tokens[0]!), await statusAt(tokens[1]!), await statusAt(tokens[2]!, '/admin/v1/tenants')]).toEqual([401, 401, 401]);
  });

  it('expires with what it revokes', async () => {
    const { key, id } = await makeKey(admin);
    const endMs = Date.now() + 3_600_000;
    await revoke({ type: 'key', value: id, expires_at: new Date(endMs).toISOString() });
    expect(await statusAt(key)).toBe(401);
    expect([await clock.at(endMs - 10_000, () => statusAt(key)), await clock.at(endMs, () => statusAt(key))]).toEqual([401, 200]);
    expect(await statusAt(key)).toBe(401); // what was remembered meanwhile does not help
  });

  it('that has expired makes room for another of the same', async () => {
    await revoke({ type: 'sub', value: 'x' });
    await harness.db.query("UPDATE revocations SET expires_at = now() - interval '1 second'");
    expect(await revoke({ type: 'sub', value: 'x' })).toMatchObject({ value: 'x' });
    expect(await listAll(admin, '/revocations')).toHaveLength(1);
  });

  it('that is taken back lets the credential in again, and is on record', async () => {
    const token = await harness.token({ subject: 'ada' });
    const made = await revoke({ type: 'sub', value: 'ada' });
    expect(await statusAt(token)).toBe(401);
    const response = await admin('DELETE', `/revocations/${made.id}`);
    expect([response.status, await response.text()]).toEqual([204, '']);
    expect(await statusAt(token)).toBe(200);
    await expectError(await admin('GET', `/revocations/${made.id}`), 404, 'not_found');
    await expectError(await admin('DELETE', `/revocations/${made.id}`), 404, 'not_found');
    expect(await eventOf(harness, response.headers.get('x-request-id'), 'change')).toMatchObject({ api: { operation: 'DELETE /admin/v1/revocations/:id' }, unmapped: { novix: { object: { type: 'revocation', id: made.id }, before: made, after: null } } });
  });

  it('is not undone by what was revoked: a key that was deleted stays so without its revocation', async () => {
    const { key, id } = await makeKey(admin);
    expect((await admin('DELETE', `/api-keys/${id}`)).status).toBe(204);
    const [{ id: revocation } = { id: '' }] = (await listAll<RevocationView>(admin, '/revocations')).filter(({ value }) => value === id);
    expect((await admin('DELETE', `/revocations/${revocation}`)).status).toBe(204);
    expect(await statusAt(key)).toBe(401);
  });

  it('holds while tokens are verified in a crowd: none gets through that began after it', async () => {
    const token = await harness.token({ subject: 'crowd' });
    let over = false;
    const late: number[] = [];
    let revoked = false;
    const callers = Array.from({ length: 8 }, async () => {
      while (!over) {
        const after = revoked;
        const status = await statusAt(token);
        if (after) late.push(status);
      }
    });
    await revoke({ type: 'sub', value: 'crowd' });
    revoked = true;
    // Each change of the rules empties what is remembered.
    for (let n = 0; n < 10; n += 1) await revoke({ type: 'sub', value: `other-${n}` });
    await eventually(() => late.length >= 50);
    over = true;
    await Promise.all(callers);
    expect(late.filter((status) => status !== 401)).toEqual([]);
  });
});

describe('streams that run when their credential is revoked', () => {
  const stream = async (token: string, body: Record<string, unknown> = {}): ReturnType<typeof running> => running(use(token, { stream: true, x_emulator: LONG_STREAM, ...body }));

  it.each<[string, (made: { token: string; key: { id: string; key: string } }) => Record<string, unknown>, 'token' | 'key']>([
    ['by its jti', ({ token }) => ({ type: 'jti', value: jtiOf(token) }), 'token'], ['by its subject', () => ({ type: 'sub', value: 'streamer' }), 'token'], ['by its key', ({ key }) => ({ type: 'key', value: key.id }), 'key'], ['by its key’s subject', () => ({ type: 'sub', value: 'streamer' }), 'key'],
  ])('%s end within two seconds in an error event, charged for what was seen, and on record', async (_, fields, by) => {
    const made = { token: await harness.token({ subject: 'streamer' }), key: await makeKey(admin, { sub: 'streamer' }) };
    const credential = by === 'key' ? made.key.key : made.token;
    const [mine, other] = [await Promise.all([stream(credential), stream(credential)]), await stream(await harness.token())];
    const startedMs = performance.now();
    await revoke(fields(made));
    for (const { ended, requestId } of mine) {
      const { text, atMs } = await ended;
      expect(atMs - startedMs).toBeLessThan(2_000);
      expectCut(text, 'invalid_token');
      const { outcome, basis, chargedTicks, heldTicks } = await settled(harness, requestId);
      expect([outcome, basis]).toEqual(['failed', 'observed']);
      expect(chargedTicks > 0n && chargedTicks < heldTicks).toBe(true);
      expect(await eventOf(harness, requestId, 'outcome')).toMatchObject({ status_code: 'invalid_token', api: { response: { code: 200, error: 'invalid_token' } } });
    }
    expect(harness.emulator.calls.map(({ state }) => state).toSorted()).toEqual(['aborted', 'aborted', 'running']);
    await revoke({ type: 'sub', value: 'dev@acme.example' });
    expectCut((await other.ended).text, 'invalid_token');
  });

  it('end on the Responses API too', async () => {
    const token = await harness.token({ subject: 'responder' });
    const response = await harness.request('POST', '/v1/responses', { token, body: { model: 'grok-beta', input: 'Say hello.', stream: true, store: false, x_emulator: LONG_STREAM } });
    expect(response.status).toBe(200);
    await eventually(() => harness.emulator.calls.some(({ state, completionTokens }) => state === 'running' && completionTokens > 2));
    const startedMs = performance.now();
    await revoke({ type: 'sub', value: 'responder' });
    const text = await response.text();
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    expect(text).toContain('invalid_token');
    expect(text).not.toContain('response.completed');
    expect(await settled(harness, response.headers.get('x-request-id'))).toMatchObject({ outcome: 'failed', basis: 'observed' });
  });

  it('go on when someone else’s is revoked', async () => {
    const { ended, requestId } = await stream(await harness.token({ subject: 'bystander' }), { x_emulator: { output_tokens: 80, reasoning_tokens: 0, token_interval_ms: 15 } });
    await revoke({ type: 'sub', value: 'someone' });
    await revoke({ type: 'sub', value: 'bystander', tenant: 'globex' }, root);
    expect((await ended).text).toContain('[DONE]');
    expect(await settled(harness, requestId)).toMatchObject({ outcome: 'completed', basis: 'provider' });
  });
});

describe('who may', () => {
  it.each<[string, string, string[], number[]]>([
    // list, read, make, delete
    ['a developer', 'acme', ['developer'], [403, 403, 403, 403]], ['billing', 'acme', ['billing'], [403, 403, 403, 403]], ['an auditor', 'acme', ['auditor'], [403, 403, 403, 403]], ['nobody in particular', 'acme', [], [403, 403, 403, 403]],
    ['a platform-admin of a tenant', 'acme', ['platform-admin'], [403, 403, 403, 403]], ['a tenant-admin', 'acme', ['tenant-admin'], [200, 200, 201, 204]], ['a platform-admin', 'platform', ['platform-admin'], [200, 200, 201, 204]],
    ['a tenant-admin of another tenant', 'globex', ['tenant-admin'], [200, 404, 404, 404]], ['a tenant-admin of the platform', 'platform', ['tenant-admin'], [200, 404, 404, 404]],
  ])('%s', async (_, tenant, roles, expected) => {
    const { id } = await revoke({ type: 'sub', value: 'x' });
    const call = adminOf(harness, await harness.token({ tenant, roles }));
    const answers = [await call('GET', '/revocations'), await call('GET', `/revocations/${id}`), await call('POST', '/revocations', { type: 'sub', value: 'y', tenant: 'acme' }), await call('DELETE', `/revocations/${id}`)];
    expect(answers.map(({ status }) => status)).toEqual(expected);
  });

  it('a revocation for every tenant is a platform-admin’s alone to make, and nobody else’s to see', async () => {
    await expectError(await admin('POST', '/revocations', { type: 'sub', value: 'x', tenant: null }), 403, 'policy_denied');
    const { id } = await revoke({ type: 'sub', value: 'x', tenant: null }, root);
    for (const method of ['GET', 'DELETE']) await expectError(await admin(method, `/revocations/${id}`), 404, 'not_found');
    expect(await listAll(admin, '/revocations')).toEqual([]);
    expect(await listAll(root, '/revocations')).toHaveLength(1);
  });

  it('lists come page by page, and other tenants’ ids look like those that are not there', async () => {
    const made: string[] = [];
    for (let n = 0; n < 5; n += 1) made.push((await revoke({ type: 'sub', value: `s${n}` })).id);
    const foreign = await revoke({ type: 'sub', value: 'z', tenant: 'globex' }, root);
    expect((await listAll<RevocationView>(admin, '/revocations', 2)).map(({ id }) => id).toSorted()).toEqual(made.toSorted());
    const texts = new Set<string>();
    for (const id of [foreign.id, randomUUID(), 'nobody', '__proto__', '%00']) for (const method of ['GET', 'DELETE']) texts.add((await expectError(await admin(method, `/revocations/${id}`), 404, 'not_found')).message);
    expect([...texts]).toEqual(['There is no such revocation.']);
    expect((await expectError(await admin('GET', '/revocations?limit=0'), 400, 'invalid_request')).param).toBe('limit');
  });
});
