import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { decodeJwt } from 'jose';
import { BUILT_IN_CONFIG } from '../../src/shared/config-files.ts';
import type { Clock } from '../../src/shared/clock.ts';
import { deny, makeKey, publish } from '../support/access.ts';
import { adminOf, completeAt, madeBy, startReplica, type AdminCall } from '../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../support/harness.ts';
import type { AuditEvent } from '../support/records.ts';
import { configFolder, respond, type ResponseObject } from '../support/responses.ts';
import { routesOf, type Route } from '../support/routes.ts';
import { rawRequest } from '../support/wire.ts';

// The table "What is recorded where" of docs/audit.md, row by row, on a running gateway.

type RecordedEvent = Omit<AuditEvent, 'actor' | 'unmapped'> & {
  class_uid: number;
  activity_id: number;
  status_id: number;
  time: number;
  actor: { user: { uid: string }; session?: { uid: string } };
  unmapped: { novix: AuditEvent['unmapped']['novix'] & { sign_in?: { first_request: string } } };
};
interface Row {
  route: string;
  kinds: string[];
  receipts: boolean;
}

const DAY_MS = 86_400_000;
const TTL_SECONDS = 400 * 86_400;
const WAIT_MS = 20_000;
const ACTIVITIES = ['', 'create', 'read', 'update', 'delete'];
/** No event may hold it: what is asked, what is stored, what is embedded. */
const PROMPT = `canary${randomUUID().replaceAll('-', '')}`;
const PROVIDER_SECRET = `xai-${randomUUID()}`;
const NO_REASONING = 'grok-4.20-0309-non-reasoning';
const POLICIES = `
policies:
  - name: roles
    rules:
      - { id: developers, effect: allow, actions: [invoke, store], models: ["*"], when: [{ attr: principal.roles, op: in, value: [developer] }] }
`;
const RATES = { input_usd_per_million: '3.00', cached_input_usd_per_million: '1.00', output_usd_per_million: '9.00' };

const section = readFileSync(join(import.meta.dirname, '../../docs/audit.md'), 'utf8').split('## What is recorded where')[1]!.split('\n## ')[0]!;
const rows: Row[] = [...section.matchAll(/^\| `([A-Z]+ \S+)` \| (.+) \|$/gm)].map(([, route, cell]) => readRow(route!, cell!));
const publicNames = [...section.split('Public, and never recorded: ')[1]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);

function readRow(route: string, cell: string): Row {
  const parts = cell.split('; ');
  const kinds = parts.flatMap((part) => {
    if (part === 'nothing' || part.startsWith('and a receipt ')) return [];
    if (part === 'intent, outcome') return ['intent', 'outcome'];
    const change = /^change, (create|read|update|delete)$/.exec(part);
    if (change === null) throw new Error(`${route}: cannot read ${JSON.stringify(part)}`);
    return [`change, ${change[1]!}`];
  });
  return { route, kinds, receipts: parts.some((part) => part.startsWith('and a receipt ')) };
}

let movedMs = 0;
const clock: Clock = { nowMs: () => Date.now() + movedMs, monotonicMs: () => performance.now() };
let harness: Harness;
let folder: string;
let root: AdminCall;
let developer: string;
let auditor: string;
let acmeAuditor: string;
let routes: Route[];
const secrets = new Set<string>([PROMPT, PROVIDER_SECRET]);
/** Answers to the examples. */
const requestIds = new Map<string, string>();

const isPublic = (path: string): boolean => publicNames.some((name) => path === name || (name.endsWith('…') && path.startsWith(name.slice(0, -1))) || path.startsWith(`${name}/`));
const closed = (): Route[] => routes.filter(({ path }) => !isPublic(path));
const routeOf = ({ method, path }: Route): string => `${method} ${path}`;

async function mint(request: Parameters<Harness['token']>[0] = {}): Promise<string> {
  const token = await harness.token({ ttlSeconds: TTL_SECONDS, ...request });
  secrets.add(token);
  return token;
}

