import type { IncomingHttpHeaders } from 'node:http';
import type { CallLedger } from './emulated-calls.ts';
import type { Catalogue } from './emulated-catalogue.ts';
import type { DeferredStore } from './emulated-deferred.ts';
import type { EmulatedEmbeddingModel } from './emulated-embeddings.ts';
import type { ErrorDialect } from './emulated-errors.ts';
import type { FaultRules } from './emulated-faults.ts';
import type { EmulatedImageModel } from './emulated-images.ts';
import type { RateLimiter } from './emulated-limits.ts';
import type { EmulatorPace, Ticker } from './emulated-pace.ts';
import type { PromptCache } from './emulated-prompt.ts';
import type { ResponseStore } from './emulated-response-store.ts';
import type { EmulatorScript } from './emulated-script.ts';
import type { EmulatorSwitches } from './emulated-switches.ts';

/** What all calls to one emulator share. */
export interface EmulatorService {
  readonly ledger: CallLedger;
  readonly cache: PromptCache;
  readonly catalogue: Catalogue;
  readonly imageModels: readonly EmulatedImageModel[];
  readonly embeddingModels: readonly EmulatedEmbeddingModel[];
  readonly responses: ResponseStore;
  readonly deferred: DeferredStore;
  /** http://127.0.0.1:PORT */
  readonly origin: string;
  readonly ticker: Ticker;
  readonly pace: EmulatorPace;
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly faults: FaultRules;
  readonly limits: RateLimiter;
  readonly switches: Readonly<EmulatorSwitches>;
  readonly dialect: ErrorDialect;
}

/** A call as it has come in. */
export interface Arrival {
  /** Without the query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly requestId: string;
  /** @throws EmulatedRefusal when the credentials are missing or wrong */
  readonly authenticate: () => string;
}

export interface AnswerStamp {
  readonly id: string;
  readonly createdUnix: number;
}

/** What an endpoint knows when it reads a call. */
export interface CallContext {
  readonly service: EmulatorService;
  readonly headers: IncomingHttpHeaders;
  readonly apiKey: string;
  readonly stamp: AnswerStamp;
  readonly json: unknown;
  /**
   * Comes after all objections to the request itself, since it counts the request, and may use up a fault.
   *
   * @param promptTokens for the rate limit
   * @returns the call's script
   * @throws EmulatedRefusal when the team may not ask now
   */
  readonly admit: (modelId: string, promptTokens: number) => EmulatorScript;
}
