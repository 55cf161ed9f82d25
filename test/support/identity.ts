import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey, type JWK } from 'jose';

// Identity providers as tests need them: keys of their own, a key set on loopback that can go wrong, and a configuration folder that names them.

export interface IssuerKey {
  kid: string;
  alg: string;
  privateKey: CryptoKey;
  /** As the key set has it. */
  jwk: JWK;
}

/** @param published what the key set says beside the key itself; undefined members are left out */
export async function makeKeyOf(alg: string, published: Record<string, unknown> = {}): Promise<IssuerKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const kid = crypto.randomUUID();
  return { kid, alg, privateKey, jwk: JSON.parse(JSON.stringify({ ...(await exportJWK(publicKey)), kid, use: 'sig', alg, ...published })) as JWK };
}

/** A token signed by a key; the header is `{ alg, kid }` unless said otherwise. */
export function signWith({ alg, kid, privateKey }: IssuerKey, payload: Record<string, unknown>, header: Record<string, unknown> = {}): Promise<string> {
  return new SignJWT(payload).setProtectedHeader({ alg, kid, ...header }).sign(privateKey);
}

/** Times of a token that has just been made. */
export function times(ttlSeconds = 3_600): { iat: number; exp: number } {
  const iat = Math.floor(Date.now() / 1000);
  return { iat, exp: iat + ttlSeconds };
}

export interface KeySetServer {
  readonly url: string;
  /** How often the key set was asked for. */
  readonly fetches: number;
  keys: readonly JWK[];
  /** What answers in place of the key set; undefined: the key set does. */
  instead: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
  close(): Promise<void>;
}

/** Serves a key set on loopback. */
export async function serveKeys(keys: readonly JWK[] = []): Promise<KeySetServer> {
  const served = { keys, instead: undefined as KeySetServer['instead'], fetches: 0 };
  const server = createServer((request, response) => {
    if (request.url !== '/keys') {
      response.writeHead(404).end();
      return;
    }
    served.fetches += 1;
    if (served.instead) served.instead(request, response);
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: served.keys }));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return Object.assign(served, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`,
    close: () => new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  });
}

/** A key set server whose provider is down, as far as anyone can see. */
export function isDown(_: IncomingMessage, response: ServerResponse): void {
  response.writeHead(503).end('down');
}

/** A configuration folder with an `identity.yaml`; JSON is YAML too. */
export async function identityFolder(content: { issuers: readonly unknown[] } | string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'novix-test-identity-'));
  await writeFile(join(folder, 'identity.yaml'), typeof content === 'string' ? content : JSON.stringify(content));
  return folder;
}
