import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash, X509Certificate } from 'node:crypto';
import type { Gateway } from '../../../src/gateway.ts';
import { createAuthority } from '../../sandbox/certificates.ts';
import { allow, deny, publish, removeAll } from '../../support/access.ts';
import { adminOf, completeAt, startReplica, type AdminCall } from '../../support/deployments.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { Pki } from '../../support/pki.ts';
import { eventOf, eventsOf } from '../../support/records.ts';
import { expectError, rawRequest } from '../../support/wire.ts';

// Who a trusted proxy says has called, by certificate and by address; and the same headers from everyone else.

interface Known {
  pem: string;
  /** RFC 9440 */
  clientCert: string;
  fingerprint: string;
  thumbprint: string;
}

let harness: Harness;
/** Trusts 127.0.0.1, which is where these tests call from. */
let trusting: Gateway;
/** Trusts that and another network. */
let chained: Gateway;
let root: AdminCall;
let pki: Pki;
let expired: Known;
let tricky: Known;
const authority = createAuthority('Callers');
const own = known(authority.issue('dev').cert);
const other = known(authority.issue('dev').cert);

function known(pem: string): Known {
  const { raw } = new X509Certificate(pem);
  const digest = createHash('sha256').update(raw).digest();
  return { pem, clientCert: `:${raw.toString('base64')}:`, fingerprint: digest.toString('hex'), thumbprint: digest.toString('base64url') };
}

beforeAll(async () => {
  pki = await Pki.create('Proxy test CA');
  expired = known((await pki.issue({ notBeforeMs: Date.now() - 7_200_000, notAfterMs: Date.now() - 3_600_000 })).cert);
  tricky = known((await pki.issue({ subject: '/CN=a, b;Hash=c', san: 'URI:spiffe://acme.example/dev;Hash=c' })).cert);
  harness = await startHarness();
  trusting = await startReplica(harness, { trustedProxies: ['127.0.0.1/32'], spoolDir: `${harness.settings.spoolDir}-t` });
  chained = await startReplica(harness, { trustedProxies: ['127.0.0.1/32', '198.51.100.0/24', '2001:db8::/32'], spoolDir: `${harness.settings.spoolDir}-c` });
  root = adminOf(harness, await harness.adminToken());
});
beforeEach(() => harness.emulator.reset());
afterEach(() => removeAll(root, '/policies'));
afterAll(async () => {
  await trusting.close();
  await chained.close();
  await harness.close();
  await pki.remove();
});

const bound = ({ thumbprint }: Known): Promise<string> => harness.token({ certificateThumbprint: thumbprint });
const xfcc = ({ pem }: Known): string => `Cert="${encodeURIComponent(pem)}"`;

function models(gateway: { url: string }, token: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${token}`, ...headers } });
}

async function statusOf(answer: Promise<Response>): Promise<number> {
  const response = await answer;
  await response.text();
  return response.status;
}

async function expectRefused(answer: Promise<Response>): Promise<void> {
  const response = await answer;
  const { message } = await expectError(response, 401, 'invalid_token');
  expect(message).toBe('The request carries no valid credentials. Send a current token as "authorization: Bearer <token>".');
  expect(harness.emulator.calls).toHaveLength(0);
  expect(await eventOf(harness, response.headers.get('x-request-id'), 'refusal')).toMatchObject({ actor: { user: { uid: 'unknown' } } });
  expect(await eventsOf(harness, response.headers.get('x-request-id'))).toHaveLength(1);
}

const WAYS: [string, (certificate: Known) => Record<string, string>][] = [
  ['client-cert', ({ clientCert }) => ({ 'client-cert': clientCert })],
  ['client-cert with spaces around it', ({ clientCert }) => ({ 'client-cert': ` ${clientCert}  ` })],
  ['x-forwarded-client-cert with the certificate', (certificate) => ({ 'x-forwarded-client-cert': xfcc(certificate) })],
  ['x-forwarded-client-cert with the hash', ({ fingerprint }) => ({ 'x-forwarded-client-cert': `Hash=${fingerprint}` })],
  ['x-forwarded-client-cert with the hash in capitals', ({ fingerprint }) => ({ 'x-forwarded-client-cert': `hash=${fingerprint.toUpperCase()}` })],
  ['x-forwarded-client-cert as Envoy writes it', (certificate) => ({ 'x-forwarded-client-cert': `By=spiffe://mesh/gateway;Hash=${certificate.fingerprint};${xfcc(certificate)};Subject="CN=dev,O=Acme; Inc.";URI=spiffe://acme.example/dev;URI=spiffe://acme.example/b;DNS=dev.acme.example` })],
  ['both, of one mind', (certificate) => ({ 'client-cert': certificate.clientCert, 'x-forwarded-client-cert': xfcc(certificate) })],
  ['both, the second by its hash', ({ clientCert, fingerprint }) => ({ 'client-cert': clientCert, 'x-forwarded-client-cert': `Hash=${fingerprint}` })],
];

