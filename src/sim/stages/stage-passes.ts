/** The passes of a step on its stages, as the ledger wants them: one pass of all layers. */

import type { ModelConfig } from '../../contract/config.ts';
import type { Stage } from '../../worker/pipeline/stages/stage-plan.ts';
import type { Mark } from '../coverage.ts';
import type { Flight } from '../flight.ts';
import type { ExecutedStep, Ledger } from '../laws/ledger.ts';

type Passes = Readonly<{ ledger: Ledger; model: ModelConfig; stages: readonly Stage[] | null; marks: Set<Mark> }>;

/**
 * A stage's buffer is overwritten by its next pass, so what its router chose is copied when the pass has run. The pass
 * of the last stage has the tokens, and closes the step.
 */
export class StagePasses {
  readonly #passes: Passes;
  /** What the routers of a step's stages have chosen so far: `[numTokens, L, K]`. */
  readonly #routed: WeakMap<Flight, Uint32Array> = new WeakMap();
  /** Steps that are on a device. */
  #running: Flight[] = [];

  constructor(passes: Passes) {
    this.#passes = passes;
  }

  onSubmitted(flight: Flight): void {
    if (this.#running.some((each) => each !== flight)) this.#passes.marks.add('stages at work on different steps');
    this.#running.push(flight);
  }

  onExecuted(flight: Flight, stageIndex: number, executed: ExecutedStep): void {
    const { ledger, model, stages } = this.#passes;
    if (stages === null) {
      ledger.onExecuted(flight, executed);
      return;
    }
    this.#running = this.#running.filter((each) => each !== flight);
    const { firstLayer, numLayers, ends } = stages[stageIndex]!;
    const width = model.numLayers * model.topK;
    const own = numLayers * model.topK;
    const { numTokens } = executed.step;
    const routed = this.#routed.get(flight) ?? new Uint32Array(numTokens * width);
    this.#routed.set(flight, routed);
    for (let row = 0; row < numTokens; row += 1) {
      for (let i = 0; i < own; i += 1)
        routed[row * width + firstLayer * model.topK + i] = executed.routed[row * own + i]!;
    }
    if (!ends.sends) ledger.onExecuted(flight, { ...executed, routed });
  }

  /** The devices are gone, and what ran on them. */
  onDeviceLost(): void {
    if (this.#running.length > 0 && this.#passes.stages !== null) this.#passes.marks.add('workers lost between stages');
    this.#running = [];
  }
}
