import { createHash, X509Certificate } from 'node:crypto';
import { Type, type Static } from 'typebox';
import { isPem, readPem } from '../egress/connector.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { plainText } from '../shared/plain-text.ts';
import { SINK_TYPES, type Parked, type SinkProgress, type SinkSettings } from './sink.ts';

const CLOSED = { additionalProperties: false };
const INDEX_MAX = Number.MAX_SAFE_INTEGER;
const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const Time = Type.String({ format: 'date-time' });
const Count = Type.Integer({ minimum: 0, maximum: INDEX_MAX });
const Name = plainText(128);
const Url = plainText(2_048, 'hec, otlp: an https origin, or the whole path. syslog: tls://host:port. file: file:///… inside NOVIX_SIEM_DIR');
const Token = Nullable(Type.String({ pattern: '^[\\x21-\\x7e]{1,4096}$', description: 'Of hec and otlp. Sealed before it is stored, and never read back' }));
const Ca = Nullable(Type.String({ minLength: 1, maxLength: 32_768, description: 'Who vouches for the server: PEM, or the path of a PEM file' }));

export const NewSinkBody = Type.Object({
  name: Name, type: oneOf(SINK_TYPES), url: Url, token: Type.Optional(Token), ca: Type.Optional(Ca), enabled: Type.Optional(Type.Boolean()),
  from_index: Type.Optional(Type.Integer({ minimum: 0, maximum: INDEX_MAX, description: 'First event to deliver; without it, what is recorded from now on' })),
}, CLOSED);
export const SinkPatchBody = Type.Object({ name: Type.Optional(Name), url: Type.Optional(Url), token: Type.Optional(Token), ca: Type.Optional(Ca), enabled: Type.Optional(Type.Boolean()) }, { ...CLOSED, minProperties: 1 });
export const SinkAnswer = Type.Object({
  id: Type.String(), name: Name, type: oneOf(SINK_TYPES), url: Type.String(), enabled: Type.Boolean(), has_token: Type.Boolean(), ca: Type.Optional(Ca), cursor: Count, lag_events: Count, parked: Count,
  last_error: Nullable(Type.String()), last_delivered_at: Nullable(Time), created_at: Time, updated_at: Time,
});
export const ParkedAnswer = Type.Object({ id: Type.String(), first_index: Count, last_index: Count, events: Count, reason: Type.String(), at: Time });

export type NewSink = Static<typeof NewSinkBody>;
export type SinkPatch = Static<typeof SinkPatchBody>;

/** A sink as the admin API shows it. */
export interface SinkRecord extends SinkSettings, SinkProgress {
  createdAt: Date;
  updatedAt: Date;
}

export interface ParkedRecord extends Parked {
  id: string;
  at: Date;
}

/** Its token stays inside. Indexes and counts are numbers: they will not reach 2^53. */
export function sinkView({ id, name, type, url, enabled, sealedToken, ca, cursor, lagEvents, parked, lastError, lastDeliveredAt, createdAt, updatedAt }: SinkRecord): Record<string, unknown> {
  return {
    id, name, type, url, enabled, has_token: sealedToken !== undefined, ...(ca !== undefined && { ca }), cursor: Number(cursor), lag_events: Number(lagEvents), parked: Number(parked),
    last_error: lastError ?? null, last_delivered_at: lastDeliveredAt?.toISOString() ?? null, created_at: createdAt.toISOString(), updated_at: updatedAt.toISOString(),
  };
}

/** What of a sink goes into the record of its change: settings alone, the token by whether there is one, a certificate by its hash. */
export function recordedSink({ name, type, url, enabled, sealedToken, ca, cursor }: SinkRecord): Record<string, unknown> {
  return {
    name, type, url, enabled, has_token: sealedToken !== undefined, cursor: Number(cursor),
    ...(ca !== undefined && { ca: isPem(ca) ? `sha256:${createHash('sha256').update(ca).digest('hex')}` : ca }),
  };
}

export function parkedView({ id, firstIndex, lastIndex, events, reason, at }: ParkedRecord): Record<string, unknown> {
  return { id, first_index: Number(firstIndex), last_index: Number(lastIndex), events: Number(events), reason, at: at.toISOString() };
}

/** @throws {GatewayError} `invalid_request` for a certificate authority that cannot be read: TLS would take it, and trust nobody */
export function assertCa(ca: string): void {
  try {
    void new X509Certificate(readPem(ca));
  } catch (cause) {
    throw new GatewayError('invalid_request', { publicMessage: 'ca: the certificate cannot be read.', param: 'ca', cause });
  }
}
