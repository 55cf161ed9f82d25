import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadIssuers } from '../../../src/auth/identity-config.ts';
import type { Gateway } from '../../../src/gateway.ts';
import { completeAt, movableClock, startReplica } from '../../support/deployments.ts';
import { eventually, startHarness, type Harness } from '../../support/harness.ts';
import { identityFolder, isDown, makeKeyOf, serveKeys, signWith, times, type IssuerKey, type KeySetServer } from '../../support/identity.ts';
import { eventOf, eventsOf } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// The keys of identity providers: how seldom they are asked for, and what happens while they cannot be had. Each test has an issuer of its own.

/** What DESIGN and the code promise together. */
const FRESH_MS = 600_000;
const GRACE_SECONDS = 60;
const COOLDOWN_MS = 5_000;
const NAMES = ['cold', 'flood', 'rotating', 'down', 'graceful', 'unknown', 'broken', 'redirecting', 'plain'] as const;
type Name = (typeof NAMES)[number];

const clock = movableClock();
let dir: string;
let configDir: string;
let harness: Harness;
let gateway: Gateway;
const servers = {} as Record<Name, KeySetServer>;
const keys = {} as Record<Name | 'file', IssuerKey>;
const keyFile = (): string => join(dir, 'keys.json');

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'novix-test-jwks-'));
  for (const name of NAMES) {
    keys[name] = await makeKeyOf('ES256');
    servers[name] = await serveKeys([keys[name].jwk]);
  }
  keys.file = await makeKeyOf('EdDSA');
  await writeFile(keyFile(), JSON.stringify({ keys: [keys.file.jwk] }));
  // Down while the gateway starts, and looks for keys beforehand.
  servers.cold.instead = isDown;
  servers.down.instead = isDown;
  configDir = await identityFolder({
    issuers: [
      ...NAMES.map((name) => ({ issuer: issuerOf(name), audience: 'novix', jwks_uri: servers[name].url, jwks_grace_seconds: GRACE_SECONDS })),
      { issuer: issuerOf('file'), audience: 'novix', jwks_file: keyFile(), jwks_grace_seconds: GRACE_SECONDS },
    ],
  });
  harness = await startHarness();
  gateway = await startReplica(harness, { identity: undefined, issuers: loadIssuers(configDir), configDir, authFailuresPerMinute: 1_000_000 }, clock);
});
afterAll(async () => {
  await gateway.close();
  await harness.close();
  await Promise.all([...Object.values(servers).map((server) => server.close()), rm(dir, { recursive: true }), rm(configDir, { recursive: true })]);
});
beforeEach(() => harness.emulator.reset());

function issuerOf(name: string): string {
  return `https://${name}.example`;
}

function claims(name: Name | 'file', change: Record<string, unknown> = {}): Record<string, unknown> {
  return { iss: issuerOf(name), aud: 'novix', ...times(), sub: 'ada@acme.example', jti: crypto.randomUUID(), tenant: 'acme', roles: ['developer'], ...change };
}

/** A token that the gateway has never seen. */
function tokenOf(name: Name | 'file', key = keys[name], header: Record<string, unknown> = {}): Promise<string> {
  return signWith(key, claims(name), { typ: 'at+jwt', ...header });
}

function models(token: string): Promise<Response> {
  return fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${token}` } });
}

async function statusOf(token: string): Promise<number> {
  const response = await models(token);
  await response.text();
  return response.status;
}

/** The provider cannot be asked: no 401, which would make a client throw its token away, and nothing goes on. */
async function expectUnavailable(token: string): Promise<void> {
  harness.emulator.reset();
  const response = await completeAt(gateway.url, token);
  const error = await expectError(response, 503, 'identity_unavailable');
  expect(error.message).not.toMatch(/127\.0\.0\.1|keys|503/);
  expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(harness.emulator.calls).toHaveLength(0);
  const refusal = await eventOf(harness, response.headers.get('x-request-id'), 'refusal');
  expect(refusal).toMatchObject({ status_code: 'identity_unavailable', actor: { user: { uid: 'unknown' } } });
}

function unsigned(name: Name, kid: string): string {
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${encode({ alg: 'ES256', kid, typ: 'at+jwt' })}.${encode(claims(name))}.${'A'.repeat(86)}`;
}

