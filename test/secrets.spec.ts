import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Pool } from 'pg';
import { LocalIssuer } from '../src/sandbox/local-issuer.ts';
import { startXaiEmulator, type XaiEmulator } from '../src/sandbox/xai-emulator.ts';
import { eventually } from './support/harness.ts';
import { createTestDatabase } from './support/test-database.ts';

// A gateway process of its own, as it is deployed, with LOG_LEVEL=trace: every secret is a canary, and none of them may turn up anywhere.

const CANARY = {
  prompt: 'canary-prompt-7f3a',
  answer: 'canary-answer-9c1e',
  providerKey: 'xai-canary-key-5d2b8',
  databasePassword: 'canary-db-password-0e4f',
};

let emulator: XaiEmulator;
let gateway: ChildProcess;
let output = '';
let url: string;
let pool: Pool;
const tokens: string[] = [];
/** Bodies and headers of every answer that was an error. */
const errors: { name: string; status: number; text: string }[] = [];
const cleanUp: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'novix-secrets-'));
  const database = await createTestDatabase();
  pool = new Pool({ connectionString: database.url, max: 2 });
  const role = `canary_${process.pid}`;
  await pool.query(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${CANARY.databasePassword}'`);
  const databaseUrl = new URL(database.url);
  Object.assign(databaseUrl, { username: role, password: CANARY.databasePassword });
  emulator = await startXaiEmulator({ apiKeys: [CANARY.providerKey] });
  const issuer = await LocalIssuer.open(join(dataDir, 'issuer.pem'));
  const served = await issuer.serve();
  gateway = spawn(process.execPath, [resolve('dist/src/main.js')], {
    stdio: ['ignore', 'pipe', 'pipe'], cwd: dataDir,
    env: {
      PATH: process.env['PATH'], PORT: '0', LOG_LEVEL: 'trace', NOVIX_DATA_DIR: dataDir, DATABASE_URL: databaseUrl.href, XAI_API_KEY: CANARY.providerKey, XAI_BREAKER_FAILURES: '1000', XAI_API_ENDPOINT: emulator.url, DRAIN_DELAY_MS: '0',
      SHUTDOWN_GRACE_MS: '500', XAI_FIRST_BYTE_TIMEOUT_MS: '500', XAI_RETRY_MAX: '0', AUTH_ISSUER: served.settings.issuer, AUTH_AUDIENCE: served.settings.audience, AUTH_JWKS_URI: served.url, AUTH_ALGORITHMS: 'ES256',
    },
  });
  cleanUp.push(async () => {
    if (gateway.exitCode === null) gateway.kill('SIGKILL');
    await Promise.all([emulator.close(), served.close()]);
    await pool.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    await pool.end();
    await database.drop();
    await rm(dataDir, { recursive: true, force: true });
  });
  for (const stream of [gateway.stdout!, gateway.stderr!]) stream.on('data', (part: Buffer) => {
    output += part.toString();
  });
  url = await eventually(() => /"url":"(http:[^"]+)"/.exec(output)?.[1] ?? (gateway.exitCode === null ? undefined : Promise.reject(new Error(output))), 15_000);
  await useIt(issuer);
  gateway.kill('SIGTERM');
  await once(gateway, 'exit');
}, 30_000);
afterAll(async () => {
  for (const step of cleanUp.toReversed()) await step();
});

