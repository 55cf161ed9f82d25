import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { clientIp } from '../shared/client-ip.ts';
import { readJsonBody } from '../shared/read-body.ts';

/** The HTTP side of a call: what the pipeline sees of the one who asks. */
export class Caller {
  readonly requestId: string;
  readonly ip: string;
  readonly headers: IncomingHttpHeaders;
  readonly operation: string;

  constructor(
    request: FastifyRequest,
    readonly reply: FastifyReply,
    private readonly bodyBytesMax: number,
  ) {
    this.requestId = request.id;
    this.ip = clientIp(request);
    this.headers = request.headers;
    this.operation = `${request.method} ${request.routeOptions.url ?? ''}`;
    this.#raw = request.raw;
  }
  readonly #raw: FastifyRequest['raw'];

  readBody(): Promise<Buffer> {
    return readJsonBody(this.#raw, this.bodyBytesMax);
  }

  /** Calls back once if the caller goes away before the answer is complete. */
  onHangUp(listener: () => void): void {
    const { raw } = this.reply;
    if (raw.destroyed && !raw.writableFinished) listener();
    else raw.once('close', () => {
      if (!raw.writableFinished) listener();
    });
  }
}
