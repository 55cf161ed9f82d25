import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { Compile } from 'typebox/schema';
import { routesOf } from '../support/routes.ts';
import { startHarness, type Harness } from '../support/harness.ts';
import { ticksOf } from '../support/records.ts';

interface Operation {
  operationId: string;
  summary?: string;
  security?: Record<string, string[]>[];
  parameters?: { name: string; in: string; required?: boolean; schema: JsonSchema; description?: string }[];
  requestBody?: { required?: boolean; content: Record<string, { schema: JsonSchema }> };
  responses: Record<string, { description: string; content?: Record<string, { schema: JsonSchema }> }>;
}
type JsonSchema = Record<string, unknown>;
interface Document {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { securitySchemes: Record<string, { type: string; scheme: string }>; schemas?: Record<string, JsonSchema> };
}

let harness: Harness;
let document: Document;
let operations: { name: string; method: string; path: string; operation: Operation }[];
beforeAll(async () => {
  harness = await startHarness();
  document = (await (await fetch(`${harness.url}/openapi.json`)).json()) as Document;
  operations = Object.entries(document.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ name: `${method.toUpperCase()} ${path}`, method, path, operation })));
});
afterAll(async () => {
  await harness.close();
});

const secured = (): typeof operations => operations.filter(({ path }) => path.startsWith('/v1/') || path.startsWith('/admin/'));

/** Every schema of the document, with where it stands. */
function schemas(): [string, JsonSchema][] {
  return operations.flatMap(({ name, operation }) => [
    ...(operation.parameters ?? []).map((parameter): [string, JsonSchema] => [`${name} ${parameter.name}`, parameter.schema]),
    ...Object.values(operation.requestBody?.content ?? {}).map(({ schema }): [string, JsonSchema] => [`${name} request`, schema]),
    ...Object.entries(operation.responses).flatMap(([status, { content }]) => Object.entries(content ?? {}).map(([type, { schema }]): [string, JsonSchema] => [`${name} ${status} ${type}`, schema])),
  ]);
}

/** What is wrong with a schema of OpenAPI 3.1, which is JSON Schema 2020-12: unknown keywords and misplaced values, `nullable` of 3.0 among them. */
function faultsOf(schema: unknown, at: string): string[] {
  if (typeof schema === 'boolean') return [];
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return [`${at}: no schema`];
  const types = ['string', 'number', 'integer', 'boolean', 'object', 'array', 'null'];
  const number = (value: unknown): boolean => typeof value === 'number';
  const text = (value: unknown): boolean => typeof value === 'string';
  const pattern = (value: unknown): boolean => {
    try {
      return Boolean(new RegExp(String(value), 'u'));
    } catch {
      return false; // SyntaxError
    }
  };
  const nested = (value: unknown, name: string): string[] => faultsOf(value, `${at}/${name}`);
  const list = (value: unknown, name: string): string[] => (Array.isArray(value) && value.length > 0 ? value.flatMap((member, index) => nested(member, `${name}/${index}`)) : [`${at}: ${name}`]);
  const map = (value: unknown, name: string): string[] => (typeof value === 'object' && value !== null ? Object.entries(value).flatMap(([key, member]) => nested(member, `${name}/${key}`)) : [`${at}: ${name}`]);
  const check = (right: boolean, name: string): string[] => (right ? [] : [`${at}: ${name}`]);
  const keywords: Record<string, (value: unknown) => string[]> = {
    type: (value) => check((Array.isArray(value) ? value : [value]).every((one) => types.includes(one as string)), 'type'),
    const: () => [], default: () => [], examples: (value) => check(Array.isArray(value), 'examples'),
    enum: (value) => check(Array.isArray(value) && value.length > 0 && new Set(value).size === value.length, 'enum'),
    title: (value) => check(text(value), 'title'), description: (value) => check(text(value), 'description'), format: (value) => check(text(value), 'format'), pattern: (value) => check(pattern(value), 'pattern'),
    minLength: (value) => check(number(value), 'minLength'), maxLength: (value) => check(number(value), 'maxLength'), minItems: (value) => check(number(value), 'minItems'), maxItems: (value) => check(number(value), 'maxItems'),
    minimum: (value) => check(number(value), 'minimum'), maximum: (value) => check(number(value), 'maximum'), exclusiveMinimum: (value) => check(number(value), 'exclusiveMinimum'), exclusiveMaximum: (value) => check(number(value), 'exclusiveMaximum'),
    minProperties: (value) => check(number(value), 'minProperties'), maxProperties: (value) => check(number(value), 'maxProperties'), multipleOf: (value) => check(number(value), 'multipleOf'),
    required: (value) => check(Array.isArray(value) && value.every(text), 'required'), properties: (value) => map(value, 'properties'), patternProperties: (value) => map(value, 'patternProperties'),
    additionalProperties: (value) => nested(value, 'additionalProperties'), items: (value) => nested(value, 'items'), not: (value) => nested(value, 'not'),
    anyOf: (value) => list(value, 'anyOf'), oneOf: (value) => list(value, 'oneOf'), allOf: (value) => list(value, 'allOf'), $ref: (value) => check(resolves(String(value)), '$ref'),
  };
  const unknown = Object.keys(schema).filter((name) => !Object.hasOwn(keywords, name) && !name.startsWith('x-')).map((name) => `${at}: unknown keyword ${name}`);
  const required = ((schema as { required?: string[] }).required ?? []).filter((name) => !Object.hasOwn((schema as { properties?: object }).properties ?? {}, name)).map((name) => `${at}: requires ${name}, which it does not describe`);
  return [...unknown, ...required, ...Object.entries(schema).flatMap(([name, value]) => keywords[name]?.(value) ?? [])];
}

