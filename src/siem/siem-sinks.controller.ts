import { Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import type { EntityManager } from 'typeorm';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { SiemSinks } from './siem-sinks.ts';
import { NewSinkBody, ParkedAnswer, parkedView, recordedSink, SinkAnswer, SinkPatchBody, sinkView, type SinkRecord } from './sink-definition.ts';

const newSink = new ValidatedBody(NewSinkBody);
const sinkPatch = new ValidatedBody(SinkPatchBody);
const NextCursor = Type.Union([Type.String(), Type.Null()]);

/** `/admin/v1/siem-sinks`: where the audit log is exported to. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/siem-sinks')
@Roles('platform-admin')
export class SiemSinksController {
  constructor(
    @Inject(SiemSinks) private readonly sinks: SiemSinks,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @ApiJsonBody(NewSinkBody)
  @ApiAnswers(201, SinkAnswer, [400, 403, 409])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    return sinkView(await this.sinks.create(await newSink.read(request), this.#record(request, 'create')));
  }

  @Get()
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(SinkAnswer), next_cursor: NextCursor }), [400, 403])
  async list(@Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    return toPage(await this.sinks.list(page), page.limit, sinkView);
  }

  @Get(':id')
  @ApiAnswers(200, SinkAnswer, [403, 404])
  async get(@Param('id') id: string): Promise<Record<string, unknown>> {
    return sinkView(await this.sinks.find(id));
  }

  @Get(':id/parked')
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(ParkedAnswer), next_cursor: NextCursor }), [400, 403, 404])
  async parked(@Param('id') id: string, @Query() query: Record<string, unknown>): Promise<unknown> {
    const page = readPage(query);
    return toPage(await this.sinks.parked(id, page), page.limit, parkedView);
  }

  @Patch(':id')
  @ApiJsonBody(SinkPatchBody)
  @ApiAnswers(200, SinkAnswer, [400, 403, 404, 409])
  async update(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    return sinkView(await this.sinks.update(id, await sinkPatch.read(request), this.#record(request, 'update')));
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiAnswers(204, Type.Null(), [400, 403, 404])
  async remove(@Req() request: FastifyRequest, @Param('id') id: string): Promise<void> {
    await this.sinks.remove(id, this.#record(request, 'delete'));
  }

  #record(request: FastifyRequest, activity: 'create' | 'update' | 'delete') {
    return (manager: EntityManager, before: SinkRecord | null, after: SinkRecord | null): Promise<void> =>
      recordChange(manager, {
        origin: originOf(request), timeMs: this.clock.nowMs(), activity, object: { type: 'siem-sink', id: (after ?? before)!.id }, before: before && recordedSink(before), after: after && recordedSink(after),
      });
  }
}
