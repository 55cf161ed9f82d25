import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { createServer as createHttpServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { createServer, type AddressInfo, type Server as NetServer } from 'node:net';
import { hostname } from 'node:os';
import { egressFault, isPublicAddress, lookupPublic } from '../../../src/egress/addresses.ts';
import { startXaiEmulator, type XaiEmulator } from '../../../src/sandbox/xai-emulator.ts';
import { adminOf, deploy, removeStored, servedBy, type AdminCall, type DeploymentView } from '../../support/deployments.ts';
import { startHarness, type Harness } from '../../support/harness.ts';
import { expectError } from '../../support/wire.ts';

// Where an admin may lead the gateway, and where nobody may: by what is refused, and by what is never connected to.

const KEY = 'xai-egress-key';
const ALLOWED_NAME = 'https://grok.internal.example:8443';

let harness: Harness;
let call: AdminCall;
let allowed: XaiEmulator;
let redirecting: Server;
let redirectTo = '';
let redirectStatus = 302;
/** What came to the redirecting server. */
let asked: { path: string; headers: IncomingHttpHeaders }[] = [];
/** Takes connections, counts them, and ends them. */
let listening: NetServer;
let connections = 0;
const portOf = (server: NetServer): number => (server.address() as AddressInfo).port;
const urlOf = (server: Server): string => `http://127.0.0.1:${portOf(server)}`;
beforeAll(async () => {
  allowed = await startXaiEmulator({ apiKeys: [KEY] });
  redirecting = createHttpServer((request, response) => {
    asked.push({ path: request.url!, headers: request.headers });
    request.resume();
    response.writeHead(redirectStatus, { location: redirectTo, 'content-type': 'application/json' }).end('{}');
  });
  listening = createServer((socket) => {
    connections += 1;
    socket.destroy();
  });
  for (const server of [redirecting, listening]) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  harness = await startHarness({ env: { EGRESS_ALLOW: `${new URL(allowed.url).origin}, ${urlOf(redirecting)},${ALLOWED_NAME},https://localhost:${portOf(listening)}`, XAI_RETRY_MAX: '0', XAI_BREAKER_FAILURES: '1000' } });
  call = adminOf(harness, await harness.adminToken());
});
afterEach(async () => {
  await removeStored(call);
  for (const emulator of [harness.emulator, allowed]) emulator.reset();
  asked = [];
  connections = 0;
});
afterAll(async () => {
  await harness.close();
  await allowed.close();
  redirecting.close();
  listening.close();
});

const fields = (baseUrl: string): Record<string, unknown> => ({ id: 'shard-1', model: 'grok-beta', base_url: baseUrl, api_key: KEY });

describe('a base_url of the admin API', () => {
  it.each<[string, string]>([
    ['plain http', 'http://api.x.ai/v1'], ['another scheme', 'ftp://api.x.ai/v1'], ['a file', 'file:///etc/passwd'], ['a data URL', 'data:text/plain,x'], ['no scheme', 'api.x.ai/v1'], ['no host', 'https://'], ['a path alone', '/v1'],
    ['localhost', 'https://localhost/v1'], ['LocalHost', 'https://LocalHost/v1'], ['loopback', 'https://127.0.0.1/v1'], ['loopback of another number', 'https://127.8.9.10/v1'], ['loopback, shortened', 'https://127.1/v1'],
    ['loopback as one number', 'https://2130706433/v1'], ['loopback in hexadecimal', 'https://0x7f000001/v1'], ['loopback in octal', 'https://0177.0.0.1/v1'], ['loopback with a dot behind', 'https://127.0.0.1./v1'],
    ['loopback in full-width digits', 'https://１２７.０.０.１/v1'], ['loopback, percent-encoded', 'https://%31%32%37.0.0.1/v1'], ['this network', 'https://0.0.0.0/v1'], ['nothing but zero', 'https://0/v1'],
    ['10/8', 'https://10.0.0.1/v1'], ['172.16/12', 'https://172.31.255.255/v1'], ['192.168/16', 'https://192.168.1.1/v1'], ['carrier-grade NAT', 'https://100.64.0.1/v1'], ['link-local', 'https://169.254.1.1/v1'],
    ['the metadata address', 'https://169.254.169.254/latest/meta-data'], ['the metadata address as one number', 'https://2852039166/v1'], ['multicast', 'https://224.0.0.1/v1'], ['broadcast', 'https://255.255.255.255/v1'],
    ['IPv6 loopback', 'https://[::1]/v1'], ['IPv6 loopback, long', 'https://[0:0:0:0:0:0:0:1]/v1'], ['IPv6 unspecified', 'https://[::]/v1'], ['IPv6 unique local', 'https://[fd00:ec2::254]/v1'], ['IPv6 link-local', 'https://[fe80::1]/v1'],
    ['mapped IPv4 loopback', 'https://[::ffff:127.0.0.1]/v1'], ['mapped IPv4 in hexadecimal', 'https://[::ffff:a9fe:a9fe]/v1'], ['mapped IPv4, long', 'https://[0:0:0:0:0:ffff:10.0.0.1]/v1'], ['compatible IPv4', 'https://[::127.0.0.1]/v1'],
    ['NAT64 of a private address', 'https://[64:ff9b::10.0.0.1]/v1'], ['6to4', 'https://[2002:7f00:1::]/v1'], ['documentation', 'https://[2001:db8::1]/v1'], ['IPv6 multicast', 'https://[ff02::1]/v1'],
    ['a user', 'https://user@api.x.ai/v1'], ['user and password', 'https://user:secret@api.x.ai/v1'], ['an allowed host as the user', 'https://api.x.ai@10.0.0.1/v1'], ['a user at an allowed origin', 'https://user@grok.internal.example:8443/v1'],
    ['a query', 'https://api.x.ai/v1?key=1'], ['an empty query', 'https://api.x.ai/v1?'], ['a fragment', 'https://api.x.ai/v1#x'], ['an empty fragment', 'https://api.x.ai/v1#'], ['a query at an allowed origin', `${ALLOWED_NAME}/v1?x`],
    ['a line break', 'https://api.x.ai/v1\r\nhost: evil'], ['a tab within the host', 'https://127.0\t.0.1/v1'], ['a port that there is not', 'https://api.x.ai:99999/v1'], ['spaces in the host', 'https://api .x.ai/v1'],
    ['an allowed name on another port of a private host', 'https://grok.internal.example@10.0.0.1:8443/v1'], ['an allowed name by plain http', 'http://grok.internal.example:8443/v1'],
  ])('is refused with %s: %s', async (_, baseUrl) => {
    const error = await expectError(await call('POST', '/deployments', fields(baseUrl)), 400, 'invalid_request');
    expect(error.param).toBe('base_url');
    expect(error.message).not.toContain(KEY);
    expect((await call('GET', '/deployments/shard-1')).status).toBe(404);
    await deploy(call, fields(allowed.url));
    expect((await expectError(await call('PATCH', '/deployments/shard-1', { base_url: baseUrl }), 400, 'invalid_request')).param).toBe('base_url');
    expect(await (await call('GET', '/deployments/shard-1')).json()).toMatchObject({ base_url: allowed.url });
  });

  it.each(['https://us.api.x.ai/v1', 'https://api.x.ai:8443/v1', 'https://api.x.ai', 'https://8.8.8.8/v1', 'https://172.32.0.1/v1', 'https://100.128.0.1/v1', 'https://[2606:4700:4700::1111]/v1', `${ALLOWED_NAME}/v1`])('may be %s', async (baseUrl) => {
    // Out of service from the start: nobody is called here.
    const made = await deploy(call, { ...fields(baseUrl), weight: 0 });
    expect(made.base_url).toBe(baseUrl);
  });
});

describe('EGRESS_ALLOW', () => {
  it('lets in an origin that is private and without TLS', async () => {
    await deploy(call, fields(allowed.url));
    await call('PATCH', '/deployments/xai', { weight: 0 });
    expect(await servedBy(harness.complete())).toBe('shard-1');
    expect(allowed.calls).toHaveLength(1);
  });

  it('lets in that exact origin, and none that is like it', async () => {
    const { port, host } = new URL(allowed.url);
    const alike = [
      `http://127.0.0.1:${Number(port) === 65_535 ? 1_024 : Number(port) + 1}/v1`, `https://${host}/v1`, `http://localhost:${port}/v1`, `http://127.0.0.2:${port}/v1`, 'http://127.0.0.1/v1', `http://127.0.0.1:${port}0/v1`, `http://[::1]:${port}/v1`,
      `http://[::ffff:127.0.0.1]:${port}/v1`, `http://${host}@127.0.0.3/v1`, `http://127.0.0.3/${host}`,
    ];
    for (const baseUrl of alike) expect([baseUrl, (await call('POST', '/deployments', fields(baseUrl))).status]).toEqual([baseUrl, 400]);
    expect((await call('POST', '/deployments', fields(`http://${host.replace('127.0.0.1', '0x7f.1')}/any/path`))).status).toBe(201); // another spelling of the same
  });
});

describe('a redirect of the provider', () => {
  it.each([301, 302, 303, 307, 308])('%i is never followed, and is a bad answer', async (status) => {
    [redirectStatus, redirectTo] = [status, `${allowed.url}/chat/completions`];
    await deploy(call, fields(`${urlOf(redirecting)}/v1`));
    await call('PATCH', '/deployments/xai', { weight: 0 });
    for (const stream of [false, true]) await expectError(await harness.complete({ stream }), 502, 'provider_bad_response');
    expect(asked.map(({ path }) => path)).toEqual(['/v1/chat/completions', '/v1/chat/completions']);
    expect(allowed.calls).toHaveLength(0);
    expect(harness.emulator.calls).toHaveLength(0);
  });
});

describe('credentials', () => {
  it('of one deployment do not reach another, and neither do the caller’s', async () => {
    await deploy(call, { ...fields(`${urlOf(redirecting)}/v1`), api_key: undefined });
    await call('PATCH', '/deployments/xai', { weight: 0 });
    await harness.complete({}, { 'x-api-key': 'of-the-caller', cookie: 'a=b', 'proxy-authorization': 'Basic x' });
    expect(asked).toHaveLength(1);
    expect(Object.keys(asked[0]!.headers).filter((name) => /auth|cookie|api-key/.test(name))).toEqual([]);
    await call('PATCH', '/deployments/shard-1', { api_key: KEY });
    await harness.complete();
    expect(asked[1]!.headers.authorization).toBe(`Bearer ${KEY}`);
  });
});

describe('a name that resolves to an address that is not public', () => {
  // The name of this machine passes the check of URLs, and is resolved to this machine where it is resolved at all.
  it.each([hostname(), 'localhost.'])('is refused at the connection, which is never made: %s', async (name) => {
    const response = await call('POST', '/deployments', fields(`https://${name}:${portOf(listening)}/v1`));
    expect([201, 400]).toContain(response.status);
    await call('PATCH', '/deployments/xai', { weight: 0 });
    expect((await harness.complete()).status).toBe(503);
    expect(connections).toBe(0);
  });

  it('is connected to where its origin is allowed: so the test before sees what it has to see', async () => {
    await deploy(call, fields(`https://localhost:${portOf(listening)}/v1`));
    await call('PATCH', '/deployments/xai', { weight: 0 });
    await expectError(await harness.complete(), 503, 'provider_unavailable');
    expect(connections).toBe(1);
  });

  const resolved = (name: string, options: { all?: boolean; family?: 4 | 6 }): Promise<{ error: Error | null; address: unknown }> => new Promise((resolve) => {
    lookupPublic(name, options, (error, address) => resolve({ error, address }));
  });

  it.each([[{}], [{ all: true }], [{ family: 4 as const }]])('is refused by lookupPublic (%j)', async (options) => {
    for (const name of ['localhost', '127.0.0.1', '127.1', '10.1.2.3', '169.254.169.254']) {
      const { error, address } = await resolved(name, options);
      expect([name, error?.message]).toEqual([name, expect.stringMatching(/^\S+ resolves to \S+, which is not public/)]);
      expect(address).toEqual([]);
    }
  });

  it('is told apart from one that does not resolve, and from one that is public', async () => {
    expect((await resolved('no-such-name.invalid', { all: true })).error).toMatchObject({ code: expect.stringMatching(/^(ENOTFOUND|EAI_AGAIN)$/) });
    expect(await resolved('8.8.8.8', { all: true })).toEqual({ error: null, address: [{ address: '8.8.8.8', family: 4 }] });
    expect(await resolved('8.8.8.8', {})).toEqual({ error: null, address: '8.8.8.8' });
    expect(await resolved('2606:4700:4700::1111', { all: true })).toEqual({ error: null, address: [{ address: '2606:4700:4700::1111', family: 6 }] });
  });
});

describe('isPublicAddress', () => {
  it.each([
    '0.0.0.0', '0.255.255.255', '10.0.0.0', '10.255.255.255', '100.64.0.0', '100.127.255.255', '127.0.0.1', '127.255.255.255', '169.254.0.0', '169.254.169.254', '172.16.0.0', '172.31.255.255', '192.0.0.1', '192.0.2.1', '192.168.0.0',
    '192.168.255.255', '198.18.0.1', '198.19.255.255', '198.51.100.1', '203.0.113.1', '224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255',
    '::', '::1', '::7f00:1', '::127.0.0.1', '::ffff:127.0.0.1', '::FFFF:10.0.0.1', '::ffff:7f00:1', '0:0:0:0:0:ffff:7f00:1', '64:ff9b::10.0.0.1', '64:ff9b::a00:1', '64:ff9b:1::1', '100::1', '2001::1', '2001:db8::1', '2002:7f00:1::',
    'fc00::1', 'fdff::1', 'fe80::1', 'febf::1', 'fec0::1', 'ff02::1', 'fe80::1%eth0', '', 'localhost', '127.1', '0x7f.0.0.1', '8.8.8.8 ', '[::1]', '1.2.3', '08.8.8.8',
  ])('%s is not', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });

  it.each(['1.1.1.1', '8.8.8.8', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '126.255.255.255', '128.0.0.1', '169.253.255.255', '169.255.0.0', '172.15.255.255', '172.32.0.0', '192.167.255.255', '192.169.0.0', '223.255.255.255', '2606:4700:4700::1111', '2a00:1450::1', '::ffff:8.8.8.8'])('%s is', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });
});

