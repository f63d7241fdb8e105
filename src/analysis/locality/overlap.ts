/** How many experts two rows share, against chance. */

import type { Capture, CapturedStep } from '../../rows/captures/capture.ts';
import { rowWidth } from '../../rows/captures/capture.ts';
import { quotient } from '../statistics.ts';

/** Means over pairs of rows, per layer; `null` without a pair. Of n common ids: n/K, and n/(2K − n). */
export type Overlap = Readonly<{
  pairs: number;
  overlap: readonly (number | null)[];
  jaccard: readonly (number | null)[];
}>;

/** How often two rows share n ids in a layer. */
export class OverlapCounts {
  readonly #numLayers: number;
  readonly #topK: number;
  /** `[L][K + 1]`: pairs of rows that share so many ids. */
  readonly found: Float64Array;

  constructor(numLayers: number, topK: number) {
    this.#numLayers = numLayers;
    this.#topK = topK;
    this.found = new Float64Array(numLayers * (topK + 1));
  }

  add(layer: number, numCommon: number, times: number = 1): void {
    this.found[layer * (this.#topK + 1) + numCommon]! += times;
  }

  report(): Overlap {
    const topK = this.#topK;
    const overlap: (number | null)[] = [];
    const jaccard: (number | null)[] = [];
    let pairs = 0;
    for (let layer = 0; layer < this.#numLayers; layer++) {
      const found = this.found.subarray(layer * (topK + 1), (layer + 1) * (topK + 1));
      const pairsHere = found.reduce((total, times) => total + times, 0);
      const meanOf = (value: (n: number) => number): number | null =>
        quotient(
          found.reduce((total, times, n) => total + times * value(n), 0),
          pairsHere,
        );
      pairs = Math.max(pairs, pairsHere);
      overlap.push(meanOf((n) => n / topK));
      jaccard.push(meanOf((n) => n / (2 * topK - n)));
    }
    return { pairs, overlap, jaccard };
  }
}

/** Rows i and i + lag of one request. */
export function sequenceOverlap(capture: Capture, lag: number): Overlap {
  return overlapOf(capture, function* () {
    for (const { firstRow, numRows } of capture.requests) {
      for (let row = firstRow; row + lag < firstRow + numRows; row++) yield [row, row + lag];
    }
  });
}

/** Row j of a pass and row j of the next, where both have as many rows: one request, as long as none ends. */
export function slotOverlap(capture: Capture): Overlap {
  return overlapOf(capture, function* () {
    const steps = (capture.steps ?? []).map(rowsOf);
    for (const [s, rows] of steps.entries()) {
      const next = steps[s + 1];
      if (next?.length !== rows.length) continue;
      for (const [j, row] of rows.entries()) yield [row, next[j]!];
    }
  });
}

/** Neighbours in a pass. In decode they are rows of different requests. */
export function withinStepOverlap(capture: Capture): Overlap {
  return overlapOf(capture, function* () {
    for (const rows of (capture.steps ?? []).map(rowsOf)) {
      for (let j = 1; j < rows.length; j++) yield [rows[j - 1]!, rows[j]!];
    }
  });
}

function rowsOf(step: CapturedStep): number[] {
  return step.flatMap(([firstRow, numRows]) => Array.from({ length: numRows }, (_, i) => firstRow + i));
}

function overlapOf(capture: Capture, pairs: () => Generator<readonly [number, number]>): Overlap {
  const { topK, ids, layers } = capture;
  const counts = new OverlapCounts(layers.length, topK);
  const width = rowWidth(capture);
  for (const [a, b] of pairs()) {
    for (let layer = 0; layer < layers.length; layer++) {
      const at = a * width + layer * topK;
      const other = b * width + layer * topK;
      let common = 0;
      for (let i = 0; i < topK; i++) {
        for (let k = 0; k < topK; k++) {
          if (ids[at + i] === ids[other + k]) {
            common++;
            break;
          }
        }
      }
      counts.add(layer, common);
    }
  }
  return counts.report();
}

/** Overlap of rows that are drawn independently by popularity: Σ(c/T)²/K. Uniform rows have K/E. */
export function chanceByPopularity(counts: ArrayLike<number>, numRows: number, topK: number): number | null {
  let total = 0;
  for (let e = 0; e < counts.length; e++) total += (counts[e]! / numRows) ** 2;
  return numRows === 0 ? null : total / topK;
}
