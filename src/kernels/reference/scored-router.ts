/**
 * The router of routing functions that are not plain top-k, in TypeScript: what `wgsl/route-scored*.wgsl` compute. Logits as in route.ts; what
 * becomes of them, and why it is exact, is in ../expert-scores.ts.
 */

import type { ModelConfig } from '../../contract/config.ts';
import {
  ChoiceKind,
  RECIPROCAL_ONE,
  SCORE_SHIFT,
  choiceKind,
  lowestLogit,
  scoreTable,
  selectionBias,
} from '../expert-scores.ts';
import { PLAIN } from '../routing-function.ts';
import { gateSeed, gateWord, weightWord } from './mix.ts';

const ID_RANGE = 1024;
const LOWEST = -0x8000_0000;

/** Routes one token at a time through all layers. Holds the model's weights; no state between tokens. */
export class ScoredRouter {
  readonly #model: ModelConfig;
  readonly #kind: ChoiceKind;
  /** `[L, E, G]` */
  readonly #weights: Int8Array;
  readonly #table: Int32Array;
  /** `[L, E]`, zeros without a bias. */
  readonly #bias: Int32Array;
  readonly #inputs: Int32Array;
  readonly #choices: Int32Array;
  readonly #groupScores: Int32Array;
  readonly #best: Int32Array;

  constructor(model: ModelConfig) {
    const { numLayers, numExperts, gateWidth, topK, routingFunction = PLAIN } = model;
    const numWeights = numLayers * numExperts * gateWidth;
    this.#model = model;
    this.#kind = choiceKind(model);
    this.#weights = Int8Array.from({ length: numWeights }, (_, i) => ((weightWord(i >> 3) >>> (4 * (i & 7))) & 15) - 8);
    this.#table = scoreTable(model);
    this.#bias = routingFunction.hasSelectionBias ? selectionBias(model) : new Int32Array(numLayers * numExperts);
    this.#inputs = new Int32Array(gateWidth);
    this.#choices = new Int32Array(numExperts);
    this.#groupScores = new Int32Array(routingFunction.groups?.count ?? 0);
    this.#best = new Int32Array(topK);
  }

  /** Writes the row of hidden state `(x, y)`, `L · K` ids, to `ids` from `at` on. */
  route(x: number, y: number, ids: Uint32Array | Uint16Array | Uint8Array, at: number): void {
    const { numLayers, topK } = this.#model;
    for (let layer = 0; layer < numLayers; layer++) {
      this.#computeLogits(gateSeed(x, y, layer), layer);
      this.#makeChoices(layer);
      this.#select();
      for (let k = 0; k < topK; k++) ids[at + layer * topK + k] = ID_RANGE - 1 - (this.#best[k]! & (ID_RANGE - 1));
    }
  }

  #computeLogits(seed: number, layer: number): void {
    const { numExperts, gateWidth } = this.#model;
    const inputs = this.#inputs;
    const weights = this.#weights;
    for (let chunk = 0; chunk < gateWidth / 8; chunk++) {
      const word = gateWord(seed, chunk);
      for (let nibble = 0; nibble < 8; nibble++) inputs[8 * chunk + nibble] = ((word >>> (4 * nibble)) & 15) - 8;
    }
    let weight = layer * numExperts * gateWidth;
    for (let expert = 0; expert < numExperts; expert++) {
      let sum = 0;
      for (let g = 0; g < gateWidth; g++) sum += Math.imul(inputs[g]!, weights[weight + g]!);
      weight += gateWidth;
      this.#choices[expert] = sum;
    }
  }

  /** Logits become choices, in place. */
  #makeChoices(layer: number): void {
    if (this.#kind === ChoiceKind.logit) return;
    const { numExperts, gateWidth } = this.#model;
    const choices = this.#choices;
    const table = this.#table;
    const firstBias = layer * numExperts;
    if (this.#kind === ChoiceKind.table) {
      const offset = lowestLogit(gateWidth);
      for (let e = 0; e < numExperts; e++) choices[e] = table[choices[e]! + offset]! + this.#bias[firstBias + e]!;
      return;
    }
    let largest = LOWEST;
    for (let e = 0; e < numExperts; e++) largest = Math.max(largest, choices[e]!);
    let sum = 0;
    for (let e = 0; e < numExperts; e++) {
      choices[e] = table[largest - choices[e]!]!;
      sum += choices[e]!;
    }
    const reciprocal = Math.floor(RECIPROCAL_ONE / sum);
    for (let e = 0; e < numExperts; e++) {
      choices[e] = (Math.imul(choices[e]!, reciprocal) >>> SCORE_SHIFT) + this.#bias[firstBias + e]!;
    }
  }

  /** Keeps the K largest keys of the kept groups in `#best`, descending. */
  #select(): void {
    const { numExperts, routingFunction = PLAIN } = this.#model;
    const best = this.#best.fill(LOWEST);
    const last = best.length - 1;
    const numGroups = routingFunction.groups?.count ?? 1;
    const groupSize = numExperts / numGroups;
    if (numGroups > 1) this.#scoreGroups(groupSize);
    for (let group = 0; group < numGroups; group++) {
      if (numGroups > 1 && !this.#isKept(group)) continue;
      for (let expert = group * groupSize; expert < (group + 1) * groupSize; expert++) {
        const key = this.#choices[expert]! * ID_RANGE + ID_RANGE - 1 - expert;
        if (key <= best[last]!) continue;
        let k = last;
        for (; k > 0 && best[k - 1]! < key; k--) best[k] = best[k - 1]!;
        best[k] = key;
      }
    }
  }

  #scoreGroups(groupSize: number): void {
    const isSum = this.#model.routingFunction!.groups!.score === 'top2-sum';
    for (let group = 0; group < this.#groupScores.length; group++) {
      let [first, second] = [LOWEST, LOWEST];
      for (let expert = group * groupSize; expert < (group + 1) * groupSize; expert++) {
        const choice = this.#choices[expert]!;
        second = Math.max(second, Math.min(first, choice));
        first = Math.max(first, choice);
      }
      this.#groupScores[group] = isSum ? first + second : first;
    }
  }

  /** Of equal groups the smaller one is better. */
  #isKept(group: number): boolean {
    const scores = this.#groupScores;
    let better = 0;
    for (let other = 0; other < scores.length; other++) {
      if (scores[other]! > scores[group]! || (scores[other] === scores[group] && other < group)) better += 1;
    }
    return better < this.#model.routingFunction!.groups!.keep;
  }
}
