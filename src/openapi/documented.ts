import { applyDecorators } from '@nestjs/common';
import { ApiBody, ApiQuery, ApiResponse, type ApiBodyOptions } from '@nestjs/swagger';
import { Type, type TSchema } from 'typebox';
import { ERROR_CODES } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';

type OpenApiSchema = NonNullable<Extract<ApiBodyOptions, { schema: unknown }>['schema']>;

/** Every error's body. */
export const ErrorAnswer = Type.Object({
  error: Type.Object({
    message: Type.String(), type: Type.String(), code: oneOf(ERROR_CODES), param: Type.Union([Type.String(), Type.Null()]),
    decision_id: Type.Optional(Type.String({ description: 'Of the access decision, with 403' })),
  }),
});

/** TypeBox schemas are JSON Schema, and so OpenAPI 3.1 as they are. */
export function openApiSchema(schema: TSchema): OpenApiSchema {
  return JSON.parse(JSON.stringify(schema)) as OpenApiSchema;
}

/** A JSON body, and how it can be wrong. */
export function ApiJsonBody(schema: TSchema): MethodDecorator & ClassDecorator {
  return applyDecorators(ApiBody({ required: true, schema: openApiSchema(schema) }), ApiErrors(400, 413, 415));
}

/** The route's good answer, and the statuses of its errors beside those that every closed route has. */
export function ApiAnswers(status: number, schema: TSchema, errorStatuses: readonly number[] = []): MethodDecorator & ClassDecorator {
  return applyDecorators(ApiResponse({ status, description: 'Success', schema: openApiSchema(schema) }), ApiErrors(401, 429, 503, ...errorStatuses));
}

export function ApiErrors(...statuses: number[]): MethodDecorator & ClassDecorator {
  return applyDecorators(...statuses.map((status) => ApiResponse({ status, description: 'Error', schema: openApiSchema(ErrorAnswer) })));
}

export function ApiPage(): MethodDecorator & ClassDecorator {
  return applyDecorators(
    ApiQuery({ name: 'limit', required: false, schema: { type: 'integer', minimum: 1, maximum: 200, default: 50 } }),
    ApiQuery({ name: 'cursor', required: false, schema: { type: 'string' }, description: 'next_cursor of the page before' }),
  );
}
