import { Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiParam, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import type { EntityManager } from 'typeorm';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Catalogue } from '../catalogue/catalogue.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { plainText } from '../shared/plain-text.ts';
import { parseTime } from '../shared/time-text.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import type { ApiKeyEntity } from './api-key-entity.ts';
import { ApiKeys, apiKeyView } from './api-keys.ts';
import type { Principal, PrincipalAttributes } from './principal.ts';
import { roleDenied } from './role-denied.ts';
import { Roles } from './route-access.ts';
import { assertOwnTenant, isPlatformAdmin, visibleTenant } from './scope.ts';

const DAY_MS = 86_400_000;
const LIFE_DAYS_DEFAULT = 90;
const LIFE_DAYS_MAX = 366;
const OVERLAP_SECONDS_DEFAULT = 86_400;
const OVERLAP_SECONDS_MAX = 30 * 86_400;
const ROLES = ['developer', 'tenant-admin', 'billing', 'auditor', 'platform-admin'] as const;
/** What a tenant's own admin may hand out: what the role contains. Who reads payloads and evidence is not its to say. */
const TENANT_ADMIN_GRANTS: readonly string[] = ['developer', 'tenant-admin', 'billing'];

const CLOSED = { additionalProperties: false };
const Attributes = Type.Record(plainText(512), Type.Union([plainText(1_024), Type.Number(), Type.Array(plainText(1_024), { maxItems: 64 })]));
const Time = Type.String({ format: 'date-time' });
const Expiry = Type.Optional(Type.String({ description: `Within ${LIFE_DAYS_MAX} days; ${LIFE_DAYS_DEFAULT} days from now where absent` }));
const NewApiKeyBody = Type.Object({
  tenant: Type.Optional(plainText(63)), sub: plainText(512, 'Who the key speaks for'), roles: Type.Optional(Type.Array(oneOf(ROLES), { minItems: 1, maxItems: ROLES.length })),
  attrs: Type.Optional(Attributes), models: Type.Optional(Type.Union([Type.Array(plainText(256), { minItems: 1, maxItems: 64 }), Type.Null()])), expires_at: Expiry,
}, CLOSED);
const RotationBody = Type.Object({
  overlap_seconds: Type.Optional(Type.Integer({ minimum: 0, maximum: OVERLAP_SECONDS_MAX, default: OVERLAP_SECONDS_DEFAULT, description: 'For how long the old key still counts' })), expires_at: Expiry,
}, CLOSED);
const FIELDS = {
  id: Type.String(), tenant: Type.String(), sub: Type.String(), roles: Type.Array(Type.String()), attrs: Attributes, models: Type.Union([Type.Array(Type.String()), Type.Null()]), created_by: Type.String(), created_at: Time,
  expires_at: Type.Union([Time, Type.Null()]), revoked_at: Type.Union([Time, Type.Null()]), last_used_on: Type.Union([Type.String({ format: 'date' }), Type.Null()]),
};
export const ApiKeyAnswer = Type.Object(FIELDS);
export const NewApiKeyAnswer = Type.Object({ ...FIELDS, key: Type.String({ description: 'Shown this once' }) });

const newApiKey = new ValidatedBody(NewApiKeyBody);
const rotation = new ValidatedBody(RotationBody);
/** An id, and after the last colon what to do. */
const ORDER = /^(.+):rotate$/;

