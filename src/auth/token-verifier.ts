import { readFile } from 'node:fs/promises';
import { createLocalJWKSet, createRemoteJWKSet, errors, jwtVerify, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';
import type { Logger } from 'pino';
import type { Env } from '../env.ts';
import { GatewayError, invalidToken } from '../shared/gateway-error.ts';
import { readClaims, type TokenClaims } from './token-claims.ts';

const TOKEN_BYTES_MAX = 16 * 1024;
const CLOCK_SKEW_SECONDS = 30;
const JWKS_TIMEOUT_MS = 5_000;
/** An unknown key id asks for the key set again, at most this often. */
const JWKS_COOLDOWN_MS = 10_000;
const JWKS_MAX_AGE_MS = 600_000;
/** Headers by which a token would bring its own key or change what a signature means. */
const REFUSED_HEADERS = ['jku', 'x5u', 'jwk', 'x5c', 'crit', 'zip', 'enc', 'b64'];

export type IdentitySettings = NonNullable<Env['identity']>;

/** Verifies access tokens of one issuer against its key set. */
export class TokenVerifier {
  readonly #keys: JWTVerifyGetKey;
  #ready = false;

  private constructor(
    private readonly settings: IdentitySettings,
    keys: JWTVerifyGetKey,
    private readonly prefetch: () => Promise<void>,
    private readonly logger: Logger,
  ) {
    this.#keys = keys;
  }

  static async create(settings: IdentitySettings, logger: Logger): Promise<TokenVerifier> {
    if (settings.jwksFile !== undefined) {
      const keySet = JSON.parse(await readFile(settings.jwksFile, 'utf8')) as JSONWebKeySet;
      return new TokenVerifier(settings, createLocalJWKSet(keySet), async () => {}, logger);
    }
    const remote = createRemoteJWKSet(new URL(settings.jwksUri!), { timeoutDuration: JWKS_TIMEOUT_MS, cooldownDuration: JWKS_COOLDOWN_MS, cacheMaxAge: JWKS_MAX_AGE_MS });
    return new TokenVerifier(settings, remote, () => remote.reload(), logger);
  }

  /** Whether keys are there. Fetches them where they are not. */
  async ready(): Promise<boolean> {
    if (this.#ready) return true;
    try {
      await this.prefetch();
      this.#ready = true;
    } catch (error) {
      this.logger.warn({ err: error, issuer: this.settings.issuer }, 'auth: the issuer’s keys could not be fetched');
    }
    return this.#ready;
  }

  /**
   * @throws {GatewayError} `invalid_token` whatever is wrong with the token, `identity_unavailable` when the issuer's keys cannot be had
   */
  async verify(token: string): Promise<TokenClaims> {
    if (!isCanonical(token)) throw invalidToken({ reason: 'not three canonical base64url parts' });
    try {
      const { payload, protectedHeader } = await jwtVerify(token, this.#keys, {
        issuer: this.settings.issuer,
        audience: this.settings.audience,
        algorithms: [...this.settings.algorithms],
        clockTolerance: CLOCK_SKEW_SECONDS,
        requiredClaims: ['iss', 'aud', 'exp', 'iat', 'sub', 'jti'],
      });
      const refused = REFUSED_HEADERS.find((name) => name in protectedHeader);
      if (refused !== undefined) throw invalidToken({ reason: `header ${refused} is not accepted` });
      if (payload.iat! > Date.now() / 1000 + CLOCK_SKEW_SECONDS) throw invalidToken({ reason: 'issued in the future' });
      const claims = readClaims(payload);
      if (!claims) throw invalidToken({ reason: 'claims missing or mistyped' });
      return claims;
    } catch (error) {
      if (error instanceof GatewayError) throw error;
      if (isTokenFault(error)) throw invalidToken({ reason: error.code }, error);
      throw new GatewayError('identity_unavailable', {
        publicMessage: 'The identity provider cannot be reached to check the token. Try again shortly.', retryAfterSeconds: 5, cause: error,
      });
    }
  }
}

/** Faults of the token itself; everything else (timeout, bad answer, bad key set) is the issuer's. */
function isTokenFault(error: unknown): error is errors.JOSEError {
  return error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout) && !(error instanceof errors.JWKSInvalid) && error.code !== 'ERR_JOSE_GENERIC';
}

/** One token, one spelling: no padding, no other alphabet, no stray bits. */
function isCanonical(token: string): boolean {
  if (token.length > TOKEN_BYTES_MAX) return false;
  const parts = token.split('.');
  return parts.length === 3 && parts.every((part) => part !== '' && Buffer.from(part, 'base64url').toString('base64url') === part);
}
