import type { Logger } from 'pino';
import type { Principal } from '../auth/principal.ts';
import type { UpstreamRequest } from '../provider/grok-client.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { DataKey } from '../vault/data-keys.ts';
import type { NotStored, PayloadMetrics } from '../vault/payload-metrics.ts';
import type { PayloadVault } from '../vault/payload-vault.ts';
import type { RecordSealer } from '../vault/record-cipher.ts';

/** A longer answer is not stored. */
export const ANSWER_BYTES_MAX = 16 * 1024 * 1024;
const MEDIA_TYPES = { events: 'text/event-stream', json: 'application/json' } as const;

/** What of a call is stored, for its record. */
export interface PayloadRecord {
  data_key_id: string;
  prompt?: { bytes: number };
  answer?: { bytes: number } | 'not_stored';
}

/** Takes a copy of the provider's bytes on their way: those that the record commits to. */
export interface AnswerCopy {
  /** Before each attempt: what an earlier one brought is forgotten. */
  restart(): void;
  update(bytes: Buffer, accept: UpstreamRequest['accept']): void;
}

/** Whether a call of theirs leaves anything behind. */
export function storesPayloads({ payloadStorage }: Pick<Principal, 'payloadStorage'>): boolean {
  return payloadStorage !== undefined && payloadStorage !== 'off';
}

/** Stores prompts and answers of tenants that want them stored: the prompt before anything is sent, the answer before the call is settled. */
export class StoredPayloads {
  constructor(
    private readonly vault: Pick<PayloadVault, 'dataKey' | 'sealer' | 'store'>,
    private readonly metrics: PayloadMetrics,
    private readonly logger: Logger,
  ) {}

  /**
   * @param prompt the caller's bytes
   * @throws {GatewayError} `audit_unavailable`: who wants evidence gets no call without it
   */
  async begin({ tenantId, payloadStorage }: Principal, requestId: string, prompt: Buffer): Promise<StoredPayload> {
    const { vault, metrics } = this;
    const copied = metrics.take(prompt.length);
    try {
      if (!copied) throw new Error('no memory for a copy of the prompt');
      const dataKey = await vault.dataKey(tenantId);
      const record: PayloadRecord = { data_key_id: dataKey.id };
      if (payloadStorage !== 'answers' && prompt.length > 0) {
        const name = { tenantId, requestId, purpose: 'prompt' } as const;
        const sealer = vault.sealer(dataKey, name);
        sealer.update(prompt);
        await vault.store({ name, dataKey, sealed: sealer.finish(), contentType: 'application/json', textBytes: prompt.length });
        metrics.stored('prompt');
        record.prompt = { bytes: prompt.length };
      }
      return new StoredPayload(vault, metrics, this.logger, tenantId, requestId, dataKey, payloadStorage !== 'prompts', record);
    } catch (cause) {
      metrics.notStored('prompt', copied ? 'failed' : 'memory');
      throw new GatewayError('audit_unavailable', { publicMessage: 'The prompt cannot be stored at the moment, and this tenant wants no call without that. Try again shortly.', retryAfterSeconds: 2, cause });
    } finally {
      if (copied) metrics.give(prompt.length);
    }
  }
}

/** What one call stores. */
export class StoredPayload implements AnswerCopy {
  #sealer: RecordSealer | undefined;
  #contentType: string = MEDIA_TYPES.json;
  #missing: NotStored | undefined;

  constructor(
    private readonly vault: Pick<PayloadVault, 'sealer' | 'store'>,
    private readonly metrics: PayloadMetrics,
    private readonly logger: Logger,
    private readonly tenantId: string,
    private readonly requestId: string,
    private readonly dataKey: DataKey,
    private readonly withAnswer: boolean,
    private readonly record: PayloadRecord,
  ) {}

  restart(): void {
    this.#forget();
    this.#missing = undefined;
  }

  /** Sealed as it comes, so that the copy is no text. */
  update(bytes: Buffer, accept: UpstreamRequest['accept']): void {
    if (!this.withAnswer || this.#missing !== undefined) return;
    if ((this.#sealer?.textBytes ?? 0) + bytes.length > ANSWER_BYTES_MAX) return this.#giveUp('too_long');
    if (!this.metrics.take(bytes.length)) return this.#giveUp('memory');
    this.#contentType = MEDIA_TYPES[accept];
    this.#sealer ??= this.vault.sealer(this.dataKey, { tenantId: this.tenantId, requestId: this.requestId, purpose: 'answer' });
    this.#sealer.update(bytes);
  }

  /** Stores the answer, whole or as far as it came. That it cannot be stored fails no call: it is on record. Call once. */
  async finish(): Promise<PayloadRecord> {
    const { tenantId, requestId, dataKey, metrics } = this;
    if (this.#sealer !== undefined) {
      const { textBytes } = this.#sealer;
      try {
        await this.vault.store({ name: { tenantId, requestId, purpose: 'answer' }, dataKey, sealed: this.#sealer.finish(), contentType: this.#contentType, textBytes });
        metrics.stored('answer');
        this.record.answer = { bytes: textBytes };
      } catch (error) {
        this.logger.warn({ err: error, requestId }, 'payloads: an answer could not be stored');
        this.#missing = 'failed';
      } finally {
        this.#forget();
      }
    }
    if (this.#missing !== undefined) {
      metrics.notStored('answer', this.#missing);
      this.record.answer = 'not_stored';
    }
    return this.record;
  }

  #giveUp(reason: NotStored): void {
    this.#forget();
    this.#missing = reason;
  }

  #forget(): void {
    if (this.#sealer !== undefined) this.metrics.give(this.#sealer.textBytes);
    this.#sealer = undefined;
  }
}
