import { Injectable, type ExecutionContext } from '@nestjs/common';
import { ThrottlerGuard, type ThrottlerLimitDetail } from '@nestjs/throttler';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { GatewayError } from '../shared/gateway-error.ts';

/** Step 2 of a request's life: requests per minute of the tenant's tier. Runs after the auth guard; public routes have no tenant to count. */
@Injectable()
export class TenantThrottlerGuard extends ThrottlerGuard {
  protected override async shouldSkip(context: ExecutionContext): Promise<boolean> {
    return context.switchToHttp().getRequest<FastifyRequest>().principal === undefined;
  }

  protected override async handleRequest(props: Parameters<ThrottlerGuard['handleRequest']>[0]): Promise<boolean> {
    const { context, limit, ttl, blockDuration, throttler } = props;
    const http = context.switchToHttp();
    const { tenantId } = http.getRequest<FastifyRequest>().principal!;
    const record = await this.storageService.increment(tenantId, ttl, limit, blockDuration, throttler.name!);
    const reply = http.getResponse<FastifyReply>();
    reply.header('x-ratelimit-limit-requests', limit);
    reply.header('x-ratelimit-remaining-requests', Math.max(0, limit - record.totalHits));
    reply.header('x-ratelimit-reset-requests', `${record.timeToExpire}s`);
    if (record.isBlocked) await this.throwThrottlingException(context, { ...record, limit, ttl, key: tenantId, tracker: tenantId });
    return true;
  }

  protected override async throwThrottlingException(_context: ExecutionContext, detail: ThrottlerLimitDetail): Promise<void> {
    throw new GatewayError('rate_limit_exceeded', {
      publicMessage: `The tenant's limit of ${detail.limit} requests per minute is reached. Try again after the time in retry-after.`,
      retryAfterSeconds: Math.max(1, detail.timeToBlockExpire),
    });
  }
}