beforeAll(async () => {
  const models = await readFile(join(BUILT_IN_CONFIG, 'models.yaml'), 'utf8');
  folder = await configFolder({
    'policies.yaml': POLICIES, 'models.yaml': models.replace(/( {2}- id: v1\n(?: {4}.*\n?)*)/, '$1    price: { usd_per_million: { input: "0.10" }, source: "a test", as_of: "2026-10" }\n'),
  });
  harness = await startHarness({ clock, emulator: { embeddingModels: [{ id: 'v1', inputPriceTicks: 1_000, dimensions: 8 }] }, env: { NOVIX_CONFIG_DIR: folder, AUTH_FAILURES_PER_MINUTE: '1000000' } });
  const admin = await mint({ tenant: 'platform', subject: 'root@platform.example', roles: ['platform-admin'] });
  root = adminOf(harness, admin);
  developer = await mint();
  auditor = await mint({ tenant: 'platform', subject: 'eve@platform.example', roles: ['auditor'] });
  acmeAuditor = await mint({ subject: 'eve@acme.example', roles: ['auditor'] });
  routes = routesOf(harness.gateway.app).filter(({ method }) => method !== 'HEAD');
  await madeBy(await root('PATCH', '/tenants/acme', { payload_storage: 'both' }));
}, 120_000);
afterAll(async () => {
  await harness?.close();
  if (folder !== undefined) await rm(folder, { recursive: true });
}, 60_000);

async function events(where = 'true', values: unknown[] = []): Promise<RecordedEvent[]> {
  const { rows: found } = await harness.db.query<{ event: RecordedEvent }>(`SELECT event FROM audit_events WHERE ${where} ORDER BY index NULLS LAST, event->'unmapped'->'novix'->>'phase'`, values);
  return found.map(({ event }) => event);
}

const eventsBy = (requestId: string): Promise<RecordedEvent[]> => events("event->'metadata'->>'correlation_uid' = $1", [requestId]);
const kindsBy = async (requestId: string): Promise<string[]> =>
  (await eventsBy(requestId)).map(({ activity_id: activity, unmapped: { novix: { phase } } }) => (phase === 'change' ? `change, ${ACTIVITIES[activity]}` : phase)).toSorted();
const signIns = (requests: readonly string[]): Promise<RecordedEvent[]> => events("event->'unmapped'->'novix'->'sign_in'->>'first_request' = ANY($1)", [requests]);
/** Whatever was on its way into the log is there. */
const settledLog = async (): Promise<void> => {
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await eventually(async () => (await harness.db.query('SELECT FROM audit_pending')).rowCount === 0, WAIT_MS);
};

let made = 0;
const named = (): string => `made-${(made += 1)}`;
const v1 = (method: string, path: string, body?: unknown): Promise<Response> => harness.request(method, `/v1${path}`, { token: developer, body });
const audit = (path: string): Promise<Response> => harness.request('GET', `/audit/v1/${path}`, { token: auditor });
const idOf = async (path: string, body: object): Promise<string> => (await madeBy<{ id: string }>(await root('POST', path, body), 201)).id;

