import { once } from 'node:events';
import { isIP, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { connect as secure, type TLSSocket } from 'node:tls';
import { createConnector, readPem } from '../egress/connector.ts';
import type { ExportEvent } from './export-event.ts';
import type { Sender, SenderContext } from './sender.ts';
import { ACKNOWLEDGED, retry, type Outcome, type SinkSettings } from './sink.ts';
import { syslogFrame } from './syslog-wire.ts';
import { parseTlsOrigin, type TlsOrigin } from './tls-origin.ts';
import { TlsRecords } from './tls-records.ts';
import { WatchedTransport } from './watched-transport.ts';
import { within } from './within.ts';

/**
 * Sends by syslog over TLS. The protocol has no acknowledgement, but it has an orderly end: each batch has a connection of its own, which we close with
 * close_notify behind the last frame; a receiver that answers with its own has read all that stood before. Anything else counts as not delivered.
 */
export class SyslogSender implements Sender {
  readonly #origin: TlsOrigin;
  readonly #connect: ReturnType<typeof createConnector>;

  constructor(
    private readonly sink: SinkSettings,
    private readonly context: SenderContext,
  ) {
    const { egress, limits } = context;
    this.#origin = parseTlsOrigin(sink.url)!; // checked when it was stored
    // Without a proxy: HTTPS_PROXY is for https.
    this.#connect = createConnector({
      connectTimeoutMs: limits.connectTimeoutMs, anyAddress: egress.allowedOrigins.includes(this.#origin.origin), tls: { cert: undefined, key: undefined, ca: undefined }, proxy: { url: undefined, noProxy: undefined },
    });
  }

  async send(events: readonly ExportEvent[], signal: AbortSignal): Promise<Outcome> {
    const { requestTimeoutMs, closeTimeoutMs } = this.context.limits;
    const socket = await this.#open(signal);
    const records = new TlsRecords();
    let connection: TLSSocket | undefined;
    try {
      connection = this.#secure(socket, records);
      const ended = once(connection, 'close'); // rejects where it ends in an error
      ended.catch(() => {}); // which is looked at where it matters
      await within(requestTimeoutMs, 'end of the writing', signal, (writing) => this.#write(connection!, events, ended, writing));
      // Who closes before we do has not read to the end.
      if (connection.readableEnded || connection.destroyed) return retry('the receiver closed the connection in the middle of a batch');
      connection.end();
      await within(closeTimeoutMs, 'orderly close by the receiver', signal, (closing) => Promise.race([ended, aborted(closing)]));
      return records.endedWithAlert ? ACKNOWLEDGED : retry('the receiver’s connection ended without close_notify, so that it may not have read all of it');
    } finally {
      connection?.destroy();
      socket.destroy();
    }
  }

  close(): Promise<void> {
    return Promise.resolve(); // each batch closed its own connection
  }

  /** TCP alone: TLS comes on top of it. Given up at once by the signal; a connection that comes later is closed. */
  #open(signal: AbortSignal): Promise<Socket> {
    const { host, port } = this.#origin;
    const hostname = isIP(host) === 6 ? `[${host}]` : host;
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(new Error('given up'));
      signal.addEventListener('abort', giveUp, { once: true });
      this.#connect({ protocol: 'http:', hostname: host, host: hostname, port: String(port) }, (error, socket) => {
        signal.removeEventListener('abort', giveUp);
        if (error) reject(error);
        else if (signal.aborted) {
          socket!.destroy();
          giveUp(); // it may have been so from the start
        } else resolve(socket as Socket);
      });
    });
  }

  #secure(socket: Socket, records: TlsRecords): TLSSocket {
    const { host } = this.#origin;
    const { ca } = this.sink;
    const connection: TLSSocket = secure({ socket: new WatchedTransport(socket, (bytes) => records.push(bytes)), host, ...(isIP(host) === 0 && { servername: host }), ...(ca !== undefined && { ca: readPem(ca) }) });
    connection.on('error', () => {}); // also one that comes when nobody waits for it any more
    return connection.resume(); // whatever it says is of no interest, but its end is
  }

  async #write(connection: TLSSocket, events: readonly ExportEvent[], ended: Promise<unknown>, signal: AbortSignal): Promise<void> {
    const over = Promise.race([ended, aborted(signal)]);
    if ((await Promise.race([once(connection, 'secureConnect').then(() => 'secure'), over])) !== 'secure') throw new Error('the receiver closed the connection before the handshake was over');
    const host = hostname();
    for (const event of events) {
      if (connection.readableEnded || connection.destroyed) return;
      if (!connection.write(syslogFrame(event, host, process.pid))) await Promise.race([once(connection, 'drain'), over]);
    }
  }
}

/** Rejects when the signal says so; what waits for it beside something else may be forgotten. */
function aborted(signal: AbortSignal): Promise<never> {
  const never = signal.aborted ? Promise.reject(signal.reason) : once(signal, 'abort').then(() => Promise.reject(signal.reason));
  never.catch(() => {}); // nobody may be waiting any more
  return never;
}
