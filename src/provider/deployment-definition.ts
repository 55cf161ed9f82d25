import { createHash, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { Type, type Static, type TSchema } from 'typebox';
import { DEPLOYMENT_ID_PATTERN, MAX_CONCURRENCY_DEFAULT, type Deployment } from '../catalogue/catalogue.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { plainText } from '../shared/plain-text.ts';
import { readPem } from '../egress/connector.ts';

const PEM_CHARS_MAX = 32_768;
const Optional = <T extends TSchema>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));
const Pem = (what: string) => Optional(Type.String({ minLength: 1, maxLength: PEM_CHARS_MAX, description: `${what}: PEM, or the path of a PEM file` }));

const FIELDS = {
  model: plainText(256, 'Alias or id of the model that it serves; * for all of them'),
  models: Optional(Type.Array(plainText(256), { minItems: 1, maxItems: 64, description: 'Several of them, in place of model' })),
  base_url: plainText(2_048, 'With the version path, such as https://us.api.x.ai/v1; "env" for XAI_API_ENDPOINT with its key'),
  upstream_model: Optional(plainText(256, 'What the model is called there')),
  api_key: Optional(Type.String({ pattern: '^[\\x21-\\x7e]{1,4096}$', description: 'Sealed (enc:v1:…) for the name deployment/<id>/api_key; a plain one is sealed before it is stored' })),
  region: Type.Optional(plainText(64)),
  accelerator: Type.Optional(oneOf(['shared', 'dedicated'])),
  zdr: Optional(Type.Boolean({ description: 'Whether nothing is kept of what is sent there' })),
  weight: Type.Optional(Type.Number({ minimum: 0, maximum: 1_000, description: 'Share of the traffic; 0 takes it out of service' })),
  max_concurrency: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
  price_percent: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, description: 'Its prices in percent of the model’s' })),
  tls: Optional(Type.Object({ cert: Pem('client certificate'), key: Pem('its key, sealed or plain'), ca: Pem('who vouches for the server') }, { additionalProperties: false })),
};
const CLOSED = { additionalProperties: false };

export const NewDeploymentBody = Type.Object({ id: Type.String({ pattern: DEPLOYMENT_ID_PATTERN }), ...FIELDS }, CLOSED);
export const DeploymentPatchBody = Type.Object({ ...FIELDS, model: Type.Optional(FIELDS.model), base_url: Type.Optional(FIELDS.base_url) }, { ...CLOSED, minProperties: 1 });
export const DeploymentAnswer = Type.Object({
  id: Type.String(), ...FIELDS, source: oneOf(['config', 'admin']), created_at: Optional(Type.String({ format: 'date-time' })), updated_at: Optional(Type.String({ format: 'date-time' })),
});

/** A deployment as it is stored, and as the admin API shows it. Its secrets are sealed. */
export type DeploymentDefinition = Omit<Static<typeof NewDeploymentBody>, 'id'>;

export function toDeployment(id: string, definition: DeploymentDefinition, allowedOrigins: readonly string[]): Deployment {
  const { base_url: baseUrl, tls } = definition;
  return {
    id,
    baseUrl: baseUrl === 'env' ? undefined : baseUrl.replace(/\/+$/, ''),
    models: definition.models ?? [definition.model],
    upstreamModel: definition.upstream_model ?? undefined,
    region: definition.region ?? 'global',
    accelerator: definition.accelerator ?? 'shared',
    zdr: definition.zdr ?? undefined,
    weight: definition.weight ?? 1,
    maxConcurrency: definition.max_concurrency ?? MAX_CONCURRENCY_DEFAULT,
    pricePercent: BigInt(definition.price_percent ?? 100),
    sealedApiKey: definition.api_key ?? undefined,
    tls: { cert: tls?.cert ?? undefined, key: tls?.key ?? undefined, ca: tls?.ca ?? undefined },
    anyAddress: baseUrl === 'env' || allowedOrigins.includes(new URL(baseUrl).origin),
  };
}

/** The inverse, for deployments of `config/models.yaml`, which an admin may override field by field. */
export function toDefinition(deployment: Deployment): DeploymentDefinition {
  return {
    model: deployment.models[0]!,
    ...(deployment.models.length === 1 ? {} : { models: [...deployment.models] }),
    base_url: deployment.baseUrl ?? 'env',
    region: deployment.region, accelerator: deployment.accelerator, weight: deployment.weight, max_concurrency: deployment.maxConcurrency, price_percent: Number(deployment.pricePercent),
    ...(deployment.upstreamModel === undefined ? {} : { upstream_model: deployment.upstreamModel }),
    ...(deployment.zdr === undefined ? {} : { zdr: deployment.zdr }),
    ...(deployment.sealedApiKey === undefined ? {} : { api_key: deployment.sealedApiKey }),
  };
}

/** Certificates are long, and a record is not: they go into it by their hashes. */
export function recordedDefinition({ tls, ...rest }: DeploymentDefinition): Record<string, unknown> {
  if (tls === undefined || tls === null) return rest;
  return { ...rest, tls: Object.fromEntries(Object.entries(tls).map(([name, value]) => [name, value !== null && value !== undefined && value.length > 200 ? `sha256:${createHash('sha256').update(value).digest('hex')}` : value])) };
}

/** @throws {GatewayError} `invalid_request` where certificate, key and CA do not fit together */
export function assertTlsMaterial(tls: { cert: string | undefined; key: string | undefined; ca: string | undefined }): void {
  if ((tls.cert === undefined) !== (tls.key === undefined)) throw new GatewayError('invalid_request', { publicMessage: 'tls.cert and tls.key: give both or neither.', param: 'tls' });
  try {
    const read = (value: string | undefined): string | Buffer | undefined => (value === undefined ? undefined : readPem(value));
    if (tls.ca !== undefined) void new X509Certificate(readPem(tls.ca)); // a context takes a CA that it cannot read, and trusts nobody then
    createSecureContext(Object.fromEntries(Object.entries({ cert: read(tls.cert), key: read(tls.key), ca: read(tls.ca) }).filter(([, value]) => value !== undefined)));
  } catch (cause) {
    throw new GatewayError('invalid_request', { publicMessage: 'tls: certificate, key and CA cannot be read, or do not belong together.', param: 'tls', cause });
  }
}
