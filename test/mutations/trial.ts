/**
 * Runs the test or command that a mutation names, and says whether it failed as a net does when it catches something.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { isAbsolute, relative } from 'node:path';
import type { ScratchTree } from './scratch-tree.ts';
import type { SourceMutation } from './source-mutation.ts';

export type Killer = SourceMutation['killedBy'];

/** `invalid`: it failed before it could judge, so nothing is shown. */
export type Verdict = Readonly<{ state: 'passed' | 'killed' | 'invalid'; how: string }>;

/** What vitest's JSON reporter writes, as far as it is read. */
export type VitestReport = Readonly<{
  testResults: readonly Readonly<{
    name: string;
    status: string;
    message: string;
    assertionResults: readonly Readonly<{ fullName: string; status: string }>[];
  }>[];
}>;

export type ProcessEnd = Readonly<{ code: number | null; signal: string | null; timedOut: boolean }>;

/** As it is typed. */
export function killerText(killer: Killer): string {
  return 'test' in killer ? `vitest run ${killer.test}` : `routed-experts ${killer.command.join(' ')}`;
}

export async function tryKiller(killer: Killer, tree: ScratchTree, timeoutMs: number): Promise<Verdict> {
  if ('command' in killer) {
    return commandVerdict(await runNode(['bin/routed-experts.mjs', ...killer.command], tree.root, timeoutMs));
  }
  rmSync(tree.reportFile, { force: true });
  const flags = ['--reporter=json', `--outputFile=${tree.reportFile}`, '--cache=false', '--fsModuleCache=false'];
  const end = await runNode(['node_modules/vitest/vitest.mjs', 'run', killer.test, ...flags], tree.root, timeoutMs);
  const report = existsSync(tree.reportFile)
    ? (JSON.parse(readFileSync(tree.reportFile, 'utf8')) as VitestReport)
    : null;
  return testVerdict(end, report, (name) => (isAbsolute(name) ? relative(tree.root, name) : name) === killer.test);
}

export function commandVerdict({ code, signal, timedOut }: ProcessEnd): Verdict {
  if (timedOut) return { state: 'killed', how: 'hangs' };
  if (signal !== null) return { state: 'killed', how: `the process ends with ${signal}` };
  if (code === 0) return { state: 'passed', how: 'exit code 0' };
  if (code === 2) return { state: 'invalid', how: 'exit code 2: the command could not be run' };
  return { state: 'killed', how: `exit code ${code}` };
}

export function testVerdict(end: ProcessEnd, report: VitestReport | null, isNamed: (file: string) => boolean): Verdict {
  if (end.timedOut) return { state: 'killed', how: 'hangs' };
  if (report === null)
    return { state: 'invalid', how: `vitest ended with ${end.code ?? end.signal}, without a report` };
  const files = report.testResults.filter(({ name }) => isNamed(name));
  const tests = files.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.find(({ status }) => status === 'failed');
  if (failed !== undefined) return { state: 'killed', how: `“${failed.fullName}”` };
  if (tests.some(({ status }) => status === 'pending')) return { state: 'killed', how: 'the test process ends' };
  const broken = files.find(({ status }) => status === 'failed');
  if (broken !== undefined) {
    return { state: 'invalid', how: `no test ran: ${broken.message.split('\n')[0]}` };
  }
  const numPassed = tests.filter(({ status }) => status === 'passed').length;
  if (numPassed === 0) return { state: 'invalid', how: 'no test ran' };
  if (end.code !== 0) return { state: 'killed', how: 'an error outside of any test' };
  return { state: 'passed', how: `${numPassed} tests passed` };
}

const running: Set<number> = new Set();

/** Ends what is under way, and what it started. */
export function endTrials(): void {
  for (const pid of running) endGroup(pid);
}

/** The process has a group of its own, so that a time-out ends what it started, too. */
async function runNode(args: readonly string[], cwd: string, timeoutMs: number): Promise<ProcessEnd> {
  const child = spawn(process.execPath, args, { cwd, stdio: 'ignore', detached: true });
  await once(child, 'spawn');
  const pid = child.pid!;
  running.add(pid);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    endGroup(pid);
  }, timeoutMs);
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    return { code, signal, timedOut };
  } finally {
    clearTimeout(timer);
    // What a broken test leaves behind ends with it.
    endGroup(pid);
    running.delete(pid);
  }
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