function resolves(reference: string): boolean {
  return reference.startsWith('#/') && reference.slice(2).split('/').reduce<unknown>((value, part) => (value as Record<string, unknown> | undefined)?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], document) !== undefined;
}

describe('the OpenAPI document', () => {
  it('is OpenAPI 3.1 with the fields that it must have, and none that is unknown', () => {
    expect(document.openapi).toMatch(/^3\.1\.\d+$/);
    expect(document.info).toMatchObject({ title: expect.any(String), version: expect.any(String) });
    const known = ['openapi', 'info', 'jsonSchemaDialect', 'servers', 'paths', 'webhooks', 'components', 'security', 'tags', 'externalDocs'];
    expect(Object.keys(document).filter((name) => !known.includes(name))).toEqual([]);
    expect(document.components.securitySchemes['bearer']).toMatchObject({ type: 'http', scheme: 'bearer' });
    const ofOperation = ['tags', 'summary', 'description', 'externalDocs', 'operationId', 'parameters', 'requestBody', 'responses', 'callbacks', 'deprecated', 'security', 'servers'];
    for (const { name, operation } of operations) expect([name, Object.keys(operation).filter((key) => !ofOperation.includes(key))]).toEqual([name, []]);
  });

  it('has schemas of JSON Schema 2020-12, which compile', () => {
    expect(schemas().length).toBeGreaterThan(50);
    expect(schemas().flatMap(([at, schema]) => faultsOf(schema, at))).toEqual([]);
    for (const [, schema] of schemas()) Compile(schema);
  });

  it('names every operation once, by a name that is one in any language', () => {
    const names = operations.map(({ operation }) => operation.operationId);
    expect(new Set(names).size).toBe(names.length);
    expect(names.filter((name) => !/^[A-Za-z]\w*$/.test(name))).toEqual([]);
  });

  it('describes every parameter of every path, and no other', () => {
    for (const { name, path, operation } of operations) {
      const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter!);
      const described = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path');
      expect([name, described.map((parameter) => parameter.name).toSorted()]).toEqual([name, inPath.toSorted()]);
      for (const parameter of described) expect([name, parameter.required]).toEqual([name, true]);
    }
  });

  it('has every route of /v1, /admin and /audit that is served', () => {
    const served = routesOf(harness.gateway.app).map(({ path }) => path).filter((path) => /^\/(?:v1|admin|audit)\//.test(path)).map((path) => path.replaceAll(/(?<=\/):\w+/g, (name) => `{${name.slice(1)}}`).replace('/*', '/{path}'));
    expect(served).toContain('/v1/chat/completions');
    expect(served.filter((path) => !Object.hasOwn(document.paths, path))).toEqual([]);
  });

  it('says of every operation of /v1 and /admin what goes in, what comes out, and how it fails', () => {
    expect(secured().length).toBeGreaterThan(10);
    const missing = secured().flatMap(({ name, method, path, operation }) => {
      const faults: string[] = [];
      const statuses = Object.keys(operation.responses);
      if (JSON.stringify(operation.security) !== '[{"bearer":[]}]') faults.push(`${name}: security`);
      const good = statuses.filter((status) => status.startsWith('2'));
      if (good.length !== 1 || operation.responses[good[0]!]!.content?.['application/json'] === undefined) faults.push(`${name}: a good answer as JSON`);
      // An order says all in its path.
      const withBody = (method === 'post' && !/(?:\/\{order\}|:run)$/.test(path)) || method === 'patch' || method === 'put';
      if (withBody && operation.requestBody?.content['application/json'] === undefined) faults.push(`${name}: request body`);
      if (withBody && operation.requestBody?.required !== true) faults.push(`${name}: its body is required`);
      const expected = ['401', '429', '503', ...(withBody ? ['400', '413', '415'] : []), ...(path.startsWith('/admin/') ? ['403'] : []), ...(path.includes('{') ? ['404'] : [])];
      faults.push(...expected.filter((status) => !statuses.includes(status)).map((status) => `${name}: ${status}`));
      for (const status of statuses.filter((one) => !one.startsWith('2'))) {
        const schema = operation.responses[status]!.content?.['application/json']?.schema as { properties?: { error?: { required?: string[] } } } | undefined;
        if (JSON.stringify(schema?.properties?.error?.required?.toSorted()) !== '["code","message","param","type"]') faults.push(`${name}: ${status} has no error schema`);
      }
      return faults;
    });
    expect(missing).toEqual([]);
  });

  it('knows the streams, and the headers that a caller may send', () => {
    const { responses, parameters } = document.paths['/v1/chat/completions']!['post']!;
    expect(Object.keys(responses['200']!.content!).toSorted()).toEqual(['application/json', 'text/event-stream']);
    expect(parameters!.filter((parameter) => parameter.in === 'header').map(({ name }) => name)).toEqual(expect.arrayContaining(['x-novix-max-cost-usd', 'x-novix-data-class', 'x-novix-deadline-ms']));
  });
});

