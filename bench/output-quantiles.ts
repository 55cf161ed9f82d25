import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { loadCatalogue } from '../src/catalogue/catalogue.ts';
import { Predictor, type Route } from '../src/cost/predictor.ts';

// `npm run bench:output-quantiles -- --trace FILE [--model grok-beta] [--json]`: replays a trace of calls (Azure's format: TIMESTAMP, ContextTokens,
// GeneratedTokens) through the predictor, each call predicted from those before it alone and only then observed, and tells how often an answer kept within the
// predicted p90, and by how much that bound was too generous. The trace has no text, so all calls are one route: one tenant, one model, one kind.

/** From here on the history has more to say than the prior, which it replaces at 50 calls. */
const WARM_CALLS = 200;
const AIM_PERCENT = { low: 88, high: 92 };

interface Replayed {
  actualTokens: number;
  p50Tokens: number;
  p90Tokens: number;
}

interface Summary {
  calls: number;
  withinP50Percent: number;
  withinP90Percent: number;
  /** p90 over actual: the mean of each call's own (of calls that wrote anything), and of the sums. */
  meanRatio: number;
  ratioOfSums: number;
}

function replay(actualTokens: readonly number[], route: Route): Replayed[] {
  const predictor = new Predictor();
  return actualTokens.map((outputTokens) => {
    const { p50, p90 } = predictor.outputTokens(route);
    predictor.observe(route, undefined, 0, { inputTokens: 0, cachedInputTokens: 0, outputTokens, reasoningTokens: 0 });
    return { actualTokens: outputTokens, p50Tokens: p50, p90Tokens: p90 };
  });
}

function summarize(calls: readonly Replayed[]): Summary {
  const sum = (some: readonly Replayed[], read: (call: Replayed) => number): number => some.reduce((total, call) => total + read(call), 0);
  const written = calls.filter(({ actualTokens }) => actualTokens > 0);
  return {
    calls: calls.length,
    withinP50Percent: (100 * sum(calls, ({ actualTokens, p50Tokens }) => Number(actualTokens <= p50Tokens))) / calls.length,
    withinP90Percent: (100 * sum(calls, ({ actualTokens, p90Tokens }) => Number(actualTokens <= p90Tokens))) / calls.length,
    meanRatio: sum(written, ({ actualTokens, p90Tokens }) => p90Tokens / actualTokens) / written.length,
    ratioOfSums: sum(calls, ({ p90Tokens }) => p90Tokens) / sum(calls, ({ actualTokens }) => actualTokens),
  };
}

function readOutputTokens(file: string): number[] {
  const [header, ...lines] = readFileSync(file, 'utf8').split(/\r?\n/).filter((line) => line !== '');
  const column = header!.split(',').indexOf('GeneratedTokens');
  if (column === -1) throw new Error(`${file} has no column GeneratedTokens`);
  return lines.map((line) => {
    const tokens = Number(line.split(',')[column]);
    if (!Number.isSafeInteger(tokens) || tokens < 0) throw new Error(`${file}: no number of tokens in ${JSON.stringify(line)}`);
    return tokens;
  });
}

const { values: options } = parseArgs({
  options: { trace: { type: 'string' }, model: { type: 'string', default: 'grok-beta' }, json: { type: 'boolean', default: false } },
});
if (options.trace === undefined) {
  process.stderr.write('bench:output-quantiles: give the trace: npm run bench:output-quantiles -- --trace FILE [--model grok-beta] [--json]\n');
  process.exit(2);
}
const resolved = loadCatalogue().resolve(options.model);
if (resolved === undefined) throw new Error(`there is no model ${options.model}`);
const calls = replay(readOutputTokens(options.trace), { tenantId: 'trace', model: resolved.model, kind: 'conversational' });
if (calls.length <= WARM_CALLS) throw new Error(`a trace of ${calls.length} calls is over before its history is warm`);
const third = Math.ceil(calls.length / 3);
const parts: Record<string, Summary> = {
  [`warm (from call ${WARM_CALLS})`]: summarize(calls.slice(WARM_CALLS)), 'from the start': summarize(calls),
  [`first ${WARM_CALLS}`]: summarize(calls.slice(0, WARM_CALLS)), 'first third': summarize(calls.slice(0, third)),
  'second third': summarize(calls.slice(third, 2 * third)), 'last third': summarize(calls.slice(2 * third)),
};
if (options.json) process.stdout.write(`${JSON.stringify(parts)}\n`);
else {
  const warm = Object.values(parts)[0]!.withinP90Percent;
  process.stdout.write(`${calls.length} calls, each predicted from those before it; actual output within the predicted p90 (aim ${AIM_PERCENT.low}–${AIM_PERCENT.high} %)\n\n`);
  process.stdout.write('                      calls   ≤ p90     ≤ p50     p90/actual: mean of ratios   ratio of sums\n');
  for (const [name, { calls: count, withinP50Percent, withinP90Percent, meanRatio, ratioOfSums }] of Object.entries(parts)) {
    process.stdout.write(`${name.padEnd(20)} ${String(count).padStart(6)}   ${withinP90Percent.toFixed(2)} %   ${withinP50Percent.toFixed(2)} %   ${meanRatio.toFixed(2).padStart(26)}   ${ratioOfSums.toFixed(2).padStart(13)}\n`);
  }
  process.stdout.write(`\n${warm >= AIM_PERCENT.low && warm <= AIM_PERCENT.high ? 'within' : 'OUTSIDE'} the aim once warm\n`);
}
