import { Controller, Delete, Get, HttpCode, Inject, Param, Patch, Post, Query, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import type { EntityManager } from 'typeorm';
import { Type } from 'typebox';
import { originOf, recordChange } from '../audit/record-change.ts';
import { Roles } from '../auth/route-access.ts';
import { MAX_CONCURRENCY_DEFAULT } from '../catalogue/catalogue.ts';
import { ApiAnswers, ApiJsonBody, ApiPage } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { readPage, toPage } from '../shared/paging.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { DeploymentAnswer, DeploymentPatchBody, NewDeploymentBody, recordedDefinition, type DeploymentDefinition } from './deployment-definition.ts';
import { Deployments, type DeploymentRecord } from './deployments.ts';

const newDeployment = new ValidatedBody(NewDeploymentBody);
const deploymentPatch = new ValidatedBody(DeploymentPatchBody);

/** `/admin/v1/deployments`: where calls go, changed without a restart. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1/deployments')
@Roles('platform-admin')
export class DeploymentsController {
  constructor(
    @Inject(Deployments) private readonly deployments: Deployments,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post()
  @HttpCode(201)
  @ApiJsonBody(NewDeploymentBody)
  @ApiAnswers(201, DeploymentAnswer, [400, 403, 409])
  async create(@Req() request: FastifyRequest): Promise<Record<string, unknown>> {
    const { id, ...definition } = await newDeployment.read(request);
    return deploymentView(await this.deployments.create(id, definition, this.#record(request, id, 'create')));
  }

  @Get()
  @ApiPage()
  @ApiAnswers(200, Type.Object({ data: Type.Array(DeploymentAnswer), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  list(@Query() query: Record<string, unknown>): unknown {
    const { limit, after } = readPage(query);
    return toPage(this.deployments.list().filter(({ id }) => after === undefined || id > after).slice(0, limit + 1), limit, deploymentView);
  }

  @Get(':id')
  @ApiAnswers(200, DeploymentAnswer, [403, 404])
  get(@Param('id') id: string): Record<string, unknown> {
    return deploymentView(this.deployments.find(id));
  }

  @Patch(':id')
  @ApiJsonBody(DeploymentPatchBody)
  @ApiAnswers(200, DeploymentAnswer, [400, 403, 404])
  async update(@Req() request: FastifyRequest, @Param('id') id: string): Promise<Record<string, unknown>> {
    return deploymentView(await this.deployments.update(id, await deploymentPatch.read(request), this.#record(request, id, 'update')));
  }

  @Delete(':id')
  @HttpCode(204)
  @ApiAnswers(204, Type.Null(), [400, 403, 404])
  async remove(@Req() request: FastifyRequest, @Param('id') id: string): Promise<void> {
    await this.deployments.remove(id, this.#record(request, id, 'delete'));
  }

  #record(request: FastifyRequest, id: string, activity: 'create' | 'update' | 'delete') {
    return (manager: EntityManager, before: DeploymentDefinition | null, after: DeploymentDefinition | null): Promise<void> =>
      recordChange(manager, {
        origin: originOf(request), timeMs: this.clock.nowMs(), activity, object: { type: 'deployment', id },
        before: before && recordedDefinition(before), after: after && recordedDefinition(after),
      });
  }
}

function deploymentView({ id, definition, source, createdAt, updatedAt }: DeploymentRecord): Record<string, unknown> {
  return {
    id, region: 'global', accelerator: 'shared', weight: 1, max_concurrency: MAX_CONCURRENCY_DEFAULT, price_percent: 100, ...definition, source,
    ...(createdAt && { created_at: createdAt.toISOString() }), ...(updatedAt && { updated_at: updatedAt.toISOString() }),
  };
}
