/** vLLM's default policy (`distributed/eplb/policy/default.py`): DeepSeek's steps in f64, slots kept where possible. */

import type { EplbShape } from './eplb.ts';
import { eplb } from './eplb.ts';

/**
 * The expert of each slot. With an old map of as many slots, an expert that stays on a GPU keeps its slot there; GPU
 * loads are the same with and without.
 *
 * @throws BAD_VALUE as `eplb`
 */
export function vllmPolicy(
  weight: readonly ArrayLike<number>[],
  shape: EplbShape,
  old: readonly ArrayLike<number>[] | null = null,
): readonly Int32Array[] {
  const numNodes = shape.numGpus % shape.numNodes === 0 ? shape.numNodes : 1;
  const { physicalToLogical } = eplb(weight, { ...shape, numNodes }, 'f64');
  if (old === null || old[0]?.length !== shape.numReplicas) return physicalToLogical;
  return physicalToLogical.map((slots, l) => keepSlots(slots, old[l]!, shape.numGpus));
}

/** Slots that hold another expert than before: each is a copy of one expert's weights. */
export function slotsChanged(from: readonly ArrayLike<number>[], to: readonly ArrayLike<number>[]): number {
  let changed = 0;
  to.forEach((slots, l) => {
    for (let slot = 0; slot < slots.length; slot++) if (slots[slot] !== from[l]![slot]) changed++;
  });
  return changed;
}

function keepSlots(slots: Int32Array, old: ArrayLike<number>, numGpus: number): Int32Array {
  const perGpu = slots.length / numGpus;
  const kept = new Int32Array(slots.length).fill(-1);
  for (let first = 0; first < slots.length; first += perGpu) {
    const left = [...slots.subarray(first, first + perGpu)];
    for (let slot = first; slot < first + perGpu; slot++) {
      const found = left.indexOf(old[slot]!);
      if (found >= 0) kept[slot] = left.splice(found, 1)[0]!;
    }
    for (let slot = first; slot < first + perGpu; slot++) if (kept[slot]! < 0) kept[slot] = left.shift()!;
  }
  return kept;
}
