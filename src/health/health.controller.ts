import { Controller, Get, HttpException, Inject, Res } from '@nestjs/common';
import { ApiOkResponse, ApiServiceUnavailableResponse, ApiTags } from '@nestjs/swagger';
import { HealthCheckService, HealthIndicatorService, type HealthCheckResult, type HealthIndicatorResult } from '@nestjs/terminus';
import type { FastifyReply } from 'fastify';
import { Public } from '../auth/route-access.ts';
import { Health } from './health.ts';

/** Probes of Kubernetes and of load balancers. Public: a probe has no token, and they say nothing but up or down. */
@ApiTags('operations')
@Controller()
@Public()
export class HealthController {
  constructor(
    @Inject(HealthCheckService) private readonly checks: HealthCheckService,
    @Inject(HealthIndicatorService) private readonly indicators: HealthIndicatorService,
    @Inject(Health) private readonly health: Health,
  ) {}

  /** Whether the event loop turns; a process that cannot answer this is restarted. */
  @Get(['livez', 'health/liveliness'])
  @ApiOkResponse({ description: 'Alive' })
  live(): { status: 'ok' } {
    return { status: 'ok' };
  }

  /** Whether to send requests here. */
  @Get(['readyz', 'health/readiness'])
  @ApiOkResponse({ description: 'Ready' })
  @ApiServiceUnavailableResponse({ description: 'Not ready; the body says why' })
  async ready(@Res({ passthrough: true }) reply: FastifyReply): Promise<HealthCheckResult> {
    return this.#check(reply, [
      () => this.#indicator('started', this.health.started),
      () => this.#indicator('serving', !this.health.draining),
      () => this.#indicator('database', this.health.database()),
      () => this.#indicator('policies', this.health.policies()),
      () => this.#indicator('secrets', this.health.secrets()),
      async () => this.#indicator('identity', await this.health.identity()),
    ]);
  }

  /** Whether the start is over; until then the other probes do not count. */
  @Get('startupz')
  @ApiOkResponse({ description: 'Started' })
  @ApiServiceUnavailableResponse({ description: 'Still starting' })
  async startup(@Res({ passthrough: true }) reply: FastifyReply): Promise<HealthCheckResult> {
    return this.#check(reply, [() => this.#indicator('started', this.health.started)]);
  }

  async #check(reply: FastifyReply, indicators: (() => HealthIndicatorResult | Promise<HealthIndicatorResult>)[]): Promise<HealthCheckResult> {
    reply.header('cache-control', 'no-store');
    try {
      return await this.checks.check(indicators);
    } catch (error) {
      // Terminus reports "down" by an exception; to a probe that is an answer, not an error.
      if (!(error instanceof HttpException)) throw error;
      reply.code(error.getStatus());
      return error.getResponse() as HealthCheckResult;
    }
  }

  #indicator(name: string, up: boolean): HealthIndicatorResult {
    const session = this.indicators.check(name);
    return up ? session.up() : session.down();
  }
}
