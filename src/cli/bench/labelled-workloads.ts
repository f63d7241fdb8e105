/** One workload with other tokens for each label. */

import type { Workload } from '../../workload/workload.ts';
import type { PlannedRun } from './plan.ts';

/**
 * Equal tokens stay equal, so lengths, sharing and schedule are the same under every label; but no token, key, hash or
 * row of one label can pass for one of another. Workers, their tables and the device's memory live through all runs,
 * and no design gets a label twice.
 *
 * Runs of one repeat with the same label get the very same prompts, so that the oracle computes each answer once.
 */
export class LabelledWorkloads {
  readonly #workload: Workload;
  readonly #vocabSize: number;
  readonly #isRecorded: boolean;
  readonly #byLabel: Map<number, Workload> = new Map();
  #repeat = -1;

  /** `isRecorded`: the tokens are those of a recording, and stay what they are. */
  constructor(workload: Workload, vocabSize: number, isRecorded: boolean) {
    this.#workload = workload;
    this.#vocabSize = vocabSize;
    this.#isRecorded = isRecorded;
  }

  of({ label, repeat }: PlannedRun): Workload {
    if (this.#isRecorded) return this.#workload;
    if (repeat !== this.#repeat) this.#byLabel.clear();
    this.#repeat = repeat;
    let workload = this.#byLabel.get(label);
    if (workload === undefined) {
      const requests = this.#workload.requests.map((request) => ({
        ...request,
        promptTokenIds: request.promptTokenIds.map((token) => (token + label) % this.#vocabSize),
      }));
      workload = { ...this.#workload, requests };
      this.#byLabel.set(label, workload);
    }
    return workload;
  }
}
