import { describe, expect, it } from '@jest/globals';
import { SubjectAlternativeNameExtension, X509CertificateGenerator, X509CrlGenerator, type X509Certificate } from '@peculiar/x509';
import type { FastifyRequest } from 'fastify';
import { createHash } from 'node:crypto';
import { ClientCertificates, trustedProxyList } from './client-certificates.ts';
import type { ClientCertificate } from './principal.ts';
import { RevokedCertificates } from './revoked-certificates.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
const NOW_MS = Date.parse('2026-06-01T00:00:00Z');
const ENDS_MS = Date.parse('2026-07-01T00:00:00Z');

function issue(serialNumber = '0a', uris: readonly string[] = ['spiffe://acme.example/dev']): Promise<X509Certificate> {
  return X509CertificateGenerator.create({
    serialNumber, subject: 'CN=root@platform.example', issuer: 'CN=Test CA', notBefore: new Date('2026-01-01T00:00:00Z'), notAfter: new Date(ENDS_MS), signingAlgorithm: ALGORITHM, publicKey: keys.publicKey, signingKey: keys.privateKey,
    extensions: uris.length === 0 ? [] : [new SubjectAlternativeNameExtension([{ type: 'dns', value: 'dev.acme.example' }, ...uris.map((value) => ({ type: 'url' as const, value })), { type: 'email', value: 'dev@acme.example' }])],
  });
}

const one = await issue();
const fingerprintOf = (certificate: X509Certificate): string => createHash('sha256').update(new Uint8Array(certificate.rawData)).digest('hex');
const clientCert = (certificate: X509Certificate): string => `:${Buffer.from(certificate.rawData).toString('base64')}:`;
const forwarded = (certificate: X509Certificate): string => `Cert="${encodeURIComponent(certificate.toString('pem'))}"`;

