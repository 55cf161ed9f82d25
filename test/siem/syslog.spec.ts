import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { hostname } from 'node:os';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { Pki, type IssuedCertificate } from '../support/pki.ts';
import { eventually } from '../support/harness.ts';
import { eventText, eventTexts, NASTY, openBench, type ExportBench } from './export-bench.ts';
import { startSyslogReceiver, type SyslogReceiver } from './syslog-receiver.ts';

// Syslog over TLS: no acknowledgement but the orderly end of a connection.

let pki: Pki;
let otherPki: Pki;
let certificate: IssuedCertificate;
let bench: ExportBench;
let receiver: SyslogReceiver;
beforeAll(async () => {
  [pki, otherPki] = await Promise.all([Pki.create('syslog authority'), Pki.create('another authority')]);
  certificate = await pki.issue({ subject: '/CN=syslog', san: 'IP:127.0.0.1' });
});
afterAll(() => Promise.all([pki.remove(), otherPki.remove()]));
beforeEach(async () => {
  [bench, receiver] = await Promise.all([openBench(), startSyslogReceiver(certificate)]);
});
afterEach(async () => {
  await bench.close();
  await receiver.close();
});

const sink = (port = receiver.port, ca: string | undefined = pki.ca): Promise<string> => bench.sink({ name: 'syslog', type: 'syslog', url: `tls://127.0.0.1:${port}`, cursor: 0, ...(ca !== undefined && { ca }) });
const exporter = (port = receiver.port, limits = {}): ReturnType<ExportBench['exporter']> => bench.exporter({ allowed: [`tls://127.0.0.1:${port}`], limits });
const indexes = (): number[] => receiver.messages.map(({ data }) => Number(data['index']));
const all = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

it.each(['TLSv1.2', 'TLSv1.3'] as const)('delivers each event whole in a frame of its own, whatever is in it (%s)', async (version) => {
  await receiver.close();
  receiver = await startSyslogReceiver(certificate, version);
  const timeMs = 1_764_000_000_123;
  const texts = [...NASTY.map((value) => eventText(value, { timeMs })), eventText('x'.repeat(60_000), { timeMs, severityId: 2 }), eventText('phase', { timeMs, phase: 'a"b\\c]d=e|f' })];
  await bench.append(texts);
  const id = await sink();
  exporter();
  await bench.reaches(id, texts.length);
  expect(receiver.messages.map(({ message }) => message)).toEqual(texts);
  expect(indexes()).toEqual(all(texts.length));
  const ids = (await bench.db.query<{ id: string }>('SELECT id FROM audit_leaves ORDER BY index')).rows.map((row) => row.id);
  expect(receiver.messages.map(({ data }) => data['id'])).toEqual(ids);
  expect(receiver.messages[0]).toMatchObject({ priority: 13 * 8 + 6, timestamp: '2025-11-24T16:00:00.123Z', app: 'novix-gateway', processId: String(process.pid), messageId: 'intent', data: { phase: 'intent' } });
  expect(receiver.messages.at(-2)!.priority).toBe(13 * 8 + 5);
  expect(receiver.messages.at(-1)!.data['phase']).toBe('a"b\\c]d=e|f');
  expect(receiver.connections).toBe(1);
});

it('delivers many batches in order, each once, with back-pressure', async () => {
  const texts = eventTexts(1_200, 'y'.repeat(1_500));
  await bench.append(texts);
  receiver.onConnection = (socket) => {
    socket.pause();
    setTimeout(() => socket.resume(), 100);
  };
  const id = await sink();
  exporter();
  await bench.reaches(id, 1_200, 20_000);
  expect(receiver.messages.map(({ message }) => message)).toEqual(texts);
});

