import { Type, type Static } from 'typebox';
import { readConfigFile } from '../shared/config-files.ts';
import { parseUsd, parseUsdPerMillion } from '../shared/usd-ticks.ts';

/** Ticks per token, for the three kinds of token that xAI bills. */
export interface TokenRates {
  input: bigint;
  cachedInput: bigint;
  output: bigint;
}

export interface ModelPrice {
  /** Zero where the model does not bill that kind of token. */
  base: TokenRates;
  /** Ticks per generated image; zero for models that generate none. */
  perImage: bigint;
  /** Applies to every token of a request whose prompt has at least this many tokens, cached ones included. */
  longContext: { fromPromptTokens: number; rates: TokenRates } | undefined;
  priorityMultiplier: bigint;
  /** Which state of the price it is: 0 for that of the reviewed file. */
  revision: number;
  source: string;
  asOf: string;
}

export interface ReasoningFacts {
  /** Values of `reasoning_effort` that the model takes; empty where it refuses the field. */
  efforts: readonly string[];
  defaultEffort: string;
  /** Reasoning tokens to hold money for, by effort. */
  allowanceTokens: Readonly<Record<string, number>>;
}

export interface Model {
  id: string;
  aliases: readonly string[];
  endpoints: readonly string[];
  /** Undefined for models that have no context, such as those of images. */
  contextTokens: number | undefined;
  createdUnix: number | undefined;
  capabilities: readonly string[];
  refuses: readonly string[];
  reasoning: ReasoningFacts | undefined;
  firstByteTimeoutMs: number | undefined;
  price: ModelPrice | undefined;
  /** A careful (low) number of UTF-8 bytes per input token. */
  bytesPerToken: number;
  imageTokens: number;
  /** Output tokens of a call, while nothing has been learned. */
  outputPrior: { p50: number; p90: number };
  /** Fewer output tokens than this are of no use to anyone: a call whose ceiling leaves less is refused. */
  outputTokensLeast: number;
}

/** A place that serves models: an endpoint with a key. Also called a shard, where several serve the same model. */
export interface Deployment {
  id: string;
  /** Undefined: the endpoint, key and certificate of the environment. */
  baseUrl: string | undefined;
  /** Names (alias or id) of the models it serves; `*` for all of them. */
  models: readonly string[];
  /** What the model is called there; undefined where it has its own id. */
  upstreamModel: string | undefined;
  region: string;
  accelerator: 'shared' | 'dedicated';
  /** Whether the provider keeps nothing of what is sent there; undefined where nobody has said. */
  zdr: boolean | undefined;
  /** Share of the traffic relative to the others; zero takes none. */
  weight: number;
  /** Calls under way at once. */
  maxConcurrency: number;
  /** Its prices in percent of the model's: regional endpoints cost more. */
  pricePercent: bigint;
  /** Sealed; undefined where the server takes none, or the environment has it. */
  sealedApiKey: string | undefined;
  /** Own TLS, PEM or paths of PEM files; the environment's, where the endpoint is. */
  tls: { cert: string | undefined; key: string | undefined; ca: string | undefined };
  /** Whether operators vouch for its origin, wherever it is. */
  anyAddress: boolean;
}

/** What a caller's model name stands for. */
export interface ResolvedModel {
  /** As the caller wrote it. */
  requested: string;
  /** Our alias, where the name is one; else the model's id. */
  name: string;
  model: Model;
  deployments: readonly Deployment[];
  /** Aliases that may serve instead when no deployment of this one can. */
  fallbacks: readonly string[];
  /** Complexity up to which it is expected to do, 0 to 1; undefined where the optimizer does not choose it. */
  reach: number | undefined;
}

/** Calls that a deployment takes at once unless it says otherwise. */
export const MAX_CONCURRENCY_DEFAULT = 2_000;

/** What a deployment may be called: it stands in paths, headers and metrics. */
export const DEPLOYMENT_ID_PATTERN = '^[a-z0-9][a-z0-9._-]{0,62}$';

