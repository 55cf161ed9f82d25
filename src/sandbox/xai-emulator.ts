import { createHash, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CallLedger, type EmulatedCall } from './emulated-calls.ts';
import { serveChat, type ChatService } from './emulated-chat.ts';
import { EmulatedRefusal, invalid, noCredentials, TEAM_ID, unknownModel, unknownPath, wrongKey, wrongMethod, type ErrorDialect } from './emulated-errors.ts';
import { readBody, sendJson, sendRefusal } from './emulated-http.ts';
import { EMULATED_MODELS, languageModelEntry, modelEntry, resolveModel, type EmulatedModel } from './emulated-models.ts';
import { NO_PACE, Ticker, type EmulatorPace } from './emulated-pace.ts';
import { PromptCache } from './emulated-prompt.ts';
import { fields, number } from './emulated-shape.ts';

// A stand-in for api.x.ai that speaks HTTP, for the sandbox, tests and benchmarks. It follows what is known of the real service in
// October 2026: shapes, statuses, wording and prices. What it says is filler. Single calls can be scripted (emulated-script.ts).

export type { EmulatedCall } from './emulated-calls.ts';
export type { EmulatorPace } from './emulated-pace.ts';
export type { EmulatorScript } from './emulated-script.ts';

export interface EmulatorOptions {
  apiKeys: readonly string[];
  /** 127.0.0.1 */
  host?: string;
  /** 0: any free one */
  port?: number;
  /** As fast as it can. */
  pace?: EmulatorPace;
  random?: () => number;
  /** For time stamps alone; the pace keeps real time. */
  nowMs?: () => number;
  /** Streams end with a usage chunk even without `stream_options.include_usage`. */
  usageWithoutAsking?: boolean;
  /** 'kebab', the newer one */
  errorDialect?: ErrorDialect;
  /** How many calls are kept for inspection, 20,000; totals cover all. */
  logRequestsMax?: number;
}

export interface XaiEmulator {
  /** With the version path: http://127.0.0.1:PORT/v1 */
  readonly url: string;
  /** Oldest first. */
  readonly calls: readonly EmulatedCall[];
  billedUsdTicks(): bigint;
  /** Forgets calls, totals and prompt caches. Calls still running are not counted any more. */
  reset(): void;
  close(): Promise<void>;
}

const CALLS_KEPT = 20_000;
/** Longer than any client keeps an idle connection, so that none is closed under a request. */
const KEEP_ALIVE_MS = 10 * 60_000;
const CONNECTIONS_WAITING_MAX = 4_096;