const tenant = (): object => ({ id: named(), name: 'Made', tier: 'standard' });
const budget = (): object => ({ tenant: 'acme', scope: { type: 'user', id: named() }, window: 'month', limit_usd: '1.00' });
const rules = [deny('none', { models: ['grok-enterprise'] })];
const policy = (): object => ({ tenant: 'acme', name: named(), rules });
const revocation = (): object => ({ type: 'jti', value: randomUUID(), tenant: 'acme' });
const deployment = (): object => ({ id: named(), model: 'grok-enterprise', base_url: 'https://us.api.x.ai/v1', api_key: PROVIDER_SECRET, weight: 0 });
const sink = (): object => {
  const name = named();
  return { name, type: 'file', url: pathToFileURL(join(harness.settings.siemDir, `${name}.jsonl`)).href };
};
const price = { model: 'grok-4.3', ...RATES };
const keyOf = async (answer: Response): Promise<Response> => {
  secrets.add((JSON.parse(await answer.clone().text()) as { key: string }).key);
  return answer;
};
const apiKey = async (): Promise<{ id: string; key: string }> => {
  const key = await makeKey(root);
  secrets.add(key.key);
  return key;
};
const chat = (more: object = {}): Promise<Response> => v1('POST', '/chat/completions', { model: 'grok-beta', messages: [{ role: 'user', content: PROMPT }], ...more });
async function chatted(more: object = {}): Promise<string> {
  const response = await chat(more);
  const text = await response.text();
  expect([response.status, response.status === 200 ? '' : text]).toEqual([200, '']);
  const requestId = response.headers.get('x-request-id')!;
  await eventually(async () => (await kindsBy(requestId)).includes('outcome'), WAIT_MS);
  return requestId;
}
const kept = async (): Promise<string> => (await madeBy<ResponseObject>(await respond(harness, { model: NO_REASONING, input: PROMPT, store: true }, { token: developer }))).id;
async function uncertain(): Promise<string> {
  const requestId = await chatted({ x_emulator: { no_usage: true, output_tokens: 5 } });
  return eventually(async () => (await madeBy<{ data: { id: string; request_id: string }[] }>(await root('GET', '/settlements?limit=200'))).data.find(({ request_id: id }) => id === requestId)?.id, WAIT_MS);
}
/** Waits until the answer is a good one: what the log says of itself comes within a second. */
const soon = (path: string): Promise<Response> => eventually(async () => {
  const answer = await audit(path);
  return answer.status === 200 && answer;
}, WAIT_MS);

