/**
 * The router in TypeScript: what `wgsl/route-*.wgsl` compute, and what the oracle computes from hidden states alone. Here is plain top-k; what other
 * routing functions make of the same logits is in scored-router.ts.
 *
 *     gate inputs x[G] = nibbles − 8 of hashes of (hidden, layer)      weights w[L, E, G] = nibbles − 8 of hashes of their place
 *     logit[e] = Σ x[g] · w[layer, e, g]                               ids = the K largest logits, ties to the smaller id
 */

import type { ModelConfig } from '../../contract/config.ts';
import { Header } from '../step-input.ts';
import { isPlainTopK, PLAIN } from '../routing-function.ts';
import { gateSeed, gateWord, weightWord } from './mix.ts';
import { ScoredRouter } from './scored-router.ts';

/** Shares a number with the inverted id; also the most experts there can be. */
const ID_RANGE = 1024;

/** Under every key, with room to add a raw sum without wrapping. */
const LOWEST = -0x4000_0000;

/** The gate weights `[L, E, G]` as f32, scaled by `scale`. */
export function gateWeights(model: ModelConfig, scale: number = 1): Float32Array<ArrayBuffer> {
  const weights = new Float32Array(model.numLayers * model.numExperts * model.gateWidth);
  for (let word = 0; word < weights.length / 8; word++) {
    const bits = weightWord(word);
    for (let nibble = 0; nibble < 8; nibble++)
      weights[8 * word + nibble] = scale * (((bits >>> (4 * nibble)) & 15) - 8);
  }
  return weights;
}

/**
 * Routes one token at a time through all layers. Holds the model's weights; no state between tokens.
 *
 * Two experts share a multiplication: with inputs and weights as nibbles in [0, 15] a logit's raw sum is at most 225 · G < 2^16, so one word
 * holds two weights, and the product of word and input two products. Σ (x−8)(w−8) = Σ xw − 8 Σ w − 8 Σ x + 64 G; the last two terms
 * are the same for all experts of a token, so selection goes without them; the second is in `bias`, with the inverted id.
 */
export class Router {
  readonly model: ModelConfig;
  /** `[L, ⌈E / 2⌉, G]`: weights of experts 2i and 2i + 1 in the low and the high half. */
  readonly #weights: Int32Array;
  /** `[L, 2 ⌈E / 2⌉]`: −8 Σ w · 1024 + 1023 − id. */
  readonly #bias: Int32Array;
  readonly #inputs: Int32Array;
  readonly #best: Int32Array;
  /** Does everything where selection is not plain top-k; nothing else is filled then. */
  readonly #scored: ScoredRouter | null;

  constructor(model: ModelConfig) {
    const isPlain = isPlainTopK(model.routingFunction ?? PLAIN);
    const { numExperts, gateWidth } = model;
    const numLayers = isPlain ? model.numLayers : 0;
    this.#scored = isPlain ? null : new ScoredRouter(model);
    const pairs = Math.ceil(numExperts / 2);
    this.model = model;
    this.#weights = new Int32Array(numLayers * pairs * gateWidth);
    this.#bias = new Int32Array(numLayers * pairs * 2).fill(LOWEST);
    this.#inputs = new Int32Array(gateWidth);
    this.#best = new Int32Array(model.topK);
    if (!isPlain) return;
    const weights = gateWeights(model);
    for (let layer = 0; layer < numLayers; layer++) {
      for (let expert = 0; expert < numExperts; expert++) {
        const from = (layer * numExperts + expert) * gateWidth;
        const to = (layer * pairs + (expert >> 1)) * gateWidth;
        let sum = 0;
        for (let g = 0; g < gateWidth; g++) {
          const nibble = weights[from + g]! + 8;
          this.#weights[to + g]! |= nibble << (16 * (expert & 1));
          sum += nibble;
        }
        this.#bias[layer * pairs * 2 + expert] = -8 * sum * ID_RANGE + ID_RANGE - 1 - expert;
      }
    }
  }

