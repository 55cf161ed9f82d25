import { Controller, Get, HttpCode, Inject, Param, Post, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiParam, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { DataSource } from 'typeorm';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { TIER_NAMES, TIERS, type Tiers } from '../catalogue/tiers.ts';
import { ApiAnswers } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { Tenants } from '../tenants/tenants.ts';
import { Epochs } from './epochs.ts';
import { Retention, type RetentionRun } from './retention.ts';
import { firstKeptDay } from './retention-plan.ts';

const Time = Type.String({ format: 'date-time' });
const RunAnswer = Type.Object({
  id: Type.String(), started_at: Time, finished_at: Time, complete: Type.Boolean({ description: 'Whether nothing was left undone; it is tried again otherwise' }),
  summary: Type.Record(Type.String(), Type.Record(Type.String(), Type.Integer()), { description: 'What was ended, by step and kind' }),
});
const RetentionAnswer = Type.Object({
  tiers: Type.Record(Type.String(), Type.Object({ payload_retention_days: Type.Integer() })), last_run: Type.Union([RunAnswer, Type.Null()]),
});
const RotationAnswer = Type.Object({ tenant: Type.String(), epoch: Type.String(), data_keys_wrapped_anew: Type.Integer(), destroyed: Type.Array(Type.String()) });
const ORDER = /^(.+):rotate$/;

/** `/admin/v1/retention` and `/admin/v1/payload-keys`: how long stored text is kept, and by which keys. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1')
export class RetentionController {
  constructor(
    @Inject(Retention) private readonly retention: Retention,
    @Inject(Epochs) private readonly epochs: Epochs,
    @Inject(Tenants) private readonly tenants: Tenants,
    @Inject(DataSource) private readonly dataSource: DataSource,
    @Inject(TIERS) private readonly tiers: Tiers,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get('retention')
  @Roles('auditor')
  @ApiAnswers(200, RetentionAnswer, [403])
  async get(): Promise<Static<typeof RetentionAnswer>> {
    const last = await this.retention.lastRun();
    const tiers = Object.fromEntries(TIER_NAMES.map((tier) => [tier, { payload_retention_days: this.tiers[tier].payload_retention_days }]));
    return { tiers, last_run: last === undefined ? null : runView(last) };
  }

  @Post('retention::run')
  @HttpCode(200)
  @Roles()
  @ApiAnswers(200, RunAnswer, [403])
  async run(@Req() request: FastifyRequest): Promise<Static<typeof RunAnswer>> {
    const view = runView(await this.retention.run());
    await this.#record(request, { type: 'retention_run', id: view.id }, null, view);
    return view;
  }

  /** Without waiting for anything to expire: after a root may have been seen, or a backup was put back. */
  @Post('payload-keys/:order')
  @HttpCode(200)
  @Roles()
  @ApiParam({ name: 'order', description: '<tenant>:rotate makes a new key pair, wraps the data keys for it, and destroys the old one' })
  @ApiAnswers(200, RotationAnswer, [403, 404])
  async order(@Req() request: FastifyRequest, @Param('order') text: string): Promise<Static<typeof RotationAnswer>> {
    const [, id] = ORDER.exec(text) ?? [];
    if (id === undefined) throw new GatewayError('not_found', { publicMessage: 'Payload keys take <tenant>:rotate.' });
    const { tier } = await this.tenants.find(id);
    const rotation = await this.epochs.rotate(id, firstKeptDay(this.clock.nowMs(), this.tiers[tier].payload_retention_days));
    if (rotation === undefined) throw new GatewayError('not_found', { publicMessage: 'This tenant has no payload keys yet: they are made with the first text that is stored.' });
    const destroyed = await this.epochs.destroyRetired(id);
    const epoch = rotation.epochId ?? (await this.epochs.current(id)).id;
    await this.#record(request, { type: 'payload_epoch', id: epoch }, { epoch: rotation.retiredEpochId }, { epoch, data_keys_wrapped_anew: rotation.rewrapped, destroyed });
    return { tenant: id, epoch, data_keys_wrapped_anew: rotation.rewrapped, destroyed };
  }

  /** Who asked for it; what was done to keys has receipts of its own, in the commits that did it. */
  async #record(request: FastifyRequest, object: { type: string; id: string }, before: unknown, after: unknown): Promise<void> {
    await this.dataSource.transaction((manager) => recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'update', object, before, after }));
  }
}

function runView({ id, startedAt, finishedAt, complete, summary }: RetentionRun): Static<typeof RunAnswer> {
  return { id, started_at: startedAt.toISOString(), finished_at: finishedAt.toISOString(), complete, summary: summary as Static<typeof RunAnswer>['summary'] };
}
