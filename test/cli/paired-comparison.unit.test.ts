// What a bench says of two designs: the interval holds the true ratio whatever the machine's noise and whenever it
// stops, `off` against `off` is called a difference in at most 2 % of comparisons, and a real difference is found.
// Timings are generated, or recorded (`off-timings.json`); no test looks at a clock.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Comparison } from '../../src/cli/bench/statistics/paired-comparison.ts';
import {
  FEWEST_PAIRS,
  MOST_PAIRS,
  PairedComparison,
  verdictOf,
} from '../../src/cli/bench/statistics/paired-comparison.ts';
import { signedRankInterval } from '../../src/cli/bench/statistics/signed-rank.ts';
import type { Random } from '../../src/workload/random.ts';
import { random } from '../../src/workload/random.ts';

type Recorded = Readonly<{ recordings: readonly Readonly<{ name: string; tokensPerSecond: readonly number[] }>[] }>;
const recorded = JSON.parse(readFileSync(new URL('off-timings.json', import.meta.url), 'utf8')) as Recorded;

const SEED = 12;
const COMPARISONS = 200;
const MOST_PAIRS_TRIED = 60;

/** Makes the rates of one machine, run after run. */
type Machine = (stream: Random) => () => number;

function gauss(stream: Random): number {
  return Math.sqrt(-2 * Math.log(1 - stream.nextFloat())) * Math.cos(2 * Math.PI * stream.nextFloat());
}

const machines: Readonly<Record<string, Machine>> = {
  quiet: (stream) => () => Math.exp(0.003 * gauss(stream)),
  'each run within ± 2 %': (stream) => () => 0.98 + 0.04 * stream.nextFloat(),
  'noise of 3 %': (stream) => () => Math.exp(0.03 * gauss(stream)),
  'heavy tails': (stream) => () => Math.exp((0.1 * gauss(stream)) / Math.abs(gauss(stream))),
  autocorrelated: (stream) => {
    let level = 0;
    return () => {
      level = 0.95 * level + 0.1 * gauss(stream);
      return Math.exp(level + 0.05 * gauss(stream));
    };
  },
  'drifting clocks': (stream) => {
    let run = 0;
    return () => Math.exp(0.02 * run++ + 0.05 * gauss(stream));
  },
  'bursts of other load': (stream) => {
    let isBusy = false;
    return () => {
      if (stream.nextFloat() < 0.1) isBusy = !isBusy;
      return (isBusy ? 0.5 : 1) * Math.exp(0.01 * gauss(stream));
    };
  },
  'every other run slower': (stream) => {
    let run = 0;
    return () => (run++ % 2 === 0 ? 0.8 : 1) * Math.exp(0.01 * gauss(stream));
  },
  ...Object.fromEntries(recorded.recordings.map(({ name, tokensPerSecond }) => [name, replay(tokensPerSecond)])),
};

/** From a run that is drawn, and round again at the end. */
function replay(rates: readonly number[]): Machine {
  return (stream) => {
    let run = stream.below(rates.length);
    return () => rates[run++ % rates.length]!;
  };
}

type Trial = Readonly<{ machine: Machine; effect?: number; isOrderDrawn?: boolean; pairs?: number }>;

/** Comparison `index` of a machine: it goes on for as many pairs as its budget has, which is drawn. */
function compareOnce({ machine, effect = 1, isOrderDrawn = true, pairs }: Trial, index: number): Comparison {
  const stream = random(SEED, `test/machine/${index}`);
  const order = random(SEED, `test/order/${index}`);
  const rate = machine(stream);
  const budget = pairs ?? FEWEST_PAIRS + stream.below(MOST_PAIRS_TRIED - FEWEST_PAIRS + 1);
  const comparison = new PairedComparison(0.02);
  for (let pair = 0; pair < budget && !comparison.isSettled; pair++) {
    const [first, second] = [rate(), rate()];
    const isOffFirst = !isOrderDrawn || order.below(2) === 0;
    comparison.add(effect * (isOffFirst ? second / first : first / second));
  }
  return comparison.end('time budget');
}

function compareOften(trial: Trial): Comparison[] {
  return Array.from({ length: COMPARISONS }, (_, index) => compareOnce(trial, index));
}

function countDifferences(comparisons: readonly Comparison[]): number {
  return comparisons.filter(({ verdict }) => verdict === 'slower' || verdict === 'faster').length;
}

describe.each(Object.entries(machines))('%s', (_name, machine) => {
  test('off against off: at most 2 % of 200 comparisons see a difference', () => {
    expect(countDifferences(compareOften({ machine }))).toBeLessThanOrEqual(0.02 * COMPARISONS);
    const withFewest = compareOften({ machine, pairs: FEWEST_PAIRS });
    expect(countDifferences(withFewest)).toBeLessThanOrEqual(0.02 * COMPARISONS);
  });

  test('the interval holds the true ratio in at least 95 % of 200 comparisons', () => {
    for (const effect of [1, 0.93]) {
      const comparisons = compareOften({ machine, effect });
      const right = comparisons.filter(({ interval }) => interval!.low <= effect && effect <= interval!.high);
      expect(right.length).toBeGreaterThanOrEqual(0.95 * COMPARISONS);
    }
  });
});

test('5 % slower at ± 2 % of noise is found, with few pairs', () => {
  const machine = machines['each run within ± 2 %']!;
  const comparisons = compareOften({ machine, effect: 0.95, pairs: MOST_PAIRS_TRIED });
  const found = comparisons.filter(({ verdict, pairs }) => verdict === 'slower' && pairs <= 17);
  expect(found.length).toBeGreaterThanOrEqual(0.95 * COMPARISONS);
});

