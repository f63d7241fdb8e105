// How long a bench goes on: until every cell is known well enough, its time is spent, or it has the pairs that were
// asked for. The time is told to it, not measured.

import { describe, expect, test } from 'vitest';
import type { Ending } from '../../src/cli/bench/pair-schedule.ts';
import { PairSchedule } from '../../src/cli/bench/pair-schedule.ts';
import type { Cell, PlannedRun } from '../../src/cli/bench/plan.ts';
import { cellName, planCells } from '../../src/cli/bench/plan.ts';
import { warningsOf } from '../../src/cli/bench/warnings.ts';

const RUN_MS = 100;
const MOST_GROUPS = 10_000;

type Bench = Readonly<{ cells: readonly Cell[]; ending: Ending; rate?: (run: PlannedRun) => number }>;

/** Runs of 100 ms each, after a warm-up of one run a design. */
function run({ cells, ending, rate = () => 1 }: Bench) {
  const schedule = new PairSchedule({ cells, seed: 5, ending });
  const designs = new Set(cells.map(({ design }) => design));
  for (const design of designs) schedule.took(design, RUN_MS);
  let elapsedMs = designs.size * RUN_MS;
  schedule.checkBudget(elapsedMs);
  const runs: PlannedRun[] = [];
  for (let count = 0; count < MOST_GROUPS; count++) {
    const group = schedule.next(elapsedMs);
    if (group === null) return { runs, elapsedMs, comparisons: schedule.end(), progress: schedule.progress(elapsedMs) };
    schedule.add(group, group.map(rate));
    for (const planned of group) {
      runs.push(planned);
      schedule.took(planned.cell.design, RUN_MS);
      elapsedMs += RUN_MS;
    }
  }
  throw new Error('it does not end');
}

/** The ratios of the last cell are 0.5 and 2 in turn, those of all others 1. */
function lastIsNoisy({ cell, repeat }: PlannedRun): number {
  if (cell.design !== 'deltas' || cell.optInShare < 1) return 1;
  return repeat % 2 === 0 ? 0.5 : 2;
}

const cells = planCells(['shm-flock', 'deltas'], [0, 1]);
const numRunsOf = (runs: readonly PlannedRun[], name: string) =>
  runs.filter(({ cell }) => cellName(cell) === name).length;

describe('repeats', () => {
  test.each([1, 3, 20])('%d: so many pairs of each cell, however narrow its interval', (repeats) => {
    const { runs, comparisons, progress } = run({ cells, ending: { kind: 'repeats', repeats } });
    expect(runs).toHaveLength(repeats * 6);
    expect(progress).toMatchObject({
      done: runs.length,
      total: runs.length,
      unit: 'run',
      detail: `, pair ${repeats}`,
    });
    expect(comparisons.map((comparison) => comparison && [comparison.pairs, comparison.endedBy])).toEqual([
      null,
      ...Array.from({ length: 4 }, () => [repeats, 'repeats']),
    ]);
  });
});

describe('half-width', () => {
  const ending = { kind: 'half-width', halfWidth: 0.02, budgetMs: 1e6, isBudgetGiven: true } as const;

  test('8 pairs of cells that agree with themselves, and more of one that does not', () => {
    expect(run({ cells, ending }).runs).toHaveLength(8 * 6);
    const short = { ...ending, budgetMs: 10_000 };
    const { runs, elapsedMs, comparisons, progress } = run({ cells, ending: short, rate: lastIsNoisy });
    expect(['shm-flock 0 %', 'shm-flock 100 %', 'deltas 0 %'].map((name) => numRunsOf(runs, name))).toEqual([8, 8, 8]);
    expect(progress).toMatchObject({
      unit: 'second',
      total: 10,
      detail: expect.stringMatching(/^, pair \d+, 3 of 4 cells settled$/),
    });
    expect(comparisons.map((comparison) => comparison?.endedBy)).toEqual([
      undefined,
      'half-width',
      'half-width',
      'half-width',
      'time budget',
    ]);
    expect(comparisons.at(-1)!.verdict).toBe('too noisy to say');
    // Of its budget, nothing is left for another pair.
    expect(elapsedMs).toBeLessThanOrEqual(short.budgetMs);
    expect(elapsedMs).toBeGreaterThan(short.budgetMs - 2 * RUN_MS);
  });

  test('a budget too short for 8 pairs: what there is, without an interval, and a warning', () => {
    const { comparisons } = run({ cells, ending: { ...ending, budgetMs: 3000 } });
    for (const comparison of comparisons.slice(1)) {
      expect(comparison).toMatchObject({ interval: null, endedBy: 'time budget', verdict: 'too noisy to say' });
    }
    expect(comparisons[1]!.pairs + comparisons[3]!.pairs).toBe(4 + 5);
    const [warning, ...others] = warningsOf({ cells, comparisons, offRates: [], load: null, numCpus: 2 });
    expect(others).toEqual([]);
    expect(warning).toMatch(/^too few pairs for an interval: shm-flock 0 %, .*, deltas 100 % .*--time-budget/);
  });

  test('a budget too short for one pair of each cell is refused, with what is enough', () => {
    expect(() => run({ cells, ending: { ...ending, budgetMs: 850 } })).toThrow(
      /^--time-budget is 0.85; give 6 for 8 pairs, .*1 s were start and warm-up, and a pair of each cell takes 1 s/,
    );
    expect(run({ cells, ending: { ...ending, budgetMs: 900 } }).runs).toHaveLength(6);
    expect(() => run({ cells, ending: { ...ending, budgetMs: 850, numBenches: 4 } })).toThrow(
      /^--time-budget is 3.4; give \d\d for 8 pairs, .* a pair of each cell takes 1 s, for each of 4 values\)/,
    );
  });

  test('a budget that nobody gave lasts for one pair of each cell', () => {
    const { comparisons } = run({ cells, ending: { ...ending, budgetMs: 10, isBudgetGiven: false } });
    expect(comparisons.slice(1).map((comparison) => comparison?.pairs)).toEqual([1, 1, 1, 1]);
  });

  test('off alone has nothing to be compared, and 8 runs', () => {
    const { runs, comparisons } = run({ cells: planCells([], [0]), ending });
    expect([runs.length, comparisons]).toEqual([8, [null]]);
  });
});

describe('warnings', () => {
  const quiet = { cells: [], comparisons: [], offRates: [], numCpus: 2 };

  test('none on a quiet machine, nor where nothing is known', () => {
    expect(warningsOf({ ...quiet, load: { busyShare: 0.03, stolenShare: 0.005, runnable: 0.3 } })).toEqual([]);
    expect(warningsOf({ ...quiet, load: null })).toEqual([]);
  });

  test.each([
    [{ busyShare: 0.4, stolenShare: 0, runnable: 0 }, /^other load: other processes took 40 % .* 2 processors/],
    [{ busyShare: 0, stolenShare: 0, runnable: 1.5 }, /^run queue: between the runs 1\.5 threads/],
    [{ busyShare: 0, stolenShare: 0.02, runnable: 0 }, /^stolen time: the host kept 2 %/],
  ])('%j', (load, warning) => {
    const warnings = warningsOf({ ...quiet, load });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(warning);
  });

  test('clocks that fall', () => {
    const offRates = Array.from({ length: 12 }, (_, i) => 1000 - 10 * i);
    expect(warningsOf({ ...quiet, load: null, offRates })).toEqual([
      'clocks not settled: the last third of the runs of off was 8 % slower than the first',
    ]);
  });
});
