import type { ProviderUsage } from '../catalogue/token-price.ts';

/**
 * Reads the `usage` object of a chat completion, which reports reasoning outside `completion_tokens`.
 *
 * @returns undefined when a count is missing, negative, fractional or mistyped, or the counts contradict each other: then none of it is trusted
 */
export function readChatUsage(usage: unknown): ProviderUsage | undefined {
  if (!isRecord(usage)) return undefined;
  const promptDetails = usage['prompt_tokens_details'] ?? {};
  const completionDetails = usage['completion_tokens_details'] ?? {};
  if (!isRecord(promptDetails) || !isRecord(completionDetails)) return undefined;
  const inputTokens = count(usage['prompt_tokens']);
  const outputTokens = count(usage['completion_tokens']);
  const cachedInputTokens = count(promptDetails['cached_tokens'] ?? 0);
  const reasoningTokens = count(completionDetails['reasoning_tokens'] ?? 0);
  if (inputTokens === undefined || outputTokens === undefined || cachedInputTokens === undefined || reasoningTokens === undefined) return undefined;
  if (cachedInputTokens > inputTokens) return undefined;
  const cost = readCost(usage);
  return cost && { inputTokens, cachedInputTokens, outputTokens, reasoningTokens, ...cost };
}

/**
 * Reads the `usage` object of a response, whose `output_tokens` contain the reasoning. Counts come out as in a chat completion, so that both are
 * priced alike.
 *
 * @returns undefined as `readChatUsage` does
 */
export function readResponseUsage(usage: unknown): ProviderUsage | undefined {
  if (!isRecord(usage)) return undefined;
  const inputDetails = usage['input_tokens_details'] ?? {};
  const outputDetails = usage['output_tokens_details'] ?? {};
  if (!isRecord(inputDetails) || !isRecord(outputDetails)) return undefined;
  const inputTokens = count(usage['input_tokens']);
  const allOutputTokens = count(usage['output_tokens']);
  const cachedInputTokens = count(inputDetails['cached_tokens'] ?? 0);
  const reasoningTokens = count(outputDetails['reasoning_tokens'] ?? 0);
  if (inputTokens === undefined || allOutputTokens === undefined || cachedInputTokens === undefined || reasoningTokens === undefined) return undefined;
  if (cachedInputTokens > inputTokens || reasoningTokens > allOutputTokens) return undefined;
  const cost = readCost(usage);
  return cost && { inputTokens, cachedInputTokens, outputTokens: allOutputTokens - reasoningTokens, reasoningTokens, ...cost };
}

/** Reads the usage of an embedding: input alone, and no price of the provider's. */
export function readEmbeddingUsage(answer: Record<string, unknown>): ProviderUsage | undefined {
  const { usage } = answer;
  const inputTokens = isRecord(usage) ? count(usage['prompt_tokens']) : undefined;
  const cost = isRecord(usage) ? readCost(usage) : undefined;
  return inputTokens === undefined || cost === undefined ? undefined : { ...NO_TOKENS, inputTokens, ...cost };
}

/** Reads what generated images cost: by their number, and the provider's price where it gives one. */
export function readImageUsage(answer: Record<string, unknown>): ProviderUsage | undefined {
  const { data, usage } = answer;
  if (!Array.isArray(data)) return undefined;
  const cost = readCost(isRecord(usage) ? usage : {});
  return cost && { ...NO_TOKENS, generatedImages: data.length, ...cost };
}

/** What costs nothing, by the provider's own word. */
export const FREE_OF_CHARGE: ProviderUsage = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, costTicks: 0n };

const NO_TOKENS = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0 };

/** @returns undefined where a price stands there that is none; without one, a price that is undefined */
function readCost(usage: Record<string, unknown>): { costTicks: bigint | undefined } | undefined {
  const cost = usage['cost_in_usd_ticks'] ?? undefined;
  if (cost === undefined) return { costTicks: undefined };
  const ticks = count(cost, Number.MAX_SAFE_INTEGER);
  return ticks === undefined ? undefined : { costTicks: BigInt(ticks) };
}

/** More tokens than any context holds; also keeps every price within what the ledger's numbers can. */
const TOKENS_MAX = 1_000_000_000;

function count(value: unknown, max = TOKENS_MAX): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max ? value : undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
