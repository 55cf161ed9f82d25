import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ConversationPlacement } from '../src/provider/conversation-placement.ts';

// Replays a trace of prompt prefixes (Mooncake's format: timestamp, input_length, output_length, hash_ids of 512-token blocks) over emulated shards, each
// with a cache of the blocks used last, and tells how much of one infinite cache's hits the placement keeps, and at what balance and cost.

const BLOCK_TOKENS = 512;
/** USD per 1,000,000 tokens: grok-4.7. */
const PRICE = { input: 2, cached: 0.5, output: 6 };

interface TracedCall {
  timestamp: number;
  input_length: number;
  output_length: number;
  hash_ids: number[];
}

/** Blocks in the order of their last use; a Map keeps it. */
class BlockCache {
  readonly #blocks = new Map<number, true>();

  constructor(private readonly blocksMax: number) {}

  /** @returns how many leading blocks were there */
  serve(blocks: readonly number[]): number {
    const missing = blocks.findIndex((block) => !this.#blocks.has(block));
    for (const block of blocks) {
      this.#blocks.delete(block);
      if (this.#blocks.size >= this.blocksMax) this.#blocks.delete(this.#blocks.keys().next().value!);
      this.#blocks.set(block, true);
    }
    return missing === -1 ? blocks.length : missing;
  }
}

interface Replay {
  hitBlocks: number;
  costUsd: number;
  busiestByCalls: number;
  busiestByTokens: number;
}

/** @param placeOf index of the shard that a call goes to */
function replay(calls: readonly TracedCall[], shardCount: number, blocksMax: number, placeOf: (call: TracedCall) => number): Replay {
  const caches = Array.from({ length: shardCount }, () => new BlockCache(blocksMax));
  const served = caches.map(() => ({ calls: 0, tokens: 0 }));
  let [hitBlocks, costUsd] = [0, 0];
  for (const call of calls) {
    const shard = placeOf(call);
    const hits = caches[shard]!.serve(call.hash_ids);
    const cached = Math.min(hits * BLOCK_TOKENS, call.input_length);
    hitBlocks += hits;
    costUsd += ((call.input_length - cached) * PRICE.input + cached * PRICE.cached + call.output_length * PRICE.output) / 1e6;
    served[shard]!.calls += 1;
    served[shard]!.tokens += call.input_length;
  }
  const busiest = (read: (one: { calls: number; tokens: number }) => number): number => (Math.max(...served.map(read)) * shardCount) / served.reduce((sum, one) => sum + read(one), 0);
  return { hitBlocks, costUsd, busiestByCalls: busiest((one) => one.calls), busiestByTokens: busiest((one) => one.tokens) };
}

const { values } = parseArgs({
  options: { trace: { type: 'string' }, shards: { type: 'string', default: '8' }, blocks: { type: 'string', default: '10000' }, seed: { type: 'string', default: '1' }, json: { type: 'boolean', default: false } },
});
if (values.trace === undefined) {
  process.stderr.write('bench:sharding: give the trace: npm run bench:sharding -- --trace FILE [--shards 8] [--blocks 10000] [--seed 1] [--json]\n');
  process.exit(2);
}
const [shardCount, blocksMax] = [Number(values.shards), Number(values.blocks)];
const calls: TracedCall[] = [];
for await (const line of createInterface({ input: createReadStream(values.trace) })) if (line.trim() !== '') calls.push(JSON.parse(line) as TracedCall);

const shards = Array.from({ length: shardCount }, (_, index) => ({ id: `shard-${index}`, weight: 1 }));
const placement = new ConversationPlacement();
// The trace has no text. What the gateway hashes, system messages and the start of the first user message, ends about where its second block does.
const byConversation = (call: TracedCall): number =>
  shards.indexOf(placement.place(`${values.seed}/${call.hash_ids[Math.min(1, call.hash_ids.length - 1)]}`, shards, call.input_length, call.timestamp));
let state = Number(values.seed);
const atRandom = (): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0; // numbers that a seed repeats
  return Math.floor((state / 2 ** 32) * shardCount);
};
const infinite = replay(calls, 1, Number.POSITIVE_INFINITY, () => 0);
const random = replay(calls, shardCount, blocksMax, atRandom);
const placed = replay(calls, shardCount, blocksMax, byConversation);
const result = {
  calls: calls.length, shards: shardCount, blocks_per_shard: blocksMax,
  hits_of_infinite_percent: (100 * placed.hitBlocks) / infinite.hitBlocks,
  random_hits_of_infinite_percent: (100 * random.hitBlocks) / infinite.hitBlocks,
  busiest_by_calls: placed.busiestByCalls, busiest_by_input_tokens: placed.busiestByTokens,
  cost_usd: placed.costUsd, random_cost_usd: random.costUsd, cost_ratio: placed.costUsd / random.costUsd,
};
const shown = Object.fromEntries(Object.entries(result).map(([name, value]) => [name, Number(value.toFixed(3))]));
if (values.json) process.stdout.write(`${JSON.stringify(shown)}\n`);
else for (const [name, value] of Object.entries(shown)) process.stdout.write(`${name.padEnd(34)} ${value}\n`);
