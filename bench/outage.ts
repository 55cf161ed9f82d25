import { parseArgs } from 'node:util';
import { call, closeLoad, openLoop, quantile } from './load.ts';
import { startRig, type Rig } from './rig.ts';

/**
 * What a provider that answers everything with 503 gets to see, and how long its callers wait for their refusal: once with the breaker out of reach, so that
 * the retry budget alone protects it, and once with the breaker as it is.
 *
 * Aims: at most 1.2 times as many attempts as calls; refusals in less than 50 ms once the breaker is open.
 */
const { values: options } = parseArgs({ options: { rate: { type: 'string', default: '200' }, seconds: { type: 'string', default: '30' } } });
const RATE = Number(options.rate);
const SECONDS = Number(options.seconds);
const BODY = JSON.stringify({ model: 'grok-4.20-0309-non-reasoning', max_completion_tokens: 16, messages: [{ role: 'user', content: 'Hello.' }] });

process.stderr.write(`${RATE} calls a second for ${SECONDS} s against 503, the breaker out of reach\n`);
const without = await withOutage({ XAI_BREAKER_FAILURES: '1000000' }, async (rig, received) => {
  const { latenciesMs, failed } = await openLoop(rig.arms[2]!, BODY, false, RATE, SECONDS * 1_000);
  if (failed < latenciesMs.length) throw new Error(`${latenciesMs.length - failed} calls were answered: this is no outage`);
  return { offered: latenciesMs.length, received: await received() };
});
process.stdout.write(`breaker out of reach: ${without.offered} calls, ${without.received} attempts upstream: ${(without.received / without.offered).toFixed(3)} times (at most 1.2)\n`);

process.stderr.write('the same for 5 s with the breaker as it is\n');
const open = await withOutage({}, async (rig, received) => {
  // The calls that open it, with what they retry.
  await Promise.all(Array.from({ length: 10 }, () => call(rig.arms[2]!, BODY, false)));
  const before = await received();
  const { latenciesMs } = await openLoop(rig.arms[2]!, BODY, false, RATE, 5_000);
  return { latenciesMs, received: (await received()) - before };
});
const [p50, p99, most] = [0.5, 0.99, 1].map((share) => quantile(open.latenciesMs, share).toFixed(1));
process.stdout.write(`breaker open: ${open.latenciesMs.length} calls, ${open.received} attempts upstream; refused in ${p50} ms, p99 ${p99} ms, at most ${most} ms (less than 50)\n`);
await closeLoad();
if (without.received > without.offered * 1.2 || open.received > 0) process.exitCode = 1;

/** @param run gets how many attempts the emulator has received so far */
async function withOutage<T>(env: Record<string, string>, run: (rig: Rig, received: () => Promise<number>) => Promise<T>): Promise<T> {
  const rig = await startRig({ firstTokenMs: 0, tokenIntervalMs: 0 }, env);
  try {
    const control = new URL('/__emulator/', rig.arms[0]!.url);
    const received = async (): Promise<number> => ((await (await fetch(new URL('bill', control))).json()) as { calls: number }).calls;
    await Promise.all(Array.from({ length: 20 }, () => call(rig.arms[2]!, BODY, false)));
    await fetch(new URL('reset', control), { method: 'POST' });
    await fetch(new URL('faults', control), { method: 'PUT', body: JSON.stringify({ faults: [{ status: 503 }] }) });
    return await run(rig, received);
  } finally {
    await rig.close();
  }
}
