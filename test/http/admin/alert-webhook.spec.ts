import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createHmac, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';

const KEY = randomBytes(32);

interface Told {
  headers: IncomingMessage['headers'];
  body: string;
  data: { id: string; type: string; subject: string; state: string; value: string };
}

let receiver: Server;
let told: Told[];
/** How the receiver answers, first to last; then 204. */
let answers: { status: number; headers?: Record<string, string> }[];
let harness: Harness;
beforeEach(async () => {
  told = [];
  answers = [];
  receiver = createServer((request, response) => {
    let body = '';
    request.on('data', (part: Buffer) => (body += part.toString()));
    request.on('end', () => {
      const { status, headers = {} } = answers.shift() ?? { status: 204 };
      told.push({ headers: request.headers, body, data: (JSON.parse(body) as { data: Told['data'] }).data });
      response.writeHead(status, headers).end();
    });
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => receiver.once('listening', resolve));
});
afterEach(async () => {
  await harness.close();
  receiver.closeAllConnections();
  await new Promise((resolve) => receiver.close(resolve));
});

async function start(): Promise<void> {
  const { port } = receiver.address() as AddressInfo;
  harness = await startHarness({ env: { NOVIX_ALERT_WEBHOOK_URL: `http://127.0.0.1:${port}/alerts`, NOVIX_ALERT_WEBHOOK_SECRET: `whsec_${KEY.toString('base64')}` } });
}

const FIRE = "INSERT INTO alerts (id, type, subject, occasion, state, value) VALUES ($1, 'price_drift', $2, $2, 'firing', 'v')";
const idOf = (number: number): string => `0192f3a4-0000-7000-8000-00000000000${number}`;

describe('the alert webhook', () => {
  it('is told of an alert, signed as Standard Webhooks says, and of its end', async () => {
    await start();
    const admin = await harness.adminToken();
    await harness.request('POST', '/admin/v1/tenants', { token: admin, body: { id: 'small', name: 'Small', tier: 'standard' } });
    await harness.request('POST', '/admin/v1/budgets', { token: admin, body: { tenant: 'small', scope: { type: 'tenant' }, window: 'total', limit_usd: '1.00', warn_at: [0.000001] } });
    await (await harness.request('POST', '/v1/chat/completions', { token: await harness.token({ tenant: 'small' }), body: { model: 'grok-beta', messages: [{ role: 'user', content: 'Hello.' }] } })).text();
    const first = await eventually(() => Promise.resolve(told[0]), 10_000);
    expect(first.data).toMatchObject({ type: 'budget_threshold', state: 'firing' });
    const { 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signature } = first.headers;
    expect(signature).toBe(`v1,${createHmac('sha256', KEY).update(`${String(id)}.${String(at)}.${first.body}`).digest('base64')}`);
    expect(Math.abs(Number(at) - Date.now() / 1000)).toBeLessThan(30);
    await harness.db.query("UPDATE alerts SET state = 'resolved', resolved_at = now()");
    const second = await eventually(() => Promise.resolve(told[1]), 10_000);
    expect(second.data).toMatchObject({ id: first.data.id, state: 'resolved' });
    expect(second.headers['webhook-id']).not.toBe(id);
  });

  it('gets them in order and under the same id again, until it takes them', async () => {
    answers = [{ status: 500 }, { status: 302, headers: { location: 'http://127.0.0.1:1/elsewhere' } }];
    await start();
    for (const number of [1, 2, 3]) await harness.db.query(FIRE, [idOf(number), `model-${number}`]);
    await eventually(() => Promise.resolve(told.length >= 5 ? true : undefined), 25_000);
    expect(told.map(({ data }) => data.subject)).toEqual(['model-1', 'model-1', 'model-1', 'model-2', 'model-3']);
    expect(new Set(told.slice(0, 3).map(({ headers }) => headers['webhook-id'])).size).toBe(1);
    expect(await (await harness.request('GET', '/metrics')).text()).toContain('novix_alert_webhook_failures_total 2');
  }, 40_000);

  it('waits as long as it says', async () => {
    answers = [{ status: 429, headers: { 'retry-after': '4' } }];
    await start();
    await harness.db.query(FIRE, [idOf(1), 'model']);
    await eventually(() => Promise.resolve(told[0]), 10_000);
    const toldAtMs = performance.now();
    await eventually(() => Promise.resolve(told[1]), 15_000);
    expect(performance.now() - toldAtMs).toBeGreaterThan(3_900);
  }, 30_000);

  it('is not told of what is older than a week', async () => {
    await start();
    await harness.db.query("INSERT INTO alerts (id, type, subject, occasion, state, value, fired_at) VALUES ($1, 'price_drift', 'old', 'old', 'firing', 'v', now() - interval '8 days')", [idOf(1)]);
    await harness.db.query(FIRE, [idOf(2), 'new']);
    await eventually(() => Promise.resolve(told.find(({ data }) => data.subject === 'new')), 10_000);
    expect(told.map(({ data }) => data.subject)).toEqual(['new']);
  });

  it('is told of the end of what it was told of, however long that lasted', async () => {
    await start();
    await harness.db.query("INSERT INTO alerts (id, type, subject, occasion, state, value, fired_at, resolved_at, told_state) VALUES ($1, 'budget_threshold', 'long', 'long', 'resolved', 'v', now() - interval '20 days', now(), 'firing')", [idOf(1)]);
    await eventually(() => Promise.resolve(told[0]), 10_000);
    expect(told[0]!.data).toMatchObject({ subject: 'long', state: 'resolved' });
  });
});
