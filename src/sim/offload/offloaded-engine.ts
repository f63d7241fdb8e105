/** An engine whose evicted KV goes to host memory and files, and comes back, in one virtual time. */

import { ALONE } from '../engine-side.ts';
import type { Scenario } from '../scenario.ts';
import { Storm } from '../storm.ts';
import type { Clock } from '../virtual/event-heap.ts';
import { World, type RunContext } from '../world.ts';
import type { OffloadScenario } from './offload-scenario.ts';
import { VirtualTier } from './virtual-tier.ts';

export class OffloadedEngine {
  readonly #tier: VirtualTier;
  readonly #storm: Storm;

  /** `offload`: that of the scenario. */
  constructor(
    scenario: Scenario,
    offload: OffloadScenario,
    { run, clock }: Readonly<{ run: RunContext; clock: Clock }>,
  ) {
    const { tested, judge, marks } = run;
    this.#tier = new VirtualTier({ clock, judge, marks, offload, seed: scenario.seed }, scenario);
    const world = new World(scenario, run, { ...ALONE, connector: this.#tier });
    this.#storm = new Storm(world, tested, clock);
    this.#tier.attach(world, this.#storm);
  }

  get numSteps(): number {
    return this.#storm.numSteps;
  }

  /** After the last event. */
  checkEnd(): void {
    this.#tier.end();
    this.#storm.checkEnd();
    this.#tier.checkEnd();
  }
}