const Decimal = Type.String({ pattern: '^\\d+(\\.\\d+)?$' });
const Rates = Type.Object({ input: Decimal, cached_input: Decimal, output: Decimal }, { additionalProperties: false });
/** Embeddings bill input alone. */
const InputRate = Type.Object({ input: Decimal }, { additionalProperties: false });
const ModelsFile = Type.Object({
  defaults: Type.Object({
    estimate: Type.Object({ bytes_per_token: Type.Number({ exclusiveMinimum: 0 }), image_tokens: Type.Integer({ minimum: 1 }) }, { additionalProperties: false }),
    priority_multiplier: Type.Integer({ minimum: 1 }),
    output_prior: Type.Object({ p50: Type.Integer({ minimum: 1 }), p90: Type.Integer({ minimum: 1 }) }, { additionalProperties: false }),
    output_tokens_least: Type.Integer({ minimum: 1 }),
  }, { additionalProperties: false }),
  aliases: Type.Record(Type.String(), Type.Object({ model: Type.String(), fallbacks: Type.Optional(Type.Array(Type.String())), reach: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })) }, { additionalProperties: false })),
  deployments: Type.Array(Type.Object({
    id: Type.String({ pattern: DEPLOYMENT_ID_PATTERN }), base_url: Type.String(), models: Type.Array(Type.String()), region: Type.String(),
    accelerator: Type.Union([Type.Literal('shared'), Type.Literal('dedicated')]),
    upstream_model: Type.Optional(Type.String()), zdr: Type.Optional(Type.Boolean()), weight: Type.Optional(Type.Number({ minimum: 0, maximum: 1000 })),
    max_concurrency: Type.Optional(Type.Integer({ minimum: 1 })), price_percent: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    api_key: Type.Optional(Type.String({ pattern: '^enc:' })),
  }, { additionalProperties: false }), { minItems: 1 }),
  models: Type.Array(Type.Object({
    id: Type.String(), aliases: Type.Array(Type.String()), endpoints: Type.Array(Type.String()), context_tokens: Type.Optional(Type.Integer({ minimum: 1 })),
    created_unix: Type.Optional(Type.Integer()), capabilities: Type.Array(Type.String()), refuses: Type.Array(Type.String()),
    reasoning: Type.Optional(Type.Object({
      efforts: Type.Array(Type.String()), default_effort: Type.String(), allowance_tokens: Type.Record(Type.String(), Type.Integer({ minimum: 0 })),
    }, { additionalProperties: false })),
    first_byte_timeout_ms: Type.Optional(Type.Integer({ minimum: 1 })),
    price: Type.Optional(Type.Object({
      usd_per_million: Type.Optional(Type.Union([Rates, InputRate])),
      usd_per_image: Type.Optional(Decimal),
      long_context: Type.Optional(Type.Object({ from_prompt_tokens: Type.Integer({ minimum: 1 }), usd_per_million: Rates }, { additionalProperties: false })),
      source: Type.String(), as_of: Type.String(),
    }, { additionalProperties: false })),
  }, { additionalProperties: false })),
}, { additionalProperties: false });
type ModelsFile = Static<typeof ModelsFile>;

/** Names, prices and properties of all models, from `config/models.yaml`, and where they are served. */
export class Catalogue {
  readonly #reviewed: readonly Model[];
  readonly #models = new Map<string, Model>();
  /** What each name is shown as, and which other names may stand in for it. */
  readonly #names = new Map<string, { name: string; model: Model; fallbacks: readonly string[]; reach: number | undefined }>();
  #deployments: readonly Deployment[];
  #byName: ReadonlyMap<string, ResolvedModel>;
  /** Ids that `GET /v1/models` lists: our aliases first, then the provider's models. */
  readonly listedNames: readonly string[];

