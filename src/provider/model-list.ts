import type { GrokClient } from './grok-client.ts';
import { FREE_OF_CHARGE } from './grok-usage.ts';
import { JsonAnswerReader } from './json-answer.ts';

const LIMITS = { firstByteTimeoutMs: 10_000, idleTimeoutMs: 10_000, totalTimeoutMs: 20_000, totalIsDeadline: false };

/**
 * The provider's models, with its prices.
 *
 * @throws {GrokApiError} where it does not say
 */
export async function listModels(client: GrokClient): Promise<readonly unknown[]> {
  const reader = new JsonAnswerReader((answer) => Array.isArray(answer['data']), () => FREE_OF_CHARGE);
  const call = client.send({ method: 'GET', path: '/models', body: undefined, accept: 'json', conversationId: undefined }, LIMITS, {
    onHead: () => {},
    onBytes: (bytes) => void reader.push(bytes),
    get begun() { return reader.begun; },
  });
  await call.ended;
  reader.assertWhole();
  return (JSON.parse(reader.tail().toString()) as { data: unknown[] }).data;
}
