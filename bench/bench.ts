import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readCpuShares } from './cpu-shares.ts';
import { call, closedLoop, closeLoad, openLoop, quantile } from './load.ts';
import { cpuMicros, residentBytes, startRig, type Arm, type Rig } from './rig.ts';

const USAGE = 'npm run bench -- [--json] [--rounds 7] [--seconds 2] [--streams 1000] [--stream-seconds 20] [--concurrency 64] [--only cpu|latency|frames|shares|streams]';
const RATE_PER_SECOND = 300;
const EQUAL_RATE_PER_SECOND = 1_000;
/** Until V8 has optimized what it will: the gateway has more of it than the proxy. */
const WARM_UP_MS = 6_000;
const ANSWER_TOKENS = 20;
/** For what a frame costs: long answers, as fast as they come, so that the call around them weighs little. */
const LONG_STREAMS = 8;
const LONG_ANSWER_TOKENS = 30_000;
/** Answers at the pace of a model: each frame comes alone, and must not wait. */
const PACED_STREAMS = 200;
const PACED_TOKENS = 100;
const PACE_MS = 20;

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false }, rounds: { type: 'string', default: '7' }, concurrency: { type: 'string', default: '64' }, seconds: { type: 'string', default: '2' },
    streams: { type: 'string', default: '1000' }, 'stream-seconds': { type: 'string', default: '20' }, only: { type: 'string' }, help: { type: 'boolean', default: false },
  },
});

interface CpuRow {
  mode: 'plain' | 'stream';
  arm: Arm['name'];
  /** As fast as the callers can. */
  requestsPerSecond: Spread;
  cpuMicrosPerRequest: Spread | undefined;
  /** CPU per request over the bare proxy's in the same round, each as fast as it can. */
  ratio: Spread | undefined;
  /** The same at one rate for all: a process that is not driven to its limit pays more for each request, whichever it is. */
  equalRateCpuMicros: Spread | undefined;
  equalRateRatio: Spread | undefined;
  failed: number;
}

interface LatencyRow {
  mode: 'plain' | 'stream';
  arm: Arm['name'];
  p50Ms: Spread;
  p99Ms: Spread;
  addedP50Ms: number | undefined;
  addedP99Ms: number | undefined;
  failed: number;
}

/** CPU of a frame, and the bare proxy's over it: the share of the proxy's frames that fit into the same time. */
interface FrameCost {
  cpuMicros: Spread;
  shareOfBareProxy: Spread;
}

interface FrameRow {
  arm: Arm['name'];
  /** Undefined where nothing is in between. */
  fast: FrameCost | undefined;
  paced: FrameCost | undefined;
  /** Between the arrivals of one stream's frames, at a steady pace. */
  gapP99Ms: Spread;
  addedGapP99Ms: number | undefined;
  failed: number;
}

interface Spread {
  median: number;
  low: number;
  high: number;
}

const CONCURRENCY = Number(options.concurrency);
const say = (text: string): void => void (options.json ? undefined : process.stderr.write(text));
const wants = (part: string): boolean => options.only === undefined || options.only === part;

if (options.help) {
  process.stdout.write(`${USAGE}\n`);
} else {
  const report = await run();
  process.stdout.write(options.json ? `${JSON.stringify(report, undefined, 2)}\n` : render(report));
}

async function run() {
  say('starting emulator, bare proxy, PostgreSQL and gateway\n');
  const rig = await startRig({ firstTokenMs: 0, tokenIntervalMs: 0 });
  const cpu: CpuRow[] = [];
  const latency: LatencyRow[] = [];
  let frames: FrameRow[] = [];
  try {
    await warmUp(rig);
    // Latency first: what a run at full speed leaves behind (vacuum, leaves to be sequenced) is not what a steady 300 calls a second meet.
    if (wants('latency')) for (const mode of ['plain', 'stream'] as const) latency.push(...(await measureLatency(rig, mode)));
    if (wants('frames')) frames = await measureFrames(rig);
    if (wants('cpu')) for (const mode of ['plain', 'stream'] as const) cpu.push(...(await measureCpu(rig, mode)));
  } finally {
    await rig.close();
  }
  const shares = wants('shares') ? await measureShares() : [];
  const streams = wants('streams') ? await measureStreams() : undefined;
  await closeLoad();
  return { node: process.version, concurrency: CONCURRENCY, ratePerSecond: RATE_PER_SECOND, equalRatePerSecond: EQUAL_RATE_PER_SECOND, cpu, latency, frames, shares, streams };
}

