/** A leaf of the audit log. */
export interface Leaf {
  index: bigint;
  id: string;
  /** The exact bytes of the event. */
  body: Buffer;
}

/** A leaf, and what of it goes into the envelopes of the protocols. */
export interface ExportEvent extends Leaf {
  text: string;
  /** Epoch milliseconds. */
  timeMs: number;
  /** Of OCSF: 0 unknown, 1 informational, … 6 fatal, 99 other. */
  severityId: number;
  /** Empty where the event has none. */
  phase: string;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Milliseconds that a date can hold. */
const TIME_MS_MAX = 8.64e15;

/** @returns undefined for bytes that are no JSON object: they would spoil the envelope of whatever goes out with them */
export function toExportEvent(leaf: Leaf): ExportEvent | undefined {
  try {
    const text = utf8.decode(leaf.body);
    const event = JSON.parse(text) as { time?: unknown; severity_id?: unknown; unmapped?: { novix?: { phase?: unknown } } } | null;
    if (typeof event !== 'object' || event === null || Array.isArray(event)) return undefined;
    const { time, severity_id: severity } = event;
    const phase = event.unmapped?.novix?.phase;
    return {
      ...leaf, text,
      timeMs: typeof time === 'number' && time >= 0 && time <= TIME_MS_MAX ? Math.floor(time) : 0,
      severityId: typeof severity === 'number' ? severity : 0,
      phase: typeof phase === 'string' ? phase : '',
    };
  } catch {
    return undefined;
  }
}
