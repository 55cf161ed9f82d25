import { Controller, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Invoke } from '../../auth/route-access.ts';
import { ENV } from '../../env.ts';
import type { Env } from '../../env.ts';
import { ApiErrors, ApiJsonBody, openApiSchema } from '../../openapi/documented.ts';
import { Caller } from '../caller.ts';
import { CompletionPipeline } from '../completion-pipeline.ts';
import { ApiCallHeaders } from './api-call-headers.ts';
import { CompletionChunkSchema, CompletionSchema, TextCompletionSchema } from './chat-answer-schema.ts';
import { ChatCall } from './chat-call.ts';
import { CompletionRequestSchema, parseCompletionRequest } from './chat-request.ts';
import { TextCompletionCall, TextCompletionRequestSchema } from './text-completion.ts';

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
  @ApiCallHeaders()
  @ApiJsonBody(CompletionRequestSchema)
  @ApiErrors(401, 402, 403, 404, 429, 502, 503, 504)
  @ApiResponse({
    status: 200, description: 'One completion, or with stream: true its chunks as server-sent events',
    content: { 'application/json': { schema: openApiSchema(CompletionSchema) }, 'text/event-stream': { schema: openApiSchema(CompletionChunkSchema) } },
  })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.pipeline.run(request.principal!, new Caller(request, reply, this.env.http.bodyLimitBytes), async (caller) => new ChatCall(parseCompletionRequest(await caller.readBody()), this.env.defaults));
  }

  @Post('completions')
  @HttpCode(200)
  @ApiCallHeaders()
  @ApiJsonBody(TextCompletionRequestSchema)
  @ApiErrors(401, 402, 403, 404, 429, 502, 503, 504)
  @ApiResponse({
    status: 200, description: 'One completion of the prompt, or with stream: true its chunks as server-sent events',
    content: { 'application/json': { schema: openApiSchema(TextCompletionSchema) }, 'text/event-stream': { schema: openApiSchema(TextCompletionSchema) } },
  })
  async createFromPrompt(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.pipeline.run(request.principal!, new Caller(request, reply, this.env.http.bodyLimitBytes), async (caller) => new TextCompletionCall(await caller.readBody(), this.env.defaults));
  }
}