function body(stream: boolean): string {
  return JSON.stringify({
    model: 'grok-4.20-0309-non-reasoning', stream, max_completion_tokens: 64, ...(stream ? { stream_options: { include_usage: true } } : {}),
    messages: [{ role: 'system', content: 'You answer briefly.' }, { role: 'user', content: 'What is the capital of France, and what is it known for? '.repeat(8) }],
    x_emulator: { output_tokens: ANSWER_TOKENS, reasoning_tokens: 0 },
  });
}

async function warmUp(rig: Rig): Promise<void> {
  say('warming up ');
  for (const arm of rig.arms) {
    for (const stream of [false, true]) {
      const { failed } = await closedLoop(arm, body(stream), stream, CONCURRENCY, arm.name === 'direct' ? 1_000 : WARM_UP_MS);
      if (failed > 0) throw new Error(`${arm.name}: ${failed} calls failed while warming up`);
    }
  }
  say('\n');
}

/** Arms in turn within each round, so that what else the machine does falls on all of them alike. */
async function measureCpu(rig: Rig, mode: 'plain' | 'stream'): Promise<CpuRow[]> {
  say(`CPU, ${mode} `);
  const stream = mode === 'stream';
  const samples = rig.arms.map(() => [] as { rps: number; cpuMicros: number; equalRateCpuMicros: number; failed: number }[]);
  for (let round = 0; round < Number(options.rounds); round += 1) {
    for (const [index, arm] of rig.arms.entries()) {
      const cpu = (): number => (arm.pid === undefined ? 0 : cpuMicros(arm.pid));
      const durationMs = Number(options.seconds) * 1_000;
      const before = cpu();
      const startedMs = performance.now();
      const { calls, failed } = await closedLoop(arm, body(stream), stream, CONCURRENCY, durationMs);
      const seconds = (performance.now() - startedMs) / 1_000;
      const between = cpu();
      const steady = await openLoop(arm, body(stream), stream, EQUAL_RATE_PER_SECOND, durationMs);
      samples[index]!.push({
        rps: calls / seconds, cpuMicros: (between - before) / calls, equalRateCpuMicros: (cpu() - between) / steady.latenciesMs.length, failed: failed + steady.failed,
      });
    }
    say('.');
  }
  say('\n');
  const bare = samples[1]!;
  return rig.arms.map((arm, index) => {
    const own = samples[index]!;
    const measured = arm.pid !== undefined;
    return {
      mode, arm: arm.name, requestsPerSecond: spread(own.map(({ rps }) => rps)), failed: own.reduce((sum, { failed }) => sum + failed, 0),
      cpuMicrosPerRequest: measured ? spread(own.map((sample) => sample.cpuMicros)) : undefined,
      ratio: measured ? spread(own.map((sample, round) => sample.cpuMicros / bare[round]!.cpuMicros)) : undefined,
      equalRateCpuMicros: measured ? spread(own.map((sample) => sample.equalRateCpuMicros)) : undefined,
      equalRateRatio: measured ? spread(own.map((sample, round) => sample.equalRateCpuMicros / bare[round]!.equalRateCpuMicros)) : undefined,
    };
  });
}

async function measureLatency(rig: Rig, mode: 'plain' | 'stream'): Promise<LatencyRow[]> {
  say(`latency at ${RATE_PER_SECOND}/s, ${mode} `);
  const stream = mode === 'stream';
  const samples = rig.arms.map(() => [] as { p50: number; p99: number; failed: number }[]);
  for (let round = 0; round < Number(options.rounds); round += 1) {
    for (const [index, arm] of rig.arms.entries()) {
      const { latenciesMs, failed } = await openLoop(arm, body(stream), stream, RATE_PER_SECOND, Number(options.seconds) * 1_000);
      samples[index]!.push({ p50: quantile(latenciesMs, 0.5), p99: quantile(latenciesMs, 0.99), failed });
    }
    say('.');
  }
  say('\n');
  const direct = samples[0]!;
  return rig.arms.map((arm, index) => {
    const own = samples[index]!;
    const added = (key: 'p50' | 'p99'): number | undefined => (index === 0 ? undefined : spread(own.map((sample, round) => sample[key] - direct[round]![key])).median);
    return {
      mode, arm: arm.name, p50Ms: spread(own.map(({ p50 }) => p50)), p99Ms: spread(own.map(({ p99 }) => p99)), addedP50Ms: added('p50'), addedP99Ms: added('p99'),
      failed: own.reduce((sum, { failed }) => sum + failed, 0),
    };
  });
}

