import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { Server } from 'node:https';
import { createSecureContext, type SecureContextOptions, type TlsOptions } from 'node:tls';
import type { Logger } from 'pino';
import type { RevokedCertificates } from './auth/revoked-certificates.ts';
import type { Env } from './env.ts';

const LOOK_MS = 1_000;

export type TlsSettings = NonNullable<Env['tls']>;

/** TLS towards callers: certificate, key, client CA and CRL from files, which may be renewed while the gateway runs. */
export class InboundTls {
  #versions: string;
  #timer: NodeJS.Timeout | undefined;

  /** @throws {Error} where a file cannot be read, or they do not belong together */
  constructor(
    private readonly settings: TlsSettings,
    private readonly revoked: RevokedCertificates,
    private readonly logger: Logger,
  ) {
    this.#versions = this.#currentVersions();
    this.#read();
  }

  /** What an HTTPS server is made with. */
  options(): TlsOptions {
    const { clientCaFile, clientCertificates } = this.settings;
    return {
      ...this.#read(), minVersion: 'TLSv1.2',
      // An optional certificate that is presented is still verified: what came of it is asked with each request.
      ...(clientCaFile === undefined ? {} : { requestCert: true, rejectUnauthorized: clientCertificates === 'required' }),
    };
  }

  /** From now on, renewed files are taken for new connections, and revocations for all of them. */
  watch(server: Server): void {
    this.#timer = setInterval(() => this.#look(server), LOOK_MS);
    this.#timer.unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(server: Server): void {
    try {
      const versions = this.#currentVersions();
      if (versions === this.#versions) return;
      server.setSecureContext(this.#read());
      this.#versions = versions;
      this.logger.info('tls: renewed files are in use');
    } catch (error) {
      this.logger.error({ err: error }, 'tls: a renewed file cannot be used; the ones before stay in use');
    }
  }

  #read(): SecureContextOptions {
    const { certFile, keyFile, clientCaFile, clientCrlFile, groups } = this.settings;
    const crl = clientCrlFile === undefined ? undefined : readFileSync(clientCrlFile, 'utf8');
    assertReadable(this.settings);
    const context: SecureContextOptions = {
      cert: readFileSync(certFile), key: readFileSync(keyFile),
      ...(clientCaFile === undefined ? {} : { ca: readFileSync(clientCaFile) }), ...(crl === undefined ? {} : { crl }), ...(groups.length === 0 ? {} : { ecdhCurve: groups.join(':') }),
    };
    createSecureContext(context);
    this.revoked.use(crl);
    return context;
  }

  #currentVersions(): string {
    const { certFile, keyFile, clientCaFile, clientCrlFile } = this.settings;
    return [certFile, keyFile, clientCaFile, clientCrlFile].map((path) => (path === undefined ? '' : `${statSync(path).mtimeMs}/${statSync(path).size}`)).join();
  }
}

/** OpenSSL says what is wrong, but not where. */
function assertReadable({ certFile, keyFile, clientCaFile, groups }: TlsSettings): void {
  const check = (setting: string, fault: string, read: () => unknown): void => {
    try {
      read();
    } catch (cause) {
      throw new Error(`${setting}: ${fault}`, { cause });
    }
  };
  check('TLS_CERT', 'no certificate in PEM can be read from the file', () => new X509Certificate(readFileSync(certFile)));
  check('TLS_KEY', 'no private key in PEM can be read from the file', () => createPrivateKey(readFileSync(keyFile)));
  if (!new X509Certificate(readFileSync(certFile)).checkPrivateKey(createPrivateKey(readFileSync(keyFile)))) throw new Error('TLS_CERT, TLS_KEY: the key is not that of the certificate');
  if (clientCaFile !== undefined) check('TLS_CLIENT_CA', 'no certificate in PEM can be read from the file', () => new X509Certificate(readFileSync(clientCaFile)));
  if (groups.length > 0) check('TLS_GROUPS', `OpenSSL does not know all of ${groups.join(', ')}`, () => createSecureContext({ ecdhCurve: groups.join(':') }));
}
