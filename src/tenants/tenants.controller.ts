import { Controller, Get, HttpCode, Inject, Param, Patch, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { Catalogue } from '../catalogue/catalogue.ts';
import { targetQualityForShare } from '../catalogue/reach.ts';
import { TIER_NAMES } from '../catalogue/tiers.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { plainText } from '../shared/plain-text.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { parseUsd } from '../shared/usd-ticks.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { TenantDirectory } from './tenant-directory.ts';
import { TENANT_ID_PATTERN } from './tenant.ts';
import { Tenants, tenantView, type TenantSettings } from './tenants.ts';
import { oneOf } from '../shared/one-of.ts';

const Name = plainText(200);
const Tier = oneOf(TIER_NAMES);
const Settings = {
  data_class: Type.Optional(oneOf(['public', 'internal', 'confidential', 'restricted'])),
  bound_tokens: Type.Optional(Type.Boolean({ description: 'Whether its tokens must be bound to a client certificate' })),
  cost_mode: Type.Optional(oneOf(['off', 'advise', 'optimize'])),
  target_quality: Type.Optional(Type.Number({ minimum: 0, maximum: 1, description: 'How likely a model has to be to do, for the optimizer to choose it' })),
  max_request_cost_usd: Type.Optional(Type.Union([Type.String({ pattern: '^\\d{1,9}(\\.\\d{1,10})?$' }), Type.Null()], { description: 'Most that one call may cost' })),
  holds: Type.Optional(oneOf(['bounded', 'strict'])),
  payload_storage: Type.Optional(oneOf(['off', 'prompts', 'answers', 'both'])),
};
const Given = { ...Settings, target_dearer_share: Type.Optional(Type.Number({ minimum: 0, maximum: 1, description: 'In place of target_quality, which is computed from it: the share of calls that may take a dearer model than the cheapest' })) };
export const NewTenantBody = Type.Object({ id: Type.String({ pattern: TENANT_ID_PATTERN }), name: Name, tier: Tier, ...Given }, { additionalProperties: false });
export const TenantPatchBody = Type.Object({ name: Type.Optional(Name), tier: Type.Optional(Tier), ...Given }, { additionalProperties: false, minProperties: 1 });
export const TenantAnswer = Type.Object({
  id: Type.String(), name: Name, tier: Tier, ...Settings, created_at: Type.String({ format: 'date-time' }), updated_at: Type.String({ format: 'date-time' }),
});

const newTenant = new ValidatedBody(NewTenantBody);
const tenantPatch = new ValidatedBody(TenantPatchBody);

/** `/admin/v1/tenants`: who may call at all. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/tenants')
@Roles('platform-admin')
export class TenantsController {
  constructor(
    @Inject(Tenants) private readonly tenants: Tenants,
    @Inject(TenantDirectory) private readonly directory: TenantDirectory,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @ApiJsonBody(NewTenantBody)
  @ApiAnswers(201, TenantAnswer, [400, 403, 409])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { id, name, tier, ...rest } = await newTenant.read(request);
    const fields = { id, name, tier, ...this.#settings(rest) };
    const created = await this.tenants.create(fields, (manager, tenant) =>
      recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'create', object: { type: 'tenant', id: tenant.id }, before: null, after: tenantView(tenant) }));
    await this.directory.refresh();
    return tenantView(created);
  }

  @Get()
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(TenantAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    return toPage(await this.tenants.list(page), page.limit, tenantView);
  }

  @Get(':id')
  @ApiAnswers(200, TenantAnswer, [403, 404])
  async get(@Param('id') id: string): Promise<Record<string, unknown>> {
    return tenantView(await this.tenants.find(id));
  }

  @Patch(':id')
  @ApiJsonBody(TenantPatchBody)
  @ApiAnswers(200, TenantAnswer, [400, 403, 404])
  async update(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    const { name, tier, ...rest } = await tenantPatch.read(request);
    const change = { ...(name === undefined ? {} : { name }), ...(tier === undefined ? {} : { tier }), ...this.#settings(rest) };
    const updated = await this.tenants.update(id, change, (manager, before, after) =>
      recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'update', object: { type: 'tenant', id }, before: tenantView(before), after: tenantView(after) }));
    await this.directory.refresh();
    return tenantView(updated);
  }

  #settings(body: Omit<Static<typeof TenantPatchBody>, 'name' | 'tier'>): Partial<TenantSettings> {
    const { data_class: dataClass, bound_tokens: boundTokens, cost_mode: costMode, max_request_cost_usd: ceilingUsd, holds, payload_storage: payloadStorage } = body;
    const requestCeilingTicks = ceilingUsd === undefined || ceilingUsd === null ? ceilingUsd : parseUsd(ceilingUsd);
    if (typeof ceilingUsd === 'string' && !requestCeilingTicks) throw new GatewayError('invalid_request', { publicMessage: 'max_request_cost_usd takes a decimal number of USD above zero, such as "0.50", or null.', param: 'max_request_cost_usd' });
    const given = { dataClass, boundTokens, costMode, targetQuality: this.#targetQuality(body), requestCeilingTicks, holds, payloadStorage };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Partial<TenantSettings>;
  }

  #targetQuality({ target_quality: quality, target_dearer_share: share }: Pick<Static<typeof TenantPatchBody>, 'target_quality' | 'target_dearer_share'>): number | undefined {
    if (share === undefined) return quality;
    if (quality !== undefined) throw new GatewayError('invalid_request', { publicMessage: 'Give either target_quality or target_dearer_share, from which it is computed.', param: 'target_dearer_share' });
    const reaches = this.catalogue.optimizable.map(({ reach }) => reach!);
    if (reaches.length === 0) throw new GatewayError('invalid_request', { publicMessage: 'There is no model that the optimizer may choose: give one a reach in config/models.yaml.', param: 'target_dearer_share' });
    return targetQualityForShare(Math.min(...reaches), share);
  }
}
