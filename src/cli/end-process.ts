/**
 * How a command ends that has worker threads: none may keep it from ending, and none may turn its exit code into a
 * crash.
 */

import koffi from 'koffi';
import { abandonedThreadsEnded, numAbandonedThreads } from '../worker/thread/abandoned-threads.ts';

/** For threads that are stuck to return after all. They have had the time of a whole time-out; the host frees all. */
const STUCK_MS = 500;

/** Waits for abandoned threads, but only for a while. */
export async function endProcess(code: number): Promise<never> {
  const { promise: tooLong, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, STUCK_MS);
  await Promise.race([abandonedThreadsEnded(), tooLong]);
  clearTimeout(timer);
  const numStuck = numAbandonedThreads();
  if (numStuck === 0) process.exit(code);
  console.error(`${numStuck} worker threads are stuck, and end with the process`);
  return endAtOnce(code);
}

/**
 * `process.exit` would end the worker threads first, and a map that is pending in one of them would abort the process.
 */
export function endAtOnce(code: number): never {
  if (process.platform !== 'win32') koffi.load(null).func('void _exit(int)')(code);
  process.exit(code);
}
