import { Controller, Delete, Get, HttpCode, Inject, Param, Post, Put, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import type { EntityManager } from 'typeorm';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { ApiAnswers, ApiErrors, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { plainText } from '../shared/plain-text.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { AccessRules } from './access-rules.ts';
import { Policies, policyView, readRules, recordedPolicy } from './policies.ts';
import type { PolicyEntity } from './policy-entity.ts';
import { RuleSchema } from './policy.ts';
import { roleDenied } from './role-denied.ts';
import { Roles } from './route-access.ts';
import { assertOwnTenant, isPlatformAdmin, visibleTenant } from './scope.ts';

const CLOSED = { additionalProperties: false };
const Status = oneOf(['enforced', 'shadow']);
const TenantId = Type.Union([plainText(63), Type.Null()], { description: 'null: for all tenants' });
/** Rules are looked at apart, since their faults have a status of their own. */
const Rules = Type.Unsafe<unknown>({});
const FIELDS = { tenant: TenantId, name: plainText(200), status: Type.Optional(Status), rules: Rules };
const NewPolicyBody = Type.Object(FIELDS, CLOSED);
const PolicyReplacementBody = Type.Object({ ...FIELDS, tenant: Type.Optional(TenantId) }, CLOSED);

const DocumentedRules = Type.Array(RuleSchema, { minItems: 1 });
export const PolicyAnswer = Type.Object({
  id: Type.String(), tenant: TenantId, name: Type.String(), status: Status, rules: DocumentedRules, revision: Type.Optional(Type.String({ description: 'State of all rules with this change' })),
  created_at: Type.String({ format: 'date-time' }), updated_at: Type.String({ format: 'date-time' }),
});

const newPolicy = new ValidatedBody(NewPolicyBody);
const policyReplacement = new ValidatedBody(PolicyReplacementBody);

/** `/admin/v1/policies`: who may send what to which model. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/policies')
export class PoliciesController {
  constructor(
    @Inject(Policies) private readonly policies: Policies,
    @Inject(AccessRules) private readonly rules: AccessRules,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @Roles('tenant-admin')
  @ApiJsonBody(Type.Object({ ...FIELDS, rules: DocumentedRules }, CLOSED))
  @ApiAnswers(201, PolicyAnswer, [400, 403, 404])
  @ApiErrors(422)
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { tenant, name, status = 'enforced', rules } = await newPolicy.read(request);
    assertMayWrite(request, tenant);
    const created = await this.policies.create({ tenantId: tenant, name, status, rules: readRules(rules) }, this.#record(request, 'create'));
    return { ...policyView(created), revision: this.rules.revision };
  }

  @Get()
  @Roles('tenant-admin', 'auditor')
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(PolicyAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    return toPage(await this.policies.list(page, visibleTenant(request.principal!)), page.limit, policyView);
  }

  @Get(':id')
  @Roles('tenant-admin', 'auditor')
  @ApiAnswers(200, PolicyAnswer, [403, 404])
  async get(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    return policyView(await this.policies.find(id, visibleTenant(request.principal!)));
  }

  @Put(':id')
  @Roles('tenant-admin')
  @ApiJsonBody(Type.Object({ ...FIELDS, tenant: Type.Optional(TenantId), rules: DocumentedRules }, CLOSED))
  @ApiAnswers(200, PolicyAnswer, [400, 403, 404])
  @ApiErrors(422)
  async replace(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    const { tenant, name, status = 'enforced', rules } = await policyReplacement.read(request);
    const before = await this.policies.find(id, visibleTenant(request.principal!));
    assertMayWrite(request, before.tenantId);
    if (tenant !== undefined && tenant !== before.tenantId) throw new GatewayError('invalid_request', { publicMessage: 'A policy stays with its tenant. Make another for the other one.', param: 'tenant' });
    const replaced = await this.policies.replace(id, visibleTenant(request.principal!), { name, status, rules: readRules(rules) }, this.#record(request, 'update'));
    return { ...policyView(replaced), revision: this.rules.revision };
  }

  @Delete(':id')
  @HttpCode(204)
  @Roles('tenant-admin')
  @ApiAnswers(204, Type.Null(), [403, 404])
  async remove(@Req() request: FastifyRequest, @Param('id') id: string): Promise<void> {
    await this.policies.remove(id, visibleTenant(request.principal!), this.#record(request, 'delete'));
  }

  #record(request: FastifyRequest, activity: 'create' | 'update' | 'delete') {
    return (manager: EntityManager, before: PolicyEntity | null, after: PolicyEntity | null): Promise<void> =>
      recordChange(manager, {
        origin: originOf(request), timeMs: this.clock.nowMs(), activity, object: { type: 'policy', id: (after ?? before)!.id }, before: before && recordedPolicy(before), after: after && recordedPolicy(after),
      });
  }
}

/** A tenant's own admin writes its own rules; what holds for everyone is the platform's word. */
function assertMayWrite({ principal }: FastifyRequest, tenantId: string | null): void {
  if (tenantId === null && !isPlatformAdmin(principal!)) throw roleDenied('Policies for all tenants are written by the role platform-admin.');
  assertOwnTenant(principal!, tenantId);
}
