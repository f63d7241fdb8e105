/**
 * Measures values of a sweep in a process each, so that nothing else runs on the threads that are measured, and a
 * crash costs one value. One at a time, whatever the number of jobs.
 */

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { RoutedExpertsError, type ErrorCode } from '../../../contract/errors.ts';
import { moduleBeside } from '../../../worker/module-beside.ts';
import type { TaskRunner } from '../../campaign/core/kind.ts';
import type { SweptReport } from '../report/sweep-report.ts';
import type { SweepTask } from './swept-bench.ts';

/** What the process of a value says at its end. `code`: of an error of ours. */
export type ValueMessage = Readonly<{ report: SweptReport }> | Readonly<{ problem: string; code: ErrorCode | null }>;

export function openValueProcesses(): TaskRunner<SweepTask, SweptReport> {
  const file = fileURLToPath(moduleBeside(import.meta.url, 'value.process'));
  let child: ChildProcess | null = null;
  let latest: Promise<unknown> = Promise.resolve();
  const measure = async (task: SweepTask): Promise<SweptReport> => {
    const { parameter, values } = task.flags.sweep;
    // The arguments tell what the process is for; the task comes as a message.
    const args = ['bench', '--sweep', `${parameter}=${values[task.index]!.text}`];
    child = fork(file, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    try {
      return await reportOf(child, task);
    } finally {
      child = null;
    }
  };
  return {
    run: (task) => {
      const report = latest.then(() => measure(task));
      latest = report.catch(() => undefined);
      return report;
    },
    close: async () => void child?.kill('SIGKILL'),
  };
}

function reportOf(child: ChildProcess, task: SweepTask): Promise<SweptReport> {
  const { promise, resolve, reject } = Promise.withResolvers<SweptReport>();
  let message: ValueMessage | null = null;
  child.on('message', (heard) => {
    message = heard as ValueMessage;
  });
  child.on('error', reject);
  child.on('exit', (exitCode, signal) => {
    const end = signal ?? `exit code ${exitCode}`;
    if (message === null) reject(new Error(`the process that measured it ended with ${end}`));
    else if ('report' in message) resolve(message.report);
    else if (message.code === null) reject(new Error(message.problem));
    else reject(RoutedExpertsError.relayed(message.code, message.problem));
  });
  child.send(task, (error) => {
    if (error !== null) reject(error);
  });
  return promise;
}
