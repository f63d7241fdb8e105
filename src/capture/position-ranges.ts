/** A set of token positions as ascending, disjoint, non-adjacent ranges: which rows a request has. */

import type { PositionRange } from '../contract/routed-rows.ts';

/**
 * Rows come almost always in order, so that there are one or two ranges and `add` touches the last: amortised O(1). A
 * prefix hit leaves a gap in front, a preemption re-adds positions that are in already.
 */
export class PositionRanges {
  /** `[from0, to0, from1, to1, …]`. */
  readonly #bounds: number[] = [];

  add(from: number, to: number): void {
    if (from >= to) return;
    const bounds = this.#bounds;
    let first = bounds.length;
    while (first > 0 && bounds[first - 1]! >= from) first -= 2;
    if (first === bounds.length) {
      bounds.push(from, to);
      return;
    }
    let last = first;
    let mergedFrom = from;
    let mergedTo = to;
    while (last < bounds.length && bounds[last]! <= to) {
      mergedFrom = Math.min(mergedFrom, bounds[last]!);
      mergedTo = Math.max(mergedTo, bounds[last + 1]!);
      last += 2;
    }
    bounds.splice(first, last - first, mergedFrom, mergedTo);
  }

  has(position: number): boolean {
    const bounds = this.#bounds;
    for (let i = bounds.length - 2; i >= 0; i -= 2) {
      if (position >= bounds[i]!) return position < bounds[i + 1]!;
    }
    return false;
  }

  /** What of `[from, to)` is not in the set. */
  gaps(from: number, to: number): PositionRange[] {
    const gaps: PositionRange[] = [];
    let at = from;
    for (let i = 0; i < this.#bounds.length && at < to; i += 2) {
      const rangeFrom = this.#bounds[i]!;
      const rangeTo = this.#bounds[i + 1]!;
      if (rangeTo <= at) continue;
      if (rangeFrom > at) gaps.push([at, Math.min(rangeFrom, to)]);
      at = rangeTo;
    }
    if (at < to) gaps.push([at, to]);
    return gaps;
  }
}
