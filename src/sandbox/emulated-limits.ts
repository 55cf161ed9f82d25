import type { ServerResponse } from 'node:http';
import { tooManyRequests, tooManyTokens } from './emulated-errors.ts';

/** What the team may do with each model. */
export interface RateLimit {
  requestsPerMinute?: number;
  /** Of prompts, cached or not, and of everything generated. */
  tokensPerMinute?: number;
  /** Answers have `x-ratelimit-*`; the real service has not been seen to send them on its public host. */
  headers?: boolean;
  /** A refusal says when to come back; the real service often leaves that out. */
  retryAfter?: boolean;
}

interface Second {
  readonly second: number;
  requests: number;
  tokens: number;
}

const WINDOW_SECONDS = 60;

/** Counts by whole seconds over the last minute, per model. */
export class RateLimiter {
  private readonly secondsOf = new Map<string, Second[]>();
  private readonly nowMs: () => number;

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  /** Counts the request. @throws EmulatedRefusal 429, uncounted */
  admit(limit: RateLimit, modelId: string, promptTokens: number, response: ServerResponse): void {
    const { requestsPerMinute: requestsMax = Infinity, tokensPerMinute: tokensMax = Infinity } = limit;
    const window = this.windowOf(modelId);
    const requests = window.reduce((sum, second) => sum + second.requests, 0);
    const tokens = window.reduce((sum, second) => sum + second.tokens, 0);
    const requestFits = requests < requestsMax;
    const tokensFit = tokens + promptTokens <= tokensMax;
    const admitted = requestFits && tokensFit;
    if (limit.headers) {
      setLimitHeaders(response, 'requests', requestsMax, requestsMax - requests - (admitted ? 1 : 0));
      setLimitHeaders(response, 'tokens', tokensMax, tokensMax - tokens - (admitted ? promptTokens : 0));
    }
    if (!admitted && limit.retryAfter) response.setHeader('retry-after', this.secondsUntilSpace(window));
    if (!requestFits) throw tooManyRequests();
    if (!tokensFit) throw tooManyTokens(modelId, tokens + promptTokens, tokensMax);
    this.count(modelId, 1, promptTokens);
  }

  /** What has been generated, once it is known. */
  spend(modelId: string, tokens: number): void {
    if (this.secondsOf.has(modelId)) this.count(modelId, 0, tokens);
  }

  clear(): void {
    this.secondsOf.clear();
  }

  private count(modelId: string, requests: number, tokens: number): void {
    const window = this.windowOf(modelId);
    const second = this.second();
    const latest = window.at(-1);
    if (latest?.second === second) Object.assign(latest, { requests: latest.requests + requests, tokens: latest.tokens + tokens });
    else window.push({ second, requests, tokens });
    this.secondsOf.set(modelId, window);
  }

  private windowOf(modelId: string): Second[] {
    const window = this.secondsOf.get(modelId) ?? [];
    const begin = this.second() - WINDOW_SECONDS;
    while (window.length > 0 && window[0]!.second <= begin) window.shift();
    return window;
  }

  private secondsUntilSpace(window: readonly Second[]): number {
    return Math.max(1, (window[0]?.second ?? this.second()) + WINDOW_SECONDS - this.second());
  }

  private second(): number {
    return Math.floor(this.nowMs() / 1000);
  }
}

function setLimitHeaders(response: ServerResponse, kind: 'requests' | 'tokens', limit: number, remaining: number): void {
  if (limit === Infinity) return;
  response.setHeader(`x-ratelimit-limit-${kind}`, limit);
  response.setHeader(`x-ratelimit-remaining-${kind}`, Math.max(0, remaining));
}