test('5 % slower on a quiet machine is found with the fewest pairs, every time; so is 5 % faster', () => {
  for (const [effect, wanted] of [
    [0.95, 'slower'],
    [1.05, 'faster'],
    [1, 'no difference seen'],
    [0.99, 'no difference seen'],
  ] as const) {
    const comparisons = compareOften({ machine: machines['quiet']!, effect });
    expect(new Set(comparisons.map(({ verdict }) => verdict))).toEqual(new Set([wanted]));
    expect(new Set(comparisons.map(({ pairs }) => pairs))).toEqual(new Set([FEWEST_PAIRS]));
  }
});

test('the drawn order is what makes it right: with off always first, a difference is seen where none is', () => {
  const machine = machines['every other run slower']!;
  expect(countDifferences(compareOften({ machine, isOrderDrawn: false }))).toBe(COMPARISONS);
});

describe('verdicts', () => {
  test.each([
    [0.9, 0.979, 'slower'],
    [0.9, 0.98, 'too noisy to say'],
    [0.95, 0.985, 'no difference seen'],
    [0.99, 1.01, 'no difference seen'],
    [0.97, 1.02, 'too noisy to say'],
    [1.02, 1.2, 'too noisy to say'],
    [1.021, 1.2, 'faster'],
  ])('[%d, %d]: %s', (low, high, verdict) => {
    expect(verdictOf({ low, high, halfWidth: (high - low) / 2 })).toBe(verdict);
  });
});

function after(ratios: readonly number[], targetHalfWidth: number): PairedComparison {
  const comparison = new PairedComparison(targetHalfWidth);
  for (const ratio of ratios) comparison.add(ratio);
  return comparison;
}

describe('when it ends', () => {
  test('fewer than 8 pairs: a ratio, no interval, no verdict', () => {
    const comparison = after([0.9, 0.9, 0.9, 0.9, 0.91, 0.9, 0.9], 0.02);
    expect(comparison.isSettled).toBe(false);
    const ended = { pairs: 7, ratio: 0.9, interval: null, verdict: 'too noisy to say', endedBy: 'repeats' };
    expect(comparison.end('repeats')).toEqual(ended);
  });

  test('8 pairs: the interval is from the lowest to the highest; narrow enough, and it is settled for good', () => {
    const ratios = [0.91, 0.92, 0.93, 0.94, 0.9, 0.92, 0.93, 0.92];
    const comparison = after(ratios, 0.021);
    expect(comparison.isSettled).toBe(true);
    comparison.add(2);
    const { interval, ...rest } = comparison.end('time budget');
    expect(rest).toEqual({ pairs: 8, ratio: 0.92, verdict: 'slower', endedBy: 'half-width' });
    expect(interval!.low).toBeCloseTo(0.9, 12);
    expect(interval!.high).toBeCloseTo(0.94, 12);
    expect(interval!.halfWidth).toBeCloseTo(0.02, 12);
    expect(after(ratios, 0.019).isSettled).toBe(false);
  });

  test('between looks it goes on, however narrow the interval has become', () => {
    const ratios = [0.5, ...Array.from({ length: 30 }, () => 1)];
    const widths = [16, 17].map((pairs) => after(ratios.slice(0, pairs), 0).end('repeats').interval!.halfWidth);
    expect(widths).toEqual([0, 0]);
    const settledAt = ratios.flatMap((_, i) => (after(ratios.slice(0, i), 0.02).isSettled ? [i] : []));
    expect(settledAt[0]).toBe(17);
  });

  test('it never takes more than the most pairs', () => {
    const stream = random(SEED, 'test/most');
    const ratios = Array.from({ length: MOST_PAIRS + 5 }, () => Math.exp(gauss(stream)));
    const { pairs, endedBy } = after(ratios, 0.001).end('time budget');
    expect({ pairs, endedBy }).toEqual({ pairs: MOST_PAIRS, endedBy: 'most pairs' });
  });

  test('two heaps: the interval holds the median that is printed beside it', () => {
    const ratios = Array.from({ length: 101 }, (_, i) => (i % 2 === 0 ? 1 : 0.5));
    const { ratio, interval, verdict } = after(ratios, 0).end('repeats');
    expect([ratio, interval!.high, verdict]).toEqual([1, 1, 'too noisy to say']);
  });
});

/** Which of the averages of two of `count` values is the interval's low end. No two of these averages are the same. */
function placeOfLow(count: number, errorRate: number): number {
  const values = Array.from({ length: count }, (_, i) => 3 ** i);
  const averages = values.flatMap((a, i) => values.slice(i).map((b) => (a + b) / 2)).sort((a, b) => a - b);
  return averages.indexOf(signedRankInterval(values, errorRate)!.low);
}

describe('the signed-rank interval', () => {
  test('is that of the tables: places of the Walsh averages for 5 % and 1 %', () => {
    // Largest rank sums that a two-sided test rejects: Wilcoxon's table, Hollander and Wolfe's A.4.
    expect([6, 8, 10, 15, 20, 25].map((count) => placeOfLow(count, 0.05))).toEqual([0, 3, 8, 25, 52, 89]);
    expect([8, 10, 15, 20, 25].map((count) => placeOfLow(count, 0.01))).toEqual([0, 3, 15, 37, 68]);
  });

  test('does not exist for values too few to err so seldom', () => {
    expect(signedRankInterval([1, 2, 3, 4, 5], 0.05)).toBeNull();
    expect(signedRankInterval([], 0.05)).toBeNull();
    expect(signedRankInterval([1, 2, 3, 4, 5, 6], 0.05)).toEqual({ low: 1, high: 6 });
  });
});
