/** The table of the five experiments, with what the RFC reported of each; and as JSON. */

import { rateOf } from '../bench-run.ts';
import { headline } from '../report.ts';
import { rankReports, spread, straggler, type RankReport, type Spread } from '../report/rank-report.ts';
import { deadlineLines } from '../report/deadline-lines.ts';
import { ratioText } from '../report/metrics.ts';
import { wrapped } from '../report/terminal.ts';
import { ratioReport, type RatioReport } from '../report/cell-report.ts';
import { median } from '../statistics/quantile.ts';
import { EXPERIMENTS_LEGEND, experimentsTable, type Experiment } from './experiments.ts';
import type { ExperimentResult, ExperimentsResult, TimedOut } from './run-experiments.ts';

export type ExperimentReport = Experiment &
  Readonly<{
    /** Output tokens per second, median of the runs; `null`: no run came to its end. */
    tokensPerSecond: number | null;
    ratioToOff: RatioReport | null;
    /** Of all steps of all runs: until all ranks have run them. */
    stepMs: Spread | null;
    ranks: readonly RankReport[] | null;
    /** The rank that was most often the last to end its pass. */
    straggler: Readonly<{ rank: number; lastShare: number }> | null;
    timeouts: readonly TimedOut[];
    rows: Readonly<{ verified: number; mismatched: number; missing: number }>;
  }>;

export function reportExperiment({ experiment, runs, timeouts, comparison }: ExperimentResult): ExperimentReport {
  const ranks = runs.length === 0 ? null : rankReports(runs);
  const sum = (of: (run: (typeof runs)[number]) => number): number => runs.reduce((total, run) => total + of(run), 0);
  const worst = straggler(ranks);
  return {
    ...experiment,
    tokensPerSecond: runs.length === 0 ? null : median(runs.map(rateOf)),
    ratioToOff: comparison && ratioReport([comparison.ratio], comparison),
    stepMs: runs.length === 0 ? null : spread(runs.flatMap((run) => run.served.ranks?.[0]?.stepMs ?? [])),
    ranks,
    straggler: worst === null ? null : { rank: worst.rank, lastShare: worst.lastShare },
    timeouts,
    rows: {
      verified: sum((run) => run.verification.rowsVerified),
      mismatched: sum((run) => run.verification.rowsMismatched),
      missing: sum((run) => run.verification.rowsMissing),
    },
  };
}

export function renderExperiments(result: ExperimentsResult): string {
  const reports = result.experiments.map(reportExperiment);
  const rows = reports.map(({ ratioToOff, timeouts, ...report }) => ({
    ...report,
    ratio: ratioToOff === null ? null : ratioText(ratioToOff),
    timeoutsMs: timeouts.map(({ afterMs }) => afterMs),
  }));
  const { deadlines, problems, warnings } = result;
  const lines = [
    headline(result),
    experimentsTable(rows),
    ...EXPERIMENTS_LEGEND,
    ...deadlineLines(deadlines),
    ...reports.flatMap(({ name, timeouts }) => timeouts.slice(0, 1).map(({ report }) => `${name}: ${report}`)),
    ...warnings.map((warning) => `WARNING ${warning}`),
    ...[...new Set(problems)].map((problem) => `PROBLEM ${problem}`),
  ];
  return lines.map((line) => (line.includes('\n') ? line : wrapped(line, '  '))).join('\n');
}

export function experimentsJson({ options, experiments, ...rest }: ExperimentsResult): unknown {
  const { workload, session, ...asked } = options;
  return {
    ...rest,
    options: { ...asked, session, workload: workload.name },
    experiments: experiments.map(reportExperiment),
  };
}
