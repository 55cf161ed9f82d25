import type { Env } from '../env.ts';
import type { Clock } from '../shared/clock.ts';
import type { ExportEvent } from './export-event.ts';
import type { ExportLimits } from './export-limits.ts';
import { FileSender } from './file-sender.ts';
import { HecSender } from './hec-sender.ts';
import { OtlpSender } from './otlp-sender.ts';
import type { Outcome, SinkSettings } from './sink.ts';
import { SyslogSender } from './syslog-sender.ts';

/** Sends batches by one protocol. */
export interface Sender {
  /**
   * @param events at least one, in order
   * @param signal gives up, where nothing is lost by it
   * @returns how they fared; rejects where nothing is known to be taken
   */
  send(events: readonly ExportEvent[], signal: AbortSignal): Promise<Outcome>;
  close(): Promise<void>;
}

export interface SenderContext {
  egress: Env['egress'];
  /** The folder that file sinks write below. */
  siemDir: string;
  clock: Clock;
  limits: ExportLimits;
}

/** @param token opened */
export function createSender(sink: SinkSettings, token: string | undefined, context: SenderContext): Sender {
  switch (sink.type) {
    case 'hec': return new HecSender(sink, token ?? '', context);
    case 'otlp': return new OtlpSender(sink, token, context);
    case 'syslog': return new SyslogSender(sink, context);
    case 'file': return new FileSender(sink, context);
  }
}
