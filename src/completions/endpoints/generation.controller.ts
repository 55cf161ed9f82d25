import { Controller, HttpCode, Inject, Post, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { Invoke } from '../../auth/route-access.ts';
import { ENV } from '../../env.ts';
import type { Env } from '../../env.ts';
import { ApiAnswers, ApiJsonBody } from '../../openapi/documented.ts';
import { Caller } from '../caller.ts';
import { CompletionPipeline } from '../completion-pipeline.ts';
import { ApiCallHeaders } from './api-call-headers.ts';
import { EmbeddingRequestSchema, EMBEDDINGS, IMAGE_GENERATIONS, ImageRequestSchema, JsonCall, TOKENIZE, TokenizeRequestSchema } from './json-call.ts';

const EmbeddingsSchema = Type.Object({ object: Type.Literal('list'), model: Type.String(), data: Type.Array(Type.Unknown()) });
const ImagesSchema = Type.Object({ data: Type.Array(Type.Object({ url: Type.Optional(Type.String()), b64_json: Type.Optional(Type.String()) })) });
const TokensSchema = Type.Object({ token_ids: Type.Array(Type.Object({ token_id: Type.Integer(), string_token: Type.String(), token_bytes: Type.Array(Type.Integer()) })) });

/** What answers with one JSON object: vectors, images, tokens. */
@ApiTags('generation')
@ApiBearerAuth()
@Controller('v1')
@Invoke()
export class GenerationController {
  constructor(
    @Inject(CompletionPipeline) private readonly pipeline: CompletionPipeline,
    @Inject(ENV) private readonly env: Env,
  ) {}

  @Post('embeddings')
  @HttpCode(200)
  @ApiCallHeaders()
  @ApiJsonBody(EmbeddingRequestSchema)
  @ApiAnswers(200, EmbeddingsSchema, [402, 403, 404, 502, 504])
  async embed(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.pipeline.run(request.principal!, this.#caller(request, reply), async (caller) => new JsonCall(EMBEDDINGS, await caller.readBody()));
  }

  @Post('images/generations')
  @HttpCode(200)
  @ApiCallHeaders()
  @ApiJsonBody(ImageRequestSchema)
  @ApiAnswers(200, ImagesSchema, [402, 403, 404, 502, 504])
  async generateImages(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.pipeline.run(request.principal!, this.#caller(request, reply), async (caller) => new JsonCall(IMAGE_GENERATIONS, await caller.readBody()));
  }

  @Post('tokenize-text')
  @HttpCode(200)
  @ApiCallHeaders()
  @ApiJsonBody(TokenizeRequestSchema)
  @ApiAnswers(200, TokensSchema, [402, 403, 404, 502, 504])
  async tokenize(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    await this.pipeline.run(request.principal!, this.#caller(request, reply), async (caller) => new JsonCall(TOKENIZE, await caller.readBody()));
  }

  #caller(request: FastifyRequest, reply: FastifyReply): Caller {
    return new Caller(request, reply, this.env.http.bodyLimitBytes);
  }
}
