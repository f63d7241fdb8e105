/** Experts that were not seen after 1, 2, 4, … rows: few rows exaggerate how many are dead. */

import type { Capture } from '../../rows/captures/capture.ts';
import { addCounts, layersOf } from '../counts.ts';
import { expectedDead } from './balance.ts';

export type Coverage = Readonly<{
  /** Powers of two below the number of rows, and that number. */
  rows: readonly number[];
  /** `[L][rows]`. */
  dead: readonly (readonly number[])[];
  expectedDeadUniform: readonly number[];
}>;

export function coverageOf(capture: Capture): Coverage {
  const { numRows, layers, numExperts, topK } = capture;
  const rows: number[] = [];
  for (let count = 1; count < numRows; count *= 2) rows.push(count);
  if (numRows > 0) rows.push(numRows);
  const counts = new Uint32Array(layers.length * numExperts);
  const dead: number[][] = layers.map(() => []);
  let done = 0;
  for (const end of rows) {
    addCounts(capture, counts, done, end);
    done = end;
    layersOf(counts, layers.length).forEach((layer, l) => dead[l]!.push(deadOf(layer)));
  }
  return { rows, dead, expectedDeadUniform: rows.map((count) => expectedDead(numExperts, topK, count)) };
}

/** Experts without a selection. */
export function deadOf(counts: Uint32Array): number {
  return counts.reduce((dead, count) => dead + Number(count === 0), 0);
}
