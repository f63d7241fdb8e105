/** The benches of a sweep: one for each value. */

import { RoutedExpertsError } from '../../../contract/errors.ts';
import { prepareAdapters } from '../../../kernels/device/open-device.ts';
import { benchDevice, type BenchDevice } from '../bench-device.ts';
import { runBench } from '../bench.ts';
import type { BenchOptions } from '../bench-options.ts';
import { prepareBench } from '../flags/prepare-bench.ts';
import { checkRunning, sweptFlags, type Sweep } from '../flags/sweep.ts';
import { dividedEnding, type Progress } from '../pair-schedule.ts';
import { toJson } from '../report.ts';
import type { SweptReport } from '../report/sweep-report.ts';
import type { Flags } from '../settings.ts';
import { checkFiles, type FileDigests } from './measured-files.ts';

/** What is measured, and on what: all that decides which rows a sweep serves. */
export type SweptFlags = Omit<Flags, 'json' | 'csv' | 'sweep'> & Readonly<{ sweep: Sweep }>;

/** One value, with all its designs: what is compared runs on one machine. `index`: of the value. */
export type SweepTask = Readonly<{
  flags: SweptFlags;
  index: number;
  pace: BenchDevice['pace'];
  files: FileDigests;
}>;

/** Rejects with what makes a bench of the value impossible. */
export async function prepareValue(flags: SweptFlags, index: number): Promise<BenchOptions> {
  const { sweep } = flags;
  const options = await prepareBench(sweptFlags(sweep, flags)[index]!);
  if (sweep.parameter === 'requests-running') checkRunning(options);
  return {
    ...options,
    // The shaders are the same for every value.
    checksShaders: options.checksShaders && index === 0,
    ending: dividedEnding(options.ending, sweep.values.length),
  };
}

export async function measureValue(
  { parameter, values }: Sweep,
  index: number,
  options: BenchOptions,
  onProgress: (progress: Progress, what: string) => void,
): Promise<SweptReport> {
  const value = values[index]!.text;
  const result = await runBench(options, (progress, what) => onProgress(progress, `${parameter} ${value}: ${what}`));
  return { value, ...toJson(result) };
}

/** As `measureValue`, for a campaign that began elsewhere. Rejects where this machine would measure something else. */
export async function measureTask(
  { flags, index, pace, files }: SweepTask,
  onProgress: (progress: Progress, what: string) => void,
): Promise<SweptReport> {
  checkFiles(files);
  const here = await deviceHere(flags);
  if (here.pace !== pace) {
    const advice = `"${pace}" (--device ${flags.device}), as where it began; or begin it on a machine like this one`;
    throw RoutedExpertsError.of('BAD_VALUE', 'pace of the device', here.pace, advice);
  }
  return measureValue(flags.sweep, index, await prepareValue(flags, index), onProgress);
}

/** What the flags choose on this machine. */
export async function deviceHere(
  flags: Pick<Flags, 'device' | 'adapter' | 'stepTime' | 'ballastMs'>,
): Promise<BenchDevice> {
  await prepareAdapters();
  return benchDevice(flags);
}
