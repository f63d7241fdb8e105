/**
 * Finds the place of each request of a step in the worker's output, whose order is the worker's own.
 *
 *     request index ──table──▶ place in the scheduler's order ──positions──▶ place in the worker's order
 *
 * The table is open-addressed over the indices of one step, at most half full, and cleared by counting `#generation`
 * up. Indices of live requests are mostly neighbours, so `index & mask` rarely collides.
 */

import { RoutedExpertsError } from '../contract/errors.ts';
import type { ModelRunnerOutput } from '../contract/model-runner-output.ts';
import type { ScheduledStep } from './scheduled-step.ts';

export class WorkerOrder {
  /** Entry `i`: the place in the worker's order of the i-th scheduled request. */
  positions: Int32Array = new Int32Array(16);
  #places: Int32Array = new Int32Array(32);
  #generations: Uint32Array = new Uint32Array(32);
  #generation = 0;
  #step: ScheduledStep | null = null;
  #isIndexed = false;

  /**
   * Reads a worker's output. Throws INVARIANT, before anything of the engine has changed, if it cannot be the output of
   * this step: it has other requests, a token too many, or no token where the step samples.
   */
  read(step: ScheduledStep, output: ModelRunnerOutput): void {
    const { count } = step;
    this.#step = step;
    this.#isIndexed = false;
    if (output.numRequests !== count) throw wrong(output, `${output.numRequests} requests instead of ${count}`);
    if (this.positions.length < count) this.positions = new Int32Array(count * 2);
    const { positions } = this;
    const { requestIndices, draftOffsets } = step.output;
    const { samples } = step;
    positions.fill(-1, 0, count);
    let from = output.sampledOffsets[0]!;
    for (let w = 0; w < count; w += 1) {
      const index = output.requestIndices[w]!;
      const i = index === requestIndices[w] ? w : this.placeOf(index);
      if (i < 0) throw wrong(output, `request ${index}, which was not scheduled`);
      if (positions[i] !== -1) throw wrong(output, `request ${index} twice`);
      positions[i] = w;
      const to = output.sampledOffsets[w + 1]!;
      const numSampled = to - from;
      const most = samples[i] === 0 ? 0 : 1 + draftOffsets[i + 1]! - draftOffsets[i]!;
      if (numSampled > most || (numSampled === 0 && most > 0)) {
        throw wrong(output, `${numSampled} tokens for request ${index}, which can have ${most}`);
      }
      from = to;
    }
  }

  /** Returns the place of a request in the scheduler's order, or −1. */
  placeOf(index: number): number {
    if (!this.#isIndexed) this.#buildTable();
    const mask = this.#places.length - 1;
    const { requestIndices } = this.#step!.output;
    for (let at = index & mask; this.#generations[at] === this.#generation; at = (at + 1) & mask) {
      const place = this.#places[at]!;
      if (requestIndices[place] === index) return place;
    }
    return -1;
  }

  /** Lets go of the step. */
  clear(): void {
    this.#step = null;
    this.#isIndexed = false;
  }

  #buildTable(): void {
    const { count, output } = this.#step!;
    let { length } = this.#places;
    if (length < count * 2) {
      while (length < count * 2) length *= 2;
      this.#places = new Int32Array(length);
      this.#generations = new Uint32Array(length);
      this.#generation = 0;
    }
    if (this.#generation === 0xffff_ffff) {
      this.#generations.fill(0);
      this.#generation = 0;
    }
    this.#generation += 1;
    const mask = length - 1;
    for (let i = 0; i < count; i += 1) {
      let at = output.requestIndices[i]! & mask;
      while (this.#generations[at] === this.#generation) at = (at + 1) & mask;
      this.#generations[at] = this.#generation;
      this.#places[at] = i;
    }
    this.#isIndexed = true;
  }
}

const wrong = (output: ModelRunnerOutput, what: string): Error =>
  RoutedExpertsError.of('INVARIANT', `the output of step ${output.stepId} has ${what}`);
