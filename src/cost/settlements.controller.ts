import { Controller, Get, HttpCode, Inject, Param, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiParam, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { visibleTenant } from '../auth/scope.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { plainText } from '../shared/plain-text.ts';
import { formatUsd, parseUsd } from '../shared/usd-ticks.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { Settlements, type SettlementRow } from './settlements.ts';

const Usd = Type.String({ pattern: '^\\d{1,9}(\\.\\d{1,10})?$', description: 'Decimal string of USD, such as "0.0125"' });
const Time = Type.String({ format: 'date-time' });
const ReconciliationBody = Type.Object({ charged_usd: Usd, reason: plainText(500, 'Where the figure comes from, such as an invoice; goes on record') }, { additionalProperties: false });
const SettlementAnswer = Type.Object({
  id: Type.String(), request_id: Type.String(), tenant: Type.String(), state: Type.String(), basis: Type.String(), outcome: Type.String(), model: Type.String(), deployment: Type.String(),
  held_usd: Usd, charged_usd: Usd, started_at: Time, finished_at: Time,
});
const ORDER = /^(.+):reconcile$/;

const reconciliation = new ValidatedBody(ReconciliationBody);

/** `/admin/v1/settlements`: charges without the provider's word for them, and their correction. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/settlements')
export class SettlementsController {
  constructor(
    @Inject(Settlements) private readonly settlements: Settlements,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get()
  @Roles('tenant-admin', 'billing')
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(SettlementAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    return toPage(await this.settlements.listUncertain(page, visibleTenant(request.principal!)), page.limit, settlementView);
  }

  /** The platform's own alone: a tenant does not write its own bill. */
  @Post(':order')
  @HttpCode(200)
  @Roles()
  @ApiParam({ name: 'order', description: '<id>:reconcile replaces the charge by what the call did cost' })
  @ApiJsonBody(ReconciliationBody)
  @ApiAnswers(200, SettlementAnswer, [400, 403, 404])
  async order(@Req() request: FastifyRequest, @Param('order') text: string): Promise<Record<string, unknown>> {
    const { charged_usd: chargedUsd, reason } = await reconciliation.read(request);
    const [, id] = ORDER.exec(text) ?? [];
    if (id === undefined) throw new GatewayError('not_found', { publicMessage: 'Settlements take <id>:reconcile.' });
    const ticks = parseUsd(chargedUsd);
    if (ticks === undefined) throw new GatewayError('invalid_request', { publicMessage: 'charged_usd is more than the ledger can hold.', param: 'charged_usd' });
    const settled = await this.settlements.reconcile(id, ticks, (manager, before, after) =>
      recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'update', object: { type: 'settlement', id }, before: settlementView(before), after: { ...settlementView(after), reason } }));
    return settlementView(settled);
  }
}

function settlementView({ tenant_id: tenant, held_ticks: held, charged_ticks: charged, started_at: startedAt, finished_at: finishedAt, ...row }: SettlementRow): Record<string, unknown> {
  return { ...row, tenant, held_usd: formatUsd(BigInt(held)), charged_usd: formatUsd(BigInt(charged)), started_at: startedAt.toISOString(), finished_at: finishedAt.toISOString() };
}
