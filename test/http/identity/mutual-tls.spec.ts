import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { pino } from 'pino';
import { startGateway, type Gateway } from '../../../src/gateway.ts';
import { deny, expectCut, LONG_STREAM, makeKey, publish, removeAll, running, wallClock } from '../../support/access.ts';
import { madeBy, startReplica, type AdminCall } from '../../support/deployments.ts';
import { eventually, HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { Pki, tlsCaller, type IssuedCertificate, type TlsCaller } from '../../support/pki.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Mutual TLS towards callers, with certificates that the `openssl` command has made. One gateway asks for certificates, another takes those that come.

/** DESIGN 3.9: a changed file is in use within 2 s. The rest is this machine's. */
const RELOADED_MS = 2_000 + 1_500;
const LATER_MS = 3_600_000;
const TTL_SECONDS = 7 * 86_400;

const clock = wallClock();
let dir: string;
let servers: Pki;
let clients: Pki;
let strangers: Pki;
let good: IssuedCertificate;
let other: IssuedCertificate;
let harness: Harness;
/** Certificates are optional, and groups hybrid. */
let optional: Gateway;
let admin: TlsCaller;
let root: AdminCall;
const callers: TlsCaller[] = [];
const file = (name: string): string => join(dir, name);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'novix-test-mtls-'));
  [servers, clients, strangers] = await Promise.all([Pki.create('Test server CA'), Pki.create('Test client CA'), Pki.create('Test client CA')]);
  const server = await servers.issue({ subject: '/CN=gateway', san: 'IP:127.0.0.1' });
  good = await clients.issue({ subject: '/CN=dev' });
  other = await clients.issue({ subject: '/CN=dev' }); // the same names, another certificate
  await Promise.all([writeFile(file('cert.pem'), server.cert), writeFile(file('key.pem'), server.key), writeFile(file('ca.pem'), clients.ca), writeFile(file('crl.pem'), await clients.crl())]);
  harness = await startHarness({
    clock,
    env: { MANAGEMENT_PORT: '0', TLS_CERT: file('cert.pem'), TLS_KEY: file('key.pem'), TLS_CLIENT_CA: file('ca.pem'), TLS_CLIENT_CRL: file('crl.pem') },
  });
  const { http, tls } = harness.settings;
  optional = await startReplica(harness, { http: { ...http, managementPort: undefined }, tls: { ...tls!, clientCrlFile: undefined, clientCertificates: 'optional', groups: ['X25519MLKEM768', 'SecP256r1MLKEM768'] } }, clock);
  admin = callerWith(await clients.issue({ subject: '/CN=admin', san: 'URI:spiffe://platform.example/admin' }));
  const token = await harness.adminToken();
  root = (method, path, body) => admin.call(method, `/admin/v1${path}`, { token, body });
});
afterEach(async () => {
  await removeAll(root, '/policies');
  await removeAll(root, '/revocations');
});
beforeEach(() => harness.emulator.reset());
afterAll(async () => {
  for (const caller of callers) caller.close();
  await optional.close();
  await harness.close();
  await Promise.all([servers.remove(), clients.remove(), strangers.remove(), rm(dir, { recursive: true, force: true })]);
});

/** A caller that comes with a certificate, or without. */
function callerWith(certificate?: IssuedCertificate, gateway: { url: string } = harness.gateway, options: ConnectionOptions = {}): TlsCaller {
  const caller = tlsCaller(gateway.url, servers.ca, { ...(certificate && { cert: certificate.cert, key: certificate.key }), ...options });
  callers.push(caller);
  return caller;
}

async function statusOf(answer: Promise<Response>): Promise<number> {
  const response = await answer;
  await response.text();
  return response.status;
}

const models = (caller: TlsCaller, token: string): Promise<Response> => caller.call('GET', '/v1/models', { token });
const complete = (caller: TlsCaller, token: string, body: Record<string, unknown> = {}): Promise<Response> => caller.call('POST', '/v1/chat/completions', { token, body: { model: 'grok-beta', messages: HELLO, ...body } });
const tokenFor = (certificate?: IssuedCertificate, change: Parameters<Harness['token']>[0] = {}): Promise<string> => harness.token({ ttlSeconds: TTL_SECONDS, ...(certificate && { certificateThumbprint: certificate.thumbprint }), ...change });

