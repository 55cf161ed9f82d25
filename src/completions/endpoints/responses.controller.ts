import { Controller, Delete, Get, HttpCode, Inject, Param, Post, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiQuery, ApiResponse, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { Invoke } from '../../auth/route-access.ts';
import { ENV } from '../../env.ts';
import type { Env } from '../../env.ts';
import { ApiAnswers, ApiErrors, ApiJsonBody, openApiSchema } from '../../openapi/documented.ts';
import { GatewayError } from '../../shared/gateway-error.ts';
import { Caller } from '../caller.ts';
import { CompletionPipeline } from '../completion-pipeline.ts';
import { StoredResponses } from '../stored-responses.ts';
import { ApiCallHeaders } from './api-call-headers.ts';
import { ResponseCall } from './response-call.ts';
import { parseResponseRequest, ResponseRequestSchema } from './response-request.ts';
import { StoredResponseCall } from './stored-response-call.ts';

const ResponseSchema = Type.Object({ id: Type.String(), object: Type.Literal('response'), status: Type.String(), model: Type.String(), output: Type.Array(Type.Unknown()), usage: Type.Optional(Type.Unknown()) });
const ResponseEventSchema = Type.Object({ type: Type.String(), sequence_number: Type.Integer({ minimum: 0 }) });
const InputItemsSchema = Type.Object({ object: Type.Literal('list'), data: Type.Array(Type.Unknown()), has_more: Type.Boolean() });
const DeletedSchema = Type.Object({ id: Type.String(), object: Type.String(), deleted: Type.Boolean() });
/** What the list of input items takes, and hands on. */
const ITEM_QUERY: Readonly<Record<string, RegExp>> = { limit: /^([1-9]\d?|100)$/, order: /^(asc|desc)$/, after: /^[\w-]{1,128}$/ };

/** `/v1/responses`: answers, and those that the provider keeps, each only for the tenant that had it made. */
@ApiTags('responses')
@ApiBearerAuth()
@Controller('v1/responses')
@Invoke()
export class ResponsesController {
  constructor(
    @Inject(CompletionPipeline) private readonly pipeline: CompletionPipeline,
    @Inject(StoredResponses) private readonly storedResponses: StoredResponses,
    @Inject(ENV) private readonly env: Env,
  ) {}

  @Post()
  @HttpCode(200)
  @ApiCallHeaders()
  @ApiJsonBody(ResponseRequestSchema)
  @ApiErrors(401, 402, 403, 404, 429, 502, 503, 504)
  @ApiResponse({
    status: 200, description: 'One response, or with stream: true its events',
    content: { 'application/json': { schema: openApiSchema(ResponseSchema) }, 'text/event-stream': { schema: openApiSchema(ResponseEventSchema) } },
  })
  async create(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const { tenantId } = request.principal!;
    await this.pipeline.run(request.principal!, this.#caller(request, reply), async (caller) => {
      const parsed = parseResponseRequest(await caller.readBody());
      const previousId = parsed.request.previous_response_id ?? undefined;
      const previous = previousId === undefined ? undefined : await this.storedResponses.find(tenantId, previousId, 'previous_response_id');
      return new ResponseCall(parsed, previous, this.env.defaults);
    });
  }

  @Get(':id')
  @ApiAnswers(200, ResponseSchema, [403, 404, 502, 504])
  async get(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id') id: string): Promise<void> {
    await this.#runStored(request, reply, id, 'GET', '');
  }

  @Delete(':id')
  @ApiAnswers(200, DeletedSchema, [403, 404, 502, 504])
  async delete(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id') id: string): Promise<void> {
    await this.#runStored(request, reply, id, 'DELETE', '');
  }

  @Get(':id/input_items')
  @ApiQuery({ name: 'limit', required: false, schema: { type: 'integer', minimum: 1, maximum: 100, default: 20 } })
  @ApiQuery({ name: 'order', required: false, schema: { type: 'string', enum: ['asc', 'desc'], default: 'asc' } })
  @ApiQuery({ name: 'after', required: false, schema: { type: 'string' } })
  @ApiAnswers(200, InputItemsSchema, [400, 403, 404, 502, 504])
  async inputItems(@Req() request: FastifyRequest, @Res() reply: FastifyReply, @Param('id') id: string, @Query() query: Record<string, unknown>): Promise<void> {
    await this.#runStored(request, reply, id, 'GET', `/input_items${itemQuery(query)}`);
  }

  async #runStored(request: FastifyRequest, reply: FastifyReply, id: string, method: 'GET' | 'DELETE', below: string): Promise<void> {
    const { tenantId } = request.principal!;
    await this.pipeline.run(request.principal!, this.#caller(request, reply), async () => {
      const stored = await this.storedResponses.find(tenantId, id);
      return new StoredResponseCall(stored, { method, path: `/responses/${stored.id}${below}` });
    });
  }

  #caller(request: FastifyRequest, reply: FastifyReply): Caller {
    return new Caller(request, reply, this.env.http.bodyLimitBytes);
  }
}

/** Only what is known goes on, in a shape that cannot mean anything else. */
function itemQuery(query: Record<string, unknown>): string {
  const known = Object.entries(query).map(([name, value]) => {
    if (!Object.hasOwn(ITEM_QUERY, name) || typeof value !== 'string' || !ITEM_QUERY[name]!.test(value)) {
      throw new GatewayError('invalid_request', { publicMessage: 'The list takes limit (1 to 100), order (asc or desc) and after (an id).', param: name.slice(0, 64) });
    }
    return `${name}=${value}`;
  });
  return known.length === 0 ? '' : `?${known.join('&')}`;
}