export async function startXaiEmulator(options: EmulatorOptions): Promise<XaiEmulator> {
  const emulator = new Emulator(options);
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => void emulator.serve(request, response));
  const host = options.host ?? '127.0.0.1';
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port: options.port ?? 0, backlog: CONNECTIONS_WAITING_MAX }, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}/v1`,
    get calls() {
      return emulator.ledger.list();
    },
    billedUsdTicks: () => emulator.ledger.totals().billedUsdTicks,
    reset: () => emulator.reset(),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      emulator.ticker.stop();
    },
  };
}

type Handler = (request: IncomingMessage, response: ServerResponse, path: string, query: URLSearchParams) => void | Promise<void>;

class Emulator implements ChatService {
  ledger: CallLedger;
  readonly cache = new PromptCache();
  readonly ticker = new Ticker();
  readonly pace: EmulatorPace;
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly usageWithoutAsking: boolean;
  readonly dialect: ErrorDialect;
  private readonly apiKeys: ReadonlySet<string>;
  private readonly callsKept: number;
  private readonly startedAt: string;

  constructor(options: EmulatorOptions) {
    this.callsKept = options.logRequestsMax ?? CALLS_KEPT;
    this.ledger = new CallLedger(this.callsKept);
    this.pace = { ...(options.pace ?? NO_PACE) };
    this.random = options.random ?? Math.random;
    this.nowMs = options.nowMs ?? Date.now;
    this.usageWithoutAsking = options.usageWithoutAsking ?? false;
    this.dialect = options.errorDialect ?? 'kebab';
    this.apiKeys = new Set(options.apiKeys);
    this.startedAt = new Date(this.nowMs()).toISOString().replace('Z', '000Z');
  }

  reset(): void {
    this.ledger = new CallLedger(this.callsKept);
    this.cache.clear();
  }

  /** Each route with its one method. */
  private readonly routes: Readonly<Record<string, readonly [method: string, handler: Handler]>> = {
    '/v1/chat/completions': ['POST', (request, response) => this.chat(request, response)],
    '/v1/models': ['GET', this.authenticated(() => ({ object: 'list', data: EMULATED_MODELS.map(modelEntry) }))],
    '/v1/models/*': ['GET', this.authenticated((path) => modelEntry(modelAt(path)))],
    '/v1/language-models': ['GET', this.authenticated(() => ({ models: EMULATED_MODELS.map(languageModelEntry) }))],
    '/v1/language-models/*': ['GET', this.authenticated((path) => languageModelEntry(modelAt(path)))],
    '/v1/api-key': ['GET', this.authenticated((_, apiKey) => this.describeKey(apiKey))],
    '/__emulator/bill': ['GET', (_, response) => this.sendBill(response)],
    '/__emulator/calls': ['GET', (_, response, __, query) => sendJson(response, 200, this.ledger.list(Number(query.get('since') ?? 0)))],
    '/__emulator/reset': ['POST', (_, response) => {
      this.reset();
      response.writeHead(204).end();
    }],
    '/__emulator/pace': ['PUT', (request, response) => this.setPace(request, response)],
  };

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {}); // a write after the caller has gone; Caller has seen it
    response.setHeader('x-request-id', randomUUID());
    response.setHeader('x-zero-data-retention', 'false');
    const [path = '', query] = (request.url ?? '').split('?', 2);
    try {
      const route = Object.hasOwn(this.routes, path) ? this.routes[path] : this.routes[path.replace(/[^/]+$/, '*')];
      if (route === undefined) throw unknownPath(path);
      const [method, handler] = route;
      if (request.method !== method) throw wrongMethod(request.method ?? '');
      await handler(request, response, path, new URLSearchParams(query));
    } catch (error) {
      if (response.headersSent) response.destroy();
      else if (error instanceof EmulatedRefusal) sendRefusal(response, error, this.dialect);
      else sendJson(response, 500, { code: 'emulator-fault', error: error instanceof Error ? error.stack : String(error) });
    }
  }

  private async chat(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { headers } = request;
    const body = await readBody(request);
    const requestId = String(response.getHeader('x-request-id'));
    await serveChat(this, { headers, body, requestId, authenticate: () => this.apiKeyOf(request) }, response);
  }

  private authenticated(answer: (path: string, apiKey: string) => unknown): Handler {
    return (request, response, path) => sendJson(response, 200, answer(path, this.apiKeyOf(request)));
  }

  /** @throws EmulatedRefusal 401 without a bearer key, 400 (as the real service does) with a wrong one */
  private apiKeyOf({ headers }: IncomingMessage): string {
    const apiKey = /^Bearer\s+(\S+)$/i.exec(headers.authorization ?? '')?.[1];
    if (apiKey === undefined) throw noCredentials();
    if (!this.apiKeys.has(apiKey)) throw wrongKey();
    return apiKey;
  }

  private describeKey(apiKey: string): unknown {
    const userId = uuidOf('user');
    return {
      redacted_api_key: `xai-...${apiKey.slice(-4)}`,
      user_id: userId,
      name: 'emulated',
      create_time: this.startedAt,
      modify_time: this.startedAt,
      modified_by: userId,
      team_id: TEAM_ID,
      acls: ['api-key:model:*', 'api-key:endpoint:*'],
      api_key_id: uuidOf(apiKey),
      team_blocked: false,
      api_key_blocked: false,
      api_key_disabled: false,
    };
  }

  private sendBill(response: ServerResponse): void {
    const { billedUsdTicks, ...counts } = this.ledger.totals();
    sendJson(response, 200, { ...counts, billed_usd_ticks: billedUsdTicks });
  }

  /** Calls that have begun keep their pace. */
  private async setPace(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body: unknown = JSON.parse((await readBody(request)).toString());
    fields({ first_token_ms: number, token_interval_ms: number, reasoning_token_ms: number })(body, '');
    const pace = body as { first_token_ms: number; token_interval_ms: number; reasoning_token_ms: number };
    if (Object.values(pace).some((ms) => ms < 0)) throw invalid('A pace is zero or more milliseconds.');
    Object.assign(this.pace, { firstTokenMs: pace.first_token_ms, tokenIntervalMs: pace.token_interval_ms, reasoningTokenMs: pace.reasoning_token_ms });
    response.writeHead(204).end();
  }
}

function modelAt(path: string): EmulatedModel {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const found = resolveModel(name);
  if (found === undefined) throw unknownModel(name);
  return found.model;
}

/** The same id for the same name, in the shape of a version 4 UUID. */
function uuidOf(name: string): string {
  const hex = createHash('sha256').update(name).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
