import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { exportPKCS8, importPKCS8 } from 'jose';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadIssuers } from '../../../src/auth/identity-config.ts';
import { parseEnv, sandboxParts } from '../../../src/env.ts';
import type { Gateway } from '../../../src/gateway.ts';
import { issuerKeyFile } from '../../../src/sandbox/local-issuer.ts';
import { USD } from '../../support/calls.ts';
import { adminOf, completeAt, madeBy, startReplica, type AdminCall } from '../../support/deployments.ts';
import { killAll, novix, spawnGateway, startGatewayProcess, startRig, type Rig } from '../../support/gateway-process.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { identityFolder, makeKeyOf, serveKeys, signWith, times, type IssuerKey, type KeySetServer } from '../../support/identity.ts';
import { eventOf, eventsOf, settled } from '../../support/records.ts';
import { expectError } from '../../support/wire.ts';

// Several identity providers at once, each as it really writes its tokens: Entra ID, Okta and Keycloak.

const ENTRA_TENANT = '8f5e1a3c-6a0e-4a86-9c8e-2f7d8f3f6b11';
const ENTRA_OTHER_TENANT = '11111111-2222-4333-8444-555555555555';
const ENTRA_APP = '6e74172b-be56-4843-9ff4-e66a39bb12e3';
const ENTRA = `https://login.microsoftonline.com/${ENTRA_TENANT}/v2.0`;
const OKTA = 'https://example.okta.com/oauth2/default';
const KEYCLOAK = 'https://sso.example/realms/acme';

let keys: Record<'entra' | 'okta' | 'keycloak' | 'keycloakRsa', IssuerKey>;
const servers: KeySetServer[] = [];
const folders: string[] = [];
let issuers: Record<string, unknown>[];
let harness: Harness;
let gateway: Gateway;
let root: AdminCall;

async function folderWith(content: Parameters<typeof identityFolder>[0]): Promise<string> {
  const folder = await identityFolder(content);
  folders.push(folder);
  return folder;
}

beforeAll(async () => {
  // Entra's key sets do not say for which algorithm a key is.
  const [entra, okta, keycloak, keycloakRsa] = await Promise.all([makeKeyOf('RS256', { alg: undefined, x5t: 'nOo3ZDrODXEK1jKWhXslHR_KXEg', cloud_instance_name: 'microsoftonline.com', issuer: ENTRA }), makeKeyOf('RS256'), makeKeyOf('ES256'), makeKeyOf('RS256')]);
  keys = { entra, okta, keycloak, keycloakRsa };
  // Keycloak publishes keys for other uses and algorithms in the same set.
  const forEncryption = { ...(await makeKeyOf('RS256', { use: 'enc', alg: 'RSA-OAEP' })).jwk };
  servers.push(await serveKeys([entra.jwk]), await serveKeys([okta.jwk]), await serveKeys([forEncryption, keycloakRsa.jwk, keycloak.jwk]));
  const [entraUrl, oktaUrl, keycloakUrl] = servers.map(({ url }) => url);
  issuers = [
    {
      issuer: ENTRA, audience: ENTRA_APP, jwks_uri: entraUrl, algorithms: ['RS256'],
      claims: {
        tenant: { claim: 'tid', map: { [ENTRA_TENANT]: 'acme' } }, subject: 'oid', token_id: 'uti', client_id: 'azp',
        roles: { claim: 'roles', map: { 'Novix.Developer': 'developer', 'Novix.Billing': 'billing', 'Novix.Admin': 'tenant-admin' } }, attrs: { department: 'department', team: 'extension_team', rank: 'extension_rank' },
      },
    },
    {
      issuer: OKTA, audience: 'api://novix', jwks_uri: oktaUrl, algorithms: ['RS256'],
      claims: { tenant: { value: 'globex' }, client_id: 'cid', roles: { claim: 'groups', map: { 'novix-developers': 'developer' } }, attrs: { department: 'department' } },
    },
    {
      issuer: KEYCLOAK, audience: 'novix', jwks_uri: keycloakUrl, algorithms: ['ES256'],
      claims: { tenant: { value: 'acme' }, client_id: 'azp', roles: { claim: 'realm_access.roles', map: { 'novix-developer': 'developer' } }, attrs: 'novix' },
    },
  ];
  const configDir = await folderWith({ issuers });
  harness = await startHarness();
  gateway = await startReplica(harness, { identity: undefined, issuers: loadIssuers(configDir), configDir });
  root = adminOf(harness, await harness.adminToken());
});
afterAll(async () => {
  await gateway.close();
  await harness.close();
  await Promise.all([...servers.map((server) => server.close()), ...folders.map((folder) => rm(folder, { recursive: true }))]);
});

