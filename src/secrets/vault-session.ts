import { readFile } from 'node:fs/promises';
import type { Clock } from '../shared/clock.ts';
import { SecretUnavailable } from './secret-provider.ts';
import type { VaultClient } from './vault-client.ts';
import type { VaultLogin } from './vault-settings.ts';

/** A lease is renewed when so much of it has passed. */
const RENEW_AT = 2 / 3;
/** Renewals are no busier than this, however short the lease. */
const RENEW_PAUSE_LEAST_MS = 250;
const RENEW_BACKOFF_MS = 1_000;
const RENEW_BACKOFF_MAX_MS = 30_000;
/** Timers of Node go no further. */
const TIMER_MAX_MS = 2_147_483_647;
/** How often Vault is asked for how long a static token lasts, where it does not say. */
const LOOKUP_EVERY_MS = 60_000;

export interface VaultSessionOptions {
  clock: Clock;
  random: () => number;
  /** Called with each token, so that it is kept out of the log. */
  onToken: (token: string) => void;
  /** One line for operators. */
  onNotice: (text: string) => void;
}

interface Token {
  value: string;
  renewable: boolean;
  endsAtMs: number;
}

/** Keeps a token of Vault alive: it logs in, renews the lease before it ends, and logs in again where that is refused. */
export class VaultSession {
  #token: Token | undefined;
  #loggingIn: Promise<Token> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #lookedUpAtMs = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #closed = false;

  constructor(
    private readonly client: Pick<VaultClient, 'ask'>,
    private readonly login: VaultLogin,
    private readonly options: VaultSessionOptions,
  ) {
    if (login.type === 'token') options.onToken(login.token);
  }

  /** @throws {SecretUnavailable} where there is none to be had now */
  async token(): Promise<string> {
    const { login, options } = this;
    if (login.type === 'token') {
      this.#watchStatic(login.token);
      return login.token;
    }
    if (this.#token !== undefined && options.clock.monotonicMs() < this.#token.endsAtMs) return this.#token.value;
    return (await this.#logIn()).value;
  }

  /**
   * Tells that a token was not accepted.
   *
   * @returns whether there may be another one
   */
  drop(token: string): boolean {
    if (this.login.type === 'token') {
      this.#lookedUpAtMs = Number.NEGATIVE_INFINITY; // once it is good again, its lease is another
      clearTimeout(this.#timer);
      return false;
    }
    if (this.#token?.value === token) this.#token = undefined;
    return true;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** One login, however many wait for it. */
  #logIn(): Promise<Token> {
    this.#loggingIn ??= this.#logInNow().finally(() => {
      this.#loggingIn = undefined;
    });
    return this.#loggingIn;
  }

  async #logInNow(): Promise<Token> {
    const { path, body } = await this.#credentials();
    const { verdict, body: answer } = await this.client.ask('POST', path, undefined, body);
    if (verdict.kind === 'unavailable') throw new SecretUnavailable(verdict.reason, verdict.soon);
    if (verdict.kind !== 'ok') throw new SecretUnavailable(`Vault refuses the login (${this.login.type === 'approle' ? 'VAULT_ROLE_ID and VAULT_SECRET_ID' : 'VAULT_K8S_ROLE and the service account'})`, false);
    return this.#take(answer['auth']);
  }

  async #credentials(): Promise<{ path: string; body: Record<string, string> }> {
    const { login } = this;
    if (login.type === 'approle') return { path: 'auth/approle/login', body: { role_id: login.roleId, secret_id: login.secretId } };
    if (login.type !== 'kubernetes') throw new Error('a static token does not log in');
    try {
      // Read each time: Kubernetes replaces it before it expires.
      return { path: 'auth/kubernetes/login', body: { role: login.role, jwt: (await readFile(login.jwtFile, 'utf8')).trim() } };
    } catch (cause) {
      throw new SecretUnavailable('the token of the service account cannot be read (VAULT_K8S_JWT_FILE)', false, { cause });
    }
  }

  /** What a login or a renewal brought. */
  #take(auth: unknown): Token {
    const { client_token: value, lease_duration: leaseSeconds, renewable } = (auth ?? {}) as { client_token?: unknown; lease_duration?: unknown; renewable?: unknown };
    if (typeof value !== 'string' || value === '' || typeof leaseSeconds !== 'number') throw new SecretUnavailable('Vault answers a login without a token', false);
    this.options.onToken(value);
    const token = { value, renewable: renewable === true, endsAtMs: leaseSeconds > 0 ? this.options.clock.monotonicMs() + leaseSeconds * 1000 : Number.POSITIVE_INFINITY };
    this.#token = token;
    this.#failures = 0;
    if (leaseSeconds > 0) this.#renewIn(leaseSeconds * 1000 * RENEW_AT);
    return token;
  }

  #renewIn(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#renew(), Math.min(TIMER_MAX_MS, Math.max(RENEW_PAUSE_LEAST_MS, ms)));
    this.#timer.unref(); // a command that is done does not wait for it
  }

  /** Prolongs the lease, or gets another token in time, where the one there is cannot be prolonged. */
  async #renew(): Promise<void> {
    const token = this.#token;
    try {
      if (token?.renewable && (await this.#prolong(token))) return;
      if (this.login.type !== 'token') await this.#logIn();
    } catch (error) {
      if (this.#closed) return;
      this.#failures += 1;
      const ceilingMs = Math.min(RENEW_BACKOFF_MAX_MS, RENEW_BACKOFF_MS * 2 ** Math.min(this.#failures, 16));
      if (this.#failures === 1) this.options.onNotice(`secrets: the lease of Vault’s token is not renewed yet: ${error instanceof Error ? error.message : 'failed'}`);
      this.#renewIn(ceilingMs / 2 + (ceilingMs / 2) * this.options.random());
    }
  }

  /** @returns false where Vault will not */
  async #prolong(token: Token): Promise<boolean> {
    const { verdict, body } = await this.client.ask('POST', 'auth/token/renew-self', token.value, {});
    if (verdict.kind === 'unavailable') throw new SecretUnavailable(verdict.reason, verdict.soon);
    const { lease_duration: leaseSeconds } = (body['auth'] ?? {}) as { lease_duration?: unknown };
    // At the end of a token’s longest life, its lease does not grow any more.
    if (verdict.kind === 'ok' && typeof leaseSeconds === 'number' && this.options.clock.monotonicMs() + leaseSeconds * 1000 > token.endsAtMs) {
      this.#take(body['auth']);
      return true;
    }
    if (this.login.type === 'token') this.options.onNotice('secrets: Vault does not renew VAULT_TOKEN; it ends when its lease ends');
    return false;
  }

  /** Finds out how long a static token lasts, to renew it; a token that may not even ask that is used as it is. */
  #watchStatic(value: string): void {
    const nowMs = this.options.clock.monotonicMs();
    if (nowMs - this.#lookedUpAtMs < LOOKUP_EVERY_MS) return;
    this.#lookedUpAtMs = nowMs;
    this.client.ask('GET', 'auth/token/lookup-self', value).then(({ verdict, body }) => {
      if (verdict.kind !== 'ok') return;
      const { ttl, renewable } = (body['data'] ?? {}) as { ttl?: unknown; renewable?: unknown };
      if (typeof ttl !== 'number' || ttl === 0 || renewable !== true) return;
      this.#token = { value, renewable: true, endsAtMs: nowMs + ttl * 1000 };
      this.#renewIn(ttl * 1000 * RENEW_AT);
    }, () => {
      this.#lookedUpAtMs = Number.NEGATIVE_INFINITY; // not answered: asked again at the next use
    });
  }
}
