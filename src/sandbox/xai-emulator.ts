import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { openBody, sendWhole } from './emulated-body.ts';
import { serveCall, type Endpoint } from './emulated-call.ts';
import { CallLedger, type EmulatedCall } from './emulated-calls.ts';
import { catalogueOf, type Catalogue, type EmulatorRegion } from './emulated-catalogue.ts';
import { chat } from './emulated-chat.ts';
import { completeText } from './emulated-completions.ts';
import { controlRoutes } from './emulated-control.ts';
import { DeferredStore } from './emulated-deferred.ts';
import { embed, embeddingModel, embeddingModelEntry, type EmulatedEmbeddingModel } from './emulated-embeddings.ts';
import { EmulatedRefusal, unknownModel, type ErrorDialect } from './emulated-errors.ts';
import { FaultRules, type EmulatorFault } from './emulated-faults.ts';
import { Gate } from './emulated-gate.ts';
import { readBody, sendJson, sendRefusal } from './emulated-http.ts';
import { drawImages, EMULATED_IMAGE_MODELS, imageModel, imageModelEntry, PNG, type EmulatedImageModel } from './emulated-images.ts';
import { describeCaller, describeKey } from './emulated-keys.ts';
import { RateLimiter } from './emulated-limits.ts';
import { languageModelEntry, modelEntry, type EmulatedModel } from './emulated-models.ts';
import { Caller, NO_PACE, Ticker, type EmulatorPace } from './emulated-pace.ts';
import { PromptCache } from './emulated-prompt.ts';
import { playDisturbance } from './emulated-refusal.ts';
import { ResponseStore } from './emulated-response-store.ts';
import { deleteResponse, listInputItems, respond, storedResponse } from './emulated-responses.ts';
import { findHandler, namedIn, type Handler, type Routes } from './emulated-routes.ts';
import { startServer, type EmulatorTls } from './emulated-server.ts';
import type { EmulatorService } from './emulated-service.ts';
import { SWITCHED_OFF, type EmulatorSwitches } from './emulated-switches.ts';
import { tokenize } from './emulated-tokenize.ts';

// A stand-in for api.x.ai that speaks HTTP, for the sandbox, tests and benchmarks. It follows what is known of the real service in
// October 2026: shapes, statuses, wording and prices. What it says is filler. Single calls can be scripted (emulated-script.ts).

export type { EmulatedCall } from './emulated-calls.ts';
export type { EmulatorRegion } from './emulated-catalogue.ts';
export type { EmulatedEmbeddingModel } from './emulated-embeddings.ts';
export type { EmulatorFault } from './emulated-faults.ts';
export type { EmulatorPace } from './emulated-pace.ts';
export type { EmulatorScript } from './emulated-script.ts';
export type { EmulatorTls } from './emulated-server.ts';
export type { EmulatorSwitches } from './emulated-switches.ts';

export interface EmulatorOptions extends Partial<EmulatorSwitches> {
  apiKeys: readonly string[];
  /** 127.0.0.1 */
  host?: string;
  /** 0: any free one */
  port?: number;
  /** Makes it a mutual-TLS host. */
  tls?: EmulatorTls;
  /** 'us': few models, for more money */
  region?: EmulatorRegion;
  /** None: what is listed today is none. */
  embeddingModels?: readonly EmulatedEmbeddingModel[];
  /** As fast as it can. */
  pace?: EmulatorPace;
  random?: () => number;
  /** For time stamps, limits, and how long things are kept; the pace keeps real time. */
  nowMs?: () => number;
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
  /** Scripts for calls that carry none, in place of those set before. */
  setFaults(faults: readonly EmulatorFault[]): void;
  setSwitches(switches: Partial<EmulatorSwitches>): void;
  /** Forgets calls, totals, prompt caches, stored and deferred answers, and what counts toward rate limits. Calls still running are not counted any more. */
  reset(): void;
  close(): Promise<void>;
}

