import { createHash } from 'node:crypto';
import { NO_TEXT } from './emulated-answer.ts';
import type { Work } from './emulated-call.ts';
import { invalid, unknownModel } from './emulated-errors.ts';
import type { CallContext } from './emulated-service.ts';
import { count, fields, flag, listOf, oneOf, text, type Check } from './emulated-shape.ts';
import { countTokens } from './emulated-tokens.ts';

/** The provider lists no embedding model today, so an emulator serves those that it is given. */
export interface EmulatedEmbeddingModel {
  readonly id: string;
  /** Per token. */
  readonly inputPriceTicks: number;
  readonly dimensions: number;
}

type Input = string | readonly number[];

const INPUTS_MAX = 128;

/** One text, one list of tokens, or a list of either. */
const checkInput: Check = (value, path) => {
  if (!Array.isArray(value)) return text(value, path);
  const item: Check = typeof value[0] === 'number' ? count : (inner, at) => (Array.isArray(inner) ? listOf(count)(inner, at) : text(inner, at));
  listOf(item)(value, path);
};

const checkShape = fields(
  { model: text, input: checkInput },
  { encoding_format: oneOf('float', 'base64'), dimensions: count, user: text, preview: flag },
);

interface EmbeddingBody {
  model: string;
  input: Input | readonly Input[];
  encoding_format?: 'float' | 'base64' | null;
  dimensions?: number | null;
}

/** @throws EmulatedRefusal 404 */
export function embeddingModel(models: readonly EmulatedEmbeddingModel[], name: string): EmulatedEmbeddingModel {
  const found = models.find(({ id }) => id === name);
  if (found === undefined) throw unknownModel(name);
  return found;
}

/** POST /v1/embeddings */
export function embed({ service, json, admit }: CallContext): Work {
  checkShape(json, '');
  const body = json as EmbeddingBody;
  const model = embeddingModel(service.embeddingModels, body.model);
  const inputs = inputsOf(body.input);
  const dimensions = body.dimensions ?? model.dimensions;
  if (inputs.length === 0 || inputs.length > INPUTS_MAX) throw invalid(`Between 1 and ${INPUTS_MAX} inputs are allowed.`);
  if (inputs.some(({ length }) => length === 0)) throw invalid('An input cannot be empty.');
  if (dimensions < 1 || dimensions > model.dimensions) throw invalid(`Invalid value for dimensions: ${dimensions} is out of range.`);
  const promptTokens = inputs.reduce((sum, input) => sum + (typeof input === 'string' ? countTokens(input) : input.length), 0);
  const script = admit(model.id, promptTokens);
  const vectors = () => inputs.map((input) => unitVector(`${model.id} ${JSON.stringify(input)}`, dimensions));
  return {
    modelId: model.id, script, promptTokens,
    generate: () => ({
      answer: NO_TEXT,
      withoutTokens: true,
      costTicks: () => BigInt(promptTokens) * BigInt(model.inputPriceTicks),
      plainBody: () => JSON.stringify({
        object: 'list',
        model: model.id,
        data: vectors().map((vector, index) => ({ index, object: 'embedding', embedding: body.encoding_format === 'base64' ? littleEndian(vector) : [...vector] })),
        ...(!script.no_usage && { usage: script.usage ?? { prompt_tokens: promptTokens, total_tokens: promptTokens } }),
      }),
    }),
  };
}

function inputsOf(input: EmbeddingBody['input']): readonly Input[] {
  if (typeof input === 'string') return [input];
  return typeof input[0] === 'number' ? [input as readonly number[]] : (input as readonly Input[]);
}

/** Of length 1, and the same for the same text; of different texts, about at right angles. */
function unitVector(seed: string, dimensions: number): Float32Array {
  let state = createHash('sha256').update(seed).digest().readUInt32LE(0) || 1; // a shift register that is zero stays zero
  const direction = Array.from({ length: dimensions }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  });
  const length = Math.hypot(...direction);
  return Float32Array.from(direction, (value) => value / length);
}

function littleEndian(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => bytes.writeFloatLE(value, index * 4));
  return bytes.toString('base64');
}

/** An entry of `GET /v1/embedding-models`. */
export function embeddingModelEntry({ id, inputPriceTicks }: EmulatedEmbeddingModel): Record<string, unknown> {
  return {
    id,
    fingerprint: `fp_${createHash('sha256').update(id).digest('hex').slice(0, 10)}`,
    created: Date.UTC(2026, 0, 1) / 1000,
    object: 'model',
    owned_by: 'xai',
    version: '1.0.0',
    input_modalities: ['text'],
    prompt_text_token_price: inputPriceTicks,
    prompt_image_token_price: 0,
    aliases: [],
  };
}
