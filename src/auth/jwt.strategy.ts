import { Inject, Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import { Strategy } from 'passport-jwt';
import { invalidToken } from '../shared/gateway-error.ts';
import { TenantDirectory } from '../tenants/tenant-directory.ts';
import { bearerToken } from './bearer-token.ts';
import type { Principal } from './principal.ts';
import { toPrincipal, type TokenClaims } from './token-claims.ts';
import { TokenVerifier } from './token-verifier.ts';

// passport-jwt verifies through jsonwebtoken, which knows neither key sets nor EdDSA. Its seam for another verifier is a static; the
// strategy instance's own verifier comes through the "key", so that two gateways in one process do not share it.
(Strategy as unknown as { JwtVerifier: unknown }).JwtVerifier = (
  token: string, verifier: TokenVerifier, _options: unknown, done: (error: unknown, claims?: TokenClaims) => void,
): void => {
  verifier.verify(token).then((claims) => done(null, claims), done);
};

/** Passport's `jwt` strategy: from a bearer token to a principal. */
@Injectable()
export class JwtStrategy extends PassportStrategy(Strategy) {
  constructor(
    @Inject(TokenVerifier) verifier: TokenVerifier,
    @Inject(TenantDirectory) private readonly tenants: TenantDirectory,
  ) {
    super({
      jwtFromRequest: bearerToken as never, // typed for Express; only the headers are read
      secretOrKeyProvider: (_request: unknown, _token: unknown, done: (error: null, key: TokenVerifier) => void) => done(null, verifier),
    } as never);
  }

  /** Called with verified claims. A token that names an unknown tenant is as bad as a forged one. */
  async validate(claims: TokenClaims): Promise<Principal> {
    const tenant = await this.tenants.find(claims.tenant);
    if (!tenant) throw invalidToken({ reason: 'unknown tenant', tenant: claims.tenant });
    return toPrincipal(claims, tenant);
  }
}