/** One request each that succeeds. */
const EXAMPLES: Record<string, () => Promise<Response>> = {
  'POST /v1/chat/completions': () => chat(),
  'POST /v1/completions': () => v1('POST', '/completions', { model: NO_REASONING, prompt: PROMPT }),
  'POST /v1/responses': () => respond(harness, { input: PROMPT }, { token: developer }),
  'GET /v1/responses/:id': async () => v1('GET', `/responses/${await kept()}`),
  'DELETE /v1/responses/:id': async () => v1('DELETE', `/responses/${await kept()}`),
  'GET /v1/responses/:id/input_items': async () => v1('GET', `/responses/${await kept()}/input_items`),
  'POST /v1/embeddings': () => v1('POST', '/embeddings', { model: 'v1', input: PROMPT }),
  'POST /v1/images/generations': () => v1('POST', '/images/generations', { model: 'grok-imagine-image', prompt: PROMPT }),
  'POST /v1/tokenize-text': () => v1('POST', '/tokenize-text', { model: 'grok-beta', text: PROMPT }),
  'GET /v1/models': () => v1('GET', '/models'),
  'GET /v1/models/:id': () => v1('GET', '/models/grok-beta'),
  'GET /v1/language-models': () => v1('GET', '/language-models'),
  'GET /v1/language-models/:id': () => v1('GET', '/language-models/grok-beta'),
  'POST /v1/cost/optimize': () => v1('POST', '/cost/optimize', { messages: [{ role: 'user', content: PROMPT }] }),
  'POST /admin/v1/tenants': () => root('POST', '/tenants', tenant()),
  'GET /admin/v1/tenants': () => root('GET', '/tenants'),
  'GET /admin/v1/tenants/:id': () => root('GET', '/tenants/acme'),
  'PATCH /admin/v1/tenants/:id': async () => root('PATCH', `/tenants/${await idOf('/tenants', tenant())}`, { name: 'Changed' }),
  'POST /admin/v1/budgets': () => root('POST', '/budgets', budget()),
  'GET /admin/v1/budgets': () => root('GET', '/budgets'),
  'GET /admin/v1/budgets/:id': async () => root('GET', `/budgets/${await idOf('/budgets', budget())}`),
  'PATCH /admin/v1/budgets/:id': async () => root('PATCH', `/budgets/${await idOf('/budgets', budget())}`, { limit_usd: '2.00' }),
  'DELETE /admin/v1/budgets/:id': async () => root('DELETE', `/budgets/${await idOf('/budgets', budget())}`),
  'GET /admin/v1/settlements': () => root('GET', '/settlements'),
  'POST /admin/v1/settlements/:order': async () => root('POST', `/settlements/${await uncertain()}:reconcile`, { charged_usd: '0.01', reason: 'an invoice' }),
  'GET /admin/v1/usage': () => root('GET', '/usage'),
  'GET /admin/v1/prices': () => root('GET', '/prices'),
  'POST /admin/v1/prices': () => root('POST', '/prices', price),
  'GET /admin/v1/prices/:model': () => root('GET', '/prices/grok-4.3'),
  'DELETE /admin/v1/prices/:model': async () => {
    await madeBy(await root('POST', '/prices', price), 201);
    return root('DELETE', '/prices/grok-4.3');
  },
  'GET /admin/v1/alerts': () => root('GET', '/alerts'),
  'POST /admin/v1/policies': () => root('POST', '/policies', policy()),
  'GET /admin/v1/policies': () => root('GET', '/policies'),
  'GET /admin/v1/policies/:id': async () => root('GET', `/policies/${(await publish(root, rules)).id}`),
  'PUT /admin/v1/policies/:id': async () => root('PUT', `/policies/${(await publish(root, rules)).id}`, { name: named(), rules }),
  'DELETE /admin/v1/policies/:id': async () => root('DELETE', `/policies/${(await publish(root, rules)).id}`),
  'POST /admin/v1/policies:explain': () => root('POST', '/policies:explain', { principal: { tenant: 'acme', roles: ['developer'] }, request: { model: 'grok-beta' } }),
  'POST /admin/v1/policies:dry-run': () => root('POST', '/policies:dry-run', { policy: { tenant: 'acme', rules } }),
  'POST /admin/v1/revocations': () => root('POST', '/revocations', revocation()),
  'GET /admin/v1/revocations': () => root('GET', '/revocations'),
  'GET /admin/v1/revocations/:id': async () => root('GET', `/revocations/${await idOf('/revocations', revocation())}`),
  'DELETE /admin/v1/revocations/:id': async () => root('DELETE', `/revocations/${await idOf('/revocations', revocation())}`),
  'POST /admin/v1/api-keys': async () => keyOf(await root('POST', '/api-keys', { tenant: 'acme', sub: 'svc-reports' })),
  'GET /admin/v1/api-keys': () => root('GET', '/api-keys'),
  'GET /admin/v1/api-keys/:id': async () => root('GET', `/api-keys/${(await apiKey()).id}`),
  'DELETE /admin/v1/api-keys/:id': async () => root('DELETE', `/api-keys/${(await apiKey()).id}`),
  'POST /admin/v1/api-keys/:order': async () => keyOf(await root('POST', `/api-keys/${(await apiKey()).id}:rotate`, {})),
  'POST /admin/v1/deployments': () => root('POST', '/deployments', deployment()),
  'GET /admin/v1/deployments': () => root('GET', '/deployments'),
  'GET /admin/v1/deployments/:id': () => root('GET', '/deployments/xai'),
  'PATCH /admin/v1/deployments/:id': async () => root('PATCH', `/deployments/${await idOf('/deployments', deployment())}`, { region: 'eu' }),
  'DELETE /admin/v1/deployments/:id': async () => root('DELETE', `/deployments/${await idOf('/deployments', deployment())}`),
  'GET /admin/v1/breakers': () => root('GET', '/breakers'),
  'POST /admin/v1/breakers/:order': () => root('POST', '/breakers/xai:reset'),
  'POST /admin/v1/siem-sinks': () => root('POST', '/siem-sinks', sink()),
  'GET /admin/v1/siem-sinks': () => root('GET', '/siem-sinks'),
  'GET /admin/v1/siem-sinks/:id': async () => root('GET', `/siem-sinks/${await idOf('/siem-sinks', sink())}`),
  'PATCH /admin/v1/siem-sinks/:id': async () => root('PATCH', `/siem-sinks/${await idOf('/siem-sinks', sink())}`, { enabled: false }),
  'DELETE /admin/v1/siem-sinks/:id': async () => root('DELETE', `/siem-sinks/${await idOf('/siem-sinks', sink())}`),
  'GET /admin/v1/siem-sinks/:id/parked': async () => root('GET', `/siem-sinks/${await idOf('/siem-sinks', sink())}/parked`),
  'GET /admin/v1/payloads/:request_id': async () => harness.request('GET', `/admin/v1/payloads/${await chatted()}?reason=a%20test`, { token: acmeAuditor }),
  'GET /admin/v1/retention': () => root('GET', '/retention'),
  'POST /admin/v1/retention:run': async () => {
    await chatted();
    movedMs += 8 * DAY_MS; // a standard tenant's text is kept for seven
    return root('POST', '/retention:run');
  },
  'POST /admin/v1/payload-keys/:order': async () => {
    await chatted();
    return root('POST', '/payload-keys/acme:rotate');
  },
  'GET /audit/v1/checkpoint': () => soon('checkpoint'),
  'GET /audit/v1/tile/*': () => soon('tile/0/000.p/1'),
  'GET /audit/v1/proof/:index': () => soon('proof/0'),
  'GET /audit/v1/leaf/:index': () => soon('leaf/0'),
  'GET /audit/v1/events': () => soon('events'),
};