describe('what is served fits what is described', () => {
  /** What of a live answer does not fit the schema that the document has for it. */
  async function misfits(path: string, method: string, response: Response): Promise<unknown[]> {
    const schema = document.paths[path]![method]!.responses[String(response.status)]?.content?.['application/json']?.schema;
    const name = `${method} ${path} ${response.status}`;
    const body: unknown = await response.json();
    return schema === undefined ? [`${name} is not described`] : Compile(schema).Errors(body)[1].map((fault) => ({ name, ...fault }));
  }

  it('in good answers', async () => {
    const token = await harness.adminToken();
    expect(await misfits('/v1/models', 'get', await harness.request('GET', '/v1/models'))).toEqual([]);
    expect(await misfits('/v1/models/{id}', 'get', await harness.request('GET', '/v1/models/grok-pro'))).toEqual([]);
    expect(await misfits('/v1/chat/completions', 'post', await harness.complete({ n: 2 }))).toEqual([]);
    expect(await misfits('/v1/chat/completions', 'post', await harness.complete({ tools: [{ type: 'function', function: { name: 'f' } }], tool_choice: 'required' }))).toEqual([]);
    expect(await misfits('/admin/v1/tenants', 'get', await harness.request('GET', '/admin/v1/tenants', { token }))).toEqual([]);
    expect(await misfits('/admin/v1/tenants', 'post', await harness.request('POST', '/admin/v1/tenants', { token, body: { id: 'described', name: 'Described', tier: 'standard' } }))).toEqual([]);
    expect(await misfits('/admin/v1/budgets', 'post', await harness.request('POST', '/admin/v1/budgets', { token, body: { tenant: 'described', scope: { type: 'tenant' }, window: 'total', limit_usd: '1' } }))).toEqual([]);
    expect(await misfits('/admin/v1/budgets', 'get', await harness.request('GET', '/admin/v1/budgets', { token }))).toEqual([]);
  });

  it('in errors', async () => {
    expect(await misfits('/v1/chat/completions', 'post', await harness.complete({ n: 0 }))).toEqual([]);
    expect(await misfits('/v1/chat/completions', 'post', await harness.complete({}, { 'x-novix-data-class': 'restricted' }))).toEqual([]);
    expect(await misfits('/v1/chat/completions', 'post', await harness.complete({}, { 'x-novix-max-cost-usd': '0' }))).toEqual([]);
    expect(await misfits('/v1/chat/completions', 'post', await harness.complete({ x_emulator: { status: 503 } }))).toEqual([]);
    expect(await misfits('/v1/models', 'get', await harness.request('GET', '/v1/models', { token: null }))).toEqual([]);
    expect(await misfits('/admin/v1/tenants', 'post', await harness.request('POST', '/admin/v1/tenants', { body: {} }))).toEqual([]);
    expect(await misfits('/admin/v1/tenants', 'post', await harness.request('POST', '/admin/v1/tenants', { token: await harness.adminToken(), body: { id: 'acme', name: 'Acme', tier: 'standard' } }))).toEqual([]);
  });

  it('in the chunks of a stream', async () => {
    const response = await harness.complete({ stream: true, stream_options: { include_usage: true } });
    const check = Compile(document.paths['/v1/chat/completions']!['post']!.responses['200']!.content!['text/event-stream']!.schema);
    const frames = (await response.text()).split('\n\n').filter((frame) => frame.startsWith('data: {'));
    expect(frames.length).toBeGreaterThan(5);
    for (const frame of frames) expect(check.Errors(JSON.parse(frame.slice(6)))[1]).toEqual([]);
  });
});

