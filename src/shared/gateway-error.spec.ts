import { describe, expect, it } from '@jest/globals';
import { asGatewayError, ERROR_CODES, errorBody, errorHeaders, GatewayError, invalidToken, type ErrorCode } from './gateway-error.ts';

const make = (code: ErrorCode, more: { retryAfterSeconds?: number; param?: string } = {}): GatewayError => new GatewayError(code, { publicMessage: 'text', ...more });

/** The table of DESIGN 3.1, and whether waiting cures it. */
const CONTRACT: [ErrorCode, number, boolean][] = [
  ['invalid_request', 400, false], ['unsupported_parameter', 400, false], ['content_refused', 400, false],
  ['invalid_token', 401, false],
  ['budget_exceeded', 402, false], ['request_cost_exceeded', 402, false],
  ['policy_denied', 403, false],
  ['model_not_found', 404, false], ['not_found', 404, false],
  ['idempotency_conflict', 409, false],
  ['payload_too_large', 413, false], ['unsupported_media_type', 415, false], ['invalid_policy', 422, false],
  ['rate_limit_exceeded', 429, true],
  ['provider_bad_response', 502, true],
  ['provider_unavailable', 503, true], ['breaker_open', 503, true], ['audit_unavailable', 503, true], ['policy_unavailable', 503, true],
  ['identity_unavailable', 503, true], ['price_unavailable', 503, true], ['overloaded', 503, true],
  ['provider_timeout', 504, true], ['deadline_exceeded', 504, true],
];

describe('GatewayError', () => {
  it.each(CONTRACT)('%s is %i', (code, status, retryable) => {
    expect(make(code)).toMatchObject({ status, retryable });
  });

  it.each(CONTRACT)('%s tells clients by x-should-retry and retry-after whether to come back', (code, status, retryable) => {
    const headers = errorHeaders(make(code));
    expect(headers['x-should-retry']).toBe(retryable ? undefined : 'false');
    expect(headers['retry-after']).toBe(status === 429 || status === 503 ? '1' : undefined);
  });

  it.each(ERROR_CODES)('%s has an error status and a type', (code) => {
    expect(make(code).status).toBeGreaterThanOrEqual(400);
    expect(make(code).status).toBeLessThan(600);
    expect(make(code).type).toMatch(/^[a-z_]+$/);
  });

  it.each([[0, '1'], [0.2, '1'], [1.5, '2'], [60, '60'], [61, '60'], [1e9, '60'], [-5, '1']])('writes retry-after %p as whole seconds from 1 to 60', (seconds, header) => {
    expect(errorHeaders(make('rate_limit_exceeded', { retryAfterSeconds: seconds }))['retry-after']).toBe(header);
  });

  it('asks for a bearer token with 401, and only there', () => {
    expect(errorHeaders(invalidToken())['www-authenticate']).toBe('Bearer error="invalid_token"');
    expect(errorHeaders(make('policy_denied'))['www-authenticate']).toBeUndefined();
  });

  it('has one text for every failed authentication', () => {
    expect(errorBody(invalidToken({ reason: 'expired' }))).toEqual(errorBody(invalidToken({ reason: 'unknown issuer' }, new Error('x'))));
  });
});

describe('errorBody', () => {
  it('is the envelope of OpenAI, whole', () => {
    expect(errorBody(make('invalid_request', { param: 'messages[0].role' }))).toEqual({ error: { message: 'text', type: 'invalid_request_error', code: 'invalid_request', param: 'messages[0].role' } });
    expect(errorBody(make('not_found')).error.param).toBeNull();
  });

  it('names the decision of a 403', () => {
    const denied = make('policy_denied');
    denied.decision = { id: 'd-1', revision: 'r' };
    expect(errorBody(denied).error.decision_id).toBe('d-1');
  });

  it('shows nothing of an unexpected error', () => {
    const error = asGatewayError(new Error('SELECT secret FROM keys'));
    expect(error).toMatchObject({ code: 'internal_error', status: 500 });
    expect(JSON.stringify(errorBody(error))).not.toContain('SELECT');
    expect((error.cause as Error).message).toContain('SELECT');
  });

  it('shows nothing of what is internal', () => {
    const error = new GatewayError('overloaded', { publicMessage: 'busy', internal: { queue: 4711 }, cause: new Error('inner') });
    expect(JSON.stringify(errorBody(error))).not.toMatch(/4711|inner/);
    expect(asGatewayError(error)).toBe(error);
  });
});
