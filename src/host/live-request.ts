/** One request of the library on its way: its tokens as they come, its rows at the end, and the one reader of both. */

import { RowJoiner } from '../capture/row-joiner.ts';
import type { WithLayers } from '../capture/row-layers.ts';
import type { EngineCoreOutput, FinishReason } from '../contract/engine-core-output.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';

/** What became of a request. */
export type GenerationResult = Readonly<{
  requestId: string;
  /** The sampled tokens, in order. */
  tokenIds: readonly number[];
  /** `length`, `stop` or `abort`. */
  finishReason: FinishReason;
  /** The stop token that ended it, or `null`. */
  stopReason: number | null;
  /** Prompt tokens that the first admission found in the prefix cache. */
  numCachedTokens: number;
  /**
   * One row of L·K expert ids for each token that was an input, from `routedExpertsPromptStart` on: prompt and output
   * tokens but the last. L counts the layers that have a router, or all (`rowsLayers`). `null`: the request did not ask
   * for rows, or its design has none.
   */
  rows: RoutedRows | null;
}>;

/** What came since the reader asked last. The last update has the result, and perhaps no token. */
export type GenerationUpdate = Readonly<{ newTokenIds: readonly number[]; result: GenerationResult | null }>;

export class LiveRequest {
  readonly requestId: string;
  readonly #withLayers: WithLayers;
  readonly #tokenIds: number[] = [];
  readonly #joiner: RowJoiner = new RowJoiner();
  #result: GenerationResult | null = null;
  #failure: unknown = null;
  #numRead = 0;
  #wake: (() => void) | null = null;

  constructor(requestId: string, withLayers: WithLayers) {
    this.requestId = requestId;
    this.#withLayers = withLayers;
  }

  /** Takes in an output of the engine. */
  add(output: EngineCoreOutput): void {
    this.#tokenIds.push(...output.newTokenIds);
    if (output.routedExperts !== null) this.#joiner.add(output.routedExperts);
    const { finishReason, stopReason } = output;
    if (finishReason !== null) {
      const { rows } = this.#joiner;
      this.#result = {
        requestId: this.requestId,
        tokenIds: this.#tokenIds,
        finishReason,
        stopReason,
        numCachedTokens: output.prefill?.numCachedTokens ?? 0,
        rows: rows && this.#withLayers(rows),
      };
    }
    this.#wakeUp();
  }

  /** The reader's next read rejects. */
  fail(failure: unknown): void {
    this.#failure = failure;
    this.#wakeUp();
  }

  /** Waits for news and returns all of it. Rejects with what the request failed with. One reader at a time. */
  async next(): Promise<GenerationUpdate> {
    while (this.#failure === null && this.#result === null && this.#numRead === this.#tokenIds.length) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#failure !== null) throw this.#failure;
    const newTokenIds = this.#tokenIds.slice(this.#numRead);
    this.#numRead = this.#tokenIds.length;
    return { newTokenIds, result: this.#result };
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
