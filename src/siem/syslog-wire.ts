import type { ExportEvent } from './export-event.ts';

// RFC 5424 in the frames of RFC 5425.

const FACILITY_LOG_AUDIT = 13;
/** Severities of syslog by severity ids of OCSF; 5 (notice) for what has none. */
const SEVERITIES: Readonly<Record<number, number>> = { 1: 6, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1 };
/** The enterprise number that RFC 5612 keeps for documentation, until there is one of our own. */
const SD_ID = 'novix@32473';

/**
 * One event in one frame: its length in bytes, then the message. The event itself is the MSG, without a byte order mark, so that what arrives is to the
 * byte what is in the log. Lengths above 8,192 bytes are allowed by the RFC, but a receiver may have to be told to take them.
 */
export function syslogFrame({ index, id, timeMs, severityId, phase, body }: ExportEvent, host: string, processId: number): Buffer {
  const priority = FACILITY_LOG_AUDIT * 8 + (SEVERITIES[severityId] ?? 5);
  const data = `[${SD_ID} index="${index}" id="${escapedValue(id)}" phase="${escapedValue(phase)}"]`;
  const header = `<${priority}>1 ${new Date(timeMs).toISOString()} ${headerField(host, 255)} novix-gateway ${processId} ${headerField(phase, 32)} ${data} `;
  return Buffer.concat([Buffer.from(`${Buffer.byteLength(header) + body.length} ${header}`), body]);
}

/** A value of structured data: three characters are escaped, all others stand for themselves. */
export function escapedValue(value: string): string {
  return value.replaceAll(/["\\\]]/g, String.raw`\$&`);
}

/** Visible ASCII, or the dash that stands for nothing. */
function headerField(value: string, charsMax: number): string {
  const visible = value.replaceAll(/[^\x21-\x7e]/g, '').slice(0, charsMax);
  return visible === '' ? '-' : visible;
}
