/** What each public error code means over HTTP. `waits` says whether trying again later can help. */
const ERROR_TABLE = {
  invalid_request: { status: 400, type: 'invalid_request_error', waits: false },
  unsupported_parameter: { status: 400, type: 'invalid_request_error', waits: false },
  content_refused: { status: 400, type: 'invalid_request_error', waits: false },
  invalid_token: { status: 401, type: 'authentication_error', waits: false },
  budget_exceeded: { status: 402, type: 'insufficient_quota', waits: false },
  request_cost_exceeded: { status: 402, type: 'insufficient_quota', waits: false },
  policy_denied: { status: 403, type: 'permission_error', waits: false },
  model_not_found: { status: 404, type: 'invalid_request_error', waits: false },
  not_found: { status: 404, type: 'invalid_request_error', waits: false },
  already_exists: { status: 409, type: 'invalid_request_error', waits: false },
  idempotency_conflict: { status: 409, type: 'invalid_request_error', waits: false },
  pruned: { status: 410, type: 'invalid_request_error', waits: false },
  payload_too_large: { status: 413, type: 'invalid_request_error', waits: false },
  unsupported_media_type: { status: 415, type: 'invalid_request_error', waits: false },
  invalid_policy: { status: 422, type: 'invalid_request_error', waits: false },
  rate_limit_exceeded: { status: 429, type: 'rate_limit_error', waits: true },
  headers_too_large: { status: 431, type: 'invalid_request_error', waits: false },
  internal_error: { status: 500, type: 'api_error', waits: false },
  provider_bad_response: { status: 502, type: 'api_error', waits: true },
  provider_unavailable: { status: 503, type: 'api_error', waits: true },
  breaker_open: { status: 503, type: 'api_error', waits: true },
  audit_unavailable: { status: 503, type: 'api_error', waits: true },
  policy_unavailable: { status: 503, type: 'api_error', waits: true },
  identity_unavailable: { status: 503, type: 'api_error', waits: true },
  price_unavailable: { status: 503, type: 'api_error', waits: true },
  overloaded: { status: 503, type: 'api_error', waits: true },
  provider_timeout: { status: 504, type: 'api_error', waits: true },
  deadline_exceeded: { status: 504, type: 'api_error', waits: true },
} as const satisfies Record<string, { status: number; type: string; waits: boolean }>;

export type ErrorCode = keyof typeof ERROR_TABLE;

export const ERROR_CODES = Object.keys(ERROR_TABLE) as ErrorCode[];

/** An access decision as it is recorded. */
export interface DecisionRecord {
  id: string;
  revision: string;
  policy?: string | undefined;
  rule?: string | undefined;
  /** Why not, as the caller was told. */
  reason?: string | undefined;
  /** What all had to be allowed; invoke where absent. */
  actions?: readonly string[];
  /** What it would have been with the shadowed rules, where that differs. */
  shadow?: { allowed: boolean; policy: string | undefined; rule: string | undefined } | undefined;
  /** What rules could ask about, and what of it belongs to each deployment. */
  attributes?: Readonly<Record<string, unknown>>;
  deployments?: readonly Readonly<Record<string, unknown>>[];
}

export interface GatewayErrorOptions {
  /** What happened and what to do, for the caller. Never provider text, SQL or a secret. */
  publicMessage: string;
  /** The request field at fault, as a path such as `messages[0].role`. */
  param?: string;
  /** Whole seconds after which trying again makes sense. */
  retryAfterSeconds?: number;
  /** Facts for the log, never sent. */
  internal?: Record<string, unknown>;
  cause?: unknown;
}

/** The only error that reaches a caller; its code fixes status and type. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';
  readonly code: ErrorCode;
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly retryAfterSeconds: number | undefined;
  readonly internal: Record<string, unknown> | undefined;
  /** Whether a client that waits and tries again may succeed. */
  readonly retryable: boolean;
  /** The access decision, where one was taken. Its id becomes part of a 403, all of it goes on record. */
  decision: DecisionRecord | undefined;
  /** Whether the audit log has it already, as the outcome of an admitted call. */
  recorded = false;

  constructor(code: ErrorCode, options: GatewayErrorOptions) {
    super(options.publicMessage, options.cause === undefined ? undefined : { cause: options.cause });
    const { status, type, waits } = ERROR_TABLE[code];
    this.code = code;
    this.status = status;
    this.type = type;
    this.retryable = waits || options.retryAfterSeconds !== undefined;
    this.param = options.param ?? null;
    this.retryAfterSeconds = options.retryAfterSeconds ?? (status === 503 || status === 429 ? 1 : undefined);
    this.internal = options.internal;
  }
}

/** The envelope every error travels in, in a plain answer and inside a stream alike. */
export interface ErrorBody {
  error: { message: string; type: string; code: ErrorCode; param: string | null; decision_id?: string };
}

export function errorBody(error: GatewayError): ErrorBody {
  const body: ErrorBody = { error: { message: error.message, type: error.type, code: error.code, param: error.param } };
  if (error.decision !== undefined) body.error.decision_id = error.decision.id;
  return body;
}

/** Headers that go with an error: how to authenticate, when to come back, and whether coming back can help. */
export function errorHeaders(error: GatewayError): Record<string, string> {
  const headers: Record<string, string> = {};
  if (error.status === 401) headers['www-authenticate'] = 'Bearer error="invalid_token"';
  if (error.retryAfterSeconds !== undefined) headers['retry-after'] = String(Math.min(60, Math.max(1, Math.ceil(error.retryAfterSeconds))));
  if (!error.retryable) headers['x-should-retry'] = 'false';
  return headers;
}

/** One text for every way in which authentication can fail, so that none tells more than another. */
export function invalidToken(internal?: Record<string, unknown>, cause?: unknown): GatewayError {
  return new GatewayError('invalid_token', {
    publicMessage: 'The request carries no valid credentials. Send a current token as "authorization: Bearer <token>".',
    internal,
    cause,
  });
}

/** An unexpected error, hidden from the caller and kept as the cause for the log. */
export function asGatewayError(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error;
  return new GatewayError('internal_error', {
    publicMessage: 'The gateway failed to handle the request. The failure is recorded under the request id.',
    cause: error,
  });
}
