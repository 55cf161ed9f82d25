import { readFile } from 'node:fs/promises';
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';
import type { Logger } from 'pino';
import { GatewayError } from '../shared/gateway-error.ts';
import type { IssuerSettings } from './identity-config.ts';

/** A key set is fetched again after so long. */
const FRESH_MS = 600_000;
/** An unknown key id asks for it again, at most this often. */
const COOLDOWN_MS = 5_000;
const GRACE_SECONDS_DEFAULT = 86_400;

/** Without any keys, the issuer is asked again after so long: soon, but not once for each token that names it. */
const BACK_OFF_MS = 1_000;

/** Fetches a key set as text; rejects for whatever is no key set. */
export type FetchText = (url: string) => Promise<string>;

/**
 * The public keys of one issuer. Asked for once at a time, and seldom: whoever sends unknown key ids cannot make us ask for each. Where the issuer cannot
 * be reached the last good set serves on, for as long as its settings say.
 */
export class IssuerKeys {
  #set: { find: JWTVerifyGetKey; fetchedAtMs: number } | undefined;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  /** Whether the last answer was none. */
  #failed = false;
  #asking: Promise<void> | undefined;

  constructor(
    private readonly settings: IssuerSettings,
    private readonly fetchText: FetchText,
    private readonly monotonicMs: () => number,
    private readonly logger: Logger,
  ) {}

  get present(): boolean {
    return this.#set !== undefined;
  }

  /** @throws {Error} where the keys cannot be had */
  load(): Promise<void> {
    return this.#ask();
  }

  /** Fetches the keys where there are none. Never rejects. */
  async prefetch(): Promise<void> {
    const askedLately = this.#failed && this.monotonicMs() - this.#askedAtMs < BACK_OFF_MS;
    if (this.#set === undefined && !askedLately) await this.#ask().catch(() => {}); // logged there
  }

  /**
   * The key that a token says it was signed with.
   *
   * @throws {errors.JWKSNoMatchingKey} for a key that the issuer does not have
   * @throws {GatewayError} `identity_unavailable` where that cannot be known
   */
  readonly find: JWTVerifyGetKey = async (header, token) => {
    const ageMs = this.monotonicMs() - (this.#set?.fetchedAtMs ?? Number.NEGATIVE_INFINITY);
    if (ageMs > FRESH_MS) await this.#refresh();
    try {
      return await this.#set!.find(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      if (this.monotonicMs() - this.#askedAtMs < COOLDOWN_MS) throw this.#failed ? unavailable(error) : error;
    }
    // It may be a new one. Where nobody can be asked, nobody can say that it is not.
    try {
      await this.#ask();
    } catch (cause) {
      throw unavailable(cause);
    }
    return this.#set!.find(header, token);
  };

  /** An old set is better than none, for a while. */
  async #refresh(): Promise<void> {
    const graceMs = (this.settings.jwksGraceSeconds ?? GRACE_SECONDS_DEFAULT) * 1_000;
    const servesOn = this.#set !== undefined && this.monotonicMs() - this.#set.fetchedAtMs < FRESH_MS + graceMs;
    if (this.#failed && this.monotonicMs() - this.#askedAtMs < (servesOn ? COOLDOWN_MS : BACK_OFF_MS)) {
      if (servesOn) return;
      throw unavailable(new Error('asked a moment ago'));
    }
    try {
      await this.#ask();
    } catch (cause) {
      if (!servesOn) throw unavailable(cause);
    }
  }

  /** Everyone who needs the keys at the same time waits for the same answer. */
  #ask(): Promise<void> {
    this.#asking ??= this.#fetch().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #fetch(): Promise<void> {
    const { jwksUri, jwksFile, issuer } = this.settings;
    this.#askedAtMs = this.monotonicMs();
    try {
      const text = jwksFile === undefined ? await this.fetchText(jwksUri!) : await readFile(jwksFile, 'utf8');
      this.#set = { find: createLocalJWKSet(JSON.parse(text) as JSONWebKeySet), fetchedAtMs: this.monotonicMs() };
      this.#failed = false;
    } catch (error) {
      this.#failed = true;
      this.logger.warn({ err: error, issuer }, 'auth: the issuer’s keys could not be had');
      throw error;
    }
  }
}

function unavailable(cause: unknown): GatewayError {
  return new GatewayError('identity_unavailable', { publicMessage: 'The identity provider cannot be reached to check the token. Try again shortly.', retryAfterSeconds: 5, cause });
}
