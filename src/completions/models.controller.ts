import { Controller, Get, Inject, Param, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { DecisionPoint } from '../auth/decision-point.ts';
import type { Principal } from '../auth/principal.ts';
import { Invoke } from '../auth/route-access.ts';
import { Catalogue, type ResolvedModel } from '../catalogue/catalogue.ts';
import { TIERS, type Tiers } from '../catalogue/tiers.ts';
import { candidatesFor, planCall } from '../cost/plan.ts';
import { ApiAnswers } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { authorize } from './access.ts';

const Price = Type.Integer({ minimum: 0, description: 'Ticks per token' });
export const ModelSchema = Type.Object({
  id: Type.String(), object: Type.Literal('model'), created: Type.Integer(), owned_by: Type.String(), aliases: Type.Array(Type.String()), context_length: Type.Integer(),
  prompt_text_token_price: Type.Optional(Price), cached_prompt_text_token_price: Type.Optional(Price), completion_text_token_price: Type.Optional(Price),
});

/** `GET /v1/models`: the models that the caller may use. */
@ApiTags('models')
@ApiBearerAuth()
@Controller('v1/models')
@Invoke()
export class ModelsController {
  constructor(
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(DecisionPoint) private readonly decisions: DecisionPoint,
    @Inject(TIERS) private readonly tiers: Tiers,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get()
  @ApiAnswers(200, Type.Object({ object: Type.Literal('list'), data: Type.Array(ModelSchema) }))
  list(@Req() request: FastifyRequest): unknown {
    const models = this.catalogue.listedNames.map((name) => this.catalogue.resolve(name)!);
    return { object: 'list', data: models.filter((model) => this.#mayUse(request.principal!, request.ip, model)).map((model) => modelView(model)) };
  }

  @Get(':id')
  @ApiAnswers(200, ModelSchema, [404])
  get(@Req() request: FastifyRequest, @Param('id') id: string): unknown {
    const model = this.catalogue.resolve(id);
    // What one may not use looks like what is not there.
    if (!model || !this.#mayUse(request.principal!, request.ip, model)) {
      throw new GatewayError('model_not_found', { publicMessage: 'There is no such model here. GET /v1/models lists those that you may use.', param: 'model' });
    }
    return modelView(model);
  }

  /** Decides the smallest call of a model, by the rules that decide real ones. */
  #mayUse(principal: Principal, ip: string, model: ResolvedModel): boolean {
    if (model.model.price === undefined || model.deployments.length === 0) return false;
    const facts = { textBytes: 0, images: 0, maxOutputTokens: 1, choices: 1, reasoningEffort: undefined, priority: false };
    try {
      const plan = planCall(model, candidatesFor(this.catalogue, [model]), facts, { maxTokensCap: 1, maxCostTicks: undefined });
      authorize(this.decisions, this.tiers, principal, plan, { stream: false, dataClass: 'internal', capabilities: ['text'] }, { ip, timeMs: this.clock.nowMs() });
      return true;
    } catch (error) {
      if (error instanceof GatewayError && error.code === 'policy_denied') return false;
      throw error;
    }
  }
}

function modelView({ name, model }: ResolvedModel): Record<string, unknown> {
  const rates = model.price?.base;
  return {
    id: name, object: 'model', created: model.createdUnix ?? 0, owned_by: name === model.id ? 'xai' : 'novix', aliases: name === model.id ? model.aliases : [],
    context_length: model.contextTokens,
    ...(rates && { prompt_text_token_price: Number(rates.input), cached_prompt_text_token_price: Number(rates.cachedInput), completion_text_token_price: Number(rates.output) }),
  };
}
