import { createHash } from 'node:crypto';
import { NO_TEXT } from './emulated-answer.ts';
import type { Work } from './emulated-call.ts';
import { unknownModel } from './emulated-errors.ts';
import type { CallContext } from './emulated-service.ts';
import { fields, text } from './emulated-shape.ts';
import { splitTokens } from './emulated-tokens.ts';

const VOCABULARY = 131_072;

const checkShape = fields({ model: text, text }, { user: text });

/** POST /v1/tokenize-text, which is free. */
export function tokenize({ service, json, admit }: CallContext): Work {
  checkShape(json, '');
  const body = json as { model: string; text: string };
  const named = service.catalogue.resolve(body.model);
  if (named === undefined) throw unknownModel(body.model);
  return {
    modelId: named.model.id,
    script: admit(named.model.id, 0),
    promptTokens: 0,
    generate: () => ({
      answer: NO_TEXT,
      costTicks: () => 0n,
      plainBody: () => JSON.stringify({ token_ids: splitTokens(body.text).map(tokenEntry) }),
    }),
  };
}

function tokenEntry(piece: string): Record<string, unknown> {
  return {
    token_id: createHash('sha256').update(piece).digest().readUInt32LE(0) % VOCABULARY,
    string_token: piece,
    token_bytes: [...Buffer.from(piece)],
  };
}
