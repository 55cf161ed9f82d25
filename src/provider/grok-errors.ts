import { GatewayError, type ErrorCode } from '../shared/gateway-error.ts';

/** When an upstream call failed: what the caller may be told depends on it, and what may have been billed. */
export type FailurePhase = 'connect' | 'before-answer' | 'answer' | 'mid-stream';

export interface GrokApiErrorOptions {
  code: ErrorCode;
  publicMessage: string;
  phase: FailurePhase;
  /** HTTP status of the provider, where there was one. */
  status?: number;
  /** The provider's own code, in whichever dialect. */
  providerCode?: string;
  /** What went wrong, in our own words, for the log. */
  detail?: string;
  /** The provider's `x-request-id`. */
  requestId?: string;
  retryAfterSeconds?: number;
  retryable: boolean;
  /** False only where the provider cannot have done any work. */
  mayHaveBeenBilled: boolean;
  param?: string;
  cause?: unknown;
}

/**
 * A call to Grok that failed; `toGatewayError` is what the caller gets. What the provider said may quote the prompt or our key, so it is kept
 * nowhere; its code and request id are.
 */
export class GrokApiError extends Error {
  override readonly name = 'GrokApiError';
  readonly code: ErrorCode;
  readonly phase: FailurePhase;
  readonly status: number | undefined;
  readonly providerCode: string | undefined;
  readonly requestId: string | undefined;
  readonly retryable: boolean;
  readonly mayHaveBeenBilled: boolean;
  /** After which the provider wants to be asked again. */
  readonly retryAfterSeconds: number | undefined;
  readonly #options: GrokApiErrorOptions;

  constructor(options: GrokApiErrorOptions) {
    super(options.detail ?? options.publicMessage, options.cause === undefined ? undefined : { cause: options.cause });
    this.#options = options;
    this.code = options.code;
    this.phase = options.phase;
    this.status = options.status;
    this.providerCode = options.providerCode;
    this.requestId = options.requestId;
    this.retryable = options.retryable;
    this.mayHaveBeenBilled = options.mayHaveBeenBilled;
    this.retryAfterSeconds = options.retryAfterSeconds;
  }

  toGatewayError(): GatewayError {
    const { code, publicMessage, retryAfterSeconds, param } = this.#options;
    return new GatewayError(code, {
      publicMessage,
      ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
      ...(param === undefined ? {} : { param }),
      internal: {
        phase: this.phase, providerStatus: this.status, providerRequestId: this.requestId,
        providerCode: this.providerCode !== undefined && /^[\w:-]{1,64}$/.test(this.providerCode) ? this.providerCode : undefined,
      },
      cause: this,
    });
  }
}

interface ProviderErrorBody {
  code: string | undefined;
  message: string | undefined;
}

/**
 * Reads an error body in any of the provider's shapes: flat, without code, a bare string, nested, HTML, or nothing.
 */
export function readErrorBody(text: string): ProviderErrorBody {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return { code: undefined, message: text.trimStart().startsWith('<') ? undefined : text.slice(0, 500) }; // HTML of the CDN says nothing
  }
  if (typeof body === 'string') return { code: undefined, message: body };
  if (typeof body !== 'object' || body === null) return { code: undefined, message: undefined };
  const { code, error } = body as { code?: unknown; error?: unknown };
  if (typeof error === 'object' && error !== null) {
    const nested = error as { code?: unknown; message?: unknown };
    return { code: asText(nested.code ?? code), message: asText(nested.message) };
  }
  return { code: asText(code), message: asText(error) };
}

