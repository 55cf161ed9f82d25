import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
import { ChatAssembly } from '../provider/chat-assembly.ts';
import { errorBody, type GatewayError } from '../shared/gateway-error.ts';

/** Silence towards the caller after which a comment keeps the connection alive, and opens a stream that has not begun. */
const KEEP_ALIVE_MS = 15_000;
/** A reader that takes nothing for so long is cut. */
const READER_SILENCE_MS = 60_000;
const COMMENT = ': keep-alive\n\n';

/** How an answer reaches its caller; the pipeline does not care which way. */
export interface CompletionAnswer {
  /** Whether anything went out, so that an error can only travel inside the stream. */
  readonly begun: boolean;
  /** Whether any byte of the provider's answer was taken, so that no other attempt may begin anew. */
  readonly written: boolean;
  write(bytes: Buffer): void;
  /** Called once the call is settled and recorded. */
  finish(tail: Buffer, headers: Readonly<Record<string, string>>, usage: unknown): void;
  fail(error: GatewayError): void;
}

export interface Flow {
  pause(): void;
  resume(): void;
  /** The caller reads too slowly to be waited for. */
  cut(): void;
}

/** Passes the provider's bytes on as they come, holding the provider back when the caller is slow. */
export class StreamedAnswer implements CompletionAnswer {
  begun = false;
  written = false;
  readonly #raw: ServerResponse;
  #keepAlive: NodeJS.Timeout;
  #stalled: NodeJS.Timeout | undefined;
  #over = false;

  constructor(
    private readonly reply: FastifyReply,
    private readonly flow: Flow,
    private readonly headers: () => Readonly<Record<string, string>>,
  ) {
    this.#raw = reply.raw;
    this.#keepAlive = setTimeout(() => this.#comment(), KEEP_ALIVE_MS);
    this.#raw.once('close', () => this.#end());
  }

  write(bytes: Buffer): void {
    if (this.#over) return;
    this.written = true;
    this.#begin();
    this.#keepAlive.refresh();
    if (this.#raw.write(bytes)) return;
    if (this.#stalled !== undefined) return;
    this.flow.pause();
    this.#stalled = setTimeout(() => this.flow.cut(), READER_SILENCE_MS);
    this.#raw.once('drain', () => {
      clearTimeout(this.#stalled);
      this.#stalled = undefined;
      this.flow.resume();
    });
  }

  finish(tail: Buffer): void {
    if (this.#over) return;
    this.#begin();
    this.#end();
    this.#raw.end(tail);
  }

  /** After the first byte an error can only be a frame of the stream: then the connection closes, without `[DONE]`. */
  fail(error: GatewayError): void {
    if (this.#over) return;
    this.#end();
    this.#raw.end(`data: ${JSON.stringify(errorBody(error))}\n\n`, () => this.#raw.socket?.destroySoon());
  }

  /** Stops the clocks. Must be called where the answer is neither finished nor failed here. */
  abandon(): void {
    this.#end();
  }

  #begin(): void {
    if (this.begun) return;
    this.begun = true;
    this.reply.hijack();
    this.#raw.writeHead(200, { ...(this.reply.getHeaders() as Record<string, string>), ...this.headers(), 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache', 'x-accel-buffering': 'no' });
  }

  #comment(): void {
    if (this.#over) return;
    this.#begin();
    if (this.#stalled === undefined) this.#raw.write(COMMENT);
    this.#keepAlive.refresh();
  }

  #end(): void {
    this.#over = true;
    clearTimeout(this.#keepAlive);
    clearTimeout(this.#stalled);
  }
}

/** Collects the stream and answers with one JSON object. */
export class PlainAnswer implements CompletionAnswer {
  readonly begun = false;
  written = false;
  readonly #assembly = new ChatAssembly();

  constructor(private readonly reply: FastifyReply) {}

  write(bytes: Buffer): void {
    this.written = true;
    this.#assembly.push(bytes);
  }

  finish(tail: Buffer, headers: Readonly<Record<string, string>>, usage: unknown): void {
    this.#assembly.push(tail);
    const text = JSON.stringify(this.#assembly.finish(usage));
    this.reply.hijack();
    const body = Buffer.from(text);
    this.reply.raw.writeHead(200, { ...(this.reply.getHeaders() as Record<string, string>), ...headers, 'content-type': 'application/json; charset=utf-8', 'content-length': body.length });
    this.reply.raw.end(body);
  }

  fail(error: GatewayError): void {
    throw error; // nothing has gone out, so the error filter answers
  }
}