async function expectRefused(answer: Promise<Response>): Promise<void> {
  harness.emulator.reset();
  const response = await answer;
  expect(await expectError(response, 401, 'invalid_token')).toEqual({ message: 'The request carries no valid credentials. Send a current token as "authorization: Bearer <token>".', type: 'authentication_error', code: 'invalid_token', param: null });
  expect(harness.emulator.calls).toHaveLength(0);
  const requestId = response.headers.get('x-request-id');
  expect((await eventOf(harness, requestId, 'refusal')).actor.user.uid).toBe('unknown');
  expect(await eventsOf(harness, requestId)).toHaveLength(1);
}

/** How a connection ends whose handshake fails, so that there is nothing to answer. */
const SHUT_OUT = /^(ERR_SSL_|ECONNRESET|EPIPE|EPROTO)/;
async function endOf(caller: TlsCaller): Promise<string> {
  return models(caller, await tokenFor()).then((response) => `answered ${response.status}`, (failure: NodeJS.ErrnoException) => failure.code ?? failure.message);
}

const BAD: [string, () => Promise<IssuedCertificate>][] = [
  ['of another authority with the same name', () => strangers.issue()],
  ['of the authority of servers', () => servers.issue()],
  ['that has expired', () => clients.issue({ notBeforeMs: Date.now() - 2 * LATER_MS, notAfterMs: Date.now() - LATER_MS })],
  ['that is not yet valid', () => clients.issue({ notBeforeMs: Date.now() + LATER_MS, notAfterMs: Date.now() + 2 * LATER_MS })],
  ['that is signed by itself', () => clients.issue({ selfSigned: true })],
];

