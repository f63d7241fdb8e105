/**
 * The gate in TypeScript: what every expert's choice is for a hidden state, as `gate*.wgsl` compute it.
 *
 *     gate inputs  x[G] = nibbles − 8 of hashes of (hidden, layer)
 *     weights      w[L, E, G] = nibbles − 8 of hashes of their place
 *     logit[e]     Σ x[g] · w[layer, e, g]
 *     choice[e]    what expert-scores.ts makes of the logit
 */

import type { ModelConfig } from '../../../contract/config.ts';
import {
  ChoiceKind,
  RECIPROCAL_ONE,
  SCORE_SHIFT,
  choiceKind,
  lowestLogit,
  scoreTable,
  selectionBias,
} from './expert-scores.ts';
import { Header } from '../step-input.ts';
import { gateSeed, gateWord, weightWord } from '../mix/mix.ts';

/** The gate weights `[L, E, G]` as f32. */
export function gateWeights(model: ModelConfig): Float32Array<ArrayBuffer> {
  const { numLayers, numExperts, gateWidth, firstLayer = 0 } = model;
  const weights = new Float32Array(numLayers * numExperts * gateWidth);
  const firstWord = (firstLayer * numExperts * gateWidth) / 8;
  for (let word = 0; word < weights.length / 8; word++) {
    const bits = weightWord(firstWord + word);
    for (let nibble = 0; nibble < 8; nibble++) weights[8 * word + nibble] = ((bits >>> (4 * nibble)) & 15) - 8;
  }
  return weights;
}

/**
 * Holds a model's weights; no state between tokens.
 *
 * Two experts share a multiplication: with inputs and weights as nibbles in [0, 15] a logit's raw sum is at most 225 ·
 * G < 2^16, so one word holds two weights, and the product of word and input two products. Σ (x−8)(w−8) = Σ xw − 8 Σ w
 * − 8 Σ x + 64 G.
 */
export class Gate {
  readonly #model: ModelConfig;
  readonly #kind: ChoiceKind;
  /** `[L, ⌈E / 2⌉, G]`: weights of experts 2i and 2i + 1 in the low and the high half. */
  readonly #weights: Int32Array;
  /** `[L, 2 ⌈E / 2⌉]`: 64 G − 8 Σ w. */
  readonly #offsets: Int32Array;
  readonly #table: Int32Array;
  /** `[L, E]`, zeros without a bias. */
  readonly #bias: Int32Array;
  readonly #inputs: Int32Array;

  constructor(model: ModelConfig) {
    const { numLayers, numExperts, gateWidth, routingFunction } = model;
    const pairs = Math.ceil(numExperts / 2);
    this.#model = model;
    this.#kind = choiceKind(model);
    this.#weights = new Int32Array(numLayers * pairs * gateWidth);
    this.#offsets = new Int32Array(numLayers * pairs * 2);
    this.#table = scoreTable(model);
    const hasBias = routingFunction?.hasSelectionBias ?? false;
    this.#bias = hasBias ? selectionBias(model) : new Int32Array(numLayers * numExperts);
    this.#inputs = new Int32Array(gateWidth);
    const weights = gateWeights(model);
    for (let expert = 0; expert < numLayers * numExperts; expert++) {
      const layer = Math.floor(expert / numExperts);
      const own = expert % numExperts;
      let sum = 0;
      for (let g = 0; g < gateWidth; g++) {
        const nibble = weights[expert * gateWidth + g]! + 8;
        this.#weights[(layer * pairs + (own >> 1)) * gateWidth + g]! |= nibble << (16 * (own & 1));
        sum += nibble;
      }
      this.#offsets[layer * pairs * 2 + own] = 64 * gateWidth - 8 * sum;
    }
  }