const CALLS_KEPT = 20_000;

export async function startXaiEmulator(options: EmulatorOptions): Promise<XaiEmulator> {
  const emulator = new Emulator(options);
  const { host = '127.0.0.1', port = 0, tls } = options;
  const server = await startServer(host, port, tls, (request, response) => void emulator.serve(request, response));
  emulator.origin = server.origin;
  return {
    url: `${server.origin}/v1`,
    get calls() {
      return emulator.ledger.list();
    },
    billedUsdTicks: () => emulator.ledger.totals().billedUsdTicks,
    setFaults: (faults) => emulator.faults.set(faults),
    setSwitches: (switches) => Object.assign(emulator.switches, switches),
    reset: () => emulator.reset(),
    close: async () => {
      await server.close();
      emulator.ticker.stop();
    },
  };
}

class Emulator implements EmulatorService {
  ledger: CallLedger;
  readonly cache = new PromptCache();
  readonly faults = new FaultRules();
  readonly ticker = new Ticker();
  readonly catalogue: Catalogue;
  readonly imageModels: readonly EmulatedImageModel[];
  readonly embeddingModels: readonly EmulatedEmbeddingModel[];
  readonly responses: ResponseStore;
  readonly deferred: DeferredStore;
  origin = '';
  readonly limits: RateLimiter;
  readonly pace: EmulatorPace;
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly switches: EmulatorSwitches;
  readonly dialect: ErrorDialect;
  private readonly gate: Gate;
  private readonly callsKept: number;
  private readonly startedAt: string;

  constructor(options: EmulatorOptions) {
    this.callsKept = options.logRequestsMax ?? CALLS_KEPT;
    this.ledger = new CallLedger(this.callsKept);
    this.pace = { ...(options.pace ?? NO_PACE) };
    this.random = options.random ?? Math.random;
    this.nowMs = options.nowMs ?? Date.now;
    this.switches = switchesOf(options);
    this.catalogue = catalogueOf(options.region ?? 'global');
    this.imageModels = options.region === 'us' ? [] : EMULATED_IMAGE_MODELS;
    this.embeddingModels = options.embeddingModels ?? [];
    this.deferred = new DeferredStore(this.nowMs);
    this.responses = new ResponseStore(this.nowMs);
    this.limits = new RateLimiter(this.nowMs);
    this.dialect = options.errorDialect ?? 'kebab';
    this.gate = new Gate(options.apiKeys, options.tls, this.switches);
    this.startedAt = new Date(this.nowMs()).toISOString().replace('Z', '000Z');
  }

  reset(): void {
    this.ledger = new CallLedger(this.callsKept);
    this.cache.clear();
    this.responses.clear();
    this.deferred.clear();
    this.limits.clear();
  }

