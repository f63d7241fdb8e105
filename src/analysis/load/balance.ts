/** How evenly selections are spread over the experts of a layer. Definitions: `metric-definitions.ts`. */

import { greatest, median, quotient, sum } from '../statistics.ts';

/** Metrics of one layer; `null`: not defined, since there are no selections, or too few experts. */
export type Balance = Readonly<{
  total: number;
  max: number;
  min: number;
  argmax: number | null;
  topShare: number | null;
  maxOverMean: number | null;
  meanOverMax: number | null;
  cvPopulation: number | null;
  cvSample: number | null;
  gini: number | null;
  jain: number | null;
  entropyNats: number | null;
  entropyBits: number | null;
  entropyNormalized: number | null;
  effectiveExperts: number | null;
  diversity: number | null;
  dead: number;
  deadFraction: number | null;
  maxVio: number | null;
  minVio: number | null;
  avgVio: number | null;
  expectedDeadUniform: number;
  cvUniform: number | null;
}>;

/** What the counts were taken from: T rows of K selections. */
export type SampleSize = Readonly<{ numRows: number; topK: number }>;

/** `counts`: selections of each expert. */
export function balanceOf(counts: ArrayLike<number>, { numRows, topK }: SampleSize): Balance {
  const numExperts = counts.length;
  const sorted = Float64Array.from(counts).sort();
  const total = sum(sorted);
  const max = sorted.at(-1) ?? 0;
  const min = sorted[0] ?? 0;
  const mu = total / numExperts;
  const over = (value: number): number | null => quotient(value, total === 0 ? 0 : mu);
  let squares = 0;
  let deviations = 0;
  let absolute = 0;
  let ranked = 0;
  let entropy = 0;
  let dead = 0;
  sorted.forEach((count, i) => {
    squares += count * count;
    deviations += (count - mu) ** 2;
    absolute += Math.abs(count / mu - 1);
    ranked += (2 * (i + 1) - numExperts - 1) * count;
    if (count === 0) dead++;
    else entropy -= (count / total) * Math.log(count / total);
  });
  const defined = (value: number): number | null => (total === 0 ? null : value);
  return {
    total,
    max,
    min,
    argmax: defined(Array.prototype.indexOf.call(counts, max)),
    topShare: quotient(max, total),
    maxOverMean: over(max),
    meanOverMax: quotient(mu, max),
    cvPopulation: over(Math.sqrt(deviations / numExperts)),
    cvSample: numExperts < 2 ? null : over(Math.sqrt(deviations / (numExperts - 1))),
    gini: quotient(ranked, numExperts * total),
    jain: quotient(total * total, numExperts * squares),
    entropyNats: defined(entropy),
    entropyBits: defined(entropy / Math.LN2),
    entropyNormalized: numExperts < 2 ? null : defined(entropy / Math.log(numExperts)),
    effectiveExperts: defined(Math.exp(entropy)),
    diversity: defined(Math.exp(entropy) / numExperts),
    dead,
    deadFraction: quotient(dead, numExperts),
    maxVio: defined(max / mu - 1),
    minVio: defined(min / mu - 1),
    avgVio: defined(absolute / numExperts),
    expectedDeadUniform: expectedDead(numExperts, topK, numRows),
    cvUniform: quotient(Math.sqrt(numExperts - topK), Math.sqrt(numRows * topK)),
  };
}

/** Experts that uniform random routing leaves without a selection in `numRows` rows: E·(1 − K/E)^T. */
export function expectedDead(numExperts: number, topK: number, numRows: number): number {
  return numExperts * (1 - topK / numExperts) ** numRows;
}

type SummarizedMetric = keyof Pick<
  Balance,
  | 'cvSample'
  | 'cvPopulation'
  | 'maxOverMean'
  | 'gini'
  | 'jain'
  | 'entropyNormalized'
  | 'diversity'
  | 'deadFraction'
  | 'maxVio'
  | 'minVio'
  | 'avgVio'
>;

const SUMMARIZED: readonly SummarizedMetric[] = [
  'cvSample',
  'cvPopulation',
  'maxOverMean',
  'gini',
  'jain',
  'entropyNormalized',
  'diversity',
  'deadFraction',
  'maxVio',
  'minVio',
  'avgVio',
];

export type Spread = Readonly<{ mean: number | null; median: number | null; min: number | null; max: number | null }>;

export type BalanceSummary = Readonly<Record<SummarizedMetric, Spread>>;

/** Each metric over the layers in which it is defined. */
export function summaryOf(layers: readonly Balance[]): BalanceSummary {
  const entries = SUMMARIZED.map((name) => [name, spreadOf(layers.map((layer) => layer[name]))]);
  return Object.fromEntries(entries) as BalanceSummary;
}

function spreadOf(values: readonly (number | null)[]): Spread {
  const defined = values.filter((value) => value !== null);
  if (defined.length === 0) return { mean: null, median: null, min: null, max: null };
  return {
    mean: sum(defined) / defined.length,
    median: median(defined),
    min: -greatest(defined.map((value) => -value)),
    max: greatest(defined),
  };
}