  /** Writes the row of hidden state `(x, y)`, `L · K` ids, to `ids` from `at` on. */
  route(x: number, y: number, ids: Uint32Array | Uint16Array | Uint8Array, at: number): void {
    if (this.#scored !== null) {
      this.#scored.route(x, y, ids, at);
      return;
    }
    const { numLayers, topK, gateWidth } = this.model;
    const best = this.#best;
    for (let layer = 0; layer < numLayers; layer++) {
      best.fill(LOWEST);
      const seed = gateSeed(x, y, layer);
      if (gateWidth === 8) this.#selectNarrow(gateWord(seed, 0), layer);
      else this.#select(seed, layer);
      const row = at + layer * topK;
      for (let k = 0; k < topK; k++) ids[row + k] = ID_RANGE - 1 - (best[k]! & (ID_RANGE - 1));
    }
  }

  #select(seed: number, layer: number): void {
    const { gateWidth } = this.model;
    const inputs = this.#inputs;
    const weights = this.#weights;
    for (let chunk = 0; chunk < gateWidth / 8; chunk++) {
      const word = gateWord(seed, chunk);
      for (let nibble = 0; nibble < 8; nibble++) inputs[8 * chunk + nibble] = (word >>> (4 * nibble)) & 15;
    }
    const pairs = Math.ceil(this.model.numExperts / 2);
    let weight = layer * pairs * gateWidth;
    for (let pair = layer * pairs; pair < (layer + 1) * pairs; pair++) {
      let sums = 0;
      for (let g = 0; g < gateWidth; g++) sums = (sums + Math.imul(inputs[g]!, weights[weight + g]!)) | 0;
      weight += gateWidth;
      this.#offer(sums, pair);
    }
  }

  /** `#select` for the default gate width, with the inputs in registers. */
  #selectNarrow(word: number, layer: number): void {
    const weights = this.#weights;
    const a = word & 15;
    const b = (word >>> 4) & 15;
    const c = (word >>> 8) & 15;
    const d = (word >>> 12) & 15;
    const e = (word >>> 16) & 15;
    const f = (word >>> 20) & 15;
    const g = (word >>> 24) & 15;
    const h = word >>> 28;
    const pairs = Math.ceil(this.model.numExperts / 2);
    const end = (layer + 1) * pairs;
    for (let pair = layer * pairs; pair < end; pair++) {
      const w = 8 * pair;
      const low = Math.imul(a, weights[w]!) + Math.imul(b, weights[w + 1]!) + Math.imul(c, weights[w + 2]!);
      const middle = Math.imul(d, weights[w + 3]!) + Math.imul(e, weights[w + 4]!) + Math.imul(f, weights[w + 5]!);
      const high = Math.imul(g, weights[w + 6]!) + Math.imul(h, weights[w + 7]!);
      this.#offer((low + middle + high) | 0, pair);
    }
  }

  /** Keeps the K largest keys in descending order. Keys are distinct: each holds its expert's id. */
  #offer(sums: number, pair: number): void {
    const best = this.#best;
    const last = best.length - 1;
    const even = (((sums & 0xffff) << 10) + this.#bias[2 * pair]!) | 0;
    if (even > best[last]!) insert(best, last, even);
    const odd = (((sums >>> 16) << 10) + this.#bias[2 * pair + 1]!) | 0;
    if (odd > best[last]!) insert(best, last, odd);
  }
}

function insert(best: Int32Array, last: number, key: number): void {
  let k = last;
  while (k > 0 && best[k - 1]! < key) {
    best[k] = best[k - 1]!;
    k -= 1;
  }
  best[k] = key;
}

/**
 * @param stepInput see step-input.ts
 * @param hidden `[maxNumBatchedTokens, 4]`
 * @param routedExperts `[maxNumBatchedTokens, L, K]` ids; rows of the step are written
 */
export function route(router: Router, stepInput: Uint32Array, hidden: Uint32Array, routedExperts: Uint32Array): void {
  const numTokens = stepInput[Header.numTokens]!;
  const rowLength = router.model.numLayers * router.model.topK;
  for (let row = 0; row < numTokens; row++) {
    router.route(hidden[4 * row]!, hidden[4 * row + 1]!, routedExperts, row * rowLength);
  }
}
