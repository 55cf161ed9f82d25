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
  const cost = usage['cost_in_usd_ticks'];
  const costTokens = cost === undefined || cost === null ? undefined : count(cost, Number.MAX_SAFE_INTEGER);
  if (costTokens === undefined && cost !== undefined && cost !== null) return undefined;
  return { inputTokens, cachedInputTokens, outputTokens, reasoningTokens, costTicks: costTokens === undefined ? undefined : BigInt(costTokens) };
}

/** More tokens than any context holds; also keeps every price within what the ledger's numbers can. */
const TOKENS_MAX = 1_000_000_000;

function count(value: unknown, max = TOKENS_MAX): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max ? value : undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