/** `/admin/v1/api-keys`: credentials of programs, never wider than their maker. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/api-keys')
@Roles('tenant-admin')
export class ApiKeysController {
  constructor(
    @Inject(ApiKeys) private readonly keys: ApiKeys,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @ApiJsonBody(NewApiKeyBody)
  @ApiAnswers(201, NewApiKeyAnswer, [400, 403, 404])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { tenant, sub, roles = ['developer'], attrs = {}, models = null, expires_at: expires } = await newApiKey.read(request);
    const maker = request.principal!;
    const tenantId = tenant ?? maker.tenantId;
    assertOwnTenant(maker, tenantId);
    assertMayGrant(maker, tenantId, roles, models, attrs);
    const unknown = models?.find((name) => !this.catalogue.resolve(name));
    if (unknown !== undefined) throw new GatewayError('invalid_request', { publicMessage: `There is no model ${JSON.stringify(unknown)} here.`, param: 'models' });
    const { entity, key } = await this.keys.create(
      { tenantId, subject: sub, roles: [...roles], attributes: attrs, models, expiresAt: this.#readExpiry(expires, maker), createdBy: maker.subject }, this.#record(request));
    return { ...apiKeyView(entity), key };
  }

  @Get()
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(ApiKeyAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    return toPage(await this.keys.list(page, visibleTenant(request.principal!)), page.limit, apiKeyView);
  }

  @Get(':id')
  @ApiAnswers(200, ApiKeyAnswer, [403, 404])
  async get(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    return apiKeyView(await this.keys.find(id, visibleTenant(request.principal!)));
  }

  @Post(':order')
  @HttpCode(201)
  @ApiParam({ name: 'order', description: '<id>:rotate makes another key with the same powers; the old one counts for a while longer' })
  @ApiJsonBody(RotationBody)
  @ApiAnswers(201, NewApiKeyAnswer, [400, 403, 404])
  async rotate(@Req() request: FastifyRequest, @Param('order') text: string): Promise<Record<string, unknown>> {
    const [, id] = ORDER.exec(text) ?? [];
    if (id === undefined) throw new GatewayError('not_found', { publicMessage: 'API keys take <id>:rotate.' });
    const { overlap_seconds: overlapSeconds = OVERLAP_SECONDS_DEFAULT, expires_at: expires } = await rotation.read(request);
    const maker = request.principal!;
    const before = await this.keys.find(id, visibleTenant(maker));
    assertMayGrant(maker, before.tenantId, before.roles, before.models, before.attributes);
    const { entity, key } = await this.keys.rotate(id, visibleTenant(maker), overlapSeconds * 1_000, this.#readExpiry(expires, maker), maker.subject, this.#record(request));
    return { ...apiKeyView(entity), key };
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiAnswers(204, Type.Null(), [403, 404])
  async revoke(@Req() request: FastifyRequest, @Param('id') id: string): Promise<void> {
    await this.keys.revoke(id, visibleTenant(request.principal!), this.#record(request));
  }

  #record(request: FastifyRequest) {
    return (manager: EntityManager, before: ApiKeyEntity | null, after: ApiKeyEntity | null): Promise<void> =>
      recordChange(manager, {
        origin: originOf(request), timeMs: this.clock.nowMs(), activity: before === null ? 'create' : 'update', object: { type: 'api_key', id: (after ?? before)!.id },
        before: before && apiKeyView(before), after: after && apiKeyView(after),
      });
  }

  /** A key made with a key does not outlive it. */
  #readExpiry(text: string | undefined, maker: Principal): Date {
    const nowMs = this.clock.nowMs();
    const atMs = text === undefined ? nowMs + LIFE_DAYS_DEFAULT * DAY_MS : parseTime(text) ?? Number.NaN;
    if (Number.isNaN(atMs) || atMs <= nowMs || atMs > nowMs + LIFE_DAYS_MAX * DAY_MS) {
      throw new GatewayError('invalid_request', { publicMessage: `expires_at takes a time within the next ${LIFE_DAYS_MAX} days, such as 2027-01-01T00:00:00Z.`, param: 'expires_at' });
    }
    return new Date(maker.keyId === undefined ? atMs : Math.min(atMs, maker.keyEndsAtMs ?? atMs));
  }
}

/** @throws {GatewayError} `policy_denied` where the key would be wider than its maker */
function assertMayGrant(maker: Principal, tenantId: string, roles: readonly string[], models: readonly string[] | null, attributes: PrincipalAttributes): void {
  const tooWide = isPlatformAdmin(maker) ? undefined : roles.find((role) => !TENANT_ADMIN_GRANTS.includes(role) && !maker.roles.includes(role));
  if (tooWide !== undefined) throw roleDenied(`You cannot give the role ${tooWide}, which you do not have.`);
  if (roles.includes('platform-admin') && tenantId !== 'platform') throw roleDenied('The role platform-admin counts in the tenant platform alone.');
  // What the maker's own credential says of itself it cannot say otherwise in another; a key can say nothing that its maker does not.
  const wider = isPlatformAdmin(maker) ? undefined : Object.entries(attributes).find(([name, value]) => (maker.attributes[name] === undefined ? maker.keyId !== undefined : !within(value, maker.attributes[name])));
  if (wider !== undefined) throw roleDenied(`You cannot give the attribute ${wider[0]} another value than you have.`);
  if (maker.models !== undefined && (models === null || models.some((model) => !maker.models!.includes(model)))) throw roleDenied(`You cannot give more models than you have: ${maker.models.join(', ')}.`);
}

function within(value: PrincipalAttributes[string], own: PrincipalAttributes[string]): boolean {
  const list = (one: PrincipalAttributes[string]): readonly (string | number)[] => (Array.isArray(one) ? one : [one as string | number]);
  return list(value).every((one) => list(own).includes(one));
}