describe('the table', () => {
  it('has one row for every closed route, and none for what is no route', () => {
    expect(rows.length).toBeGreaterThan(60);
    expect(rows.map(({ route }) => route).toSorted()).toEqual(closed().map(routeOf).toSorted());
  });

  it('has an example here for every row, and there is none for what is no row', () => {
    expect(Object.keys(EXAMPLES).toSorted()).toEqual(rows.map(({ route }) => route).toSorted());
  });

  it('stands above a list of public routes, which exist and need no token', async () => {
    const open = routes.filter(({ path }) => isPublic(path));
    expect(publicNames.filter((name) => !open.some(({ path }) => path === name || (name.endsWith('…') && path.startsWith(name.slice(0, -1)))))).toEqual([]);
    for (const { method, path } of open) expect([path, (await rawRequest(harness.url, path.replace('*', 'x'), { method })).status]).not.toEqual([path, 401]);
  });
});

describe('what is recorded of a request that succeeds, is what the table says:', () => {
  it.each(rows)('$route', async ({ route, kinds, receipts }) => {
    const example = EXAMPLES[route];
    if (example === undefined) throw new Error(`there is no example of ${route}`);
    const startedMs = clock.nowMs();
    const response = await example();
    const text = await response.text();
    expect([response.ok, response.ok ? '' : text]).toEqual([true, '']);
    const requestId = response.headers.get('x-request-id')!;
    requestIds.set(route, requestId);
    await eventually(async () => (await kindsBy(requestId)).length >= kinds.length, WAIT_MS).catch(() => {}); // the comparison says more
    expect(await kindsBy(requestId)).toEqual(kinds.toSorted());
    for (const { api } of await eventsBy(requestId)) expect(api.operation.replaceAll('::', ':')).toBe(route);
    if (receipts) await expectReceipts(text, startedMs);
  }, 60_000);

  it('and nothing came later', async () => {
    await settledLog();
    expect(requestIds.size).toBe(rows.length);
    for (const { route, kinds } of rows) expect([route, ...(await kindsBy(requestIds.get(route)!))]).toEqual([route, ...kinds.toSorted()]);
  }, 60_000);
});

/** As many as the run says that it destroyed, each of its own. */
async function expectReceipts(answer: string, startedMs: number): Promise<void> {
  const { complete, summary: { payloads } } = JSON.parse(answer) as { complete: boolean; summary: { payloads: { data_keys: number; epochs: number } } };
  expect([complete, payloads.data_keys > 0, payloads.epochs > 0]).toEqual([true, true, true]);
  const destroyed = (await events("event->'api'->>'operation' = 'retention' AND (event->>'time')::numeric >= $1", [startedMs])).map(({ activity_id: activity, unmapped: { novix } }) => ({ activity, ...novix }));
  expect(destroyed.filter(({ activity, object }) => object?.type === 'payload_data_key' && activity === 4)).toHaveLength(payloads.data_keys);
  expect(destroyed.filter(({ object, after }) => object?.type === 'payload_epoch' && (after as { state?: string } | null)?.state === 'destroyed')).toHaveLength(payloads.epochs);
}

