import { X509Crl } from '@peculiar/x509';

/**
 * Serial numbers that the certificate authority has revoked. Node looks at a CRL in the handshake alone; connections that are open already are looked at
 * with every request.
 */
export class RevokedCertificates {
  #serials: ReadonlySet<string> = new Set();

  /**
   * @param pem one CRL or several; undefined for none
   * @throws {Error} for what is no CRL
   */
  use(pem: string | undefined): void {
    const blocks = pem?.match(/-----BEGIN X509 CRL-----[\s\S]+?-----END X509 CRL-----/g) ?? [];
    if (pem !== undefined && blocks.length === 0) throw new Error('TLS_CLIENT_CRL: no certificate revocation list in PEM');
    const serials = new Set<string>();
    for (const block of blocks) {
      const crl = new X509Crl(block);
      for (const { serialNumber } of crl.entries) serials.add(keyOf(crl.issuer, serialNumber));
    }
    this.#serials = serials;
  }

  has(issuer: string, serialNumber: string): boolean {
    return this.#serials.has(keyOf(issuer, serialNumber));
  }
}

function keyOf(issuer: string, serialNumber: string): string {
  // Different writers put different zeros in front.
  return `${issuer}\u001f${serialNumber.toLowerCase().replace(/^0+(?=.)/, '')}`;
}
