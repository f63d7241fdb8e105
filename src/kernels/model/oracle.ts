/**
 * The model as one function of the tokens: what every design must deliver, computed with no device, no KV cache and no
 * batch. `oracle(tokens) → rows, next tokens` (L2).
 */

import type { ModelConfig } from '../../contract/config.ts';
import { checkModel } from './kernel-shape.ts';
import { NextLogprobs } from './logprobs.ts';
import { nextToken } from './mix/mix.ts';
import { PrefixDigest } from './prefix-digest.ts';
import { Router } from './route/route.ts';

/** One sequence, token by token. `router` may be shared: it holds the model's weights. */
export class Oracle {
  readonly router: Router;
  readonly #digest = new PrefixDigest();

  constructor(router: Router) {
    this.router = router;
  }

  /** Tokens taken so far: the position of the next. */
  get position(): number {
    return this.#digest.position;
  }

  /** Takes the next token and returns its successor. `epoch`: of the forward pass that computed its key. */
  push(token: number, epoch: number = 0): number {
    this.#digest.push(token, epoch);
    return nextToken(this.#digest.hiddenX, this.#digest.hiddenY, this.router.model.vocabSize);
  }

  /** Writes the row of the token pushed last, `L · K` ids, to `ids` from `at` on. */
  row(ids: Uint32Array | Uint16Array | Uint8Array, at: number = 0): void {
    this.router.route(this.#digest.hiddenX, this.#digest.hiddenY, ids, at);
  }

  /** Of what can follow the token pushed last. */
  logprobs(): NextLogprobs {
    return new NextLogprobs(this.#digest, this.router.model.vocabSize);
  }

  /** Back to an empty sequence. */
  reset(): void {
    this.#digest.reset();
  }
}

export type OracleAnswer = Readonly<{
  /** `[tokens.length, L, K]`. */
  rows: Uint32Array;
  /** `nextTokens[p]` is sampled from the tokens `[0, p]`. */
  nextTokens: Uint32Array;
}>;

/** Rows and next tokens of a whole sequence. Throws `BAD_VALUE` for a model that the router cannot hold. */
export function oracle(model: ModelConfig, tokens: ArrayLike<number>): OracleAnswer {
  checkModel(model);
  const sequence = new Oracle(new Router(model));
  const rowLength = model.numLayers * model.topK;
  const rows = new Uint32Array(tokens.length * rowLength);
  const nextTokens = new Uint32Array(tokens.length);
  for (let position = 0; position < tokens.length; position++) {
    nextTokens[position] = sequence.push(tokens[position]!);
    sequence.row(rows, position * rowLength);
  }
  return { rows, nextTokens };
}
