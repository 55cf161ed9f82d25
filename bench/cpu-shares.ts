import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What V8 writes with `--cpu-prof`, as far as it is read here. */
interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string }; children?: number[] }[];
  /** Microseconds of the monotonic clock. */
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

/** Parts of a request's life, by the files in which they are; whatever these call counts to them, and what is in none is the rest. */
const PARTS: readonly { part: string; files: RegExp }[] = [
  { part: 'identity (tokens, certificates, keys)', files: /\/src\/auth\/(?!(?:decision-point|policy|access-rules)\.)/ },
  { part: 'policy', files: /\/src\/auth\/(?:decision-point|policy|access-rules)\.|\/src\/completions\/access\./ },
  { part: 'plan and cost', files: /\/src\/cost\/(?:plan|charge|predictor|output-history|complexity|selector)|\/src\/completions\/cost-engine\./ },
  { part: 'audit, ledger and journal', files: /\/src\/(?:audit|journal)\/|\/src\/cost\/ledger-entry\.|\/src\/completions\/(?:admission|call-record)\./ },
  { part: 'provider (client, streams, retries)', files: /\/src\/provider\/|\/src\/completions\/dispatch\./ },
];

export interface CpuShare {
  part: string;
  /** Of all the time in which the main thread was not idle. */
  share: number;
}

/**
 * Reads the one profile of a folder, and says which part of the code had how much of the main thread. A sample counts to the innermost part on its stack.
 *
 * @param between microseconds of the monotonic clock: what was before and after, such as the start, does not count
 */
export async function readCpuShares(folder: string, between: { from: number; to: number }): Promise<CpuShare[]> {
  const file = (await readdir(folder)).find((name) => name.endsWith('.cpuprofile'));
  if (file === undefined) throw new Error(`no profile in ${folder}: the gateway did not end by itself`);
  const profile = JSON.parse(await readFile(join(folder, file), 'utf8')) as CpuProfile;
  const parts = partOfEachNode(profile);
  const sums = new Map<string, number>();
  let total = 0;
  let at = profile.startTime;
  profile.samples.forEach((id, index) => {
    const micros = profile.timeDeltas[index]!;
    at += micros;
    const part = parts.get(id)!;
    if (part === 'idle' || at < between.from || at > between.to) return;
    total += micros;
    sums.set(part, (sums.get(part) ?? 0) + micros);
  });
  if (total === 0) throw new Error('the profile has no sample of that time');
  return [...PARTS.map(({ part }) => part), 'garbage collection', 'the rest (HTTP, framework, sockets, pg)'].map((part) => ({ part, share: (sums.get(part) ?? 0) / total }));
}

function partOfEachNode({ nodes }: CpuProfile): Map<number, string> {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const parts = new Map<number, string>();
  const pending: { id: number; inherited: string }[] = [{ id: nodes[0]!.id, inherited: 'the rest (HTTP, framework, sockets, pg)' }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { callFrame: { functionName, url }, children = [] } = byId.get(next.id)!;
    const own = functionName === '(idle)' ? 'idle' : functionName === '(garbage collector)' ? 'garbage collection' : PARTS.find(({ files }) => files.test(url))?.part;
    const part = own ?? next.inherited;
    parts.set(next.id, part);
    for (const id of children) pending.push({ id, inherited: part });
  }
  return parts;
}
