import { errors, jwtVerify, type JWTPayload } from 'jose';
import type { Logger } from 'pino';
import type { Clock } from '../shared/clock.ts';
import { GatewayError, invalidToken } from '../shared/gateway-error.ts';
import { scanJsonObject } from '../shared/json-members.ts';
import { mapClaims } from './claims-mapping.ts';
import type { IssuerSettings } from './identity-config.ts';
import { IssuerKeys, type FetchText } from './issuer-keys.ts';
import { readClaims, type TokenClaims } from './token-claims.ts';

const TOKEN_BYTES_MAX = 16 * 1024;
const CLOCK_SKEW_SECONDS = 30;
const DEPTH_MAX = 32;
/** Headers by which a token would bring its own key or change what a signature means. */
const REFUSED_HEADERS = ['jku', 'x5u', 'jwk', 'x5c', 'crit', 'zip', 'enc', 'b64'];
/** An access token, or one that does not say what it is; never a logout or a security event of the same issuer. */
const TYPES = ['jwt', 'at+jwt', 'application/at+jwt', 'application/jwt'];

interface Issuer {
  settings: IssuerSettings;
  keys: IssuerKeys;
}

/** Verifies access tokens, each against the keys of the issuer that it names. */
export class TokenVerifier {
  readonly #issuers: ReadonlyMap<string, Issuer>;

  constructor(issuers: readonly IssuerSettings[], fetchText: FetchText, private readonly clock: Clock, logger: Logger) {
    this.#issuers = new Map(issuers.map((settings) => [settings.issuer, { settings, keys: new IssuerKeys(settings, fetchText, () => clock.monotonicMs(), logger) }]));
    if (this.#issuers.size !== issuers.length) throw new Error('config/identity.yaml, AUTH_ISSUER: an issuer is given twice');
  }

  /**
   * Reads the key sets that lie in files: one that cannot be read is a mistake to be seen at the start.
   *
   * @throws {Error} naming the file
   */
  async open(): Promise<void> {
    await Promise.all([...this.#issuers.values()].filter(({ settings }) => settings.jwksFile !== undefined).map(({ keys }) => keys.load()));
  }

  /** Whether the keys of any issuer are there. Fetches them where they are not. */
  async ready(): Promise<boolean> {
    const issuers = [...this.#issuers.values()];
    if (issuers.every(({ keys }) => keys.present)) return true;
    const fetching = Promise.all(issuers.map(({ keys }) => keys.prefetch()));
    // One provider that is down, or hangs, must not keep out those of the others.
    if (!issuers.some(({ keys }) => keys.present)) await fetching;
    return issuers.some(({ keys }) => keys.present);
  }

  /**
   * @throws {GatewayError} `invalid_token` whatever is wrong with the token, `identity_unavailable` when the issuer's keys cannot be had
   */
  async verify(token: string): Promise<TokenClaims> {
    const issuer = this.#issuers.get(readIssuer(token) ?? '');
    if (issuer === undefined) throw invalidToken({ reason: 'not a token of an issuer known here' });
    const { settings, keys } = issuer;
    try {
      const { payload, protectedHeader } = await jwtVerify(token, keys.find, {
        issuer: settings.issuer,
        audience: settings.audience,
        algorithms: [...settings.algorithms],
        clockTolerance: CLOCK_SKEW_SECONDS,
        currentDate: new Date(this.clock.nowMs()),
        requiredClaims: ['iss', 'aud', 'exp', 'iat'],
      });
      const refused = REFUSED_HEADERS.find((name) => name in protectedHeader);
      if (refused !== undefined) throw invalidToken({ reason: `header ${refused} is not accepted` });
      if (protectedHeader.typ !== undefined && !TYPES.includes(protectedHeader.typ.toLowerCase())) throw invalidToken({ reason: 'no access token' });
      return this.#claims(payload, settings);
    } catch (error) {
      if (error instanceof GatewayError) throw error;
      if (isTokenFault(error)) throw invalidToken({ reason: error.code }, error);
      throw new GatewayError('identity_unavailable', {
        publicMessage: 'The identity provider cannot be reached to check the token. Try again shortly.', retryAfterSeconds: 5, cause: error,
      });
    }
  }

  #claims(payload: JWTPayload, { claims: mapping }: IssuerSettings): TokenClaims {
    if (payload.iat! > this.clock.nowMs() / 1000 + CLOCK_SKEW_SECONDS) throw invalidToken({ reason: 'issued in the future' });
    const claims = readClaims(mapping === undefined ? payload : mapClaims(payload, mapping));
    if (!claims) throw invalidToken({ reason: 'claims missing or mistyped' });
    return claims;
  }
}

/** Faults of the token itself; everything else (timeout, bad answer, bad key set) is the issuer's. */
function isTokenFault(error: unknown): error is errors.JOSEError {
  return error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout) && !(error instanceof errors.JWKSInvalid) && error.code !== 'ERR_JOSE_GENERIC';
}

/**
 * Whose token it says it is, unverified. Undefined for what is no token that can be read in one way only: three canonical parts, without padding, another
 * alphabet or stray bits, whose JSON has no key twice.
 */
function readIssuer(token: string): string | undefined {
  if (token.length > TOKEN_BYTES_MAX) return undefined;
  const parts = token.split('.');
  if (parts.length !== 3 || !parts.every((part) => part !== '' && Buffer.from(part, 'base64url').toString('base64url') === part)) return undefined;
  const [header, payload] = parts.slice(0, 2).map((part) => Buffer.from(part, 'base64url')) as [Buffer, Buffer];
  for (const json of [header, payload]) {
    const { duplicate, disguised, depth } = scanJsonObject(json, DEPTH_MAX);
    if (duplicate !== undefined || disguised !== undefined || depth > DEPTH_MAX) return undefined;
  }
  try {
    const { iss } = JSON.parse(payload.toString()) as { iss?: unknown };
    return typeof iss === 'string' ? iss : undefined;
  } catch {
    return undefined; // no JSON, so no token
  }
}