describe('a client certificate that a trusted proxy names', () => {
  it.each(WAYS)('by %s makes a bound token count, and no other', async (_, headers) => {
    expect(await statusOf(models(trusting, await bound(own), headers(own)))).toBe(200);
    await expectRefused(models(trusting, await bound(own), headers(other)));
    await expectRefused(models(trusting, await bound(other), headers(own)));
  });

  it.each(WAYS)('by %s counts for nothing from anyone else', async (_, headers) => {
    const token = await bound(own);
    await expectRefused(models(harness, token, headers(own)));
    expect(await statusOf(models(trusting, token, headers(own)))).toBe(200); // there it is known now
    await expectRefused(models(harness, token, headers(own)));
    expect(await statusOf(models(harness, await harness.token(), headers(other)))).toBe(200); // ignored, and no fault
  });

  it('is none where the headers say nothing', async () => {
    await expectRefused(models(trusting, await bound(own)));
    expect(await statusOf(models(trusting, await harness.token()))).toBe(200);
  });

  it('is of one request alone, though the connection is the proxy’s', async () => {
    const token = await bound(own);
    for (let turn = 0; turn < 3; turn += 1) {
      expect(await statusOf(models(trusting, token, { 'client-cert': own.clientCert }))).toBe(200);
      await expectRefused(models(trusting, token));
      await expectRefused(models(trusting, token, { 'client-cert': other.clientCert }));
    }
  });

  it('may have any signs in its names', async () => {
    expect(await statusOf(models(trusting, await bound(tricky), { 'client-cert': tricky.clientCert }))).toBe(200);
    expect(await statusOf(models(trusting, await bound(tricky), { 'x-forwarded-client-cert': `${xfcc(tricky)};Subject="CN=a\\, b;Hash=c";URI="https://acme.example/?a=b,c"` }))).toBe(200);
  });

  it('is seen by rules as principal.mtls, and by nobody where the proxy is not trusted', async () => {
    await publish(root, [deny('mtls-only', { when: [{ attr: 'principal.mtls', op: 'eq', value: false }] })]);
    await trusting.parts.rules.refresh();
    const token = await harness.token();
    const with_ = { 'client-cert': own.clientCert };
    expect(await statusOf(completeAt(trusting.url, token, {}, with_))).toBe(200);
    await expectError(await completeAt(trusting.url, token), 403, 'policy_denied');
    await expectError(await completeAt(harness.url, token, {}, with_), 403, 'policy_denied');
  });

  it('can be revoked by its fingerprint', async () => {
    const response = await root('POST', '/revocations', { type: 'certificate', value: own.fingerprint, tenant: null });
    expect(response.status).toBe(201);
    const { id } = (await response.json()) as { id: string };
    await trusting.parts.rules.refresh();
    try {
      for (const [, headers] of WAYS) await expectRefused(models(trusting, await bound(own), headers(own)));
      expect(await statusOf(models(trusting, await bound(other), { 'client-cert': other.clientCert }))).toBe(200);
    } finally {
      await root('DELETE', `/revocations/${id}`);
      await trusting.parts.rules.refresh();
    }
    expect(await statusOf(models(trusting, await bound(own), { 'client-cert': own.clientCert }))).toBe(200);
  });

  it('is refused once it has expired', async () => {
    await expectRefused(models(trusting, await bound(expired), { 'client-cert': expired.clientCert }));
    await expectRefused(models(trusting, await harness.token(), { 'client-cert': expired.clientCert }));
    await expectRefused(models(trusting, await harness.token(), { 'x-forwarded-client-cert': xfcc(expired) }));
    expect(await statusOf(models(harness, await harness.token(), { 'client-cert': expired.clientCert }))).toBe(200); // nobody reads it there
  });

  const base64 = own.clientCert.slice(1, -1);
  it.each<[string, Record<string, string>]>([
    ['client-cert without colons', { 'client-cert': base64 }], ['client-cert with one colon', { 'client-cert': `:${base64}` }], ['client-cert of nothing', { 'client-cert': '::' }], ['an empty client-cert', { 'client-cert': '' }],
    ['client-cert that is no base64', { 'client-cert': ':not base64!:' }], ['client-cert in the other alphabet', { 'client-cert': `:${Buffer.from([251, 255, 254, 1]).toString('base64url')}:` }], ['client-cert that is no certificate', { 'client-cert': `:${Buffer.from('hello').toString('base64')}:` }],
    ['half of a certificate', { 'client-cert': `:${base64.slice(0, 200)}:` }], ['two in client-cert', { 'client-cert': `${own.clientCert}, ${own.clientCert}` }], ['client-cert as a parameter', { 'client-cert': `${own.clientCert};a=1` }], ['client-cert as text', { 'client-cert': `"${base64}"` }],
    ['an empty x-forwarded-client-cert', { 'x-forwarded-client-cert': '' }], ['x-forwarded-client-cert without a certificate', { 'x-forwarded-client-cert': 'By=spiffe://mesh/gateway;Subject="CN=dev";URI=spiffe://acme.example/dev' }],
    ['a hash that is too short', { 'x-forwarded-client-cert': `Hash=${own.fingerprint.slice(1)}` }], ['a hash that is no hex', { 'x-forwarded-client-cert': `Hash=${'g'.repeat(64)}` }], ['a hash with colons', { 'x-forwarded-client-cert': `Hash=${own.fingerprint.replaceAll(/(..)(?=.)/g, '$1:')}` }],
    ['a certificate that is none', { 'x-forwarded-client-cert': 'Cert="hello"' }], ['a certificate with a bad escape', { 'x-forwarded-client-cert': 'Cert="%E0%A4%A"' }], ['a certificate that is none, beside a good hash', { 'x-forwarded-client-cert': `Hash=${own.fingerprint};Cert="hello"` }],
    ['a hash in the subject', { 'x-forwarded-client-cert': `Subject="CN=x;Hash=${own.fingerprint}"` }],
    ['two hops', { 'x-forwarded-client-cert': `Hash=${own.fingerprint},Hash=${own.fingerprint}` }], ['two hops with certificates', { 'x-forwarded-client-cert': `${xfcc(own)},${xfcc(own)}` }],
    ['two hops with names', { 'x-forwarded-client-cert': `By=a;Hash=${own.fingerprint};Subject="CN=a,O=b",By=b;Hash=${other.fingerprint};Subject="CN=c,O=d"` }], ['a hop and nothing', { 'x-forwarded-client-cert': `Hash=${own.fingerprint},` }],
    ['two that disagree', { 'client-cert': own.clientCert, 'x-forwarded-client-cert': xfcc(other) }], ['two that disagree by hash', { 'client-cert': other.clientCert, 'x-forwarded-client-cert': `Hash=${own.fingerprint}` }],
    ['a good one beside a bad one', { 'client-cert': own.clientCert, 'x-forwarded-client-cert': 'Hash=x' }], ['17 KiB', { 'client-cert': `:${'A'.repeat(17 * 1024)}:` }],
  ])('is refused where it cannot be read: %s', async (_, headers) => {
    await expectRefused(models(trusting, await bound(own), headers));
    await expectRefused(models(trusting, await harness.token(), headers)); // also with a token that is bound to nothing
    expect(await statusOf(models(harness, await harness.token(), headers))).toBe(200); // nobody reads it there
  });

  it('is refused where the header comes twice', async () => {
    for (const [name, value] of [['client-cert', own.clientCert], ['x-forwarded-client-cert', `Hash=${own.fingerprint}`]] as const) {
      const { status } = await rawRequest(trusting.url, '/v1/models', { headers: { authorization: `Bearer ${await bound(own)}`, [name]: [value, value] } });
      expect(status).toBe(401);
    }
  });
});

