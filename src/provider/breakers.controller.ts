import { Controller, Get, HttpCode, Inject, Param, Post, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiParam, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { ApiAnswers } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { Breakers, type BreakerView } from './breakers.ts';

const BreakerAnswer = Type.Object({
  deployment: Type.String(), model: Type.String(), state: oneOf(['closed', 'open', 'half_open']), failures: Type.Integer({ minimum: 0 }),
  open_until: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]), forced: Type.Boolean({ description: 'Whether an admin opened it, until a reset' }),
});
/** An id, and after the last colon what to do. */
const ORDER = /^(.+):(force-open|reset)$/;

/** `/admin/v1/breakers`: which deployments are thought to be down, as this replica sees it. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/breakers')
@Roles('platform-admin')
export class BreakersController {
  constructor(
    @Inject(Breakers) private readonly breakers: Breakers,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get()
  @ApiAnswers(200, Type.Array(BreakerAnswer), [403])
  list(): BreakerView[] {
    return this.breakers.list();
  }

  @Post(':order')
  @HttpCode(200)
  @ApiParam({ name: 'order', description: '<deployment>:force-open keeps it open until a reset; <deployment>:reset closes it' })
  @ApiAnswers(200, BreakerAnswer, [403, 404])
  async order(@Req() request: FastifyRequest, @Param('order') text: string): Promise<BreakerView> {
    const [, deployment, order] = ORDER.exec(text) ?? [];
    if (deployment === undefined) throw new GatewayError('not_found', { publicMessage: 'Breakers take <deployment>:force-open and <deployment>:reset.' });
    return this.breakers.order(deployment, order as 'force-open' | 'reset', (manager, before, after) =>
      recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'update', object: { type: 'breaker', id: deployment }, before, after }));
  }
}
