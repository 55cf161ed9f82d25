import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { actorOf, auditEventText, leafEntry, type AuditEventFacts } from './audit-event.ts';

const FACTS: AuditEventFacts = {
  id: '0190a0c4-1111-7000-8000-000000000001', phase: 'outcome', timeMs: 1_796_000_000_123, requestId: '0190a0c4-2222-7000-8000-000000000002',
  actor: { tenant: 'acme', subject: 'dev@acme.example', tokenId: 'jti-1', issuer: 'https://id.acme.example', clientId: 'reports' },
  operation: 'POST /v1/chat/completions', ip: '192.0.2.7', httpStatus: 200, errorCode: undefined, activity: 'create', details: { hold_id: 'h1', charge: { ticks: '9007199254740993' } },
};
const NOBODY = { tenant: undefined, subject: undefined, tokenId: undefined, issuer: undefined, clientId: undefined };
const event = (facts: Partial<AuditEventFacts> = {}): Record<string, unknown> => JSON.parse(auditEventText({ ...FACTS, ...facts })) as Record<string, unknown>;

describe('auditEventText', () => {
  it('is an OCSF 1.8 API Activity with all that the class requires', () => {
    expect(event()).toEqual({
      class_uid: 6003, category_uid: 6, activity_id: 1, type_uid: 600_301, time: 1_796_000_000_123, severity_id: 1, status_id: 1,
      metadata: { version: '1.8.0', product: { name: 'Novix Gateway', vendor_name: 'Novix', version: expect.stringMatching(/^\d+\.\d+\.\d+$/) }, uid: FACTS.id, correlation_uid: FACTS.requestId, tenant_uid: 'acme' },
      actor: { user: { uid: 'dev@acme.example', type_id: 1 }, session: { uid: 'jti-1', issuer: 'https://id.acme.example' }, app_uid: 'reports' },
      api: { operation: 'POST /v1/chat/completions', request: { uid: FACTS.requestId }, response: { code: 200 } },
      src_endpoint: { ip: '192.0.2.7' },
      unmapped: { novix: { phase: 'outcome', hold_id: 'h1', charge: { ticks: '9007199254740993' } } },
    });
  });

  it.each([['create', 1], ['read', 2], ['update', 3], ['delete', 4]] as const)('numbers the activity %s as OCSF does', (activity, id) => {
    expect(event({ activity })).toMatchObject({ activity_id: id, type_uid: 600_300 + id });
  });

  it.each([
    ['an intent, whose end is open', { phase: 'intent', httpStatus: undefined }, { status_id: 0, severity_id: 1 }],
    ['a success', { httpStatus: 200 }, { status_id: 1, severity_id: 1 }],
    ['a refusal', { phase: 'refusal', httpStatus: 403, errorCode: 'policy_denied' }, { status_id: 2, severity_id: 2, status_code: 'policy_denied' }],
    ['a stream that broke after its 200', { httpStatus: 200, errorCode: 'provider_bad_response' }, { status_id: 2, severity_id: 2, status_code: 'provider_bad_response' }],
  ] as const)('gives %s its status', (_, facts, expected) => {
    expect(event(facts)).toMatchObject(expected);
  });

  it('leaves out what is not known: no null, no key without a value', () => {
    const anonymous = event({ phase: 'intent', httpStatus: undefined, actor: NOBODY, details: { usage: undefined } });
    expect(JSON.stringify(anonymous)).not.toMatch(/null|undefined/);
    expect(anonymous).not.toHaveProperty('status_code');
    expect(anonymous['metadata']).not.toHaveProperty('tenant_uid');
    expect(anonymous['actor']).toEqual({ user: { uid: 'unknown', type_id: 0 } });
    expect(anonymous['api']).not.toHaveProperty('response');
    expect(anonymous['unmapped']).toEqual({ novix: { phase: 'intent' } });
  });

  it('keeps any text in any field as it is, in one line of valid UTF-8', () => {
    const text = fc.string({ unit: 'binary' });
    fc.assert(fc.property(text, text, text, text, text, (subject, operation, ip, errorCode, detail) => {
      const written = auditEventText({ ...FACTS, actor: { ...FACTS.actor, subject, tokenId: detail }, operation, ip, errorCode, details: { detail, [detail === 'phase' ? 'x' : `k${detail}`]: detail } });
      expect(written).not.toMatch(/[\n\r]/);
      expect(Buffer.from(written).toString()).toBe(written);
      expect(JSON.parse(written)).toMatchObject({
        status_code: errorCode, actor: { user: { uid: subject }, session: { uid: detail } }, api: { operation, response: { error: errorCode } }, src_endpoint: { ip }, unmapped: { novix: { detail } },
      });
    }));
  });

  it('is the same text for the same facts: the leaf is hashed', () => {
    expect(auditEventText({ ...FACTS })).toBe(auditEventText(structuredClone(FACTS)));
  });
});

describe('leafEntry', () => {
  it('holds the event byte for byte', () => {
    const text = auditEventText({ ...FACTS, operation: 'POST /é\u2028"\\' });
    const entry = leafEntry(FACTS.id, text);
    expect(entry).toBe(`{"id":"${FACTS.id}","b":${text}}`);
    expect(JSON.parse(entry)).toEqual({ id: FACTS.id, b: JSON.parse(text) });
  });
});

describe('actorOf', () => {
  it('names who called, and nobody where nobody was known', () => {
    const principal = { tenantId: 'acme', tier: 'standard', subject: 'me', roles: [], attributes: { clearance: 'secret' }, clientId: undefined, issuer: 'i', tokenId: 't', expiresAtMs: 0, mtls: false } as const;
    expect(actorOf(principal)).toEqual({ tenant: 'acme', subject: 'me', tokenId: 't', issuer: 'i', clientId: undefined });
    expect(actorOf(undefined)).toEqual(NOBODY);
  });
});
