import { Controller, Get, Inject, Param, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { clientIp } from '../../shared/client-ip.ts';
import { Type } from 'typebox';
import { AccessRules } from '../../auth/access-rules.ts';
import type { Principal } from '../../auth/principal.ts';
import { Invoke } from '../../auth/route-access.ts';
import { Catalogue, type ResolvedModel } from '../../catalogue/catalogue.ts';
import { TIERS, type Tiers } from '../../catalogue/tiers.ts';
import { candidatesFor, NO_COST, planCall } from '../../cost/plan.ts';
import { ApiAnswers } from '../../openapi/documented.ts';
import { CLOCK, type Clock } from '../../shared/clock.ts';
import { GatewayError } from '../../shared/gateway-error.ts';
import { authorize } from '../access.ts';
import { writesText } from './model-fit.ts';

const Price = Type.Optional(Type.Integer({ minimum: 0, description: 'Ticks per token; 10,000,000,000 are one USD' }));
const PriceFields = {
  prompt_text_token_price: Price, cached_prompt_text_token_price: Price, completion_text_token_price: Price,
  prompt_text_token_price_long_context: Price, cached_prompt_text_token_price_long_context: Price, completion_text_token_price_long_context: Price,
  long_context_threshold: Type.Optional(Type.Integer({ minimum: 0 })),
};
export const ModelSchema = Type.Object({
  id: Type.String(), object: Type.Literal('model'), created: Type.Integer(), owned_by: Type.String(), aliases: Type.Array(Type.String()), context_length: Type.Optional(Type.Integer()),
  ...PriceFields, image_price: Type.Optional(Type.Integer({ minimum: 0, description: 'Ticks per generated image' })),
});
export const LanguageModelSchema = Type.Object({
  id: Type.String(), object: Type.Literal('model'), created: Type.Integer(), owned_by: Type.String(), aliases: Type.Array(Type.String()), context_length: Type.Optional(Type.Integer()),
  input_modalities: Type.Array(Type.String()), output_modalities: Type.Array(Type.String()), ...PriceFields,
});

/** `GET /v1/models` and `/v1/language-models`: the models that the caller may use. */
@ApiTags('models')
@ApiBearerAuth()
@Controller('v1')
@Invoke()
export class ModelsController {
  constructor(
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(AccessRules) private readonly rules: AccessRules,
    @Inject(TIERS) private readonly tiers: Tiers,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Get('models')
  @ApiAnswers(200, Type.Object({ object: Type.Literal('list'), data: Type.Array(ModelSchema) }))
  list(@Req() request: FastifyRequest): unknown {
    return { object: 'list', data: this.#usable(request).map((model) => modelView(model)) };
  }

  @Get('models/:id')
  @ApiAnswers(200, ModelSchema, [404])
  get(@Req() request: FastifyRequest, @Param('id') id: string): unknown {
    return modelView(this.#find(request, id, () => true));
  }

  @Get('language-models')
  @ApiAnswers(200, Type.Object({ models: Type.Array(LanguageModelSchema) }))
  listLanguageModels(@Req() request: FastifyRequest): unknown {
    return { models: this.#usable(request).filter(({ model }) => writesText(model)).map((model) => languageModelView(model)) };
  }

  @Get('language-models/:id')
  @ApiAnswers(200, LanguageModelSchema, [404])
  getLanguageModel(@Req() request: FastifyRequest, @Param('id') id: string): unknown {
    return languageModelView(this.#find(request, id, ({ model }) => writesText(model)));
  }

  #usable(request: FastifyRequest): ResolvedModel[] {
    return this.catalogue.listedNames.map((name) => this.catalogue.resolve(name)!).filter((model) => this.#mayUse(request.principal!, clientIp(request), model));
  }

  #find(request: FastifyRequest, id: string, isOfKind: (model: ResolvedModel) => boolean): ResolvedModel {
    const model = this.catalogue.resolve(id);
    // What one may not use looks like what is not there.
    if (!model || !isOfKind(model) || !this.#mayUse(request.principal!, clientIp(request), model)) {
      throw new GatewayError('model_not_found', { publicMessage: 'There is no such model here. GET /v1/models lists those that you may use.', param: 'model' });
    }
    return model;
  }

  /** Decides the smallest call of a model, by the rules that decide real ones. */
  #mayUse(principal: Principal, ip: string, model: ResolvedModel): boolean {
    if (model.model.price === undefined || model.deployments.length === 0) return false;
    const capability = model.model.endpoints.includes('images') ? 'image_output' : model.model.endpoints.includes('embeddings') ? 'embeddings' : 'text';
    try {
      const plan = planCall(model, candidatesFor(this.catalogue, [model]), { ...NO_COST, maxOutputTokens: 1 }, { maxTokensCap: 1, maxCostTicks: undefined });
      authorize(this.rules.pointFor(principal.tenantId), this.tiers, principal, plan, { stream: false, dataClass: principal.dataClass, capabilities: [capability], storage: 'none' }, { ip, timeMs: this.clock.nowMs() });
      return true;
    } catch (error) {
      if (error instanceof GatewayError && error.code === 'policy_denied') return false;
      throw error;
    }
  }
}

function modelView(resolved: ResolvedModel): Record<string, unknown> {
  const { price } = resolved.model;
  return { ...commonView(resolved), ...(price !== undefined && price.perImage > 0n ? { image_price: Number(price.perImage) } : {}) };
}

function languageModelView(resolved: ResolvedModel): Record<string, unknown> {
  const { capabilities } = resolved.model;
  return { ...commonView(resolved), input_modalities: capabilities.includes('image_input') ? ['text', 'image'] : ['text'], output_modalities: ['text'] };
}

function commonView({ name, model }: ResolvedModel): Record<string, unknown> {
  const base = model.price !== undefined && model.price.base.input > 0n ? model.price.base : undefined;
  const long = model.price?.longContext;
  return {
    id: name, object: 'model', created: model.createdUnix ?? 0, owned_by: name === model.id ? 'xai' : 'novix', aliases: name === model.id ? model.aliases : [],
    ...(model.contextTokens === undefined ? {} : { context_length: model.contextTokens }),
    ...(base && { prompt_text_token_price: Number(base.input), cached_prompt_text_token_price: Number(base.cachedInput), completion_text_token_price: Number(base.output) }),
    ...(long && {
      prompt_text_token_price_long_context: Number(long.rates.input), cached_prompt_text_token_price_long_context: Number(long.rates.cachedInput),
      completion_text_token_price_long_context: Number(long.rates.output), long_context_threshold: long.fromPromptTokens,
    }),
  };
}
