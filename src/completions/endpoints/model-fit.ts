import type { Model } from '../../catalogue/catalogue.ts';
import type { Env } from '../../env.ts';
import { GatewayError } from '../../shared/gateway-error.ts';

/** What callers get who send none of these. */
export type Defaults = Env['defaults'];

/** Names of endpoints as `config/models.yaml` has them, and as callers know them. */
const ENDPOINTS = { chat_completions: 'chat completions', responses: 'responses', images: 'image generations', embeddings: 'embeddings' } as const;

/** Names under which xAI knows its dearer, faster service. */
const PRIORITY_TIERS = ['priority', 'fast'];

/** @throws {GatewayError} `unsupported_parameter` for a parameter that the model refuses, or where it is not served on the endpoint */
export function assertModelTakes(model: Model, endpoint: keyof typeof ENDPOINTS, request: Readonly<Record<string, unknown>>): void {
  if (!model.endpoints.includes(endpoint)) throw unsupported('model', `The model ${model.id} is not served on ${ENDPOINTS[endpoint]}. GET /v1/models lists the models.`);
  const refused = model.refuses.find((name) => (request[name] ?? undefined) !== undefined);
  if (refused !== undefined) throw unsupported(refused, `The model ${model.id} does not take ${refused}. Leave it out.`);
}

/** @throws {GatewayError} `unsupported_parameter` for an effort that the model does not know */
export function assertEffort(model: Model, effort: string | undefined, param: string): void {
  const efforts = model.reasoning?.efforts ?? [];
  if (effort === undefined || efforts.includes(effort)) return;
  throw unsupported(param, `The model ${model.id} takes ${efforts.length === 0 ? `no ${param}` : `${param} ${efforts.join(', ')}`}.`);
}

/** @throws {GatewayError} `unsupported_parameter` for tools that run at the provider, at a price nobody knows beforehand */
export function assertOwnTools(tools: readonly { type: string }[] | null | undefined): void {
  const serverSide = tools?.findIndex(({ type }) => type !== 'function') ?? -1;
  if (serverSide !== -1) throw unsupported(`tools[${serverSide}].type`, 'Only tools of type "function" are offered: the provider’s own tools have no price ceiling.');
}

export function isPriority(serviceTier: string | null | undefined): boolean {
  return PRIORITY_TIERS.includes(serviceTier ?? '');
}

/** JSON texts of our own defaults, for what the caller left out and the model takes. */
export function defaultMembers(request: Readonly<Record<string, unknown>>, model: Model, values: Readonly<Record<string, number | undefined>>): [string, string][] {
  return Object.entries(values).flatMap(([name, value]) =>
    (value === undefined || (request[name] ?? undefined) !== undefined || model.refuses.includes(name) ? [] : [[name, String(value)]]));
}

/** Whether it is a language model. */
export function writesText({ endpoints }: Model): boolean {
  return endpoints.includes('chat_completions') || endpoints.includes('responses');
}

export function isImagePart({ type }: { type: string }): boolean {
  return type === 'image_url' || type === 'input_image';
}

/**
 * Characters of an image that stands in the request itself: it is not read as text.
 *
 * @throws {GatewayError} `unsupported_parameter` for an image that lies at the provider, where nobody knows whose it is
 */
export function imageBytes(part: { image_url?: unknown; file_id?: unknown }, param: string): number {
  if (part.file_id !== undefined && part.file_id !== null) throw unsupported(param, 'Images by file_id are not offered. Send the image by URL, or in the request.');
  const url = typeof part.image_url === 'string' ? part.image_url : (part.image_url as { url?: unknown } | undefined)?.url;
  return typeof url === 'string' ? url.length : 0;
}

export function unsupported(param: string, publicMessage: string): GatewayError {
  return new GatewayError('unsupported_parameter', { publicMessage, param });
}
