import { STATUS_CODES } from 'node:http';

// The provider's refusals. Texts marked "seen" are the provider's own words as users have published them; the others are made up in its manner.

/** The provider writes its error codes in two ways at the same time: as gRPC status sentences, and (newer) as kebab-case words. */
export type ErrorDialect = 'sentence' | 'kebab';

type ErrorCode = 'invalid-argument' | 'not-found' | 'permission-denied' | 'resource-exhausted' | 'unauthenticated:no-credentials' | 'unauthenticated' | 'unavailable' | 'internal';

/** How the body is laid out: `{code, error}`, `{error}` alone (deserialization), or nothing but a JSON string. */
type ErrorLayout = 'coded' | 'uncoded' | 'bare';

const SENTENCES: Readonly<Record<ErrorCode, string>> = {
  'invalid-argument': 'Client specified an invalid argument',
  'not-found': 'Some requested entity was not found',
  'permission-denied': 'The caller does not have permission to execute the specified operation',
  'resource-exhausted': 'Some resource has been exhausted',
  'unauthenticated:no-credentials': 'The request does not have valid authentication credentials',
  unauthenticated: 'The request does not have valid authentication credentials',
  unavailable: 'The service is currently unavailable',
  internal: 'Internal error',
};
/** Seen as sentences only, also where other codes were kebab-case. A client of the provider retries on exactly this text. */
const ALWAYS_SENTENCE: ReadonlySet<ErrorCode> = new Set(['unavailable', 'internal']);

export const TEAM_ID = '6f0a3d52-8c1e-4b7a-9d34-2e5f7a90c1b8';

/** A refusal on its way to the caller. */
export class EmulatedRefusal extends Error {
  readonly status: number;
  private readonly code: ErrorCode;
  private readonly layout: ErrorLayout;

  constructor(status: number, code: ErrorCode, message: string, layout: ErrorLayout = 'coded') {
    super(message);
    this.status = status;
    this.code = code;
    this.layout = layout;
  }

  /** What goes over the wire, as JSON. */
  body(dialect: ErrorDialect): unknown {
    if (this.layout === 'bare') return this.message;
    if (this.layout === 'uncoded') return { error: this.message };
    const asSentence = dialect === 'sentence' || ALWAYS_SENTENCE.has(this.code);
    return { code: asSentence ? SENTENCES[this.code] : this.code, error: this.message };
  }
}

export const noCredentials = () => new EmulatedRefusal(401, 'unauthenticated:no-credentials', 'No credentials presented.'); // seen
export const wrongKey = () =>
  new EmulatedRefusal(400, 'invalid-argument', 'Incorrect API key provided. You can obtain an API key from https://console.x.ai.'); // seen
/** Where a certificate is asked for, the documentation names another status than is seen elsewhere. */
export const unauthenticatedKey = () => new EmulatedRefusal(401, 'unauthenticated', wrongKey().message);
export const blockedKey = () => new EmulatedRefusal(403, 'permission-denied', 'This API key has been blocked.');
export const wrongCertificate = () => new EmulatedRefusal(403, 'permission-denied', `The client certificate is not registered for team ${TEAM_ID}.`);
export const mtlsOnly = () => new EmulatedRefusal(403, 'permission-denied', `Team ${TEAM_ID} may only use the mutual TLS endpoint.`);
export const noCredits = (status: 403 | 429) =>
  new EmulatedRefusal(
    status, status === 403 ? 'permission-denied' : 'resource-exhausted',
    `Your team ${TEAM_ID} has either used all available credits or reached its monthly spending limit.`,
  ); // seen with both
export const tooManyRequests = () => new EmulatedRefusal(429, 'resource-exhausted', `Too many requests for team ${TEAM_ID}. Please slow down.`); // seen
export const tooManyTokens = (model: string, actual: number, limit: number) =>
  new EmulatedRefusal(
    429, 'resource-exhausted',
    `Too many tokens for team ${TEAM_ID} and model ${model}. Your team's rate limit is — Tokens per Minute (actual/limit): ${actual}/${limit}.`,
  ); // seen
