/** Whether a machine's speed went one way while it was measured: clocks that still rise, or fall with the heat. */

import { median } from './quantile.ts';

const FEWEST_RUNS = 8;
/** In standard deviations of Kendall's statistic: one steady machine in a hundred is called drifting. */
const SIGNIFICANT = 2.576;
/** A smaller change bends no figure by more than the difference that a verdict tells. */
const SMALLEST_CHANGE = 0.03;

/**
 * The rate of the last third of the runs to that of the first (medians), where the rates rise or fall: Mann and
 * Kendall's test, which looks only at which of two runs is the faster, so that one slow run is no trend. `null` where
 * they do neither, change by less than 3 %, or are fewer than 8.
 *
 * Pairs cancel a drift; it makes their interval wider, and it bends what is no ratio.
 */
export function driftOf(rates: readonly number[]): number | null {
  const count = rates.length;
  if (count < FEWEST_RUNS) return null;
  let rises = 0;
  for (let later = 1; later < count; later++) {
    for (let earlier = 0; earlier < later; earlier++) rises += Math.sign(rates[later]! - rates[earlier]!);
  }
  const deviation = Math.sqrt((count * (count - 1) * (2 * count + 5)) / 18);
  if (Math.abs(rises) < SIGNIFICANT * deviation) return null;
  const third = Math.floor(count / 3);
  const change = median(rates.slice(-third)) / median(rates.slice(0, third));
  return Math.abs(change - 1) < SMALLEST_CHANGE ? null : change;
}
