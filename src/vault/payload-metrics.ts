import { Counter, Gauge, type Registry } from 'prom-client';
import type { Purpose } from './record-cipher.ts';

/** Why a text was not stored: a closed set. */
export type NotStored = 'too_long' | 'memory' | 'failed';

/** Memory for copies of texts that are about to be stored. */
const COPIES_BYTES_MAX = 256 * 1024 * 1024;

/** What is stored and what is not, and how much memory that takes: more than the bound is never taken, whatever comes at once. */
export class PayloadMetrics {
  readonly #stored: Counter;
  readonly #notStored: Counter;
  #copiesBytes = 0;

  constructor(registry: Registry, private readonly copiesBytesMax = COPIES_BYTES_MAX) {
    const registers = [registry];
    this.#stored = new Counter({ name: 'novix_payloads_stored_total', help: 'Prompts and answers that were stored', labelNames: ['purpose'], registers });
    this.#notStored = new Counter({ name: 'novix_payloads_not_stored_total', help: 'Prompts (then the call was refused) and answers that were not, though the tenant wants them stored', labelNames: ['purpose', 'reason'], registers });
    const copies = (): number => this.#copiesBytes;
    registry.registerMetric(new Gauge({
      name: 'novix_payload_copies_bytes', help: `Memory of copies that are about to be stored; at most ${copiesBytesMax}`, registers: [],
      collect() {
        this.set(copies());
      },
    }));
  }

  stored(purpose: Purpose): void {
    this.#stored.inc({ purpose });
  }

  notStored(purpose: Purpose, reason: NotStored): void {
    this.#notStored.inc({ purpose, reason });
  }

  /** @returns false where there is no room: then nothing was taken */
  take(bytes: number): boolean {
    if (this.#copiesBytes + bytes > this.copiesBytesMax) return false;
    this.#copiesBytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#copiesBytes -= bytes;
  }
}
