import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { expectError } from '../../support/wire.ts';

const PROBES = ['/livez', '/readyz', '/startupz', '/health/liveliness', '/health/readiness'];

let harness: Harness;
/** With a management port. */
let managed: Harness;
beforeAll(async () => {
  [harness, managed] = await Promise.all([startHarness(), startHarness({ env: { MANAGEMENT_PORT: '0' } })]);
});
afterAll(async () => {
  await Promise.all([harness.close(), managed.close()]);
});

function get(path: string, at = harness): Promise<Response> {
  return at.request('GET', path, { token: null });
}

describe('probes', () => {
  it.each(PROBES)('%s answers 200 to anyone', async (path) => {
    const response = await get(path);
    expect(response.status).toBe(200);
    expect(((await response.json()) as { status: string }).status).toBe('ok');
  });

  it('/readyz says what it has looked at, and the provider is no part of it', async () => {
    const body = (await (await get('/readyz')).json()) as { details: Record<string, { status: string }> };
    expect(body.details).toMatchObject({ database: { status: 'up' }, identity: { status: 'up' } });
    expect(Object.keys(body.details).join()).not.toMatch(/provider|xai|grok/i);
  });

  it('the answers of probes are never stored', async () => {
    for (const path of ['/readyz', '/startupz', '/health/readiness']) expect((await get(path)).headers.get('cache-control')).toBe('no-store');
  });

  it('say nothing of tenants, addresses or versions of the database', async () => {
    for (const path of PROBES) expect(await (await get(path)).text()).not.toMatch(/acme|postgres|127\.0\.0\.1|test_/i);
  });
});

describe('/metrics', () => {
  it('is Prometheus text that counts calls by model and outcome, charged tokens and refusals', async () => {
    await (await harness.complete()).text();
    await (await harness.complete({ x_emulator: { status: 503 } })).text();
    await (await harness.request('GET', '/v1/models', { token: 'garbage' })).text();
    const response = await get('/metrics');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    const text = await response.text();
    for (const line of text.split('\n').filter((candidate) => candidate !== '' && !candidate.startsWith('#'))) expect(line).toMatch(/^[a-zA-Z_:][\w:]*(\{[^}]*\})? (NaN|[+-]?(Inf|\d+(\.\d+)?(e[+-]?\d+)?))$/);
    expect(text).toMatch(/^novix_\w*calls\w*\{[^}]*outcome="completed"[^}]*\} 1$/m);
    expect(text).toMatch(/^novix_\w*calls\w*\{[^}]*outcome="failed"[^}]*\} 1$/m);
    await eventually(async () => (await (await get('/metrics')).text()).match(/^novix_refusals_total\{code="invalid_token",recorded="event"\} 1$/m) !== null);
    expect(text).toMatch(/^process_cpu_seconds_total /m);
  });

  it('names no tenant, no person and no request', async () => {
    const text = await (await get('/metrics')).text();
    expect(text).not.toMatch(/acme|dev@acme|Say hello|[0-9a-f]{8}-[0-9a-f]{4}-/);
  });
});

describe('/openapi.json and /docs', () => {
  it('describe the API to anyone', async () => {
    const response = await get('/openapi.json');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^application\/json/);
    expect(await response.json()).toMatchObject({ openapi: expect.stringMatching(/^3\.1\./), paths: { '/v1/chat/completions': {} } });
    const page = await get('/docs');
    expect(page.status).toBe(200);
    expect(page.headers.get('content-type')).toMatch(/^text\/html/);
    expect(await page.text()).toContain('<title>Novix Gateway API</title>');
  });

  it('the page finds its scripts here, not on a stranger’s server', async () => {
    const page = await (await get('/docs')).text();
    const sources = [...page.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, source]) => source!);
    expect(sources.length).toBeGreaterThan(2);
    for (const source of sources) {
      expect(source).not.toMatch(/^(https?:)?\/\//);
      const response = await fetch(new URL(source, `${harness.url}/docs`));
      expect([source, response.status]).toEqual([source, 200]);
      await response.arrayBuffer();
    }
  });
});

describe('with MANAGEMENT_PORT', () => {
  it.each([...PROBES, '/metrics'])('%s is on that port, and not on the main one', async (path) => {
    expect((await fetch(`${managed.gateway.managementUrl}${path}`)).status).toBe(200);
    await expectError(await get(path, managed), 404, 'not_found');
  });

  it.each(['/v1/models', '/v1/chat/completions', '/admin/v1/tenants', '/docs', '/openapi.json'])('%s is not on that port', async (path) => {
    expect((await fetch(`${managed.gateway.managementUrl}${path}`)).status).toBe(404);
  });

  it('the main port serves all else', async () => {
    const response = await managed.complete();
    expect(response.status).toBe(200);
    await response.text();
  });
});

describe('a gateway that is stopping', () => {
  it('fails readiness at once, though it still serves', async () => {
    const stopping = await startHarness({ env: { DRAIN_DELAY_MS: '1000' } });
    const closed = stopping.close();
    const ready = await get('/readyz', stopping);
    expect(ready.status).toBe(503);
    expect(await ready.json()).toMatchObject({ status: 'error', error: { serving: { status: 'down' } } });
    expect((await get('/livez', stopping)).status).toBe(200);
    const answer = await stopping.complete();
    expect(answer.status).toBe(200);
    await answer.text();
    await closed;
    await expect(get('/livez', stopping)).rejects.toThrow('fetch failed');
  });
});