  /**
   * Writes the choices of a hidden state's E experts at a layer, integers, to `choices`, which has room for one more.
   */
  choose(x: number, y: number, layer: number, choices: Int32Array): void {
    const seed = gateSeed(x, y, (this.#model.firstLayer ?? 0) + layer);
    if (this.#model.gateWidth === 8) this.#computeNarrow(gateWord(seed, 0), layer, choices);
    else this.#computeLogits(seed, layer, choices);
    if (this.#kind === ChoiceKind.table) this.#lookUp(layer, choices);
    if (this.#kind === ChoiceKind.softmax) this.#normalize(layer, choices);
  }

  #computeLogits(seed: number, layer: number, choices: Int32Array): void {
    const { gateWidth, numExperts } = this.#model;
    const inputs = this.#inputs;
    const weights = this.#weights;
    let excess = 0;
    for (let g = 0; g < gateWidth; g++) {
      inputs[g] = (gateWord(seed, g >> 3) >>> (4 * (g & 7))) & 15;
      excess += 8 * inputs[g]!;
    }
    const pairs = Math.ceil(numExperts / 2);
    let weight = layer * pairs * gateWidth;
    for (let pair = 0; pair < pairs; pair++) {
      let sums = 0;
      for (let g = 0; g < gateWidth; g++) sums = (sums + Math.imul(inputs[g]!, weights[weight + g]!)) | 0;
      weight += gateWidth;
      const at = 2 * (layer * pairs + pair);
      choices[2 * pair] = (sums & 0xffff) + this.#offsets[at]! - excess;
      choices[2 * pair + 1] = (sums >>> 16) + this.#offsets[at + 1]! - excess;
    }
  }

  /** `#computeLogits` for the default gate width, with the inputs in registers. */
  #computeNarrow(word: number, layer: number, choices: Int32Array): void {
    const weights = this.#weights;
    const offsets = this.#offsets;
    const a = word & 15;
    const b = (word >>> 4) & 15;
    const c = (word >>> 8) & 15;
    const d = (word >>> 12) & 15;
    const e = (word >>> 16) & 15;
    const f = (word >>> 20) & 15;
    const g = (word >>> 24) & 15;
    const h = word >>> 28;
    const excess = 8 * (a + b + c + d + e + f + g + h);
    const pairs = Math.ceil(this.#model.numExperts / 2);
    let at = 2 * layer * pairs;
    for (let pair = 0; pair < pairs; pair++, at += 2) {
      const w = 4 * at;
      const low = Math.imul(a, weights[w]!) + Math.imul(b, weights[w + 1]!) + Math.imul(c, weights[w + 2]!);
      const middle = Math.imul(d, weights[w + 3]!) + Math.imul(e, weights[w + 4]!) + Math.imul(f, weights[w + 5]!);
      const high = Math.imul(g, weights[w + 6]!) + Math.imul(h, weights[w + 7]!);
      const sums = (low + middle + high) | 0;
      choices[2 * pair] = (sums & 0xffff) + offsets[at]! - excess;
      choices[2 * pair + 1] = (sums >>> 16) + offsets[at + 1]! - excess;
    }
  }

  #lookUp(layer: number, choices: Int32Array): void {
    const { numExperts, gateWidth } = this.#model;
    const offset = lowestLogit(gateWidth);
    const firstBias = layer * numExperts;
    for (let e = 0; e < numExperts; e++) choices[e] = this.#table[choices[e]! + offset]! + this.#bias[firstBias + e]!;
  }

  #normalize(layer: number, choices: Int32Array): void {
    const { numExperts } = this.#model;
    const firstBias = layer * numExperts;
    let largest = choices[0]!;
    for (let e = 1; e < numExperts; e++) largest = Math.max(largest, choices[e]!);
    let sum = 0;
    for (let e = 0; e < numExperts; e++) {
      choices[e] = this.#table[largest - choices[e]!]!;
      sum += choices[e]!;
    }
    const reciprocal = Math.floor(RECIPROCAL_ONE / sum);
    for (let e = 0; e < numExperts; e++) {
      choices[e] = (Math.imul(choices[e]!, reciprocal) >>> SCORE_SHIFT) + this.#bias[firstBias + e]!;
    }
  }
}

/**
 * @param stepInput see step-input.ts
 * @param hidden `[maxNumBatchedTokens, 4]`
 * @param params `[1]` is the chunk's first row, `[0]` becomes its number of rows
 * @param output `[tokens of a chunk · L, E]` choices, integers in f32
 */
export function gate(
  own: Gate,
  { numLayers, numExperts }: Pick<ModelConfig, 'numLayers' | 'numExperts'>,
  stepInput: Uint32Array,
  hidden: Uint32Array,
  params: Uint32Array,
  output: Uint32Array,
): void {
  const firstToken = params[1]! / numLayers;
  const chunkTokens = Math.floor(output.length / (numLayers * numExperts));
  const numTokens = Math.min(stepInput[Header.numTokens]! - firstToken, chunkTokens);
  const values = new Float32Array(output.buffer, output.byteOffset, output.length);
  const choices = new Int32Array(numExperts + 1);
  params[0] = numTokens * numLayers;
  for (let row = 0; row < numTokens * numLayers; row++) {
    const token = firstToken + Math.floor(row / numLayers);
    own.choose(hidden[4 * token]!, hidden[4 * token + 1]!, row % numLayers, choices);
    values.set(choices.subarray(0, numExperts), row * numExperts);
  }
}
