/** Whether the processors kept up with the modelled time of the `clock` device. */

import type { DeadlineCounts } from '../../../contract/device.ts';

/** A larger share of deadlines that are missed says more of the machine than of what was measured. */
const OVERRUN_TOLD = 0.1;

/** A line, and a warning where too many deadlines were missed. `null`: the device keeps to none. */
export function deadlineLines(deadlines: DeadlineCounts | null): string[] {
  if (deadlines === null) return [];
  const { count, overrun, longestMs } = deadlines;
  const missed = overrun === 0 ? 'none overrun' : `${overrun} overrun, by ${longestMs.toFixed(1)} ms at most`;
  const line = `clock: ${count} deadlines, ${missed}`;
  if (overrun <= OVERRUN_TOLD * count) return [line];
  const share = ((100 * overrun) / count).toFixed(0);
  const advice = 'give fewer --ranks or --concurrency, or a longer --step-time';
  return [line, `WARNING too little processor time: ${share} % of the clock’s deadlines were overrun (${advice})`];
}
