import { expect } from '@jest/globals';
import type { Harness } from '../support/harness.ts';
import { eventOf } from '../support/records.ts';

// Calls whose text is stored, and auditors who read it.

export interface ReadPayloads {
  request_id: string;
  tenant: string;
  payloads: { purpose: 'prompt' | 'answer'; content_type: string; bytes: number; stored_at: string; text?: string; base64?: string }[];
}

/** Longer than any clock here is moved. */
const TTL_SECONDS = 400 * 86_400;

export function admin(harness: Harness): Promise<string> {
  return harness.token({ tenant: 'platform', subject: 'root@platform.example', roles: ['platform-admin'], ttlSeconds: TTL_SECONDS });
}

export async function setStorage(harness: Harness, storage: 'off' | 'prompts' | 'answers' | 'both', tenant = 'acme'): Promise<void> {
  const response = await harness.request('PATCH', `/admin/v1/tenants/${tenant}`, { token: await admin(harness), body: { payload_storage: storage } });
  expect(response.status).toBe(200);
  expect(await response.json()).toMatchObject({ id: tenant, payload_storage: storage });
}

export async function setTier(harness: Harness, tier: string, tenant = 'acme'): Promise<void> {
  expect((await harness.request('PATCH', `/admin/v1/tenants/${tenant}`, { token: await admin(harness), body: { tier } })).status).toBe(200);
}

export function auditor(harness: Harness, tenant = 'acme', roles = ['auditor']): Promise<string> {
  return harness.token({ tenant, subject: `eve@${tenant}.example`, roles, ttlSeconds: TTL_SECONDS });
}

/** One call of grok-beta by a tenant's developer; its request id, and what the caller got. */
export async function call(harness: Harness, options: { tenant?: string; text?: string; stream?: boolean; script?: object; url?: string } = {}): Promise<{ requestId: string; status: number; body: string }> {
  const { tenant = 'acme', text = 'Say hello.', stream = false, script, url = harness.url } = options;
  const token = await harness.token({ tenant, subject: `dev@${tenant}.example`, ttlSeconds: TTL_SECONDS });
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'grok-beta', stream, messages: [{ role: 'user', content: text }], ...(script === undefined ? {} : { x_emulator: script }) }),
  });
  return { requestId: response.headers.get('x-request-id')!, status: response.status, body: await response.text() };
}

export async function read(harness: Harness, requestId: string, token: string, reason: string | null = 'incident 42'): Promise<Response> {
  return harness.request('GET', `/admin/v1/payloads/${requestId}${reason === null ? '' : `?reason=${encodeURIComponent(reason)}`}`, { token });
}

/** What is stored of a request, read by its tenant's auditor. */
export async function stored(harness: Harness, requestId: string, tenant = 'acme'): Promise<Record<string, string>> {
  const response = await read(harness, requestId, await auditor(harness, tenant));
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  return Object.fromEntries(((await response.json()) as ReadPayloads).payloads.map(({ purpose, text }) => [purpose, text!]));
}

/** What the record of a call says of what was stored. */
export async function recordedPayload(harness: Harness, requestId: string): Promise<unknown> {
  const event = await eventOf(harness, requestId, 'outcome');
  return (event.unmapped.novix as { payload?: unknown }).payload;
}

/** Makes a new epoch, as the platform’s admin does. */
export async function rotate(harness: Harness, tenant = 'acme'): Promise<{ epoch: string; data_keys_wrapped_anew: number; destroyed: string[] }> {
  const response = await harness.request('POST', `/admin/v1/payload-keys/${tenant}:rotate`, { token: await admin(harness) });
  expect(response.status).toBe(200);
  return (await response.json()) as { epoch: string; data_keys_wrapped_anew: number; destroyed: string[] };
}

export async function status(harness: Harness, requestId: string, tenant = 'acme'): Promise<number> {
  return (await read(harness, requestId, await auditor(harness, tenant))).status;
}

export async function count(harness: Harness, table: string, where = 'true'): Promise<number> {
  const { rows } = await harness.db.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table} WHERE ${where}`);
  return rows[0]!.n;
}
