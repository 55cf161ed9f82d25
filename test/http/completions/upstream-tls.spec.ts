import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority } from '../../sandbox/certificates.ts';
import { startHarness, type Harness } from '../../support/harness.ts';

// Mutual TLS towards the provider, through the proxy that is the company's only way out. Real certificates, real sockets.

let dir: string;
let proxy: Server;
let harness: Harness;
const asked: string[] = [];
const authority = createAuthority('Test provider CA');
const clients = createAuthority('Test client CA');
const file = (name: string): string => join(dir, name);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'novix-test-tls-'));
  const server = authority.issue('127.0.0.1');
  const client = clients.issue('novix');
  await Promise.all([writeFile(file('ca.pem'), authority.cert), writeFile(file('client.pem'), client.cert), writeFile(file('client.key'), client.key)]);
  proxy = createServer().on('connect', (request, socket, head) => {
    asked.push(request.url!);
    const [host, port] = request.url!.split(':');
    const through = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      through.write(head);
      through.pipe(socket).pipe(through);
    });
    socket.on('error', () => through.destroy());
    through.on('error', () => socket.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  harness = await startHarness({
    emulator: { tls: { cert: server.cert, key: server.key, clientCa: clients.cert, clientCn: 'novix', withoutCertificate: '403' } },
    env: {
      XAI_CLIENT_CERT: file('client.pem'), XAI_CLIENT_KEY: file('client.key'), XAI_CA: file('ca.pem'), XAI_RETRY_MAX: '0',
      HTTPS_PROXY: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    },
  });
});
afterAll(async () => {
  await harness.close();
  proxy.close();
  await rm(dir, { recursive: true, force: true });
});

describe('a provider that asks for a certificate, behind a proxy', () => {
  it('is reached through the proxy, with the certificate, by a hybrid post-quantum key exchange', async () => {
    expect((await harness.complete()).status).toBe(200);
    expect(asked).toEqual([new URL(harness.emulator.url).host]);
    const metrics = await (await harness.request('GET', '/metrics', { token: null })).text();
    expect(metrics).toContain('novix_upstream_tls_connections_total{deployment="xai",group="X25519MLKEM768"}');
  });

  it('takes a renewed certificate without a restart: here, one that the provider does not accept', async () => {
    const other = clients.issue('someone-else');
    await Promise.all([writeFile(file('client.pem'), other.cert), writeFile(file('client.key'), other.key)]);
    // Connections that are open already go on with the old one; these calls need another beside it.
    const answers = await Promise.all(Array.from({ length: 4 }, () => harness.complete()));
    expect(answers.map(({ status }) => status)).toContain(502);
  });
});
