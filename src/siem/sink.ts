export const SINK_TYPES = ['hec', 'otlp', 'syslog', 'file'] as const;
export type SinkType = (typeof SINK_TYPES)[number];

/** Where events go, as it is stored. */
export interface SinkSettings {
  id: string;
  name: string;
  type: SinkType;
  url: string;
  sealedToken: string | undefined;
  /** PEM, or the path of a PEM file. */
  ca: string | undefined;
  enabled: boolean;
}

/** How far a sink has got. */
export interface SinkProgress {
  /** Index of the first event that is not acknowledged yet. */
  cursor: bigint;
  lagEvents: bigint;
  parked: bigint;
  lastError: string | undefined;
  lastDeliveredAt: Date | undefined;
}

/** Events that will not be delivered, and why. Where a receiver does not say which of a range it rejected, `events` is less than the range. */
export interface Parked {
  firstIndex: bigint;
  lastIndex: bigint;
  events: bigint;
  reason: string;
}

/** What became of a batch that was sent. */
export type Outcome =
  /** Acknowledged. Of its events `rejected` were not taken for good, and must not be sent again; which, the receiver does not say. */
  | { kind: 'acknowledged'; rejected: number; reason: string }
  /** Nothing is known to be taken, because of the event at this place in the batch. */
  | { kind: 'poison'; place: number; reason: string }
  /** Nothing is taken, because of some event in it, or because of its size. */
  | { kind: 'refused'; reason: string }
  /** Nothing is known to be taken, and the events are not at fault. `slow`: until somebody changes a setting, here or there. */
  | { kind: 'retry'; reason: string; afterMs: number; slow: boolean };

export const ACKNOWLEDGED: Outcome = { kind: 'acknowledged', rejected: 0, reason: '' };

export function retry(reason: string, { afterMs = 0, slow = false }: { afterMs?: number; slow?: boolean } = {}): Extract<Outcome, { kind: 'retry' }> {
  return { kind: 'retry', reason, afterMs, slow };
}

/** The name to which a sink's sealed token is bound. */
export function tokenName(id: string): string {
  return `siem-sink/${id}/token`;
}

/** Whatever keeps tokens sealed; it may have to ask someone for that. */
export interface TokenSeal {
  seal(name: string, value: string): string | Promise<string>;
  /** @throws {Error} where it does not open, without the value */
  open(name: string, sealed: string): string | Promise<string>;
}
