import type { Principal } from '../auth/principal.ts';

/** The four kinds of record: before a call, after it, a call refused, a configuration changed. */
export type AuditPhase = 'intent' | 'outcome' | 'refusal' | 'change';

/** Largest body of a leaf; the tile encoding has two bytes for its length. */
export const LEAF_BYTES_MAX = 65_535;

export interface Commitment {
  algorithm: 'HMAC-SHA256';
  key_id: string;
  /** Hex. */
  value: string;
}

/** Who did it, as far as it is known. */
export interface AuditActor {
  tenant: string | undefined;
  subject: string | undefined;
  tokenId: string | undefined;
  issuer: string | undefined;
  clientId: string | undefined;
}

export interface AuditEventFacts {
  /** UUID of the event. */
  id: string;
  phase: AuditPhase;
  timeMs: number;
  requestId: string;
  actor: AuditActor;
  /** Method and route, such as `POST /v1/chat/completions`. */
  operation: string;
  ip: string;
  /** HTTP status told or to be told to the caller; undefined in an intent. */
  httpStatus: number | undefined;
  /** Public error code, or undefined where all went well. */
  errorCode: string | undefined;
  activity: 'create' | 'read' | 'update' | 'delete';
  /** Of an Authentication event, by what somebody proved who they are; any other event is an API Activity. */
  authentication?: 'oauth2' | 'api_key' | 'unknown';
  /** What only this gateway knows; goes to `unmapped.novix`. */
  details: Record<string, unknown>;
}

const ACTIVITIES = { create: 1, read: 2, update: 3, delete: 4 } as const;
const PRODUCT = { name: 'Novix Gateway', vendor_name: 'Novix', version: '0.1.0' };

/** Names and numbers of `auth_protocol_id`. */
const PROTOCOLS = { oauth2: { auth_protocol_id: 6, auth_protocol: 'OAUTH 2.0' }, api_key: { auth_protocol_id: 99, auth_protocol: 'API key' }, unknown: { auth_protocol_id: 0 } } as const;

/**
 * The exact text of an audit leaf: an OCSF 1.8 event, of the class API Activity (6003), or Authentication (3002) where somebody proved who they are, or
 * failed to. Amounts are decimal strings of ticks.
 *
 * @see https://schema.ocsf.io/1.8.0/classes/api_activity, https://schema.ocsf.io/1.8.0/classes/authentication
 */
export function auditEventText(facts: AuditEventFacts): string {
  const failed = facts.errorCode !== undefined;
  const { actor } = facts;
  const user = { uid: actor.subject ?? 'unknown', type_id: actor.subject === undefined ? 0 : 1 };
  return recordable({
    ...classOf(facts, user),
    time: facts.timeMs,
    severity_id: failed ? 2 : 1,
    status_id: facts.httpStatus === undefined ? 0 : failed ? 2 : 1,
    status_code: facts.errorCode,
    metadata: { version: '1.8.0', product: PRODUCT, uid: facts.id, correlation_uid: facts.requestId, tenant_uid: actor.tenant },
    actor: {
      user,
      session: actor.tokenId === undefined ? undefined : { uid: actor.tokenId, issuer: actor.issuer },
      app_uid: actor.clientId,
    },
    api: {
      operation: facts.operation,
      request: { uid: facts.requestId },
      response: facts.httpStatus === undefined ? undefined : { code: facts.httpStatus, error: facts.errorCode },
    },
    src_endpoint: { ip: facts.ip },
    unmapped: { novix: { ...facts.details, phase: facts.phase } },
  });
}

function classOf({ activity, authentication }: AuditEventFacts, user: object): object {
  if (authentication !== undefined) {
    return { class_uid: 3002, category_uid: 3, activity_id: 1, type_uid: 300_201, ...PROTOCOLS[authentication], is_remote: true, user, service: { name: PRODUCT.name } };
  }
  return { class_uid: 6003, category_uid: 6, activity_id: ACTIVITIES[activity], type_uid: 600_300 + ACTIVITIES[activity] };
}

/** Whatever a caller sent, it must not be able to keep its own record out: PostgreSQL takes neither NUL nor half a character. */
function recordable(event: object): string {
  const text = JSON.stringify(event);
  if (!text.includes('\\ud') && !text.includes('\\u0000')) return text;
  // JSON escapes these two as \u…, and nothing else that begins so; any other escape is stepped over whole.
  return text.replace(/\\(?:u0000|ud[89a-f][0-9a-f]{2}|.)/g, (escape) => (escape.length > 2 ? '\ufffd' : escape));
}

export function actorOf(principal: Principal | undefined): AuditActor {
  return {
    tenant: principal?.tenantId, subject: principal?.subject, tokenId: principal?.tokenId, issuer: principal?.issuer, clientId: principal?.clientId,
  };
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * A leaf as an entry of `audit_append`: in the first line what it is found by, in the second the event as it is. No event has a line break: JSON escapes
 * them.
 *
 * @param about whom and which request it is about
 */
export function leafEntry(id: string, about: { tenant: string | undefined; requestId: string }, text: string): string {
  const tenant = about.tenant === undefined ? '' : `,"t":${JSON.stringify(about.tenant)}`;
  const request = UUID.test(about.requestId) ? `,"r":"${about.requestId}"` : '';
  return `{"id":"${id}"${tenant}${request}}\n${text}`;
}
