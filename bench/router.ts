import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { complexityOf, FEATURES, featuresOf, type ComplexityWeights } from '../src/cost/complexity.ts';

// `npm run bench:router -- --data FILE [--train OUT] [--json]`: how well the complexity of a prompt tells which questions need the strong model, on subjects
// that it was not trained on, beside the length of the prompt alone. The subjects are split several times: one split alone can be lucky by 0.01. With --train the weights are made from all rows, and written.

interface Row {
  subject: string;
  prompt: string;
  weak: boolean;
  strong: boolean;
}

interface Score {
  apgr: number;
  cpt50: number;
  cpt80: number;
}

const FOLDS = 5;
const SPLITS = 8;
const SEED = 20261124;
/** So strong that a weight is nearly the feature's own covariance: on subjects that were not seen, weights that correct each other do worse. */
const RIDGE = 300_000;

/** RFC 4180: fields may be quoted, and hold commas, quotes (doubled) and line breaks. */
function readCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let field = '';
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!;
    if (quoted) {
      if (char !== '"') field += char;
      else if (text[at + 1] === '"') {
        field += '"';
        at += 1;
      } else quoted = false;
    } else if (char === '"') quoted = true;
    else if (char === ',') {
      row.push(field);
      field = '';
    } else if (char === '\n') {
      rows.push([...row, field.replace(/\r$/, '')]);
      row = [];
      field = '';
    } else field += char;
  }
  if (field !== '' || row.length > 0) rows.push([...row, field]);
  return rows;
}

/** Area between the curve of mean correctness and the weak model's, as part of the strong model's gap; and the shares of strong calls that recover 50 and 80 % of it. */
function judge(rows: readonly Row[], scores: readonly number[]): Score {
  const order = rows.map((_, index) => index).sort((left, right) => scores[right]! - scores[left]!);
  const gap = rows.reduce((sum, { weak, strong }) => sum + Number(strong) - Number(weak), 0);
  let recovered = 0;
  let area = 0;
  let cpt50 = 1;
  let cpt80 = 1;
  for (const [sent, index] of order.entries()) {
    const { weak, strong } = rows[index]!;
    const before = recovered;
    recovered += Number(strong) - Number(weak);
    area += (before + recovered) / 2 / gap / rows.length;
    const share = (sent + 1) / rows.length;
    if (recovered >= 0.5 * gap) cpt50 = Math.min(cpt50, share);
    if (recovered >= 0.8 * gap) cpt80 = Math.min(cpt80, share);
  }
  return { apgr: area, cpt50, cpt80 };
}

/**
 * Ridge regression, on standardized features, of which questions only the strong model gets right, among those that either does: what neither can answer says
 * nothing of which to ask. Then the scale, so that 0.5 is the median and 0.9 the ninth decile.
 */
function train(all: readonly Row[], from: string): ComplexityWeights {
  const rows = all.filter(({ weak, strong }) => weak || strong);
  const values = rows.map(({ prompt }) => featuresOf(prompt));
  const means = FEATURES.map((_, f) => values.reduce((sum, row) => sum + row[f]!, 0) / rows.length);
  const deviations = FEATURES.map((_, f) => Math.max(1e-6, Math.sqrt(values.reduce((sum, row) => sum + (row[f]! - means[f]!) ** 2, 0) / rows.length)));
  const standard = values.map((row) => row.map((value, f) => Math.max(-4, Math.min(4, (value - means[f]!) / deviations[f]!))));
  const needed = rows.map(({ weak, strong }) => Number(strong && !weak));
  const meanNeeded = needed.reduce((sum, one) => sum + one, 0) / rows.length;
  const n = FEATURES.length;
  const system = Array.from({ length: n }, (_, i) => [...Array.from({ length: n }, (__, j) => standard.reduce((sum, row) => sum + row[i]! * row[j]!, i === j ? RIDGE : 0)), standard.reduce((sum, row, r) => sum + row[i]! * (needed[r]! - meanNeeded), 0)]);
  const weights = solve(system);
  const scores = all.map(({ prompt }) => featuresOf(prompt).reduce((sum, value, f) => sum + Math.max(-4, Math.min(4, (value - means[f]!) / deviations[f]!)) * weights[f]!, 0));
  // The logistic curve that comes nearest to the distribution of the scores.
  const sorted = scores.toSorted((left, right) => left - right);
  const at = (share: number): number => sorted[Math.floor(share * sorted.length)]!;
  const slope = Math.log(9) / ((at(0.9) - at(0.1)) / 2);
  const calibration = { intercept: round(-slope * at(0.5)), slope: round(slope) };
  return {
    made: { by: 'npm run bench:router -- --train', from, as_of: '2026-11' }, calibration,
    features: Object.fromEntries(FEATURES.map((name, f) => [name, { mean: round(means[f]!), deviation: round(deviations[f]!), weight: round(weights[f]!) }])) as ComplexityWeights['features'],
  };
}

/** Gauss elimination with pivots. */
function solve(system: number[][]): number[] {
  const n = system.length;
  for (let column = 0; column < n; column++) {
    const pivot = system.slice(column).reduce((best, row, at) => (Math.abs(row[column]!) > Math.abs(system[best]![column]!) ? column + at : best), column);
    [system[column], system[pivot]] = [system[pivot]!, system[column]!];
    for (let row = 0; row < n; row++) {
      if (row === column) continue;
      const factor = system[row]![column]! / system[column]![column]!;
      for (let at = column; at <= n; at++) system[row]![at]! -= factor * system[column]![at]!;
    }
  }
  return system.map((row, at) => row[n]! / row[at]!);
}

