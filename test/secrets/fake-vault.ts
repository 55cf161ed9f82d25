import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

// No package holds a real Vault or OpenBao that could be run here, so this is an HTTP server of our own that behaves as their API documentation says:
// statuses, error texts, leases, key versions, associated data. What it cannot show is where the real one departs from its documentation.

export const TRANSIT_KEY = 'novix';

interface Token {
  endsAtMs: number;
  leaseSeconds: number;
  renewable: boolean;
  /** The lease never reaches beyond this. */
  lastMs: number;
}

export interface VaultCall {
  method: string;
  path: string;
  token: string | undefined;
  namespace: string | undefined;
  status: number;
}

export class FakeVault {
  sealed = false;
  /** Takes requests, and never answers. */
  silent = false;
  redirectTo: string | undefined;
  minDecryptionVersion = 1;
  appRole: { roleId: string; secretId: string } | undefined;
  kubernetes: { role: string; jwt: string } | undefined;
  /** Of tokens that a login brings. */
  lease = { seconds: 3_600, renewable: true, maxSeconds: 1_000_000 };
  refusesRenewals = false;
  readonly calls: VaultCall[] = [];
  readonly #keys: Buffer[] = [randomBytes(32)];
  readonly #tokens = new Map<string, Token>();

  private constructor(private readonly server: Server) {}

  static async start(port = 0): Promise<FakeVault> {
    const server = createServer();
    const vault = new FakeVault(server);
    server.on('request', (request: IncomingMessage, response: ServerResponse) => void vault.#serve(request, response));
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    return vault;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** A token of an operator's making. */
  addToken(value: string, leaseSeconds = 0, renewable = leaseSeconds > 0): string {
    this.#tokens.set(value, { endsAtMs: leaseSeconds === 0 ? Number.POSITIVE_INFINITY : Date.now() + leaseSeconds * 1000, leaseSeconds, renewable, lastMs: Number.POSITIVE_INFINITY });
    return value;
  }

  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** The same Vault, started again. */
  takeKeysOf(other: FakeVault): void {
    this.#keys.splice(0, this.#keys.length, ...other.#keys);
  }

  rotate(): void {
    this.#keys.push(randomBytes(32));
  }

  callsOf(path: string): VaultCall[] {
    return this.calls.filter((call) => call.path === path);
  }

  /** As an operator would, on the Vault itself. */
  encrypt(name: string, value: string): string {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#keys.at(-1)!, nonce).setAAD(Buffer.from(name));
    const bytes = Buffer.concat([nonce, cipher.update(value, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return `vault:v${this.#keys.length}:${bytes.toString('base64')}`;
  }

  /** What stands after `enc:`. */
  seal(name: string, value: string): string {
    return `v1:vault:${Buffer.from(this.encrypt(name, value)).toString('base64url')}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    if (this.silent) return;
    const path = request.url!.replace(/^\/v1\//, '');
    const token = request.headers['x-vault-token'] as string | undefined;
    const { status, body } = this.#answer(request.method!, path, token, parts.length === 0 ? {} : (JSON.parse(Buffer.concat(parts).toString()) as Record<string, string>));
    this.calls.push({ method: request.method!, path, token, namespace: request.headers['x-vault-namespace'] as string | undefined, status });
    response.writeHead(status, { 'content-type': 'application/json', ...(status === 307 && { location: this.redirectTo }) });
    response.end(JSON.stringify(body));
  }

  #answer(method: string, path: string, token: string | undefined, body: Record<string, string>): { status: number; body: unknown } {
    const error = (status: number, ...errors: string[]): { status: number; body: unknown } => ({ status, body: { errors } });
    if (this.redirectTo !== undefined) return error(307);
    if (this.sealed) return error(503, 'Vault is sealed');
    if (method === 'POST' && path === 'auth/approle/login') {
      if (this.appRole === undefined) return error(404);
      return body['role_id'] === this.appRole.roleId && body['secret_id'] === this.appRole.secretId ? this.#login() : error(400, 'invalid role or secret ID');
    }
    if (method === 'POST' && path === 'auth/kubernetes/login') {
      return body['role'] === this.kubernetes?.role && body['jwt'] === this.kubernetes?.jwt ? this.#login() : error(403, 'permission denied');
    }
    const held = token === undefined ? undefined : this.#tokens.get(token);
    if (held === undefined || held.endsAtMs <= Date.now()) return error(403, 'permission denied', 'invalid token');
    if (method === 'GET' && path === 'auth/token/lookup-self') return { status: 200, body: { data: { ttl: held.leaseSeconds === 0 ? 0 : Math.round((held.endsAtMs - Date.now()) / 1000), renewable: held.renewable } } };
    if (method === 'POST' && path === 'auth/token/renew-self') {
      if (!held.renewable || this.refusesRenewals) return error(400, 'lease is not renewable');
      held.endsAtMs = Math.min(held.lastMs, Date.now() + held.leaseSeconds * 1000);
      return { status: 200, body: { auth: { client_token: token, lease_duration: Math.floor((held.endsAtMs - Date.now()) / 1000), renewable: true } } };
    }
    if (method === 'POST' && path === `transit/encrypt/${TRANSIT_KEY}`) {
      return { status: 200, body: { data: { ciphertext: this.encrypt(Buffer.from(body['associated_data'] ?? '', 'base64').toString(), Buffer.from(body['plaintext']!, 'base64').toString()), key_version: this.#keys.length } } };
    }
    if (method === 'POST' && path === `transit/decrypt/${TRANSIT_KEY}`) return this.#decrypt(body, error);
    if (/^transit\/(en|de)crypt\//.test(path)) return error(400, 'encryption key not found');
    return error(404);
  }

  #decrypt(body: Record<string, string>, error: (status: number, ...errors: string[]) => { status: number; body: unknown }): { status: number; body: unknown } {
    const [, version, text] = /^vault:v(\d+):(.+)$/.exec(body['ciphertext'] ?? '') ?? [];
    const key = this.#keys[Number(version) - 1];
    if (text === undefined) return error(400, 'invalid ciphertext: no prefix');
    if (Number(version) < this.minDecryptionVersion) return error(400, 'ciphertext or signature version is disallowed by policy (too old)');
    if (key === undefined) return error(400, 'invalid ciphertext: version is too new');
    const bytes = Buffer.from(text, 'base64');
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12), { authTagLength: 16 }).setAAD(Buffer.from(body['associated_data'] ?? '', 'base64')).setAuthTag(bytes.subarray(-16));
      return { status: 200, body: { data: { plaintext: Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]).toString('base64') } } };
    } catch {
      return error(400, 'invalid ciphertext: unable to decrypt');
    }
  }

  #login(): { status: number; body: unknown } {
    const value = `hvs.fake-${randomUUID()}`;
    const { seconds, renewable, maxSeconds } = this.lease;
    this.#tokens.set(value, { endsAtMs: Date.now() + seconds * 1000, leaseSeconds: seconds, renewable, lastMs: Date.now() + maxSeconds * 1000 });
    return { status: 200, body: { auth: { client_token: value, lease_duration: seconds, renewable } } };
  }
}
