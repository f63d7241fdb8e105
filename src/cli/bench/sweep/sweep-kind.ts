/**
 * The campaign of `bench --sweep`: a shard is a value of the sweep with all its designs and shares, since times of two
 * machines say nothing about each other.
 */

import type { CampaignKind, ReportFlags } from '../../campaign/core/kind.ts';
import type { BenchDevice } from '../bench-device.ts';
import { writeOutputs } from '../report/output-files.ts';
import { renderSweep, sweepCsv, type SweepReport, type SweptReport } from '../report/sweep-report.ts';
import type { FileDigests } from './measured-files.ts';
import { openValueProcesses } from './value-processes.ts';
import type { SweepTask, SweptFlags } from './swept-bench.ts';

export type SweepDescription = SweptFlags &
  Readonly<{
    kind: 'bench';
    /** What is not asked for is sized to it. */
    pace: BenchDevice['pace'];
    files: FileDigests;
  }>;

export const sweepKind: CampaignKind<SweepDescription, SweepTask, SweptReport> = {
  name: 'bench',
  measures: true,
  seriesOf: ({ pace, files, ...flags }) => [
    { tasks: flags.sweep.values.map((_, index) => ({ flags, index, pace, files })), mostViolations: Infinity },
  ],
  sizeOf: () => 1,
  numViolations: ({ problems }) => problems.length,
  repeatablePart,
  openRunner: openValueProcesses,
  // What a machine lacks it says where it measures: the one that merges or waits needs none of it.
  checkHere: async () => undefined,
  report: ({ description, results, flags }) =>
    reportSweep({ sweep: description.sweep.parameter, results: results[0]! }, flags),
};

/**
 * Times differ between machines, and with them how many pairs an interval needs. What a run serves does not: requests
 * and rows of each. An aborted request has as many rows as it got to.
 */
function repeatablePart({ value, options, cells, runs, problems }: SweptReport): unknown {
  return {
    value,
    hasProblems: problems.length > 0,
    cells: cells.map(({ design, optInShare }) => {
      const run = runs.find(({ cell }) => cell.design === design && cell.optInShare === optInShare)!;
      const { rowsDelivered, rowsMissing, rowsMismatched } = run.verification;
      const rows = options.abortShare > 0 ? null : rowsDelivered + rowsMissing;
      return { design, optInShare, requests: run.accounting.submitted, rows, rowsMismatched };
    }),
  };
}

/** Writes the files, prints the table, and sets the exit code. */
export function reportSweep(report: SweepReport, { json, jsonFile, csv }: ReportFlags): void {
  writeOutputs({ json: jsonFile, csv }, { json: report, csv: sweepCsv(report) });
  process.stdout.write(`${json === true ? JSON.stringify(report) : renderSweep(report)}\n`);
  if (report.results.some(({ problems }) => problems.length > 0)) process.exitCode = 1;
}
