import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export const TOKEN = 'hvs.of-a-test';

/** Keys of Vault's transit engine over HTTP, as its API documentation says: no real one can be run here. */
export class FakeTransit {
  readonly keys = new Map<string, { key: Buffer; deletionAllowed: boolean }>();
  readonly calls: string[] = [];
  down = false;

  private constructor(private readonly server: Server) {}

  static async start(): Promise<FakeTransit> {
    const server = createServer();
    const transit = new FakeTransit(server);
    server.on('request', (request: IncomingMessage, response) => {
      void (async () => {
        const parts: Buffer[] = [];
        for await (const part of request) parts.push(part as Buffer);
        const body = parts.length === 0 ? {} : (JSON.parse(Buffer.concat(parts).toString()) as Record<string, string>);
        const [status, answer] = transit.#answer(request, body);
        response.writeHead(status, { 'content-type': 'application/json' }).end(answer === undefined ? '' : JSON.stringify(answer));
      })();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return transit;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  #answer({ method = '', url = '', headers }: IncomingMessage, body: Record<string, unknown>): [number, unknown?] {
    if (this.down) return [503, { errors: ['Vault is sealed'] }];
    if (headers['x-vault-token'] !== TOKEN) return [403, { errors: ['permission denied'] }];
    if (url === '/v1/auth/token/lookup-self') return [200, { data: { ttl: 0, renewable: false } }];
    const [, operation, name, config] = /^\/v1\/transit\/(keys|encrypt|decrypt)\/([\w-]+)(\/config)?$/.exec(url) ?? [];
    if (operation === undefined) return [404, { errors: [`no handler for route "${url}". route entry not found.`] }];
    this.calls.push(`${method} ${operation}${config ?? ''}`);
    const known = this.keys.get(name!);
    if (operation === 'keys') return this.#keyRequest(method, name!, config !== undefined, known, body);
    if (known === undefined) return [400, { errors: ['encryption key not found'] }];
    const aad = Buffer.from(String(body['associated_data']), 'base64');
    if (operation === 'encrypt') {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', known.key, nonce).setAAD(aad);
      const sealed = Buffer.concat([nonce, cipher.update(Buffer.from(String(body['plaintext']), 'base64')), cipher.final(), cipher.getAuthTag()]);
      return [200, { data: { ciphertext: `vault:v1:${sealed.toString('base64')}`, key_version: 1 } }];
    }
    try {
      const sealed = Buffer.from(String(body['ciphertext']).replace(/^vault:v1:/, ''), 'base64');
      const decipher = createDecipheriv('aes-256-gcm', known.key, sealed.subarray(0, 12)).setAAD(aad).setAuthTag(sealed.subarray(-16));
      return [200, { data: { plaintext: Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString('base64') } }];
    } catch {
      return [400, { errors: ['cipher: message authentication failed'] }];
    }
  }

  #keyRequest(method: string, name: string, config: boolean, known: { deletionAllowed: boolean } | undefined, body: Record<string, unknown>): [number, unknown?] {
    if (method === 'GET') return known === undefined ? [404, { errors: [] }] : [200, { data: { name, type: 'aes256-gcm96' } }];
    if (method === 'POST' && !config) {
      if (known === undefined) this.keys.set(name, { key: randomBytes(32), deletionAllowed: false });
      return [200, { data: { name } }];
    }
    if (known === undefined) return [400, { errors: [`no existing key named ${name} could be found`] }];
    if (method === 'POST') known.deletionAllowed = body['deletion_allowed'] === true;
    else if (!known.deletionAllowed) return [400, { errors: ['error deleting policy: deletion is not allowed for this key'] }];
    else this.keys.delete(name);
    return [204];
  }
}
