/** Rows of a shared prefix: an engine computes them once, and returns them with every request. */

import type { Capture } from '../../rows/captures/capture.ts';
import { addCounts, layersOf } from '../counts.ts';
import { greatest, quotient, sum } from '../statistics.ts';
import { deadOf } from './coverage.ts';

export type SharedPrefix = Readonly<{
  rows: number;
  /** Rows whose tokens up to their own were not seen before. */
  distinctPrefixes: number;
  /** `[L][E]`, of these rows only. */
  countsOnce: readonly Uint32Array[];
  deadOnce: readonly number[];
  maxOverMeanOnce: readonly (number | null)[];
}>;

type Node = Map<number, Node>;

/** `null` where the tokens of a request are unknown. */
export function sharedPrefix(capture: Capture): SharedPrefix | null {
  const counts = new Uint32Array(capture.layers.length * capture.numExperts);
  const root: Node = new Map();
  let distinctPrefixes = 0;
  for (const { firstRow, numRows, tokens } of capture.requests) {
    if (tokens === null) return null;
    let node = root;
    for (let position = 0; position < numRows; position++) {
      let next = node.get(tokens[position]!);
      if (next === undefined) {
        next = new Map();
        node.set(tokens[position]!, next);
        distinctPrefixes++;
        addCounts(capture, counts, firstRow + position, firstRow + position + 1);
      }
      node = next;
    }
  }
  const countsOnce = layersOf(counts, capture.layers.length);
  return {
    rows: capture.numRows,
    distinctPrefixes,
    countsOnce,
    deadOnce: countsOnce.map(deadOf),
    maxOverMeanOnce: countsOnce.map((layer) => quotient(greatest(layer) * layer.length, sum(layer))),
  };
}
