import type { AddressInfo, Socket } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import type { IssuedCertificate } from '../support/pki.ts';

/** One message, taken apart by RFC 5424. */
export interface SyslogMessage {
  priority: number;
  timestamp: string;
  host: string;
  app: string;
  processId: string;
  messageId: string;
  data: Record<string, string>;
  message: string;
}

export interface SyslogReceiver {
  port: number;
  connections: number;
  messages: SyslogMessage[];
  /** Called with each connection; for receivers that misbehave. */
  onConnection: ((socket: TLSSocket) => void) | undefined;
  /** Called with each message as it arrives. */
  onMessage: ((socket: TLSSocket, count: number) => void) | undefined;
  close(): Promise<void>;
}

const MESSAGE = /^<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) \[(\S+?)((?: \w+="(?:\\.|[^"\\\]])*")*)\] ([^]*)$/u;

export function parseMessage(text: string): SyslogMessage {
  const [, priority, timestamp, host, app, processId, messageId, , parameters, message] = MESSAGE.exec(text) ?? [];
  if (priority === undefined) throw new Error(`no message of RFC 5424: ${text.slice(0, 200)}`);
  const data = Object.fromEntries([...parameters!.matchAll(/ (\w+)="((?:\\.|[^"\\\]])*)"/gu)].map(([, name, value]) => [name!, value!.replaceAll(/\\(["\\\]])/g, '$1')]));
  return { priority: Number(priority), timestamp: timestamp!, host: host!, app: app!, processId: processId!, messageId: messageId!, data, message: message! };
}

/** A real receiver of syslog over TLS: frames of RFC 5425, each with its length in front. */
export async function startSyslogReceiver({ cert, key }: IssuedCertificate, maxVersion: 'TLSv1.2' | 'TLSv1.3' = 'TLSv1.3'): Promise<SyslogReceiver> {
  const server = createServer({ cert, key, maxVersion });
  const sockets = new Set<Socket>();
  const receiver: SyslogReceiver = {
    port: 0, connections: 0, messages: [], onConnection: undefined, onMessage: undefined,
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    }),
  };
  // Also those whose handshake never ends: a server is closed only when all are gone.
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', () => {}); // callers that do not trust it
  server.on('secureConnection', (socket) => {
    sockets.add(socket);
    receiver.connections += 1;
    let [rest, count] = [Buffer.alloc(0), 0];
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    receiver.onConnection?.(socket);
    socket.on('data', (bytes: Buffer) => {
      rest = Buffer.concat([rest, bytes]);
      for (;;) {
        const space = rest.indexOf(' ');
        const length = space === -1 ? Number.NaN : Number(rest.subarray(0, space).toString());
        if (Number.isNaN(length) || rest.length < space + 1 + length || socket.destroyed) return;
        receiver.messages.push(parseMessage(rest.subarray(space + 1, space + 1 + length).toString()));
        rest = rest.subarray(space + 1 + length);
        receiver.onMessage?.(socket, (count += 1));
      }
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  receiver.port = (server.address() as AddressInfo).port;
  return receiver;
}
