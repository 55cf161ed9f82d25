import { execFile } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { promisify } from 'node:util';

// A certificate authority as companies have one, by the `openssl` command, and callers that come with its certificates.

const run = promisify(execFile);

export interface IssuedCertificate {
  /** PEM */
  cert: string;
  key: string;
  certFile: string;
  keyFile: string;
  /** SHA-256, hex in lower case. */
  fingerprint: string;
  /** The same as RFC 8705 has it. */
  thumbprint: string;
}

export interface CertificateRequest {
  subject?: string;
  /** As OpenSSL writes it. */
  san?: string;
  /** Until when and from when, epoch milliseconds. */
  notBeforeMs?: number;
  notAfterMs?: number;
  /** Hex; the next one unless given. */
  serial?: string;
  selfSigned?: boolean;
}

const DAY_MS = 86_400_000;
const asn1Time = (ms: number): string => `${new Date(ms).toISOString().replaceAll(/[-:T]|\..*/g, '')}Z`;

export class Pki {
  #made = 0;

  private constructor(
    readonly dir: string,
    /** PEM of the authority's own certificate. */
    readonly ca: string,
    readonly caFile: string,
  ) {}

  static async create(commonName: string): Promise<Pki> {
    const dir = await mkdtemp(join(tmpdir(), 'novix-test-pki-'));
    const config = `[ca]\ndefault_ca = own\n[own]\ndatabase = ${dir}/index.txt\nnew_certs_dir = ${dir}\ncertificate = ${dir}/ca.pem\nprivate_key = ${dir}/ca.key\nserial = ${dir}/serial\ncrlnumber = ${dir}/crlnumber
default_md = sha256\ndefault_days = 30\ndefault_crl_days = 30\npolicy = any\nunique_subject = no\n[any]\ncommonName = optional\norganizationName = optional\norganizationalUnitName = optional\n`;
    await Promise.all([writeFile(join(dir, 'ca.cnf'), config), writeFile(join(dir, 'index.txt'), ''), writeFile(join(dir, 'serial'), '00F0000000000001\n'), writeFile(join(dir, 'crlnumber'), '01\n')]);
    const [caFile, keyFile] = [join(dir, 'ca.pem'), join(dir, 'ca.key')];
    await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile, '-out', caFile, '-days', '30', '-subj', `/CN=${commonName}`, '-addext', 'keyUsage=critical,keyCertSign,cRLSign']);
    return new Pki(dir, await readFile(caFile, 'utf8'), caFile);
  }

  async issue({ subject = '/CN=client', san = 'URI:spiffe://acme.example/dev', notBeforeMs = Date.now() - DAY_MS, notAfterMs = Date.now() + 7 * DAY_MS, serial, selfSigned = false }: CertificateRequest = {}): Promise<IssuedCertificate> {
    this.#made += 1;
    const file = (ending: string): string => join(this.dir, `${this.#made}.${ending}`);
    const [keyFile, certFile, csrFile, extFile] = ['key', 'pem', 'csr', 'ext'].map(file) as [string, string, string, string];
    const newKey = ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile, '-subj', subject];
    if (selfSigned) {
      await run('openssl', [...newKey, '-x509', '-out', certFile, '-days', '7', '-addext', `subjectAltName=${san}`]);
    } else {
      await run('openssl', [...newKey, '-new', '-out', csrFile]);
      await writeFile(extFile, `basicConstraints=critical,CA:FALSE\nsubjectAltName=${san}\n`);
      if (serial !== undefined) await writeFile(join(this.dir, 'serial'), `${serial}\n`);
      await run('openssl', ['ca', '-config', join(this.dir, 'ca.cnf'), '-batch', '-notext', '-in', csrFile, '-out', certFile, '-extfile', extFile, '-startdate', asn1Time(notBeforeMs), '-enddate', asn1Time(notAfterMs)]);
    }
    const [cert, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')]);
    const digest = createHash('sha256').update(new X509Certificate(cert).raw);
    const fingerprint = digest.copy().digest('hex');
    return { cert, key, certFile, keyFile, fingerprint, thumbprint: digest.digest('base64url') };
  }

  /** From the next list on. */
  async revoke({ certFile }: IssuedCertificate): Promise<void> {
    await run('openssl', ['ca', '-config', join(this.dir, 'ca.cnf'), '-revoke', certFile]);
  }

  /** The list of what has been revoked, as it is now. */
  async crl(): Promise<string> {
    const file = join(this.dir, 'crl.pem');
    await run('openssl', ['ca', '-config', join(this.dir, 'ca.cnf'), '-gencrl', '-out', file]);
    return readFile(file, 'utf8');
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Someone who calls over TLS, on one connection that is kept open. */
export interface TlsCaller {
  call(method: string, path: string, options?: { token?: string; body?: unknown; headers?: Record<string, string> }): Promise<Response>;
  /** Handshakes so far. */
  readonly connections: number;
  /** Of the connection used last. */
  readonly socket: TLSSocket;
  close(): void;
}

export function tlsCaller(url: string, ca: string, options: ConnectionOptions = {}): TlsCaller {
  const agent = new Agent({ keepAlive: true, maxSockets: 1, ca, ...(options as object) });
  const sockets: TLSSocket[] = [];
  return {
    call: (method, path, { token, body, headers } = {}) => new Promise((resolve, reject) => {
      const requestOptions: RequestOptions = { agent, method, headers: { ...(token !== undefined && { authorization: `Bearer ${token}` }), ...(body !== undefined && { 'content-type': 'application/json' }), ...headers } };
      const request = httpsRequest(new URL(path, url), requestOptions, (message) => {
        const { statusCode, headers: answered } = message;
        const empty = statusCode === 204 || statusCode === 304;
        if (empty) message.resume();
        resolve(new Response(empty ? null : (Readable.toWeb(message) as ReadableStream), { status: statusCode!, headers: Object.entries(answered).map(([name, value]): [string, string] => [name, String(value)]) }));
      });
      request.on('socket', (socket) => {
        if (sockets.at(-1) !== socket) sockets.push(socket as TLSSocket);
      });
      request.on('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    }),
    get connections() {
      return sockets.length;
    },
    get socket() {
      return sockets.at(-1)!;
    },
    close: () => agent.destroy(),
  };
}