/** What a frame of a stream costs each arm, and how much later than at the source it comes. */
async function measureFrames(rig: Rig): Promise<FrameRow[]> {
  say('frames ');
  const streamOf = (tokens: number, intervalMs: number): string => JSON.stringify({
    model: 'grok-4.20-0309-non-reasoning', stream: true, max_completion_tokens: tokens, messages: [{ role: 'user', content: 'Count.' }],
    x_emulator: { output_tokens: tokens, reasoning_tokens: 0, token_interval_ms: intervalMs },
  });
  const samples = rig.arms.map(() => [] as { fastMicros: number; pacedMicros: number; gapP99Ms: number; failed: number }[]);
  for (let round = 0; round < Number(options.rounds); round += 1) {
    for (const [index, arm] of rig.arms.entries()) {
      const cpu = (): number => (arm.pid === undefined ? 0 : cpuMicros(arm.pid));
      const before = cpu();
      const long = await Promise.all(Array.from({ length: LONG_STREAMS }, () => call(arm, streamOf(LONG_ANSWER_TOKENS, 0), true)));
      const between = cpu();
      const gapsMs: number[] = [];
      const paced = await Promise.all(Array.from({ length: PACED_STREAMS }, () => {
        let lastMs: number | undefined;
        return call(arm, streamOf(PACED_TOKENS, PACE_MS), true, () => {
          const nowMs = performance.now();
          if (lastMs !== undefined) gapsMs.push(nowMs - lastMs);
          lastMs = nowMs;
        });
      }));
      samples[index]!.push({ fastMicros: (between - before) / (LONG_STREAMS * LONG_ANSWER_TOKENS), pacedMicros: (cpu() - between) / (PACED_STREAMS * PACED_TOKENS), gapP99Ms: quantile(gapsMs, 0.99), failed: [...long, ...paced].filter(({ ok }) => !ok).length });
    }
    say('.');
  }
  say('\n');
  const [direct, bare] = samples;
  return rig.arms.map((arm, index) => {
    const own = samples[index]!;
    const cost = (key: 'fastMicros' | 'pacedMicros'): FrameCost | undefined => (arm.pid === undefined ? undefined : { cpuMicros: spread(own.map((sample) => sample[key])), shareOfBareProxy: spread(own.map((sample, round) => bare![round]![key] / sample[key])) });
    return {
      arm: arm.name, failed: own.reduce((sum, { failed }) => sum + failed, 0), fast: cost('fastMicros'), paced: cost('pacedMicros'),
      gapP99Ms: spread(own.map((sample) => sample.gapP99Ms)),
      addedGapP99Ms: index === 0 ? undefined : spread(own.map((sample, round) => sample.gapP99Ms - direct![round]!.gapP99Ms)).median,
    };
  });
}

