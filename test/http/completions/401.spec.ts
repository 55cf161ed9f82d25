import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { importPKCS8, SignJWT, exportSPKI, generateKeyPair, importJWK, type CryptoKey, type JWTPayload } from 'jose';
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { HELLO, startHarness, type Harness } from '../../support/harness.ts';
import { eventOf, eventsOf } from '../../support/records.ts';
import { expectError, rawRequest, type ErrorAnswer } from '../../support/wire.ts';

let harness: Harness;
/** The issuer's own key: with it, tests make tokens that are wrong in exactly one respect. */
let key: CryptoKey;
let otherKey: CryptoKey;
let rsaKey: CryptoKey;
let publicJwk: Record<string, string>;
let publicPem: string;
let good: string;

beforeAll(async () => {
  harness = await startHarness();
  key = await importPKCS8(await readFile(join(harness.settings.dataDir, 'issuer.pem'), 'utf8'), 'ES256', { extractable: true });
  otherKey = (await generateKeyPair('ES256')).privateKey;
  rsaKey = (await generateKeyPair('RS256')).privateKey;
  const jwks = (await (await fetch(harness.settings.identity!.jwksUri!)).json()) as { keys: Record<string, string>[] };
  publicJwk = jwks.keys[0]!;
  publicPem = await exportSPKI((await importJWK(publicJwk, 'ES256', { extractable: true })) as CryptoKey);
  good = await sign();
});
afterAll(async () => {
  await harness.close();
});

function claims(change: Record<string, unknown> = {}): JWTPayload {
  const now = Math.floor(Date.now() / 1000);
  const { issuer, audience } = harness.settings.identity!;
  return { iss: issuer, aud: audience, sub: 'dev@acme.example', jti: crypto.randomUUID(), iat: now, exp: now + 600, tenant: 'acme', roles: ['developer'], ...change };
}

