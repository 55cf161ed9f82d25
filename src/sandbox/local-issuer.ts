import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { exportJWK, exportPKCS8, generateKeyPair, importPKCS8, SignJWT, type CryptoKey, type JWK } from 'jose';
import { uuid } from '../shared/uuid.ts';
import type { IssuerSettings } from '../auth/identity-config.ts';

const ALGORITHM = 'ES256';
const KEY_ID = 'sandbox-1';
const AUDIENCE = 'novix-gateway';

export function issuerKeyFile(dataDir: string): string {
  return join(dataDir, 'sandbox-issuer.pem');
}

export interface TokenRequest {
  tenant: string;
  subject: string;
  roles: readonly string[];
  attributes?: Readonly<Record<string, string | number | readonly string[]>>;
  ttlSeconds: number;
  /** SHA-256 of the certificate that the token is bound to, in base64url (RFC 8705). */
  certificateThumbprint?: string;
}

/** The sandbox's identity provider: a key on disk, its public half over HTTP, and tokens for whoever can read the key. */
export class LocalIssuer {
  private constructor(
    private readonly key: CryptoKey,
    private readonly publicJwk: JWK,
    readonly issuer: string,
  ) {}

  /** @param keyFile made at the first start, readable by its owner alone */
  static async open(keyFile: string): Promise<LocalIssuer> {
    const pem = await readFile(keyFile, 'utf8').catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true });
      const text = await exportPKCS8(privateKey);
      await mkdir(dirname(keyFile), { recursive: true });
      await writeFile(keyFile, text, { mode: 0o600, flag: 'wx' });
      return text;
    });
    const key = await importPKCS8(pem, ALGORITHM, { extractable: true });
    const { kty, crv, x, y } = await exportJWK(key);
    return new LocalIssuer(key, { kty, crv, x, y, kid: KEY_ID, alg: ALGORITHM, use: 'sig' } as JWK, 'https://sandbox.novix.invalid');
  }

  mint({ tenant, subject, roles, attributes, ttlSeconds, certificateThumbprint }: TokenRequest): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT({ tenant, roles: [...roles], ...(attributes && { attrs: attributes }), ...(certificateThumbprint !== undefined && { cnf: { 'x5t#S256': certificateThumbprint } }), client_id: 'sandbox' })
      .setProtectedHeader({ alg: ALGORITHM, kid: KEY_ID, typ: 'at+jwt' })
      .setIssuer(this.issuer).setAudience(AUDIENCE).setSubject(subject).setJti(uuid()).setIssuedAt(now).setExpirationTime(now + ttlSeconds)
      .sign(this.key);
  }

  /** Serves the key set on loopback, as an identity provider does. */
  async serve(): Promise<{ settings: IssuerSettings; url: string; close: () => Promise<void> }> {
    const jwks = JSON.stringify({ keys: [this.publicJwk] });
    const server: Server = createServer((request, response) => {
      if (request.method === 'GET' && request.url === '/.well-known/jwks.json') {
        response.writeHead(200, { 'content-type': 'application/jwk-set+json' }).end(jwks);
      } else {
        response.writeHead(404).end();
      }
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    const jwksUri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/.well-known/jwks.json`;
    return {
      url: jwksUri,
      settings: { issuer: this.issuer, audience: AUDIENCE, jwksUri, jwksFile: undefined, algorithms: [ALGORITHM] },
      close: () => new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    };
  }
}