type Claims = Record<string, unknown>;

/** An access token of an application, v2.0. */
function entraClaims(change: Claims = {}): Claims {
  return {
    aud: ENTRA_APP, iss: ENTRA, ...times(), nbf: times().iat, aio: 'E2ZgYFi9', azp: 'a1b2c3d4-0000-4000-8000-00000000cafe', azpacr: '2', department: 'Research', extension_team: 'bi', extension_rank: 3,
    oid: '4e8e7c8a-1c1e-4d0e-9e57-5ab6a1d0c0de', rh: '1.AXEAPBpe', roles: ['Novix.Developer', 'Reports.Read'], sub: 'pairwise-subject', tid: ENTRA_TENANT, uti: crypto.randomUUID(), ver: '2.0', xms_ftd: 'x', ...change,
  };
}

function oktaClaims(change: Claims = {}): Claims {
  return {
    ver: 1, jti: `AT.${crypto.randomUUID()}`, iss: OKTA, aud: 'api://novix', ...times(), cid: '0oabucvyc38HLL1ef0h7', uid: '00u5t60iloOHN9pBi0h7', scp: ['openid', 'novix'], auth_time: times().iat,
    sub: 'ada@globex.example', groups: ['Everyone', 'novix-developers'], department: 'Finance', ...change,
  };
}

function keycloakClaims(change: Claims = {}): Claims {
  return {
    ...times(), jti: `onrtac:${crypto.randomUUID()}`, iss: KEYCLOAK, aud: ['novix', 'account'], sub: 'f1b3f0b0-2c63-4d62-a6b0-3c1d8b8f1f5e', typ: 'Bearer', azp: 'reports', sid: 'b4d3', acr: '1', 'allowed-origins': ['https://app.example'],
    realm_access: { roles: ['offline_access', 'novix-developer', 'uma_authorization'] }, resource_access: { account: { roles: ['manage-account'] } }, scope: 'openid email', email_verified: true, preferred_username: 'ada',
    novix: { team: 'ops', regions: ['eu', 'us'] }, ...change,
  };
}

/** As they are really sent: Okta's header has no `typ`. */
const tokenOf = {
  entra: (change: Claims = {}, header: Claims = {}, key = keys.entra) => signWith(key, entraClaims(change), { typ: 'JWT', ...header }),
  okta: (change: Claims = {}, header: Claims = {}, key = keys.okta) => signWith(key, oktaClaims(change), header),
  keycloak: (change: Claims = {}, header: Claims = {}, key = keys.keycloak) => signWith(key, keycloakClaims(change), { typ: 'JWT', ...header }),
};
type Provider = keyof typeof tokenOf;
const claimsOf = { entra: entraClaims, okta: oktaClaims, keycloak: keycloakClaims };

interface Recorded {
  metadata: { tenant_uid?: string };
  actor: { user: { uid: string }; session?: { uid: string; issuer: string }; app_uid?: string };
  unmapped: { novix: { decision: { attributes: Record<string, unknown> } } };
}

/** Who called, as the record made before the call has it. */
async function recordedFor(token: string): Promise<Recorded> {
  const response = await completeAt(gateway.url, token);
  const text = await response.text();
  expect({ status: response.status, text: response.status === 200 ? '' : text }).toEqual({ status: 200, text: '' });
  return (await eventOf(harness, response.headers.get('x-request-id'), 'intent')) as unknown as Recorded;
}

async function expectRefused(token: string): Promise<void> {
  harness.emulator.reset();
  const response = await completeAt(gateway.url, token);
  await expectError(response, 401, 'invalid_token');
  expect(harness.emulator.calls).toHaveLength(0);
  const requestId = response.headers.get('x-request-id');
  const refusal = await eventOf(harness, requestId, 'refusal');
  expect(refusal.metadata.tenant_uid).toBeUndefined();
  expect(refusal.actor.user.uid).toBe('unknown');
  expect(await eventsOf(harness, requestId)).toHaveLength(1);
}

