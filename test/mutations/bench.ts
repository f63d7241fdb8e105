/** What makes the bench's verdicts right: the drawn order, the price of a look, the exact interval, the budget. */

import type { SourceMutation } from './source-mutation.ts';

const room = 'src/cli/bench';
const comparisonTest = { test: 'test/cli/paired-comparison.unit.test.ts' };
const scheduleTest = { test: 'test/cli/pair-schedule.unit.test.ts' };
const noiseTest = { test: 'test/cli/machine-noise.unit.test.ts' };

export const benchMutations: readonly SourceMutation[] = [
  {
    name: 'bench-order-not-drawn',
    defect: 'off is the first run of every group',
    file: `${room}/plan.ts`,
    find: 'const order = stream.permutation(members.length);',
    replace: 'const order = [...members.keys()];',
    killedBy: { test: 'test/cli/plan.unit.test.ts' },
  },
  {
    name: 'bench-last-look-errs-by-itself-as-often-as-all',
    defect: 'the look at the end of the budget takes the whole error of 5 %',
    file: `${room}/statistics/paired-comparison.ts`,
    find: 'const LAST_LOOK_ERROR = 0.008;',
    replace: 'const LAST_LOOK_ERROR = 0.05;',
    killedBy: comparisonTest,
  },
  {
    name: 'bench-looks-once',
    defect: 'a comparison that is not narrow enough with 8 pairs goes on until its budget is spent',
    file: `${room}/statistics/paired-comparison.ts`,
    find: 'const LOOK_GROWTH = 1.25;',
    replace: 'const LOOK_GROWTH = 1;',
    killedBy: comparisonTest,
  },
  {
    name: 'bench-median-outside-its-interval',
    defect: 'ratios in two heaps have a median that their interval does not hold',
    file: `${room}/statistics/paired-comparison.ts`,
    find: 'const high = Math.max(Math.exp(around.high), ratio);',
    replace: 'const high = Math.exp(around.high);',
    killedBy: comparisonTest,
  },
  {
    name: 'bench-interval-one-place-too-narrow',
    defect: 'the interval begins at the first average that the test does not exclude, and one more',
    file: `${room}/statistics/signed-rank.ts`,
    find: 'excludedPlaces(values.length, errorRate) - 1;',
    replace: 'excludedPlaces(values.length, errorRate);',
    killedBy: comparisonTest,
  },
  {
    name: 'bench-interval-of-one-side',
    defect: 'only the low end of the interval is paid for',
    file: `${room}/statistics/signed-rank.ts`,
    find: 'let both = 2 * probability[0]; both <= errorRate; both += 2 * probability[places]!',
    replace: 'let both = probability[0]!; both <= errorRate; both += probability[places]!',
    killedBy: comparisonTest,
  },
  {
    name: 'bench-budget-overrun',
    defect: 'a pair is begun though the budget does not last for it',
    file: `${room}/pair-schedule.ts`,
    find: 'elapsedMs + this.#expectedMs(group) > ending.budgetMs',
    replace: 'elapsedMs > ending.budgetMs',
    killedBy: scheduleTest,
  },
  {
    name: 'bench-settled-cells-go-on',
    defect: 'cells that are known well enough take the time of those that are not',
    file: `${room}/pair-schedule.ts`,
    find: 'this.#comparisons.get(cell)?.isSettled === false',
    replace: 'this.#comparisons.has(cell)',
    killedBy: scheduleTest,
  },
  {
    name: 'bench-own-work-is-other-load',
    defect: 'the bench warns of itself',
    file: `${room}/statistics/other-load.ts`,
    find: 'last.busyMs - first.busyMs - (last.ownMs - first.ownMs);',
    replace: 'last.busyMs - first.busyMs;',
    killedBy: noiseTest,
  },
  {
    name: 'bench-noise-is-drift',
    defect: 'a chance difference between first and last runs is called a drift',
    file: `${room}/statistics/drift.ts`,
    find: 'if (Math.abs(rises) < SIGNIFICANT * deviation) return null;',
    replace: '',
    killedBy: noiseTest,
  },
];
