import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';

// Certificates made on the spot, so that no private key lies in the repository. As much of X.509 as TLS with an elliptic curve needs.

export interface Certificate {
  /** PEM */
  readonly cert: string;
  readonly key: string;
}
export interface Authority {
  readonly cert: string;
  issue(commonName: string): Certificate;
}

const TAG = { integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, utf8: 0x0c, utcTime: 0x17, sequence: 0x30, set: 0x31, version: 0xa0, extensions: 0xa3 };

function der(tag: number, ...contents: readonly Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const oid = (hex: string) => der(TAG.oid, Buffer.from(hex, 'hex'));
const ECDSA_WITH_SHA256 = der(TAG.sequence, oid('2a8648ce3d040302'));
const COMMON_NAME = oid('550403');
const BASIC_CONSTRAINTS = oid('551d13');
const SUBJECT_ALT_NAME = oid('551d11');
const TRUE = Buffer.from([0x01, 0x01, 0xff]);
/** iPAddress 127.0.0.1 */
const LOOPBACK = Buffer.from([0x87, 0x04, 127, 0, 0, 1]);

const nameOf = (commonName: string) => der(TAG.sequence, der(TAG.set, der(TAG.sequence, COMMON_NAME, der(TAG.utf8, Buffer.from(commonName)))));
const validity = der(TAG.sequence, der(TAG.utcTime, Buffer.from('200101000000Z')), der(TAG.utcTime, Buffer.from('491231235959Z')));

export function createAuthority(commonName: string): Authority {
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const constraints = der(TAG.sequence, BASIC_CONSTRAINTS, TRUE, der(TAG.octets, der(TAG.sequence, TRUE)));
  return {
    cert: certificate(commonName, own.publicKey, commonName, own.privateKey, constraints),
    issue: (subject) => {
      const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const addresses = der(TAG.sequence, SUBJECT_ALT_NAME, der(TAG.octets, der(TAG.sequence, LOOPBACK)));
      return { cert: certificate(subject, publicKey, commonName, own.privateKey, addresses), key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
    },
  };
}

function certificate(subject: string, publicKey: KeyObject, issuer: string, issuerKey: KeyObject, extension: Buffer): string {
  const toBeSigned = der(
    TAG.sequence,
    der(TAG.version, der(TAG.integer, Buffer.from([2]))),
    der(TAG.integer, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ECDSA_WITH_SHA256,
    nameOf(issuer),
    validity,
    nameOf(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(TAG.extensions, der(TAG.sequence, extension)),
  );
  const signature = der(TAG.bits, Buffer.from([0]), sign('sha256', toBeSigned, issuerKey));
  const base64 = der(TAG.sequence, toBeSigned, ECDSA_WITH_SHA256, signature).toString('base64').replace(/.{64}/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`;
}