describe('the token of', () => {
  it('Entra ID says tenant, object id, token id, application, roles and attributes in its own words', async () => {
    const claims = entraClaims();
    const event = await recordedFor(await signWith(keys.entra, claims, { typ: 'JWT', x5t: 'nOo3ZDrODXEK1jKWhXslHR_KXEg' }));
    expect(event).toMatchObject({ metadata: { tenant_uid: 'acme' }, actor: { user: { uid: claims['oid'] }, session: { uid: claims['uti'], issuer: ENTRA }, app_uid: claims['azp'] } });
    expect(event.unmapped.novix.decision.attributes).toMatchObject({
      'principal.tenant': 'acme', 'principal.sub': claims['oid'], 'principal.roles': ['developer'], 'principal.client_id': claims['azp'], 'principal.mtls': false,
      'principal.attrs.department': 'Research', 'principal.attrs.team': 'bi', 'principal.attrs.rank': 3,
    });
  });

  it('Okta says application, groups and token id in its own words', async () => {
    const claims = oktaClaims();
    const event = await recordedFor(await signWith(keys.okta, claims));
    expect(event).toMatchObject({ metadata: { tenant_uid: 'globex' }, actor: { user: { uid: 'ada@globex.example' }, session: { uid: claims['jti'], issuer: OKTA }, app_uid: '0oabucvyc38HLL1ef0h7' } });
    expect(event.unmapped.novix.decision.attributes).toMatchObject({ 'principal.tenant': 'globex', 'principal.roles': ['developer'], 'principal.attrs.department': 'Finance' });
  });

  it('Keycloak has its roles in the realm, and all attributes in one claim', async () => {
    const claims = keycloakClaims();
    const event = await recordedFor(await signWith(keys.keycloak, claims, { typ: 'JWT' }));
    expect(event).toMatchObject({ metadata: { tenant_uid: 'acme' }, actor: { user: { uid: claims['sub'] }, session: { uid: claims['jti'], issuer: KEYCLOAK }, app_uid: 'reports' } });
    expect(event.unmapped.novix.decision.attributes).toMatchObject({ 'principal.tenant': 'acme', 'principal.roles': ['developer'], 'principal.attrs.team': 'ops', 'principal.attrs.regions': ['eu', 'us'] });
  });

  it('Entra ID charges the budget of the team that its own claim names', async () => {
    const { id } = await madeBy<{ id: string }>(await root('POST', '/budgets', { tenant: 'acme', scope: { type: 'team', id: 'bi' }, window: 'month', limit_usd: '10.00' }), 201);
    const spent = async (): Promise<string> => (await madeBy<{ spent_usd: string }>(await root('GET', `/budgets/${id}`))).spent_usd;
    const callAs = async (team: string): Promise<void> => {
      const response = await completeAt(gateway.url, await tokenOf.entra({ extension_team: team }));
      await response.text();
      expect((await settled(harness, response.headers.get('x-request-id'))).chargedTicks).toBeGreaterThan(0n);
    };
    const before = await spent();
    await callAs('hr');
    expect(await spent()).toBe(before);
    await callAs('bi');
    expect(Number(await spent())).toBeGreaterThan(Number(before));
  });
});

describe('roles that the mapping does not name count for nothing', () => {
  it.each<[string, Provider, Claims]>([
    ['Entra: other roles, and our own names', 'entra', { roles: ['Reports.Read', 'developer', 'tenant-admin', 'platform-admin'] }], ['Entra: no roles', 'entra', { roles: undefined }],
    ['Entra: the role in other letters', 'entra', { roles: ['novix.developer'] }], ['Entra: names of JavaScript', 'entra', { roles: ['constructor', '__proto__', 'toString'] }],
    ['Okta: other groups', 'okta', { groups: ['Everyone', 'developer'] }], ['Okta: a claim named roles', 'okta', { groups: [], roles: ['developer'] }],
    ['Keycloak: roles of a client', 'keycloak', { realm_access: { roles: [] }, resource_access: { novix: { roles: ['novix-developer'] } } }], ['Keycloak: no realm roles', 'keycloak', { realm_access: undefined }],
  ])('%s', async (_, provider, change) => {
    const response = await completeAt(gateway.url, await tokenOf[provider](change));
    await expectError(response, 403, 'policy_denied');
    const { unmapped } = (await eventOf(harness, response.headers.get('x-request-id'), 'refusal')) as unknown as Recorded;
    expect(unmapped.novix.decision.attributes['principal.roles']).toEqual([]);
  });

  it('and those that it names open exactly their routes', async () => {
    const budgets = async (token: string): Promise<number> => (await fetch(`${gateway.url}/admin/v1/budgets`, { headers: { authorization: `Bearer ${token}` } })).status;
    expect(await budgets(await tokenOf.entra({ roles: ['Novix.Billing'] }))).toBe(200);
    expect(await budgets(await tokenOf.entra({ roles: ['billing', 'Novix.Developer'] }))).toBe(403);
  });

  it('platform-admin is nothing outside the platform’s own tenant, whatever a mapping says', async () => {
    const { issuer, audience } = harness.settings.identity!;
    const replica = await startReplica(harness, { spoolDir: `${harness.settings.spoolDir}-roles`, identity: undefined, issuers: [{ ...harness.settings.identity!, issuer, audience, claims: { roles: { claim: 'roles', map: { developer: 'platform-admin' } } } }] });
    try {
      const status = async (tenant: string): Promise<number> => (await fetch(`${replica.url}/admin/v1/tenants`, { headers: { authorization: `Bearer ${await harness.token({ tenant })}` } })).status;
      expect([await status('acme'), await status('platform')]).toEqual([403, 200]);
    } finally {
      await replica.close();
    }
  });
});

