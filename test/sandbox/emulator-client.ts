import { afterAll, afterEach, beforeAll } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import { EMULATED_MODELS } from '../../src/sandbox/emulated-models.ts';
import type { ModelPrices } from '../../src/sandbox/emulated-price.ts';
import { startXaiEmulator, type EmulatedCall, type EmulatorOptions, type EmulatorScript, type XaiEmulator } from '../../src/sandbox/xai-emulator.ts';

export const KEY = 'xai-test-key-b14o';
export const NO_REASONING = 'grok-4.20-0309-non-reasoning';
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
export const hello = [{ role: 'user', content: 'Hello there, Grok.' }]; // 18 bytes: 5 tokens, and 3 for the message

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { text_tokens: number; image_tokens: number; cached_tokens: number };
  completion_tokens_details: { reasoning_tokens: number };
  cost_in_usd_ticks: number;
}
export interface ToolCall {
  id: string;
  function: { name: string; arguments: string };
}
export interface Completion {
  id: string;
  model: string;
  choices: { index: number; message: { content: string; tool_calls?: ToolCall[] }; finish_reason: string }[];
  usage: Usage;
  service_tier: string;
}
export interface Chunk {
  id: string;
  choices: { index: number; delta: { content?: string; role?: string; tool_calls?: ToolCall[] }; finish_reason?: string }[];
  usage?: Usage;
}

/** The emulator of the spec that imports this file; its books are empty before each test. */
export let emulator: XaiEmulator;

beforeAll(async () => {
  emulator = await startXaiEmulator({ apiKeys: [KEY], random: () => 0.5 });
});
afterAll(() => emulator.close());
afterEach(() => emulator.reset());

interface Asking {
  at?: XaiEmulator;
  method?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** @param path after /v1/ */
export function ask(path: string, body?: unknown, { at = emulator, method = body === undefined ? 'GET' : 'POST', headers = {}, signal }: Asking = {}): Promise<Response> {
  return fetch(`${at.url}/${path}`, {
    method,
    headers: { authorization: `Bearer ${KEY}`, ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
    body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
}

export function post(body: unknown, asking?: Asking): Promise<Response> {
  return ask('chat/completions', body, asking);
}

export function respond(fields: Record<string, unknown> = {}, asking?: Asking): Promise<Response> {
  return ask('responses', { model: NO_REASONING, input: 'Hello there, Grok.', ...fields }, asking);
}

/** The JSON of an answer with this status, 200 unless told. */
export async function jsonOf<T = Record<string, unknown>>(answer: Promise<Response>, status = 200): Promise<T> {
  const response = await answer;
  const body = await response.text();
  if (response.status !== status) throw new Error(`${response.status} ${body}`);
  return JSON.parse(body) as T;
}

export async function complete(fields: Record<string, unknown> = {}, headers?: Record<string, string>): Promise<Completion> {
  const response = await post({ model: NO_REASONING, messages: hello, ...fields }, { headers });
  const body = await response.text();
  if (response.status !== 200) throw new Error(`${response.status} ${body}`);
  return JSON.parse(body) as Completion;
}

export function stream(fields: Record<string, unknown> = {}, script: EmulatorScript = {}, at = emulator): Promise<Response> {
  return post({ model: NO_REASONING, messages: hello, stream: true, ...fields, x_emulator: script }, { at });
}

export async function framesOf(response: Promise<Response>): Promise<string[]> {
  const text = await (await response).text();
  return text.split('\n\n').filter((frame) => frame !== '').map((frame) => frame.replace(/^data: /, ''));
}

export function chunksOf(frames: readonly string[]): Chunk[] {
  return frames.filter((frame) => frame !== '[DONE]').map((frame) => JSON.parse(frame) as Chunk);
}

export async function refusalOf(fields: Record<string, unknown>): Promise<{ status: number; code?: string; error?: string }> {
  const response = await post({ model: 'grok-4.3', messages: hello, ...fields });
  return { status: response.status, ...((await response.json()) as object) };
}

export function latest(at = emulator): EmulatedCall {
  return at.calls.at(-1)!;
}

export async function ended(at = emulator): Promise<EmulatedCall> {
  const deadlineMs = Date.now() + 5_000;
  while (at.calls.length === 0 || latest(at).state === 'running') {
    if (Date.now() > deadlineMs) throw new Error('The call is still running');
    await sleep(2);
  }
  return latest(at);
}

export async function withEmulator(options: Partial<EmulatorOptions>, work: (other: XaiEmulator) => Promise<void>): Promise<void> {
  const other = await startXaiEmulator({ apiKeys: [KEY], random: () => 0.5, ...options });
  try {
    await work(other);
  } finally {
    await other.close();
  }
}

export function pricesOf(model: string): ModelPrices {
  return EMULATED_MODELS.find(({ id }) => id === model)!.prices;
}
