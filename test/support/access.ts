import { expect } from '@jest/globals';
import type { Pool } from 'pg';
import type { Clock } from '../../src/shared/clock.ts';
import { madeBy, type AdminCall } from './deployments.ts';
import { eventually } from './harness.ts';
import { framesOf, type ErrorAnswer } from './wire.ts';

// Policies, keys and revocations as tests make them, and streams that they end.

export interface RuleView {
  id: string;
  effect: 'allow' | 'deny';
  actions: string[];
  models?: string[];
  when?: { attr: string; op: string; value?: unknown }[];
  reason?: string;
}

export interface PolicyView {
  id: string;
  tenant: string | null;
  name: string;
  status: 'enforced' | 'shadow';
  rules: RuleView[];
  created_at: string;
  updated_at: string;
  /** In answers to changes alone. */
  revision?: string;
}

/** A rule that denies calls; all of them, unless `more` says which. */
export function deny(id: string, more: Partial<RuleView> = {}): RuleView {
  return { id, effect: 'deny', actions: ['invoke'], ...more };
}

export function allow(id: string, more: Partial<RuleView> = {}): RuleView {
  return { ...deny(id, more), effect: 'allow' };
}

/** Makes a policy of acme, unless said otherwise; fails where the gateway does not. */
export async function publish(call: AdminCall, rules: readonly RuleView[], fields: Record<string, unknown> = {}): Promise<PolicyView> {
  return madeBy<PolicyView>(await call('POST', '/policies', { tenant: 'acme', name: 'Of a test', rules, ...fields }), 201);
}

/** Every item of a list, page by page. */
export async function listAll<T>(call: AdminCall, path: string, limit = 200): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const page: { data: T[]; next_cursor: string | null } = await madeBy(await call('GET', `${path}?limit=${limit}${cursor === null ? '' : `&cursor=${cursor}`}`));
    items.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return items;
}

/** Deletes whatever stands in a list. */
export async function removeAll(call: AdminCall, path: '/policies' | '/revocations'): Promise<void> {
  for (const { id } of await listAll<{ id: string }>(call, path)) {
    const response = await call('DELETE', `${path}/${id}`);
    if (response.status !== 204) throw new Error(`${path}/${id} was not removed: ${await response.text()}`);
  }
}

/** A clock whose wall time a test moves; it goes on from there. */
export function wallClock(): Clock & { at<T>(timeMs: number, work: () => Promise<T>): Promise<T> } {
  let aheadMs = 0;
  return {
    nowMs: () => Date.now() + aheadMs,
    monotonicMs: () => performance.now(),
    at: async (timeMs, work) => {
      aheadMs = timeMs - Date.now();
      try {
        return await work();
      } finally {
        aheadMs = 0;
      }
    },
  };
}

/** Noon UTC of the next Tuesday but one. */
export function tuesdayNoonMs(): number {
  const noon = new Date();
  noon.setUTCHours(12, 0, 0, 0);
  noon.setUTCDate(noon.getUTCDate() + 7 + ((9 - noon.getUTCDay()) % 7));
  return noon.getTime();
}

export interface KeyView {
  id: string;
  tenant: string;
  sub: string;
  roles: string[];
  attrs: Record<string, unknown>;
  models: string[] | null;
  created_by: string;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
  last_used_on: string | null;
}
export type NewKey = KeyView & { key: string };

/** Makes a key of acme's developers, unless said otherwise; fails where the gateway does not. */
export async function makeKey(call: AdminCall, fields: Record<string, unknown> = {}): Promise<NewKey> {
  return madeBy<NewKey>(await call('POST', '/api-keys', { tenant: 'acme', sub: 'svc-reports', ...fields }), 201);
}

/** A stream that goes on until somebody ends it. */
export const LONG_STREAM = { output_tokens: 3_000, reasoning_tokens: 0, token_interval_ms: 20 };

export interface RunningStream {
  requestId: string;
  decisionId: string;
  /** All of it, and when its end came. */
  ended: Promise<{ text: string; atMs: number }>;
}

/** Waits until a stream has reached its caller. */
export async function running(answer: Promise<Response>): Promise<RunningStream> {
  const response = await answer;
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const take = async (): Promise<boolean> => {
    const { done, value } = await reader.read();
    text += value ?? '';
    return !done;
  };
  while (!text.includes('"content":"')) if (!(await take())) throw new Error(`the stream ended at once: ${text}`);
  const rest = async (): Promise<{ text: string; atMs: number }> => {
    while (await take());
    return { text, atMs: performance.now() };
  };
  return { requestId: response.headers.get('x-request-id')!, decisionId: response.headers.get('x-novix-decision-id')!, ended: rest() };
}

/** Checks that a stream ended in an error event and nothing that looks like a good end, and gives the error. */
export function expectCut(text: string, code: string): ErrorAnswer['error'] {
  const frames = framesOf(text);
  expect(text).not.toContain('[DONE]');
  expect(text).not.toContain('"finish_reason":"stop"');
  const { error } = JSON.parse(frames.at(-1)!.replace(/^data: /, '')) as ErrorAnswer;
  expect(error.code).toBe(code);
  expect(frames.filter((frame) => frame.includes('"error"'))).toHaveLength(1);
  return error;
}

/** Every row of every table, as text. */
export async function wholeDatabase(db: Pool): Promise<string> {
  const { rows: tables } = await db.query<{ name: string }>("SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'");
  const texts: string[] = [];
  for (const { name } of tables) {
    const { rows } = await db.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t`);
    texts.push(...rows.map(({ row }) => row));
  }
  return texts.join('\n');
}

/** Waits until no call is in the ledger's books any more. */
export async function booksClosed(db: Pool): Promise<void> {
  await eventually(async () => (await db.query<{ open: string }>('SELECT count(*) AS open FROM holds')).rows[0]!.open === '0');
}
