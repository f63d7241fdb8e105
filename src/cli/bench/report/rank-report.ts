/** How the ranks of a lockstep group went: each by itself, since the slowest one is the step. */

import type { RankPasses } from '../../../worker/pipeline/lockstep/pass-times.ts';
import type { BenchRun } from '../bench-run.ts';
import { quantile } from '../statistics/quantile.ts';
import { textTable } from './text-table.ts';

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
    (known[0] ?? null)?.map((_, rank) =>
      rankReport(
        rank,
        known.map((ranks) => ranks[rank]!),
      ),
    ) ?? null
  );
}

/** `runs`: what the rank did in each. */
export function rankReport(rank: number, runs: readonly RankPasses[]): RankReport {
  const numLast = runs.reduce((sum, each) => sum + each.numLast, 0);
  const stepMs = runs.flatMap((each) => each.stepMs);
  const waitMs = runs.flatMap((each) => each.waitMs);
  return { rank, stepMs: spread(stepMs), waitMs: spread(waitMs), lastShare: numLast / stepMs.length };
}

/** The rank that was most often the last. */
export function straggler(ranks: readonly RankReport[] | null): RankReport | null {
  return ranks?.reduce((a, b) => (b.lastShare > a.lastShare ? b : a)) ?? null;
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
  const heads = ['rank', 'step ms p50/p99/max', 'wait ms p50/p99/max', 'last'];
  const rows = cells.flatMap(({ label, ranks }) =>
    ranks.map(({ rank, stepMs, waitMs, lastShare }) => {
      const share = `${(100 * lastShare).toFixed(0)} %`;
      return [rank === 0 ? label : '', `${rank}`, spreadText(stepMs), spreadText(waitMs), share];
    }),
  );
  const columns = [
    { head: 'in lockstep', align: 'left' as const },
    ...heads.map((head) => ({ head, align: 'right' as const })),
  ];
  const text = 'step: until all ranks have run it; wait: for the slowest of them; last: share of steps it was that one';
  return `${textTable(columns, rows)}\n${text}`;
}
