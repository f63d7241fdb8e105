/** How sure a reduction of work is: 1 − Σ candidate / Σ current over pairs that vary. */

import { sum } from '../statistics.ts';

/** 95 %. */
export type RatioInterval = readonly [low: number, high: number];

/**
 * The interval of the ratio estimator with Student's t. Passes count as independent; those of one window share a
 * placement, so that with few windows the truth may lie further out. `null` with fewer than two pairs, or no work.
 */
export function reductionInterval(
  pairs: readonly (readonly [current: number, candidate: number])[],
): RatioInterval | null {
  const total = sum(pairs.map(([current]) => current));
  if (pairs.length < 2 || total === 0) return null;
  const ratio = sum(pairs.map(([, candidate]) => candidate)) / total;
  const squares = sum(pairs.map(([current, candidate]) => (candidate - ratio * current) ** 2));
  const deviation = Math.sqrt((squares * pairs.length) / (pairs.length - 1)) / total;
  const margin = studentT(pairs.length - 1) * deviation;
  return [1 - ratio - margin, 1 - ratio + margin];
}

/** Two-sided 95 % points for 1 to 10 degrees of freedom. */
const FEW = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/** The 95 % point; above ten degrees by Cornish and Fisher's expansion, right to three digits. */
function studentT(freedom: number): number {
  const exact = FEW[freedom - 1];
  if (exact !== undefined) return exact;
  const z = 1.959964;
  return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2);
}
