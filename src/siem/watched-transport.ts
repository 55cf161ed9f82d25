import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** A TCP connection as TLS uses it, whose incoming bytes someone looks at on their way. */
export class WatchedTransport extends Duplex {
  constructor(
    private readonly socket: Socket,
    watch: (bytes: Buffer) => void,
  ) {
    super({ allowHalfOpen: true });
    socket.on('data', (bytes: Buffer) => {
      watch(bytes);
      if (!this.push(bytes)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    this.on('error', () => {}); // TLS hears of it too
    socket.on('close', () => this.destroy());
  }

  override _read(): void {
    this.socket.resume();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.socket.write(bytes, callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    if (this.socket.writableEnded) callback(); // the peer has ended, and so did the socket by itself
    else this.socket.end(callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.socket.destroy();
    callback(error);
  }
}