function sign(change: Record<string, unknown> = {}, header: Record<string, unknown> = {}, signer: CryptoKey = key): Promise<string> {
  return new SignJWT(claims(change)).setProtectedHeader({ alg: 'ES256', kid: publicJwk['kid']!, typ: 'at+jwt', ...header }).sign(signer, { crit: { exp: true } });
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** A token put together by hand, for what no library would make. */
function handmade(header: Record<string, unknown>, payload: unknown, signature: (input: string) => string): string {
  const input = `${encode(header)}.${encode(payload)}`;
  return `${input}.${signature(input)}`;
}

function hmac(secret: string | Buffer): string {
  return handmade({ alg: 'HS256', kid: publicJwk['kid'], typ: 'JWT' }, claims(), (input) => createHmac('sha256', secret).update(input).digest('base64url'));
}

/** The same signature bytes in another spelling: the last of 86 letters has four bits to spare. */
function strayBits(token: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const last = alphabet.indexOf(token.at(-1)!);
  return `${token.slice(0, -1)}${alphabet[last | 0b0001]}`;
}

function changed(token: string, part: 0 | 1, change: Record<string, unknown>): string {
  const parts = token.split('.');
  parts[part] = encode({ ...(JSON.parse(Buffer.from(parts[part]!, 'base64url').toString()) as object), ...change });
  return parts.join('.');
}

const minute = (minutes: number): number => Math.floor(Date.now() / 1000) + minutes * 60;

/** Each a whole `authorization` header; undefined: none. */
const REFUSED: [string, () => string | undefined | Promise<string | undefined>][] = [
  ['no header', () => undefined],
  ['an empty header', () => ''],
  ['a scheme alone', () => 'Bearer'],
  ['a scheme and a space', () => 'Bearer '],
  ['no scheme', () => good],
  ['another scheme', () => `Basic ${Buffer.from('user:password').toString('base64')}`],
  ['another scheme with a good token', () => `Token ${good}`],
  ['a good token, twice', () => `Bearer ${good}, Bearer ${good}`],
  ['a good token and something more', () => `Bearer ${good} more`],
  ['garbage', () => 'Bearer garbage'],
  ['three dots', () => 'Bearer ...'],
  ['an API key of the provider', () => 'Bearer xai-test-key'],
  ['no signature', () => `Bearer ${good.split('.').slice(0, 2).join('.')}.`],
  ['two parts', () => `Bearer ${good.split('.').slice(0, 2).join('.')}`],
  ['four parts', () => `Bearer ${good}.x`],
  ['an extra dot in front', () => `Bearer .${good}`],
  ['an extra dot behind', () => `Bearer ${good}.`],
  ['padding', () => `Bearer ${good}==`],
  ['stray bits in the signature', () => `Bearer ${strayBits(good)}`],
  ['the other base64 alphabet', () => `Bearer ${good.replaceAll('-', '+').replaceAll('_', '/')}${/[-_]/.test(good) ? '' : '='}`],
  ['a header that is no JSON', () => `Bearer ${Buffer.from('{').toString('base64url')}.${good.split('.').slice(1).join('.')}`],
  ['alg none', () => `Bearer ${handmade({ alg: 'none' }, claims(), () => '')}`],
  ['alg none with a signature', () => `Bearer ${handmade({ alg: 'none' }, claims(), () => good.split('.')[2]!)}`],
  ['alg None', () => `Bearer ${handmade({ alg: 'None', kid: publicJwk['kid'] }, claims(), () => 'AAAA')}`],
  ['no alg', () => `Bearer ${handmade({ kid: publicJwk['kid'] }, claims(), () => 'AAAA')}`],
  ['HS256 with the public key as PEM', () => `Bearer ${hmac(publicPem)}`],
  ['HS256 with the public key as JWK', () => `Bearer ${hmac(JSON.stringify(publicJwk))}`],
  ['HS256 with the public point', () => `Bearer ${hmac(Buffer.from(publicJwk['x']!, 'base64url'))}`],
  ['HS256 with an empty secret', () => `Bearer ${hmac('')}`],
  ['another key under the same id', async () => `Bearer ${await sign({}, {}, otherKey)}`],
  ['an unknown key id', async () => `Bearer ${await sign({}, { kid: 'other' }, otherKey)}`],
  ['a key that the token brings along', async () => `Bearer ${await sign({}, { jwk: { kty: 'EC', crv: 'P-256', x: publicJwk['x'], y: publicJwk['y'] } })}`],
  ['a key from an address that the token gives', async () => `Bearer ${await sign({}, { jku: 'https://evil.example/jwks.json' })}`],
  ['another algorithm', async () => `Bearer ${await sign({}, { alg: 'RS256' }, rsaKey)}`],
  ['a critical extension', async () => `Bearer ${await sign({}, { crit: ['exp'], exp: 1 })}`],
  ['another header than was signed', () => `Bearer ${changed(good, 0, { typ: 'JWT' })}`],
  ['other claims than were signed', () => `Bearer ${changed(good, 1, { roles: ['platform-admin'], tenant: 'platform' })}`],
  ['expired', async () => `Bearer ${await sign({ exp: minute(-2) })}`],
  ['not yet valid', async () => `Bearer ${await sign({ nbf: minute(5) })}`],
  ['issued in the future', async () => `Bearer ${await sign({ iat: minute(5), exp: minute(10) })}`],
  ['exp as text', async () => `Bearer ${handmade({ alg: 'ES256', kid: publicJwk['kid'] }, claims({ exp: String(minute(10)) }), () => good.split('.')[2]!)}`],
  ['another issuer', async () => `Bearer ${await sign({ iss: 'https://evil.example' })}`],
  ['the issuer with a slash more', async () => `Bearer ${await sign({ iss: `${harness.settings.identity!.issuer}/` })}`],
  ['another audience', async () => `Bearer ${await sign({ aud: 'someone-else' })}`],
  ['other audiences', async () => `Bearer ${await sign({ aud: ['a', 'b'] })}`],
  ...['iss', 'aud', 'exp', 'iat', 'sub', 'jti', 'tenant'].map((name): [string, () => Promise<string>] => [`no ${name}`, async () => `Bearer ${await sign({ [name]: undefined })}`]),
  ...['sub', 'jti', 'tenant'].map((name): [string, () => Promise<string>] => [`${name} empty`, async () => `Bearer ${await sign({ [name]: '' })}`]),
  ...['sub', 'jti', 'tenant'].map((name): [string, () => Promise<string>] => [`${name} as a number`, async () => `Bearer ${await sign({ [name]: 7 })}`]),
  ...['sub', 'jti', 'tenant', 'client_id'].map((name): [string, () => Promise<string>] => [`${name} with a NUL, which no database column holds`, async () => `Bearer ${await sign({ [name]: 'ac\u0000me' })}`]),
  ['a sub with the separator of budget scopes', async () => `Bearer ${await sign({ sub: 'me\u001fteam:bi' })}`],
  ['roles as text', async () => `Bearer ${await sign({ roles: 'developer' })}`],
  ['roles as numbers', async () => `Bearer ${await sign({ roles: [1] })}`],
  ['roles as an object', async () => `Bearer ${await sign({ roles: { developer: true } })}`],
  ['attrs as a list', async () => `Bearer ${await sign({ attrs: ['team'] })}`],
  ['attrs as text', async () => `Bearer ${await sign({ attrs: 'team=bi' })}`],
  ['an attribute that is an object', async () => `Bearer ${await sign({ attrs: { team: { name: 'bi' } } })}`],
  ['an attribute that is a truth', async () => `Bearer ${await sign({ attrs: { cleared: true } })}`],
  ['an attribute that lists numbers', async () => `Bearer ${await sign({ attrs: { rooms: [1, 2] } })}`],
  ['an unknown tenant', async () => `Bearer ${await sign({ tenant: 'hooli' })}`],
  ['a tenant in other letters', async () => `Bearer ${await sign({ tenant: 'ACME' })}`],
  ['a tenant of JavaScript', async () => `Bearer ${await sign({ tenant: '__proto__' })}`],
  ['a token of 20 kB', async () => `Bearer ${await sign({ attrs: { long: ['x'.repeat(1_000), ...Array.from({ length: 14 }, () => 'y'.repeat(1_000))] } })}`],
];

async function answerTo(authorization: string | undefined): Promise<Response> {
  const { status, headers, body } = await rawRequest(harness.url, '/v1/chat/completions', {
    method: 'POST', headers: { 'content-type': 'application/json', ...(authorization === undefined ? {} : { authorization }) }, body: JSON.stringify({ model: 'grok-beta', messages: HELLO }),
  });
  return new Response(body, { status, headers: Object.entries(headers).map(([name, value]): [string, string] => [name, String(value)]) });
}

describe('a token that is wrong in any way is answered 401, and nothing more is told', () => {
  it.each(REFUSED)('%s', async (_, authorization) => {
    harness.emulator.reset();
    const response = await answerTo(await authorization());
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe('Bearer error="invalid_token"');
    expect(response.headers.get('x-should-retry')).toBe('false');
    for (const name of response.headers.keys()) expect(name).not.toMatch(/^x-(novix|ratelimit)-/);
    const error = await expectError(response, 401, 'invalid_token');
    expect(error).toEqual({ message: 'The request carries no valid credentials. Send a current token as "authorization: Bearer <token>".', type: 'authentication_error', code: 'invalid_token', param: null });
    expect(harness.emulator.calls).toHaveLength(0);
    const requestId = response.headers.get('x-request-id');
    const refusal = await eventOf(harness, requestId, 'refusal');
    expect(refusal).toMatchObject({ status_code: 'invalid_token', actor: { user: { uid: 'unknown' } }, api: { operation: 'POST /v1/chat/completions', response: { code: 401 } } });
    expect(refusal.metadata.tenant_uid).toBeUndefined();
    expect(await eventsOf(harness, requestId)).toHaveLength(1);
  });

  it('byte for byte the same', async () => {
    const texts = await Promise.all(REFUSED.slice(0, 12).map(async ([, authorization]) => (await answerTo(await authorization())).text()));
    expect(new Set(texts).size).toBe(1);
  });
});

describe('and what is right is let in', () => {
  it.each<[string, () => Promise<string>]>([
    ['a good token', async () => good],
    ['one of several audiences', () => sign({ aud: ['someone-else', harness.settings.identity!.audience] })],
    ['no roles and no attributes, as far as authentication goes', () => sign({ roles: undefined })],
    ['attributes of every kind', () => sign({ attrs: { team: 'bi', clearance: 3, regions: ['eu', 'us'] } })],
    ['a claim that the gateway does not know', () => sign({ email: 'dev@acme.example' })],
    ['a few seconds of clock skew', () => sign({ iat: Math.floor(Date.now() / 1000) + 5, nbf: Math.floor(Date.now() / 1000) + 5 })],
  ])('%s', async (_, token) => {
    const response = await harness.request('GET', '/v1/models', { token: await token() });
    expect(response.status).toBe(200);
    await response.text();
  });

  it('a token that was good does not make a similar one good', async () => {
    expect((await harness.request('GET', '/v1/models', { token: good })).status).toBe(200);
    for (const token of [strayBits(good), `${good}=`, changed(good, 1, { sub: 'root' })]) await expectError(await harness.request('GET', '/v1/models', { token }), 401, 'invalid_token');
  });
});

describe('a token elsewhere than in the header does not count', () => {
  it.each<[string, string, Record<string, string>]>([
    ['in the query', '?access_token=', {}],
    ['in a cookie', '', { cookie: 'authorization=' }],
    ['in x-api-key', '', { 'x-api-key': '' }],
    ['in proxy-authorization', '', { 'proxy-authorization': 'Bearer ' }],
  ])('%s', async (_, query, headers) => {
    const withToken = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, `${value}${good}`]));
    const answer = await rawRequest(harness.url, `/v1/models${query}${query === '' ? '' : good}`, { headers: withToken });
    expect(answer.status).toBe(401);
    expect((JSON.parse(answer.body) as ErrorAnswer).error.code).toBe('invalid_token');
  });
});

it.each([[true], [false]])('two authorization headers are refused, whichever is good: the first %s', async (goodFirst) => {
  const headers = [`Bearer ${good}`, 'Bearer garbage'];
  const answer = await rawRequest(harness.url, '/v1/models', { headers: { authorization: goodFirst ? headers : headers.toReversed() } });
  expect(answer.status).toBe(401);
});
