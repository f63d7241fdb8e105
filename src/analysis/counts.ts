/** Selections of each expert: matrices `[L, E]`, layer after layer. */

import type { Capture } from '../rows/captures/capture.ts';
import { rowWidth } from '../rows/captures/capture.ts';

/** Selections of each expert in the rows `[from, to)`: `[L, E]`, added to `counts`. */
export function addCounts(capture: Capture, counts: Uint32Array, from: number, to: number): Uint32Array {
  const { ids, topK, numExperts, layers } = capture;
  const width = rowWidth(capture);
  for (let row = from; row < to; row++) {
    for (let layer = 0, at = row * width; layer < layers.length; layer++) {
      for (let k = 0; k < topK; k++, at++) {
        const id = ids[at]!;
        if (id >= 0 && id < numExperts) counts[layer * numExperts + id]!++;
      }
    }
  }
  return counts;
}

/** Selections of each expert in all rows, `[L, E]`. */
export function countsOf(capture: Capture): Uint32Array {
  return addCounts(capture, new Uint32Array(capture.layers.length * capture.numExperts), 0, capture.numRows);
}

/** A matrix `[L, E]` as one view a layer. */
export function layersOf<T extends Uint32Array | Float64Array>(matrix: T, numLayers: number): readonly T[] {
  const width = matrix.length / Math.max(1, numLayers);
  return Array.from({ length: numLayers }, (_, layer) => matrix.subarray(layer * width, (layer + 1) * width) as T);
}
