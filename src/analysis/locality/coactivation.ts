/** The pair of experts that a layer chooses together most often. */

import type { Capture } from '../../rows/captures/capture.ts';
import { rowWidth } from '../../rows/captures/capture.ts';
import { countsOf, layersOf } from '../counts.ts';

export type Coactivation = Readonly<{
  layer: number;
  /** a < b; the first of equals. `null`: K is 1, or there are no rows. */
  pair: readonly [number, number] | null;
  count: number;
  /** How much oftener than if the two were independent: n·T/(c_a·c_b). */
  lift: number | null;
}>;

export function coactivations(capture: Capture): Coactivation[] {
  const { ids, topK, numExperts, numRows, layers } = capture;
  const width = rowWidth(capture);
  const counts = layersOf(countsOf(capture), layers.length);
  return layers.map((label, layer): Coactivation => {
    const together = new Uint32Array(numExperts * numExperts);
    for (let row = 0; row < numRows; row++) {
      const at = row * width + layer * topK;
      for (let i = 0; i < topK; i++) {
        for (let k = i + 1; k < topK; k++) {
          const a = Math.min(ids[at + i]!, ids[at + k]!);
          together[a * numExperts + Math.max(ids[at + i]!, ids[at + k]!)]!++;
        }
      }
    }
    const cell = together.reduce((best, count, i) => (count > together[best]! ? i : best), 0);
    const count = together[cell]!;
    if (count === 0) return { layer: label, pair: null, count, lift: null };
    const a = Math.floor(cell / numExperts);
    const b = cell % numExperts;
    return { layer: label, pair: [a, b], count, lift: (count * numRows) / (counts[layer]![a]! * counts[layer]![b]!) };
  });
}
