import { Type } from 'typebox';

/** The provider knows more fields than the gateway, and will know more still. */
export const OPEN = { additionalProperties: true };

/** A field that may also be null, as SDKs send what they have no value for. */
export const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));

/** A field that the gateway passes on without looking at it. */
export const Anything = (description: string) => Type.Optional(Type.Unsafe<unknown>({ description }));

export const ModelName = Nullable(Type.String({ minLength: 1, maxLength: 256, description: 'Model id or alias; the default model where absent' }));

/** The most tools that the provider takes. */
export const TOOLS_MAX = 350;