/** A request of a route by its name, whatever becomes of it; its id. */
async function ask({ method, path }: Route, token: string | undefined): Promise<{ status: number; requestId: string }> {
  const answer = await rawRequest(harness.url, path.replaceAll(/\/:\w+/g, '/x').replace('*', '0/000.p/1'), {
    method, headers: { 'content-type': 'application/json', 'content-length': '2', ...(token !== undefined && { authorization: `Bearer ${token}` }) }, body: '{}',
  });
  return { status: answer.status, requestId: answer.headers['x-request-id'] as string };
}

/** The one record of each refusal, as far as it matters here. */
async function refusalsOf(asked: readonly Route[], token: string | undefined): Promise<unknown[]> {
  const found = [];
  for (const route of asked) found.push({ route, ...(await ask(route, token)) });
  await settledLog();
  return Promise.all(found.map(async ({ route, status, requestId }) => ({
    route: routeOf(route), status,
    records: (await eventsBy(requestId)).map((event) => ({
      operation: event.api.operation.replaceAll('::', ':'), class_uid: event.class_uid, status_id: event.status_id, status_code: event.status_code, phase: event.unmapped.novix.phase,
    })),
  })));
}

describe('a refusal is recorded', () => {
  it('without a token, as a failed authentication, on every closed route', async () => {
    expect(await refusalsOf(closed(), undefined)).toEqual(closed().map(routeOf).map((route) => (
      { route, status: 401, records: [{ operation: route, class_uid: 3002, status_id: 2, status_code: 'invalid_token', phase: 'refusal' }] })));
  }, 60_000);

  it('of a developer, on every route with roles', async () => {
    const withRoles = closed().filter(({ path }) => path.startsWith('/admin/') || path.startsWith('/audit/'));
    expect(withRoles.length).toBeGreaterThan(50);
    expect(await refusalsOf(withRoles, developer)).toEqual(withRoles.map(routeOf).map((route) => (
      { route, status: 403, records: [{ operation: route, class_uid: 6003, status_id: 2, status_code: 'policy_denied', phase: 'refusal' }] })));
  }, 60_000);
});

describe('a sign-in is recorded', () => {
  const use = async (token: string, url = harness.url): Promise<string> => {
    const response = await completeAt(url, token, { messages: [{ role: 'user', content: PROMPT }] });
    await response.text();
    expect(response.status).toBe(200);
    return response.headers.get('x-request-id')!;
  };

  it('at the first use of a token, once a gateway', async () => {
    const token = await mint();
    const requests = [await use(token), await use(token)];
    const replica = await startReplica(harness, {}, clock);
    try {
      requests.push(await use(token, replica.url), await use(token, replica.url));
      await settledLog();
    } finally {
      await replica.close();
    }
    const seen = await events("event->'actor'->'session'->>'uid' = $1 AND event->>'class_uid' = '3002'", [decodeJwt(token).jti]);
    expect(seen.map(({ status_id: status, unmapped: { novix } }) => `${status} ${novix.phase} ${novix.sign_in?.first_request}`).toSorted()).toEqual([requests[0], requests[2]].map((id) => `1 change ${id}`).toSorted());
  }, 60_000);

  it('at the first use of an API key', async () => {
    const { key } = await apiKey();
    const requests = [await use(key), await use(key)];
    await settledLog();
    expect((await signIns(requests)).map((event) => [event.class_uid, event.status_id, event.unmapped.novix.phase, event.unmapped.novix.sign_in?.first_request])).toEqual([[3002, 1, 'change', requests[0]]]);
  }, 60_000);
});

it('no event holds a token, a key or a prompt', async () => {
  await settledLog();
  const { rows: texts } = await harness.db.query<{ text: string }>('SELECT event::text AS text FROM audit_events');
  expect(texts.length).toBeGreaterThan(200);
  expect([...secrets].filter((secret) => texts.some(({ text }) => text.includes(secret)))).toEqual([]);
}, 60_000);
