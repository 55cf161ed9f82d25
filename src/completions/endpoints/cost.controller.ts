import { Controller, HttpCode, Inject, Post, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { clientIp } from '../../shared/client-ip.ts';
import { Type, type Static } from 'typebox';
import { Invoke } from '../../auth/route-access.ts';
import { ENV } from '../../env.ts';
import type { Env } from '../../env.ts';
import { ApiAnswers, ApiJsonBody } from '../../openapi/documented.ts';
import { GatewayError } from '../../shared/gateway-error.ts';
import { readJsonBody } from '../../shared/read-body.ts';
import { formatUsd, parseUsd } from '../../shared/usd-ticks.ts';
import { CompletionPipeline } from '../completion-pipeline.ts';
import { ChatCall } from './chat-call.ts';
import { MessagesSchema, parseCompletionRequest } from './chat-request.ts';
import { Nullable } from './open-schema.ts';
import { RequestSchema } from './request-schema.ts';

const Usd = Type.String({ description: 'Decimal string of USD' });
const Tokens = Type.Integer({ minimum: 0 });
/** The seed's `optimize_for_cost(prompt, budget)`, which also takes a conversation. */
export const OptimizeRequestSchema = Type.Object({
  prompt: Nullable(Type.String({ minLength: 1 })),
  messages: Nullable(MessagesSchema),
  budget_usd: Nullable(Type.Union([Type.String({ maxLength: 32 }), Type.Number({ minimum: 0 })], { description: 'Most that the call may cost' })),
}, { additionalProperties: false });
const OptimizeAnswer = Type.Object({
  model: Type.String(), max_tokens: Tokens, temperature: Type.Number(), complexity: Type.Number({ minimum: 0, maximum: 1 }),
  predicted: Type.Object({ input_tokens: Tokens, output_tokens: Type.Object({ p50: Tokens, p90: Tokens }), cost_usd: Type.Object({ p50: Usd, p90: Usd }) }),
  budget_usd: Type.Union([Usd, Type.Null()]), reasons: Type.Array(Type.String()),
});

const schema = new RequestSchema(OptimizeRequestSchema, []);

/** `POST /v1/cost/optimize`: which model a call should take, how long its answer may be, and what it is likely to cost. Nothing is sent, and nothing charged. */
@ApiTags('cost')
@ApiBearerAuth()
@Controller('v1/cost')
@Invoke()
export class CostController {
  constructor(
    @Inject(CompletionPipeline) private readonly pipeline: CompletionPipeline,
    @Inject(ENV) private readonly env: Env,
  ) {}

  @Post('optimize')
  @HttpCode(200)
  @ApiJsonBody(OptimizeRequestSchema)
  @ApiAnswers(200, OptimizeAnswer, [402, 403, 404])
  async optimize(@Req() request: FastifyRequest): Promise<unknown> {
    const { request: body } = schema.parse(await readJsonBody(request.raw, this.env.http.bodyLimitBytes));
    const budgetTicks = readBudget(body);
    const messages = body.messages ?? (body.prompt === undefined || body.prompt === null ? undefined : [{ role: 'user', content: body.prompt }]);
    if (messages === undefined || (body.messages && body.prompt)) throw new GatewayError('invalid_request', { publicMessage: 'Send either prompt or messages.', param: 'prompt' });
    const call = new ChatCall(parseCompletionRequest(Buffer.from(JSON.stringify({ messages }))), this.env.defaults);
    const { choice, plan } = this.pipeline.optimize(request.principal!, call, { headers: request.headers, ip: clientIp(request) }, budgetTicks);
    const { selection, complexity, temperature, inputTokens, outputTokens, costTicks } = choice;
    return {
      model: selection.option.name, max_tokens: plan.maxOutputTokens, temperature, complexity: Number(complexity.toFixed(4)),
      predicted: { input_tokens: inputTokens, output_tokens: outputTokens, cost_usd: { p50: formatUsd(costTicks.p50), p90: formatUsd(costTicks.p90) } },
      budget_usd: budgetTicks === undefined ? null : formatUsd(budgetTicks), reasons: selection.reasons,
    };
  }
}

function readBudget({ budget_usd: given }: Static<typeof OptimizeRequestSchema>): bigint | undefined {
  if (given === undefined || given === null) return undefined;
  // A number is written out: 1e-7 is no decimal that anyone can check.
  const text = typeof given === 'string' ? given : given.toFixed(10).replace(/\.?0+$/, '');
  const ticks = parseUsd(text);
  if (ticks === undefined) throw new GatewayError('invalid_request', { publicMessage: 'budget_usd takes a decimal number of USD such as "0.05".', param: 'budget_usd' });
  return ticks;
}