/** Everything that goes well, and everything that can go wrong, each time with canaries in it. */
async function useIt(issuer: LocalIssuer): Promise<void> {
  const mint = async (tenant: string, roles: string[], ttlSeconds = 600): Promise<string> => {
    const token = await issuer.mint({ tenant, subject: 'canary@acme.example', roles, ttlSeconds });
    tokens.push(token);
    return token;
  };
  const admin = await mint('platform', ['platform-admin']);
  const call = async (name: string, method: string, path: string, token: string | null, body?: string, headers: Record<string, string> = {}): Promise<Response> => {
    const response = await fetch(`${url}${path}`, {
      method, headers: { ...(token !== null && { authorization: `Bearer ${token}` }), ...(body !== undefined && { 'content-type': 'application/json' }), ...headers }, ...(body !== undefined && { body }),
    });
    const text = await response.text();
    if (response.status >= 400 || text.includes('{"error":')) errors.push({ name, status: response.status, text: `${text.slice(Math.max(0, text.indexOf('{"error":')))}\n${JSON.stringify([...response.headers])}` });
    return new Response(text, { status: response.status, headers: response.headers });
  };
  for (const id of ['acme', 'penniless']) expect((await call('tenant', 'POST', '/admin/v1/tenants', admin, JSON.stringify({ id, name: id, tier: 'standard' }))).status).toBe(201);
  expect((await call('budget', 'POST', '/admin/v1/budgets', admin, JSON.stringify({ tenant: 'acme', scope: { type: 'tenant' }, window: 'total', limit_usd: '10.00' }))).status).toBe(201);
  const token = await mint('acme', ['developer']);
  const messages = [{ role: 'system', content: `System ${CANARY.prompt}.` }, { role: 'user', content: [{ type: 'text', text: CANARY.prompt }] }];
  const complete = (name: string, change: Record<string, unknown> = {}, { bearer = token, headers = {} }: { bearer?: string; headers?: Record<string, string> } = {}): Promise<Response> =>
    call(name, 'POST', '/v1/chat/completions', bearer, JSON.stringify({ model: 'grok-beta', messages, user: CANARY.prompt, metadata: { note: CANARY.prompt }, ...change }), headers);

  const good = await complete('plain', { x_emulator: { content: CANARY.answer } });
  expect(await good.text()).toContain(CANARY.answer);
  expect(await (await complete('streamed', { stream: true, x_emulator: { content: CANARY.answer } })).text()).toContain('[DONE]');
  const echo = `You sent ${CANARY.prompt} with the key ${CANARY.providerKey}, and the model said ${CANARY.answer}`;
  const failures: [string, Record<string, unknown>][] = [
    ['upstream 400 that echoes', { status: 400, body: { code: 'invalid-argument', error: echo } }],
    ['upstream 422 that echoes', { status: 422, body: { error: echo } }],
    ['upstream 401 that echoes', { status: 401, body: { code: 'unauthenticated', error: echo } }],
    ['upstream 403 that echoes', { status: 403, body: { code: 'permission-denied', error: `Content violates usage guidelines: ${echo}` } }],
    ['upstream 404 that echoes', { status: 404, body: { code: 'not-found', error: echo } }],
    ['upstream 429 that echoes', { status: 429, body: { code: 'resource-exhausted', error: echo } }],
    ['upstream 500 that echoes', { status: 500, body: echo }],
    ['upstream 200 that echoes', { status: 200, body: { code: 'odd', error: echo } }],
    ['upstream 418 that echoes', { status: 418, body: { error: { message: echo, code: echo } } }],
    ['cut', { content: `${CANARY.answer} `.repeat(10), cut_after: 5 }],
    ['error frame', { content: `${CANARY.answer} `.repeat(10), error_frame_after: 5 }],
    ['no [DONE]', { content: CANARY.answer, no_done: true }],
    ['unreadable usage', { content: CANARY.answer, usage: { prompt_tokens: CANARY.answer } }],
    ['stall', { stall_before_headers: true }],
  ];
  for (const [name, script] of failures) for (const stream of [false, true]) await complete(`${name}${stream ? ', streamed' : ''}`, { stream, x_emulator: script });
  await complete('policy', {}, { headers: { 'x-novix-data-class': 'restricted' } });
  await complete('cap', {}, { headers: { 'x-novix-max-cost-usd': '0' } });
  await complete('no budget', {}, { bearer: await mint('penniless', ['developer']) });
  await complete('no role', {}, { bearer: await mint('acme', []) });
  await complete('unknown model', { model: 'grok-99' });
  await complete('schema', { n: CANARY.prompt, temperature: CANARY.prompt });
  await complete('wrong type of message', { messages: [{ role: CANARY.prompt, content: CANARY.prompt }] });
  await complete('wrong header', {}, { headers: { 'x-novix-cost-mode': CANARY.prompt, 'x-novix-max-cost-usd': CANARY.prompt } });
  await call('broken JSON', 'POST', '/v1/chat/completions', token, `{"messages":[{"role":"user","content":"${CANARY.prompt}"`);
  await call('broken JSON early', 'POST', '/v1/chat/completions', token, CANARY.prompt);
  await call('broken admin JSON', 'POST', '/admin/v1/tenants', admin, `{${CANARY.prompt}`);
  await call('wrong media type', 'POST', '/v1/chat/completions', token, CANARY.prompt, { 'content-type': 'text/plain' });
  await call('no route', 'POST', `/v1/${CANARY.prompt}?q=${CANARY.prompt}`, token, '{}');
  await call('model in the path', 'GET', `/v1/models/${CANARY.prompt}`, token);
  await call('token in the query', 'GET', `/v1/models?access_token=${token}`, null);
  await call('expired token', 'GET', '/v1/models', await mint('acme', ['developer'], -120));
  await call('token of an unknown tenant', 'GET', '/v1/models', await mint('hooli', ['developer']));
  await call('changed token', 'GET', '/v1/models', `${token.slice(0, -4)}AAAA`);
  await call('basic credentials', 'GET', '/v1/models', null, undefined, { authorization: `Basic ${token}` });
  const aborter = new AbortController();
  const left = fetch(`${url}/v1/chat/completions`, {
    method: 'POST', signal: aborter.signal, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'grok-beta', messages, stream: true, x_emulator: { output_tokens: 1_000, first_token_ms: 0, token_interval_ms: 20 } }),
  }).then((response) => response.text());
  left.catch(() => {}); // it is aborted
  await eventually(() => (emulator.calls.at(-1)!.state === 'running' && emulator.calls.at(-1)!.completionTokens > 2));
  aborter.abort();
  await eventually(() => emulator.calls.at(-1)!.state === 'aborted');
  metrics = await (await fetch(`${url}/metrics`)).text();
  await eventually(async () => {
    const { rows } = await pool.query<{ open: string }>('SELECT count(*) AS open FROM holds');
    return rows[0]!.open === '0';
  });
}

