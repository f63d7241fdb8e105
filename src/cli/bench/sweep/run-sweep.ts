/** `bench --sweep`: here, value by value, or as a campaign. */

import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { campaignFile } from '../../campaign/campaign-file.ts';
import { runCampaign } from '../../campaign/run-campaign.ts';
import { givenFields, type RunFlags } from '../../campaign/run-flags.ts';
import type { BenchOptions } from '../bench-options.ts';
import { checkSweep, type Sweep } from '../flags/sweep.ts';
import { checkOutputs, writeOutputs } from '../report/output-files.ts';
import { withProgress } from '../report/progress-display.ts';
import { sweepCsv, type SweptReport } from '../report/sweep-report.ts';
import type { Flags } from '../settings.ts';
import { digestsOfFiles } from './measured-files.ts';
import { reportSweep, sweepKind, type SweepDescription } from './sweep-kind.ts';
import { deviceHere, measureValue, prepareValue, type SweptFlags } from './swept-bench.ts';

/** Options of `bench` that say nothing of what is measured. */
const OTHER_OPTIONS = new Set(['json', 'csv', 'queue', 'campaign', 'shard', 'part', 'patience']);

/** All flags are checked before the first run. What is known is written after each value. */
export async function runSweep(sweep: Sweep, flags: Flags, command: Command): Promise<void> {
  checkSweepFlags(sweep, command);
  const swept = { ...flags, sweep };
  const benches: BenchOptions[] = [];
  for (const index of sweep.values.keys()) benches.push(await prepareValue(swept, index));
  checkOutputs(flags);
  const results: SweptReport[] = [];
  const report = { sweep: sweep.parameter, results };
  for (const [index, options] of benches.entries()) {
    results.push(await withProgress(({ update }) => measureValue(sweep, index, options, update)));
    writeOutputs(flags, { json: report, csv: sweepCsv(report) });
  }
  reportSweep(report, {});
}

/** Each value in a process of its own, wherever the flags say. Without a sweep: one that goes on. */
export async function runSweepCampaign(flags: Flags & RunFlags, command: Command): Promise<void> {
  const { sweep, json, csv, ...run } = flags;
  if (sweep === undefined && !(run.campaign !== undefined && existsSync(campaignFile(run.campaign)))) {
    const advice = '--sweep with it: the shards of a campaign are the values of a sweep';
    throw RoutedExpertsError.of('BAD_VALUE', '--queue, --campaign, --shard', 'given', advice);
  }
  if (sweep !== undefined) checkSweepFlags(sweep, command);
  const { kind: device, pace } = await deviceHere(flags);
  const fields = command.options.map((option) => option.attributeName()).filter((name) => !OTHER_OPTIONS.has(name));
  const values: Readonly<Record<string, unknown>> = { ...flags, device };
  const measured = Object.fromEntries(fields.map((field) => [field, values[field]])) as unknown as SweptFlags;
  // A campaign that goes on was checked when it began, and each value is where it is measured.
  for (const index of sweep?.values.keys() ?? []) await prepareValue(measured, index);
  checkOutputs(flags);
  const description: SweepDescription = { ...measured, kind: 'bench', pace, files: digestsOfFiles(flags) };
  const optionsOf = Object.fromEntries(fields.map((field) => [field, [field]]));
  const given = givenFields(command, { ...optionsOf, files: ['design', 'trace', 'recording'] });
  await runCampaign(sweepKind, description, given, { ...run, jobs: 1, jsonFile: json, csv });
}

function checkSweepFlags(sweep: Sweep, command: Command): void {
  const optionOf = (flag: string) => command.options.find((option) => option.attributeName() === flag)!;
  checkSweep(
    sweep,
    (flag) => command.getOptionValueSource(flag) === 'cli',
    (flag) => optionOf(flag).long!,
  );
}
