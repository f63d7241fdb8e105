/** Which GPU holds which experts, and what load it has for it. */

import { greatest, quotient, sum } from '../statistics.ts';

/** One layer: expert and GPU of each slot. Replicas of an expert share its load evenly. */
export type LayerPlacement = Readonly<{ experts: Int32Array; gpus: Int32Array; replicas: Int32Array }>;

export type Placement = Readonly<{ numGpus: number; layers: readonly LayerPlacement[] }>;

/** Expert e on GPU ⌊e·G/E⌋, no replicas: how engines start. */
export function linearPlacement(numLayers: number, numExperts: number, numGpus: number): Placement {
  const experts = Int32Array.from({ length: numExperts }, (_, e) => e);
  const gpus = experts.map((e) => Math.floor((e * numGpus) / numExperts));
  const layer = { experts, gpus, replicas: new Int32Array(numExperts).fill(1) };
  return { numGpus, layers: Array.from({ length: numLayers }, () => layer) };
}

/** `physicalToLogical[l][slot]`: the expert in each slot. GPU g holds the slots `[g·P/G, (g + 1)·P/G)`. */
export function placementOf(
  physicalToLogical: readonly ArrayLike<number>[],
  numExperts: number,
  numGpus: number,
): Placement {
  const layers = physicalToLogical.map((slots): LayerPlacement => {
    const experts = Int32Array.from(slots);
    const perGpu = experts.length / numGpus;
    const counts = replicaCounts(experts, numExperts);
    return {
      experts,
      gpus: experts.map((_, slot) => Math.floor(slot / perGpu)),
      replicas: experts.map((e) => counts[e]!),
    };
  });
  return { numGpus, layers };
}

/** Replicas of each expert. */
export function replicaCounts(slots: ArrayLike<number>, numExperts: number): Int32Array {
  const counts = new Int32Array(numExperts);
  for (let slot = 0; slot < slots.length; slot++) counts[slots[slot]!]!++;
  return counts;
}

/** Adds the load that each GPU has under `counts`, selections of each expert. */
export function addGpuLoads(
  { experts, gpus, replicas }: LayerPlacement,
  counts: ArrayLike<number>,
  loads: Float64Array,
): void {
  for (let slot = 0; slot < experts.length; slot++) {
    loads[gpus[slot]!]! += counts[experts[slot]!]! / replicas[slot]!;
  }
}

/** The load of each GPU in each layer, `[L][G]`. */
export function gpuLoadsOf(placement: Placement, counts: readonly ArrayLike<number>[]): Float64Array[] {
  return placement.layers.map((layer, l) => {
    const loads = new Float64Array(placement.numGpus);
    addGpuLoads(layer, counts[l]!, loads);
    return loads;
  });
}

/** `null` without load. */
export function maxOverMean(loads: Float64Array): number | null {
  return quotient(greatest(loads) * loads.length, sum(loads));
}

/** Pairs of layer and GPU that hold an expert twice: each a wasted slot. */
export function gpusWithDuplicates(placement: Placement): number {
  let found = 0;
  for (const { experts, gpus } of placement.layers) {
    const cells = new Map<number, Set<number>>();
    const twice = new Set<number>();
    experts.forEach((expert, slot) => {
      const gpu = gpus[slot]!;
      const held = cells.get(gpu) ?? new Set();
      if (held.has(expert)) twice.add(gpu);
      cells.set(gpu, held.add(expert));
    });
    found += twice.size;
  }
  return found;
}
