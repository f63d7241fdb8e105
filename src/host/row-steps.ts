/** Which step computed each position of the live requests: the last that did, since a preempted request runs again. */

import type { SchedulerOutput } from '../contract/scheduler-output.ts';

/** As of the plan: a draft that is refused is computed again, by a later step. */
export class RowSteps {
  /** By the engine's index: it counts the requests that it takes. */
  readonly #steps = new Map<number, Int32Array>();
  readonly #indexOf = new Map<string, number>();
  #numRequests = 0;

  /** The engine has taken a request. To be called for each of them, in order. */
  added({ requestId, promptTokenIds }: Readonly<{ requestId: string; promptTokenIds: Uint32Array }>): void {
    const index = this.#numRequests++;
    this.#indexOf.set(requestId, index);
    this.#steps.set(index, unknown(promptTokenIds.length));
  }

  onBegin({ stepId, numRequests, requestIndices, numComputedTokens, numScheduledTokens }: SchedulerOutput): void {
    for (let i = 0; i < numRequests; i++) {
      const steps = this.#steps.get(requestIndices[i]!);
      if (steps === undefined) continue;
      const from = numComputedTokens[i]!;
      const to = from + numScheduledTokens[i]!;
      this.#withRoom(requestIndices[i]!, steps, to).fill(stepId, from, to);
    }
  }

  /** The steps of a request that has ended, by position, −1 where there was none; it is followed no longer. */
  take(requestId: string): Int32Array {
    const index = this.#indexOf.get(requestId);
    if (index === undefined) return unknown(0);
    const steps = this.#steps.get(index)!;
    this.#steps.delete(index);
    this.#indexOf.delete(requestId);
    return steps;
  }

  #withRoom(index: number, steps: Int32Array, length: number): Int32Array {
    if (length <= steps.length) return steps;
    const longer = unknown(2 * length);
    longer.set(steps);
    this.#steps.set(index, longer);
    return longer;
  }
}

function unknown(length: number): Int32Array {
  return new Int32Array(length).fill(-1);
}
