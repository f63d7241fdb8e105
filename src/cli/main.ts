/** The command line as a process. */

import { numAbandonedThreads } from '../worker/thread/abandoned-threads.ts';
import { runProgram } from './program.ts';

const exitCode = await runProgram(process.argv.slice(2));
process.exitCode = exitCode;
// A thread that is stuck would keep the process alive for as long as it is.
if (numAbandonedThreads() > 0) {
  const { endProcess } = await import('./end-process.ts');
  await endProcess(exitCode);
}
