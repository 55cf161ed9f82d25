import { describe, expect, it } from '@jest/globals';
import { X509CertificateGenerator, X509CrlGenerator } from '@peculiar/x509';
import { RevokedCertificates } from './revoked-certificates.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);

async function crl(issuer: string, serials: readonly string[]): Promise<string> {
  const list = await X509CrlGenerator.create({
    issuer, thisUpdate: new Date(), nextUpdate: new Date(Date.now() + 86_400_000), signingAlgorithm: ALGORITHM, signingKey: keys.privateKey,
    entries: serials.map((serialNumber) => ({ serialNumber, revocationDate: new Date() })),
  });
  return list.toString('pem').replaceAll('CRL-----', 'X509 CRL-----'); // as OpenSSL names it
}

describe('RevokedCertificates', () => {
  it('knows what the list names, of its issuer alone', async () => {
    const revoked = new RevokedCertificates();
    expect(revoked.has('CN=One', '0a1b')).toBe(false);
    revoked.use(await crl('CN=One', ['0a1b', '7f']));
    expect(['0a1b', '7f', '0a1c', '1b', '0a1b00', ''].map((serial) => revoked.has('CN=One', serial))).toEqual([true, true, false, false, false, false]);
    expect(revoked.has('CN=Two', '0a1b')).toBe(false);
  });

  it('compares numbers, not their spelling', async () => {
    const revoked = new RevokedCertificates();
    revoked.use(await crl('CN=One', ['00a1b2', '00']));
    expect(['a1b2', 'A1B2', '00A1B2', '0000a1b2', '0', '00', 'a1b20'].map((serial) => revoked.has('CN=One', serial))).toEqual([true, true, true, true, true, true, false]);
  });

  it('reads several lists out of one file, with text between them', async () => {
    const revoked = new RevokedCertificates();
    revoked.use(`# ours\n${await crl('CN=One', ['01'])}\n\n# theirs\n${(await crl('CN=Two', ['02'])).replaceAll('\n', '\r\n')}\n`);
    expect([revoked.has('CN=One', '01'), revoked.has('CN=Two', '02'), revoked.has('CN=One', '02'), revoked.has('CN=Two', '01')]).toEqual([true, true, false, false]);
  });

  it('goes by the last list alone', async () => {
    const revoked = new RevokedCertificates();
    revoked.use(await crl('CN=One', ['01', '02']));
    revoked.use(await crl('CN=One', ['02', '03']));
    expect(['01', '02', '03'].map((serial) => revoked.has('CN=One', serial))).toEqual([false, true, true]);
    revoked.use(await crl('CN=One', []));
    expect(revoked.has('CN=One', '02')).toBe(false);
    revoked.use(await crl('CN=One', ['04']));
    revoked.use(undefined);
    expect(revoked.has('CN=One', '04')).toBe(false);
  });

  it.each<[string, () => Promise<string> | string]>([
    ['nothing', () => ''], ['text', () => 'not a list'], ['a certificate', async () => (await X509CertificateGenerator.createSelfSigned({ name: 'CN=x', keys, signingAlgorithm: ALGORITHM })).toString('pem')],
    ['markers without a list', () => '-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n'], ['the first half', async () => (await crl('CN=One', ['01'])).slice(0, 120)], ['a second list that is none', async () => `${await crl('CN=One', ['09'])}\n-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n`],
  ])('refuses %s, and keeps what it knew', async (_, text) => {
    const revoked = new RevokedCertificates();
    revoked.use(await crl('CN=One', ['01']));
    const pem = await text();
    expect(() => revoked.use(pem)).toThrow(Error);
    expect([revoked.has('CN=One', '01'), revoked.has('CN=One', '09')]).toEqual([true, false]);
  });
});