/** Which part of the gateway has how much of its CPU, at a steady rate: by V8's profiler, so in a run of its own. */
async function measureShares() {
  const seconds = Number(options.seconds) * 5;
  say(`profile at ${EQUAL_RATE_PER_SECOND}/s for ${seconds} s\n`);
  const folder = await mkdtemp(join(tmpdir(), 'novix-profile-'));
  try {
    const rig = await startRig({ firstTokenMs: 0, tokenIntervalMs: 0 }, {}, ['--cpu-prof', `--cpu-prof-dir=${folder}`]);
    const monotonicMicros = (): number => Number(process.hrtime.bigint() / 1_000n);
    let between: { from: number; to: number };
    try {
      await closedLoop(rig.arms[2]!, body(true), true, CONCURRENCY, WARM_UP_MS);
      const from = monotonicMicros();
      await openLoop(rig.arms[2]!, body(true), true, EQUAL_RATE_PER_SECOND, seconds * 1_000);
      between = { from, to: monotonicMicros() };
    } finally {
      await rig.close();
    }
    return await readCpuShares(folder, between);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Many streams at once, each at 50 frames a second: none may fail, and what one costs in memory. */
async function measureStreams() {
  const count = Number(options.streams);
  const seconds = Number(options['stream-seconds']);
  say(`${count} streams of 50 frames/s for ${seconds} s `);
  const rig = await startRig({ firstTokenMs: 20, tokenIntervalMs: 20 });
  try {
    const gateway = rig.arms[2]!;
    const request = JSON.stringify({
      model: 'grok-4.20-0309-non-reasoning', stream: true, max_completion_tokens: seconds * 50, messages: [{ role: 'user', content: 'Count.' }],
      x_emulator: { output_tokens: seconds * 50, reasoning_tokens: 0 },
    });
    await Promise.all(Array.from({ length: 50 }, () => call(gateway, body(true), true)));
    const idleBytes = residentBytes(rig.gatewayPid);
    let peakBytes = idleBytes;
    const cpuBefore = cpuMicros(rig.gatewayPid);
    const startedMs = performance.now();
    const watch = setInterval(() => {
      peakBytes = Math.max(peakBytes, residentBytes(rig.gatewayPid));
      say('.');
    }, 1_000);
    const results = await Promise.all(Array.from({ length: count }, () => call(gateway, request, true)));
    clearInterval(watch);
    const tookSeconds = (performance.now() - startedMs) / 1_000;
    const cpu = cpuMicros(rig.gatewayPid) - cpuBefore;
    say('\n');
    return {
      streams: count, failed: results.filter(({ ok }) => !ok).length, seconds: tookSeconds, expectedSeconds: seconds,
      framesPerSecond: (count * seconds * 50) / tookSeconds, cpuMicrosPerFrame: cpu / (count * seconds * 50), kilobytesPerStream: (peakBytes - idleBytes) / count / 1_000,
    };
  } finally {
    await rig.close();
  }
}

function spread(values: readonly number[]): Spread {
  return { median: quantile(values, 0.5), low: Math.min(...values), high: Math.max(...values) };
}

function render(report: Awaited<ReturnType<typeof run>>): string {
  const show = (value: Spread | undefined, digits: number): string =>
    value === undefined ? '' : `${value.median.toFixed(digits)} (${value.low.toFixed(digits)}–${value.high.toFixed(digits)})`;
  const lines: string[] = [];
  if (report.cpu.length > 0) {
    lines.push('', `CPU, ${report.concurrency} callers, median (lowest–highest) of ${options.rounds} rounds`,
      row(['mode', 'arm', 'requests/s', 'CPU µs/request', '× bare proxy', `CPU µs at ${report.equalRatePerSecond}/s`, '× bare proxy', 'failed']));
    for (const { mode, arm, requestsPerSecond, cpuMicrosPerRequest, ratio, equalRateCpuMicros, equalRateRatio, failed } of report.cpu) {
      lines.push(row([mode, arm, show(requestsPerSecond, 0), show(cpuMicrosPerRequest, 0), show(ratio, 2), show(equalRateCpuMicros, 0), show(equalRateRatio, 2), String(failed)]));
    }
  }
  if (report.latency.length > 0) {
    lines.push('', `Latency at ${report.ratePerSecond} requests/s, ms`, row(['mode', 'arm', 'p50', 'p99', 'added p50 / p99', 'failed']));
    for (const { mode, arm, p50Ms, p99Ms, addedP50Ms, addedP99Ms, failed } of report.latency) {
      lines.push(row([mode, arm, show(p50Ms, 2), show(p99Ms, 2), addedP50Ms === undefined ? '' : `${addedP50Ms.toFixed(2)} / ${addedP99Ms!.toFixed(2)}`, String(failed)]));
    }
  }
  if (report.frames.length > 0) {
    lines.push('', `Frames of ${LONG_STREAMS} streams as fast as they come, and of ${PACED_STREAMS} streams each in ${PACE_MS} ms`,
      row(['', 'arm', 'fast, CPU µs', 'share of proxy’s', 'paced, CPU µs', 'share of proxy’s', 'gap p99 (added), ms', 'failed']));
    for (const { arm, fast, paced, gapP99Ms, addedGapP99Ms, failed } of report.frames) {
      const added = addedGapP99Ms === undefined ? '' : ` (${addedGapP99Ms.toFixed(1)})`;
      lines.push(row(['', arm, show(fast?.cpuMicros, 2), show(fast?.shareOfBareProxy, 2), show(paced?.cpuMicros, 1), show(paced?.shareOfBareProxy, 2), `${gapP99Ms.median.toFixed(1)}${added}`, String(failed)]));
    }
  }
  if (report.shares.length > 0) {
    lines.push('', `The gateway’s main thread at ${report.equalRatePerSecond} streams a second`, ...report.shares.map(({ part, share }) => `${(share * 100).toFixed(1).padStart(5)} %  ${part}`));
  }
  const { streams } = report;
  if (streams) {
    lines.push('', `${streams.streams} streams at 50 frames/s: ${streams.failed} failed; ${streams.seconds.toFixed(1)} s for ${streams.expectedSeconds} s of frames; ` +
      `${streams.framesPerSecond.toFixed(0)} frames/s; ${streams.cpuMicrosPerFrame.toFixed(1)} CPU µs/frame; ${streams.kilobytesPerStream.toFixed(0)} kB/stream`);
  }
  return `${lines.join('\n')}\n`;
}

function row(cells: readonly string[]): string {
  return cells.map((cell, index) => cell.padEnd([7, 11, 20, 18, 18, 18, 18, 7][index]!)).join(' ').trimEnd();
}