describe('a token is refused', () => {
  it.each<[string, () => Promise<string>]>([
    ['of Entra, signed by Okta’s key under Okta’s id', () => signWith(keys.okta, entraClaims(), { typ: 'JWT' })],
    ['of Entra, signed by Okta’s key under Entra’s id', () => tokenOf.entra({}, { kid: keys.entra.kid }, keys.okta)],
    ['of Okta, signed by Entra’s key', () => signWith(keys.entra, oktaClaims())],
    ['of Okta, signed by Keycloak’s key', () => signWith(keys.keycloak, oktaClaims())],
    ['of Keycloak, signed by the sandbox’s issuer', () => harness.token()],
    ['of an issuer that nobody named', () => tokenOf.entra({ iss: 'https://login.microsoftonline.com/common/v2.0' })],
    ['of the issuer with a slash more', () => tokenOf.okta({ iss: `${OKTA}/` })],
    ['of another tenant of Entra', () => tokenOf.entra({ tid: ENTRA_OTHER_TENANT })],
    ['of Entra, naming our tenant in place of its own', () => tokenOf.entra({ tid: 'acme' })],
    ['of Entra without its tenant, naming ours in our words', () => tokenOf.entra({ tid: undefined, tenant: 'acme' })],
    ['of Entra with a list of tenants', () => tokenOf.entra({ tid: [ENTRA_TENANT] })],
    ['of Entra with a name of JavaScript as tenant', () => tokenOf.entra({ tid: 'constructor' })],
    ['of Entra without token id, though with a jti', () => tokenOf.entra({ uti: undefined, jti: 'j-1' })],
    ['of Entra without object id, though with a sub', () => tokenOf.entra({ oid: undefined })],
    ['of Okta without jti', () => tokenOf.okta({ jti: undefined })],
    ['of Entra for Okta’s audience', () => tokenOf.entra({ aud: 'api://novix' })],
    ['of Okta for Keycloak’s audience', () => tokenOf.okta({ aud: 'novix' })],
    ['of Okta for an audience that begins like ours', () => tokenOf.okta({ aud: 'api://novix/other' })],
    ['of Keycloak for other audiences', () => tokenOf.keycloak({ aud: ['account', 'broker'] })],
    ['of Entra by an algorithm that others may use', async () => signWith({ ...keys.entra, alg: 'PS256', privateKey: await importPKCS8(await exportPKCS8(keys.entra.privateKey), 'PS256') }, entraClaims(), { typ: 'JWT' })],
    ['of Keycloak by a published key whose algorithm is not on the list', () => tokenOf.keycloak({}, {}, keys.keycloakRsa)],
    ['of Keycloak with an attribute that cannot be one', () => tokenOf.keycloak({ novix: { cleared: true } })],
    ['that has expired', () => tokenOf.okta({ iat: times().iat - 7_200, exp: times().iat - 3_600 })],
  ])('%s', async (_, token) => {
    await expectRefused(await token());
    expect(harness.emulator.calls).toEqual([]);
  });

  it.each<[Provider, Provider]>([['entra', 'okta'], ['okta', 'keycloak'], ['keycloak', 'entra']])('%s’s good token with the claims of %s', async (signer, other) => {
    const good = await tokenOf[signer]();
    expect((await completeAt(gateway.url, good)).status).toBe(200);
    const [header, , signature] = good.split('.');
    await expectRefused(`${header}.${Buffer.from(JSON.stringify(claimsOf[other]())).toString('base64url')}.${signature}`);
  });

  it('a mapped tenant stands, whatever else the token says of tenants', async () => {
    expect((await recordedFor(await tokenOf.okta({ tenant: 'acme', tid: ENTRA_TENANT }))).metadata.tenant_uid).toBe('globex');
  });

  it('attributes that the issuer leaves out or empty are missing, and no reason to refuse', async () => {
    const { attributes } = (await recordedFor(await tokenOf.entra({ extension_team: null, department: undefined }))).unmapped.novix.decision;
    expect(Object.keys(attributes).filter((name) => name.startsWith('principal.attrs.'))).toEqual(['principal.attrs.rank']);
  });
});

