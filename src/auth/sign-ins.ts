import type { FastifyRequest } from 'fastify';
import { actorOf } from '../audit/audit-event.ts';
import type { Refusals } from '../audit/refusals.ts';
import { clientIp } from '../shared/client-ip.ts';
import type { Clock } from '../shared/clock.ts';
import { routeOf } from '../shared/route-of.ts';
import { uuid } from '../shared/uuid.ts';
import type { Principal } from './principal.ts';

/** Credentials that are known to have been seen; the one seen first is forgotten first, and would be recorded again. */
const SEEN_MAX = 100_000;

/**
 * The gateway knows no sessions: somebody signs in when a credential is accepted here for the first time. That is recorded once a replica and credential,
 * and nobody waits for it, since each call has a record of its own.
 */
export class SignIns {
  /** Principals are one object for as long as their token is cached: the usual case costs one look-up. */
  readonly #principals = new WeakSet<Principal>();
  readonly #credentials = new Set<string>();

  constructor(
    private readonly refusals: Pick<Refusals, 'record'>,
    private readonly clock: Clock,
  ) {}

  see(principal: Principal, request: FastifyRequest): void {
    if (this.#principals.has(principal)) return;
    this.#principals.add(principal);
    const credential = `${principal.issuer} ${principal.tokenId} ${principal.certificate?.fingerprint ?? ''}`;
    if (this.#credentials.has(credential)) return;
    if (this.#credentials.size >= SEEN_MAX) this.#credentials.delete(this.#credentials.values().next().value!);
    this.#credentials.add(credential);
    const id = uuid();
    this.refusals.record({
      id, phase: 'change', timeMs: this.clock.nowMs(), requestId: id, actor: actorOf(principal), operation: routeOf(request)!, ip: clientIp(request),
      httpStatus: 200, errorCode: undefined, activity: 'create', authentication: principal.keyId === undefined ? 'oauth2' : 'api_key',
      details: { sign_in: { first_request: request.id, roles: principal.roles, mtls: principal.mtls, client_certificate: principal.certificate?.fingerprint, expires_at: timeText(principal.expiresAtMs) } },
    });
  }
}

/** Some credentials end when they are revoked, and not before. */
function timeText(timeMs: number): string | undefined {
  return Number.isFinite(timeMs) ? new Date(timeMs).toISOString() : undefined;
}