/** Turns the provider's error answer into our own codes: by status first, then by its code in either dialect, never by message alone. */
export function errorFromAnswer(status: number, text: string, headers: { requestId?: string; retryAfterSeconds?: number }, phase: FailurePhase): GrokApiError {
  const { code: providerCode, message } = readErrorBody(text);
  const common = {
    phase, status,
    ...(providerCode === undefined ? {} : { providerCode }),
    ...(headers.requestId === undefined ? {} : { requestId: headers.requestId }),
  };
  const refusal = (code: ErrorCode, publicMessage: string): GrokApiError =>
    new GrokApiError({ ...common, code, publicMessage, retryable: false, mayHaveBeenBilled: false });
  const failure = (code: ErrorCode, publicMessage: string): GrokApiError =>
    new GrokApiError({ ...common, code, publicMessage, retryable: phase !== 'mid-stream', mayHaveBeenBilled: phase === 'mid-stream', ...(headers.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: headers.retryAfterSeconds }) });

  const said = message ?? '';
  const wrongKey = /api key/i.test(said) && status === 400;
  if (/usage guidelines/i.test(said) && (status === 400 || status === 403)) {
    return refusal('content_refused', 'The provider refused the content under its usage guidelines. Change the prompt.');
  }
  const creditsUsedUp = status === 429 && /credits|spending limit/i.test(said); // waiting does not help
  if (status === 401 || status === 403 || wrongKey || creditsUsedUp) {
    return refusal('provider_bad_response', 'The provider refused the gateway itself, not your request. The platform team has to see to its credentials or credits.');
  }
  if (status === 404) return refusal('model_not_found', 'The provider does not offer this model to the gateway. List the models with GET /v1/models.');
  if (status === 429) return failure('rate_limit_exceeded', 'The provider limits the rate of requests. Try again after the time in retry-after.');
  if (status === 400 || status === 413 || status === 415 || status === 422 || status === 410) {
    return refusal('invalid_request', `The provider refused the request${said === '' ? '' : `: ${printable(said)}`}`);
  }
  if (status === 200) return failure('provider_bad_response', 'The provider answered with an error instead of a completion. Try again shortly.');
  if (status === 504) return failure('provider_timeout', 'The provider did not answer in time. Try again shortly.');
  if (status >= 500) return failure('provider_unavailable', 'The provider is unavailable at the moment. Try again shortly.');
  return failure('provider_bad_response', 'The provider gave an answer that the gateway does not understand.');
}

export type TimeoutKind = 'connect' | 'first-byte' | 'idle' | 'total' | 'deadline';

const TIMEOUT_TEXT: Record<TimeoutKind, string> = {
  connect: 'The provider could not be reached in time. Try again shortly.',
  'first-byte': 'The provider did not begin to answer in time.',
  idle: 'The provider fell silent in the middle of its answer.',
  total: 'The answer took longer than the gateway allows.',
  deadline: 'The answer was not complete within the deadline of the request.',
};

export function timeoutError(kind: TimeoutKind, phase: FailurePhase): GrokApiError {
  const connecting = kind === 'connect';
  return new GrokApiError({
    code: connecting ? 'provider_unavailable' : kind === 'deadline' ? 'deadline_exceeded' : 'provider_timeout',
    publicMessage: TIMEOUT_TEXT[kind], phase, retryable: connecting, mayHaveBeenBilled: !connecting,
  });
}

/** A transport failure: refused, reset, or closed early. */
export function transportError(cause: unknown, phase: FailurePhase): GrokApiError {
  const connecting = phase === 'connect';
  return new GrokApiError({
    code: phase === 'mid-stream' ? 'provider_bad_response' : 'provider_unavailable',
    publicMessage: phase === 'mid-stream' ? 'The provider broke off its answer.' : 'The provider cannot be reached at the moment. Try again shortly.',
    phase, retryable: phase !== 'mid-stream', mayHaveBeenBilled: !connecting, cause,
  });
}

function asText(value: unknown): string | undefined {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : undefined;
}

/** Provider text is passed on only where it tells callers what to change; without control characters, ids of our team, or our key. */
function printable(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').replace(/[0-9a-f]{8}-[0-9a-f-]{27}/gi, '…').replace(/xai-\S+/g, '…').slice(0, 300);
}
