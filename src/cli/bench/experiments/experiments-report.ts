/** The table of the five experiments, with what the RFC reported of each; and as JSON. */

import { rateOf } from '../bench-run.ts';
import { headline } from '../report.ts';
import { rankReports, spread, spreadText, straggler, type RankReport, type Spread } from '../report/rank-report.ts';
import { deadlineLines } from '../report/deadline-lines.ts';
import { ratioText } from '../report/metrics.ts';
import { textTable, type TextColumn } from '../report/text-table.ts';
import { wrapped } from '../report/terminal.ts';
import { ratioReport, type RatioReport } from '../report/cell-report.ts';
import { median } from '../statistics/quantile.ts';
import type { Experiment, ExperimentResult, ExperimentsResult, TimedOut } from './run-experiments.ts';

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

const COLUMNS: readonly TextColumn[] = [
  { head: 'shm-flock', align: 'left' },
  { head: 'tokens/s', align: 'right' },
  { head: 'vs off', align: 'right' },
  { head: 'step ms\np50/p99/max', align: 'right' },
  { head: 'last most', align: 'right' },
  { head: 'time-outs', align: 'left' },
  { head: 'RFC:\nhang at', align: 'right' },
];

export function renderExperiments(result: ExperimentsResult): string {
  const reports = result.experiments.map(reportExperiment);
  const rows = reports.map(
    ({ name, tokensPerSecond, ratioToOff, stepMs, straggler: last, timeouts, reportedHangS }) => [
      name,
      tokensPerSecond?.toFixed(0) ?? '–',
      ratioToOff === null ? '–' : ratioText(ratioToOff),
      stepMs === null ? '–' : spreadText(stepMs),
      last === null ? '–' : `rank ${last.rank} ${(100 * last.lastShare).toFixed(0)} %`,
      timeouts.length === 0 ? 'none' : timeouts.map(({ afterMs }) => `at ${(afterMs / 1e3).toFixed(1)} s`).join(', '),
      reportedHangS === null ? 'none' : `~${reportedHangS} s`,
    ],
  );
  const { deadlines, problems, warnings } = result;
  const lines = [
    headline(result),
    textTable(COLUMNS, rows),
    'step: until all ranks have run it; last most: the rank that most often was the last, with its share of steps',
    'save off: the workers write no rows to shared memory, in no step; read off: the scheduler does not read ' +
      'those of every request that stops',
    'RFC: vllm#38079, with TP 8, DP 2, EP 16 on two nodes',
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
