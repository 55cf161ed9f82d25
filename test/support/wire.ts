import { expect } from '@jest/globals';
import { createServer, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect, type AddressInfo } from 'node:net';

export interface ErrorAnswer {
  error: { message: string; type: string; code: string; param: string | null; decision_id?: string };
}

/** Checks that an answer is a refusal as DESIGN 3.1 describes it, and gives its body. */
export async function expectError(response: Response, status: number, code: string): Promise<ErrorAnswer['error']> {
  const text = await response.text();
  expect({ status: response.status, text: response.status === status ? '' : text }).toEqual({ status, text: '' });
  const { error } = JSON.parse(text) as ErrorAnswer;
  expect(error.code).toBe(code);
  expect(typeof error.message).toBe('string');
  expect(error.message.length).toBeGreaterThan(10);
  expect(Object.keys(error).toSorted()).toEqual(error.decision_id === undefined ? ['code', 'message', 'param', 'type'] : ['code', 'decision_id', 'message', 'param', 'type']);
  expect(response.headers.get('content-type')).toMatch(/^application\/json/);
  expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  return error;
}

export interface RawAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/** A request whose path goes out as written: `fetch` would tidy it up. */
export function rawRequest(origin: string, path: string, options: { method?: string; headers?: Record<string, string | string[]>; body?: string | Buffer } = {}): Promise<RawAnswer> {
  const { hostname, port } = new URL(origin);
  return new Promise((resolve, reject) => {
    const request = httpRequest({ hostname, port, path, method: options.method ?? 'GET', agent: false, headers: options.headers ?? {} }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(parts).toString() }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(options.body);
  });
}

/** Writes bytes on a bare socket and waits until the answer's headers and body are there, or the other side closes. */
export function bareExchange(origin: string, text: string, { untilClosed = false } = {}): Promise<{ status: number; text: string }> {
  const { hostname, port } = new URL(origin);
  return new Promise((resolve, reject) => {
    let received = '';
    const socket = connect(Number(port), hostname, () => socket.write(text));
    const answer = (): void => resolve({ status: Number(received.split(' ', 2)[1]), text: received });
    socket.on('data', (part: Buffer) => {
      received += part.toString();
      const length = /\r\ncontent-length: (\d+)\r\n/i.exec(received)?.[1];
      if (!untilClosed && length !== undefined && received.length - received.indexOf('\r\n\r\n') - 4 >= Number(length)) {
        answer();
        socket.destroy();
      }
    });
    socket.on('close', answer);
    socket.on('error', (error) => (received === '' ? reject(error) : answer()));
  });
}

/** The frames of a stream, without the blank lines between them. */
export function framesOf(text: string): string[] {
  return text.split(/\r?\n\r?\n/).filter((frame) => frame !== '');
}

export interface Recorder {
  /** Takes the place of the upstream's URL. */
  url: string;
  /** Bodies as they came, oldest first. */
  bodies: Buffer[];
  /** Where to pass requests on to. */
  forwardTo(url: string): void;
  close(): Promise<void>;
}

/** Stands between the gateway and its upstream, and keeps the exact bytes of what goes there. */
export async function startRecorder(): Promise<Recorder> {
  const bodies: Buffer[] = [];
  let target: URL | undefined;
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      bodies.push(body);
      const onward = httpRequest(new URL(request.url!, target), { method: request.method!, headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      response.on('close', () => onward.destroy());
      onward.end(body);
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    bodies,
    forwardTo: (url) => {
      target = new URL(url);
    },
    close: () => new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    }),
  };
}