export const invalid = (message: string) => new EmulatedRefusal(400, 'invalid-argument', message);
export const unsupportedArgument = (camelCaseName: string) => invalid(`Argument not supported on this model: ${camelCaseName}`); // seen
export const unsupportedParameter = (model: string, camelCaseName: string) => invalid(`Model ${model} does not support parameter ${camelCaseName}.`); // seen
export const promptTooLong = (maximum: number, actual: number) =>
  invalid(`This model's maximum prompt length is ${maximum} but the request contains ${actual} tokens.`); // seen
export const noMessages = () => invalid('Bad data: Messages cannot be empty'); // seen
export const emptyMessage = () => invalid('Invalid request content: Each message must have at least one content element.'); // seen
export const notOnChat = () => invalid('Multi Agent requests are not allowed on chat completions.');
export const streamAndDeferred = () => new EmulatedRefusal(400, 'invalid-argument', 'A request can be either streaming or deferred, not both.', 'bare');
export const unparsable = (reason: string) => invalid(`Failed to parse the request body as JSON: ${reason}`);
export const undeserializable = (reason: string) =>
  new EmulatedRefusal(422, 'invalid-argument', `Failed to deserialize the JSON body into the target type: ${reason}`, 'uncoded'); // seen
export const notJson = () => new EmulatedRefusal(415, 'invalid-argument', 'Expected request with `Content-Type: application/json`');
export const liveSearchOff = () =>
  new EmulatedRefusal(410, 'invalid-argument', 'Live search is deprecated. Please switch to the Agent Tools API: https://docs.x.ai/docs/guides/tools/overview'); // seen
export const unknownModel = (name: string) =>
  new EmulatedRefusal(404, 'not-found', `The model ${name} does not exist or your team ${TEAM_ID} does not have access to it.`); // seen
export const notOnCompletions = (model: string) => invalid(`Model ${model} is a reasoning model, which completions do not support. Please use chat completions.`);
export const noPrompt = () => invalid('Bad data: Prompt cannot be empty');
export const unknownDeferred = (id: string) => new EmulatedRefusal(404, 'not-found', `Deferred completion with id=${id} not found.`);
export const unknownResponse = (id: string) => new EmulatedRefusal(404, 'not-found', `Response with id=${id} not found.`);
export const instructionsInChain = () => invalid('`instructions` cannot be used together with `previous_response_id`.');
export const noStoreWithoutRetention = () => invalid('Storing responses is not available for teams with zero data retention. Set `store` to false.');
export const foreignReasoning = (model: string) => invalid(`The encrypted reasoning content was not generated by ${model}.`);
export const unknownPath = (path: string) => new EmulatedRefusal(404, 'not-found', `The requested path ${path} does not exist.`);
export const wrongMethod = (method: string) => new EmulatedRefusal(405, 'invalid-argument', `The method ${method} is not allowed here.`);
export const bodyTooLarge = () => new EmulatedRefusal(413, 'invalid-argument', 'Request body too large.');
export const overloaded = (status: number) =>
  new EmulatedRefusal(status, 'unavailable', 'Service temporarily unavailable. The model did not respond to this request.'); // seen
export const notEmulated = (what: string) => new EmulatedRefusal(501, 'internal', `The emulator does not imitate ${what}.`);

/** What the provider would say at a status that a test has asked for. */
export function refusalOfStatus(status: number): EmulatedRefusal {
  switch (status) {
    case 400:
      return invalid('Invalid request content: refused by script.');
    case 401:
      return noCredentials();
    case 403:
      return noCredits(403);
    case 404:
      return unknownModel('(scripted)');
    case 413:
      return bodyTooLarge();
    case 415:
      return notJson();
    case 422:
      return undeserializable('refused by script');
    case 429:
      return tooManyRequests();
    case 500:
      return new EmulatedRefusal(500, 'internal', 'Internal error.');
    default:
      return status >= 500 ? overloaded(status) : new EmulatedRefusal(status, 'invalid-argument', STATUS_CODES[status] ?? 'Refused by script.');
  }
}

/** Statuses that come from the content delivery network in front of the provider, which speaks HTML. */
export function isCdnStatus(status: number): boolean {
  return (status >= 520 && status <= 526) || status === 530;
}

export function cdnPage(status: number): string {
  const title = `api.x.ai | ${status}: ${STATUS_CODES[status] ?? 'Web server is returning an unknown error'}`;
  return `<!DOCTYPE html>\n<html lang="en-US">\n<head><title>${title}</title></head>\n<body><h1>Error code ${status}</h1></body>\n</html>\n`;
}