describe('egressFault', () => {
  it('says what is wrong, and lets an allowed origin be anything but a carrier of credentials', () => {
    expect(egressFault('https://api.x.ai/v1', [])).toBeUndefined();
    expect(egressFault('http://api.x.ai/v1', [])).toMatch(/not https/);
    expect(egressFault('https://10.0.0.1/v1', [])).toMatch(/not public/);
    expect(egressFault('https://10.0.0.1/v1', ['https://10.0.0.1'])).toBeUndefined();
    expect(egressFault('https://10.0.0.1:443/v1', ['https://10.0.0.1'])).toBeUndefined();
    expect(egressFault('https://10.0.0.1:444/v1', ['https://10.0.0.1'])).toMatch(/not public/);
    expect(egressFault('https://u:p@10.0.0.1/v1', ['https://10.0.0.1'])).toMatch(/credentials/);
    expect(egressFault('nothing', [])).toMatch(/absolute URL/);
  });
});

it('what is stored is what was given', async () => {
  const { base_url: baseUrl } = (await deploy(call, fields(`${allowed.url}/`))) satisfies DeploymentView;
  expect(baseUrl).toBe(`${allowed.url}/`);
  await call('PATCH', '/deployments/xai', { weight: 0 });
  expect(await servedBy(harness.complete())).toBe('shard-1');
  expect(allowed.calls[0]!.path).toBe('/v1/chat/completions');
});
