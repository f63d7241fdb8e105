/** A placement with what it means: what EPLB proposes for some loads, and what moving there costs. */

import type { EplbMaps, EplbShape } from './eplb.ts';
import { eplb } from './eplb.ts';
import type { Placement } from './placement.ts';
import { gpuLoadsOf, gpusWithDuplicates, linearPlacement, maxOverMean, placementOf } from './placement.ts';
import { slotsChanged } from './vllm-policy.ts';

export type PlacementPlan = Readonly<{
  maps: EplbMaps;
  /** For simulators and further analyses. */
  placement: Placement;
  /** `[L][G]`, under the loads that the plan was made for. */
  gpuLoads: readonly Float64Array[];
  /** Maximum over mean of GPU loads per layer: as planned, and with expert e on GPU ⌊e·G/E⌋. */
  maxOverMean: readonly (number | null)[];
  linearMaxOverMean: readonly (number | null)[];
  gpusWithDuplicates: number;
  /** Slots that hold another expert than before. */
  slotsChanged: number;
}>;

/**
 * EPLB's placement for the loads `weight[l][e]`. `old`: the map that it replaces, `[L][P]`; default: slot i holds
 * expert i mod E, as vLLM begins.
 *
 * @throws BAD_VALUE as `eplb`, and for an old map of another shape
 */
export function planPlacement(
  weight: readonly ArrayLike<number>[],
  shape: EplbShape,
  old: readonly ArrayLike<number>[] | null = null,
): PlacementPlan {
  const maps = eplb(weight, shape);
  const numExperts = weight[0]!.length;
  const placement = placementOf(maps.physicalToLogical, numExperts, shape.numGpus);
  const gpuLoads = gpuLoadsOf(placement, weight);
  const linear = gpuLoadsOf(linearPlacement(weight.length, numExperts, shape.numGpus), weight);
  const before = old ?? maps.physicalToLogical.map((slots) => slots.map((_, slot) => slot % numExperts));
  return {
    maps,
    placement,
    gpuLoads,
    maxOverMean: gpuLoads.map(maxOverMean),
    linearMaxOverMean: linear.map(maxOverMean),
    gpusWithDuplicates: gpusWithDuplicates(placement),
    slotsChanged: slotsChanged(before, maps.physicalToLogical),
  };
}
