/** Compares routed rows with the reference in f64, or with a model's own answers. */

import type { RoutedRow } from '../reference/router-reference.ts';

/**
 * How near two choices must be for a device's f32 to rank them either way: relative to the larger, or absolute under 1. Choices that are logits
 * have no margin, and neither have equal ones.
 */
export const CHOICE_MARGIN = 4e-6;

/** Bound of the relative error of a weight. */
export const WEIGHT_TOLERANCE = 1e-5;

export function marginOf(choice: number): number {
  return CHOICE_MARGIN * Math.max(1, Math.abs(choice));
}

/**
 * Ids of `actual`, out of the K of a row, that no rounding within `margin` explains: repeated or unknown ids, ids that are not among the K
 * best, and neighbours in the wrong order. `groupTie`: how near the scores of a kept and a dropped group may be.
 */
export function countWrongIds(actual: ArrayLike<number>, expected: RoutedRow, hasMargin: boolean): number {
  const { ids, choices } = expected;
  const isNear = (a: number, b: number): boolean =>
    choices[a] === choices[b] || (hasMargin && Math.abs(choices[a]! - choices[b]!) <= marginOf(choices[a]!));
  let wrong = 0;
  const seen = new Set<number>();
  for (let k = 0; k < ids.length; k++) {
    const id = actual[k]!;
    if (id === ids[k] && !seen.has(id)) {
      seen.add(id);
      continue;
    }
    const isExplained = id < choices.length && !seen.has(id) && hasMargin && isNear(id, ids[k]!);
    seen.add(id);
    if (!isExplained) wrong++;
  }
  return wrong;
}

/** Whether the last kept and the first dropped group are so near that a device may keep the other. */
export function isGroupTie(groupScores: readonly number[], keep: number, hasMargin: boolean): boolean {
  if (!hasMargin || keep >= groupScores.length) return false;
  const sorted = [...groupScores].sort((a, b) => b - a);
  return sorted[keep - 1]! - sorted[keep]! <= 2 * marginOf(sorted[keep]!) && sorted[keep - 1] !== sorted[keep];
}
