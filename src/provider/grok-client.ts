import type { IncomingHttpHeaders } from 'node:http';
import type { Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { Agent, type Dispatcher } from 'undici';
import { ConnectTimeoutError, createConnector, type ConnectorOptions } from '../egress/connector.ts';
import { errorFromAnswer, timeoutError, transportError, type FailurePhase, type TimeoutKind } from './grok-errors.ts';

/** Where calls go, with which credential. */
export interface UpstreamTarget {
  /** Origin and version path, without a slash at the end. */
  baseUrl: string;
  /** Undefined for a server that takes none. */
  apiKey: string | undefined;
  apiVersion: string | undefined;
}

export interface UpstreamRequest {
  method: 'POST' | 'GET' | 'DELETE';
  /** Below the target's base URL, beginning with a slash. */
  path: string;
  body: Buffer | undefined;
  /** What a good answer is: a stream of server-sent events, or one JSON object. */
  accept: 'events' | 'json';
  /** Names the conversation, so that the provider finds the server with its cached prefix. */
  conversationId: string | undefined;
}

export interface UpstreamLimits {
  firstByteTimeoutMs: number;
  /** Silence between body bytes, once they began. */
  idleTimeoutMs: number;
  totalTimeoutMs: number;
  /** Whether the total is the caller's own deadline. */
  totalIsDeadline: boolean;
}

/** Facts of an answer that began well. */
export interface UpstreamHead {
  requestId: string | undefined;
  zeroDataRetention: string | undefined;
  /** Part of the provider's rate limit that is left, 0 to 1; undefined where it does not say. */
  quotaLeft: number | undefined;
}

/** Receives an answer as it comes. Exceptions thrown here abort the call. */
export interface UpstreamSink {
  onHead(head: UpstreamHead): void;
  onBytes(bytes: Buffer): void;
  /** Whether any output has come. Until then, silence is thinking. */
  readonly begun: boolean;
}

/** Handle on a call under way. */
export interface UpstreamCall {
  /** Resolves when the answer ended as HTTP ends, whatever it said; rejects with a `GrokApiError`, or the reason given to `abort`. */
  readonly ended: Promise<void>;
  /** False as long as no byte of the request can have reached the provider. */
  readonly sent: boolean;
  pause(): void;
  resume(): void;
  /** Closes the upstream socket. `ended` rejects with the reason. */
  abort(reason: Error): void;
}

const MEDIA_TYPES = { events: 'text/event-stream', json: 'application/json' } as const;
const ERROR_BODY_BYTES_MAX = 64 * 1024;
const KEEP_ALIVE_MS = 10_000;

/** Calls xAI, or a server that speaks as it does. Never follows a redirect. */
export class GrokClient {
  readonly #agent: Agent;
  readonly #origin: string;
  readonly #basePath: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** Key exchange group of the connection opened last; undefined without TLS. All of a deployment's come from the same settings. */
  tlsGroup: string | undefined;

  constructor(target: UpstreamTarget, options: ConnectorOptions) {
    const url = new URL(target.baseUrl);
    this.#origin = url.origin;
    this.#basePath = url.pathname.replace(/\/+$/, '');
    this.#headers = {
      'accept-encoding': 'identity',
      'user-agent': 'novix-gateway',
      ...(target.apiVersion === undefined ? {} : { 'x-api-version': target.apiVersion }),
      ...(target.apiKey === undefined ? {} : { authorization: `Bearer ${target.apiKey}` }),
    };
    // An unbounded pool: a bounded one makes streams wait for each other. Timeouts are kept here, per call.
    const onTlsGroup = (group: string | undefined): void => {
      this.tlsGroup = group;
      options.onTlsGroup?.(group);
    };
    this.#agent = new Agent({
      connect: createConnector({ ...options, onTlsGroup }), connections: null, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: KEEP_ALIVE_MS,
    });
  }

  send({ method, path, body, accept, conversationId }: UpstreamRequest, limits: UpstreamLimits, sink: UpstreamSink): UpstreamCall {
    const headers: Record<string, string> = { ...this.#headers, accept: MEDIA_TYPES[accept] };
    if (body !== undefined) headers['content-type'] = 'application/json';
    if (conversationId !== undefined) headers['x-grok-conv-id'] = conversationId;
    const exchange = new Exchange(limits, sink, MEDIA_TYPES[accept]);
    this.#agent.dispatch({ origin: this.#origin, path: `${this.#basePath}${path}`, method, headers, ...(body === undefined ? {} : { body }) }, exchange);
    return exchange;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}

/** One request and its answer, with its clocks. */
class Exchange implements Dispatcher.DispatchHandler, UpstreamCall {
  readonly ended: Promise<void>;
  sent = false;
  #settle!: { resolve: () => void; reject: (error: Error) => void };
  #over = false;
  #controller: Dispatcher.DispatchController | undefined;
  #phase: FailurePhase = 'connect';
  #status = 0;
  #headers: { requestId?: string; retryAfterSeconds?: number } = {};
  /** Collected only where the answer is not what was asked for. */
  #errorBody: Buffer[] | undefined;
  #errorBodyBytes = 0;
  #silence: NodeJS.Timeout;
  readonly #total: NodeJS.Timeout;
  #decoder: Transform | undefined;

  constructor(
    private readonly limits: UpstreamLimits,
    private readonly sink: UpstreamSink,
    private readonly mediaType: string,
  ) {
    this.ended = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#silence = setTimeout(() => this.#timeOut('first-byte'), limits.firstByteTimeoutMs);
    this.#total = setTimeout(() => this.#timeOut(limits.totalIsDeadline ? 'deadline' : 'total'), limits.totalTimeoutMs);
  }

  pause(): void {
    this.#controller?.pause();
    this.#decoder?.pause();
    clearTimeout(this.#silence); // silence that we caused ourselves is not the provider's
  }

  resume(): void {
    if (this.#over) return;
    this.#watchSilence(); // before: to resume may deliver the rest and end the call there and then
    this.#decoder?.resume();
    this.#controller?.resume();
  }

  abort(reason: Error): void {
    this.#finish(reason);
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) {
      controller.abort(new Error('aborted before it was sent'));
      return;
    }
    this.sent = true;
    this.#phase = 'before-answer';
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200 || this.#over) return;
    this.#status = status;
    this.#phase = 'answer';
    const retryAfter = Number(headers['retry-after']);
    this.#headers = {
      ...(typeof headers['x-request-id'] === 'string' ? { requestId: headers['x-request-id'] } : {}),
      ...(Number.isFinite(retryAfter) && retryAfter > 0 ? { retryAfterSeconds: retryAfter } : {}),
    };
    const encoding = String(headers['content-encoding'] ?? 'identity').toLowerCase();
    if (encoding !== 'identity') this.#decoder = this.#decode(encoding);
    if (status === 200 && String(headers['content-type'] ?? '').startsWith(this.mediaType)) {
      this.#guard(() => this.sink.onHead({ requestId: this.#headers.requestId, zeroDataRetention: asText(headers['x-zero-data-retention']), quotaLeft: quotaLeft(headers) }));
    } else {
      this.#errorBody = [];
    }
  }

  onResponseData(_controller: Dispatcher.DispatchController, bytes: Buffer): void {
    if (this.#over) return;
    if (this.#phase === 'mid-stream') this.#silence.refresh();
    if (this.#decoder === undefined) this.#deliver(bytes);
    else this.#decoder.write(bytes);
  }

  onResponseEnd(): void {
    if (this.#decoder === undefined) this.#complete();
    else this.#decoder.end();
  }

  #deliver(bytes: Buffer): void {
    if (this.#over) return;
    if (this.#errorBody === undefined) {
      this.#guard(() => this.sink.onBytes(bytes));
      if (this.#phase === 'answer' && this.sink.begun) this.#begin();
      return;
    }
    if (this.#phase === 'answer') this.#begin();
    this.#errorBodyBytes += bytes.length;
    if (this.#errorBodyBytes <= ERROR_BODY_BYTES_MAX) this.#errorBody.push(bytes);
  }

  /** We ask for no compression, but something in between may compress all the same. */
  #decode(encoding: string): Transform | undefined {
    const decoder = createDecoder(encoding);
    if (decoder === undefined) {
      this.abort(transportError(new Error(`an answer in the encoding ${encoding.slice(0, 32)}`), 'mid-stream'));
      return undefined;
    }
    decoder.on('data', (bytes: Buffer) => this.#deliver(bytes));
    decoder.on('end', () => this.#complete());
    decoder.on('error', (error) => this.abort(transportError(error, 'mid-stream')));
    return decoder;
  }

  #complete(): void {
    if (this.#errorBody === undefined) this.#finish();
    else this.#finish(errorFromAnswer(this.#status, Buffer.concat(this.#errorBody).toString(), this.#headers, 'answer'));
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (error instanceof ConnectTimeoutError) this.#finish(timeoutError('connect', 'connect'));
    else this.#finish(transportError(error, this.#phase));
  }

  #begin(): void {
    this.#phase = 'mid-stream';
    if (!this.#over) this.#watchSilence();
  }

  #watchSilence(): void {
    clearTimeout(this.#silence);
    if (this.#phase === 'mid-stream') this.#silence = setTimeout(() => this.#timeOut('idle'), this.limits.idleTimeoutMs);
    else this.#silence = setTimeout(() => this.#timeOut('first-byte'), this.limits.firstByteTimeoutMs);
  }

  #timeOut(kind: TimeoutKind): void {
    // Time spent on connecting is bounded by the connector; what is left of it counts as never sent.
    this.abort(timeoutError(this.sent || kind === 'deadline' ? kind : 'connect', this.#phase));
  }

  #guard(deliver: () => void): void {
    try {
      deliver();
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #finish(error?: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#decoder?.destroy();
    clearTimeout(this.#silence);
    clearTimeout(this.#total);
    if (error) this.#settle.reject(error);
    else this.#settle.resolve();
  }
}

function createDecoder(encoding: string): Transform | undefined {
  switch (encoding) {
    case 'gzip': case 'x-gzip': return createGunzip();
    case 'deflate': return createInflate();
    case 'br': return createBrotliDecompress();
    default: return undefined;
  }
}

/** The scarcer of requests and tokens. The provider may send none of these headers. */
function quotaLeft(headers: IncomingHttpHeaders): number | undefined {
  const parts = ['requests', 'tokens'].flatMap((kind) => {
    const [limit, remaining] = [Number(headers[`x-ratelimit-limit-${kind}`]), Number(headers[`x-ratelimit-remaining-${kind}`])];
    return limit > 0 && remaining >= 0 ? [Math.min(1, remaining / limit)] : [];
  });
  return parts.length === 0 ? undefined : Math.min(...parts);
}

function asText(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