describe('the address of a caller', () => {
  interface Recorded {
    src_endpoint: { ip: string };
    unmapped: { novix: { decision: { attributes: Record<string, unknown> } } };
  }
  /** As the record has it, for the log and for rules. */
  async function addressAt(gateway: { url: string }, headers: Record<string, string>): Promise<string[]> {
    const response = await completeAt(gateway.url, await harness.token(), {}, headers);
    await response.text();
    expect(response.status).toBe(200);
    const { src_endpoint: source, unmapped } = (await eventOf(harness, response.headers.get('x-request-id'), 'intent')) as unknown as Recorded;
    return [source.ip, String(unmapped.novix.decision.attributes['env.ip'])];
  }
  const twice = (ip: string): string[] => [ip, ip];

  it('is what a trusted proxy says, and the socket’s for everyone else', async () => {
    const headers = { 'x-forwarded-for': '203.0.113.7' };
    expect(await addressAt(trusting, headers)).toEqual(twice('203.0.113.7'));
    expect(await addressAt(harness, headers)).toEqual(twice('127.0.0.1'));
    expect(await addressAt(trusting, {})).toEqual(twice('127.0.0.1'));
    expect(await addressAt(trusting, { forwarded: 'for=203.0.113.7', 'x-real-ip': '203.0.113.7', 'x-client-ip': '203.0.113.7' })).toEqual(twice('127.0.0.1'));
    expect(await addressAt(trusting, { 'x-forwarded-for': '2001:db8::7' })).toEqual(twice('2001:db8::7'));
  });

  it.each<[string, string, string]>([
    ['203.0.113.7, 192.0.2.9', '192.0.2.9', '192.0.2.9'], // the last one that is not trusted: what stands before it anyone may have written
    ['203.0.113.7, 198.51.100.9', '198.51.100.9', '203.0.113.7'],
    ['10.0.0.1, 203.0.113.7, 198.51.100.9, 198.51.100.10', '198.51.100.10', '203.0.113.7'],
    ['203.0.113.7, 2001:db8::1', '2001:db8::1', '203.0.113.7'],
    ['203.0.113.7,   127.0.0.1', '203.0.113.7', '203.0.113.7'],
  ])('through several proxies is that of the first that is not trusted, from behind: %s', async (forwarded, one, several) => {
    const headers = { 'x-forwarded-for': forwarded };
    expect(await addressAt(trusting, headers)).toEqual(twice(one));
    expect(await addressAt(chained, headers)).toEqual(twice(several));
    expect(await addressAt(harness, headers)).toEqual(twice('127.0.0.1'));
  });

  it('decides by rules, and cannot be made up', async () => {
    await publish(root, [deny('office-only', { when: [{ attr: 'env.ip', op: 'cidr', value: ['203.0.113.0/24'] }] })]);
    await trusting.parts.rules.refresh();
    const at = async (gateway: { url: string }, ip: string): Promise<number> => statusOf(completeAt(gateway.url, await harness.token(), {}, { 'x-forwarded-for': ip }));
    expect([await at(trusting, '203.0.113.7'), await at(trusting, '203.0.114.7'), await at(trusting, '203.0.113.7, 192.0.2.1'), await at(harness, '203.0.113.7')]).toEqual([403, 200, 200, 200]);
  });

  it('that is no address helps no caller: an allow does not apply, and a deny does', async () => {
    const garbage = ['unknown', '_hidden', '203.0.113.7:443', '', '203.0.113'];
    const at = async (ip: string, roles: string[]): Promise<number> => statusOf(completeAt(trusting.url, await harness.token({ roles }), {}, { 'x-forwarded-for': ip }));
    await publish(root, [allow('office', { when: [{ attr: 'env.ip', op: 'cidr', value: ['203.0.113.0/24'] }] })]);
    await trusting.parts.rules.refresh();
    expect(await at('203.0.113.7', [])).toBe(200);
    for (const ip of garbage) expect({ ip, status: await at(ip, []) }).toEqual({ ip, status: 403 });
  });

  it('is on the record of a refusal too, and failures are counted by it', async () => {
    const strict = await startReplica(harness, { trustedProxies: ['127.0.0.1/32'], authFailuresPerMinute: 3, spoolDir: `${harness.settings.spoolDir}-s` });
    try {
      const fail = (ip: string): Promise<Response> => models(strict, 'garbage', { 'x-forwarded-for': ip });
      const response = await fail('203.0.113.50');
      await expectError(response, 401, 'invalid_token');
      expect((await eventOf(harness, response.headers.get('x-request-id'), 'refusal')) as unknown as Recorded).toMatchObject({ src_endpoint: { ip: '203.0.113.50' } });
      const statuses: number[] = [];
      for (let turn = 0; turn < 5; turn += 1) statuses.push(await statusOf(fail('203.0.113.50')));
      expect(statuses.at(-1)).toBe(429);
      expect(await statusOf(fail('203.0.113.51'))).toBe(401); // another caller of the same proxy
      expect(await statusOf(models(strict, await harness.token(), { 'x-forwarded-for': '203.0.113.50' }))).toBe(200);
    } finally {
      await strict.close();
    }
  });
});
