/** The command line as a process. */

import { numAbandonedThreads } from '../worker/thread/abandoned-threads.ts';
import { runProgram } from './program.ts';

// A reader that has seen enough closes the pipe, as `head` does. Nothing is left to run for.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code === 'EPIPE') void import('./end-process.ts').then(({ endAtOnce }) => endAtOnce(0));
});

const exitCode = await runProgram(process.argv.slice(2));
process.exitCode = exitCode;
// A thread that is stuck would keep the process alive for as long as it is.
if (numAbandonedThreads() > 0) {
  const { endProcess } = await import('./end-process.ts');
  await endProcess(exitCode);
}
