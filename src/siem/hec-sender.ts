import { setTimeout as sleep } from 'node:timers/promises';
import type { ExportEvent } from './export-event.ts';
import { ackBody, hecBody, hecUrls, readAck, readHecAnswer } from './hec-wire.ts';
import { HttpPoster } from './http-poster.ts';
import type { Sender, SenderContext } from './sender.ts';
import { faultText } from './shown-text.ts';
import { ACKNOWLEDGED, retry, type Outcome, type SinkSettings } from './sink.ts';

/** Sends to a HEC, and then asks until the batch is indexed: that it was received says nothing of whether it will be found. */
export class HecSender implements Sender {
  readonly #poster: HttpPoster;
  readonly #urls: { events: string; acks: string };
  readonly #headers: Record<string, string>;

  constructor(
    sink: SinkSettings,
    token: string,
    private readonly context: SenderContext,
  ) {
    this.#poster = new HttpPoster(sink, context);
    this.#urls = hecUrls(sink.url, sink.id);
    // One channel a sink, whichever replica sends: acknowledgements belong to a channel.
    this.#headers = { authorization: `Splunk ${token}`, 'x-splunk-request-channel': sink.id };
  }

  async send(events: readonly ExportEvent[], signal: AbortSignal): Promise<Outcome> {
    const { status, text, afterMs } = await this.#poster.post(this.#urls.events, this.#headers, hecBody(events), signal);
    const answer = readHecAnswer(status, text, afterMs);
    return answer.kind === 'taken' ? this.#untilIndexed(answer.ackId, signal) : answer;
  }

  async #untilIndexed(ackId: number, signal: AbortSignal): Promise<Outcome> {
    const { clock, limits } = this.context;
    const deadlineMs = clock.monotonicMs() + limits.ackTimeoutMs;
    let last = 'it has not been indexed';
    while (clock.monotonicMs() < deadlineMs) {
      await sleep(limits.ackPauseMs, undefined, { signal });
      try {
        const { status, text } = await this.#poster.post(this.#urls.acks, this.#headers, ackBody(ackId), signal);
        if (readAck(status, text, ackId) === true) return ACKNOWLEDGED;
        const refusal = status === 200 ? undefined : readHecAnswer(status, text, 0);
        // Such as 14, acknowledgement switched off meanwhile: asking on would not help.
        if (refusal?.kind === 'retry' && refusal.slow) return refusal;
        last = status === 200 ? 'it has not been indexed' : `asked for it, the HEC answered ${status}`;
      } catch (error) {
        if (signal.aborted) throw error;
        last = `asked for it, ${faultText(error)}`;
      }
    }
    return retry(`a batch was not acknowledged within ${limits.ackTimeoutMs / 1000} s: ${last}`);
  }

  close(): Promise<void> {
    return this.#poster.close();
  }
}
