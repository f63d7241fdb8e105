/**
 * Runs the command line: in a process of its own, or in this one. Most wrong input is tried in this process: starting
 * one takes longer than all that the command does.
 */

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { format } from 'node:util';
import { vi } from 'vitest';
import { runProgram } from '../../src/cli/program.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export type Ended = Readonly<{ code: number; stdout: string; stderr: string }>;

export function runProcess(...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { timeout: 100_000 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, stdout, stderr: withoutProgress(stderr) });
    });
  });
}

/** For commands that end by themselves. One at a time. */
export async function runHere(...args: readonly string[]): Promise<Ended> {
  const text = { stdout: '', stderr: '' };
  const exitCodeBefore = process.exitCode;
  const spies = (['stdout', 'stderr'] as const).flatMap((name) => {
    const write = (part: string | Uint8Array): boolean => {
      text[name] += String(part);
      return true;
    };
    const print = (...values: unknown[]): void => void write(`${format(...values)}\n`);
    return [
      vi.spyOn(process[name], 'write').mockImplementation(write),
      vi.spyOn(console, name === 'stdout' ? 'log' : 'error').mockImplementation(print),
    ];
  });
  try {
    process.exitCode = undefined;
    const code = await runProgram(args);
    return { code, stdout: text.stdout, stderr: withoutProgress(text.stderr) };
  } finally {
    for (const spy of spies) spy.mockRestore();
    process.exitCode = exitCodeBefore;
  }
}

/** Without the lines that tell how far a run has got. */
function withoutProgress(stderr: string): string {
  return stderr.replaceAll(/^(run|second) \d+ of \d+: .*\n/gm, '');
}
