import { isUtf8 } from 'node:buffer';
import { Controller, Get, Header, Inject, Param, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiQuery, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import { DataSource } from 'typeorm';
import { originOf, recordChange } from '../audit/record-change.ts';
import type { Principal } from '../auth/principal.ts';
import { roleDenied } from '../auth/role-denied.ts';
import { Roles } from '../auth/route-access.ts';
import { ApiAnswers, openApiSchema } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { plainText } from '../shared/plain-text.ts';
import { isUuid } from '../shared/uuid-text.ts';
import { PayloadVault, type StoredText } from './payload-vault.ts';
import { CannotOpen, PURPOSES } from './record-cipher.ts';

const PLATFORM = 'platform';
const Reason = plainText(500, 'Why it is read; goes on record');
const isReason = Compile(Reason);
const StoredTextAnswer = Type.Object({
  purpose: oneOf(PURPOSES), content_type: Type.String(), bytes: Type.Integer(), stored_at: Type.String({ format: 'date-time' }),
  text: Type.Optional(Type.String()), base64: Type.Optional(Type.String({ description: 'In place of text, where it is no UTF-8' })),
});
const PayloadAnswer = Type.Object({ request_id: Type.String(), tenant: Type.String(), payloads: Type.Array(StoredTextAnswer) });

/** `/admin/v1/payloads`: what was asked and answered, for auditors alone, and never without a trace. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/payloads')
@Roles('auditor')
export class PayloadsController {
  constructor(
    @Inject(PayloadVault) private readonly vault: PayloadVault,
    @Inject(DataSource) private readonly dataSource: DataSource,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get(':request_id')
  @Header('cache-control', 'no-store')
  @ApiQuery({ name: 'reason', required: true, schema: openApiSchema(Reason) })
  @ApiAnswers(200, PayloadAnswer, [400, 403, 404])
  async read(@Req() request: FastifyRequest, @Param('request_id') requestId: string, @Query('reason') reason: unknown): Promise<Static<typeof PayloadAnswer>> {
    const principal = request.principal!;
    assertAuditor(principal);
    if (!isReason.Check(reason)) throw new GatewayError('invalid_request', { publicMessage: 'Say in reason, with 1 to 500 characters, why you read this. It goes on record.', param: 'reason' });
    const id = requestId.toLowerCase();
    const found = isUuid(id) ? await this.#find(id, principal) : undefined;
    if (found === undefined) throw new GatewayError('not_found', { publicMessage: 'Nothing that can be read is stored of this request: its tenant did not want it stored, or its retention time is over.' });
    const { tenantId, texts } = found;
    const after = { reason, tenant: tenantId, purposes: texts.map(({ purpose }) => purpose) };
    // On record before anybody sees it.
    await this.dataSource.transaction((manager) => recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: 'read', object: { type: 'payload', id }, before: null, after }));
    return { request_id: id, tenant: tenantId, payloads: texts.map(textView) };
  }

  async #find(requestId: string, { tenantId }: Principal): ReturnType<PayloadVault['read']> {
    try {
      return await this.vault.read(requestId, tenantId === PLATFORM ? undefined : tenantId);
    } catch (cause) {
      if (cause instanceof CannotOpen) throw new GatewayError('internal_error', { publicMessage: 'What is stored of this request cannot be opened: it is damaged, or stands where it was not stored.', cause });
      throw new GatewayError('audit_unavailable', { publicMessage: 'Stored text cannot be read at the moment. Try again shortly.', retryAfterSeconds: 2, cause });
    }
  }
}

/** A platform-admin may do everything but this: whoever runs the gateway is not who reads what is said through it. */
function assertAuditor({ roles, subject }: Principal): void {
  if (!roles.includes('auditor')) throw roleDenied('Stored prompts and answers are for the role auditor alone.', { subject });
}

function textView({ purpose, contentType, storedAt, text }: StoredText): Static<typeof StoredTextAnswer> {
  return { purpose, content_type: contentType, bytes: text.length, stored_at: storedAt.toISOString(), ...(isUtf8(text) ? { text: text.toString() } : { base64: text.toString('base64') }) };
}