  constructor(file: ModelsFile) {
    const models = file.models.map((entry) => toModel(entry, file.defaults));
    this.#reviewed = models;
    const add = (name: string, shownAs: string, model: Model, fallbacks: readonly string[] = [], reach?: number): void => {
      if (this.#names.has(name)) throw new Error(`config/models.yaml: the name ${name} stands for two models`);
      this.#names.set(name, { name: shownAs, model, fallbacks, reach });
    };
    for (const model of models) {
      this.#models.set(model.id, model);
      for (const name of [model.id, ...model.aliases]) add(name, model.id, model);
    }
    for (const [alias, { model: id, fallbacks, reach }] of Object.entries(file.aliases)) {
      const model = this.#models.get(id);
      if (!model) throw new Error(`config/models.yaml: alias ${alias} names the unknown model ${id}`);
      add(alias, alias, model, fallbacks, reach);
    }
    for (const [alias, { fallbacks = [] }] of Object.entries(file.aliases)) {
      for (const fallback of fallbacks) if (!this.#names.has(fallback)) throw new Error(`config/models.yaml: alias ${alias} falls back to the unknown model ${fallback}`);
    }
    this.listedNames = [...Object.keys(file.aliases), ...models.map((model) => model.id)];
    this.#deployments = file.deployments.map(toDeployment);
    this.#byName = this.#index();
  }

  get deployments(): readonly Deployment[] {
    return this.#deployments;
  }

  /** From now on, these serve. */
  useDeployments(deployments: readonly Deployment[]): void {
    this.#deployments = deployments;
    this.#byName = this.#index();
  }

  /** Finds a model by id or alias; undefined when nothing has that name. */
  resolve(name: string): ResolvedModel | undefined {
    return this.#byName.get(name);
  }

  /** The models of the reviewed file, at its own prices. */
  get reviewedModels(): readonly Model[] {
    return this.#reviewed;
  }

  /**
   * From now on, models cost this; calls that were admitted before cost what they did then.
   *
   * @param prices by model id; the reviewed price for all others
   */
  usePrices(prices: ReadonlyMap<string, ModelPrice>): void {
    for (const model of this.#reviewed) this.#models.set(model.id, { ...model, price: prices.get(model.id) ?? model.price });
    for (const [name, entry] of this.#names) this.#names.set(name, { ...entry, model: this.#models.get(entry.model.id)! });
    this.#byName = this.#index();
  }

  /** What the optimizer may choose from. */
  get optimizable(): ResolvedModel[] {
    return this.listedNames.map((name) => this.#byName.get(name)!).filter(({ reach }) => reach !== undefined);
  }

  /** The model that a deployment serves under its own name for it, where we know that model; else the one it stands in for. */
  modelAt(deployment: Deployment, model: Model): Model {
    return (deployment.upstreamModel === undefined ? undefined : this.#models.get(deployment.upstreamModel)) ?? model;
  }

  #index(): Map<string, ResolvedModel> {
    const names = new Map(this.#deployments.map((deployment) => [deployment, new Set(deployment.models.map((model) => this.#names.get(model)?.name ?? model))]));
    const serving = (name: string): Deployment[] => this.#deployments.filter((deployment) => names.get(deployment)!.has('*') || names.get(deployment)!.has(name));
    return new Map([...this.#names].map(([requested, { name, model, fallbacks, reach }]) => [requested, { requested, name, model, fallbacks, reach, deployments: serving(name) }]));
  }
}

export function loadCatalogue(folder?: string): Catalogue {
  return new Catalogue(readConfigFile('models.yaml', ModelsFile, folder));
}

function toModel(entry: ModelsFile['models'][number], defaults: ModelsFile['defaults']): Model {
  const price = entry.price;
  if (price !== undefined && price.usd_per_million === undefined && price.usd_per_image === undefined) throw new Error(`config/models.yaml: ${entry.id}: a price needs usd_per_million or usd_per_image`);
  return {
    id: entry.id,
    aliases: entry.aliases,
    endpoints: entry.endpoints,
    contextTokens: entry.context_tokens,
    createdUnix: entry.created_unix,
    capabilities: entry.capabilities,
    refuses: entry.refuses,
    reasoning: entry.reasoning && {
      efforts: entry.reasoning.efforts,
      defaultEffort: entry.reasoning.default_effort,
      allowanceTokens: entry.reasoning.allowance_tokens,
    },
    firstByteTimeoutMs: entry.first_byte_timeout_ms,
    price: price && {
      base: price.usd_per_million === undefined ? NO_RATES : toRates(entry.id, price.usd_per_million),
      perImage: price.usd_per_image === undefined ? 0n : toImagePrice(entry.id, price.usd_per_image),
      longContext: price.long_context && {
        fromPromptTokens: price.long_context.from_prompt_tokens,
        rates: toRates(entry.id, price.long_context.usd_per_million),
      },
      priorityMultiplier: BigInt(defaults.priority_multiplier),
      revision: 0,
      source: price.source,
      asOf: price.as_of,
    },
    bytesPerToken: defaults.estimate.bytes_per_token,
    imageTokens: defaults.estimate.image_tokens,
    outputPrior: defaults.output_prior,
    outputTokensLeast: defaults.output_tokens_least,
  };
}

const NO_RATES: TokenRates = { input: 0n, cachedInput: 0n, output: 0n };

function toImagePrice(modelId: string, usd: string): bigint {
  const ticks = parseUsd(usd);
  if (ticks === undefined || ticks === 0n) throw new Error(`config/models.yaml: ${modelId}: ${usd} is no price of whole ticks per image above zero`);
  return ticks;
}

function toRates(modelId: string, usd: Static<typeof Rates> | Static<typeof InputRate>): TokenRates {
  const ticks = (text: string): bigint => {
    const parsed = parseUsdPerMillion(text);
    if (parsed === undefined || parsed === 0n) throw new Error(`config/models.yaml: ${modelId}: ${text} is no price of whole ticks per token above zero`);
    return parsed;
  };
  if (!('output' in usd)) return { ...NO_RATES, input: ticks(usd.input), cachedInput: ticks(usd.input) };
  return { input: ticks(usd.input), cachedInput: ticks(usd.cached_input), output: ticks(usd.output) };
}

function toDeployment(entry: ModelsFile['deployments'][number]): Deployment {
  return {
    id: entry.id,
    baseUrl: entry.base_url === 'env' ? undefined : entry.base_url,
    models: entry.models,
    upstreamModel: entry.upstream_model,
    region: entry.region,
    accelerator: entry.accelerator,
    zdr: entry.zdr,
    weight: entry.weight ?? 1,
    maxConcurrency: entry.max_concurrency ?? MAX_CONCURRENCY_DEFAULT,
    pricePercent: BigInt(entry.price_percent ?? 100),
    sealedApiKey: entry.api_key,
    tls: { cert: undefined, key: undefined, ca: undefined },
    anyAddress: true,
  };
}
