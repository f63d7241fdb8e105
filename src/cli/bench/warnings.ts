/** What a reader has to know before believing the figures of a bench. */

import type { Cell } from './plan.ts';
import { cellName } from './plan.ts';
import { driftOf } from './statistics/drift.ts';
import type { OtherLoad } from './statistics/other-load.ts';
import type { Comparison } from './statistics/paired-comparison.ts';
import { FEWEST_PAIRS } from './statistics/paired-comparison.ts';

export type WarningsOptions = Readonly<{
  cells: readonly Cell[];
  /** Of each cell; `null` for `off`. */
  comparisons: readonly (Comparison | null)[];
  /** Of each run of `off`, in order. */
  offRates: readonly number[];
  /** `null`: not known. */
  load: OtherLoad | null;
  numCpus: number;
}>;

const BUSY_SHARE_TOLD = 0.05;
const STOLEN_SHARE_TOLD = 0.01;
/** Other threads that run or wait, per processor. */
const RUNNABLE_TOLD = 0.25;

export function warningsOf({ cells, comparisons, offRates, load, numCpus }: WarningsOptions): string[] {
  const warnings: string[] = [];
  if (load !== null && load.busyShare > BUSY_SHARE_TOLD) {
    warnings.push(`other load: other processes took ${percent(load.busyShare)} of the time of ${numCpus} processors`);
  }
  if (load !== null && load.runnable > RUNNABLE_TOLD * numCpus) {
    warnings.push(
      `run queue: between the runs ${load.runnable.toFixed(1)} threads of other processes ran or waited ` +
        `for one of ${numCpus} processors`,
    );
  }
  if (load !== null && load.stolenShare > STOLEN_SHARE_TOLD) {
    warnings.push(`stolen time: the host kept ${percent(load.stolenShare)} of the processors' time for others`);
  }
  const drift = driftOf(offRates);
  if (drift !== null) {
    const direction = drift > 1 ? 'faster' : 'slower';
    warnings.push(
      `clocks not settled: the last third of the runs of off was ${percent(Math.abs(drift - 1))} ${direction} ` +
        'than the first',
    );
  }
  const few = cells.filter((_, i) => (comparisons[i]?.pairs ?? FEWEST_PAIRS) < FEWEST_PAIRS);
  if (few.length > 0) {
    warnings.push(
      `too few pairs for an interval: ${few.map(cellName).join(', ')} ` +
        `(give --repeats ${FEWEST_PAIRS} or more, or a longer --time-budget)`,
    );
  }
  return warnings;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