describe('AUTH_* and the file together', () => {
  it('serve the tokens of both', async () => {
    const replica = await startReplica(harness, { spoolDir: `${harness.settings.spoolDir}-both`, issuers: loadIssuers(await folderWith({ issuers })) });
    try {
      for (const token of [await harness.token(), await tokenOf.entra(), await tokenOf.okta(), await tokenOf.keycloak()]) {
        const response = await completeAt(replica.url, token);
        await response.text();
        expect(response.status).toBe(200);
      }
      await expectError(await completeAt(replica.url, await signWith(keys.entra, { iss: harness.settings.identity!.issuer, aud: harness.settings.identity!.audience, ...times(), sub: 's', jti: 'j', tenant: 'acme' })), 401, 'invalid_token');
    } finally {
      await replica.close();
    }
  });

  it('one provider that is down does not keep out the callers of the others', async () => {
    const gone = await serveKeys();
    await gone.close();
    const file = await folderWith({ issuers: [...issuers, { issuer: 'https://down.example', audience: 'novix', jwks_uri: gone.url }] });
    const replica = await startReplica(harness, { spoolDir: `${harness.settings.spoolDir}-down`, identity: undefined, issuers: loadIssuers(file) });
    try {
      expect((await fetch(`${replica.url}/readyz`)).status).toBe(200);
      expect((await completeAt(replica.url, await tokenOf.okta())).status).toBe(200);
      await expectError(await completeAt(replica.url, await signWith(keys.okta, oktaClaims({ iss: 'https://down.example', aud: 'novix' }))), 503, 'identity_unavailable');
    } finally {
      await replica.close();
    }
  });
});

