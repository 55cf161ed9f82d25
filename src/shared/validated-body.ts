import type { FastifyRequest } from 'fastify';
import type { Static, TSchema } from 'typebox';
import { Compile, type Validator } from 'typebox/compile';
import { GatewayError } from './gateway-error.ts';
import { readJsonBody } from './read-body.ts';

const ADMIN_BODY_BYTES_MAX = 1024 * 1024;

/** Reads bodies of one schema: for the admin API, whose schemas refuse unknown fields. */
export class ValidatedBody<T extends TSchema> {
  readonly #validator: Validator<Record<never, never>, T>;

  constructor(readonly schema: T) {
    this.#validator = Compile(schema) as Validator<Record<never, never>, T>;
  }

  /** @throws {GatewayError} `invalid_request`, naming the field at fault */
  async read(request: FastifyRequest): Promise<Static<T>> {
    const bytes = await readJsonBody(request.raw, ADMIN_BODY_BYTES_MAX);
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString());
    } catch (cause) {
      throw new GatewayError('invalid_request', { publicMessage: 'The body is not valid JSON.', cause });
    }
    if (this.#validator.Check(value)) return value as Static<T>;
    const [fault] = this.#validator.Errors(value);
    const extra = fault?.keyword === 'additionalProperties' ? (fault.params as { additionalProperties?: string[] }).additionalProperties?.join(', ') : undefined;
    const path = fault?.instancePath.slice(1).replaceAll('/', '.') ?? '';
    const message = extra === undefined ? `${path === '' ? 'The body' : path} ${fault?.message ?? 'is invalid'}.` : `Unknown field: ${extra}.`;
    throw new GatewayError('invalid_request', { publicMessage: message, ...(path === '' ? {} : { param: path }) });
  }
}