describe('where certificates are required', () => {
  it('one of the authority gets in, over a hybrid key exchange and no old version', async () => {
    const caller = callerWith(good);
    expect(await statusOf(models(caller, await tokenFor()))).toBe(200);
    expect(await statusOf(complete(caller, await tokenFor()))).toBe(200);
    expect(caller.connections).toBe(1);
    expect(caller.socket.getProtocol()).toBe('TLSv1.3');
    const old = callerWith(good, harness.gateway, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' });
    expect(await endOf(old)).toMatch(SHUT_OUT);
  });

  it('by TLS 1.2 too', async () => {
    const caller = callerWith(good, harness.gateway, { maxVersion: 'TLSv1.2' });
    expect(await statusOf(models(caller, await tokenFor(good)))).toBe(200);
    expect(caller.socket.getProtocol()).toBe('TLSv1.2');
  });

  it('none gets nobody in, whatever the token', async () => {
    expect(await endOf(callerWith())).toMatch(SHUT_OUT);
  });

  it.each(BAD)('one %s gets nobody in', async (_, make) => {
    expect(await endOf(callerWith(await make()))).toMatch(SHUT_OUT);
  });

  it('a certificate alone is nobody', async () => {
    const caller = callerWith(await clients.issue({ subject: '/CN=dev@acme.example/O=acme', san: 'URI:spiffe://acme.example/dev' }));
    await expectRefused(caller.call('POST', '/v1/chat/completions', { body: { model: 'grok-beta', messages: HELLO } }));
    expect(await statusOf(caller.call('GET', '/admin/v1/tenants'))).toBe(401);
  });

  it('what stands in the subject changes nothing of who calls', async () => {
    const caller = callerWith(await clients.issue({ subject: '/O=platform/OU=platform-admin/CN=root@platform.example', san: 'URI:spiffe://platform/root,email:root@platform.example' }));
    const response = await complete(caller, await tokenFor());
    await response.text();
    const event = await eventOf(harness, response.headers.get('x-request-id'), 'intent');
    expect(event).toMatchObject({ metadata: { tenant_uid: 'acme' }, actor: { user: { uid: 'dev@acme.example' } } });
    expect(JSON.stringify(event)).not.toContain('root@platform');
    expect(await statusOf(caller.call('GET', '/admin/v1/tenants', { token: await tokenFor() }))).toBe(403);
  });

  it('probes and metrics are reachable in plain HTTP on their own port', async () => {
    const { managementUrl } = harness.gateway;
    expect(managementUrl).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    for (const path of ['/livez', '/readyz', '/startupz', '/metrics', '/health/liveliness', '/health/readiness']) expect({ path, status: await statusOf(fetch(`${managementUrl}${path}`)) }).toEqual({ path, status: 200 });
    expect(await statusOf(fetch(`${managementUrl}/v1/models`, { headers: { authorization: `Bearer ${await tokenFor()}` } }))).toBe(404);
    expect(await statusOf(fetch(`${managementUrl}/admin/v1/tenants`, { headers: { authorization: `Bearer ${await harness.adminToken()}` } }))).toBe(404);
  });

  it('plain HTTP on the main port is no way in', async () => {
    const failure = await fetch(`${harness.gateway.url.replace('https:', 'http:')}/v1/models`, { headers: { authorization: `Bearer ${await tokenFor()}` } }).then(({ status }) => status, (error: Error) => error.message);
    expect(failure === 400 || failure === 'fetch failed').toBe(true);
  });

  it('headers of a proxy count for nothing, since none is trusted', async () => {
    const caller = callerWith(good);
    const headers = { 'client-cert': `:${Buffer.from(other.cert.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64').toString('base64')}:`, 'x-forwarded-client-cert': `Hash=${other.fingerprint}` };
    expect(await statusOf(caller.call('GET', '/v1/models', { token: await tokenFor(good), headers }))).toBe(200);
    await expectRefused(caller.call('GET', '/v1/models', { token: await tokenFor(other), headers }));
  });
});

describe('where certificates are optional', () => {
  it('none is fine, and so is one of the authority', async () => {
    const [without, with_] = [callerWith(undefined, optional), callerWith(good, optional)];
    expect(await statusOf(models(without, await tokenFor()))).toBe(200);
    expect(await statusOf(models(with_, await tokenFor()))).toBe(200);
  });

  it.each(BAD)('one %s is refused with a good token, and does not shut out the probes', async (_, make) => {
    const caller = callerWith(await make(), optional);
    await expectRefused(models(caller, await tokenFor()));
    await expectRefused(models(caller, await tokenFor())); // and again on the same connection
    expect(await statusOf(caller.call('GET', '/livez'))).toBe(200);
    expect(caller.connections).toBe(1);
  });

  it('a bad one does not make a token its own that is bound to it', async () => {
    const bad = await strangers.issue();
    await expectRefused(models(callerWith(bad, optional), await tokenFor(bad)));
    expect(await statusOf(models(callerWith(good, optional), await tokenFor(bad)))).toBe(401);
  });

  it('rules may ask for one by principal.mtls', async () => {
    await publish(root, [deny('mtls-only', { when: [{ attr: 'principal.mtls', op: 'eq', value: false }] })]);
    await optional.parts.rules.refresh();
    const token = await tokenFor();
    await expectError(await complete(callerWith(undefined, optional), token), 403, 'policy_denied');
    const response = await complete(callerWith(good, optional), token); // the same token, now with a certificate
    expect(response.status).toBe(200);
    await response.text();
    expect((await eventOf(harness, response.headers.get('x-request-id'), 'intent')).unmapped.novix.decision).toMatchObject({ attributes: { 'principal.mtls': true } });
    await expectError(await complete(callerWith(undefined, optional), token), 403, 'policy_denied'); // and without again
  });

  it('a resumed session has the certificate of its first', async () => {
    let session: Buffer | undefined;
    const first = callerWith(good, optional);
    const bound = await tokenFor(good);
    expect(await statusOf(models(first, bound))).toBe(200);
    first.socket.on('session', (ticket: Buffer) => {
      session = ticket;
    });
    expect(await statusOf(models(first, bound))).toBe(200);
    const ticket = session ?? first.socket.getSession();
    expect(ticket).toBeDefined();
    const resumed = callerWith(undefined, optional, { session: ticket });
    const answered = await statusOf(models(resumed, bound));
    expect([resumed.socket.isSessionReused(), answered]).toEqual([true, 200]);
    await expectRefused(models(resumed, await tokenFor(other)));
  });
});

describe('a token that is bound to a certificate (RFC 8705)', () => {
  it('counts with that one, and with no other', async () => {
    const [own, wrong, without] = [callerWith(good, optional), callerWith(other, optional), callerWith(undefined, optional)];
    const bound = await tokenFor(good);
    await expectRefused(models(without, bound));
    await expectRefused(models(wrong, bound));
    expect(await statusOf(models(own, bound))).toBe(200);
    // Once it is known, all the same.
    for (let turn = 0; turn < 3; turn += 1) {
      await expectRefused(models(without, bound));
      await expectRefused(models(wrong, bound));
      expect(await statusOf(models(own, bound))).toBe(200);
    }
    // A connection that was refused is as good as any for another token.
    expect(await statusOf(models(wrong, await tokenFor(other)))).toBe(200);
  });

  it('at the same time on many connections, each with its own', async () => {
    const certificates = [good, other, await clients.issue()];
    const pairs = await Promise.all(certificates.flatMap((certificate) => certificates.map(async (bound) => ({ caller: callerWith(certificate, optional), token: await tokenFor(bound), expected: certificate === bound ? 200 : 401 }))));
    const statuses = await Promise.all(pairs.flatMap((pair) => [pair, pair, pair]).map(async ({ caller, token, expected }) => ({ expected, status: await statusOf(models(caller, token)) })));
    expect(statuses.filter(({ expected, status }) => expected !== status)).toEqual([]);
    expect(statuses).toHaveLength(27);
  });

  it('is asked of every token where the tenant wants it', async () => {
    await madeBy(await root('PATCH', '/tenants/acme', { bound_tokens: true }));
    await optional.parts.tenants.refresh();
    try {
      const [own, without] = [callerWith(good, optional), callerWith(undefined, optional)];
      await expectRefused(models(without, await tokenFor()));
      await expectRefused(models(own, await tokenFor())); // with a certificate, but not bound to it
      expect(await statusOf(models(own, await tokenFor(good)))).toBe(200);
      expect(await statusOf(models(own, await tokenFor(undefined, { tenant: 'globex' })))).toBe(200); // another tenant's
      const { key } = await makeKey(root);
      await optional.parts.rules.refresh();
      await expectRefused(models(without, key));
      expect(await statusOf(models(own, key))).toBe(200); // a key cannot be bound: any certificate will do
    } finally {
      await madeBy(await root('PATCH', '/tenants/acme', { bound_tokens: false }));
      await optional.parts.tenants.refresh();
    }
    expect(await statusOf(models(callerWith(undefined, optional), await tokenFor()))).toBe(200);
  });

  it('is asked of a tenant’s tokens from the next request on, also of those that are known', async () => {
    const caller = callerWith(good);
    const token = await tokenFor();
    expect(await statusOf(models(caller, token))).toBe(200);
    await madeBy(await root('PATCH', '/tenants/acme', { bound_tokens: true }));
    try {
      await expectRefused(models(caller, token));
    } finally {
      await madeBy(await root('PATCH', '/tenants/acme', { bound_tokens: false }));
    }
    expect(await statusOf(models(caller, token))).toBe(200);
  });
});

describe('a government tenant', () => {
  const government = { tenant: 'initech', subject: 'agent@initech.example' };

  it('is served with bound tokens, where all groups are hybrid', async () => {
    const own = callerWith(good, optional);
    expect(await statusOf(complete(own, await tokenFor(good, government)))).toBe(200);
    await expectRefused(models(own, await tokenFor(undefined, government)));
    await expectRefused(models(callerWith(undefined, optional), await tokenFor(undefined, government)));
    await expectRefused(models(callerWith(other, optional), await tokenFor(good, government)));
  });

  it('is answered 403 where another group is possible, and others are served there', async () => {
    const caller = callerWith(good);
    const error = await expectError(await models(caller, await tokenFor(good, government)), 403, 'policy_denied');
    expect(error.message).toMatch(/TLS_GROUPS/);
    harness.emulator.reset();
    await expectError(await complete(caller, await tokenFor(good, government)), 403, 'policy_denied');
    expect(harness.emulator.calls).toHaveLength(0);
    expect(await statusOf(models(caller, await tokenFor(good)))).toBe(200);
  });

  it('tells of the groups only whoever has a good token', async () => {
    await expectRefused(models(callerWith(good), await tokenFor(undefined, government)));
    expect(await statusOf(models(callerWith(good), await tokenFor(other, government)))).toBe(401);
  });

  it('may use API keys with any certificate of the authority', async () => {
    const { key } = await makeKey(root, { tenant: 'initech' });
    await optional.parts.rules.refresh();
    expect(await statusOf(complete(callerWith(good, optional), key))).toBe(200);
    await expectRefused(complete(callerWith(undefined, optional), key));
    await expectRefused(complete(callerWith(await strangers.issue(), optional), key));
    await expectError(await complete(callerWith(good), key), 403, 'policy_denied');
  });

  it('cannot be reached by a key exchange of yesterday, nor can anyone there', async () => {
    expect(await endOf(callerWith(good, optional, { ecdhCurve: 'X25519:prime256v1' }))).toMatch(SHUT_OUT);
    expect(await statusOf(models(callerWith(good, optional, { ecdhCurve: 'SecP256r1MLKEM768' }), await tokenFor()))).toBe(200);
    expect(await statusOf(models(callerWith(good, harness.gateway, { ecdhCurve: 'X25519' }), await tokenFor()))).toBe(200); // elsewhere it can
  });
});

describe('a certificate that counts no longer', () => {
  it('once it has expired, is refused on a connection that is still open', async () => {
    const brief = await clients.issue({ notAfterMs: Date.now() + LATER_MS });
    const [caller, lasting] = [callerWith(brief), callerWith(good)];
    const [token, theirs] = [await tokenFor(brief), await tokenFor(good)];
    const free = await tokenFor();
    expect([await statusOf(models(caller, token)), await statusOf(models(lasting, theirs))]).toEqual([200, 200]);
    await clock.at(Date.now() + LATER_MS - 60_000, async () => expect(await statusOf(models(caller, token))).toBe(200));
    await clock.at(Date.now() + LATER_MS + 1_000, async () => {
      await expectRefused(models(caller, token));
      await expectRefused(models(caller, free)); // a token of its own does not help
      expect(await statusOf(models(lasting, theirs))).toBe(200);
    });
    expect([caller.connections, lasting.connections]).toEqual([1, 1]);
  });

  it('once a renewed CRL names it, is refused on a connection that is open, and gets in no more', async () => {
    const stolen = await clients.issue();
    const [caller, lasting] = [callerWith(stolen), callerWith(good)];
    const token = await tokenFor(stolen);
    expect([await statusOf(models(caller, token)), await statusOf(models(lasting, await tokenFor(good)))]).toEqual([200, 200]);
    await clients.revoke(stolen);
    const list = await clients.crl();
    const changedMs = performance.now();
    await writeFile(file('crl.pem'), list);
    await eventually(async () => (await statusOf(models(caller, token))) === 401, RELOADED_MS);
    expect(performance.now() - changedMs).toBeLessThan(RELOADED_MS);
    await expectRefused(models(caller, token));
    await expectRefused(models(caller, await tokenFor()));
    expect(caller.connections).toBe(1);
    expect(await endOf(callerWith(stolen))).toMatch(SHUT_OUT);
    expect(await statusOf(models(lasting, await tokenFor(good)))).toBe(200);
    expect(lasting.connections).toBe(1);
    expect(await statusOf(models(callerWith(other), await tokenFor(other)))).toBe(200);
    // The other gateway has no such list.
    expect(await statusOf(models(callerWith(stolen, optional), token))).toBe(200);
  });

  it.each(['00A1B2C3D4E5F60718', '7F', '80', '0100'])('with the serial number %s too', async (serial) => {
    const next = await clients.issue({ serial });
    const caller = callerWith(next);
    const token = await tokenFor(next);
    expect(await statusOf(models(caller, token))).toBe(200);
    await clients.revoke(next);
    await writeFile(file('crl.pem'), await clients.crl());
    await eventually(async () => (await statusOf(models(caller, token))) === 401, RELOADED_MS);
    expect(caller.connections).toBe(1);
  });

  it('is revoked through the admin API by its fingerprint, running streams included', async () => {
    const lost = await clients.issue();
    const [caller, lasting, another] = [callerWith(lost), callerWith(good), callerWith(lost)];
    const token = await tokenFor(lost);
    const [ours, theirs] = [await running(complete(caller, token, { stream: true, x_emulator: LONG_STREAM })), await running(complete(lasting, await tokenFor(good), { stream: true, x_emulator: LONG_STREAM }))];
    expect(await statusOf(models(another, token))).toBe(200);
    const startedMs = performance.now();
    const value = lost.fingerprint.toUpperCase().replaceAll(/(..)(?=.)/g, '$1:'); // as OpenSSL prints it
    const made = await madeBy<{ id: string; value: string }>(await root('POST', '/revocations', { type: 'certificate', value, tenant: 'acme' }), 201);
    expect(made.value).toBe(lost.fingerprint);
    const { text, atMs } = await ours.ended;
    expect(atMs - startedMs).toBeLessThan(2_000);
    expectCut(text, 'invalid_token');
    expect(harness.emulator.calls.filter(({ state }) => state === 'running')).toHaveLength(1); // the other one goes on
    expect(await settled(harness, ours.requestId)).toMatchObject({ outcome: 'failed', basis: 'observed' });
    await expectRefused(models(another, token));
    await expectRefused(models(another, await tokenFor())); // whatever the token
    expect(await statusOf(models(callerWith(good), await tokenFor(good)))).toBe(200);
    expect(await statusOf(root('DELETE', `/revocations/${made.id}`))).toBe(204);
    expect(await statusOf(models(another, token))).toBe(200);
    lasting.close();
    expect((await theirs.ended.catch((error: Error) => ({ text: error.message }))).text).not.toContain('invalid_token');
  });
});

describe('renewed files', () => {
  let pki: Pki;
  let gateway: Gateway;
  let lines: string[];
  beforeAll(async () => {
    pki = await Pki.create('Renewed CA');
    lines = [];
    const { tls } = harness.settings;
    const [cert, key, ca, crl] = ['r-cert.pem', 'r-key.pem', 'r-ca.pem', 'r-crl.pem'].map(file) as [string, string, string, string];
    await renew(await servers.issue({ subject: '/CN=first', san: 'IP:127.0.0.1' }));
    await Promise.all([writeFile(ca, clients.ca), writeFile(crl, await clients.crl())]);
    const settings = { ...harness.settings, spoolDir: `${harness.settings.spoolDir}-renewed`, http: { ...harness.settings.http, managementPort: undefined }, tls: { ...tls!, certFile: cert, keyFile: key, clientCaFile: ca, clientCrlFile: crl } };
    gateway = await startGateway(settings, pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }), clock);
  });
  afterAll(async () => {
    await gateway.close();
    await pki.remove();
  });

  async function renew({ cert, key }: { cert: string; key: string }): Promise<void> {
    await Promise.all([writeFile(file('r-cert.pem'), cert), writeFile(file('r-key.pem'), key)]);
  }
  const said = (text: string): number => lines.filter((line) => line.includes(text)).length;
  async function presented(): Promise<string> {
    const caller = callerWith(good, gateway);
    expect(await statusOf(models(caller, await tokenFor(good)))).toBe(200);
    const { CN } = caller.socket.getPeerCertificate().subject;
    caller.close();
    return String(CN);
  }

  it('are in use for new connections within 2 s, while open ones go on', async () => {
    const before = callerWith(good, gateway);
    expect(await statusOf(models(before, await tokenFor(good)))).toBe(200);
    expect(await presented()).toBe('first');
    await renew(await servers.issue({ subject: '/CN=second', san: 'IP:127.0.0.1' }));
    await eventually(async () => (await presented()) === 'second', RELOADED_MS);
    expect(await statusOf(models(before, await tokenFor(good)))).toBe(200);
    expect(before.connections).toBe(1);
    // All else is as it was.
    expect(await endOf(callerWith(undefined, gateway))).toMatch(SHUT_OUT);
    expect(await endOf(callerWith(await strangers.issue(), gateway))).toMatch(SHUT_OUT);
  });

  it.each<[string, () => Promise<unknown>]>([
    ['a certificate that is none', () => writeFile(file('r-cert.pem'), 'not a certificate')],
    ['an empty key', () => writeFile(file('r-key.pem'), '')],
    ['a certificate and a key that do not belong together', async () => writeFile(file('r-cert.pem'), (await servers.issue({ subject: '/CN=third', san: 'IP:127.0.0.1' })).cert)],
    ['a CRL that is none', () => writeFile(file('r-crl.pem'), 'gone')],
    ['a certificate that is gone', () => rm(file('r-cert.pem'))],
  ])('that cannot be used leave those before in use: %s', async (_, spoil) => {
    const current = await presented();
    const complaints = said('a renewed file cannot be used');
    await spoil();
    await eventually(() => said('a renewed file cannot be used') > complaints);
    expect(await presented()).toBe(current);
    expect(await endOf(callerWith(undefined, gateway))).toMatch(SHUT_OUT);
    const next = `after-${crypto.randomUUID().slice(0, 8)}`;
    await Promise.all([renew(await servers.issue({ subject: `/CN=${next}`, san: 'IP:127.0.0.1' })), writeFile(file('r-crl.pem'), await clients.crl()), writeFile(file('r-ca.pem'), clients.ca)]);
    await eventually(async () => (await presented()) === next, RELOADED_MS);
  });

  it('may name another authority for callers', async () => {
    const theirs = await pki.issue();
    expect(await endOf(callerWith(theirs, gateway))).toMatch(SHUT_OUT);
    await Promise.all([writeFile(file('r-ca.pem'), pki.ca), writeFile(file('r-crl.pem'), await pki.crl())]);
    await eventually(async () => {
      const caller = callerWith(theirs, gateway);
      return models(caller, await tokenFor(theirs)).then(({ status }) => status === 200, () => false);
    }, RELOADED_MS);
    expect(await endOf(callerWith(good, gateway))).toMatch(SHUT_OUT);
  });
});
