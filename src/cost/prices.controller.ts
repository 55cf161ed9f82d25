import { Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import type { EntityManager } from 'typeorm';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { oneOf } from '../shared/one-of.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { plainText } from '../shared/plain-text.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { PriceFields, type PriceDefinition } from './price-definition.ts';
import { Prices, type PriceRecord } from './prices.ts';

const NewPriceBody = Type.Object({ model: plainText(256, 'Id of the model, not an alias'), ...PriceFields }, { additionalProperties: false });
export const PriceAnswer = Type.Object({ model: Type.String(), revision: Type.Integer({ minimum: 0 }), source: oneOf(['admin', 'provider', 'config']), effective_at: Type.Union([Type.String(), Type.Null()]), ...PriceFields });

const newPrice = new ValidatedBody(NewPriceBody);

/** `/admin/v1/prices`: what models cost, and who says so. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/prices')
export class PricesController {
  constructor(
    @Inject(Prices) private readonly prices: Prices,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get()
  @Roles('tenant-admin', 'billing')
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(PriceAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  list(@Query() query: Record<string, unknown>): unknown {
    const { limit, after } = readPage(query);
    const records = this.prices.list().filter(({ model }) => after === undefined || model > after);
    return toPage(records.slice(0, limit + 1).map((record) => ({ id: record.model, record })), limit, ({ record }) => priceView(record));
  }

  @Get(':model')
  @Roles('tenant-admin', 'billing')
  @ApiAnswers(200, PriceAnswer, [403, 404])
  get(@Param('model') model: string): Record<string, unknown> {
    return priceView(this.prices.find(model));
  }

  @Post()
  @HttpCode(201)
  @Roles()
  @ApiJsonBody(NewPriceBody)
  @ApiAnswers(201, PriceAnswer, [400, 403, 404])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { model, ...definition } = await newPrice.read(request);
    return priceView(await this.prices.set(model, definition, this.#record(request, model, definition)));
  }

  /** Takes an admin's price back: what the provider lists, or the reviewed file says, holds again. 404 where no admin has set one. */
  @Delete(':model')
  @HttpCode(204)
  @Roles()
  @ApiAnswers(204, Type.Null(), [403, 404])
  async remove(@Req() request: FastifyRequest, @Param('model') model: string): Promise<void> {
    await this.prices.set(model, undefined, this.#record(request, model, undefined));
  }

  #record(request: FastifyRequest, model: string, after: PriceDefinition | undefined) {
    return (manager: EntityManager, before: PriceRecord): Promise<void> =>
      recordChange(manager, { origin: originOf(request), timeMs: this.clock.nowMs(), activity: after === undefined ? 'delete' : 'create', object: { type: 'price', id: model }, before: priceView(before), after: after ?? null });
  }
}

function priceView({ model, revision, source, effectiveAt, definition }: PriceRecord): Record<string, unknown> {
  return { model, revision, source, effective_at: effectiveAt === '' ? null : effectiveAt, ...definition };
}
