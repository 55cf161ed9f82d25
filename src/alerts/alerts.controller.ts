import { Controller, Get, Inject, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiQuery, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { DataSource } from 'typeorm';
import { Type } from 'typebox';
import { Roles } from '../auth/route-access.ts';
import { visibleTenant } from '../auth/scope.ts';
import { ApiAnswers, ApiPage } from '../openapi/documented.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { assertUuid } from '../shared/uuid-text.ts';
import { ALERT_TYPES } from './alerts.ts';

const Time = Type.String({ format: 'date-time' });
const STATES = ['firing', 'resolved'] as const;
export const AlertAnswer = Type.Object({
  id: Type.String(), type: oneOf(ALERT_TYPES), tenant: Type.Union([Type.String(), Type.Null()]), subject: Type.String(), state: oneOf(STATES), at: Time, resolved_at: Type.Union([Time, Type.Null()]), value: Type.String(),
});

interface AlertRow {
  id: string;
  type: string;
  tenant_id: string | null;
  subject: string;
  state: string;
  value: string;
  fired_at: Date;
  resolved_at: Date | null;
}

/** `GET /admin/v1/alerts`: what people should know, oldest first. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/alerts')
@Roles('tenant-admin', 'billing')
export class AlertsController {
  constructor(@Inject(DataSource) private readonly dataSource: DataSource) {}

  @Get()
  @ApiPage()
  @ApiQuery({ name: 'state', required: false, schema: { type: 'string', enum: [...STATES] } })
  @ApiAnswers(200, Type.Object({ data: Type.Array(AlertAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const { limit, after } = readPage(query);
    const { state } = query;
    if (state !== undefined && !(STATES as readonly unknown[]).includes(state)) throw new GatewayError('invalid_request', { publicMessage: `state takes one of ${STATES.join(', ')}.`, param: 'state' });
    const rows = await this.dataSource.query<AlertRow[]>(
      `SELECT id, type, tenant_id, subject, state, value, fired_at, resolved_at FROM alerts
       WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR id > $2) AND ($3::text IS NULL OR state = $3) ORDER BY id LIMIT $4`,
      [visibleTenant(request.principal!) ?? null, after === undefined ? null : assertUuid(after), state ?? null, limit + 1]);
    return toPage(rows, limit, alertView);
  }
}

function alertView({ id, type, tenant_id: tenant, subject, state, value, fired_at: firedAt, resolved_at: resolvedAt }: AlertRow): Record<string, unknown> {
  return { id, type, tenant, subject, state, at: firedAt.toISOString(), resolved_at: resolvedAt?.toISOString() ?? null, value };
}
