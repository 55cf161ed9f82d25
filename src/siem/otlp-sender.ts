import type { ExportEvent } from './export-event.ts';
import { HttpPoster } from './http-poster.ts';
import { otlpBody, otlpUrl, readOtlpAnswer } from './otlp-wire.ts';
import type { Sender, SenderContext } from './sender.ts';
import type { Outcome, SinkSettings } from './sink.ts';

/** Sends to a collector of OpenTelemetry, whose answer is the acknowledgement. */
export class OtlpSender implements Sender {
  readonly #poster: HttpPoster;
  readonly #url: string;
  readonly #headers: Record<string, string>;

  constructor(
    sink: SinkSettings,
    token: string | undefined,
    private readonly context: SenderContext,
  ) {
    this.#poster = new HttpPoster(sink, context);
    this.#url = otlpUrl(sink.url);
    this.#headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  async send(events: readonly ExportEvent[], signal: AbortSignal): Promise<Outcome> {
    const { status, text, afterMs } = await this.#poster.post(this.#url, this.#headers, otlpBody(events, this.context.clock.nowMs()), signal);
    return readOtlpAnswer(status, text, afterMs);
  }

  close(): Promise<void> {
    return this.#poster.close();
  }
}
