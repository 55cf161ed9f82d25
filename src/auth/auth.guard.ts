import { Inject, Injectable, type ExecutionContext } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { AuthGuard as PassportAuthGuard } from '@nestjs/passport';
import type { FastifyRequest } from 'fastify';
import { clientIp } from '../shared/client-ip.ts';
import passport from 'passport';
import { TIERS, type Tiers } from '../catalogue/tiers.ts';
import { ENV } from '../env.ts';
import type { Env } from '../env.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { Gcra } from '../shared/gcra.ts';
import { GatewayError, invalidToken } from '../shared/gateway-error.ts';
import { onlyHybrid } from '../shared/tls-groups.ts';
import { uuid } from '../shared/uuid.ts';
import { AccessRules } from './access-rules.ts';
import { ApiKeys } from './api-keys.ts';
import { ClientCertificates } from './client-certificates.ts';
import { bearerToken } from './bearer-token.ts';
import { JwtStrategy } from './jwt.strategy.ts';
import type { ClientCertificate, Principal } from './principal.ts';
import { roleDenied } from './role-denied.ts';
import { ROUTE_ACCESS, type RouteAccess } from './route-access.ts';
import { SignIns } from './sign-ins.ts';
import { VerifiedTokens } from './verified-tokens.ts';

/** Addresses whose failures are counted at once. */
const ADDRESSES_MAX = 10_000;

/** Step 1 of a request's life, on every route: who is calling. A route that declares no access is closed. */
@Injectable()
export class AuthGuard extends PassportAuthGuard() {
  readonly #accessByHandler = new WeakMap<object, RouteAccess>();
  readonly #failures = new Gcra(ADDRESSES_MAX);

  constructor(
    @Inject(Reflector) private readonly reflector: Reflector,
    @Inject(VerifiedTokens) private readonly verifiedTokens: VerifiedTokens,
    @Inject(ApiKeys) private readonly apiKeys: ApiKeys,
    @Inject(AccessRules) private readonly rules: AccessRules,
    @Inject(ClientCertificates) private readonly certificates: ClientCertificates,
    @Inject(TIERS) private readonly tiers: Tiers,
    @Inject(SignIns) private readonly signIns: SignIns,
    @Inject(CLOCK) private readonly clock: Clock,
    @Inject(ENV) private readonly env: Env,
    @Inject(JwtStrategy) strategy: JwtStrategy,
  ) {
    // Passport looks strategies up by name, in a registry that all gateways of a process share, so each gateway's has a name of its own. The instance
    // itself must not be handed over: passport would hang one request's callbacks on it while another's are still to be called.
    const name = `jwt-${uuid()}`;
    passport.use(name, strategy as never);
    super({ defaultStrategy: name });
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const access = this.#access(context);
    if (access.kind === 'public') return true;
    const request = context.switchToHttp().getRequest<FastifyRequest>();
    try {
      const certificate = this.certificates.of(request);
      const principal = await this.#authenticate(request, context, certificate);
      this.rules.assertFresh();
      if (this.rules.isRevoked(principal)) throw invalidToken({ reason: 'revoked', tokenId: principal.tokenId });
      this.#assertBinding(principal, certificate);
      request.principal = principal;
      this.signIns.see(principal, request);
    } catch (error) {
      throw error instanceof GatewayError && error.code === 'invalid_token' ? this.#afterFailure(clientIp(request), error) : error;
    }
    this.#assertGroups(request.principal);
    if (access.kind === 'roles') assertRole(request.principal, access.roles);
    return true;
  }

  /** Passport reports failures here; they come from the strategy as gateway errors already, or as "no token". */
  override handleRequest<User>(error: unknown, user: User | false, info: unknown): User {
    if (error) throw error;
    if (info instanceof GatewayError) throw info;
    if (!user) throw invalidToken({ reason: info instanceof Error ? info.message : 'no token' });
    return user;
  }

  async #authenticate(request: FastifyRequest, context: ExecutionContext, certificate: ClientCertificate | undefined): Promise<Principal> {
    const token = bearerToken(request);
    // The same token is another principal with a certificate than without.
    const credential = token === null ? undefined : certificate === undefined ? token : `${token} ${certificate.fingerprint}`;
    const known = credential === undefined ? undefined : this.verifiedTokens.find(credential, this.clock.nowMs());
    if (known !== undefined) return known;
    const { revision } = this.rules;
    const verified = token !== null && ApiKeys.isKey(token) ? await this.apiKeys.verify(token) : await this.#verifyJwt(request, context);
    const principal = certificate === undefined ? verified : { ...verified, mtls: true, certificate };
    // What was read while something changed may be what it was before.
    if (revision === this.rules.revision) this.verifiedTokens.remember(credential!, principal);
    return principal;
  }

  /** RFC 8705: a token that names a certificate comes with that one. An API key cannot name one, so where tokens must, it comes with any that is verified. */
  #assertBinding({ boundTo, mustBeBound, tier, keyId }: Principal, certificate: ClientCertificate | undefined): void {
    if (boundTo !== undefined) {
      if (boundTo !== certificate?.fingerprint) throw invalidToken({ reason: 'bound to another client certificate' });
      return;
    }
    const required = mustBeBound === true || (tier === 'government' && this.env.tls !== undefined);
    if (required && (keyId === undefined || certificate === undefined)) throw invalidToken({ reason: 'not bound to a client certificate' });
  }

  /** Some tenants' data must stay secret longer than today's key exchange does. */
  #assertGroups({ tier, tenantId }: Principal): void {
    if (this.env.tls === undefined || this.tiers[tier].tls_groups !== 'hybrid' || onlyHybrid(this.env.tls.groups)) return;
    throw roleDenied('This tenant is served over hybrid post-quantum TLS only, and this gateway accepts other groups too (TLS_GROUPS).', { tenant: tenantId });
  }

  async #verifyJwt(request: FastifyRequest, context: ExecutionContext): Promise<Principal> {
    await super.canActivate(context);
    return (request as FastifyRequest & { user: Principal }).user;
  }

  /** Who fails too often from one address is told to slow down. Whoever brings a good token from there is let in all the same. */
  #afterFailure(ip: string, error: GatewayError): GatewayError {
    const limit = this.env.authFailuresPerMinute;
    const { allowed, retryAfterMs } = this.#failures.hit(ip, limit, limit, this.clock.monotonicMs());
    if (allowed) return error;
    return new GatewayError('rate_limit_exceeded', { publicMessage: 'Too many failed authentications from this address. Get a valid token, and try again later.', retryAfterSeconds: retryAfterMs / 1_000, cause: error });
  }

  #access(context: ExecutionContext): RouteAccess {
    const handler = context.getHandler();
    let access = this.#accessByHandler.get(handler);
    if (access === undefined) {
      access = this.reflector.getAllAndOverride<RouteAccess | undefined>(ROUTE_ACCESS, [handler, context.getClass()]) ?? { kind: 'roles', roles: [] };
      this.#accessByHandler.set(handler, access);
    }
    return access;
  }
}

function assertRole(principal: Principal, roles: readonly string[]): void {
  if (principal.roles.includes('platform-admin') || roles.some((role) => principal.roles.includes(role))) return;
  const needed = roles.length === 0 ? 'the role platform-admin' : `one of the roles ${['platform-admin', ...roles].join(', ')}`;
  throw roleDenied(`This needs ${needed}.`, { subject: principal.subject });
}
