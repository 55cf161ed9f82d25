import { describe, expect, it } from '@jest/globals';
import { errorBody } from '../shared/gateway-error.ts';
import { errorFromAnswer, readErrorBody, timeoutError, transportError, type FailurePhase, type TimeoutKind } from './grok-errors.ts';

const TEAM = '5b0f6a38-90d3-4f7e-a2f5-7f6c5b1a2e10';

describe('readErrorBody', () => {
  it.each<[string, string, string | undefined, string | undefined]>([
    ['flat', '{"code":"not-found","error":"no such"}', 'not-found', 'no such'],
    ['flat, sentence code', '{"code":"Client specified an invalid argument","error":"bad"}', 'Client specified an invalid argument', 'bad'],
    ['flat, numeric code', '{"code":7,"error":"bad [WKE=permission:blocked]"}', '7', 'bad [WKE=permission:blocked]'],
    ['without code', '{"error":"Failed to deserialize"}', undefined, 'Failed to deserialize'],
    ['plain text', 'Failed to deserialize the JSON body', undefined, 'Failed to deserialize the JSON body'],
    ['bare string', '"stream or deferred, not both"', undefined, 'stream or deferred, not both'],
    ['nested', '{"error":{"message":"bad","type":"t","param":null,"code":"c"}}', 'c', 'bad'],
    ['nested, code outside', '{"code":"c","error":{"message":"bad"}}', 'c', 'bad'],
    ['HTML', '<!DOCTYPE html><html>522</html>', undefined, undefined],
    ['HTML after white space', '\r\n  <html>522</html>', undefined, undefined],
    ['empty', '', undefined, undefined],
    ['null', 'null', undefined, undefined], ['number', '7', undefined, undefined], ['array', '[]', undefined, undefined],
    ['error null', '{"error":null}', undefined, undefined], ['mistyped', '{"code":{},"error":{"message":[]}}', undefined, undefined],
  ])('reads the shape: %s', (_, text, code, message) => {
    const body = readErrorBody(text);
    expect({ code: body.code, message: body.message || undefined }).toEqual({ code, message });
  });
});

