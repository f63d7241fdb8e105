/** How the ranks of a lockstep group went: each by itself, since the slowest one is the step. */

import Table from 'cli-table3';
import type { BenchRun } from '../bench-run.ts';
import { quantile } from '../statistics/quantile.ts';
import { NO_LINES } from './terminal.ts';

/** Times in ms. */
export type Spread = Readonly<{ p50: number; p99: number; max: number }>;

export type RankReport = Readonly<{
  rank: number;
  /** Until its release, from the later of the step's arrival in the rank and the release before it. */
  stepMs: Spread;
  /** At the barrier, for the others. */
  waitMs: Spread;
  /** Share of passes that the rank was the last to end. */
  lastShare: number;
}>;

/** Of all runs together; `null`: they were not in lockstep. */
export function rankReports(runs: readonly BenchRun[]): readonly RankReport[] | null {
  const known = runs.map(({ served }) => served.ranks).filter((ranks) => ranks !== null);
  return (
    (known[0] ?? null)?.map((_, rank): RankReport => {
      const passes = known.map((ranks) => ranks[rank]!);
      const numLast = passes.reduce((sum, each) => sum + each.numLast, 0);
      const stepMs = passes.flatMap((each) => each.stepMs);
      const waitMs = passes.flatMap((each) => each.waitMs);
      return { rank, stepMs: spread(stepMs), waitMs: spread(waitMs), lastShare: numLast / stepMs.length };
    }) ?? null
  );
}

export function spread(values: readonly number[]): Spread {
  const max = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return { p50: quantile(values, 0.5), p99: quantile(values, 0.99), max };
}

export function spreadText({ p50, p99, max }: Spread): string {
  return [p50, p99, max].map((ms) => ms.toFixed(1)).join('/');
}

/** A line for each rank of each cell. */
export function ranksTable(cells: readonly Readonly<{ label: string; ranks: readonly RankReport[] }>[]): string {
  const table = new Table({
    head: ['in lockstep', 'rank', 'step ms p50/p99/max', 'wait ms p50/p99/max', 'last'],
    chars: { ...NO_LINES, mid: '─', 'mid-mid': '──', middle: '  ' },
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    colAligns: ['left', 'right', 'right', 'right', 'right'],
  });
  for (const { label, ranks } of cells) {
    for (const { rank, stepMs, waitMs, lastShare } of ranks) {
      const share = `${(100 * lastShare).toFixed(0)} %`;
      table.push([rank === 0 ? label : '', rank, spreadText(stepMs), spreadText(waitMs), share]);
    }
  }
  const text = 'step: until all ranks have run it; wait: for the slowest of them; last: share of steps it was that one';
  return `${table.toString()}\n${text}`;
}
