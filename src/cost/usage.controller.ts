import { Controller, Get, Inject, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiQuery, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { DataSource } from 'typeorm';
import { Type } from 'typebox';
import { Roles } from '../auth/route-access.ts';
import { visibleTenant } from '../auth/scope.ts';
import { ApiAnswers } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { parseTime } from '../shared/time-text.ts';
import { formatUsd } from '../shared/usd-ticks.ts';

const DAY_MS = 86_400_000;
const STEPS = ['minute', 'hour', 'day'] as const;
type Step = (typeof STEPS)[number];
/** A finer step reaches less far, so that no answer is endless. */
const RANGE_MAX_MS: Record<Step, number> = { minute: DAY_MS, hour: 31 * DAY_MS, day: 366 * DAY_MS };
const RANGE_DEFAULT_MS: Record<Step, number> = { minute: 3_600_000, hour: DAY_MS, day: 30 * DAY_MS };
const GROUPS = { tenant: 'tenant_id', team: 'team', model: 'model', deployment: 'deployment' } as const;
type Group = keyof typeof GROUPS;
const ROWS_MAX = 20_000;

const Count = Type.Integer({ minimum: 0 });
export const UsageAnswer = Type.Object({
  data: Type.Array(Type.Object({
    start: Type.String({ format: 'date-time' }), tenant: Type.Optional(Type.String()), team: Type.Optional(Type.Union([Type.String(), Type.Null()])), model: Type.Optional(Type.String()), deployment: Type.Optional(Type.String()),
    calls: Count, input_tokens: Count, cached_tokens: Count, output_tokens: Count, cost_usd: Type.String({ description: 'Decimal string of USD' }),
  })),
  next_cursor: Type.Null(),
});

interface UsageRow {
  start: Date;
  calls: string;
  input_tokens: string;
  cached_tokens: string;
  output_tokens: string;
  cost_ticks: string;
  [group: string]: unknown;
}

/** `GET /admin/v1/usage`: what was used and what it cost, as a series of time. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/usage')
@Roles('tenant-admin', 'billing')
export class UsageController {
  constructor(
    @Inject(DataSource) private readonly dataSource: DataSource,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get()
  @ApiQuery({ name: 'from', required: false, schema: { type: 'string', format: 'date-time' } })
  @ApiQuery({ name: 'to', required: false, schema: { type: 'string', format: 'date-time' } })
  @ApiQuery({ name: 'step', required: false, schema: { type: 'string', enum: [...STEPS], default: 'hour' } })
  @ApiQuery({ name: 'group_by', required: false, schema: { type: 'string' }, description: 'tenant, team, model, deployment; several with commas' })
  @ApiAnswers(200, UsageAnswer, [400, 403])
  async series(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const { fromMs, toMs, step, groups } = this.#read(query);
    const columns = groups.map((group) => GROUPS[group]);
    const keys = [`date_trunc('${step}', start, 'UTC')`, ...columns];
    const rows = await this.dataSource.query<UsageRow[]>(
      `SELECT ${keys[0]!} AS start, ${columns.map((column) => `${column}, `).join('')}sum(calls) AS calls, sum(input_tokens) AS input_tokens, sum(cached_tokens) AS cached_tokens,
         sum(output_tokens) AS output_tokens, sum(cost_ticks) AS cost_ticks
       FROM usage_minutes WHERE start >= $1 AND start < $2 AND ($3::text IS NULL OR tenant_id = $3)
       GROUP BY ${keys.map((_, index) => index + 1).join(', ')} ORDER BY ${keys.map((_, index) => index + 1).join(', ')} LIMIT ${ROWS_MAX + 1}`,
      [new Date(fromMs), new Date(toMs), visibleTenant(request.principal!) ?? null]);
    if (rows.length > ROWS_MAX) throw invalid('from', `would give more than ${ROWS_MAX} rows; ask for a shorter time, a longer step, or fewer groups`);
    return { data: rows.map((row) => usageView(row, groups)), next_cursor: null };
  }

  #read(query: Record<string, unknown>): { fromMs: number; toMs: number; step: Step; groups: Group[] } {
    const unknown = Object.keys(query).find((name) => !['from', 'to', 'step', 'group_by'].includes(name));
    if (unknown !== undefined) throw invalid(unknown.slice(0, 64), 'is not known here; from, to, step and group_by are');
    const step = (query['step'] ?? 'hour') as Step;
    if (!STEPS.includes(step)) throw invalid('step', `takes one of ${STEPS.join(', ')}`);
    const toMs = readTime(query, 'to') ?? this.clock.nowMs() + 60_000;
    const fromMs = readTime(query, 'from') ?? toMs - RANGE_DEFAULT_MS[step];
    if (fromMs >= toMs) throw invalid('from', 'has to be before to');
    if (toMs - fromMs > RANGE_MAX_MS[step] + 60_000) throw invalid('from', `is too long ago: a step of a ${step} reaches ${RANGE_MAX_MS[step] / DAY_MS} days`);
    const groupBy = query['group_by'] ?? '';
    const groups = groupBy === '' ? [] : typeof groupBy === 'string' ? groupBy.split(',') : ['given twice'];
    const wrong = groups.find((group) => !Object.hasOwn(GROUPS, group));
    if (wrong !== undefined || new Set(groups).size !== groups.length) throw invalid('group_by', `takes ${Object.keys(GROUPS).join(', ')}, each once`);
    return { fromMs, toMs, step, groups: groups as Group[] };
  }
}

function usageView(row: UsageRow, groups: readonly Group[]): Record<string, unknown> {
  return {
    start: row.start.toISOString(),
    ...Object.fromEntries(groups.map((group) => [group, group === 'team' && row[GROUPS[group]] === '' ? null : row[GROUPS[group]]])),
    calls: Number(row.calls), input_tokens: Number(row.input_tokens), cached_tokens: Number(row.cached_tokens), output_tokens: Number(row.output_tokens), cost_usd: formatUsd(BigInt(row.cost_ticks)),
  };
}

function readTime(query: Record<string, unknown>, name: string): number | undefined {
  const text = query[name];
  if (text === undefined) return undefined;
  const timeMs = typeof text === 'string' ? parseTime(text) : undefined;
  if (timeMs === undefined) throw invalid(name, 'takes a time such as 2026-11-24T12:00:00Z');
  return timeMs;
}

function invalid(param: string, what: string): GatewayError {
  return new GatewayError('invalid_request', { publicMessage: `${param} ${what}.`, param });
}
