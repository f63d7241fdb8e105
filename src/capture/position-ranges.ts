/** A set of token positions as ascending, disjoint, non-adjacent ranges: which rows a request has. */

import type { PositionRange } from '../contract/routed-rows.ts';

/**
 * Rows come almost always in order, so that there are one or two ranges and `add` extends the last: O(1). A prefix hit
 * leaves a gap in front. A preemption adds positions again that are in already.
 */
export class PositionRanges {
  readonly #ranges: [from: number, to: number][] = [];

  add(from: number, to: number): void {
    if (from >= to) return;
    const ranges = this.#ranges;
    const newest = ranges.at(-1);
    if (newest !== undefined && newest[0] <= from && from <= newest[1]) {
      newest[1] = Math.max(newest[1], to);
      return;
    }
    let first = ranges.length;
    while (first > 0 && ranges[first - 1]![1] >= from) first--;
    let last = first;
    const merged: [number, number] = [from, to];
    for (; last < ranges.length && ranges[last]![0] <= to; last++) {
      merged[0] = Math.min(merged[0], ranges[last]![0]);
      merged[1] = Math.max(merged[1], ranges[last]![1]);
    }
    ranges.splice(first, last - first, merged);
  }

  /** What of `[from, to)` is not in the set. */
  gaps(from: number, to: number): PositionRange[] {
    return rangesBetween(this.#ranges, from, to);
  }
}

/** What of `[from, to)` is outside of `ranges`, which are ascending and disjoint. */
export function rangesBetween(ranges: readonly PositionRange[], from: number, to: number): PositionRange[] {
  const between: PositionRange[] = [];
  let at = from;
  for (const [rangeFrom, rangeTo] of ranges) {
    if (at >= to) return between;
    if (rangeFrom > at) between.push([at, Math.min(rangeFrom, to)]);
    at = Math.max(at, rangeTo);
  }
  if (at < to) between.push([at, to]);
  return between;
}
