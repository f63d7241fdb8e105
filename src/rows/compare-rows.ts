/** Compares the rows of two sources: rollout and trainer, two servers, a file and an oracle. */

import { PositionRanges, rangesBetween } from '../capture/position-ranges.ts';
import { rowAt } from '../capture/routed-rows.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { PositionRange, RoutedRows } from '../contract/routed-rows.ts';

/** Where two rows differ: at the first layer that does. */
export type RowDifference = Readonly<{
  position: number;
  layer: number;
  /** The K ids of that layer, in their order. */
  left: readonly number[];
  right: readonly number[];
}>;

/** What two sources have in common, and where they differ. */
export type RowsComparison = Readonly<{
  /** Positions that have a row on both sides, and how many of these rows differ in an id or in the order of ids. */
  numCompared: number;
  numDifferent: number;
  /** The difference of the lowest position; `null`: no rows differ. */
  first: RowDifference | null;
  /** Positions that have a row on one side only: on the other it is missing or outside of `[start, start + count)`. */
  onlyLeft: readonly PositionRange[];
  onlyRight: readonly PositionRange[];
}>;

/**
 * Compares by position. Element types may differ. Takes time in proportion to the rows.
 *
 * @throws BAD_VALUE if L or K differ: the rows are of different models
 */
export function compareRows(left: RoutedRows, right: RoutedRows): RowsComparison {
  for (const name of ['numLayers', 'topK'] as const) {
    if (left[name] === right[name]) continue;
    throw RoutedExpertsError.of('BAD_VALUE', `${name} of the right rows`, right[name], `${left[name]}, as on the left`);
  }
  let numCompared = 0;
  let numDifferent = 0;
  let first: RowDifference | null = null;
  for (let position = left.start; position < left.start + left.count; position++) {
    const a = rowAt(left, position);
    const b = rowAt(right, position);
    if (a === null || b === null) continue;
    numCompared++;
    const entry = a.findIndex((id, i) => id !== b[i]);
    if (entry < 0) continue;
    numDifferent++;
    first ??= differenceAt(position, Math.floor(entry / left.topK), left.topK, [a, b]);
  }
  return { numCompared, numDifferent, first, onlyLeft: without(left, right), onlyRight: without(right, left) };
}

type Ids = Readonly<{ subarray: (from: number, to: number) => Iterable<number> }>;

function differenceAt(position: number, layer: number, topK: number, [a, b]: readonly [Ids, Ids]): RowDifference {
  const idsOf = (row: Ids): number[] => [...row.subarray(layer * topK, (layer + 1) * topK)];
  return { position, layer, left: idsOf(a), right: idsOf(b) };
}

/** Positions of rows that `rows` has and `others` has not. */
function without(rows: RoutedRows, others: RoutedRows): PositionRange[] {
  const has = new PositionRanges();
  for (const [from, to] of present(others)) has.add(from, to);
  return present(rows).flatMap(([from, to]) => has.gaps(from, to));
}

function present({ missing, start, count }: RoutedRows): readonly PositionRange[] {
  return rangesBetween(missing, start, start + count);
}
