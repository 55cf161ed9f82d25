import { Type, type TUnsafe } from 'typebox';

/** A schema of a closed set of texts. */
export function oneOf<const T extends readonly string[]>(values: T): TUnsafe<T[number]> {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values });
}
