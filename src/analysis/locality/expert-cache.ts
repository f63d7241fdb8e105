/** What share of selections a cache of m experts serves: the busiest ones, or the most recent. */

import type { Capture } from '../../rows/captures/capture.ts';
import { rowWidth } from '../../rows/captures/capture.ts';
import { addCounts, layersOf } from '../counts.ts';
import { quotient, sum, topIndices } from '../statistics.ts';

/**
 * Hit rates, `[L][sizes]` or `[sizes]`. `…InSample`: the kept experts are chosen by all rows. `…Split`: they are chosen
 * by the first half, and tested on the rest.
 */
export type CacheReport = Readonly<{
  /** Experts of each layer that are kept. */
  sizes: readonly number[];
  chance: readonly number[];
  staticInSample: readonly (readonly (number | null)[])[];
  staticSplit: readonly (readonly (number | null)[])[];
  lru: readonly (readonly (number | null)[])[];
  /** One budget of m·L cells (layer, expert) over all layers. */
  budgets: readonly number[];
  sharedInSample: readonly (number | null)[];
  sharedSplit: readonly (number | null)[];
}>;

export function cacheReport(capture: Capture, sizes: readonly number[]): CacheReport {
  const { layers, numExperts } = capture;
  const [first, second] = halves(capture);
  const all = first.map((count, i) => count + second[i]!);
  const budgets = sizes.map((size) => size * layers.length);
  return {
    sizes,
    chance: sizes.map((size) => size / numExperts),
    staticInSample: staticHits(all, all, layers.length, sizes),
    staticSplit: staticHits(first, second, layers.length, sizes),
    lru: layers.map((_, layer) => lruHits(capture, layer, sizes)),
    budgets,
    sharedInSample: staticHits(all, all, 1, budgets)[0]!,
    sharedSplit: staticHits(first, second, 1, budgets)[0]!,
  };
}

/** Counts of the first ⌊T/2⌋ rows, and of the others. */
export function halves(capture: Capture): readonly [Uint32Array, Uint32Array] {
  const middle = Math.floor(capture.numRows / 2);
  const none = (): Uint32Array => new Uint32Array(capture.layers.length * capture.numExperts);
  return [addCounts(capture, none(), 0, middle), addCounts(capture, none(), middle, capture.numRows)];
}

/** Selections of `tested` that go to the busiest of `fitted`: per part of the matrix and size. */
export function staticHits(
  fitted: Uint32Array,
  tested: Uint32Array,
  numParts: number,
  sizes: readonly number[],
): (number | null)[][] {
  const testedParts = layersOf(tested, numParts);
  return layersOf(fitted, numParts).map((part, i) => {
    const total = sum(testedParts[i]!);
    return sizes.map((size) => quotient(sum(topIndices(part, size).map((cell) => testedParts[i]![cell]!)), total));
  });
}

/** Ids one by one in row order, never cleared. An id that was the d-th most recent is a hit of every size above d. */
function lruHits(capture: Capture, layer: number, sizes: readonly number[]): (number | null)[] {
  const { ids, topK, numRows, numExperts } = capture;
  const width = rowWidth(capture);
  const recent = new Int32Array(numExperts).fill(-1);
  let held = 0;
  const hitsAtDepth = new Float64Array(numExperts);
  for (let row = 0; row < numRows; row++) {
    for (let k = 0; k < topK; k++) {
      const id = ids[row * width + layer * topK + k]!;
      const depth = recent.indexOf(id);
      if (depth >= 0) hitsAtDepth[depth]!++;
      recent.copyWithin(1, 0, depth < 0 ? held++ : depth);
      recent[0] = id;
    }
  }
  return sizes.map((size) => quotient(sum(hitsAtDepth.subarray(0, size)), numRows * topK));
}