function round(value: number): number {
  return Number(value.toPrecision(5));
}

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

function yaml(weights: ComplexityWeights, rows: readonly Row[]): string {
  const right = (low: number, high: number): string => {
    const some = rows.filter(({ prompt }) => {
      const complexity = complexityOf(prompt, weights);
      return complexity >= low && complexity < high;
    });
    return `${Math.round((100 * some.filter(({ weak }) => weak).length) / some.length)} % (the strong one ${Math.round((100 * some.filter(({ strong }) => strong).length) / some.length)} %)`;
  };
  const { made, calibration, features } = weights;
  return [
    '# What a prompt\'s features say of its complexity. Made, not written: `npm run bench:router -- --data FILE --train config/complexity.yaml`.',
    '# mean and deviation standardize a feature; weight is what one deviation adds to the score; calibration turns the score into the scale of 0 to 1.',
    `# The economical of two models was right in ${right(0, 0.5)} of the questions below 0.5, in ${right(0.5, 1)} of those above, in ${right(0.9, 1)} above 0.9.`,
    `made: { by: ${JSON.stringify(made.by)}, from: ${JSON.stringify(made.from)}, as_of: ${JSON.stringify(made.as_of)} }`,
    `calibration: { intercept: ${calibration.intercept}, slope: ${calibration.slope} }`, 'features:',
    ...Object.entries(features).map(([name, { mean, deviation, weight }]) => `  ${name}: { mean: ${mean}, deviation: ${deviation}, weight: ${weight} }`), '',
  ].join('\n');
}

const { values: { data, train: out, json } } = parseArgs({ options: { data: { type: 'string' }, train: { type: 'string' }, json: { type: 'boolean' } } });
if (data === undefined) {
  process.stderr.write('usage: npm run bench:router -- --data FILE [--train OUT] [--json]\n');
  process.exit(1);
}
const rows = readCsv(readFileSync(data, 'utf8')).slice(1).filter(({ length }) => length >= 4)
  .map(([subject, prompt, weak, strong]): Row => ({ subject: subject!, prompt: prompt!, weak: weak === 'True', strong: strong === 'True' }));
const next = random(SEED);
const subjects = [...new Set(rows.map(({ subject }) => subject))];
let lastWeights: ComplexityWeights | undefined;
const ofSplits = Array.from({ length: SPLITS }, () => {
  const shuffled = subjects.map((subject) => ({ subject, at: next() })).sort((left, right) => left.at - right.at);
  const foldOf = new Map(shuffled.map(({ subject }, index) => [subject, index % FOLDS]));
  // Each row is judged by weights that never saw its subject.
  const ownWeights = Array.from({ length: FOLDS }, (_, fold) => train(rows.filter(({ subject }) => foldOf.get(subject) !== fold), 'all but one fold'));
  lastWeights = ownWeights[0];
  return { complexity: judge(rows, rows.map(({ subject, prompt }) => complexityOf(prompt, ownWeights[foldOf.get(subject)!]!))), random: judge(rows, rows.map(() => next())) };
});
const mean = (scores: readonly Score[]): Score => {
  const of = (read: (score: Score) => number): number => scores.reduce((sum, score) => sum + read(score), 0) / scores.length;
  return { apgr: of(({ apgr }) => apgr), cpt50: of(({ cpt50 }) => cpt50), cpt80: of(({ cpt80 }) => cpt80) };
};
const results = {
  complexity: mean(ofSplits.map(({ complexity }) => complexity)), 'prompt length': judge(rows, rows.map(({ prompt }) => prompt.length)), random: mean(ofSplits.map(({ random: one }) => one)),
};
const apgrs = ofSplits.map(({ complexity }) => complexity.apgr);
const [apgrLeast, apgrMost] = [Math.min(...apgrs), Math.max(...apgrs)];
const startedMs = performance.now();
for (const { prompt } of rows.slice(0, 2_000)) complexityOf(prompt, lastWeights!);
const microseconds = ((performance.now() - startedMs) / Math.min(2_000, rows.length)) * 1_000;
if (json) process.stdout.write(`${JSON.stringify({ rows: rows.length, subjects: subjects.length, folds: FOLDS, splits: SPLITS, apgrLeast, apgrMost, microsecondsPerPrompt: microseconds, ...results })}\n`);
else {
  process.stdout.write(`${rows.length} questions of ${subjects.length} subjects, each judged by weights that never saw its subject (${FOLDS} folds, mean of ${SPLITS} splits)\n\n                APGR    CPT50    CPT80\n`);
  for (const [name, { apgr, cpt50, cpt80 }] of Object.entries(results)) process.stdout.write(`${name.padEnd(14)} ${apgr.toFixed(3)}   ${(100 * cpt50).toFixed(1)} %   ${(100 * cpt80).toFixed(1)} %\n`);
  process.stdout.write(`\ncomplexity over the splits: APGR ${apgrLeast.toFixed(3)} to ${apgrMost.toFixed(3)}; ${microseconds.toFixed(0)} µs a prompt\n`);
}
if (out !== undefined) writeFileSync(out, yaml(train(rows, 'MMLU questions answered by two models (lm-sys/RouteLLM, Apache-2.0)'), rows));
