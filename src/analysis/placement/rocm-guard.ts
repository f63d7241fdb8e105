/** vLLM's rule on ROCm: a rearrangement that would gain little in the sum over layers is skipped. */

import { greatest, sum } from '../statistics.ts';
import type { Placement } from './placement.ts';
import { gpuLoadsOf, placementOf } from './placement.ts';

export type RocmGuard = Readonly<{
  /** Maximum over mean of GPU loads summed over layers. */
  current: number;
  proposed: number;
  relativeImprovement: number;
  skip: boolean;
}>;

const LEAST_IMPROVEMENT = 0.05;

/** `current` is vLLM's own beginning: slot i holds expert i mod E. */
export function rocmGuard(counts: readonly ArrayLike<number>[], proposed: Placement): RocmGuard {
  const numExperts = counts[0]?.length ?? 0;
  const slots = proposed.layers.map(({ experts }) => experts.map((_, slot) => slot % numExperts));
  const current = imbalance(placementOf(slots, numExperts, proposed.numGpus), counts);
  const next = imbalance(proposed, counts);
  const relativeImprovement = current === 0 ? 0 : (current - next) / current;
  return { current, proposed: next, relativeImprovement, skip: relativeImprovement < LEAST_IMPROVEMENT };
}

function imbalance(placement: Placement, counts: readonly ArrayLike<number>[]): number {
  const totals = new Float64Array(placement.numGpus);
  for (const loads of gpuLoadsOf(placement, counts)) loads.forEach((load, g) => (totals[g]! += load));
  const total = sum(totals);
  return total === 0 ? 0 : (greatest(totals) * totals.length) / total;
}
