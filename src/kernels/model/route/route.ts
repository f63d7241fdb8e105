/** The router in TypeScript: gate and selection, and so what the oracle computes from hidden states alone. */

import type { ModelConfig } from '../../../contract/config.ts';
import { routingFunctionOf } from '../../router/routing-function.ts';
import { Header } from '../step-input.ts';
import { Gate } from '../gate/gate.ts';
import { Selector } from '../../router/reference/select.ts';

/** Routes one token at a time through all layers. Holds the model's weights; no state between tokens. */
export class Router {
  readonly model: ModelConfig;
  readonly gate: Gate;
  readonly #selector: Selector;
  readonly #choices: Int32Array;

  constructor(model: ModelConfig) {
    this.model = model;
    this.gate = new Gate(model);
    this.#selector = new Selector(routingFunctionOf(model));
    this.#choices = new Int32Array(model.numExperts + 1);
  }

  /** Writes the row of hidden state `(x, y)`, `L · K` ids, to `ids` from `at` on. */
  route(x: number, y: number, ids: Uint32Array | Uint16Array | Uint8Array, at: number): void {
    const { numLayers, topK } = this.model;
    for (let layer = 0; layer < numLayers; layer++) {
      this.gate.choose(x, y, layer, this.#choices);
      this.#selector.select(this.#choices, ids, at + layer * topK);
    }
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