describe('gets everything again that was not acknowledged by an orderly close, when the receiver', () => {
  it.each<[string, (socket: Socket) => void]>([
    ['resets half way', (socket) => socket.destroy()], // with unread bytes, for which TCP sends a reset
    ['ends half way', (socket) => socket.end()],
  ])('%s', async (_, misbehave) => {
    receiver.onMessage = (socket, count) => {
      if (receiver.connections <= 2 && count === 5) misbehave(socket);
    };
    const texts = eventTexts(400, 'z'.repeat(2_000));
    await bench.append(texts);
    const id = await sink();
    exporter();
    await bench.reaches(id, 400, 20_000);
    expect(receiver.connections).toBeGreaterThan(2);
    expect(new Set(indexes())).toEqual(new Set(all(400)));
    expect(receiver.messages.slice(-400).map(({ message }) => message)).toEqual(texts);
    expect(await bench.state(id)).toMatchObject({ parked: 0, lastError: null });
  });

  it('has read all of a small batch, and dies before it closes', async () => {
    receiver.onMessage = (socket, count) => {
      if (receiver.connections <= 3 && count === 3) socket.destroy(); // FIN without close_notify: what Node tells apart from an orderly end by nothing
    };
    await bench.append(eventTexts(3));
    const id = await sink();
    exporter();
    await bench.reaches(id, 3);
    expect(receiver.connections).toBe(4);
    expect(indexes()).toEqual([...all(3), ...all(3), ...all(3), ...all(3)]);
  });

  it('does not close at all', async () => {
    receiver.onConnection = (socket) => {
      if (receiver.connections === 1) socket.pause(); // takes what fits into buffers, and never sees the end
    };
    await bench.append(eventTexts(3));
    const id = await sink();
    exporter(receiver.port, { closeTimeoutMs: 150 });
    await eventually(async () => (await bench.state(id)).lastError?.includes('no orderly close by the receiver within 0.15 s'));
    expect(await bench.reaches(id, 3)).toMatchObject({ parked: 0 });
    expect(indexes()).toEqual(all(3));
  });

  it('is down, or resets before a word is said', async () => {
    const resetting = createServer((socket) => socket.resetAndDestroy());
    await new Promise<void>((resolve) => {
      resetting.listen(0, '127.0.0.1', resolve);
    });
    try {
      await bench.append(eventTexts(2));
      const { port } = resetting.address() as AddressInfo;
      const id = await sink(port);
      exporter(port);
      await eventually(async () => (await bench.state(id)).lastError !== null);
      expect(await bench.state(id)).toMatchObject({ cursor: 0, parked: 0 });
      resetting.close();
      await eventually(async () => (await bench.state(id)).lastError?.includes('ECONNREFUSED'));
      expect(await bench.state(id)).toMatchObject({ cursor: 0, parked: 0 });
    } finally {
      resetting.close();
    }
  });
});

describe('sends nothing to a receiver', () => {
  it.each<[string, () => Promise<{ ca: string | undefined; server: IssuedCertificate }>]>([
    ['that nobody vouches for', () => Promise.resolve({ ca: undefined, server: certificate })],
    ['that another authority vouches for', () => Promise.resolve({ ca: otherPki.ca, server: certificate })],
    ['with the name of another', async () => ({ ca: pki.ca, server: await pki.issue({ subject: '/CN=other', san: 'IP:127.0.0.2,DNS:other.example' }) })],
    ['whose certificate has run out', async () => ({ ca: pki.ca, server: await pki.issue({ subject: '/CN=old', san: 'IP:127.0.0.1', notBeforeMs: Date.now() - 9e8, notAfterMs: Date.now() - 1e8 }) })],
  ])('%s', async (_, given) => {
    const { ca, server } = await given();
    await receiver.close();
    receiver = await startSyslogReceiver(server);
    await bench.append(eventTexts(1));
    const id = ca === undefined ? await bench.sink({ name: 'syslog', type: 'syslog', url: `tls://127.0.0.1:${receiver.port}`, cursor: 0 }) : await sink(receiver.port, ca);
    exporter();
    await eventually(async () => /certificate|altnames|issuer/i.test((await bench.state(id)).lastError ?? ''));
    expect(receiver.messages).toEqual([]);
    expect((await bench.state(id)).cursor).toBe(0);
  });

  it('whose origin is not allowed', async () => {
    await bench.append(eventTexts(1));
    const id = await sink();
    bench.exporter({ allowed: [`https://127.0.0.1:${receiver.port}`, `tls://127.0.0.1:${receiver.port + 1}`] });
    await eventually(async () => (await bench.state(id)).lastError?.includes('not public'));
    expect(receiver.connections).toBe(0);
  });

  it('whose name leads to an address that is not public', async () => {
    await bench.append(eventTexts(1));
    const id = await bench.sink({ name: 'named', type: 'syslog', url: `tls://${hostname()}:${receiver.port}`, ca: pki.ca, cursor: 0 });
    bench.exporter();
    await eventually(async () => /not public|ENOTFOUND|EAI_AGAIN/.test((await bench.state(id)).lastError ?? ''));
    expect(receiver.connections).toBe(0);
  });
});
