import { Controller, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiHeader, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Invoke } from '../auth/route-access.ts';
import { ENV } from '../env.ts';
import type { Env } from '../env.ts';
import { ApiErrors, ApiJsonBody, openApiSchema } from '../openapi/documented.ts';
import { Caller } from './caller.ts';
import { CompletionChunkSchema, CompletionSchema } from './completion-answer-schema.ts';
import { CompletionPipeline } from './completion-pipeline.ts';
import { CompletionRequestSchema } from './completion-request.ts';

/** HTTP in, HTTP out; everything else is in the pipeline. */
@ApiTags('completions')
@ApiBearerAuth()
@Controller('v1')
@Invoke()
export class CompletionsController {
  constructor(
    @Inject(CompletionPipeline) private readonly pipeline: CompletionPipeline,
    @Inject(ENV) private readonly env: Env,
  ) {}

  @Post('chat/completions')
  @HttpCode(200)
  @ApiHeader({ name: 'x-novix-max-cost-usd', required: false, description: 'Most that this call may cost, such as 0.05' })
  @ApiHeader({ name: 'x-novix-data-class', required: false, schema: { type: 'string', enum: ['public', 'internal', 'confidential', 'restricted'] } })
  @ApiHeader({ name: 'x-novix-deadline-ms', required: false, description: 'Milliseconds after which the answer is of no more use' })
  @ApiJsonBody(CompletionRequestSchema)
  @ApiErrors(401, 402, 403, 404, 429, 502, 503, 504)
  @ApiResponse({
    status: 200, description: 'One completion, or with stream: true its chunks as server-sent events',
    content: { 'application/json': { schema: openApiSchema(CompletionSchema) }, 'text/event-stream': { schema: openApiSchema(CompletionChunkSchema) } },
  })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.pipeline.run(request.principal!, new Caller(request, reply, this.env.http.bodyLimitBytes));
  }
}
