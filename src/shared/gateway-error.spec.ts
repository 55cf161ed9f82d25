import { describe, expect, it } from '@jest/globals';
import { asGatewayError, ERROR_CODES, errorBody, errorHeaders, GatewayError, invalidToken, type ErrorCode } from './gateway-error.ts';

/** The table of the public contract: status by code, and whether waiting can help. */
const CONTRACT: Record<ErrorCode, [status: number, waits: boolean]> = {
  invalid_request: [400, false], unsupported_parameter: [400, false], content_refused: [400, false],
  invalid_token: [401, false],
  budget_exceeded: [402, false], request_cost_exceeded: [402, false],
  policy_denied: [403, false],
  model_not_found: [404, false], not_found: [404, false],
  already_exists: [409, false], idempotency_conflict: [409, false],
  payload_too_large: [413, false], unsupported_media_type: [415, false], invalid_policy: [422, false],
  rate_limit_exceeded: [429, true],
  headers_too_large: [431, false],
  internal_error: [500, false],
  provider_bad_response: [502, true],
  provider_unavailable: [503, true], breaker_open: [503, true], audit_unavailable: [503, true], policy_unavailable: [503, true], identity_unavailable: [503, true], price_unavailable: [503, true], overloaded: [503, true],
  provider_timeout: [504, true], deadline_exceeded: [504, true],
};
const error = (code: ErrorCode, more: object = {}): GatewayError => new GatewayError(code, { publicMessage: 'What happened, and what to do.', ...more });

describe('GatewayError', () => {
  it.each(Object.entries(CONTRACT) as [ErrorCode, [number, boolean]][])('%s has the status and the hint to clients of the contract', (code, [status, waits]) => {
    expect(error(code).status).toBe(status);
    expect(errorHeaders(error(code))['x-should-retry']).toBe(waits ? undefined : 'false');
  });

  it('knows no code that is not in the contract', () => {
    expect(ERROR_CODES.toSorted()).toEqual(Object.keys(CONTRACT).toSorted());
  });

  it.each(ERROR_CODES)('%s carries retry-after exactly where its status says "later": 429 and 503', (code) => {
    const { status } = error(code);
    expect('retry-after' in errorHeaders(error(code))).toBe(status === 429 || status === 503);
  });
});

describe('errorHeaders', () => {
  it.each([[undefined, '1'], [0, '1'], [0.2, '1'], [1.01, '2'], [59.5, '60'], [61, '60'], [100_000, '60'], [-5, '1']])('retry-after for %p s is %s: whole seconds from 1 to 60', (retryAfterSeconds, header) => {
    expect(errorHeaders(error('rate_limit_exceeded', { retryAfterSeconds }))['retry-after']).toBe(header);
  });

  it('says how to authenticate on 401 alone', () => {
    for (const code of ERROR_CODES) expect(errorHeaders(error(code))['www-authenticate']).toBe(code === 'invalid_token' ? 'Bearer error="invalid_token"' : undefined);
  });
});

describe('errorBody', () => {
  it('is the envelope of the OpenAI clients, and holds nothing internal', () => {
    const body = errorBody(error('invalid_request', { param: 'messages[0].role', internal: { sql: 'SELECT secret' }, cause: new Error('secret') }));
    expect(body).toEqual({ error: { message: 'What happened, and what to do.', type: 'invalid_request_error', code: 'invalid_request', param: 'messages[0].role' } });
    expect(errorBody(error('overloaded')).error.param).toBeNull();
  });

  it('carries the decision where there was one', () => {
    const denied = error('policy_denied');
    denied.decisionId = 'd1';
    expect(errorBody(denied).error.decision_id).toBe('d1');
  });
});

describe('what a caller may learn', () => {
  it('is one text for every way in which authentication fails', () => {
    const bodies = [invalidToken(), invalidToken({ reason: 'expired' }), invalidToken({ reason: 'unknown tenant', tenant: 'acme' }, new Error('JWSSignatureVerificationFailed'))].map((one) => JSON.stringify(errorBody(one)));
    expect(new Set(bodies).size).toBe(1);
  });

  it.each([new Error('password=hunter2 at db.internal'), 'hunter2', undefined, { code: '08006', detail: 'hunter2' }])('is nothing of an unexpected failure (%p), which stays as the cause', (cause) => {
    const hidden = asGatewayError(cause);
    expect(hidden).toMatchObject({ code: 'internal_error', status: 500 });
    expect(JSON.stringify(errorBody(hidden))).not.toContain('hunter2');
    expect(hidden.cause).toBe(cause);
  });

  it('is a gateway error as it stands', () => {
    const known = error('not_found');
    expect(asGatewayError(known)).toBe(known);
  });
});