  private readonly routes: Routes = {
    '/v1/chat/completions': { POST: this.billed(chat) },
    '/v1/responses': { POST: this.billed(respond) },
    '/v1/responses/*': {
      GET: this.lookUp((path) => storedResponse(this.responses, namedIn(path))),
      DELETE: this.lookUp((path) => deleteResponse(this.responses, namedIn(path))),
    },
    '/v1/responses/*/input_items': { GET: this.lookUp((path, query) => listInputItems(this.responses, namedIn(path), query)) },
    '/v1/chat/deferred-completion/*': { GET: this.lookUp((path) => this.deferred.take(namedIn(path))) },
    '/v1/completions': { POST: this.billed(completeText) },
    '/v1/images/generations': { POST: this.billed(drawImages) },
    '/v1/embeddings': { POST: this.billed(embed) },
    '/v1/tokenize-text': { POST: this.billed(tokenize) },
    '/v1/models': { GET: this.lookUp(() => ({ object: 'list', data: this.catalogue.models.map(modelEntry) })) },
    '/v1/models/*': { GET: this.lookUp((path) => modelEntry(this.modelAt(path))) },
    '/v1/language-models': { GET: this.lookUp(() => ({ models: this.catalogue.models.map(languageModelEntry) })) },
    '/v1/language-models/*': { GET: this.lookUp((path) => languageModelEntry(this.modelAt(path))) },
    '/v1/image-generation-models': { GET: this.lookUp(() => ({ models: this.imageModels.map(imageModelEntry) })) },
    '/v1/image-generation-models/*': { GET: this.lookUp((path) => imageModelEntry(imageModel(this.imageModels, namedIn(path)))) },
    '/v1/embedding-models': { GET: this.lookUp(() => ({ models: this.embeddingModels.map(embeddingModelEntry) })) },
    '/v1/embedding-models/*': { GET: this.lookUp((path) => embeddingModelEntry(embeddingModel(this.embeddingModels, namedIn(path)))) },
    '/v1/api-key': { GET: (request, response) => {
      const apiKey = this.gate.keyOf(request);
      sendJson(response, 200, describeKey(apiKey, this.startedAt, this.gate.isBlocked(apiKey)));
    } },
    '/v1/me': { GET: (request, response) => {
      const apiKey = this.gate.keyOf(request);
      sendJson(response, 200, describeCaller(apiKey, this.switches.zeroDataRetention, this.gate.isBlocked(apiKey)));
    } },
    '/__emulator/images/*': { GET: (_, response) => void response.writeHead(200, { 'content-type': 'image/png', 'content-length': PNG.length }).end(PNG) },
    ...controlRoutes(this),
  };

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {}); // a write after the caller has gone; Caller has seen it
    response.setHeader('x-request-id', randomUUID());
    response.setHeader('x-zero-data-retention', String(this.switches.zeroDataRetention));
    const [path = '', query] = (request.url ?? '').split('?', 2);
    try {
      await findHandler(this.routes, path, request.method)(request, response, path, new URLSearchParams(query));
    } catch (error) {
      if (response.headersSent) response.destroy();
      else if (error instanceof EmulatedRefusal) sendRefusal(response, error, this.dialect);
      else sendJson(response, 500, { code: 'emulator-fault', error: error instanceof Error ? error.stack : String(error) });
    }
  }

  private billed(endpoint: Endpoint): Handler {
    return async (request, response, path) => {
      const { headers } = request;
      const body = await readBody(request);
      const requestId = String(response.getHeader('x-request-id'));
      await serveCall(this, { path, headers, body, requestId, authenticate: () => this.gate.apiKeyOf(request) }, response, endpoint);
    };
  }

  /** For what is neither billed nor in the books, but has its faults too. Without an answer yet: 202 and nothing. */
  private lookUp(answer: (path: string, query: URLSearchParams) => unknown): Handler {
    return async (request, response, path, query) => {
      this.gate.apiKeyOf(request);
      const script = this.faults.takeNamed(path) ?? {};
      const caller = new Caller(response, this.ticker);
      const body = openBody(response, caller, script, request.headers['accept-encoding']);
      if (await playDisturbance(script, { caller, startedMs: performance.now(), response, body, dialect: this.dialect })) return;
      const found = answer(path, query);
      if (found === undefined) response.writeHead(202, { 'content-length': 0 }).end();
      else await sendWhole(body, 200, 'application/json', JSON.stringify(found));
    };
  }

  private modelAt(path: string): EmulatedModel {
    const found = this.catalogue.resolve(namedIn(path));
    if (found === undefined) throw unknownModel(namedIn(path));
    return found.model;
  }
}

function switchesOf(options: EmulatorOptions): EmulatorSwitches {
  const given = Object.keys(SWITCHED_OFF).filter((name) => options[name as keyof EmulatorSwitches] !== undefined);
  return { ...SWITCHED_OFF, ...Object.fromEntries(given.map((name) => [name, options[name as keyof EmulatorSwitches]])) };
}
