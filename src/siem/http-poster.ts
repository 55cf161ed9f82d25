import { Agent, request } from 'undici';
import { createConnector } from '../egress/connector.ts';
import { retryAfterMs } from './retry-after.ts';
import type { SenderContext } from './sender.ts';
import type { SinkSettings } from './sink.ts';
import { within } from './within.ts';

const ANSWER_BYTES_MAX = 64 * 1024;

export interface HttpAnswer {
  status: number;
  /** At most 64 KiB; longer answers are cut off, and so are no JSON. */
  text: string;
  /** What `Retry-After` asks for. */
  afterMs: number;
}

/** Posts to one origin on one connection that is kept open. A redirect is an answer like any other: the admin named one place. */
export class HttpPoster {
  readonly #agent: Agent;

  constructor(
    { url, ca }: Pick<SinkSettings, 'url' | 'ca'>,
    private readonly context: SenderContext,
  ) {
    const { egress, limits } = context;
    const connect = createConnector({
      connectTimeoutMs: limits.connectTimeoutMs, anyAddress: egress.allowedOrigins.includes(new URL(url).origin), tls: { cert: undefined, key: undefined, ca }, proxy: { url: egress.proxyUrl, noProxy: egress.noProxy },
    });
    this.#agent = new Agent({ connect, connections: 1, headersTimeout: limits.requestTimeoutMs, bodyTimeout: limits.requestTimeoutMs });
  }

  /** @throws {Error} where no whole answer came */
  post(url: string, headers: Record<string, string>, body: Buffer | string, outer: AbortSignal): Promise<HttpAnswer> {
    const { requestTimeoutMs, hecBatchesInFlight } = this.context.limits;
    // Each has its own time from when it goes out; all together have this, since they queue for the connection.
    return within(requestTimeoutMs * hecBatchesInFlight, 'whole answer', outer, async (signal) => {
      const response = await request(url, { method: 'POST', dispatcher: this.#agent, body, headers: { 'content-type': 'application/json', ...headers }, signal });
      const parts: Buffer[] = [];
      let bytes = 0;
      for await (const part of response.body as AsyncIterable<Buffer>) {
        parts.push(part);
        bytes += part.length;
        if (bytes > ANSWER_BYTES_MAX) break; // ends the connection too
      }
      return { status: response.statusCode, text: Buffer.concat(parts).subarray(0, ANSWER_BYTES_MAX).toString(), afterMs: retryAfterMs(response.headers['retry-after'], this.context.clock.nowMs()) };
    });
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }
}
