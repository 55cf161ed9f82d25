import { SetMetadata, type CustomDecorator } from '@nestjs/common';

/** What a route asks of the caller: nothing, a call permission decided in the pipeline, or one of these roles. */
export type RouteAccess = { kind: 'public' } | { kind: 'invoke' } | { kind: 'roles'; roles: readonly string[] };

export const ROUTE_ACCESS = 'novix:route-access';

/** Open to anyone. Every use needs a reason beside it. */
export const Public = (): CustomDecorator => SetMetadata(ROUTE_ACCESS, { kind: 'public' } satisfies RouteAccess);

/** Authenticated; what may be called is decided in the pipeline, by policy. */
export const Invoke = (): CustomDecorator => SetMetadata(ROUTE_ACCESS, { kind: 'invoke' } satisfies RouteAccess);

/** Authenticated, with one of these roles; `platform-admin` is always enough. */
export const Roles = (...roles: string[]): CustomDecorator => SetMetadata(ROUTE_ACCESS, { kind: 'roles', roles } satisfies RouteAccess);
