import { Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import type { Principal } from '../auth/principal.ts';
import { roleDenied } from '../auth/role-denied.ts';
import { Roles } from '../auth/route-access.ts';
import { visibleTenant } from '../auth/scope.ts';
import { Catalogue } from '../catalogue/catalogue.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { plainText } from '../shared/plain-text.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { formatUsd, parseUsd, TICKS_MAX } from '../shared/usd-ticks.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { BUDGET_SCOPES, BUDGET_WINDOWS, scopeKey } from './budget-scope.ts';
import { budgetView, type Budget } from './budget.ts';
import { Budgets } from './budgets.ts';
import { oneOf } from '../shared/one-of.ts';

const Usd = Type.String({ pattern: '^\\d{1,9}(\\.\\d{1,10})?$', description: 'Decimal string of USD, such as "12.50"' });
const WarnAt = Type.Array(Type.Number({ exclusiveMinimum: 0, maximum: 1 }), { maxItems: 10, description: 'Shares of the limit at which to warn' });
const Scope = Type.Object({
  type: oneOf(BUDGET_SCOPES),
  id: Type.Optional(plainText(256, 'Which team, user, key or model; none for the tenant')),
}, { additionalProperties: false });
const Window = oneOf(BUDGET_WINDOWS);

export const NewBudgetBody = Type.Object({
  tenant: plainText(63), scope: Scope, window: Window, limit_usd: Usd, warn_at: Type.Optional(WarnAt),
}, { additionalProperties: false });
export const BudgetPatchBody = Type.Object({ limit_usd: Type.Optional(Usd), warn_at: Type.Optional(WarnAt) }, { additionalProperties: false, minProperties: 1 });
export const BudgetAnswer = Type.Object({
  id: Type.String(), tenant: Type.String(), scope: Scope, window: Window, limit_usd: Usd, warn_at: WarnAt, spent_usd: Usd, held_usd: Usd, remaining_usd: Usd,
  resets_at: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]), created_at: Type.String({ format: 'date-time' }), updated_at: Type.String({ format: 'date-time' }),
});

const newBudget = new ValidatedBody(NewBudgetBody);
const budgetPatch = new ValidatedBody(BudgetPatchBody);

/** `/admin/v1/budgets`: what a tenant, or a part of one, may spend. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/budgets')
export class BudgetsController {
  constructor(
    @Inject(Budgets) private readonly budgets: Budgets,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('tenant-admin')
  @ApiJsonBody(NewBudgetBody)
  @ApiAnswers(201, BudgetAnswer, [400, 403, 404, 409])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const body = await newBudget.read(request);
    const scope = scopeKey(body.scope);
    // A budget that no call can ever count toward would look as if it limited something.
    if (body.scope.type === 'model' && this.catalogue.resolve(body.scope.id!)?.name !== body.scope.id) {
      throw new GatewayError('invalid_request', { publicMessage: `No call counts toward a model ${JSON.stringify(body.scope.id)}: budgets of models go by alias, or by the id of a model without one.`, param: 'scope.id' });
    }
    assertMayChange(request.principal!, body.tenant, scope);
    const nowMs = this.clock.nowMs();
    const created = await this.budgets.create(
      { tenantId: body.tenant, scope, window: body.window, limitTicks: readLimit(body.limit_usd), warnAt: (body.warn_at ?? []).map(String) }, nowMs,
      (manager, budget) => recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'create', object: { type: 'budget', id: budget.id }, before: null, after: budgetView(budget, nowMs) }),
    );
    return budgetView(created, nowMs);
  }

  @Get()
  @Roles('tenant-admin', 'billing')
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(BudgetAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    const nowMs = this.clock.nowMs();
    return toPage(await this.budgets.list(page, visibleTenant(request.principal!)), page.limit, (budget: Budget) => budgetView(budget, nowMs));
  }

  @Get(':id')
  @Roles('tenant-admin', 'billing')
  @ApiAnswers(200, BudgetAnswer, [403, 404])
  async get(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    return budgetView(await this.budgets.find(id, visibleTenant(request.principal!)), this.clock.nowMs());
  }

  @Patch(':id')
  @Roles('tenant-admin')
  @ApiJsonBody(BudgetPatchBody)
  @ApiAnswers(200, BudgetAnswer, [400, 403, 404])
  async update(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    const { limit_usd: limitUsd, warn_at: warnAt } = await budgetPatch.read(request);
    const budget = await this.budgets.find(id, visibleTenant(request.principal!));
    assertMayChange(request.principal!, budget.tenantId, budget.scope);
    const nowMs = this.clock.nowMs();
    const change = { ...(limitUsd === undefined ? {} : { limitTicks: readLimit(limitUsd) }), ...(warnAt === undefined ? {} : { warnAt: warnAt.map(String) }) };
    const updated = await this.budgets.update(id, change, (manager, before, after) =>
      recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'update', object: { type: 'budget', id }, before: budgetView(before, nowMs), after: budgetView(after, nowMs) }));
    return budgetView(updated, nowMs);
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('tenant-admin')
  @ApiAnswers(204, Type.Null(), [400, 403, 404])
  async remove(@Req() request: FastifyRequest, @Param('id') id: string): Promise<void> {
    const budget = await this.budgets.find(id, visibleTenant(request.principal!));
    assertMayChange(request.principal!, budget.tenantId, budget.scope);
    const nowMs = this.clock.nowMs();
    await this.budgets.remove(id, (manager, before) =>
      recordChange(manager, { origin: originOf(request), timeMs: nowMs, activity: 'delete', object: { type: 'budget', id }, before: budgetView(before, nowMs), after: null }));
  }
}

/** The pattern lets pass what the ledger's numbers cannot hold. */
function readLimit(usd: string): bigint {
  const ticks = parseUsd(usd);
  if (ticks === undefined) throw new GatewayError('invalid_request', { publicMessage: `limit_usd is more than the ${formatUsd(TICKS_MAX)} that a budget can hold.`, param: 'limit_usd' });
  return ticks;
}

/** A tenant's own admin divides what the platform gave; what the tenant as a whole may spend is the platform's word. */
function assertMayChange(principal: Principal, tenantId: string, scope: string): void {
  if (principal.roles.includes('platform-admin')) return;
  if (principal.tenantId !== tenantId) throw new GatewayError('not_found', { publicMessage: 'There is no such tenant.', param: 'tenant' });
  if (scope === 'tenant') throw roleDenied('The budget of a whole tenant is set by the role platform-admin.');
}
