import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Harness } from './harness.ts';
import { framesOf } from './wire.ts';

// Calls of /v1/responses as tests make them, and what comes back.

/** A response, as far as tests look at it. */
export interface ResponseObject {
  id: string;
  object: string;
  model: string;
  status: string;
  store: boolean;
  previous_response_id: string | null;
  max_output_tokens: number | null;
  incomplete_details: { reason: string } | null;
  output: ({ id: string; type: string; status: string } & Record<string, unknown>)[];
  usage: { input_tokens: number; output_tokens: number; total_tokens: number; output_tokens_details: { reasoning_tokens: number }; cost_in_usd_ticks: number };
}

export interface ResponseEvent {
  type: string;
  sequence_number: number;
  response?: ResponseObject;
  delta?: string;
  error?: { message: string; type: string; code: string; param: string | null };
}

/** One response of grok-beta to a short question. */
export function respond(harness: Pick<Harness, 'request'>, body: Record<string, unknown> = {}, { headers = {}, token }: { headers?: Record<string, string>; token?: string } = {}): Promise<Response> {
  return harness.request('POST', '/v1/responses', { headers, body: { model: 'grok-beta', input: 'Say hello.', ...body }, ...(token !== undefined && { token }) });
}

/** The data of a stream's events, `[DONE]` left out; a comment has none. */
export function eventsIn(text: string): ResponseEvent[] {
  return framesOf(text).flatMap((frame) => {
    const data = frame.split(/\r?\n/).filter((line) => line.startsWith('data: ')).map((line) => line.slice(6)).join('\n');
    return data === '' || data === '[DONE]' ? [] : [JSON.parse(data) as ResponseEvent];
  });
}

/** What the model said. */
export function textOf({ output }: ResponseObject): string {
  return output.filter(({ type }) => type === 'message').flatMap(({ content }) => content as { text: string }[]).map(({ text }) => text).join('');
}

/** A configuration folder of its own; files that it lacks are the built-in ones. */
export async function configFolder(files: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'novix-config-'));
  await Promise.all(Object.entries(files).map(([name, text]) => writeFile(join(folder, name), text)));
  return folder;
}
