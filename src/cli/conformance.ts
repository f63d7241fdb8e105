/** `routed-experts conformance DIR`: runs recorded schedules of vLLM's scheduler through ours. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { RoutedExpertsError } from '../contract/errors.ts';
import { parseSchedule } from '../conformance/recorded-schedule.ts';
import { checkSchedule, type ScheduleCheckOptions } from '../conformance/schedule-check.ts';
import { slotStoreCheck } from '../conformance/slot-store-check.ts';

export type ConformanceFailure = Readonly<{
  name: string;
  step: number;
  field: string;
  expected: unknown;
  actual: unknown;
}>;

export type ConformanceResult = Readonly<{ passed: number; failed: number; failures: readonly ConformanceFailure[] }>;

/** The `*.jsonl` files of a directory in order of name. Throws BAD_FILE if it cannot be read or has none. */
const recordingFiles = (directory: string): string[] => {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const problem = code === 'ENOENT' ? 'no such directory' : code === 'ENOTDIR' ? 'not a directory' : message;
    throw RoutedExpertsError.of('BAD_FILE', directory, `${problem}; give a directory of recordings (*.jsonl)`);
  }
  const files = names.filter((name) => name.endsWith('.jsonl')).sort();
  if (files.length === 0) throw RoutedExpertsError.of('BAD_FILE', directory, 'holds no recording (*.jsonl)');
  return files.map((name) => join(directory, name));
};

/**
 * Checks every line of every `*.jsonl` in `directory`. A line that cannot be read is a failure of its own, with field
 * `recording`, and the others still run. Throws BAD_FILE if there is nothing to check.
 */
export const runConformance = (directory: string, options: ScheduleCheckOptions = {}): ConformanceResult => {
  let passed = 0;
  const failures: ConformanceFailure[] = [];
  for (const file of recordingFiles(directory)) {
    let lines: string[];
    try {
      lines = readFileSync(file, 'utf8').split('\n');
    } catch (error) {
      throw RoutedExpertsError.of('BAD_FILE', file, (error as Error).message);
    }
    for (const [i, line] of lines.entries()) {
      if (line.trim() === '') continue;
      try {
        const recording = parseSchedule(line, file, i + 1);
        const difference = checkSchedule(recording, options);
        if (difference === null) passed += 1;
        else failures.push({ name: recording.name, ...difference });
      } catch (error) {
        if (!(error instanceof RoutedExpertsError)) throw error;
        const name = `${file}:${i + 1}`;
        failures.push({ name, step: -1, field: 'recording', expected: 'a recording', actual: error.message });
      }
    }
  }
  return { passed, failed: failures.length, failures };
};

const describe = ({ name, step, field, expected, actual }: ConformanceFailure): string =>
  `${name}, step ${step}, ${field}\n  expected ${JSON.stringify(expected)}\n  actual   ${JSON.stringify(actual)}`;

/**
 * @param check what the check is run with, e.g. the slot-store design whose row counts the recordings hold
 */
export const createConformanceCommand = (check: ScheduleCheckOptions = {}): Command =>
  new Command('conformance')
    .description("Replay recorded schedules of vLLM's scheduler and compare every decision and every emitted row")
    .argument('<dir>', 'directory of recordings (*.jsonl)')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', '\nExit code: 0 all passed, 1 a recording differs or cannot be read, 2 nothing to replay.')
    .action((directory: string, options: { json?: boolean }) => {
      let result: ConformanceResult;
      try {
        result = runConformance(directory, check);
      } catch (error) {
        if (!(error instanceof RoutedExpertsError)) throw error;
        process.stderr.write(`error: ${error.message}\n`);
        process.exitCode = 2;
        return;
      }
      if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
      else {
        for (const failure of result.failures) process.stdout.write(`${describe(failure)}\n`);
        process.stdout.write(`${result.passed} passed, ${result.failed} failed\n`);
      }
      if (result.failed > 0) process.exitCode = 1;
    });

export const conformanceCommand: Command = createConformanceCommand(slotStoreCheck);
