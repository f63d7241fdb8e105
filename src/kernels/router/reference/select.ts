/**
 * Selection among choices that are integers: the K best of the kept groups, of equals the smaller id. What the router
 * kernels do behind the gate.
 */

import type { RoutingFunction } from '../../../contract/config.ts';

const ID_RANGE = 1024;
const LOWEST = -0x8000_0000;

export type Selection = Pick<RoutingFunction, 'numExperts' | 'topK' | 'groups'>;

/**
 * Selects row by row. A key is `choice · 1024 + 1023 − id`: keys are distinct and ordered as wanted (expert-scores.ts).
 */
export class Selector {
  readonly #selection: Selection;
  readonly #groupScores: Int32Array;
  readonly #best: Int32Array;

  constructor(selection: Selection) {
    this.#selection = selection;
    this.#groupScores = new Int32Array(selection.groups?.count ?? 0);
    this.#best = new Int32Array(selection.topK);
  }

  /** Writes the K ids of a row of choices to `ids` from `at` on. */
  select(choices: Int32Array, ids: Uint32Array | Uint16Array | Uint8Array, at: number): void {
    const { numExperts, topK, groups } = this.#selection;
    const best = this.#best;
    // A loop: K is small, and `fill` leaves compiled code.
    for (let k = 0; k < topK; k++) best[k] = LOWEST;
    const last = topK - 1;
    const numGroups = groups?.count ?? 1;
    const groupSize = numExperts / numGroups;
    // The worst of the best, at hand: most experts are none of them.
    let least = LOWEST;
    if (groups !== null) this.#scoreGroups(choices, groupSize, groups.score === 'top2-sum');
    for (let group = 0; group < numGroups; group++) {
      if (groups !== null && !this.#isKept(group, groups.keep)) continue;
      for (let expert = group * groupSize; expert < (group + 1) * groupSize; expert++) {
        const key = choices[expert]! * ID_RANGE + ID_RANGE - 1 - expert;
        if (key <= least) continue;
        let k = last;
        for (; k > 0 && best[k - 1]! < key; k--) best[k] = best[k - 1]!;
        best[k] = key;
        least = best[last]!;
      }
    }
    for (let k = 0; k < topK; k++) ids[at + k] = ID_RANGE - 1 - (best[k]! & (ID_RANGE - 1));
  }

  #scoreGroups(choices: Int32Array, groupSize: number, isSum: boolean): void {
    for (let group = 0; group < this.#groupScores.length; group++) {
      let [first, second] = [LOWEST, LOWEST];
      for (let expert = group * groupSize; expert < (group + 1) * groupSize; expert++) {
        second = Math.max(second, Math.min(first, choices[expert]!));
        first = Math.max(first, choices[expert]!);
      }
      this.#groupScores[group] = isSum ? first + second : first;
    }
  }

  /** Of equal groups the smaller one is better. */
  #isKept(group: number, keep: number): boolean {
    const scores = this.#groupScores;
    let better = 0;
    for (let other = 0; other < scores.length; other++) {
      if (scores[other]! > scores[group]! || (scores[other] === scores[group] && other < group)) better += 1;
    }
    return better < keep;
  }
}

/**
 * @param params `[0]` rows, `[1]` the first of them in `ids`
 * @param choices `[rows, E]`, integers in f32
 * @param ids `[…, K]`
 */
export function select(selection: Selection, params: Uint32Array, choices: Uint32Array, ids: Uint32Array): void {
  const { numExperts, topK } = selection;
  const selector = new Selector(selection);
  const values = new Float32Array(choices.buffer, choices.byteOffset, choices.length);
  const row = new Int32Array(numExperts);
  for (let i = 0; i < params[0]!; i++) {
    row.set(values.subarray(i * numExperts, (i + 1) * numExperts));
    selector.select(row, ids, (params[1]! + i) * topK);
  }
}