/** Uses the generated client as a stranger would, and prints what came. Compiled strictly: a type that is too narrow or too wide stops it. */
const CONSUMER = `
import { createClient } from './client/client/index.js';
import { budgetsCreate, budgetsList, completionsCreate, modelsList, tenantsGet } from './client/sdk.gen.js';

const baseUrl: string = process.argv[2]!;
const developer = createClient({ baseUrl, auth: process.argv[3]! });
const admin = createClient({ baseUrl, auth: process.argv[4]! });

const budget = await budgetsCreate({ client: admin, body: { tenant: 'acme', scope: { type: 'user', id: 'typed' }, window: 'day', limit_usd: '12.50', warn_at: [0.5] } });
const limit: string | undefined = budget.data?.limit_usd;
const again = await budgetsCreate({ client: admin, body: { tenant: 'acme', scope: { type: 'user', id: 'typed' }, window: 'day', limit_usd: '12.50' } });
const conflict: string | undefined = again.error?.error.code;
const budgets = await budgetsList({ client: admin, query: { limit: 200 } });
const spent: string[] = budgets.data?.data.map((one) => one.spent_usd) ?? [];
const tenant = await tenantsGet({ client: admin, path: { id: 'acme' } });
const tier: 'standard' | 'enterprise' | 'government' | undefined = tenant.data?.tier;
const models = await modelsList({ client: developer });
const ids: string[] = models.data?.data.map((model) => model.id) ?? [];
const completion = await completionsCreate({
  client: developer, headers: { 'x-novix-max-cost-usd': '0.50', 'x-novix-data-class': 'internal' },
  body: { model: 'grok-beta', messages: [{ role: 'user', content: [{ type: 'text', text: 'Say hello.' }] }], temperature: 0.5, max_completion_tokens: 100 },
});
const called = await completionsCreate({
  client: developer,
  body: {
    model: 'grok-beta', tool_choice: 'required', tools: [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } }],
    messages: [
      { role: 'user', content: 'The weather?' }, { role: 'assistant', content: null, tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{}' } }] },
      { role: 'tool', tool_call_id: 'call_1', content: 'sunny' },
    ],
  },
});
const structured = await completionsCreate({
  client: developer,
  body: { model: 'grok-beta', messages: [{ role: 'user', content: 'How old?' }], response_format: { type: 'json_schema', json_schema: { name: 'age', schema: { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'] } } } },
});
const answer = completion.data;
const content: string | null | undefined = answer !== undefined && 'message' in (answer.choices[0] ?? {}) ? (answer.choices[0] as { message: { content: string | null } }).message.content : undefined;
const denied = await modelsList({ client: createClient({ baseUrl, auth: 'garbage' }) });
console.log(JSON.stringify({ limit, conflict, spent: spent.length, tier, ids, content, costTicks: answer?.usage?.cost_in_usd_ticks, denied: denied.error?.error.code, status: denied.response?.status, others: [called.response?.status, structured.response?.status] }));
`;

describe('a typed client that a stranger generates from the document', () => {
  const run = promisify(execFile);
  const bin = (path: string): string => resolve('node_modules', path);

  it('compiles strictly, and talks to the gateway', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'novix-typed-client-')); // not inside node_modules, whose sources tsc does not emit
    try {
      await writeFile(join(folder, 'openapi.json'), JSON.stringify(document));
      await writeFile(join(folder, 'package.json'), '{"type":"module"}');
      await writeFile(join(folder, 'consumer.ts'), CONSUMER);
      await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({
        compilerOptions: { module: 'nodenext', target: 'es2024', lib: ['es2024', 'dom', 'dom.iterable'], types: ['node'], typeRoots: [bin('@types')], strict: true, noUncheckedIndexedAccess: true, skipLibCheck: true, rootDir: '.', outDir: 'out' }, files: ['consumer.ts'],
      }));
      await run(process.execPath, [bin('@hey-api/openapi-ts/bin/run.js'), '-i', 'openapi.json', '-o', 'client', '-c', '@hey-api/client-fetch'], { cwd: folder });
      const compiled = await run(bin('.bin/tsc'), ['-p', '.'], { cwd: folder }).catch((error: unknown) => error as { stdout: string });
      expect(compiled.stdout).toBe('');
      const { stdout } = await run(process.execPath, ['out/consumer.js', harness.url, await harness.token(), await harness.adminToken()], { cwd: folder });
      const outcome = JSON.parse(stdout) as Record<string, unknown>;
      expect(outcome).toMatchObject({
        limit: '12.50', conflict: 'already_exists', spent: expect.any(Number), tier: 'standard', ids: expect.arrayContaining(['grok-beta', 'grok-4.7']), content: expect.stringMatching(/^This text stands in/), denied: 'invalid_token', status: 401, others: [200, 200],
      });
      expect(outcome['costTicks']).toBe(Number(harness.emulator.calls.at(-3)!.billedUsdTicks));
      expect(ticksOf(String(outcome['limit']))).toBe(125_000_000_000n);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
