import { Type, type TString } from 'typebox';

/** Text without control characters and halves of characters: PostgreSQL stores neither NUL nor lone surrogates, and a name that holds a line break is a trap for whoever reads a log. */
export function plainText(lengthMax: number, description?: string): TString {
  return Type.String({ minLength: 1, maxLength: lengthMax, pattern: '^[^\\u0000-\\u001f\\u007f\\ud800-\\udfff]+$', ...(description === undefined ? {} : { description }) });
}