let metrics = '';

/** Each secret with a name; of a token, its signature too, since a part is as good as the whole. */
function secrets(): [string, string][] {
  return [...Object.entries(CANARY), ...tokens.flatMap((token, index): [string, string][] => [[`token ${index}`, token], [`signature ${index}`, token.split('.')[2]!], [`claims ${index}`, token.split('.')[1]!]])];
}

/** Names of the secrets that a text holds, as they are or in base64. */
function found(text: string): string[] {
  return secrets().filter(([, secret]) => text.includes(secret) || text.includes(Buffer.from(secret).toString('base64').replace(/=+$/, '').slice(0, -2))).map(([name]) => name);
}

describe('secrets', () => {
  it('the canaries are alive: they went in, and the search finds them', () => {
    expect(emulator.calls.length).toBeGreaterThan(25);
    expect(JSON.stringify(emulator.calls[0]!.body)).toContain(CANARY.prompt);
    expect(emulator.calls[0]!.headers['authorization']).toBe(`Bearer ${CANARY.providerKey}`);
    expect(found(`… ${tokens[0]} ${CANARY.databasePassword} ${Buffer.from(CANARY.prompt).toString('base64')} …`)).toEqual(['prompt', 'databasePassword', 'token 0', 'signature 0', 'claims 0']);
    expect(errors.length).toBeGreaterThan(35);
  });

  it('are in no line of the log at level trace', () => {
    const lines = output.split('\n').filter((line) => line !== '');
    expect(lines.length).toBeGreaterThan(40);
    expect(output).toContain('request refused');
    expect(lines.flatMap((line) => found(line).map((name) => `${name}: ${line.slice(100, 500)}`)).slice(0, 5)).toEqual([]);
  });

  it('are in no error that a caller gets', () => {
    // What the provider says of a request that it refuses goes to the one who made it (DESIGN 3.9), and may quote that request; our key is cut out of it.
    const quoted = errors.filter(({ name }) => /^upstream 4(00|22) that echoes/.test(name));
    expect(quoted).toHaveLength(4);
    expect(quoted.flatMap(({ text }) => found(text)).filter((secret) => secret !== 'prompt' && secret !== 'answer')).toEqual([]);
    expect(errors.filter((error) => !quoted.includes(error)).flatMap(({ name, status, text }) => found(text).map((secret) => `${name} (${status}): ${secret}`))).toEqual([]);
  });

  it('are in no record of the audit log', async () => {
    const { rows } = await pool.query<{ event: string }>('SELECT event::text AS event FROM audit_events');
    expect(rows.length).toBeGreaterThan(60);
    expect(rows.flatMap(({ event }) => found(event).map((name) => `${name}: ${event.slice(0, 300)}`))).toEqual([]);
  });

  it('are in no other table', async () => {
    const { rows: tables } = await pool.query<{ name: string }>("SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'");
    expect(tables.length).toBeGreaterThan(5);
    for (const { name } of tables) {
      const { rows } = await pool.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t`);
      expect([name, rows.flatMap(({ row }) => found(row))]).toEqual([name, []]);
    }
  });

  it('are in no metric', () => {
    expect(metrics).toContain('novix_calls_total');
    expect(found(metrics)).toEqual([]);
  });

  it('and the process ended well', () => {
    expect(gateway.exitCode).toBe(0);
  });
});