describe('errorFromAnswer', () => {
  // Every wording of reference/xai-api.md section 6.3, and every status of 6.1.
  it.each<[number, string, string, boolean]>([
    [401, '{"code":"unauthenticated:no-credentials","error":"No credentials presented."}', 'provider_bad_response', false],
    [401, '{"code":"The request does not have valid authentication credentials","error":"x"}', 'provider_bad_response', false],
    [400, '{"code":"invalid-argument","error":"Incorrect API key provided. You can obtain an API key from https://console.x.ai."}', 'provider_bad_response', false],
    [400, '{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***14. You can obtain an API key from https://console.x.ai."}', 'provider_bad_response', false],
    [400, '{"code":"Client specified an invalid argument","error":"Argument not supported on this model: presencePenalty"}', 'invalid_request', false],
    [400, '{"code":"invalid-argument","error":"Model grok-build-0.1 does not support parameter reasoningEffort."}', 'invalid_request', false],
    [400, '{"code":"invalid-argument","error":"This model\'s maximum prompt length is 500000 but the request contains 512345 tokens."}', 'invalid_request', false],
    [400, '{"code":"invalid-argument","error":"Bad data: Messages cannot be empty"}', 'invalid_request', false],
    [400, '{"error":"Invalid request content: Each message must have at least one content element."}', 'invalid_request', false],
    [400, '"stream or deferred, not both"', 'invalid_request', false],
    [403, '{"code":"permission-denied","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}', 'content_refused', false],
    [400, '{"code":"invalid-argument","error":"Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}', 'content_refused', false],
    [403, `{"code":"permission-denied","error":"Your team ${TEAM} has either used all available credits or reached its monthly spending limit."}`, 'provider_bad_response', false],
    [403, '{"code":"The caller does not have permission to execute the specified operation","error":"blocked"}', 'provider_bad_response', false],
    [404, `{"code":"not-found","error":"The model X does not exist or your team ${TEAM} does not have access to it."}`, 'model_not_found', false],
    [404, '{"code":"Some requested entity was not found","error":"x"}', 'model_not_found', false],
    [410, '{"error":"Live search is deprecated. Please switch to the Agent Tools API"}', 'invalid_request', false],
    [413, '', 'invalid_request', false], [415, '', 'invalid_request', false],
    [422, 'Failed to deserialize the JSON body into the target type: missing field `messages`', 'invalid_request', false],
    [429, `{"code":"resource-exhausted","error":"Too many requests for team ${TEAM}."}`, 'rate_limit_exceeded', true],
    [429, '{"code":"Some resource has been exhausted","error":"Too many tokens for team x and model m."}', 'rate_limit_exceeded', true],
    [429, '{"code":"The service is currently unavailable","error":"The service is temporarily at capacity"}', 'rate_limit_exceeded', true],
    [503, '{"code":"The service is currently unavailable","error":"Service temporarily unavailable. The model did not respond to this request."}', 'provider_unavailable', true],
    [200, '{"code":"The service is currently unavailable","error":"Service temporarily unavailable. The model did not respond to this request."}', 'provider_bad_response', true],
    [200, '{"code":"invalid-argument","error":"x"}', 'provider_bad_response', true],
    [402, '{"error":"x"}', 'provider_bad_response', true], [405, '', 'provider_bad_response', true], [408, '', 'provider_bad_response', true], [499, '', 'provider_bad_response', true],
    [500, '{"error":"x"}', 'provider_unavailable', true], [502, '<html></html>', 'provider_unavailable', true], [504, '', 'provider_timeout', true],
    [520, '<html>', 'provider_unavailable', true], [524, '<html>', 'provider_unavailable', true], [529, '{"error":"overloaded"}', 'provider_unavailable', true], [530, '<html>', 'provider_unavailable', true],
  ])('%i %s is %s', (status, text, code, retryable) => {
    expect(errorFromAnswer(status, text, {}, 'before-answer')).toMatchObject({ code, retryable, status, mayHaveBeenBilled: false });
  });

  it('never lets words alone decide: a status of the server stays one, whatever the text says', () => {
    expect(errorFromAnswer(500, '{"error":"Incorrect API key provided. Content violates usage guidelines."}', {}, 'before-answer').code).toBe('provider_unavailable');
  });

  it('may have been billed, and is not tried again, once the answer had begun', () => {
    for (const status of [200, 429, 500, 503, 504]) {
      expect(errorFromAnswer(status, '{"error":"x"}', {}, 'mid-stream')).toMatchObject({ mayHaveBeenBilled: true, retryable: false });
    }
  });

  it('tells callers what the provider says of their request, without our team, our key, control characters or HTML', () => {
    const told = (text: string): string => errorFromAnswer(400, text, {}, 'before-answer').toGatewayError().message;
    expect(told('{"error":"Argument not supported on this model: presencePenalty"}')).toContain('presencePenalty');
    const message = told(JSON.stringify({ error: `team ${TEAM} with xai-AbC123\u0000\u001b[31m ${'x'.repeat(1000)}` }));
    expect(message).not.toMatch(/5b0f6a38|AbC123/);
    expect(message).not.toMatch(/\p{Cc}/u);
    expect(message.length).toBeLessThan(400);
    expect(told('\n<html><h1>400 Bad Request</h1>cloudflare</html>')).not.toContain('<');
  });

  it.each([401, 403, 404, 429, 500, 504, 200])('tells callers nothing of what the provider says with %i', (status) => {
    const error = errorFromAnswer(status, `{"code":"c","error":"secret of ${TEAM}"}`, { requestId: 'r-1', retryAfterSeconds: 7 }, 'before-answer').toGatewayError();
    expect(JSON.stringify(errorBody(error))).not.toContain('secret');
    // What the provider says may quote the prompt or our key: it is not kept for the log either.
    expect(error.internal).toMatchObject({ providerStatus: status, providerCode: 'c', providerRequestId: 'r-1' });
    expect(JSON.stringify(error.internal)).not.toContain('secret');
  });

  it('passes on when to come back', () => {
    expect(errorFromAnswer(429, '', { retryAfterSeconds: 7 }, 'before-answer').toGatewayError().retryAfterSeconds).toBe(7);
  });
});

describe('timeouts and broken transport', () => {
  it.each<[TimeoutKind, string, boolean, boolean]>([
    ['connect', 'provider_unavailable', true, false],
    ['first-byte', 'provider_timeout', false, true], // it may have been billed, so it is not tried again
    ['idle', 'provider_timeout', false, true],
    ['total', 'provider_timeout', false, true],
    ['deadline', 'deadline_exceeded', false, true],
  ])('%s is %s', (kind, code, retryable, mayHaveBeenBilled) => {
    expect(timeoutError(kind, 'before-answer')).toMatchObject({ code, retryable, mayHaveBeenBilled });
  });

  it.each<[FailurePhase, string, boolean, boolean]>([
    ['connect', 'provider_unavailable', true, false],
    ['before-answer', 'provider_unavailable', true, true],
    ['mid-stream', 'provider_bad_response', false, true],
  ])('a connection lost at %s is %s', (phase, code, retryable, mayHaveBeenBilled) => {
    const cause = new Error('ECONNRESET 10.0.0.7');
    const error = transportError(cause, phase);
    expect(error).toMatchObject({ code, retryable, mayHaveBeenBilled, cause });
    expect(error.toGatewayError().message).not.toContain('10.0.0.7');
  });
});
