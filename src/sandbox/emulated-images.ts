import { createHash } from 'node:crypto';
import { NO_TEXT } from './emulated-answer.ts';
import type { Generation, Work } from './emulated-call.ts';
import { invalid, notEmulated, unknownModel } from './emulated-errors.ts';
import type { EmulatorScript } from './emulated-script.ts';
import type { CallContext } from './emulated-service.ts';
import { count, fields, flag, oneOf, text } from './emulated-shape.ts';
import { countTokens } from './emulated-tokens.ts';

// Facts as of October 2026, from the provider's documentation; prices in USD ticks per image.

export interface EmulatedImageModel {
  readonly id: string;
  readonly aliases: readonly string[];
  readonly priceTicks: number;
}

export const EMULATED_IMAGE_MODELS: readonly EmulatedImageModel[] = [
  { id: 'grok-imagine-image-2.0', aliases: [], priceTicks: 400_000_000 },
  { id: 'grok-imagine-image', aliases: [], priceTicks: 200_000_000 },
  { id: 'grok-imagine-image-quality', aliases: [], priceTicks: 500_000_000 },
];
/** Retired on 2026-05-15: still answered, by its successor. */
const RETIRED: Readonly<Record<string, string>> = { 'grok-imagine-image-pro': 'grok-imagine-image-quality' };

const IMAGES_MAX = 10;
const MIME_TYPE = 'image/png';
/** One pixel. */
const PNG_BASE64 = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
export const PNG = Buffer.from(PNG_BASE64, 'base64');

const checkShape = fields(
  { model: text, prompt: text },
  {
    n: count, response_format: oneOf('url', 'b64_json'), aspect_ratio: text, resolution: oneOf('1k', '1.5k', '2k'),
    quality: text, user: text, deferred: flag,
  },
);

interface ImageBody {
  model: string;
  prompt: string;
  n?: number | null;
  response_format?: 'url' | 'b64_json' | null;
  deferred?: boolean | null;
}

/** None of them is served in the US. @throws EmulatedRefusal 404 */
export function imageModel(models: readonly EmulatedImageModel[], name: string): EmulatedImageModel {
  const found = models.find(({ id }) => id === (RETIRED[name] ?? name));
  if (found === undefined) throw unknownModel(name);
  return found;
}

/** POST /v1/images/generations */
export function drawImages({ service, json, stamp, admit }: CallContext): Work {
  checkShape(json, '');
  const body = json as ImageBody;
  if (body.deferred) throw notEmulated('deferred images');
  const model = imageModel(service.imageModels, body.model);
  const images = body.n ?? 1;
  if (images < 1 || images > IMAGES_MAX) throw invalid(`Invalid value for n: ${images} is out of range.`);
  const promptTokens = countTokens(body.prompt);
  const script = admit(model.id, promptTokens);
  const costTicks = BigInt(images) * BigInt(model.priceTicks);
  return {
    modelId: model.id, script, promptTokens,
    generate: (): Generation => ({
      answer: NO_TEXT,
      withoutTokens: true,
      costTicks: () => costTicks,
      plainBody: () => JSON.stringify({
        data: Array.from({ length: images }, (_, index) =>
          body.response_format === 'b64_json' ? { b64_json: PNG_BASE64, mime_type: MIME_TYPE } : { url: `${service.origin}/__emulator/images/${stamp.id}-${index}.png`, mime_type: MIME_TYPE }),
        ...imageUsage(script, costTicks),
      }),
    }),
  };
}

function imageUsage({ no_usage: none, usage, cost_usd_ticks: scriptedTicks }: EmulatorScript, costTicks: bigint): Record<string, unknown> {
  return none ? {} : { usage: usage ?? { cost_in_usd_ticks: scriptedTicks ?? Number(costTicks) } };
}

/** An entry of `GET /v1/image-generation-models`. */
export function imageModelEntry({ id, aliases, priceTicks }: EmulatedImageModel): Record<string, unknown> {
  return {
    id,
    fingerprint: `fp_${createHash('sha256').update(id).digest('hex').slice(0, 10)}`,
    created: Date.UTC(2026, 0, 28) / 1000,
    object: 'model',
    owned_by: 'xai',
    version: '1.0.0',
    input_modalities: ['text', 'image'],
    output_modalities: ['image'],
    image_price: priceTicks,
    pricing: [{ price_per_image: priceTicks }],
    aliases,
  };
}
