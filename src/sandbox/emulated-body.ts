import type { ServerResponse } from 'node:http';
import { createGzip, type Gzip } from 'node:zlib';
import { cutConnection, type Caller } from './emulated-pace.ts';
import type { EmulatorScript } from './emulated-script.ts';

/** The way of an answer's text to the caller, where scripts about bytes take effect. */
export interface AnswerBody {
  /** Each frame has to be written by itself. */
  readonly framewise: boolean;
  /** How many bytes may still be written before the script cuts the connection. */
  readonly roomBytes: number;
  begin(status: number, headers: Readonly<Record<string, string | number>>): void;
  /** The headers leave, though nothing follows yet. */
  flushHeaders(): void;
  /** What to wait for before going on, if the caller does not keep up. */
  write(text: string): Promise<void> | undefined;
  end(text: string): void;
  /** Ends the connection, not the answer, after this. */
  breakOff(text: string): Promise<void>;
}

export function openBody(response: ServerResponse, caller: Caller, script: EmulatorScript, acceptEncoding: unknown): AnswerBody {
  const gzip = script.gzip === 'force' || (script.gzip === true && /\bgzip\b/i.test(String(acceptEncoding)));
  const { chunk_bytes: pieceBytes, cut_after_bytes: cutAfterBytes, no_final_newline: bare, unsolicited } = script;
  const scripted = gzip || pieceBytes !== undefined || cutAfterBytes !== undefined || bare || unsolicited;
  return scripted ? new ScriptedBody(response, caller, script, gzip) : new DirectBody(response, caller);
}

/** A whole answer at once, as far as the connection lasts. */
export async function sendWhole(body: AnswerBody, status: number, contentType: string, text: string): Promise<void> {
  const bytes = Buffer.byteLength(text);
  body.begin(status, { 'content-type': contentType, 'content-length': bytes });
  if (bytes > body.roomBytes) await body.breakOff(text);
  else body.end(text);
}

class DirectBody implements AnswerBody {
  readonly framewise = false;
  readonly roomBytes = Infinity;
  private readonly response: ServerResponse;
  private readonly caller: Caller;

  constructor(response: ServerResponse, caller: Caller) {
    this.response = response;
    this.caller = caller;
  }

  begin(status: number, headers: Readonly<Record<string, string | number>>): void {
    this.response.writeHead(status, headers);
  }

  flushHeaders(): void {
    this.response.flushHeaders();
  }

  write(text: string): Promise<void> | undefined {
    return this.response.write(text) ? undefined : this.caller.untilDrained();
  }

  end(text: string): void {
    this.response.end(text);
  }

  breakOff(text: string): Promise<void> {
    return cutConnection(this.response, text);
  }
}

/** Compresses, cuts into pieces, or ends early, as scripted. Bytes are counted before compression. */
class ScriptedBody implements AnswerBody {
  readonly framewise = true;
  roomBytes: number;
  private readonly response: ServerResponse;
  private readonly caller: Caller;
  private readonly script: EmulatorScript;
  private readonly gzip: Gzip | undefined;

  constructor(response: ServerResponse, caller: Caller, script: EmulatorScript, gzip: boolean) {
    this.response = response;
    this.caller = caller;
    this.script = script;
    this.roomBytes = script.cut_after_bytes ?? Infinity;
    this.gzip = gzip ? createGzip().on('data', (bytes: Buffer) => this.emit(bytes)) : undefined;
  }

  begin(status: number, { 'content-length': length, ...headers }: Readonly<Record<string, string | number>>): void {
    const known = this.gzip === undefined && this.script.chunk_bytes === undefined && length !== undefined; // else in HTTP chunks, one per piece
    this.response.writeHead(status, { ...headers, ...(known && { 'content-length': length }), ...(this.gzip && { 'content-encoding': 'gzip' }) });
  }

  flushHeaders(): void {
    this.response.flushHeaders();
  }

  async write(text: string): Promise<void> {
    this.roomBytes -= Buffer.byteLength(text);
    await this.push(Buffer.from(text));
    if (this.response.writableNeedDrain) await this.caller.untilDrained();
  }

  end(text: string): void {
    const { response, gzip } = this;
    const bytes = Buffer.from(this.script.no_final_newline ? text.replace(/[\r\n]+$/, '') : text);
    if (this.script.unsolicited) this.answerOnceMore();
    if (gzip === undefined) {
      this.emit(bytes);
      response.end();
    } else {
      gzip.once('end', () => response.end());
      gzip.end(bytes);
    }
  }

  async breakOff(text: string): Promise<void> {
    await this.push(Buffer.from(text).subarray(0, this.roomBytes));
    await cutConnection(this.response, '');
  }

  /** Resolves when all of it has been handed on, out of the compressor too. */
  private async push(bytes: Buffer): Promise<void> {
    const { gzip } = this;
    if (gzip === undefined) return this.emit(bytes);
    gzip.write(bytes);
    await new Promise<void>((resolve) => gzip.flush(() => setImmediate(resolve)));
  }

  private emit(bytes: Buffer): void {
    const pieceBytes = Math.max(1, this.script.chunk_bytes ?? bytes.length);
    for (let start = 0; start < bytes.length; start += pieceBytes) this.response.write(bytes.subarray(start, start + pieceBytes));
  }

  /** A second answer that nobody has asked for, on a connection that is idle by then. */
  private answerOnceMore(): void {
    const { socket } = this.response.req;
    const json = JSON.stringify({ unsolicited: true });
    const text = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`;
    this.response.once('finish', () => setImmediate(() => socket.writable && socket.write(text)));
  }
}
