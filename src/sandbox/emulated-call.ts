import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { EmulatedAnswer } from './emulated-answer.ts';
import { openBody, type AnswerBody } from './emulated-body.ts';
import type { EmulatedCall, EndState } from './emulated-calls.ts';
import { deliverDeferred } from './emulated-deferred.ts';
import { deliverPlain, deliverStream, type Delivery } from './emulated-delivery.ts';
import { EmulatedRefusal, noCredits, notJson, unparsable } from './emulated-errors.ts';
import type { FrameSource } from './emulated-frames.ts';
import { sendRefusal } from './emulated-http.ts';
import { Caller, Schedule } from './emulated-pace.ts';
import { playRefusal } from './emulated-refusal.ts';
import { readScript, type EmulatorScript } from './emulated-script.ts';
import type { Arrival, CallContext, EmulatorService } from './emulated-service.ts';
import { isGiven, isObject } from './emulated-shape.ts';

/** How one endpoint reads its requests. @throws EmulatedRefusal the provider's first objection */
export type Endpoint = (context: CallContext) => Work;

/** What the provider is going to do for a valid request. */
export interface Work {
  /** Of the model that serves it. */
  readonly modelId: string;
  readonly script: EmulatorScript;
  readonly promptTokens: number;
  /** Answered with a promise; what is generated is fetched later. */
  readonly deferred?: boolean;
  /** Not called for a request that the script refuses. */
  readonly generate: () => Generation;
}

export interface Generation {
  readonly answer: EmulatedAnswer;
  /** The exact price of so many tokens of output, and of what has gone in. */
  readonly costTicks: (generated: GeneratedTokens) => bigint;
  readonly plainBody: () => string;
  /** Present when a stream was asked for. */
  readonly frames?: FrameSource;
  /** The output is not counted in tokens, so that an answer without any has its price even when its delivery fails. */
  readonly withoutTokens?: boolean;
  /** Called when the answer is complete, just before it leaves. */
  readonly completed?: () => void;
}

export type GeneratedTokens = Pick<EmulatedCall, 'completionTokens' | 'reasoningTokens'>;

/** The life of one call that may be billed. It is in the books from its arrival on, whatever becomes of it. */
export async function serveCall(service: EmulatorService, arrival: Arrival, response: ServerResponse, endpoint: Endpoint): Promise<void> {
  const { ledger, dialect, nowMs } = service; // the books of today: after a reset, a running call ends in the old ones
  const caller = new Caller(response, service.ticker);
  const arrivedMs = performance.now();
  const parsed = parseJson(arrival.body);
  const call = openCall(service, arrival, parsed);
  try {
    const context = contextOf(service, arrival, parsed, call, response);
    const work = endpoint(context);
    const { script } = work;
    call.model = work.modelId;
    const startedMs = arrivedMs + (script.delay_ms ?? 0);
    if (script.delay_ms !== undefined) await caller.until(startedMs);
    const body = openBody(response, caller, script, arrival.headers['accept-encoding']);
    if (caller.gone || (await playRefusal(script, { caller, startedMs, response, body, dialect }))) {
      return ledger.close(call, caller.gone ? 'aborted' : 'failed', 0n, nowMs());
    }
    call.promptTokens = work.promptTokens;
    await deliver(service, call, work, { body, caller, startedMs });
  } catch (error) {
    ledger.close(call, 'failed', 0n, nowMs());
    if (!(error instanceof EmulatedRefusal)) throw error;
    sendRefusal(response, error, dialect);
  }
}

function deliver(service: EmulatorService, call: EmulatedCall, { script, deferred, generate }: Work, way: { body: AnswerBody; caller: Caller; startedMs: number }): Promise<void> {
  const { ledger, limits, pace, nowMs } = service;
  const generation = generate();
  const { answer, plainBody, frames } = generation;
  const delivery: Delivery = {
    ...way, script, answer, call,
    schedule: new Schedule(pace, script, answer),
    close: (state) => {
      if (state === 'completed') generation.completed?.();
      limits.spend(call.model, call.completionTokens + call.reasoningTokens);
      ledger.close(call, state, billFor(state, call, script, generation), nowMs());
    },
  };
  if (deferred) return deliverDeferred(delivery, service.deferred, service.ticker, plainBody);
  return frames === undefined ? deliverPlain(delivery, plainBody) : deliverStream(delivery, frames);
}

type ParsedBody = { readonly json: unknown } | { readonly text: string; readonly fault: string };

function parseJson(bytes: Buffer): ParsedBody {
  const text = bytes.toString();
  try {
    return { json: JSON.parse(text) };
  } catch (error) {
    return { text, fault: error instanceof Error ? error.message : String(error) };
  }
}

function openCall(service: EmulatorService, { path, headers, requestId }: Arrival, parsed: ParsedBody): EmulatedCall {
  const body = 'json' in parsed ? parsed.json : parsed.text;
  const call: EmulatedCall = {
    id: randomUUID(),
    requestId,
    path,
    model: isObject(body) && typeof body['model'] === 'string' ? body['model'] : '',
    stream: isObject(body) && body['stream'] === true,
    body,
    headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])),
    startedAtMs: service.nowMs(),
    state: 'running',
    promptTokens: 0,
    completionTokens: 0,
    reasoningTokens: 0,
    billedUsdTicks: 0n,
    framesSent: 0,
  };
  service.ledger.open(call);
  return call;
}

/** @throws EmulatedRefusal what the provider refuses at any endpoint: credentials, a body that is no JSON; also a misspelled script */
function contextOf(service: EmulatorService, arrival: Arrival, parsed: ParsedBody, call: EmulatedCall, response: ServerResponse): CallContext {
  const apiKey = arrival.authenticate();
  const json = jsonOf(arrival, parsed);
  const own = isObject(json) && isGiven(json['x_emulator']) ? readScript(json['x_emulator']) : undefined;
  return {
    service, apiKey, json,
    headers: arrival.headers,
    stamp: { id: call.id, createdUnix: Math.floor(call.startedAtMs / 1000) },
    admit: (modelId, promptTokens) => {
      const { creditsExhausted, rateLimit } = service.switches;
      if (creditsExhausted) throw noCredits(creditsExhausted);
      if (rateLimit !== undefined) service.limits.admit(rateLimit, modelId, promptTokens, response);
      return own ?? service.faults.take(arrival.path, [call.model, modelId]) ?? {};
    },
  };
}

function jsonOf({ headers, body }: Arrival, parsed: ParsedBody): unknown {
  if (body.length === 0 || !/^application\/json\s*(;|$)/i.test(headers['content-type'] ?? '')) throw notJson();
  if (!('json' in parsed)) throw unparsable(parsed.fault);
  return parsed.json;
}

/** What the provider bills at the end. A failure costs nothing as long as there was no output; after that, what was generated. */
function billFor(state: EndState, call: EmulatedCall, { usage, cost_usd_ticks: costTicks }: EmulatorScript, generation: Generation): bigint {
  if (state === 'completed') return wholeTicks(usage?.['cost_in_usd_ticks']) ?? wholeTicks(costTicks) ?? generation.costTicks(call);
  return state === 'failed' && call.completionTokens === 0 && !generation.withoutTokens ? 0n : generation.costTicks(call);
}

function wholeTicks(value: unknown): bigint | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? BigInt(Number(value)) : undefined;
}
