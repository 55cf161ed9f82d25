import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startHarness, type Harness } from '../support/harness.ts';
import { parseRoutes, routesOf, WILDCARDS } from '../support/routes.ts';
import { rawRequest, type ErrorAnswer } from '../support/wire.ts';

/** Open to anyone, each for a reason. A route that is not here must be closed. */
const PUBLIC: Record<string, string> = {
  '/livez': 'probes have no token',
  '/readyz': 'probes have no token',
  '/startupz': 'probes have no token',
  '/health/liveliness': 'probes have no token',
  '/health/readiness': 'probes have no token',
  '/metrics': 'scrapers have no token, and no label names a tenant or a person',
  '/openapi.json': 'says nothing that the source does not',
  '/audit/v1/keys': 'public keys, of use only to whoever got them by another way too',
  '/docs': 'shows /openapi.json',
  '/docs/*': 'its scripts and styles',
};

let harness: Harness;
let routes: { method: string; path: string }[];
beforeAll(async () => {
  harness = await startHarness();
  routes = routesOf(harness.gateway.app);
});
afterAll(async () => {
  await harness.close();
});

function isPublic(path: string): boolean {
  return Object.hasOwn(PUBLIC, path) || (path.startsWith('/docs/') && Object.hasOwn(PUBLIC, '/docs/*'));
}

describe('every route', () => {
  it('is seen by this test: the ones that matter are among them', () => {
    const seen = routes.map(({ method, path }) => `${method} ${path}`);
    expect(seen).toEqual(expect.arrayContaining([
      'POST /v1/chat/completions', 'GET /v1/models', 'GET /v1/models/:id', 'HEAD /v1/models', 'POST /admin/v1/tenants', 'GET /admin/v1/budgets/:id', 'PATCH /admin/v1/budgets/:id', 'GET /readyz', 'GET /openapi.json',
      'GET /audit/v1/keys', 'GET /audit/v1/checkpoint', 'GET /audit/v1/tile/*', 'GET /audit/v1/proof/:index', 'GET /audit/v1/leaf/:index', 'GET /audit/v1/events',
    ]));
  });

  it('that ends in a wildcard is one that this test knows', () => {
    const fastify = harness.gateway.app.getHttpAdapter().getInstance() as { hasRoute(route: { method: string; url: string }): boolean; printRoutes(options: object): string };
    expect(WILDCARDS.filter((url) => !fastify.hasRoute({ method: 'GET', url }))).toEqual([]);
    expect(parseRoutes(fastify.printRoutes({ commonPrefix: false })).filter(({ method, path }) => path === '*' && method === 'GET')).toHaveLength(WILDCARDS.length);
  });

  it('answers 401 without a token, unless it is on the short list of public ones', async () => {
    const open: string[] = [];
    const closed = routes.filter(({ path }) => !isPublic(path));
    expect(closed.length).toBeGreaterThan(10);
    for (const { method, path } of closed) {
      const answer = await rawRequest(harness.url, path.replaceAll(/\/:\w+/g, '/x').replace('*', 'x'), { method, headers: { 'content-type': 'application/json', 'content-length': '2' }, body: '{}' });
      const code = method === 'HEAD' || answer.body === '' ? undefined : (JSON.parse(answer.body) as ErrorAnswer).error.code;
      if (!(answer.status === 401 && (code === 'invalid_token' || method === 'HEAD')) && !(answer.status === 404 && code === 'not_found')) open.push(`${method} ${path}: ${answer.status} ${code}`);
    }
    expect(open).toEqual([]);
  });

  it('that is public only reads', () => {
    expect(routes.filter(({ path }) => isPublic(path)).map(({ method }) => method).filter((method) => method !== 'GET' && method !== 'HEAD')).toEqual([]);
  });

  it('on the list of public ones exists', () => {
    const paths = new Set(routes.map(({ path }) => path));
    for (const path of Object.keys(PUBLIC)) expect([path, paths.has(path)]).toEqual([path, true]);
  });

  it('under /audit is closed to a developer, but for the keys', async () => {
    const token = await harness.token();
    const audit = routes.filter(({ method, path }) => path.startsWith('/audit/') && method !== 'HEAD' && !isPublic(path));
    expect(audit.length).toBeGreaterThan(4);
    for (const { method, path } of audit) {
      const answer = await rawRequest(harness.url, path.replaceAll(/\/:\w+/g, '/0').replace('*', '0/000.p/1'), { method, headers: { authorization: `Bearer ${token}` } });
      expect([method, path, answer.status, (JSON.parse(answer.body) as ErrorAnswer).error.code]).toEqual([method, path, 403, 'policy_denied']);
    }
  });

  it('under /admin is closed to a developer', async () => {
    const token = await harness.token();
    const admin = routes.filter(({ method, path }) => path.startsWith('/admin/') && method !== 'HEAD');
    expect(admin.length).toBeGreaterThan(7);
    for (const { method, path } of admin) {
      const answer = await rawRequest(harness.url, path.replaceAll(/\/:\w+/g, '/acme'), { method, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-length': '2' }, body: '{}' });
      expect([method, path, answer.status, (JSON.parse(answer.body) as ErrorAnswer).error.code]).toEqual([method, path, 403, 'policy_denied']);
    }
  });
});
