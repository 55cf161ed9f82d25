import type { FastifyReply } from 'fastify';
import type { TSchema } from 'typebox';
import { Type, type Static } from 'typebox';
import type { Model } from '../../catalogue/catalogue.ts';
import type { ProviderUsage } from '../../catalogue/token-price.ts';
import { NO_COST, type Candidate, type CostFacts, type Plan } from '../../cost/plan.ts';
import type { AnswerReader } from '../../provider/answer-reader.ts';
import type { UpstreamRequest } from '../../provider/grok-client.ts';
import { FREE_OF_CHARGE, readEmbeddingUsage, readImageUsage } from '../../provider/grok-usage.ts';
import { JsonAnswerReader } from '../../provider/json-answer.ts';
import { JsonAnswer, JsonWhole, type CompletionAnswer } from '../completion-answer.ts';
import type { RequestedCall } from '../requested-call.ts';
import { withMembers } from '../../shared/json-members.ts';
import { assertModelTakes, unsupported, writesText } from './model-fit.ts';
import { Anything, ModelName, Nullable, OPEN } from './open-schema.ts';
import { RequestSchema, type ParsedRequest } from './request-schema.ts';

/** @see https://platform.openai.com/docs/api-reference/embeddings */
export const EmbeddingRequestSchema = Type.Object({
  model: ModelName,
  input: Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String({ minLength: 1 }), { minItems: 1, maxItems: 128 })]),
  encoding_format: Nullable(Type.String()), dimensions: Nullable(Type.Integer({ minimum: 1 })), user: Nullable(Type.String()),
}, OPEN);

/** @see https://platform.openai.com/docs/api-reference/images/create */
export const ImageRequestSchema = Type.Object({
  model: ModelName,
  prompt: Type.String({ minLength: 1 }),
  n: Nullable(Type.Integer({ minimum: 1, maximum: 10 })),
  response_format: Nullable(Type.String({ description: 'url or b64_json' })),
  aspect_ratio: Anything('such as 16:9'), resolution: Anything('1k, 1.5k or 2k'), quality: Anything('of some models'), deferred: Nullable(Type.Boolean()), user: Nullable(Type.String()),
}, OPEN);

/** @see https://docs.x.ai/docs/api-reference */
export const TokenizeRequestSchema = Type.Object({ model: ModelName, text: Type.String(), user: Nullable(Type.String()) }, OPEN);

/** What tells one of these endpoints from another. */
interface JsonEndpoint<T extends TSchema> {
  path: string;
  capability: string;
  schema: RequestSchema<T>;
  /** @throws {GatewayError} `unsupported_parameter` */
  costFacts: (parsed: ParsedRequest<Static<T>>, model: Model) => CostFacts;
  /** The list that a good answer has. */
  list: 'data' | 'token_ids';
  readUsage: (answer: Record<string, unknown>) => ProviderUsage | undefined;
}

export const EMBEDDINGS: JsonEndpoint<typeof EmbeddingRequestSchema> = {
  path: '/embeddings', capability: 'embeddings', list: 'data', readUsage: readEmbeddingUsage,
  schema: new RequestSchema(EmbeddingRequestSchema, [{ key: 'input', entry: Type.String({ minLength: 1 }), max: 128 }]),
  costFacts: ({ body, request }, model) => {
    assertModelTakes(model, 'embeddings', request);
    return { ...NO_COST, textBytes: body.length };
  },
};

export const IMAGE_GENERATIONS: JsonEndpoint<typeof ImageRequestSchema> = {
  path: '/images/generations', capability: 'image_output', list: 'data', readUsage: readImageUsage, schema: new RequestSchema(ImageRequestSchema, []),
  costFacts: ({ request }, model) => {
    assertModelTakes(model, 'images', request);
    if (request.deferred === true) throw unsupported('deferred', 'Deferred images are not offered here. Leave it out.');
    return { ...NO_COST, generatedImages: request.n ?? 1 };
  },
};

export const TOKENIZE: JsonEndpoint<typeof TokenizeRequestSchema> = {
  path: '/tokenize-text', capability: 'text', list: 'token_ids', readUsage: () => FREE_OF_CHARGE, schema: new RequestSchema(TokenizeRequestSchema, []),
  costFacts: (_parsed, model) => {
    if (!writesText(model)) throw unsupported('model', `The model ${model.id} has no tokens. GET /v1/language-models lists those that have.`);
    return NO_COST;
  },
};

/** A call whose answer is one JSON object that goes to the caller as it came. */
export class JsonCall<T extends TSchema> implements RequestedCall {
  readonly stream = false;
  readonly storage = 'none';
  readonly deployment = undefined;
  readonly opening = undefined;
  readonly question = undefined;
  readonly #parsed: ParsedRequest<Static<T>>;

  /** @throws {GatewayError} `invalid_request` */
  constructor(
    private readonly endpoint: JsonEndpoint<T>,
    readonly body: Buffer,
  ) {
    this.#parsed = endpoint.schema.parse(body);
  }

  get identity(): Buffer {
    return this.body;
  }

  get model(): string | undefined {
    return (this.#parsed.request as { model?: string | null }).model ?? undefined;
  }

  get capabilities(): string[] {
    return [this.endpoint.capability];
  }

  costFacts(model: Model): CostFacts {
    return this.endpoint.costFacts(this.#parsed, model);
  }

  upstream(_plan: Plan, { upstreamModel }: Pick<Candidate, 'upstreamModel'>): Omit<UpstreamRequest, 'conversationId'> {
    return { method: 'POST', path: this.endpoint.path, body: withMembers(this.body, this.#parsed.members, new Map([['model', JSON.stringify(upstreamModel)]])), accept: 'json' };
  }

  reader(): AnswerReader {
    return new JsonAnswerReader((answer) => Array.isArray(answer[this.endpoint.list]), this.endpoint.readUsage);
  }

  answer(reply: FastifyReply): CompletionAnswer {
    return new JsonAnswer(reply);
  }

  assembly(): JsonWhole {
    return new JsonWhole();
  }

  asStream(): never {
    throw new Error('this endpoint has no streams');
  }

  stored(): undefined {
    return undefined;
  }
}
