/** Compares routed rows with the reference in f64, or with the ids that a model's own router gave. */

import type { RoutingFunction } from '../../contract/config.ts';
import type { RoutedRow } from './reference/router-reference.ts';
import { selectsByLogit } from './routing-function.ts';

/**
 * How near two choices must be for a device's f32 to rank them either way: relative to the larger, or absolute under 1.
 * Choices that are logits have no margin, and neither have equal ones.
 */
export const CHOICE_MARGIN = 4e-6;

/** What of a function's comparisons a device's f32 may round. */
export function marginsOf(router: RoutingFunction): Readonly<{ ofChoices: boolean; ofGroups: boolean }> {
  const ofChoices = !selectsByLogit(router);
  return { ofChoices, ofGroups: ofChoices || router.groups?.score === 'top2-sum' };
}

/** Bound of the relative error of a weight. */
export const WEIGHT_TOLERANCE = 1e-5;

export function marginOf(choice: number): number {
  return CHOICE_MARGIN * Math.max(1, Math.abs(choice));
}

/**
 * Ids of `actual`, out of the K of a row, that no rounding within `margin` explains: repeated or unknown ids, ids that
 * are not among the K best, and neighbours in the wrong order.
 */
export function countWrongIds(actual: ArrayLike<number>, expected: RoutedRow, isRounded: boolean): number {
  const { ids, choices } = expected;
  const isNear = (a: number, b: number): boolean =>
    choices[a] === choices[b] || (isRounded && Math.abs(choices[a]! - choices[b]!) <= marginOf(choices[a]!));
  let wrong = 0;
  const seen = new Set<number>();
  for (let k = 0; k < ids.length; k++) {
    const id = actual[k]!;
    if (id === ids[k] && !seen.has(id)) {
      seen.add(id);
      continue;
    }
    const isExplained = id < choices.length && !seen.has(id) && isRounded && isNear(id, ids[k]!);
    seen.add(id);
    if (!isExplained) wrong++;
  }
  return wrong;
}

/** Whether the last kept and the first dropped group are so near that a device may keep the other. */
export function isGroupTie(groupScores: readonly number[], keep: number, isRounded: boolean): boolean {
  if (!isRounded || keep >= groupScores.length) return false;
  const sorted = [...groupScores].sort((a, b) => b - a);
  return sorted[keep - 1]! - sorted[keep]! <= 2 * marginOf(sorted[keep]!) && sorted[keep - 1] !== sorted[keep];
}
