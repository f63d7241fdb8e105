/** Process entry of a campaign of benches: measures one value, tells its report, and ends. */

import { once } from 'node:events';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { endProcess } from '../../end-process.ts';
import { progressDisplay } from '../report/progress-display.ts';
import { measureTask, type SweepTask } from './swept-bench.ts';
import type { ValueMessage } from './value-processes.ts';

// A terminal sends its Ctrl-C to all processes. The campaign decides whether this one goes on; its end is our end.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(1));

const [task] = (await once(process, 'message')) as [SweepTask];
const progress = progressDisplay();
let message: ValueMessage;
try {
  message = { report: await measureTask(task, progress.update) };
} catch (error) {
  const code = error instanceof RoutedExpertsError ? error.code : null;
  message = { problem: code === null ? String((error as Error).stack) : (error as Error).message, code };
} finally {
  progress.stop();
}
process.send!(message, () => void endProcess(0));