function make(networks: readonly string[] = ['10.0.0.0/8'], nowMs = NOW_MS): { revoked: RevokedCertificates; of: (headers: Record<string, unknown>, address?: string) => ClientCertificate | undefined; code: (headers: Record<string, unknown>) => string } {
  const revoked = new RevokedCertificates();
  const certificates = new ClientCertificates(trustedProxyList(networks), revoked, { nowMs: () => nowMs, monotonicMs: () => 0 });
  const of = (headers: Record<string, unknown>, remoteAddress: string | undefined = '10.1.2.3'): ClientCertificate | undefined => certificates.of({ headers, raw: { socket: { remoteAddress } } } as unknown as FastifyRequest);
  const code = (headers: Record<string, unknown>): string => {
    try {
      return of(headers) === undefined ? 'none' : 'one';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  return { revoked, of, code };
}

describe('ClientCertificates', () => {
  it('knows a certificate by fingerprint and URIs, and never by its subject', () => {
    for (const headers of [{ 'client-cert': clientCert(one) }, { 'x-forwarded-client-cert': forwarded(one) }]) {
      const certificate = make().of(headers);
      expect(certificate).toMatchObject({ fingerprint: fingerprintOf(one), uris: ['spiffe://acme.example/dev'] });
      expect(JSON.stringify(certificate)).not.toContain('root@platform');
    }
  });

  it('takes all URIs, and none where there are none', async () => {
    expect(make().of({ 'client-cert': clientCert(await issue('0b', ['spiffe://a/1', 'spiffe://a/2'])) })!.uris).toEqual(['spiffe://a/1', 'spiffe://a/2']);
    expect(make().of({ 'client-cert': clientCert(await issue('0c', [])) })!.uris).toEqual([]);
  });

  it('believes a hash with the URIs beside it, decoded', () => {
    expect(make().of({ 'x-forwarded-client-cert': `By=spiffe://mesh;Hash=${'AB'.repeat(32)};URI=spiffe://a/1;URI="spiffe://a/x%20y";Subject="CN=\\"q\\";URI=no"` })).toMatchObject({ fingerprint: 'ab'.repeat(32), uris: ['spiffe://a/1', 'spiffe://a/x y'] });
  });

  it.each<[string, readonly string[], boolean]>([
    ['10.1.2.3', ['10.0.0.0/8'], true], ['11.1.2.3', ['10.0.0.0/8'], false], ['::ffff:10.1.2.3', ['10.0.0.0/8'], true], ['10.1.2.3', ['10.1.2.3'], true], ['10.1.2.4', ['10.1.2.3'], false], ['10.1.2.3', ['10.1.2.2/31'], true], ['10.1.2.3', [], false],
    ['2001:db8::1', ['2001:db8::/32'], true], ['2001:db9::1', ['2001:db8::/32'], false], ['2001:db8::1', ['2001:db8::1'], true], ['10.1.2.3', ['2001:db8::/32'], false], ['10.1.2.3', ['192.168.0.0/16', '10.1.0.0/16'], true], ['::1', ['127.0.0.1/32'], false], ['', ['0.0.0.0/0'], false], ['unknown', ['0.0.0.0/0'], false],
  ])('reads the headers of %s where %j are trusted: %p', (address, networks, read) => {
    const { of } = make(networks);
    expect(of({ 'client-cert': clientCert(one) }, address)?.fingerprint).toBe(read ? fingerprintOf(one) : undefined);
    expect(of({}, address)).toBeUndefined();
  });

  it('from anyone else does not even look at them', () => {
    const { of } = make();
    for (const headers of [{ 'client-cert': 'garbage' }, { 'x-forwarded-client-cert': 'garbage' }, { 'client-cert': ['a', 'b'] }]) expect(of(headers, '11.0.0.1')).toBeUndefined();
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['no header', {}, 'none'], ['both of one mind', { 'client-cert': clientCert(one), 'x-forwarded-client-cert': forwarded(one) }, 'one'], ['both, one of them by hash', { 'client-cert': clientCert(one), 'x-forwarded-client-cert': `Hash=${fingerprintOf(one)}` }, 'one'],
    ['two that disagree', { 'client-cert': clientCert(one), 'x-forwarded-client-cert': `Hash=${'0'.repeat(64)}` }, 'invalid_token'], ['a list of headers', { 'client-cert': [clientCert(one), clientCert(one)] }, 'invalid_token'], ['an empty one', { 'client-cert': '' }, 'invalid_token'],
    ['PEM in client-cert', { 'client-cert': one.toString('pem') }, 'invalid_token'], ['no DER', { 'client-cert': ':AAAA:' }, 'invalid_token'], ['several hops', { 'x-forwarded-client-cert': `${forwarded(one)},${forwarded(one)}` }, 'invalid_token'], ['no certificate', { 'x-forwarded-client-cert': 'By=x' }, 'invalid_token'],
    ['a comma in quotes, which is no second hop', { 'x-forwarded-client-cert': `Hash=${fingerprintOf(one)};Subject="CN=a,O=b"` }, 'one'], ['more than 16 KiB', { 'x-forwarded-client-cert': `Hash=${fingerprintOf(one)};Subject="${'x'.repeat(16_384)}"` }, 'invalid_token'],
  ])('takes %s as %3$s', (_, headers, expected) => {
    expect(make().code(headers)).toBe(expected);
  });

  it('refuses it from the very millisecond in which it ends', () => {
    const headers = { 'client-cert': clientCert(one) };
    expect([make(undefined, ENDS_MS - 1).code(headers), make(undefined, ENDS_MS).code(headers)]).toEqual(['one', 'invalid_token']);
  });

  it('refuses what a CRL of its issuer names, from then on', async () => {
    const { revoked, code } = make();
    const [first, second] = [{ 'client-cert': clientCert(one) }, { 'client-cert': clientCert(await issue('0b')) }];
    expect([code(first), code(second)]).toEqual(['one', 'one']);
    const list = async (issuer: string): Promise<string> => (await X509CrlGenerator.create({ issuer, thisUpdate: new Date(), nextUpdate: new Date(), signingAlgorithm: ALGORITHM, signingKey: keys.privateKey, entries: [{ serialNumber: '0a', revocationDate: new Date() }] })).toString('pem').replaceAll('CRL-----', 'X509 CRL-----');
    revoked.use(await list('CN=Another CA'));
    expect(code(first)).toBe('one');
    revoked.use(await list('CN=Test CA'));
    expect([code(first), code(second)]).toEqual(['invalid_token', 'one']);
  });
});
