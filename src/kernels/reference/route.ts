/**
 * The router in TypeScript: what `wgsl/route-*.wgsl` compute, and what the oracle computes from hidden states alone.
 *
 *     gate inputs x[G] = nibbles − 8 of hashes of (hidden, layer)      weights w[L, E, G] = nibbles − 8 of hashes of their place
 *     logit[e] = Σ x[g] · w[layer, e, g]                               ids = the K largest logits, ties to the smaller id
 */

import type { ModelConfig } from '../../contract/config.ts';
import { Header } from '../step-input.ts';
import { gateSeed, gateWord, weightWord } from './mix.ts';

/** Shares a number with the inverted id; also the most experts there can be. */
const ID_RANGE = 1024;

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

/** Routes one token at a time through all layers. Holds the model's weights; no state between tokens. */
export class Router {
  readonly model: ModelConfig;
  readonly #weights: Int32Array;
  readonly #inputs: Int32Array;
  readonly #best: Int32Array;

  constructor(model: ModelConfig) {
    this.model = model;
    this.#weights = Int32Array.from(gateWeights(model));
    this.#inputs = new Int32Array(model.gateWidth);
    this.#best = new Int32Array(model.topK);
  }

  /** Writes the row of hidden state `(x, y)`, `L · K` ids, to `ids` from `at` on. */
  route(x: number, y: number, ids: Uint32Array | Uint16Array | Uint8Array, at: number): void {
    const { numLayers, topK } = this.model;
    const best = this.#best;
    for (let layer = 0; layer < numLayers; layer++) {
      this.#gate(x, y, layer);
      if (this.model.gateWidth === 8) this.#selectNarrow(layer);
      else this.#select(layer);
      const row = at + layer * topK;
      for (let k = 0; k < topK; k++) ids[row + k] = ID_RANGE - 1 - (best[k]! & (ID_RANGE - 1));
    }
  }

  #gate(x: number, y: number, layer: number): void {
    const inputs = this.#inputs;
    const seed = gateSeed(x, y, layer);
    for (let chunk = 0; chunk < inputs.length / 8; chunk++) {
      const word = gateWord(seed, chunk);
      for (let nibble = 0; nibble < 8; nibble++) inputs[8 * chunk + nibble] = ((word >>> (4 * nibble)) & 15) - 8;
    }
  }

  #select(layer: number): void {
    const { numExperts, gateWidth } = this.model;
    this.#best.fill(-0x8000_0000);
    let weight = layer * numExperts * gateWidth;
    for (let expert = 0; expert < numExperts; expert++) {
      let logit = 0;
      for (let g = 0; g < gateWidth; g++) logit += this.#inputs[g]! * this.#weights[weight + g]!;
      weight += gateWidth;
      this.#insert(logit * ID_RANGE + ID_RANGE - 1 - expert);
    }
  }

  /** `#select` for the default gate width, with the inputs in registers: four times as fast. */
  #selectNarrow(layer: number): void {
    const { numExperts } = this.model;
    const weights = this.#weights;
    const [a, b, c, d, e, f, g, h] = this.#inputs as unknown as number[] as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const best = this.#best;
    best.fill(-0x8000_0000);
    const last = best.length - 1;
    let weight = layer * numExperts * 8;
    for (let expert = 0; expert < numExperts; expert++) {
      const logit =
        (Math.imul(a, weights[weight]!) +
          Math.imul(b, weights[weight + 1]!) +
          Math.imul(c, weights[weight + 2]!) +
          Math.imul(d, weights[weight + 3]!) +
          Math.imul(e, weights[weight + 4]!) +
          Math.imul(f, weights[weight + 5]!) +
          Math.imul(g, weights[weight + 6]!) +
          Math.imul(h, weights[weight + 7]!)) |
        0;
      weight += 8;
      const key = logit * ID_RANGE + ID_RANGE - 1 - expert;
      if (key > best[last]!) this.#insert(key);
    }
  }

  /** Keeps the K largest keys in descending order. Keys are distinct: each holds its expert's id. */
  #insert(key: number): void {
    const best = this.#best;
    let k = best.length - 1;
    if (key <= best[k]!) return;
    while (k > 0 && best[k - 1]! < key) {
      best[k] = best[k - 1]!;
      k -= 1;
    }
    best[k] = key;
  }
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
