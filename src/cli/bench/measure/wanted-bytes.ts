/** Counts the rows of opted-in requests on their way to the workers: the most that may leave the devices (L5). */

import type { ModelConfig } from '../../../contract/config.ts';
import type { SchedulerOutput } from '../../../contract/scheduler-output.ts';
import { packedBytes } from '../../../kernels/model/kernel-shape.ts';

export class WantedBytes {
  /** The model, or what each pipeline stage has of it. */
  readonly #models: readonly ModelConfig[];
  /** Indices of requests that opted in. */
  readonly #optedIn: Set<number> = new Set();
  #bytes = 0;

  constructor(...models: readonly ModelConfig[]) {
    this.#models = models;
  }

  /**
   * Of one rank, or of one of each stage: for each step the rows of its tokens, drafts included, rounded up to the 4
   * bytes of a copy.
   */
  get bytes(): number {
    return this.#bytes;
  }

  add(step: SchedulerOutput): void {
    for (const { index, returnRoutedExperts } of step.newRequests) if (returnRoutedExperts) this.#optedIn.add(index);
    let numRows = 0;
    for (let i = 0; i < step.numRequests; i++) {
      if (this.#optedIn.has(step.requestIndices[i]!)) numRows += step.numScheduledTokens[i]!;
    }
    for (const model of this.#models) this.#bytes += packedBytes(model, numRows);
  }
}
