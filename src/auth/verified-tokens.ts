import { hash } from 'node:crypto';
import type { Principal } from './principal.ts';

/** Principals of tokens already verified, keyed by a full digest of the token; the oldest leaves when it is full. */
export class VerifiedTokens {
  readonly #principals = new Map<string, Principal>();

  constructor(private readonly entriesMax: number) {}

  get size(): number {
    return this.#principals.size;
  }

  find(token: string, nowMs: number): Principal | undefined {
    const key = digest(token);
    const principal = this.#principals.get(key);
    if (principal !== undefined && principal.expiresAtMs <= nowMs) {
      this.#principals.delete(key);
      return undefined;
    }
    return principal;
  }

  remember(token: string, principal: Principal): void {
    const key = digest(token);
    if (this.#principals.size >= this.entriesMax && !this.#principals.has(key)) this.#principals.delete(this.#principals.keys().next().value!);
    this.#principals.set(key, principal);
  }

  /** A tenant changed (its tier, say): its tokens are read afresh. */
  clear(): void {
    this.#principals.clear();
  }
}

function digest(token: string): string {
  return hash('sha256', token, 'base64');
}
