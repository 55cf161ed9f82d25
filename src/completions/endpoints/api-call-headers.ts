import { applyDecorators } from '@nestjs/common';
import { ApiHeader } from '@nestjs/swagger';

/** The headers that every call to a model takes. */
export function ApiCallHeaders(): MethodDecorator & ClassDecorator {
  return applyDecorators(
    ApiHeader({ name: 'x-novix-max-cost-usd', required: false, description: 'Most that this call may cost, such as 0.05' }),
    ApiHeader({ name: 'x-novix-data-class', required: false, schema: { type: 'string', enum: ['public', 'internal', 'confidential', 'restricted'] } }),
    ApiHeader({ name: 'x-novix-deadline-ms', required: false, description: 'Milliseconds after which the answer is of no more use' }),
  );
}
