import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';
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
  /** Whether any byte of the provider's answer is on its way to the caller, so that no other attempt may begin anew. */
  readonly written: boolean;
  /** Before each attempt: what an earlier one brought is forgotten. */
  restart(): void;
  write(bytes: Buffer): void;
  /** Called once the call is settled and recorded. */
  finish(tail: Buffer, headers: Readonly<Record<string, string>>, usage: unknown): void;
  fail(error: GatewayError): void;
  /** Stops its clocks. Must be called where it is neither finished nor failed. */
  abandon(): void;
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
    /** Turns the provider's frames into those that the caller's endpoint has; undefined where they are the same. */
    private readonly translate?: (frames: Buffer) => Buffer,
  ) {
    this.#raw = reply.raw;
    this.#keepAlive = setTimeout(() => this.#comment(), KEEP_ALIVE_MS);
    this.#raw.once('close', () => this.#end());
  }

  restart(): void {
    // Nothing to forget: an attempt that wrote anything has no successor.
  }

  write(bytes: Buffer): void {
    if (this.#over) return;
    this.written = true;
    this.#begin();
    this.#keepAlive.refresh();
    if (this.#raw.write(this.translate === undefined ? bytes : this.translate(bytes))) return;
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
    this.#raw.end(this.translate === undefined ? tail : this.translate(tail));
  }

  /** After the first byte an error can only be a frame of the stream: then the connection closes, without `[DONE]`. */
  fail(error: GatewayError): void {
    if (this.#over) return;
    this.#end();
    this.#raw.end(`data: ${JSON.stringify(errorBody(error))}\n\n`, () => this.#raw.socket?.destroySoon());
  }

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

/** Puts frames together into the object that a caller gets who did not ask for a stream. */
export interface Assembly {
  push(frames: Buffer): void;
  finish(usage: unknown): Record<string, unknown>;
}

/** Collects the stream and answers with one JSON object. */
export class PlainAnswer implements CompletionAnswer {
  readonly begun = false;
  readonly written = false;
  #assembly: Assembly;

  constructor(
    private readonly reply: FastifyReply,
    private readonly newAssembly: () => Assembly,
  ) {
    this.#assembly = newAssembly();
  }

  restart(): void {
    this.#assembly = this.newAssembly();
  }

  write(bytes: Buffer): void {
    this.#assembly.push(bytes);
  }

  finish(tail: Buffer, headers: Readonly<Record<string, string>>, usage: unknown): void {
    this.#assembly.push(tail);
    sendJson(this.reply, headers, Buffer.from(JSON.stringify(this.#assembly.finish(usage))));
  }

  fail(error: GatewayError): void {
    throw error; // nothing has gone out, so the error filter answers
  }

  abandon(): void {
    // It has no clocks.
  }
}

/** Answers with the provider's own JSON, which its reader holds back until the call is settled. */
export class JsonAnswer implements CompletionAnswer {
  readonly begun = false;
  readonly written = false;

  constructor(private readonly reply: FastifyReply) {}

  restart(): void {
    // It keeps nothing.
  }

  write(): void {
    throw new Error('an answer of one object has no part to write');
  }

  finish(tail: Buffer, headers: Readonly<Record<string, string>>): void {
    sendJson(this.reply, headers, tail);
  }

  fail(error: GatewayError): void {
    throw error;
  }

  abandon(): void {
    // It has no clocks.
  }
}

/** Sends an answer that was given before. */
export function sendAgain(reply: FastifyReply, status: number, headers: Readonly<Record<string, string>>, mediaType: string, body: Buffer): void {
  reply.hijack();
  reply.raw.writeHead(status, { ...(reply.getHeaders() as Record<string, string>), ...headers, 'content-type': `${mediaType}; charset=utf-8`, 'content-length': body.length });
  reply.raw.end(body);
}

/** An answer that is one JSON object already. */
export class JsonWhole implements Assembly {
  #whole: Buffer = Buffer.alloc(0);

  push(bytes: Buffer): void {
    this.#whole = bytes;
  }

  finish(): Record<string, unknown> {
    return JSON.parse(this.#whole.toString()) as Record<string, unknown>;
  }
}

function sendJson(reply: FastifyReply, headers: Readonly<Record<string, string>>, body: Buffer): void {
  reply.hijack();
  reply.raw.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), ...headers, 'content-type': 'application/json; charset=utf-8', 'content-length': body.length });
  reply.raw.end(body);
}
