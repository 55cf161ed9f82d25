import type { IncomingMessage } from 'node:http';
import type { TLSSocket } from 'node:tls';
import { blockedKey, mtlsOnly, noCredentials, unauthenticatedKey, wrongCertificate, wrongKey } from './emulated-errors.ts';
import type { EmulatorTls } from './emulated-server.ts';
import type { EmulatorSwitches } from './emulated-switches.ts';

/** Who may come in: by certificate on the mutual-TLS host, then by key. */
export class Gate {
  private readonly apiKeys: ReadonlySet<string>;
  private readonly tls: EmulatorTls | undefined;
  private readonly switches: Readonly<EmulatorSwitches>;

  constructor(apiKeys: readonly string[], tls: EmulatorTls | undefined, switches: Readonly<EmulatorSwitches>) {
    this.apiKeys = new Set(apiKeys);
    this.tls = tls;
    this.switches = switches;
  }

  /** @throws EmulatedRefusal 401 without a bearer key; 400 with a wrong one, but 401 where a certificate is asked for; 403 for what is known and not allowed */
  apiKeyOf(request: IncomingMessage): string {
    const apiKey = this.keyOf(request);
    if (this.isBlocked(apiKey)) throw blockedKey();
    return apiKey;
  }

  /** The same for questions about the key itself, which a blocked one may ask too. */
  keyOf({ headers, socket }: IncomingMessage): string {
    if (this.tls !== undefined && !isTrusted(socket as TLSSocket, this.tls)) throw wrongCertificate();
    const apiKey = /^Bearer\s+(\S+)$/i.exec(headers.authorization ?? '')?.[1];
    if (apiKey === undefined) throw noCredentials();
    if (!this.apiKeys.has(apiKey)) throw this.tls === undefined ? wrongKey() : unauthenticatedKey();
    if (this.tls === undefined && this.switches.mtlsRequired) throw mtlsOnly();
    return apiKey;
  }

  isBlocked(apiKey: string): boolean {
    return this.switches.blockedKeys.includes(apiKey);
  }
}

function isTrusted(socket: TLSSocket, { clientCn }: EmulatorTls): boolean {
  return socket.authorized && (clientCn === undefined || socket.getPeerCertificate().subject.CN === clientCn);
}