describe('keys are asked for seldom', () => {
  it('once, where a hundred callers come at once and there are none yet', async () => {
    const waiting: ServerResponse[] = [];
    servers.cold.instead = (_, response) => void waiting.push(response);
    clock.advance(COOLDOWN_MS + 1); // it has been asked in vain at the start
    const before = servers.cold.fetches;
    const tokens = await Promise.all(Array.from({ length: 100 }, () => tokenOf('cold')));
    const statuses = Promise.all(tokens.map(statusOf));
    await eventually(() => waiting.length > 0);
    servers.cold.instead = undefined;
    for (const response of waiting) response.writeHead(200).end(JSON.stringify({ keys: servers.cold.keys }));
    expect(new Set(await statuses)).toEqual(new Set([200]));
    expect(servers.cold.fetches - before).toBe(1);
  });

  it('not again for each token', async () => {
    expect(await statusOf(await tokenOf('plain'))).toBe(200);
    const before = servers.plain.fetches;
    for (let call = 0; call < 20; call += 1) expect(await statusOf(await tokenOf('plain'))).toBe(200);
    expect(servers.plain.fetches).toBe(before);
  });

  it('again once they are old', async () => {
    expect(await statusOf(await tokenOf('plain'))).toBe(200);
    const before = servers.plain.fetches;
    clock.advance(FRESH_MS + 1);
    for (let call = 0; call < 5; call += 1) expect(await statusOf(await tokenOf('plain'))).toBe(200);
    expect(servers.plain.fetches - before).toBe(1);
  });

  it('at most 3 times where someone sends 1,000 unknown key ids within 10 s', async () => {
    expect(await statusOf(await tokenOf('flood'))).toBe(200);
    const before = servers.flood.fetches;
    const startedMs = clock.monotonicMs();
    const statuses = new Map<number, number>();
    for (let batch = 0; batch < 50; batch += 1) {
      // Spread over the ten seconds, real time included.
      const dueMs = startedMs + batch * 200;
      if (clock.monotonicMs() < dueMs) clock.advance(dueMs - clock.monotonicMs());
      for (const status of await Promise.all(Array.from({ length: 20 }, () => statusOf(unsigned('flood', crypto.randomUUID()))))) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    expect([...statuses]).toEqual([[401, 1_000]]);
    const asked = servers.flood.fetches - before;
    expect(asked).toBeGreaterThanOrEqual(1);
    expect(asked).toBeLessThanOrEqual(3 + Math.floor(Math.max(0, clock.monotonicMs() - startedMs - 10_000) / COOLDOWN_MS)); // a slow machine took longer than the ten seconds
    expect(await statusOf(await tokenOf('flood'))).toBe(200);
  });

  it('and not at all for tokens of issuers that nobody named, or that cannot be read', async () => {
    const before = Object.values(servers).map(({ fetches }) => fetches);
    clock.advance(COOLDOWN_MS + 1);
    for (const token of [await signWith(keys.plain, claims('plain', { iss: 'https://other.example' })), 'a.b.c', `${await tokenOf('plain')}x`]) expect(await statusOf(token)).toBe(401);
    expect(Object.values(servers).map(({ fetches }) => fetches)).toEqual(before);
  });
});

describe('a provider that changes its keys', () => {
  it('has tokens of the new one accepted within 10 s, and then none of the old one', async () => {
    expect(await statusOf(await tokenOf('rotating'))).toBe(200);
    const renewed = await makeKeyOf('ES256');
    servers.rotating.keys = [renewed.jwk];
    let waitedMs = 0;
    while ((await statusOf(await tokenOf('rotating', renewed))) !== 200) {
      clock.advance(1_000);
      waitedMs += 1_000;
      expect(waitedMs).toBeLessThanOrEqual(10_000);
    }
    expect(await statusOf(await tokenOf('rotating'))).toBe(401);
    // The old key under the new one's id is still the old key.
    expect(await statusOf(await tokenOf('rotating', { ...keys.rotating, kid: renewed.kid }))).toBe(401);
  });

  it('may publish both for a while', async () => {
    const [first, second] = [await makeKeyOf('ES256'), await makeKeyOf('PS256')];
    servers.rotating.keys = [first.jwk, second.jwk];
    clock.advance(COOLDOWN_MS + 1);
    expect([await statusOf(await tokenOf('rotating', first)), await statusOf(await tokenOf('rotating', second))]).toEqual([200, 200]);
  });

  it('in a file has it read again', async () => {
    expect(await statusOf(await tokenOf('file'))).toBe(200);
    const renewed = await makeKeyOf('EdDSA');
    await writeFile(keyFile(), JSON.stringify({ keys: [renewed.jwk] }));
    clock.advance(COOLDOWN_MS + 1);
    expect(await statusOf(await tokenOf('file', renewed))).toBe(200);
    expect(await statusOf(await tokenOf('file'))).toBe(401);
    // And a broken file is no reason to forget the keys.
    await writeFile(keyFile(), '{"keys": [');
    clock.advance(FRESH_MS + 1);
    expect(await statusOf(await tokenOf('file', renewed))).toBe(200);
    clock.advance(GRACE_SECONDS * 1_000);
    await expectUnavailable(await tokenOf('file', renewed));
    await writeFile(keyFile(), JSON.stringify({ keys: [keys.file.jwk] }));
    clock.advance(COOLDOWN_MS + 1);
    expect(await statusOf(await tokenOf('file'))).toBe(200);
  });
});

describe('a provider that is down', () => {
  it('is no fault of the token, which is good as soon as the provider is back', async () => {
    const token = await tokenOf('down');
    clock.advance(COOLDOWN_MS + 1);
    await expectUnavailable(token);
    servers.down.instead = undefined;
    clock.advance(COOLDOWN_MS + 1);
    expect(await statusOf(token)).toBe(200);
  });

  it('has its last keys serve on for the grace, and not after', async () => {
    expect(await statusOf(await tokenOf('graceful'))).toBe(200);
    servers.graceful.instead = isDown;
    clock.advance(FRESH_MS + GRACE_SECONDS * 1_000 - 2_000);
    const before = servers.graceful.fetches;
    expect(await statusOf(await tokenOf('graceful'))).toBe(200);
    expect(servers.graceful.fetches - before).toBe(1);
    // While they serve on, the provider is not asked for each call.
    for (let call = 0; call < 5; call += 1) expect(await statusOf(await tokenOf('graceful'))).toBe(200);
    expect(servers.graceful.fetches - before).toBe(1);
    expect(await statusOf(await tokenOf('graceful', await makeKeyOf('ES256').then((other) => ({ ...other, kid: keys.graceful.kid }))))).toBe(401);
    clock.advance(4_000);
    await expectUnavailable(await tokenOf('graceful'));
    servers.graceful.instead = undefined;
    clock.advance(COOLDOWN_MS + 1);
    expect(await statusOf(await tokenOf('graceful'))).toBe(200);
  });

  it('may have a new key that we do not know: nobody can say that the token is bad', async () => {
    expect(await statusOf(await tokenOf('unknown'))).toBe(200);
    const renewed = await makeKeyOf('ES256');
    servers.unknown.keys = [keys.unknown.jwk, renewed.jwk];
    servers.unknown.instead = isDown;
    clock.advance(COOLDOWN_MS + 1);
    await expectUnavailable(await tokenOf('unknown', renewed));
    expect(await statusOf(await tokenOf('unknown'))).toBe(200); // known keys serve on
    servers.unknown.instead = undefined;
    clock.advance(COOLDOWN_MS + 1);
    expect(await statusOf(await tokenOf('unknown', renewed))).toBe(200);
  });

  const answer = (status: number, body: string | Buffer, headers: Record<string, string> = {}) => (response: ServerResponse): void => void response.writeHead(status, headers).end(body);
  const tooLong = (): string => JSON.stringify({ keys: [keys.broken.jwk], filler: 'x'.repeat(2 * 1024 * 1024) });
  it.each<[string, (response: ServerResponse) => void]>([
    ['2 MiB', (response) => answer(200, tooLong())(response)],
    ['2 MiB in pieces, without a length', (response) => {
      response.writeHead(200);
      const text = tooLong();
      for (let at = 0; at < text.length; at += 65_536) response.write(text.slice(at, at + 65_536));
      response.end();
    }],
    ['no JSON', answer(200, '<html>Sign in</html>')], ['nothing', answer(200, '')], ['half of it', answer(200, '{"keys":[{"kty":"EC",')], ['null', answer(200, 'null')], ['a list', answer(200, '[]')],
    ['an object without keys', answer(200, '{}')], ['keys that are no list', answer(200, '{"keys":{}}')], ['keys that are no objects', answer(200, '{"keys":["x"]}')],
    ['404', answer(404, '{"keys":[]}')], ['500', answer(500, 'oops')], ['204', answer(204, '')], ['no HTTP', (response) => void response.socket?.end('hello\r\n\r\n')], ['an end in the middle', (response) => {
      response.writeHead(200, { 'content-length': '1000' }).write('{"keys":[');
      response.socket?.destroy();
    }],
  ])('is one whose key set is answered with %s', async (_, broken) => {
    expect(await statusOf(await tokenOf('broken'))).toBe(200);
    servers.broken.instead = (__, response) => broken(response);
    clock.advance(COOLDOWN_MS + 1);
    await expectUnavailable(await tokenOf('broken', await makeKeyOf('ES256')));
    clock.advance(FRESH_MS + GRACE_SECONDS * 1_000);
    await expectUnavailable(await tokenOf('broken'));
    servers.broken.instead = undefined;
    clock.advance(COOLDOWN_MS + 1);
    expect(await statusOf(await tokenOf('broken'))).toBe(200);
  });

  it.each([301, 302, 303, 307, 308])('is one whose key set lies elsewhere now (%i): redirects are not followed', async (status) => {
    expect(await statusOf(await tokenOf('redirecting'))).toBe(200);
    const elsewhere = await serveKeys([keys.redirecting.jwk]);
    servers.redirecting.instead = (_, response) => void response.writeHead(status, { location: elsewhere.url, 'content-type': 'application/json' }).end(JSON.stringify({ keys: servers.redirecting.keys }));
    clock.advance(FRESH_MS + GRACE_SECONDS * 1_000 + 1);
    await expectUnavailable(await tokenOf('redirecting'));
    expect(elsewhere.fetches).toBe(0);
    servers.redirecting.instead = undefined;
    clock.advance(COOLDOWN_MS + 1);
    await elsewhere.close();
    expect(await statusOf(await tokenOf('redirecting'))).toBe(200);
  });
});

describe('a token that cannot be checked as it asks, or be read in one way only', () => {
  const thumbprint = createHash('sha256').update('some certificate').digest('base64url');
  /** Signed over exactly this text, by the provider's own key. */
  async function handmade(header: string, payload: string): Promise<string> {
    const input = [header, payload].map((text) => Buffer.from(text).toString('base64url')).join('.');
    const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, keys.plain.privateKey, Buffer.from(input));
    return `${input}.${Buffer.from(signature).toString('base64url')}`;
  }
  const header = (more = ''): string => `{"alg":"ES256","kid":"${keys.plain.kid}","typ":"at+jwt"${more}}`;
  const payload = (more = ''): string => `${JSON.stringify(claims('plain')).slice(0, -1)}${more}}`;
  const bound = (cnf: unknown): Promise<string> => signWith(keys.plain, claims('plain', { cnf }));
  const typed = (typ: string): Promise<string> => signWith(keys.plain, claims('plain'), { typ });

  it('is let in where it is made in the same way, and nothing is wrong with it', async () => {
    for (const token of [await handmade(header(), payload()), await typed('JWT'), await typed('at+jwt'), await typed('application/at+jwt'), await signWith(keys.plain, claims('plain'))]) expect(await statusOf(token)).toBe(200);
  });

  const REFUSED: [string, () => Promise<string>][] = [
    ['bound to a DPoP key', () => bound({ jkt: thumbprint })], ['bound to a DPoP key and a certificate', () => bound({ jkt: thumbprint, 'x5t#S256': thumbprint })], ['bound to a certificate that is not presented', () => bound({ 'x5t#S256': thumbprint })],
    ['bound to nothing', () => bound({})], ['bound to null', () => bound(null)], ['bound to a text', () => bound(thumbprint)], ['bound to a list', () => bound([])], ['bound to a key itself', () => bound({ jwk: keys.plain.jwk })], ['bound to a SHA-1', () => bound({ x5t: 'dGhpcyBpcyBhIHNtYWxsIHRoaW5n' })],
    ['bound to half a thumbprint', () => bound({ 'x5t#S256': thumbprint.slice(0, 20) })], ['bound to a thumbprint with padding', () => bound({ 'x5t#S256': `${thumbprint}=` })], ['bound to an empty thumbprint', () => bound({ 'x5t#S256': '' })],
    ['a logout token', () => typed('logout+jwt')], ['a security event', () => typed('secevent+jwt')], ['an ID token that says so', () => typed('id_token+jwt')], ['a DPoP proof', () => typed('dpop+jwt')], ['a token of another kind in capitals', () => typed('LOGOUT+JWT')], ['an empty kind', () => typed('')],
    ['a header with a key twice', () => handmade(header(',"typ":"at+jwt"'), payload())], ['a header with the algorithm twice', () => handmade(header(',"alg":"ES256"'), payload())], ['a header with the key id twice', () => handmade(header(',"kid":"other"'), payload())],
    ['a payload with the tenant twice', () => handmade(header(), payload(',"tenant":"acme"'))], ['a payload with another tenant after the first', () => handmade(header(), payload(',"tenant":"globex"'))], ['a payload with the issuer twice', () => handmade(header(), payload(`,"iss":"${issuerOf('plain')}"`))],
    ['a key twice deep in the payload', () => handmade(header(), payload(',"attrs":{"team":"bi","team":"bi"}'))],
    ['an escaped key in the payload', () => handmade(header(), payload(',"\\u0061ttrs":{}'))], ['an escaped key that repeats one', () => handmade(header(), payload(',"t\\u0065nant":"globex"'))], ['an escaped key in the header', () => handmade(header(',"\\u0078":1'), payload())],
    ['an escaped critical header', () => handmade(header(',"\\u0063rit":["exp"]'), payload())], ['an escaped key deep in the payload', () => handmade(header(), payload(',"attrs":{"te\\u0061m":"bi"}'))],
    ['a payload that is a list', () => handmade(header(), '[]')], ['a payload with something behind it', () => handmade(header(), `${payload()} {}`)], ['a payload nested too deeply', () => handmade(header(), payload(`,"deep":${'['.repeat(40)}${']'.repeat(40)}`))],
    ['a header x5u', () => handmade(header(',"x5u":"https://evil.example"'), payload())], ['a header zip', () => handmade(header(',"zip":"DEF"'), payload())], ['a header b64', () => handmade(header(',"b64":true'), payload())], ['a header x5c', () => handmade(header(',"x5c":["MII"]'), payload())],
  ];

  it.each(REFUSED)('is answered 401: %s', async (_, token) => {
    const response = await completeAt(gateway.url, await token());
    expect(await expectError(response, 401, 'invalid_token')).toEqual({ message: 'The request carries no valid credentials. Send a current token as "authorization: Bearer <token>".', type: 'authentication_error', code: 'invalid_token', param: null });
    expect(harness.emulator.calls).toHaveLength(0);
    const requestId = response.headers.get('x-request-id');
    expect(await eventOf(harness, requestId, 'refusal')).toMatchObject({ status_code: 'invalid_token', actor: { user: { uid: 'unknown' } } });
    expect(await eventsOf(harness, requestId)).toHaveLength(1);
  });
});
