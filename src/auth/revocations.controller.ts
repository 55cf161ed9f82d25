import { Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { DataSource, IsNull, MoreThan, type EntityManager } from 'typeorm';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { plainText } from '../shared/plain-text.ts';
import { uuid } from '../shared/uuid.ts';
import { assertUuid, isUuid } from '../shared/uuid-text.ts';
import { parseTime } from '../shared/time-text.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { Tenant } from '../tenants/tenant.ts';
import { moveAccessRevision } from './access-revision.ts';
import { AccessRules } from './access-rules.ts';
import { RevocationEntity } from './revocation-entity.ts';
import { REVOCATION_TYPES } from './revoked.ts';
import { roleDenied } from './role-denied.ts';
import { Roles } from './route-access.ts';
import { assertOwnTenant, isPlatformAdmin, visibleTenant } from './scope.ts';

/** Of one tenant, and likewise of the platform: all of them are in memory. */
const REVOCATIONS_MAX = 50_000;
/** No token lives longer, unless its revocation says so. */
const TOKEN_LIFE_DAYS = 90;
const FINGERPRINT = /^(?:[0-9a-f]{2}:?){31}[0-9a-f]{2}$/i;

const NewRevocationBody = Type.Object({
  type: oneOf(REVOCATION_TYPES),
  value: plainText(512, 'The jti, the subject, the key’s id, or the certificate’s SHA-256 fingerprint in hex'),
  tenant: Type.Optional(Type.Union([plainText(63), Type.Null()], { description: 'null, for the platform’s admins: every tenant' })),
  expires_at: Type.Optional(Type.String({ description: `When what is revoked has expired anyway; ${TOKEN_LIFE_DAYS} days for a jti, never for all else` })),
}, { additionalProperties: false });
const Time = Type.String({ format: 'date-time' });
export const RevocationAnswer = Type.Object({
  id: Type.String(), type: oneOf(REVOCATION_TYPES), value: Type.String(), tenant: Type.Union([Type.String(), Type.Null()]), created_at: Time, expires_at: Type.Union([Time, Type.Null()]),
});

const newRevocation = new ValidatedBody(NewRevocationBody);

/** `/admin/v1/revocations`: credentials that no longer count, running calls included. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/revocations')
@Roles('tenant-admin')
export class RevocationsController {
  constructor(
    @Inject(DataSource) private readonly dataSource: DataSource,
    @Inject(AccessRules) private readonly rules: AccessRules,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @ApiJsonBody(NewRevocationBody)
  @ApiAnswers(201, RevocationAnswer, [400, 403, 404, 409])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const body = await newRevocation.read(request);
    const tenantId = body.tenant === undefined ? request.principal!.tenantId : body.tenant;
    if (tenantId === null && !isPlatformAdmin(request.principal!)) throw roleDenied('Revocations for every tenant are made by the role platform-admin.');
    assertOwnTenant(request.principal!, tenantId);
    const value = body.type === 'certificate' ? readFingerprint(body.value) : body.value;
    const expiresAt = this.#readExpiry(body.type, body.expires_at);
    const id = uuid();
    const created = await this.dataSource.transaction(async (manager) => {
      if (tenantId !== null && !(await manager.existsBy(Tenant, { id: tenantId }))) throw new GatewayError('not_found', { publicMessage: 'There is no such tenant.', param: 'tenant' });
      // What has expired makes room, and may be revoked anew.
      await manager.query('DELETE FROM revocations WHERE expires_at <= now()');
      if ((await manager.countBy(RevocationEntity, { tenantId: tenantId ?? IsNull() })) >= REVOCATIONS_MAX) {
        throw new GatewayError('invalid_request', { publicMessage: `There are ${REVOCATIONS_MAX} revocations already. Remove some, or revoke the subject instead of each token.` });
      }
      const inserted = await manager.createQueryBuilder().insert().into(RevocationEntity).values({ id, type: body.type, value, tenantId, expiresAt }).orIgnore().returning('id').execute();
      if ((inserted.raw as unknown[]).length === 0) throw new GatewayError('already_exists', { publicMessage: 'That is revoked already.', param: 'value' });
      const revocation = await manager.findOneByOrFail(RevocationEntity, { id });
      await this.#record(request, manager, 'create', null, revocation);
      await moveAccessRevision(manager);
      return revocation;
    });
    await this.rules.changed();
    return revocationView(created);
  }

  @Get()
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(RevocationAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async list(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    const tenantId = visibleTenant(request.principal!);
    const rows = await this.dataSource.getRepository(RevocationEntity).find({
      where: { ...(tenantId === undefined ? {} : { tenantId }), ...(page.after === undefined ? {} : { id: MoreThan(assertUuid(page.after)) }) }, order: { id: 'ASC' }, take: page.limit + 1,
    });
    return toPage(rows, page.limit, revocationView);
  }

  @Get(':id')
  @ApiAnswers(200, RevocationAnswer, [403, 404])
  async get(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    return revocationView(await this.#find(this.dataSource.manager, request, id));
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiAnswers(204, Type.Null(), [403, 404])
  async remove(@Req() request: FastifyRequest, @Param('id') id: string): Promise<void> {
    await this.dataSource.transaction(async (manager) => {
      const before = await this.#find(manager, request, id);
      await manager.delete(RevocationEntity, { id });
      await this.#record(request, manager, 'delete', before, null);
      await moveAccessRevision(manager);
    });
    await this.rules.changed();
  }

  async #find(manager: EntityManager, request: FastifyRequest, id: string): Promise<RevocationEntity> {
    const tenantId = visibleTenant(request.principal!);
    const revocation = isUuid(id) ? await manager.findOneBy(RevocationEntity, { id, ...(tenantId === undefined ? {} : { tenantId }) }) : null;
    if (!revocation) throw new GatewayError('not_found', { publicMessage: 'There is no such revocation.' });
    return revocation;
  }

  #record(request: FastifyRequest, manager: EntityManager, activity: 'create' | 'delete', before: RevocationEntity | null, after: RevocationEntity | null): Promise<void> {
    return recordChange(manager, {
      origin: originOf(request), timeMs: this.clock.nowMs(), activity, object: { type: 'revocation', id: (after ?? before)!.id }, before: before && revocationView(before), after: after && revocationView(after),
    });
  }

  #readExpiry(type: string, text: string | undefined): Date | null {
    if (text === undefined) return type === 'jti' ? new Date(this.clock.nowMs() + TOKEN_LIFE_DAYS * 86_400_000) : null;
    const time = parseTime(text);
    if (time === undefined || time <= this.clock.nowMs()) throw new GatewayError('invalid_request', { publicMessage: 'expires_at takes a time to come, such as 2027-01-01T00:00:00Z.', param: 'expires_at' });
    return new Date(time);
  }
}

/** Fingerprints are written in several ways; one is kept. */
function readFingerprint(text: string): string {
  if (!FINGERPRINT.test(text)) throw new GatewayError('invalid_request', { publicMessage: 'A certificate is named by its SHA-256 fingerprint: 64 hex digits, with or without colons.', param: 'value' });
  return text.replaceAll(':', '').toLowerCase();
}

function revocationView({ id, type, value, tenantId, createdAt, expiresAt }: RevocationEntity): Record<string, unknown> {
  return { id, type, value, tenant: tenantId, created_at: createdAt.toISOString(), expires_at: expiresAt?.toISOString() ?? null };
}
