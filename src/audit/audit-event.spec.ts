import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { actorOf, auditEventText, leafEntry, type AuditEventFacts } from './audit-event.ts';

const FACTS: AuditEventFacts = {
  id: '01890000-0000-7000-8000-000000000001', phase: 'outcome', timeMs: 1_796_000_000_000, requestId: 'r-1', actor: { tenant: 'acme', subject: 'dev@acme.example', tokenId: 'j-1', issuer: 'https://idp.example', clientId: 'app-1' },
  operation: 'POST /v1/chat/completions', ip: '10.0.0.7', httpStatus: 200, errorCode: undefined, activity: 'create', details: { charge: { ticks: '1' } },
};
interface Event { [key: string]: unknown; unmapped: { novix: Record<string, unknown> } }
const event = (more: Partial<AuditEventFacts> = {}): Event => JSON.parse(auditEventText({ ...FACTS, ...more })) as Event;

describe('auditEventText', () => {
  it('is an API Activity of OCSF 1.8, with all that the class requires', () => {
    expect(event()).toEqual({
      class_uid: 6003, category_uid: 6, activity_id: 1, type_uid: 600_301, time: 1_796_000_000_000, severity_id: 1, status_id: 1,
      metadata: { version: '1.8.0', product: { name: 'Novix Gateway', vendor_name: 'Novix', version: expect.any(String) }, uid: FACTS.id, correlation_uid: 'r-1', tenant_uid: 'acme' },
      actor: { user: { uid: 'dev@acme.example', type_id: 1 }, session: { uid: 'j-1', issuer: 'https://idp.example' }, app_uid: 'app-1' },
      api: { operation: 'POST /v1/chat/completions', request: { uid: 'r-1' }, response: { code: 200 } },
      src_endpoint: { ip: '10.0.0.7' }, unmapped: { novix: { phase: 'outcome', charge: { ticks: '1' } } },
    });
  });

  it.each([['create', 1], ['read', 2], ['update', 3], ['delete', 4]] as const)('numbers the activity %s as the class does', (activity, id) => {
    expect(event({ activity })).toMatchObject({ activity_id: id, type_uid: 600_300 + id });
  });

  it('is an Authentication where somebody proved who they are, or failed to', () => {
    expect(event({ authentication: 'oauth2', phase: 'change' })).toMatchObject({
      class_uid: 3002, category_uid: 3, activity_id: 1, type_uid: 300_201, status_id: 1, auth_protocol_id: 6, is_remote: true, user: { uid: 'dev@acme.example' }, service: { name: 'Novix Gateway' }, actor: { user: { uid: 'dev@acme.example' } },
    });
    expect(event({ authentication: 'unknown', phase: 'refusal', errorCode: 'invalid_token', httpStatus: 401, actor: actorOf(undefined) })).toMatchObject({ type_uid: 300_201, status_id: 2, auth_protocol_id: 0, user: { uid: 'unknown', type_id: 0 } });
  });

  it('tells failure from success, and an intent from both', () => {
    expect(event({ errorCode: 'policy_denied', httpStatus: 403, phase: 'refusal' })).toMatchObject({ status_id: 2, severity_id: 2, status_code: 'policy_denied', api: { response: { code: 403, error: 'policy_denied' } }, unmapped: { novix: { phase: 'refusal' } } });
    const intent = event({ phase: 'intent', httpStatus: undefined });
    expect(intent).toMatchObject({ status_id: 0 });
    expect(Object.keys(intent['api'] as object)).not.toContain('response');
  });

  it('says of a caller who is not known that nothing is known', () => {
    const unknown = event({ actor: actorOf(undefined) });
    expect(unknown['actor']).toEqual({ user: { uid: 'unknown', type_id: 0 } });
    expect(Object.keys(unknown['metadata'] as object)).not.toContain('tenant_uid');
  });

  it('has no undefined and no line break, whatever is not known', () => {
    const text = auditEventText({ ...FACTS, actor: actorOf(undefined), httpStatus: undefined, details: { a: undefined, b: 'x\ny\u2028' } });
    expect(text).not.toContain('undefined');
    expect(text).not.toMatch(/[\n\r]/);
  });

  it('lets no detail take the place of the phase', () => {
    expect(event({ phase: 'refusal', details: { phase: 'outcome' } }).unmapped.novix['phase']).toBe('refusal');
  });

  it('gives back any text in any field', () => {
    const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 30 }), fc.constantFrom('"}', '\\', '\\"', '\n\r\t', '🙂', '"phase":"intent"')).filter((some) => !some.includes('\u0000'));
    fc.assert(fc.property(text, text, text, (one, two, three) => {
      const written = event({ requestId: one, ip: two, operation: three, actor: { tenant: one, subject: two, tokenId: three, issuer: one, clientId: two }, details: { three, list: [one, two] } });
      expect(written).toMatchObject({ metadata: { correlation_uid: one, tenant_uid: one }, actor: { user: { uid: two }, session: { uid: three, issuer: one }, app_uid: two }, api: { operation: three, request: { uid: one } }, src_endpoint: { ip: two } });
      expect(written.unmapped.novix).toMatchObject({ three, list: [one, two] });
    }), { numRuns: 500 });
  });

  it('writes nothing that PostgreSQL would not store: no NUL, no half of a character', () => {
    for (const bad of ['a\u0000b', 'a\ud800', '\udc00b', '🙂'.slice(1)]) {
      const text = auditEventText({ ...FACTS, requestId: bad, ip: bad, actor: { tenant: bad, subject: bad, tokenId: bad, issuer: bad, clientId: bad }, details: { [bad]: bad, list: [bad] } });
      expect(text).not.toMatch(/\\u0000|\\ud[89a-f]/i);
      expect(text.isWellFormed()).toBe(true);
    }
  });
});

describe('leafEntry', () => {
  it('has what it is found by in its first line, and the event to the byte in the second', () => {
    const text = auditEventText(FACTS);
    const [head, event, ...rest] = leafEntry(FACTS.id, { tenant: 'ac"me', requestId: '01890000-0000-7000-8000-0000000000aa' }, text).split('\n');
    expect(JSON.parse(head!)).toEqual({ id: FACTS.id, t: 'ac"me', r: '01890000-0000-7000-8000-0000000000aa' });
    expect(event).toBe(text);
    expect(rest).toEqual([]);
  });

  it('leaves out what it cannot be found by', () => {
    expect(leafEntry(FACTS.id, { tenant: undefined, requestId: 'none' }, '{}')).toBe(`{"id":"${FACTS.id}"}\n{}`);
  });
});
