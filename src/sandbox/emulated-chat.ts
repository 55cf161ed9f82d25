import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { planAnswer, type EmulatedAnswer } from './emulated-answer.ts';
import type { CallLedger, EmulatedCall, EndState } from './emulated-calls.ts';
import { cdnPage, EmulatedRefusal, isCdnStatus, notJson, overloaded, refusalOfStatus, unparsable, type ErrorDialect } from './emulated-errors.ts';
import { deliverPlain, deliverStream, type Delivery } from './emulated-delivery.ts';
import { sendHtml, sendJson, sendRefusal } from './emulated-http.ts';
import { Caller, Schedule, type EmulatorPace, type Ticker } from './emulated-pace.ts';
import { costInUsdTicks } from './emulated-price.ts';
import type { PromptCache } from './emulated-prompt.ts';
import { readChatRequest, type ChatRequest } from './emulated-request.ts';
import { isObject } from './emulated-shape.ts';

/** What all calls share. */
export interface ChatService {
  readonly ledger: CallLedger;
  readonly cache: PromptCache;
  readonly ticker: Ticker;
  readonly pace: EmulatorPace;
  readonly random: () => number;
  readonly nowMs: () => number;
  readonly usageWithoutAsking: boolean;
  readonly dialect: ErrorDialect;
}

/** A call as it has come in. */
export interface ChatArrival {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly requestId: string;
  /** @throws EmulatedRefusal when the credentials are missing or wrong */
  readonly authenticate: () => string;
}

/** The life of one call to POST /v1/chat/completions, which is in the books from its arrival on, whatever becomes of it. */
export async function serveChat(service: ChatService, arrival: ChatArrival, response: ServerResponse): Promise<void> {
  const { ledger, dialect } = service; // the books of today: after a reset, a running call ends in the old ones
  const caller = new Caller(response, service.ticker);
  const startedMs = performance.now();
  const parsed = parseJson(arrival.body);
  const call = openCall(service, arrival, parsed);
  try {
    const apiKey = arrival.authenticate();
    const request = readChatRequest(jsonOf(arrival, parsed));
    call.model = request.model.id;
    if (await playRefusal(request, caller, startedMs, response, dialect)) {
      return ledger.close(call, caller.gone ? 'aborted' : 'failed', 0n, service.nowMs());
    }
    const answer = planAnswer(request, service.random);
    call.promptTokens = request.promptTokens.total;
    const cachedTokens = cachedTokensOf(service, arrival, apiKey, request);
    const cost = () => costInUsdTicks(request.model.prices, { ...call, cachedTokens }, request.priority);
    const delivery: Delivery = {
      request, answer, call, caller, response, startedMs,
      schedule: new Schedule(service.pace, request.script, answer),
      stamp: { id: call.id, createdUnix: Math.floor(call.startedAtMs / 1000) },
      usage: () => usageObject(request, answer, cachedTokens, cost()),
      wantsUsage: !request.script.no_usage && (!request.stream || request.includeUsage || service.usageWithoutAsking),
      close: (state: EndState) => ledger.close(call, state, billFor(state, call, request, cost), service.nowMs()),
    };
    await (request.stream ? deliverStream(delivery) : deliverPlain(delivery));
  } catch (error) {
    ledger.close(call, 'failed', 0n, service.nowMs());
    if (!(error instanceof EmulatedRefusal)) throw error;
    sendRefusal(response, error, dialect);
  }
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

/** @throws EmulatedRefusal 415 without a JSON body, 400 for a broken one */
function jsonOf({ headers, body }: ChatArrival, parsed: ParsedBody): unknown {
  if (body.length === 0 || !/^application\/json\s*(;|$)/i.test(headers['content-type'] ?? '')) throw notJson();
  if (!('json' in parsed)) throw unparsable(parsed.fault);
  return parsed.json;
}

function openCall(service: ChatService, { headers, requestId }: ChatArrival, parsed: ParsedBody): EmulatedCall {
  const body = 'json' in parsed ? parsed.json : parsed.text;
  const call: EmulatedCall = {
    id: randomUUID(),
    requestId,
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

/** Plays a refusal that the script asks for; false when it asks for none. */
async function playRefusal({ script }: ChatRequest, caller: Caller, startedMs: number, response: ServerResponse, dialect: ErrorDialect): Promise<boolean> {
  const status = script.status ?? (script.ok_with_error ? 200 : script.html ? 520 : undefined);
  if (status === undefined) return false;
  if (script.first_token_ms !== undefined) await caller.until(startedMs + script.first_token_ms);
  if (script.retry_after !== undefined) response.setHeader('retry-after', script.retry_after);
  if (script.body !== undefined) sendJson(response, status, script.body);
  else if (script.html || isCdnStatus(status)) sendHtml(response, status, cdnPage(status));
  else sendJson(response, status, (script.ok_with_error ? overloaded(status) : refusalOfStatus(status)).body(dialect));
  return true;
}

/** The cache belongs to a conversation, named by a header or by the body. Keys of different accounts never share it. */
function cachedTokensOf(service: ChatService, { headers }: ChatArrival, apiKey: string, request: ChatRequest): number {
  const conversation = headers['x-grok-conv-id'] ?? request.cacheKey;
  return conversation === undefined ? 0 : service.cache.take(JSON.stringify([apiKey, request.model.id, conversation]), request.segments);
}

function usageObject({ promptTokens, script }: ChatRequest, answer: EmulatedAnswer, cachedTokens: number, costTicks: bigint): unknown {
  return script.usage ?? {
    prompt_tokens: promptTokens.total,
    completion_tokens: answer.completionTokens,
    total_tokens: promptTokens.total + answer.completionTokens + answer.reasoningTokens, // on this endpoint, completion excludes reasoning
    prompt_tokens_details: { text_tokens: promptTokens.total - promptTokens.image, audio_tokens: 0, image_tokens: promptTokens.image, cached_tokens: cachedTokens },
    completion_tokens_details: { reasoning_tokens: answer.reasoningTokens, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
    num_sources_used: 0,
    cost_in_usd_ticks: script.cost_usd_ticks ?? Number(costTicks),
  };
}

/** What the provider bills at the end. A failure costs nothing as long as there was no output; after that, what was generated. */
function billFor(state: EndState, call: EmulatedCall, { script }: ChatRequest, cost: () => bigint): bigint {
  if (state === 'completed') return wholeTicks(script.usage?.['cost_in_usd_ticks']) ?? wholeTicks(script.cost_usd_ticks) ?? cost();
  return state === 'failed' && call.completionTokens === 0 ? 0n : cost();
}

function wholeTicks(value: unknown): bigint | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? BigInt(Number(value)) : undefined;
}
