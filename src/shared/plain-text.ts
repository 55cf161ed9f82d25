import { Type, type TString } from 'typebox';

/** Text without control characters: PostgreSQL stores no NUL, and a name that holds a line break is a trap for whoever reads a log. */
export function plainText(lengthMax: number, description?: string): TString {
  return Type.String({ minLength: 1, maxLength: lengthMax, pattern: '^[^\\u0000-\\u001f\\u007f]+$', ...(description === undefined ? {} : { description }) });
}
