import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';

// The least that a proxy can do: read the body, pass it on with another key, and pass the answer back with back-pressure. No checks, no records.
const upstream = new URL(process.argv[2]!);
const authorization = `Bearer ${process.argv[3]!}`;
const agent = new Agent({ connections: null, pipelining: 1, headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 10_000 });

const server = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on('data', (part: Buffer) => parts.push(part));
  request.on('end', () => {
    agent.dispatch(
      {
        origin: upstream.origin, path: `${upstream.pathname}/chat/completions`, method: 'POST', body: Buffer.concat(parts),
        headers: { 'content-type': 'application/json', accept: request.headers.accept ?? '*/*', authorization },
      },
      {
        onRequestStart(controller) {
          response.on('close', () => {
            if (!response.writableFinished) controller.abort(new Error('caller gone'));
          });
        },
        onResponseStart(_controller, status, headers) {
          response.writeHead(status, { 'content-type': headers['content-type'] as string });
        },
        onResponseData(controller, chunk) {
          if (response.write(chunk)) return;
          controller.pause();
          response.once('drain', () => controller.resume());
        },
        onResponseEnd() {
          response.end();
        },
        onResponseError() {
          response.destroy();
        },
      },
    );
  });
});
server.keepAliveTimeout = 60_000;
server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () => process.send?.({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1` }));