describe('the start', () => {
  let rig: Rig;
  /** All but identity. */
  let base: Record<string, string>;
  let auth: Record<string, string>;
  beforeAll(async () => {
    rig = await startRig();
    await rig.addTenant('acme', USD);
    const { AUTH_ISSUER, AUTH_AUDIENCE, AUTH_JWKS_URI, AUTH_ALGORITHMS, ...rest } = rig.env as Record<string, string>;
    base = rest as Record<string, string>;
    auth = { AUTH_ISSUER: AUTH_ISSUER!, AUTH_AUDIENCE: AUTH_AUDIENCE!, AUTH_JWKS_URI: AUTH_JWKS_URI!, AUTH_ALGORITHMS: AUTH_ALGORITHMS! };
  });
  afterAll(async () => {
    await killAll();
    await rig.close();
  });

  const ONE = { issuer: 'https://one.example', audience: 'novix', jwks_uri: 'https://one.example/keys' };
  it.each<[string, Parameters<typeof identityFolder>[0], RegExp]>([
    ['an issuer given twice', { issuers: [ONE, { ...ONE, audience: 'other' }] }, /identity\.yaml.*twice/],
    ['neither jwks_uri nor jwks_file', { issuers: [{ ...ONE, jwks_uri: undefined }] }, /identity\.yaml: https:\/\/one\.example: give one of jwks_uri and jwks_file/],
    ['both of them', { issuers: [{ ...ONE, jwks_file: '/keys.json' }] }, /identity\.yaml: https:\/\/one\.example: give one of jwks_uri and jwks_file/],
    ['plain http beyond loopback', { issuers: [{ ...ONE, jwks_uri: 'http://one.example/keys' }] }, /identity\.yaml: https:\/\/one\.example: jwks_uri has to be https/],
    ['credentials in jwks_uri', { issuers: [{ ...ONE, jwks_uri: 'https://user:pw@one.example/keys' }] }, /identity\.yaml: https:\/\/one\.example: jwks_uri has to be https.*without credentials/],
    ['a jwks_file that is not there', { issuers: [{ ...ONE, jwks_uri: undefined, jwks_file: '/nowhere/keys.json' }] }, /\/nowhere\/keys\.json/],
    ['an algorithm that is none of ours', { issuers: [{ ...ONE, algorithms: ['HS256'] }] }, /identity\.yaml: \/issuers\/0\/algorithms\/0/],
    ['an unknown field', { issuers: [{ ...ONE, jwks_url: 'https://x' }] }, /identity\.yaml: \/issuers\/0/],
    ['a tenant that can be none', { issuers: [{ ...ONE, claims: { tenant: { value: 'ACME Corp' } } }] }, /identity\.yaml: \/issuers\/0\/claims\/tenant/],
    ['what is no YAML', 'issuers: [', /./],
    ['a key twice', 'issuers: []\nissuers: []\n', /unique/],
  ])('is refused with one line for %s', async (_, content, line) => {
    const gateway_ = spawnGateway({ env: { PORT: '0', ...base, NOVIX_CONFIG_DIR: await folderWith(content) }, cwd: rig.dir });
    expect(await gateway_.exited).toEqual({ code: 1, signal: null });
    expect(gateway_.stderr().trimEnd().split('\n')).toEqual([expect.stringMatching(/^novix: \S/)]);
    expect(gateway_.stderr()).toMatch(line);
    expect(gateway_.stderr()).not.toMatch(/^\s+at |user:pw/m);
  });

  it('is refused where the file repeats the issuer of AUTH_*', async () => {
    const gateway_ = spawnGateway({ env: { PORT: '0', ...base, ...auth, NOVIX_CONFIG_DIR: await folderWith({ issuers: [{ ...ONE, issuer: auth['AUTH_ISSUER'] }] }) }, cwd: rig.dir });
    expect(await gateway_.exited).toEqual({ code: 1, signal: null });
    expect(gateway_.stderr().trimEnd().split('\n')).toEqual([expect.stringMatching(/^novix: .*AUTH_ISSUER.*twice/)]);
  });

  it('and `config check` say what is wrong with the file', async () => {
    const { code, stderr } = await novix(['config', 'check'], { env: { ...base, NOVIX_CONFIG_DIR: await folderWith({ issuers: [{ ...ONE, jwks_uri: 'http://one.example' }] }) }, cwd: rig.dir });
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/^novix: config\/identity\.yaml: https:\/\/one\.example: [^\n]+\n$/) });
  });

  it('with issuers in the file, beside a real key and without AUTH_*, starts no sandbox', async () => {
    const configDir = await folderWith({ issuers });
    expect(sandboxParts(parseEnv(base, loadIssuers(configDir)))).toEqual({ database: false, provider: false, identity: false });
    expect(sandboxParts(parseEnv({ ...base, SANDBOX_ISSUER: 'yes' }, loadIssuers(await folderWith({ issuers: [] })))).identity).toBe(true);
    const dataDir = await mkdtemp(join(tmpdir(), 'novix-test-issuers-'));
    folders.push(dataDir);
    const started = await startGatewayProcess({ env: { ...base, NOVIX_DATA_DIR: dataDir, NOVIX_CONFIG_DIR: configDir }, cwd: rig.dir });
    expect((await completeAt(started.url, await tokenOf.entra())).status).toBe(200);
    expect(started.stdout()).not.toMatch(/SANDBOX|identity provider|eyJ/);
    expect(existsSync(issuerKeyFile(dataDir))).toBe(false);
    const { rows } = await rig.db.query<{ id: string }>('SELECT id FROM tenants ORDER BY id');
    expect(rows.map(({ id }) => id)).toEqual(['acme', 'platform']); // none of the demo tenants
    started.kill('SIGTERM');
    expect(await started.exited).toEqual({ code: 0, signal: null });
  });

  it('in production is content with the file', async () => {
    const configDir = await folderWith({ issuers: [{ ...ONE, jwks_uri: undefined, jwks_file: join(rig.dir, 'keys.json') }] });
    await writeFile(join(rig.dir, 'keys.json'), JSON.stringify({ keys: [keys.okta.jwk] }));
    const started = await startGatewayProcess({ env: { ...base, NODE_ENV: 'production', HOST: '127.0.0.1', NOVIX_CONFIG_DIR: configDir }, cwd: rig.dir });
    const token = await signWith(keys.okta, { iss: ONE.issuer, aud: 'novix', ...times(), sub: 'ada', jti: crypto.randomUUID(), tenant: 'acme', roles: ['developer'] });
    expect((await fetch(`${started.url}/v1/models`, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
    started.kill('SIGTERM');
    expect(await started.exited).toEqual({ code: 0, signal: null });
  });
});
