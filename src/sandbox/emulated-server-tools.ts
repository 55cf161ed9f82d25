/** How often tools ran on the provider's side during one answer, by the names that usage has for them. */
export type ServerToolCalls = Partial<Record<keyof typeof SERVER_TOOL_FEES_TICKS, number>>;

/** The fee for each, on top of tokens, in the order in which usage lists them; zero where only tokens are billed. */
export const SERVER_TOOL_FEES_TICKS = {
  web_search_calls: 50_000_000, // 5 USD per thousand
  x_search_calls: 0, // since 2026-09-21 for what is fetched
  x_posts_fetched: 50_000_000,
  x_users_fetched: 100_000_000,
  code_interpreter_calls: 50_000_000,
  file_search_calls: 25_000_000,
  mcp_calls: 0,
  document_search_calls: 100_000_000,
  image_generation_calls: 400_000_000,
} as const;

/** Fetched posts and profiles are results, not calls. */
const RESULTS: ReadonlySet<string> = new Set(['x_posts_fetched', 'x_users_fetched']);

export function serverToolFeesTicks(calls: ServerToolCalls | undefined): bigint {
  return Object.entries(calls ?? {}).reduce((sum, [name, count]) => sum + BigInt(count) * BigInt(SERVER_TOOL_FEES_TICKS[name as keyof ServerToolCalls]), 0n);
}

export function serverToolCount(calls: ServerToolCalls | undefined): number {
  return Object.entries(calls ?? {}).reduce((sum, [name, count]) => sum + (RESULTS.has(name) ? 0 : count), 0);
}

/** What usage says of them: nothing at all when there were none. */
export function serverToolUsage(calls: ServerToolCalls | undefined): Record<string, unknown> {
  if (calls === undefined) return {};
  return { server_side_tool_usage_details: Object.fromEntries(Object.keys(SERVER_TOOL_FEES_TICKS).map((name) => [name, calls[name as keyof ServerToolCalls] ?? 0])) };
}
